//! Ring features, queue sizes and ways to hear of completions, over every interface.

use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;
use virtio::transport::TransportKind;

use crate::common::{Random, SOON, WAYS, Way};

const DISK: u64 = 4 << 20;
const SIZES: [u16; 5] = [4, 16, 64, 256, 1024];

/// Bytes both ways in requests small enough to fill small rings.
fn exchange(disk: &Block, seed: u64, total: usize) {
    let data = Random(seed).bytes(total);
    disk.write(8192, &data).unwrap();
    let mut back = vec![0; data.len()];
    disk.read(8192, &mut back).unwrap();
    assert!(back == data);
}

fn open(address: &str, size: Option<u16>, interrupts: bool) -> Block {
    let mut options = BlockOptions::default();
    options.timeout = SOON;
    options.queue_size = size;
    options.chunk = 4096;
    options.window = 256 << 10;
    options.interrupts = interrupts;
    Block::open(address, options).unwrap()
}

/// How one device of a machine is set up.
#[derive(Clone, Copy)]
struct Setting {
    event_idx: bool,
    indirect: bool,
    /// Messages where the bus has them; else the interrupt line.
    messages: bool,
}

fn settings(way: Way) -> Vec<Setting> {
    let flags = [false, true];
    let all = flags.into_iter().flat_map(|event_idx| {
        flags
            .into_iter()
            .flat_map(move |indirect| flags.map(|messages| Setting { event_idx, indirect, messages }))
    });
    all.filter(|setting| way.is_pci() || !setting.messages).collect()
}

/// With and without EVENT_IDX and INDIRECT_DESC; by MSI-X or the interrupt line, and by polling; at every queue size.
fn features_sizes_and_interrupts(way: Way) {
    if way.kind() == TransportKind::PciLegacy {
        // The device fixes the size there, so each size has devices of its own.
        SIZES.into_iter().for_each(|size| one_machine(way, size, &[size]));
    } else {
        one_machine(way, 1024, &SIZES);
    }
}

fn one_machine(way: Way, most: u16, sizes: &[u16]) {
    let mut builder = way.builder().disk("d", DISK);
    let on = |flag: bool| if flag { "on" } else { "off" };
    for (n, setting) in settings(way).iter().enumerate() {
        let vectors = if way.is_pci() && !setting.messages { ",vectors=0" } else { "" };
        // seg-max of small queues has to be told too: QEMU refuses one that does not fit.
        let properties = format!(
            "drive=d,share-rw=on,queue-size={most},seg-max-adjust=on,event_idx={},indirect_desc={}{vectors}",
            on(setting.event_idx),
            on(setting.indirect)
        );
        builder = builder.device(way.device("blk", n as u8, &properties));
    }
    let qemu = builder.start().unwrap();
    for (n, setting) in settings(way).iter().enumerate() {
        for &size in sizes {
            for interrupts in [true, false] {
                let disk = open(&way.address(&qemu, n as u8), Some(size), interrupts);
                assert_eq!(disk.features().contains(Features::EVENT_IDX), setting.event_idx);
                assert_eq!(disk.features().contains(Features::INDIRECT_DESC), setting.indirect);
                exchange(&disk, u64::from(size), 128 << 10);
                let messages = setting.messages;
                let names = format!("{way:?} {size} messages {messages} interrupts {interrupts}");
                assert_eq!(disk.counters(0).unwrap().used, 64, "{names}");
                disk.close().unwrap();
            }
        }
    }
}

#[test]
fn rings_of_pci_modern() {
    features_sizes_and_interrupts(Way::Modern);
    features_sizes_and_interrupts(Way::TransitionalModern);
}

#[test]
fn rings_of_pci_legacy() {
    features_sizes_and_interrupts(Way::Legacy);
    features_sizes_and_interrupts(Way::TransitionalLegacy);
}

#[test]
fn rings_of_mmio() {
    features_sizes_and_interrupts(Way::Mmio);
    features_sizes_and_interrupts(Way::MmioLegacy);
}

/// A legacy PCI device fixes its queue size: what the driver wishes counts for nothing.
#[test]
fn s4_1_5_1_3_1_legacy_queue_sizes_are_the_devices() {
    for way in [Way::Legacy, Way::TransitionalLegacy] {
        let sizes = [8u16, 512];
        let mut builder = way.builder().disk("d", DISK);
        for (n, size) in sizes.iter().enumerate() {
            let properties = format!("drive=d,share-rw=on,queue-size={size},seg-max-adjust=on");
            builder = builder.device(way.device("blk", n as u8, &properties));
        }
        let qemu = builder.start().unwrap();
        for (n, &size) in sizes.iter().enumerate() {
            let disk = open(&way.address(&qemu, n as u8), Some(64), true);
            exchange(&disk, u64::from(size), 256 << 10);
        }
    }
}

#[test]
fn every_interface_has_a_test_here() {
    assert_eq!(WAYS.len(), 6);
}
