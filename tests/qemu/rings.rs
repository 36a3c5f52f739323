//! Ring features, queue sizes and ways to hear of completions, over every interface.

use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;

use crate::common::{Random, SOON, WAYS, Way};

const DISK: u64 = 4 << 20;

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

/// With and without EVENT_IDX and INDIRECT_DESC; by MSI-X or the interrupt line, and by polling; at every queue size
/// that the driver chooses.
fn features_sizes_and_interrupts(way: Way) {
    let mut builder = way.builder().disk("d", DISK);
    let combinations: Vec<(bool, bool, bool)> = [false, true]
        .into_iter()
        .flat_map(|e| [(e, false), (e, true)])
        .flat_map(|(e, i)| if way.is_pci() { vec![(e, i, false), (e, i, true)] } else { vec![(e, i, true)] })
        .collect();
    let on = |flag: bool| if flag { "on" } else { "off" };
    for (n, &(event_idx, indirect, line)) in combinations.iter().enumerate() {
        let vectors = if way.is_pci() && line { ",vectors=0" } else { "" };
        let properties = format!(
            "drive=d,share-rw=on,queue-size=1024,event_idx={},indirect_desc={}{vectors}",
            on(event_idx),
            on(indirect)
        );
        builder = builder.device(way.device("blk", n as u8, &properties));
    }
    let qemu = builder.start().unwrap();
    for (n, &(event_idx, indirect, line)) in combinations.iter().enumerate() {
        let address = way.address(&qemu, n as u8);
        let chooses = way.kind() != virtio::transport::TransportKind::PciLegacy;
        let sizes: &[u16] = if chooses { &[4, 16, 64, 256, 1024] } else { &[1024] };
        for &size in sizes {
            for interrupts in [true, false] {
                let disk = open(&address, Some(size), interrupts);
                assert_eq!(disk.features().contains(Features::EVENT_IDX), event_idx);
                assert_eq!(disk.features().contains(Features::INDIRECT_DESC), indirect);
                let vectors = way.is_pci() && !line;
                exchange(&disk, u64::from(size), 128 << 10);
                let names = format!("{way:?} {size} vectors {vectors} interrupts {interrupts}");
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

/// A legacy PCI device fixes its queue size: QEMU is told each.
#[test]
fn s4_1_5_1_3_1_legacy_queue_sizes_are_the_devices() {
    let sizes = [4u16, 8, 32, 128, 512, 1024];
    for way in [Way::Legacy, Way::TransitionalLegacy] {
        let mut builder = way.builder().disk("d", DISK);
        for (n, size) in sizes.iter().enumerate() {
            // seg-max of small queues has to be told too: QEMU refuses one that does not fit.
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
