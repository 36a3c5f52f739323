//! What holds behind every interface.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::time::Instant;

use super::fake::{CONFIG_LEN, Fake, Place, name};
use super::queues::with_ring_reset;
use super::{PLACES, all, assert_error, error, later, open, open_as, setup, soon};
use crate::Error;
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::spec::{ByteOrder, DeviceType, Status, mmio, pci};
use crate::transport::{InterruptCause, Interrupts, TransportKind};

/// The register that holds the device status.
fn status_register(place: Place) -> u64 {
    match place {
        Place::Modern => pci::common::DEVICE_STATUS,
        Place::Legacy => pci::legacy::DEVICE_STATUS,
        _ => mmio::STATUS,
    }
}

/// The register by which the selected queue reads as in use.
pub(super) fn use_register(place: Place) -> u64 {
    match place {
        Place::Modern => pci::common::QUEUE_ENABLE,
        Place::Legacy => pci::legacy::QUEUE_ADDRESS,
        Place::Mmio1 => mmio::QUEUE_PFN,
        _ => mmio::QUEUE_READY,
    }
}

/// Both things that the memory of a removed device may read, for each interface.
fn removed_reads() -> impl Iterator<Item = u32> {
    [0, u32::MAX].into_iter().flat_map(|reads| [reads; PLACES.len()])
}

#[test]
fn each_interface_says_what_it_is() {
    let kinds = all().iter().map(|(_, _, t)| (t.kind(), t.kind().name())).collect::<Vec<_>>();
    let expected = vec![
        (TransportKind::PciModern, "pci-modern"),
        (TransportKind::PciLegacy, "pci-legacy"),
        (TransportKind::Mmio, "mmio"),
        (TransportKind::MmioLegacy, "mmio-legacy"),
    ];
    assert_eq!(kinds, expected);
    for (place, _, transport) in all() {
        assert_eq!(transport.device_type(), DeviceType(2), "{}", name(place));
        assert_eq!(transport.legacy(), matches!(place, Place::Legacy | Place::Mmio1));
        assert_eq!(transport.queue_size_fixed(), place == Place::Legacy);
    }
}

#[test]
fn opening_writes_nothing() {
    for (place, fake, _) in all() {
        assert!(fake.get().log.iter().all(|access| access.wrote.is_none()), "{}", name(place));
    }
}

#[test]
fn status_is_read_and_written() {
    for (place, _, transport) in all() {
        assert_eq!(transport.status().unwrap(), Status::empty(), "{}", name(place));
        let status = Status::ACKNOWLEDGE | Status::DRIVER;
        transport.set_status(status).unwrap();
        assert_eq!(transport.status().unwrap(), status);
        assert_error!(transport.set_status(Status::empty()), Error::Misuse { .. });
    }
}

#[test]
fn reset_writes_0_and_reads_0_back() {
    for (place, fake, transport) in all() {
        transport.set_status(Status::ACKNOWLEDGE).unwrap();
        transport.reset(soon()).unwrap();
        let accesses = fake.get().log.clone();
        let status = status_register(place);
        let at_status = accesses.iter().filter(|a| a.place == place && a.offset == status);
        let wrote = at_status.map(|a| a.wrote).collect::<Vec<_>>();
        assert_eq!(wrote, [Some(1), Some(0), None], "{}", name(place));
    }
}

#[test]
fn c1_reset_waits_for_a_slow_device() {
    for (place, fake, transport) in all() {
        let mut left = 200;
        fake.lie_with(place, status_register(place), move |_| {
            left -= 1;
            if left > 0 { 0x0F } else { 0 }
        });
        transport.reset(later()).unwrap();
    }
}

