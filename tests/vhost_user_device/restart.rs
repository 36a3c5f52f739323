//! A device end in a process of its own, killed under load, and a driver that takes up the next one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use virtio::drivers::{Block, BlockOptions, Reconnect};
use virtio::features::Features;
use virtio::soft::{self, VhostUserDevice};

use crate::Place;

const SOCKET: &str = "VIRTIO_TEST_DEVICE_END";
const IMAGE: &str = "VIRTIO_TEST_DEVICE_IMAGE";

/// No test by itself: what the other process runs, until it is killed.
#[test]
fn a_device_end_in_a_process_of_its_own() {
    let (Some(socket), Some(image)) = (std::env::var_os(SOCKET), std::env::var_os(IMAGE)) else { return };
    let block = soft::Block::file(image, false).unwrap().with_queues(2);
    let _device = VhostUserDevice::builder(block).build(socket).unwrap();
    loop {
        thread::park();
    }
}

/// Killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(socket: &Path, image: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "restart::a_device_end_in_a_process_of_its_own"]);
        command.env(SOCKET, socket).env(IMAGE, image);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Process {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn killed_under_load_its_driver_goes_on_with_the_next_one() {
    let (place, image) = (Place::new(), Place::new());
    std::fs::write(&image.0, vec![0; 1 << 20]).unwrap();
    let mut process = Process::start(&place.0, &image.0);
    let mut options = BlockOptions::default();
    options.reconnect = Reconnect::Retry;
    options.control_timeout = Duration::from_secs(10);
    let address = format!("vhost-user:{}?type=block", place.0.display());
    let disk = Block::open(&address, options).unwrap();
    let (stop, done) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for round in 0u64.. {
                let (at, byte) = (round % 8 * (128 << 10), (round % 251) as u8);
                disk.write_retry(at, &vec![byte; 128 << 10]).unwrap();
                let mut back = vec![0; 128 << 10];
                disk.read(at, &mut back).unwrap();
                assert!(back.iter().all(|found| *found == byte), "round {round}");
                done.store(round, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let start = Instant::now();
        for _ in 0..10 {
            // Each process has work before its death.
            let seen = done.load(Ordering::SeqCst);
            while done.load(Ordering::SeqCst) < seen + 2 && !worker.is_finished() {
                assert!(start.elapsed() < Duration::from_secs(60));
                thread::yield_now();
            }
            process.end();
            process = Process::start(&place.0, &image.0);
        }
        stop.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
    disk.close().unwrap();
}

#[test]
fn hung_up_on_a_driver_hears_of_it_and_can_open_the_device_again() {
    let place = Place::new();
    let device = VhostUserDevice::builder(soft::Block::zeroes(64)).build(&place.0).unwrap();
    let disk = Block::open(&device.address(), BlockOptions::default()).unwrap();
    disk.write(0, &[3; 512]).unwrap();
    device.hang_up().unwrap();
    // The process lives, so that the driver cannot know whether its memory is free.
    disk.read(0, &mut [0; 512]).unwrap_err();
    drop(disk);
    let disk = Block::open(&device.address(), BlockOptions::default()).unwrap();
    let mut back = [0; 512];
    disk.read(0, &mut back).unwrap();
    assert_eq!(back, [3; 512]);
    assert_eq!(device.report().connections, 2);
}

#[test]
fn dropped_it_takes_its_socket_along_and_its_driver_hears_of_the_end() {
    let place = Place::new();
    let device = VhostUserDevice::builder(soft::Entropy::new(1)).build(&place.0).unwrap();
    let driver = virtio::open(&device.address()).unwrap();
    assert!(place.0.exists());
    drop(device);
    assert!(!place.0.exists());
    assert!(driver.negotiate(Features::EMPTY, Features::VERSION_1).is_err());
}
