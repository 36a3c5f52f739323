//! MMIO 1 and 2.

use alloc::vec::Vec;

use super::fake::{Fake, Place, name};
use super::{assert_error, open, setup, soon};
use crate::Error;
use crate::features::Features;
use crate::spec::mmio::*;
use crate::transport::{InterruptCause, QueueSetup};

const BOTH: [Place; 2] = [Place::Mmio2, Place::Mmio1];

/// Offsets that opening read.
fn reads(fake: &Fake) -> Vec<u64> {
    fake.get().log.iter().map(|access| access.offset).collect()
}

#[test]
fn c22_a_wrong_magic_value_is_no_device_and_no_other_register_is_read() {
    for found in [0, u32::MAX, MAGIC.swap_bytes(), MAGIC + 1] {
        let fake = Fake::new();
        fake.lie(Place::Mmio2, MAGIC_VALUE, found);
        assert_error!(open(&fake, Place::Mmio2), Error::BadMagic { found: f } if f == found);
        assert_eq!(reads(&fake), [MAGIC_VALUE]);
    }
}

#[test]
fn c22_an_unknown_version_is_refused_and_no_other_register_is_read() {
    for found in [0, 3, u32::MAX] {
        let fake = Fake::new();
        fake.lie(Place::Mmio2, VERSION, found);
        assert_error!(open(&fake, Place::Mmio2), Error::BadVersion { found: f } if f == found);
        assert_eq!(reads(&fake), [MAGIC_VALUE, VERSION]);
    }
}

#[test]
fn c22_device_id_0_is_an_empty_slot_and_no_other_register_is_accessed() {
    for place in BOTH {
        let fake = Fake::new();
        fake.lie(place, DEVICE_ID, 0);
        let result = open(&fake, place);
        assert_eq!(result.as_ref().unwrap_err().address(), Some("fake:mmio"));
        assert_error!(result, Error::NoDevice);
        assert_eq!(reads(&fake), [MAGIC_VALUE, VERSION, DEVICE_ID]);
    }
}

#[test]
fn c22_any_vendor_id_is_accepted() {
    let fake = Fake::new();
    fake.lie(Place::Mmio2, VENDOR_ID, u32::MAX);
    assert!(open(&fake, Place::Mmio2).is_ok());
}

#[test]
fn s4_2_2_2_control_registers_are_accessed_as_32_bits_and_in_their_direction() {
    for place in BOTH {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        transport.reset(soon()).unwrap();
        transport.device_features().unwrap();
        transport.set_driver_features(Features::EVENT_IDX).unwrap();
        transport.config_generation().unwrap();
        transport.set_queue(0, &setup(&*transport, 256, 0x1000)).unwrap();
        transport.doorbell(0).unwrap().ring(0).unwrap();
        fake.get().isr = 3;
        transport.isr().unwrap();
        transport.stop_queue(0).unwrap();
        transport.shared_memory(0).unwrap();
        let read_only = [
            MAGIC_VALUE,
            VERSION,
            DEVICE_ID,
            DEVICE_FEATURES,
            QUEUE_SIZE_MAX,
            INTERRUPT_STATUS,
            SHM_LEN,
            SHM_LEN + 4,
            SHM_BASE,
            SHM_BASE + 4,
            CONFIG_GENERATION,
        ];
        let both = [QUEUE_PFN, QUEUE_READY, STATUS];
        let other_version = if place == Place::Mmio2 {
            &[GUEST_PAGE_SIZE, QUEUE_ALIGN, QUEUE_PFN][..]
        } else {
            &[QUEUE_READY, QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE, SHM_SEL, CONFIG_GENERATION][..]
        };
        for access in &fake.get().log {
            assert_eq!(access.width, 4, "{access:x?}");
            let wrong_way = read_only.contains(&access.offset) == access.wrote.is_some();
            assert!(both.contains(&access.offset) || !wrong_way, "{access:x?}");
            assert!(!other_version.contains(&access.offset), "{} {access:x?}", name(place));
        }
    }
}

#[test]
fn s4_2_2_2_a_queue_in_use_is_asked_for_nothing_else() {
    for place in BOTH {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        transport.set_queue(0, &setup(&*transport, 256, 0x1000)).unwrap();
        fake.get().log.clear();
        assert_error!(transport.queue_max_size(0), Error::QueueUnavailable { .. });
        let again = transport.set_queue(0, &setup(&*transport, 256, 0x1000));
        assert_error!(again, Error::QueueUnavailable { .. });
        let allowed = [QUEUE_SEL, QUEUE_PFN, QUEUE_READY];
        assert!(fake.get().log.iter().all(|a| allowed.contains(&a.offset)), "{}", name(place));
    }
}