#[test]
fn c1_p9_a_device_that_never_leaves_reset_ends_in_reset_timeout_at_the_deadline() {
    for (place, fake, transport) in all() {
        fake.lie(place, status_register(place), 0x0F);
        let start = Instant::now();
        assert_error!(
            transport.reset(soon()),
            Error::ResetTimeout { status: 0x0F, after_ms: 30.. },
            name(place)
        );
        assert!(start.elapsed() < Duration::from_secs(5));
        let at_once = Deadline::after(Duration::ZERO);
        assert_error!(transport.reset(at_once), Error::ResetTimeout { status: 0x0F, .. });
    }
}

#[test]
fn c2_a_status_of_all_ones_is_a_device_gone_and_no_reset() {
    for (place, fake, transport) in all() {
        fake.lie(place, status_register(place), 0xFF);
        assert_error!(transport.status(), Error::DeviceGone { .. }, name(place));
        assert_error!(transport.reset(later()), Error::DeviceGone { .. }, name(place));
    }
    let fake = Fake::new();
    let transport = open(&fake, Place::Mmio2).unwrap();
    fake.lie(Place::Mmio2, mmio::STATUS, u32::MAX);
    assert_error!(transport.reset(later()), Error::DeviceGone { .. });
}

#[test]
fn c2_c30_a_removed_device_is_no_reset_one() {
    for ((place, fake, transport), reads) in all().into_iter().chain(all()).zip(removed_reads()) {
        transport.present().unwrap();
        fake.get().removed = true;
        fake.get().removed_reads = reads;
        assert_error!(transport.present(), Error::DeviceGone { .. }, name(place));
        assert_error!(transport.status(), Error::DeviceGone { .. }, name(place));
        assert_error!(transport.reset(later()), Error::DeviceGone { .. }, name(place));
    }
}

#[test]
fn c30_a_device_that_vanishes_during_the_reset_is_no_reset_one() {
    for (place, fake, transport) in all() {
        let mut left = 3;
        fake.lie_with(place, status_register(place), move |device| {
            left -= 1;
            device.removed = left == 0;
            0x0F
        });
        assert_error!(transport.reset(later()), Error::DeviceGone { .. }, name(place));
    }
}

#[test]
fn c2_c30_a_removed_device_has_no_features_and_no_queues() {
    for ((place, fake, transport), reads) in all().into_iter().chain(all()).zip(removed_reads()) {
        fake.get().removed = true;
        fake.get().removed_reads = reads;
        let setup = setup(&*transport, 256, 0x10_0000);
        let gone = [
            transport.device_features().map(drop),
            transport.queue_max_size(0).map(drop),
            transport.queue_enabled(0).map(drop),
            transport.set_queue(0, &setup),
        ];
        for result in gone {
            assert_error!(result, Error::DeviceGone { .. }, name(place));
        }
    }
}

#[test]
fn c2_c30_a_removed_device_has_no_configuration() {
    for ((place, fake, transport), reads) in all().into_iter().chain(all()).zip(removed_reads()) {
        fake.get().removed = true;
        fake.get().removed_reads = reads;
        for width in [1, 2, 4, 8] {
            assert_error!(transport.read_config(0, width), Error::DeviceGone { .. }, name(place));
        }
    }
}

#[test]
fn the_offered_features_are_read_by_word() {
    for (place, fake, transport) in all() {
        fake.get().features = [0x8000_0001, 0x0000_0003, 0x10, 0x8000_0000];
        let words = transport.device_features().unwrap().words();
        let legacy = transport.legacy();
        let expected =
            if legacy { [0x8000_0001, 0, 0, 0] } else { [0x8000_0001, 0x0000_0003, 0x10, 0x8000_0000] };
        assert_eq!(words, expected, "{}", name(place));
        assert_eq!(transport.supported_features().words()[1] == 0, legacy);
    }
}

