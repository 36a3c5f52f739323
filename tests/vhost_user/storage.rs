//! Block against qemu-storage-daemon.

use std::fs;

use virtio::drivers::{Block, BlockOptions};

use crate::daemon::{Daemon, Export, Place, image, over_file};

#[test]
fn what_is_written_through_a_daemon_is_in_its_file_and_is_read_back() {
    let place = Place::new();
    let file = image(&place, 4 << 20);
    let daemon = Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 1, writable: true });
    let disk = Block::open(&daemon.address(), BlockOptions::default()).unwrap();
    assert_eq!(disk.size(), 4 << 20);
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 3) as u8 ^ n as u8).collect();
    disk.write(512, &data).unwrap();
    disk.flush().unwrap();
    let mut back = vec![0; data.len()];
    disk.read(512, &mut back).unwrap();
    assert!(back == data);
    assert!(fs::read(&file).unwrap()[512..512 + data.len()] == data);
    disk.close().unwrap();
    assert_eq!(virtio::mem::quarantine::kept().count, 0);
}
