//! Addresses that open devices, and addresses that do not.
#![cfg(all(feature = "soft", not(loom)))]

use std::time::Duration;

use virtio::Error;
use virtio::device::QueueConfig;
use virtio::drivers::{Block, BlockOptions, Entropy};
use virtio::features::Features;
use virtio::spec::{ByteOrder, DeviceType};
use virtio::transport::TransportKind;

#[path = "driver_common/checked.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
mod checked;

#[test]
fn every_type_opens_behind_every_interface_that_it_has() {
    for (place, device_type) in [
        ("block", DeviceType::BLOCK),
        ("entropy", DeviceType::ENTROPY),
        ("console", DeviceType::CONSOLE),
        ("net", DeviceType::NET),
    ] {
        for (query, kind) in [
            ("", TransportKind::PciModern),
            ("?transport=pci-modern", TransportKind::PciModern),
            ("?transport=pci-transitional", TransportKind::PciModern),
            ("?transport=pci-transitional&interface=modern", TransportKind::PciModern),
            ("?transport=pci-transitional&interface=legacy", TransportKind::PciLegacy),
            ("?transport=pci-legacy", TransportKind::PciLegacy),
            ("?transport=mmio&run=inline", TransportKind::Mmio),
            ("?transport=mmio-legacy&run=thread", TransportKind::MmioLegacy),
        ] {
            let address = format!("soft:{place}{query}");
            let device = virtio::open(&address).unwrap();
            assert_eq!((device.device_type(), device.transport().kind()), (device_type, kind), "{address}");
            assert_eq!(device.address(), address, "errors name the address as given");
        }
    }
}

#[test]
fn parameters_reach_the_device() {
    let address = "soft:block?size=1M&queues=3&readonly=on&id=disk%2042&transport=mmio-legacy&endian=big";
    let mut options = BlockOptions::default();
    options.queues = 8;
    let block = Block::open(address, options).unwrap();
    assert_eq!((block.size(), block.queues(), block.read_only()), (1 << 20, 3, true));
    assert_eq!(block.get_id().unwrap(), "disk 42");
    assert_eq!(block.device().transport().byte_order(), ByteOrder::Big);
    let bytes = |address: &str| {
        let mut bytes = [0; 16];
        Entropy::open(address, Duration::from_secs(5)).unwrap().fill(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(bytes("soft:entropy?seed=5"), bytes("soft:entropy?seed=5&event_idx=off&indirect=off"));
    assert_ne!(bytes("soft:entropy?seed=5"), bytes("soft:entropy?seed=6"));
}

#[test]
fn what_is_not_understood_is_refused_and_named() {
    for (address, named) in [
        ("soft:block?transport=isa", "pci-transitional"),
        ("soft:block?transport=mmio&interface=legacy", "pci-transitional"),
        ("soft:block?run=stepped", "inline"),
        ("soft:block?size=1M&path=x", "file"),
        ("soft:block?size=1X", "1X"),
        ("soft:block?queues=0", "1024"),
        ("soft:block?seed=1", "seed"),
        ("soft:entropy?size=1M", "size"),
        ("soft:entropy?event_idx=maybe", "maybe"),
        ("disk.img", "scheme"),
    ] {
        let error = virtio::open(address).unwrap_err();
        assert!(matches!(error.kind(), Error::BadAddress { .. }), "{address}: {error}");
        assert!(error.to_string().contains(named), "{address}: {error}");
    }
    for address in ["pci:0000:00:04.0", "mmio:0xfeb02c00", "uio:/dev/uio0", "vdpa:/dev/x", "soft:floppy"] {
        let error = virtio::open(address).unwrap_err();
        assert!(matches!(error.kind(), Error::NotFound { .. }), "{address}: {error}");
    }
    let error = virtio::open("vhost-user:/run/x.sock?type=block").unwrap_err();
    assert!(error.to_string().contains("vhost-user"), "{error}");
    let missing = Block::open("soft:block?path=/nonexistent/disk.img", BlockOptions::default()).unwrap_err();
    assert_eq!(missing.errno(), 2, "{missing}");
}

#[test]
fn a_published_device_is_opened_by_its_place_as_long_as_it_is_published() {
    use virtio::soft::{self, Interface};

    let builder = soft::SoftDevice::builder(soft::Entropy::new(1)).interface(Interface::PciTransitional);
    let soft = checked::checked(builder);
    assert!(matches!(soft.publish("entropy"), Err(Error::Misuse { .. })));
    let published = soft.publish("entropy@published").unwrap();
    assert_eq!(published.place(), "entropy@published");
    assert!(matches!(soft.publish("entropy@published"), Err(Error::Misuse { .. })));

    for (address, kind) in [
        ("soft:entropy@published", TransportKind::PciModern),
        ("soft:entropy@published?interface=legacy", TransportKind::PciLegacy),
    ] {
        let device = virtio::open(address).unwrap();
        assert_eq!(device.transport().kind(), kind);
        device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
        let mut queue = device.take_queue(0, QueueConfig::size(8)).unwrap();
        device.start().unwrap();
        let before = soft.report();
        queue.add([], [device.alloc(16).unwrap()]).unwrap();
        queue.notify().unwrap();
        queue.get(Some(Duration::from_secs(10))).unwrap();
        let after = soft.report();
        assert_eq!((after.chains - before.chains, after.notifications - before.notifications), (1, 1));
        assert!(after.interrupts - before.interrupts <= 1);
        device.close().unwrap();
    }
    let error = virtio::open("soft:entropy@published?transport=mmio").unwrap_err();
    assert!(matches!(error.kind(), Error::BadAddress { .. }), "{error}");

    drop(published);
    let error = virtio::open("soft:entropy@published").unwrap_err();
    assert!(matches!(error.kind(), Error::NotFound { .. }), "{error}");
    soft.publish("entropy@published").unwrap();
}
