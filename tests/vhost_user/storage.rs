//! Block against qemu-storage-daemon.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use virtio::Error;
use virtio::drivers::{Block, BlockOptions};
use virtio::event::Deadline;

use crate::daemon::{Daemon, Export, Place, image, over_file, tells_of_resizes};
use crate::random::Random;
use crate::soak_common::soak;

fn open(daemon: &Daemon, queues: u16) -> Block {
    let mut options = BlockOptions::default();
    options.queues = queues;
    Block::open(&daemon.address(), options).unwrap()
}

fn start(place: &Place, size: u64, queues: u16) -> Daemon {
    let file = image(place, size);
    Daemon::start(place, &Export { blockdevs: &over_file(&file), queues, writable: true })
}

#[test]
fn what_is_written_through_a_daemon_is_in_its_file_and_is_read_back() {
    let place = Place::new();
    let daemon = start(&place, 4 << 20, 1);
    let disk = open(&daemon, 1);
    assert_eq!(disk.size(), 4 << 20);
    let data = Random(1).bytes(1 << 20);
    disk.write(512, &data).unwrap();
    disk.flush().unwrap();
    let mut back = vec![0; data.len()];
    disk.read(512, &mut back).unwrap();
    assert!(back == data);
    assert!(fs::read(place.path("disk.img")).unwrap()[512..512 + data.len()] == data);
    disk.close().unwrap();
}

#[test]
fn random_writes_and_reads_of_256_mib_agree_with_the_file() {
    random_operations(256);
}

#[test]
#[ignore = "soak: 1 GiB"]
fn soak_random_writes_and_reads_agree_with_the_file() {
    soak("storage daemon, random writes and reads", 1024, "MiB", random_operations);
}

/// So many MiB written and read at random places, in lengths of 512 bytes to 1 MiB.
fn random_operations(mebibytes: u64) {
    const SIZE: usize = 64 << 20;
    let place = Place::new();
    let daemon = start(&place, SIZE as u64, 1);
    let disk = open(&daemon, 1);
    let (mut random, mut model, mut moved) = (Random(7), vec![0u8; SIZE], 0);
    while moved < mebibytes << 20 {
        let len = 512 << random.below(12);
        let at = (random.below((SIZE - len) / 512 + 1)) * 512;
        if random.below(2) == 0 {
            let data = random.bytes(len);
            disk.write(at as u64, &data).unwrap();
            model[at..at + len].copy_from_slice(&data);
        } else {
            let mut data = vec![0; len];
            disk.read(at as u64, &mut data).unwrap();
            assert!(data == model[at..at + len], "{len} bytes at {at}");
        }
        moved += len as u64;
    }
    disk.flush().unwrap();
    disk.close().unwrap();
    assert!(fs::read(place.path("disk.img")).unwrap() == model);
}

#[test]
fn every_request_type_does_what_it_says() {
    let place = Place::new();
    let daemon = start(&place, 1 << 20, 1);
    let disk = open(&daemon, 1);
    let file = fs::File::open(place.path("disk.img")).unwrap();
    let mut sector = [0; 4096];
    disk.write(0, &[7; 64 << 10]).unwrap();
    disk.flush().unwrap();
    disk.write_zeroes(4096, 4096, true).unwrap();
    disk.read(4096, &mut sector).unwrap();
    assert_eq!(sector, [0; 4096]);
    file.read_exact_at(&mut sector, 0).unwrap();
    assert_eq!(sector, [7; 4096]);
    disk.discard(8192, 8192).unwrap();
    disk.read(8192, &mut sector).unwrap();
    assert_eq!(sector, [0; 4096], "a hole of a file reads as zeroes");
    assert_eq!(disk.get_id().unwrap(), "vhost_user_blk");
    assert!(matches!(disk.lifetime().unwrap_err().kind(), Error::Unsupported { .. }));
    assert!(matches!(disk.secure_erase(0, 512).unwrap_err().kind(), Error::Unsupported { .. }));
    assert!(matches!(disk.read(1 << 20, &mut sector).unwrap_err().kind(), Error::OutOfBounds { .. }));
    disk.set_writeback(false).unwrap();
    disk.write(0, &[9; 512]).unwrap();
    disk.read(0, &mut sector).unwrap();
    assert_eq!(sector[511..513], [9, 7]);
    let pool = disk.device().pool(2, 4096).unwrap();
    let buf = disk.read_into(0, pool.take().unwrap()).unwrap();
    let buf = disk.write_from(16 << 10, buf).unwrap();
    assert_eq!(buf.to_vec().unwrap(), sector);
    disk.close().unwrap();
}

