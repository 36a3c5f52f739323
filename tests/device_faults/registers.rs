//! What the device is found by.

use virtio::Error;
use virtio::device::QueueConfig;
use virtio::features::Features;
use virtio::soft::{DeviceLie, DeviceModel, Reply, Request, SharedRegion, SoftDevice};
use virtio::spec::pci::cap;
use virtio::spec::{ByteOrder, DeviceType};
use virtio::transport::SharedMemory;

use crate::rig::*;

each!(c17_p6_a_capability_list_without_an_end_or_out_of_place_ends_the_open(way)
    on [pci_modern transitional_modern] {
    for lie in [DeviceLie::CapCycle, DeviceLie::CapInHeader, DeviceLie::CapMisaligned, DeviceLie::CapAtEnd] {
        fails!(open(way, &lying(way, lie)), Error::BadCapability { .. });
    }
});

each!(c18_p5_a_structure_that_is_not_wholly_in_its_bar_ends_the_open(way)
    on [pci_modern transitional_modern] {
    let field = |cfg_type, field: u64, value| DeviceLie::CapField { cfg_type, field: field as u8, value };
    for lie in [
        field(cap::COMMON_CFG, cap::CAP_LEN, 15),
        field(cap::COMMON_CFG, cap::BAR, 6),
        field(cap::COMMON_CFG, cap::BAR, 5),
        field(cap::NOTIFY_CFG, cap::OFFSET, u32::MAX - 1),
        field(cap::NOTIFY_CFG, cap::LENGTH, u32::MAX),
        field(cap::COMMON_CFG, cap::OFFSET, 2),
        DeviceLie::BarMissing,
        DeviceLie::CapsOverlap,
        DeviceLie::CapInMsixTable,
    ] {
        fails!(open(way, &lying(way, lie)), Error::BadCapability { .. });
    }
});

each!(c19_the_first_usable_structure_of_a_type_wins(way) on [pci_modern transitional_modern] {
    for cfg_type in [cap::COMMON_CFG, cap::NOTIFY_CFG, cap::ISR_CFG, cap::DEVICE_CFG] {
        lives(way, DeviceLie::CapTwice(cfg_type));
        lives(way, DeviceLie::CapTwiceFirstBad(cfg_type));
    }
});

each!(c22_an_mmio_slot_is_told_by_magic_version_and_id(way) on [mmio mmio_legacy] {
    fails!(open(way, &lying(way, DeviceLie::Magic(1))), Error::BadMagic { found: 1 });
    fails!(open(way, &lying(way, DeviceLie::Version(3))), Error::BadVersion { found: 3 });
    fails!(open(way, &lying(way, DeviceLie::DeviceId(0))), Error::NoDevice);
    lives(way, DeviceLie::Vendor(0x554d_4551));
});

each!(c25_shared_memory_out_of_range_fails_alone(way) on modern {
    let ends = [
        (1 << 40, 1 << 30),
        (u64::MAX - (1 << 40), 1 << 50),
        (u64::MAX, 1),
        (1 << 63, 1 << 63),
        (u64::MAX - 1, u64::MAX - 1),
        (4096, u64::MAX - 1),
    ];
    for (offset, len) in ends {
        let soft = lying(way, DeviceLie::SharedMemory { id: 3, offset, len });
        let transport = transport(way, &soft).unwrap();
        // An MMIO device says that there is no region by a base of all ones.
        let none = matches!(transport.shared_memory(3), Ok(None)) && offset >= u64::MAX - 1 && !way.interface.is_pci();
        assert!(none || transport.shared_memory(3).is_err(), "{offset:#x} {len:#x}");
        assert!(transport.shared_memory(4).unwrap().is_none());
        live(way, &soft).unwrap();
    }
});

/// A device with shared memory, whose one queue uses what it gets.
#[derive(Debug)]
struct Sharing;

impl DeviceModel for Sharing {
    fn device_type(&self) -> DeviceType {
        DeviceType::CONSOLE
    }

    fn queues(&self) -> u16 {
        2
    }

    fn config(&self, _order: ByteOrder) -> Vec<u8> {
        vec![0; 12]
    }

    fn shared_memory(&self) -> Vec<SharedRegion> {
        vec![SharedRegion { id: 1, bytes: vec![7; 4096] }, SharedRegion { id: 3, bytes: vec![9; 100] }]
    }

    fn handle(&mut self, _request: &mut Request<'_>) -> virtio::Result<Reply> {
        Ok(Reply::Used(0))
    }
}

each!(s2_10_c25_shared_memory_is_reached_and_one_bad_region_takes_no_other_with_it(way) on modern {
    let read = |memory: &SharedMemory| memory.registers.read32(memory.offset).unwrap();
    let builder = || SoftDevice::builder(Sharing);
    let honest = transport(way, &build(way, builder())).unwrap();
    let (one, three) = (honest.shared_memory(1).unwrap().unwrap(), honest.shared_memory(3).unwrap().unwrap());
    assert_eq!((one.len, three.len), (4096, 100));
    assert_eq!((read(&one), read(&three)), (0x0707_0707, 0x0909_0909));
    let lie = DeviceLie::SharedMemory { id: 3, offset: 0, len: 1 << 40 };
    let soft = build(way, builder().lies([lie]));
    let lying = transport(way, &soft).unwrap();
    assert!(lying.shared_memory(3).is_err());
    assert_eq!(read(&lying.shared_memory(1).unwrap().unwrap()), 0x0707_0707);
    live(way, &soft).unwrap();
});

each!(c25_administration_queues_out_of_range_harm_nothing(way) on [pci_modern transitional_modern] {
    for (index, count) in [(0, u16::MAX), (u16::MAX, u16::MAX), (1, 1), (2, u16::MAX), (7, 0), (7, 1)] {
        lives(way, DeviceLie::AdminQueues { index, count });
        // Nor where the device offers them: they are not accepted, and their queues not there.
        let lie = DeviceLie::AdminQueues { index, count };
        let soft = build(way, console().offer(Features::ADMIN_VQ).lies([lie]));
        let device = open(way, &soft).unwrap();
        let accepted = device.negotiate(Features::ADMIN_VQ, Features::EMPTY).unwrap();
        assert!(!accepted.contains(Features::ADMIN_VQ));
        fails!(device.take_queue(7, QueueConfig::default()), Error::QueueUnavailable { queue: 7, .. });
        let mut queues = start(&device).unwrap();
        send(&device, &mut queues[1]).unwrap();
    }
});
