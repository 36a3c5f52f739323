//! PCI modern.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::fake::{Access, COMMON, Fake, NOTIFY, Place, pci_config, standard_caps, vendor_cap};
use super::{assert_error, open, setup, soon};
use crate::Error;
use crate::features::Features;
use crate::spec::pci::common::*;
use crate::spec::pci::{NO_VECTOR, cap};
use crate::transport::{Interrupts, QueueSetup, Transport};

fn modern() -> (Fake, Arc<dyn Transport>) {
    let fake = Fake::new();
    let transport = open(&fake, Place::Modern).unwrap();
    (fake, transport)
}

/// Behind a notification structure of this multiplier and length.
fn notifying(multiplier: u32, length: u32) -> (Fake, Arc<dyn Transport>) {
    let fake = Fake::new();
    let mut caps = standard_caps();
    caps[4] = vendor_cap(cap::NOTIFY_CFG, 4, NOTIFY as u32, length, &[multiplier]);
    fake.get().pci_config = pci_config(0x1042, &caps);
    let transport = open(&fake, Place::Modern).unwrap();
    (fake, transport)
}

#[test]
fn s4_1_3_1_every_register_is_accessed_at_its_own_width() {
    let (fake, transport) = modern();
    transport.reset(soon()).unwrap();
    transport.device_features().unwrap();
    let accepted =
        Features::RING_RESET | Features::NOTIF_CONFIG_DATA | Features::ADMIN_VQ | Features(1 << 70);
    transport.set_driver_features(accepted).unwrap();
    transport.enable_interrupts(2).unwrap();
    transport.set_config_vector(Some(0)).unwrap();
    let setup = QueueSetup { vector: Some(1), ..setup(&*transport, 64, 0x1_0000_0000) };
    transport.set_queue(0, &setup).unwrap();
    transport.doorbell(0).unwrap();
    transport.notification_id(0).unwrap();
    transport.config_generation().unwrap();
    transport.reset_queue(0, soon()).unwrap();
    let _ = transport.queue_max_size(9);
    let width = |offset| match offset {
        DEVICE_FEATURE_SELECT | DEVICE_FEATURE | DRIVER_FEATURE_SELECT | DRIVER_FEATURE => 4,
        DEVICE_STATUS | CONFIG_GENERATION => 1,
        QUEUE_DESC..LEN => 4,
        _ => 2,
    };
    let log = fake.get().log.clone();
    let common = log.iter().filter(|a| a.place == Place::Modern && a.offset < COMMON + FULL_LEN);
    let mut seen = common.inspect(|a| assert_eq!(a.width, width(a.offset), "{a:x?}")).collect::<Vec<_>>();
    seen.sort_by_key(|a| a.offset);
    seen.dedup_by_key(|a| a.offset);
    assert_eq!(seen.len(), 23, "every register was used");
}

#[test]
fn s4_1_4_3_2_a_queue_is_enabled_last_and_read_only_registers_stay_unwritten() {
    let (fake, transport) = modern();
    transport.set_queue(0, &setup(&*transport, 64, 0x1000)).unwrap();
    let log = fake.get().log.clone();
    let written = log.iter().filter(|a| a.wrote.is_some()).map(|a| a.offset).collect::<Vec<_>>();
    let areas = (QUEUE_DESC..LEN).step_by(4);
    let expected = [QUEUE_SELECT, QUEUE_SIZE].into_iter().chain(areas).chain([QUEUE_ENABLE]);
    assert_eq!(written, expected.collect::<Vec<_>>());
    assert_eq!(fake.writes(Place::Modern, QUEUE_ENABLE), [1]);
}

#[test]
fn c7_a_size_that_does_not_read_back_is_refused() {
    let (fake, transport) = modern();
    let mut reads = 0;
    fake.lie_with(Place::Modern, QUEUE_SIZE, move |_| {
        reads += 1;
        if reads > 1 { 512 } else { 256 }
    });
    let result = transport.set_queue(0, &setup(&*transport, 64, 0x1000));
    assert_error!(result, Error::QueueUnavailable { .. });
    assert!(fake.writes(Place::Modern, QUEUE_ENABLE).is_empty());
}

#[test]
fn c8_a_queue_beyond_the_number_of_queues_is_not_available() {
    let (fake, transport) = modern();
    for (count, reachable) in [(0, 0), (1, 1), (65535, 2)] {
        fake.get().num_queues = count;
        assert_eq!(transport.queue_count().unwrap(), Some(count));
        for index in 0..3 {
            let max = transport.queue_max_size(index);
            assert_eq!(max.is_ok(), index < reachable, "{count} queues, index {index}");
            if index >= reachable {
                assert_error!(max, Error::QueueUnavailable { .. });
            }
        }
    }
}