#[test]
fn c27_a_feature_word_without_an_accepted_bit_above_63_is_never_written() {
    for (place, fake, transport) in all() {
        transport.set_driver_features(Features::EVENT_IDX).unwrap();
        let [first, second, third, fourth] = fake.get().accepted;
        assert_eq!((first, third, fourth), (Some(1 << 29), None, None), "{}", name(place));
        assert_eq!(second, (!transport.legacy()).then_some(0));
        if !transport.legacy() {
            transport.set_driver_features(Features(1 << 66 | 1)).unwrap();
            assert_eq!(fake.get().accepted, [Some(1), Some(0), Some(4), None]);
        }
    }
}

#[test]
fn a_feature_that_the_interface_cannot_carry_is_refused_and_not_written() {
    for place in [Place::Legacy, Place::Mmio1, Place::Mmio2] {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        assert_error!(transport.set_driver_features(Features::ADMIN_VQ), Error::Misuse { .. });
        assert_eq!(fake.get().accepted, [None; 4]);
    }
}

#[test]
fn order_platform_asks_for_barriers_towards_the_device() {
    for (_, _, transport) in all() {
        assert_eq!(transport.barrier(), Barrier::Cpu);
        if !transport.legacy() {
            transport.set_driver_features(Features::ORDER_PLATFORM).unwrap();
            assert_eq!(transport.barrier(), Barrier::Device);
        }
    }
}

#[test]
fn c14_configuration_accesses_end_with_the_configuration() {
    for (place, fake, transport) in all() {
        assert_eq!(transport.config_len(), CONFIG_LEN, "{}", name(place));
        let before = fake.get().log.len();
        for (offset, width) in [
            (CONFIG_LEN, 1),
            (CONFIG_LEN - 1, 2),
            (CONFIG_LEN - 2, 4),
            (CONFIG_LEN - 4, 8),
            (u64::MAX, 1),
            (u64::MAX - 3, 4),
            (u64::MAX - 7, 8),
        ] {
            let expected = Error::ConfigOutOfRange { offset, width: width.into(), len: CONFIG_LEN };
            assert_eq!(error(transport.read_config(offset, width)), expected);
            assert_eq!(error(transport.write_config(offset, width, 0)), expected);
        }
        for (offset, width) in [(0, 0), (0, 3), (0, 16), (1, 2), (2, 4), (2, 8)] {
            assert_error!(transport.read_config(offset, width), Error::Misuse { .. });
        }
        assert_error!(transport.write_config(0, 1, 0x100), Error::Misuse { .. });
        assert_error!(transport.write_config(0, 4, 1 << 32), Error::Misuse { .. });
        assert_eq!(fake.get().log.len(), before, "nothing reaches the device");
    }
}

#[test]
fn s4_1_3_1_s4_2_2_2_each_configuration_field_is_accessed_at_its_width() {
    for (place, fake, transport) in all() {
        let start = match place {
            Place::Modern => super::fake::DEVICE,
            Place::Legacy => pci::legacy::CONFIG,
            _ => mmio::CONFIG,
        };
        assert_eq!(transport.read_config(5, 1).unwrap(), 0x06);
        assert_eq!(transport.read_config(2, 2).unwrap(), 0x0403);
        assert_eq!(transport.read_config(4, 4).unwrap(), 0x0807_0605);
        assert_eq!(transport.read_config(12, 8).unwrap(), 0x1413_1211_100F_0E0D);
        transport.write_config(16, 8, 0xA1A2_A3A4_A5A6_A7A8).unwrap();
        transport.write_config(14, 2, 0xB1B2).unwrap();
        assert_eq!(fake.get().config[14..18], [0xB2, 0xB1, 0xA8, 0xA7]);
        assert_eq!(fake.get().config[20..24], [0xA4, 0xA3, 0xA2, 0xA1]);
        let log = fake.get().log.clone();
        let seen = log.iter().rev().take(8).rev().map(|a| (a.offset - start, a.width)).collect::<Vec<_>>();
        let expected = [(5, 1), (2, 2), (4, 4), (12, 4), (16, 4), (16, 4), (20, 4), (14, 2)];
        assert_eq!(seen, expected, "{}", name(place));
    }
}