#[test]
fn a_read_only_export_takes_no_writes() {
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let daemon = Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 1, writable: false });
    let disk = open(&daemon, 1);
    assert!(disk.read_only());
    assert_eq!(*disk.write(0, &[0; 512]).unwrap_err().kind(), Error::ReadOnly);
    disk.read(0, &mut [0; 512]).unwrap();
}

#[test]
fn e12_errors_of_the_back_end_s_storage_fail_their_request_and_no_other() {
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let nodes = [
        format!("driver=file,node-name=f,filename={}", file.display()),
        // Sector 8 cannot be read or written.
        r#"{"driver":"blkdebug","node-name":"d","image":"f","inject-error":[
            {"event":"none","iotype":"read","errno":5,"sector":8},
            {"event":"none","iotype":"write","errno":28,"sector":8}]}"#
            .to_owned(),
    ];
    let daemon = Daemon::start(&place, &Export { blockdevs: &nodes, queues: 1, writable: true });
    let disk = open(&daemon, 1);
    let mut data = [0; 512];
    disk.write(7 * 512, &[1; 512]).unwrap();
    for _ in 0..3 {
        assert_eq!(*disk.write(8 * 512, &[1; 512]).unwrap_err().kind(), Error::Request { status: 1 });
        assert_eq!(*disk.read(8 * 512, &mut data).unwrap_err().kind(), Error::Request { status: 1 });
        disk.read(7 * 512, &mut data).unwrap();
        assert_eq!(data, [1; 512]);
    }
    disk.close().unwrap();
}

#[test]
fn two_queues_serve_two_threads() {
    let place = Place::new();
    let daemon = start(&place, 16 << 20, 2);
    let disk = open(&daemon, 2);
    assert_eq!(disk.queues(), 2);
    thread::scope(|scope| {
        for number in 0..2u64 {
            let disk = &disk;
            scope.spawn(move || {
                let mut random = Random(number + 1);
                for round in 0..200 {
                    let data = random.bytes(32 << 10);
                    let at = number * (8 << 20) + round % 64 * (64 << 10);
                    disk.write(at, &data).unwrap();
                    let mut back = vec![0; data.len()];
                    disk.read(at, &mut back).unwrap();
                    assert!(back == data, "thread {number}, round {round}");
                }
            });
        }
    });
    let used = (0..2).filter(|&queue| disk.counters(queue).unwrap().used > 0).count();
    assert_eq!(used, 2, "each thread has its own queue");
    disk.close().unwrap();
}

#[test]
fn c16_a_resized_disk_is_told_and_used() {
    let place = Place::new();
    let daemon = start(&place, 1 << 20, 1);
    let disk = open(&daemon, 1);
    if !tells_of_resizes() {
        daemon.qmp(r#"{"execute":"block_resize","arguments":{"node-name":"d","size":4194304}}"#);
        let refused = disk.write(3 << 20, &[3; 512]).unwrap_err();
        assert!(matches!(refused.kind(), Error::OutOfBounds { size: 1_048_576, .. }), "{refused}");
        return disk.read(0, &mut [0; 512]).unwrap();
    }
    {
        let watch = disk.device().watch().unwrap();
        daemon.qmp(r#"{"execute":"block_resize","arguments":{"node-name":"d","size":4194304}}"#);
        assert!(watch.wait(Deadline::after(Duration::from_secs(10))).unwrap().config_changed);
    }
    // Beyond what the driver knew, without any look at events.
    disk.write(3 << 20, &[3; 512]).unwrap();
    assert_eq!(disk.size(), 4 << 20);
    daemon.qmp(r#"{"execute":"block_resize","arguments":{"node-name":"d","size":524288}}"#);
    let end = Deadline::after(Duration::from_secs(10));
    while disk.size() != 512 << 10 {
        assert!(!end.passed(), "{}", disk.size());
        disk.events().unwrap();
    }
    assert!(disk.read(512 << 10, &mut [0; 512]).is_err());
    disk.read(0, &mut [0; 512]).unwrap();
}