#[test]
fn c25_administration_queues_are_reachable_only_in_a_legal_range() {
    let (fake, transport) = modern();
    fake.get().num_queues = 1;
    fake.lie(Place::Modern, ADMIN_QUEUE_INDEX, 1);
    fake.lie(Place::Modern, ADMIN_QUEUE_NUM, 1);
    assert_error!(transport.queue_max_size(1), Error::QueueUnavailable { .. });
    transport.set_driver_features(Features::VERSION_1 | Features::ADMIN_VQ).unwrap();
    assert_eq!(transport.queue_max_size(1).unwrap(), 256);
    assert_eq!(transport.queue_max_size(0).unwrap(), 256);
    for (index, number) in [(1, 0xFFFF), (1, 0x1_0000 - 1), (0, 2), (2, 1), (1, 0)] {
        let legal = index + number <= 0x1_0000 && index == 1 && number > 0;
        fake.lie(Place::Modern, ADMIN_QUEUE_INDEX, index);
        fake.lie(Place::Modern, ADMIN_QUEUE_NUM, number);
        assert_eq!(transport.queue_max_size(1).is_ok(), legal, "{index} {number}");
    }
}

#[test]
fn c10_a_notification_address_outside_the_structure_is_refused() {
    let (fake, transport) = notifying(4, 0x100);
    for (offset, inside) in [(0, true), (0x3F, true), (0x40, false), (0xFFFE, false)] {
        fake.get().queues[0].notify_off = offset;
        let doorbell = transport.doorbell(0);
        assert_eq!(doorbell.is_ok(), inside, "{offset:#x}");
        if !inside {
            assert_error!(doorbell, Error::QueueUnavailable { queue: 0, .. });
        }
    }
}

#[test]
fn c10_p5_the_notification_address_is_computed_in_64_bits() {
    // 0x8000 · 0x20000 is 2^32: 0 in 32 bits, and inside.
    let (fake, transport) = notifying(0x2_0000, 0x100);
    fake.get().queues[0].notify_off = 0x8000;
    assert_error!(transport.doorbell(0), Error::QueueUnavailable { .. });
    let (fake, transport) = notifying(0xFFFF_FFFE, 0x100);
    fake.get().queues[0].notify_off = 0xFFFF;
    assert_error!(transport.doorbell(0), Error::QueueUnavailable { .. });
}

#[test]
fn c10_a_multiplier_of_0_gives_all_queues_one_doorbell() {
    let (fake, transport) = notifying(0, 2);
    for index in 0..2 {
        transport.doorbell(index).unwrap().ring(index.into()).unwrap();
    }
    assert_eq!(fake.writes(Place::Modern, NOTIFY), [0, 1]);
}

#[test]
fn s4_1_5_2_1_notification_data_is_a_32_bit_write_within_the_structure() {
    let (fake, transport) = notifying(2, 6);
    fake.get().queues[1].notify_off = 2;
    transport.set_driver_features(Features::VERSION_1 | Features::NOTIFICATION_DATA).unwrap();
    transport.doorbell(0).unwrap().ring(0x8005_0000).unwrap();
    let last = *fake.get().log.last().unwrap();
    let expected = Access { place: Place::Modern, offset: NOTIFY, width: 4, wrote: Some(0x8005_0000) };
    assert_eq!(last, expected);
    assert_error!(transport.doorbell(1), Error::QueueUnavailable { .. }, "4 + 4 bytes of 6");
    fake.get().queues[1].notify_off = 1;
    assert_error!(transport.doorbell(1), Error::QueueUnavailable { .. }, "aligned to 2 only");
}

#[test]
fn s4_1_5_2_1_notif_config_data_names_the_queue() {
    let (fake, transport) = modern();
    assert_eq!(transport.notification_id(1).unwrap(), 1);
    transport.set_driver_features(Features::VERSION_1 | Features::NOTIF_CONFIG_DATA).unwrap();
    assert_eq!(transport.notification_id(1).unwrap(), 0x71);
    assert!(fake.writes(Place::Modern, QUEUE_NOTIF_CONFIG_DATA).is_empty());
}