#[test]
fn s2_5_3_the_configuration_of_a_legacy_device_has_the_byte_order_of_its_machine() {
    for place in PLACES {
        let fake = Fake::new();
        let transport = open_as(&fake, place, ByteOrder::Big).unwrap();
        if !transport.legacy() {
            assert_eq!(transport.byte_order(), ByteOrder::Little);
            assert_eq!(transport.read_config(0, 2).unwrap(), 0x0201);
            continue;
        }
        assert_eq!(transport.byte_order(), ByteOrder::Big);
        assert_eq!(transport.read_config(3, 1).unwrap(), 0x04);
        assert_eq!(transport.read_config(0, 2).unwrap(), 0x0102);
        assert_eq!(transport.read_config(0, 4).unwrap(), 0x0102_0304);
        assert_eq!(transport.read_config(0, 8).unwrap(), 0x0102_0304_0506_0708);
        transport.write_config(0, 8, 0xA1A2_A3A4_A5A6_A7A8).unwrap();
        transport.write_config(8, 2, 0xB1B2).unwrap();
        transport.write_config(12, 4, 0xC1C2_C3C4).unwrap();
        let config = fake.get().config.clone();
        assert_eq!(config[..10], [0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xB1, 0xB2]);
        assert_eq!(config[12..16], [0xC1, 0xC2, 0xC3, 0xC4]);
        let features = transport.device_features().unwrap();
        assert_eq!(features.words()[0], 0x3000_0000, "the registers stay little-endian");
    }
}

#[test]
fn s2_5_4_a_legacy_interface_has_no_configuration_generation() {
    for (_, _, transport) in all() {
        let expected = if transport.legacy() { None } else { Some(3) };
        assert_eq!(transport.config_generation().unwrap(), expected);
    }
}

#[test]
fn a_reset_forgets_the_accepted_features() {
    for (_, _, _, transport) in with_ring_reset() {
        transport.reset(soon()).unwrap();
        assert_error!(transport.reset_queue(0, soon()), Error::Unsupported { .. });
    }
}

#[test]
fn c11_both_causes_come_from_one_read_and_undefined_bits_are_dropped() {
    for (place, fake, transport) in all() {
        let read = |bits| {
            fake.get().isr = bits;
            transport.isr().unwrap()
        };
        assert_eq!(read(0), InterruptCause::default(), "{}", name(place));
        assert_eq!(read(1), InterruptCause { queue: true, config: false });
        assert_eq!(read(2), InterruptCause { queue: false, config: true });
        assert_eq!(read(3), InterruptCause { queue: true, config: true });
        assert_eq!(read(0xFC), InterruptCause::default());
        assert_eq!(read(0x82), InterruptCause { queue: false, config: true });
        fake.get().removed = true;
        fake.get().removed_reads = u32::MAX;
        assert_error!(transport.isr(), Error::DeviceGone { .. }, name(place));
    }
}

#[test]
fn a_line_interrupt_is_unmasked_after_it_was_handled() {
    for (place, fake, transport) in all() {
        assert!(matches!(transport.enable_interrupts(0).unwrap(), Interrupts::Line(_)), "{}", name(place));
        transport.interrupt_handled().unwrap();
        assert_eq!(fake.get().unmasked, 1);
    }
}

#[test]
fn the_doorbell_writes_the_index_of_the_queue() {
    for (place, fake, transport) in all() {
        let (offset, width) = match place {
            Place::Modern => (super::fake::NOTIFY + 4, 2),
            Place::Legacy => (pci::legacy::QUEUE_NOTIFY, 2),
            _ => (mmio::QUEUE_NOTIFY, 4),
        };
        let value = transport.notification_id(1).unwrap();
        transport.doorbell(1).unwrap().ring(value.into()).unwrap();
        let last = *fake.get().log.last().unwrap();
        assert_eq!((last.offset, last.width, last.wrote), (offset, width, Some(1)), "{}", name(place));
    }
}
