//! Random operations on a block device, and the same on plain memory.

use virtio::drivers::{Block, BlockOptions};
use virtio::testing::{Kind, Qemu};

use crate::common::{Random, SOON, Way};

const DISK: usize = 4 << 20;
const LONGEST: u64 = 192;

/// 2,000 operations; then the file and every byte that was read are what they should be.
fn operate(qemu: &Qemu, address: &str, seed: u64) {
    let mut options = BlockOptions::default();
    options.timeout = SOON;
    options.queues = 2;
    options.chunk = 16 << 10;
    let disk = Block::open(address, options).unwrap();
    let mut random = Random(seed);
    let mut model = vec![0u8; DISK];
    for n in 0..2000 {
        let sectors = 1 + random.below(LONGEST);
        let at = random.below((DISK / 512) as u64 - sectors) as usize * 512;
        let len = sectors as usize * 512;
        match random.below(10) {
            0 => disk.flush().unwrap(),
            1 => {
                disk.write_zeroes(at as u64, len as u64, random.below(2) == 0).unwrap();
                model[at..at + len].fill(0);
            }
            2 => {
                // On this rig the file gets a hole: what is discarded reads as zeroes.
                disk.discard(at as u64, len as u64).unwrap();
                model[at..at + len].fill(0);
            }
            3..6 => {
                let data = random.bytes(len);
                disk.write(at as u64, &data).unwrap();
                model[at..at + len].copy_from_slice(&data);
            }
            _ => {
                let mut back = vec![0xEE; len];
                disk.read(at as u64, &mut back).unwrap();
                assert!(back == model[at..at + len], "{address}: operation {n}, {len} bytes at {at}");
            }
        }
    }
    disk.flush().unwrap();
    disk.close().unwrap();
    assert!(std::fs::read(qemu.dir().join("d")).unwrap() == model, "{address}: the file");
}

fn operations(way: Way, seed: u64) {
    let event_idx = if seed.is_multiple_of(2) { "on" } else { "off" };
    let device = format!("drive=d,num-queues=2,event_idx={event_idx}");
    let qemu = way.builder().disk("d", DISK as u64).device(way.device("blk", 0, &device)).start().unwrap();
    operate(&qemu, &way.address(&qemu, 0), seed);
}

#[test]
fn two_thousand_operations_over_pci_modern() {
    operations(Way::Modern, 1);
    operations(Way::TransitionalModern, 2);
}

#[test]
fn two_thousand_operations_over_pci_legacy() {
    operations(Way::Legacy, 3);
    operations(Way::TransitionalLegacy, 4);
}

#[test]
fn two_thousand_operations_over_mmio() {
    operations(Way::Mmio, 5);
    operations(Way::MmioLegacy, 6);
}

#[test]
fn two_thousand_operations_on_big_endian_machines() {
    for (kind, sides, interface) in [
        (Kind::G3beige, "pci,addr=0xe,disable-legacy=off,disable-modern=on", ""),
        (Kind::G3beige, "pci,addr=0xe,disable-legacy=off,disable-modern=off", "&interface=legacy"),
        (Kind::G3beige, "pci,addr=0xe,disable-legacy=off,disable-modern=off", "&interface=modern"),
        (Kind::M68kVirt, "device", ""),
    ] {
        let device = format!("virtio-blk-{sides},drive=d,num-queues=2");
        let qemu = Qemu::builder(kind).disk("d", DISK as u64).device(device).start().unwrap();
        let address = qemu.mmio(0).unwrap_or_else(|_| qemu.pci(0xe) + interface);
        operate(&qemu, &address, 7);
    }
}
