//! Byte order: a legacy device of a big-endian machine is big-endian in rings and configuration, while its register
//! header is not (VIRTIO 1.4 §2.7.3, §4.1.4.10, §4.1.5.1.3.1); a modern one is little-endian everywhere.

use virtio::drivers::{Block, BlockOptions, Entropy};
use virtio::spec::ByteOrder;
use virtio::testing::{Kind, Qemu};
use virtio::transport::TransportKind;

use crate::common::{Random, SOON};

const DISK: u64 = 8 << 20;

fn everything(qemu: &Qemu, address: &str, kind: TransportKind, order: ByteOrder) {
    for interrupts in [true, false] {
        let mut options = BlockOptions::default();
        options.timeout = SOON;
        options.interrupts = interrupts;
        let disk = Block::open(address, options).unwrap();
        let transport = disk.device().transport();
        assert_eq!((transport.kind(), transport.byte_order()), (kind, order));
        assert_eq!((disk.size(), disk.block_size(), disk.limits().queues), (DISK, 4096, 1));
        let data = Random(7).bytes(DISK as usize);
        disk.write(0, &data).unwrap();
        disk.flush().unwrap();
        assert!(std::fs::read(qemu.dir().join("d")).unwrap() == data);
        let mut back = vec![0; data.len()];
        disk.read(0, &mut back).unwrap();
        assert!(back == data);
        disk.write_zeroes(1 << 20, 1 << 20, true).unwrap();
        disk.read(0, &mut back).unwrap();
        assert!(back[1 << 20..2 << 20].iter().all(|&byte| byte == 0));
        assert!(back[2 << 20..] == data[2 << 20..]);
        assert_eq!(disk.get_id().unwrap(), "big");
        // The configuration is in the device's order: 512 MiB less or more would be seen.
        let size = if interrupts { 16u64 << 20 } else { DISK };
        qemu.qmp().execute("block_resize", &format!("{{\"node-name\":\"d\",\"size\":{size}}}")).unwrap();
        let asked = std::time::Instant::now();
        while disk.size() != size {
            let _ = disk.events().unwrap();
            let _ = disk.read(size.max(DISK), &mut [0; 512]);
            assert!(asked.elapsed() < SOON, "{kind}: the size is {}", disk.size());
        }
        qemu.qmp().execute("block_resize", &format!("{{\"node-name\":\"d\",\"size\":{DISK}}}")).unwrap();
        disk.close().unwrap();
    }
}

const PROPERTIES: &str = "drive=d,serial=big,logical_block_size=4096,physical_block_size=4096,num-queues=1";

#[test]
fn s2_7_3_a_legacy_device_of_a_big_endian_machine() {
    let qemu = Qemu::builder(Kind::G3beige)
        .disk("d", DISK)
        .device(format!("virtio-blk-pci,addr=0xe,disable-legacy=off,disable-modern=on,{PROPERTIES}"))
        .start()
        .unwrap();
    everything(&qemu, &qemu.pci(0xe), TransportKind::PciLegacy, ByteOrder::Big);
}

#[test]
fn s2_7_3_both_sides_of_a_transitional_device_of_a_big_endian_machine() {
    let qemu = Qemu::builder(Kind::G3beige)
        .disk("d", DISK)
        .device(format!("virtio-blk-pci,addr=0xe,disable-legacy=off,disable-modern=off,{PROPERTIES}"))
        .args(["-object", "rng-builtin,id=r"])
        .device("virtio-rng-pci,addr=0xf,disable-legacy=on,rng=r")
        .start()
        .unwrap();
    everything(&qemu, &(qemu.pci(0xe) + "&interface=modern"), TransportKind::PciModern, ByteOrder::Little);
    everything(&qemu, &(qemu.pci(0xe) + "&interface=legacy"), TransportKind::PciLegacy, ByteOrder::Big);
    let mut entropy = Entropy::open(&qemu.pci(0xf), SOON).unwrap();
    let mut bytes = [0; 4096];
    entropy.fill(&mut bytes).unwrap();
    assert!(bytes.iter().any(|&byte| byte != 0));
}

#[test]
fn s4_2_2_mmio_2_of_a_big_endian_machine_is_little_endian() {
    let qemu = Qemu::builder(Kind::M68kVirt)
        .disk("d", DISK)
        .device(format!("virtio-blk-device,{PROPERTIES}"))
        .start()
        .unwrap();
    everything(&qemu, &qemu.mmio(0).unwrap(), TransportKind::Mmio, ByteOrder::Little);
    let found: Vec<_> = virtio::find::find_in(&qemu.address().to_string()).unwrap().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].as_ref().unwrap().address.to_string(), qemu.mmio(0).unwrap());
}

/// The machine's lines are heard, not only its registers read.
#[test]
fn the_interrupt_line_of_a_big_endian_machine_is_told_of() {
    let qemu = Qemu::builder(Kind::G3beige)
        .disk("d", DISK)
        .device(format!("virtio-blk-pci,addr=0xe,disable-legacy=off,disable-modern=on,{PROPERTIES}"))
        .start()
        .unwrap();
    let disk = Block::open(&qemu.pci(0xe), BlockOptions::default()).unwrap();
    let mut options =
        virtio::bus::qtest::MachineOptions::new(qemu.dir().join("qtest"), qemu.dir().join("ram"));
    options.kind = Some("g3beige".to_owned());
    let machine = virtio::bus::qtest::Machine::connect(&options).unwrap();
    let start = std::time::Instant::now();
    while !machine.transcript().contains("IRQ raise") {
        disk.read(0, &mut [0; 4096]).unwrap();
        assert!(start.elapsed() < SOON, "{}", machine.transcript());
    }
}