#[test]
fn c27_words_that_echo_a_non_zero_word_1_offer_nothing_above_bit_63() {
    let fake = Fake::new();
    let transport = open(&fake, Place::Mmio2).unwrap();
    for (words, kept) in [
        ([5, 0x101, 0x101, 0x101], [5, 0x101, 0, 0]),
        ([5, 0x101, 0x101, 0], [5, 0x101, 0x101, 0]),
        ([5, 0x101, 0, 0x101], [5, 0x101, 0, 0x101]),
        ([5, 0x101, 0x7, 0x7], [5, 0x101, 0x7, 0x7]),
        ([5, 0, 0, 0], [5, 0, 0, 0]),
        ([0, 1, 1, 1], [0, 1, 0, 0]),
    ] {
        fake.get().features = words;
        assert_eq!(transport.device_features().unwrap().words(), kept);
    }
}

#[test]
fn s4_2_4_a_version_1_device_is_told_the_page_size_once_a_reset_before_its_queues() {
    let fake = Fake::new();
    let transport = open(&fake, Place::Mmio1).unwrap();
    for _ in 0..2 {
        transport.reset(soon()).unwrap();
        fake.get().page_sizes.clear();
        for index in 0..2 {
            transport
                .set_queue(index, &setup(&*transport, 64, 0x10_0000 + 0x10_000 * u64::from(index)))
                .unwrap();
            assert_eq!(fake.get().page_sizes, [4096]);
        }
    }
    let writes = fake.get().log.iter().filter(|a| a.wrote.is_some()).map(|a| a.offset).collect::<Vec<_>>();
    let expected = [STATUS, QUEUE_SEL, GUEST_PAGE_SIZE, QUEUE_SIZE, QUEUE_ALIGN, QUEUE_PFN];
    assert_eq!(writes[..6], expected);
    assert_eq!(fake.get().align, 4096);
    assert_eq!(fake.in_use(1), (0, 0x110));
}

#[test]
fn c23_a_page_number_that_reads_back_other_is_refused() {
    let fake = Fake::new();
    let transport = open(&fake, Place::Mmio1).unwrap();
    fake.lie_with(Place::Mmio1, QUEUE_PFN, |device| device.queues[0].pfn << 1);
    assert_error!(
        transport.set_queue(0, &setup(&*transport, 64, 0x10_0000)),
        Error::QueueUnavailable { queue: 0, .. }
    );
}

#[test]
fn c24_a_page_number_beyond_32_bits_is_refused() {
    let fake = Fake::new();
    let transport = open(&fake, Place::Mmio1).unwrap();
    assert_error!(transport.set_queue(0, &setup(&*transport, 64, 1 << 44)), Error::MemoryLimit { .. });
    assert!(fake.writes(Place::Mmio1, QUEUE_PFN).is_empty());
}

#[test]
fn s4_2_3_4_1_the_cause_is_acknowledged_without_undefined_bits() {
    for place in BOTH {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        fake.get().isr = 0xF2;
        assert_eq!(transport.isr().unwrap(), InterruptCause { queue: false, config: true });
        assert_eq!(fake.writes(place, INTERRUPT_ACK), [2]);
        assert_eq!(fake.get().isr, 0xF0);
        transport.isr().unwrap();
        assert_eq!(fake.writes(place, INTERRUPT_ACK), [2], "nothing to acknowledge, nothing written");
    }
}

#[test]
fn an_mmio_device_has_no_vectors() {
    for place in BOTH {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        assert_error!(transport.set_config_vector(Some(0)), Error::Misuse { .. });
        transport.set_config_vector(None).unwrap();
        let wanted = QueueSetup { vector: Some(0), ..setup(&*transport, 64, 0x10_0000) };
        assert_error!(transport.set_queue(0, &wanted), Error::Misuse { .. });
    }
}

#[test]
fn s2_10_c25_shared_memory_is_checked_and_fails_alone() {
    let fake = Fake::new();
    let transport = open(&fake, Place::Mmio2).unwrap();
    assert!(transport.shared_memory(0).unwrap().is_none());
    fake.get().shm = (0x2_0000_0000, 0x4000);
    let found = transport.shared_memory(0).unwrap().unwrap();
    assert_eq!((found.offset, found.len), (0, 0x4000));
    assert!(transport.shared_memory(1).unwrap().is_none());
    fake.get().shm = (0x2_0000_0000, 0x4001);
    assert_error!(transport.shared_memory(0), Error::BadConfig { field: "SHMLen", .. });
    fake.get().shm = (0xFFFF_FFFF_FFFF_F000, 0x2000);
    assert_error!(transport.shared_memory(0), Error::BadConfig { field: "SHMBase", .. });
    fake.get().shm = (1 << 41, 0x1000);
    assert_error!(transport.shared_memory(0), Error::Unsupported { .. });
    fake.get().shm = (0x1000, 0);
    assert!(transport.shared_memory(0).unwrap().is_none());
    let legacy = open(&fake, Place::Mmio1).unwrap();
    assert!(legacy.shared_memory(0).unwrap().is_none());
}