#[test]
fn features_whose_registers_are_missing_are_not_supported() {
    let fields = Features::NOTIF_CONFIG_DATA | Features::RING_RESET | Features::ADMIN_VQ;
    for (length, supported) in [
        (0x38, Features::EMPTY),
        (0x3A, Features::NOTIF_CONFIG_DATA),
        (0x3C, Features::NOTIF_CONFIG_DATA | Features::RING_RESET),
        (0x40, fields),
    ] {
        let fake = Fake::new();
        let mut caps = standard_caps();
        caps[1] = vendor_cap(cap::COMMON_CFG, 4, COMMON as u32, length, &[]);
        fake.get().pci_config = pci_config(0x1042, &caps);
        let transport = open(&fake, Place::Modern).unwrap();
        assert_eq!(transport.supported_features() & fields, supported);
        assert!(transport.supported_features().contains(Features::VERSION_1));
        let accepted = transport.set_driver_features(fields);
        assert_eq!(accepted.is_ok(), supported == fields);
        if supported != fields {
            assert_error!(accepted, Error::Misuse { .. });
        }
    }
}

#[test]
fn s4_1_5_1_2_events_are_mapped_to_vectors_and_read_back() {
    let (fake, transport) = modern();
    let Interrupts::Vectors(events) = transport.enable_interrupts(2).unwrap() else { panic!("no vectors") };
    assert_eq!((events.len(), fake.get().msix), (2, 2));
    transport.set_config_vector(Some(0)).unwrap();
    transport.set_queue(1, &QueueSetup { vector: Some(1), ..setup(&*transport, 256, 0x1000) }).unwrap();
    assert_eq!(fake.get().config_vector, 0);
    assert_eq!(fake.get().queues[1].vector, 1);
    transport.interrupt_handled().unwrap();
    assert_eq!(fake.get().unmasked, 0, "a vector needs no unmasking");
    transport.set_config_vector(None).unwrap();
    assert_eq!(fake.get().config_vector, NO_VECTOR);
    transport.disable_interrupts().unwrap();
    assert_eq!(fake.get().msix, 0);
}

#[test]
fn vectors_are_as_many_as_the_table_has_and_none_beyond_is_mapped() {
    let (fake, transport) = modern();
    let beyond = |vector| QueueSetup { vector: Some(vector), ..setup(&*transport, 256, 0x1000) };
    assert_error!(transport.set_queue(0, &beyond(0)), Error::Misuse { .. }, "MSI-X is off");
    let Interrupts::Vectors(events) = transport.enable_interrupts(100).unwrap() else { panic!("no vectors") };
    assert_eq!(events.len(), 3);
    for vector in [3, 0x800, NO_VECTOR] {
        assert_error!(transport.set_config_vector(Some(vector)), Error::Misuse { .. });
        assert_error!(transport.set_queue(0, &beyond(vector)), Error::Misuse { .. });
    }
    assert!(fake.writes(Place::Modern, CONFIG_MSIX_VECTOR).is_empty());
    assert!(matches!(transport.enable_interrupts(0).unwrap(), Interrupts::Line(_)));
    assert_eq!(fake.get().msix, 0, "the line works only while MSI-X is off");
}

#[test]
fn without_msix_no_vector_register_is_touched() {
    let (fake, transport) = modern();
    transport.set_config_vector(None).unwrap();
    transport.set_queue(0, &setup(&*transport, 256, 0x1000)).unwrap();
    let vectors = [CONFIG_MSIX_VECTOR, QUEUE_MSIX_VECTOR];
    assert!(fake.get().log.iter().all(|access| !vectors.contains(&access.offset)));
}

#[test]
fn c12_a_refused_vector_leaves_the_queue_disabled_and_may_be_given_up() {
    let (fake, transport) = modern();
    transport.enable_interrupts(3).unwrap();
    for read in [u32::from(NO_VECTOR), 1] {
        fake.lie(Place::Modern, CONFIG_MSIX_VECTOR, read);
        fake.lie(Place::Modern, QUEUE_MSIX_VECTOR, read);
        assert_error!(transport.set_config_vector(Some(0)), Error::VectorRefused { vector: 0 });
        let wanted = QueueSetup { vector: Some(2), ..setup(&*transport, 64, 0x1000) };
        assert_error!(transport.set_queue(0, &wanted), Error::VectorRefused { vector: 2 });
        assert!(!transport.queue_enabled(0).unwrap());
    }
    transport.set_queue(0, &setup(&*transport, 64, 0x1000)).unwrap();
    assert!(transport.queue_enabled(0).unwrap());
    assert_eq!(fake.get().queues[0].vector, NO_VECTOR);
}
