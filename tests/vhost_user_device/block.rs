//! `Block` of this crate over the device end.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use virtio::Error;
use virtio::drivers::{Block, BlockOptions};
use virtio::event::Deadline;
use virtio::soft::{self, NullBlock, VhostUserDevice};

use crate::Place;

fn open(device: &VhostUserDevice, queues: u16) -> Block {
    let mut options = BlockOptions::default();
    options.queues = queues;
    Block::open(&device.address(), options).unwrap()
}

#[test]
fn every_request_type_does_what_it_says() {
    let place = Place::new();
    let bytes = Arc::new(Mutex::new(vec![0; 1 << 20]));
    let device = VhostUserDevice::builder(soft::Block::memory(Arc::clone(&bytes)).id("over a socket"))
        .checked(true)
        .build(&place.0)
        .unwrap();
    let disk = open(&device, 1);
    assert_eq!(disk.size(), 1 << 20);
    let mut sector = [0; 4096];
    disk.write(0, &[7; 300 << 10]).unwrap();
    disk.flush().unwrap();
    disk.write_zeroes(4096, 4096, true).unwrap();
    disk.read(4096, &mut sector).unwrap();
    assert_eq!(sector, [0; 4096]);
    disk.read(0, &mut sector).unwrap();
    assert_eq!(sector, [7; 4096]);
    disk.discard(8192, 8192).unwrap();
    disk.secure_erase(64 << 10, 512).unwrap();
    assert_eq!(disk.get_id().unwrap(), "over a socket");
    assert_eq!(disk.lifetime().unwrap().device_lifetime_est_typ_a, 1);
    disk.set_writeback(false).unwrap();
    assert!(matches!(disk.read(1 << 20, &mut sector).unwrap_err().kind(), Error::OutOfBounds { .. }));
    let stored = bytes.lock().unwrap();
    for (at, byte) in [(0, 7), (4095, 7), (4096, 0), (8191, 0), (8192, 0), (16384, 7), (65536, 0), (66048, 7)]
    {
        assert_eq!(stored[at], byte, "byte {at}");
    }
    drop(stored);
    disk.close().unwrap();
    let report = device.report();
    assert_eq!((report.connections, report.error, report.device.broken), (1, None, None));
}

#[test]
fn several_queues_serve_several_threads() {
    let place = Place::new();
    let device = VhostUserDevice::builder(soft::Block::zeroes(4 << 11).with_queues(3))
        .checked(true)
        .build(&place.0)
        .unwrap();
    let disk = Arc::new(open(&device, 3));
    let threads: Vec<_> = (0..3u8)
        .map(|number| {
            let disk = Arc::clone(&disk);
            thread::spawn(move || {
                let at = u64::from(number) << 20;
                for round in 0..50 {
                    let data = vec![number.wrapping_add(round); 64 << 10];
                    disk.write(at, &data).unwrap();
                    let mut back = vec![0; data.len()];
                    disk.read(at, &mut back).unwrap();
                    assert!(back == data);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let report = device.report();
    assert!(report.device.chains >= 300);
    assert_eq!(report.device.broken, None);
}

#[test]
fn a_null_device_completes_all_that_it_is_asked() {
    for spin in [false, true] {
        let place = Place::new();
        let null = NullBlock::new(1 << 20).with_queues(2).spin(spin);
        let device = VhostUserDevice::null(&place.0, null).unwrap();
        let disk = open(&device, 2);
        assert_eq!((disk.size(), disk.read_only()), (512 << 20, false));
        let mut data = vec![9; 1 << 20];
        for _ in 0..200 {
            disk.write(0, &data).unwrap();
            disk.read(0, &mut data).unwrap();
        }
        disk.flush().unwrap();
        disk.close().unwrap();
        assert_eq!(device.report().error, None);
        // The connection's end is seen, and the next one is taken.
        let disk = open(&device, 1);
        disk.read(4096, &mut data[..4096]).unwrap();
        assert_eq!(device.report().connections, 2);
    }
}

/// A call costs the back-end a system call each: a driver that looks for itself wants none.
#[test]
fn a_driver_that_polls_is_not_called() {
    let place = Place::new();
    let device = VhostUserDevice::null(&place.0, NullBlock::new(1 << 20)).unwrap();
    let mut pipe = open(&device, 1).into_pipes().unwrap().remove(0);
    let pool = pipe.device().pool(8, 4096).unwrap();
    let end = Deadline::after(Duration::from_secs(20));
    for _ in 0..200 {
        for number in 0..8 {
            pipe.read(number * 4096, pool.take().unwrap(), number).unwrap();
        }
        pipe.send().unwrap();
        while pipe.under_way() != 0 {
            assert!(!end.passed(), "{} under way", pipe.under_way());
            drop(pipe.take().unwrap());
        }
    }
    // It counts when it has done what there was.
    let seen = loop {
        let seen = device.report().device;
        if seen.chains == 1600 {
            break seen;
        }
        assert!(!end.passed(), "{seen:?}");
    };
    assert_eq!(seen.interrupts, 0);
}
