//! What the device is found by.

use virtio::Error;
use virtio::soft::DeviceLie;
use virtio::spec::pci::cap;

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
    for (offset, len) in [(1 << 40, 1 << 30), (u64::MAX - (1 << 40), 1 << 50)] {
        let soft = lying(way, DeviceLie::SharedMemory { id: 3, offset, len });
        let transport = transport(way, &soft).unwrap();
        assert!(transport.shared_memory(3).is_err());
        assert!(transport.shared_memory(4).unwrap().is_none());
        live(way, &soft).unwrap();
    }
});

each!(c25_administration_queues_out_of_range_harm_nothing(way) on [pci_modern transitional_modern] {
    lives(way, DeviceLie::AdminQueues { index: 0, count: u16::MAX });
});
