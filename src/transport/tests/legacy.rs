//! PCI legacy.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::fake::{CONFIG_LEN, Fake, Place, pci_config, standard_caps};
use super::{assert_error, error, open, setup, soon};
use crate::Error;
use crate::bus::BarKind;
use crate::spec::ByteOrder;
use crate::spec::pci::NO_VECTOR;
use crate::spec::pci::legacy::*;
use crate::transport::{Interrupts, PciLegacy, QueueSetup, RingLayout, Transport};

fn legacy() -> (Fake, Arc<dyn Transport>) {
    let fake = Fake::new();
    let transport = open(&fake, Place::Legacy).unwrap();
    (fake, transport)
}

#[test]
fn every_register_is_accessed_at_its_own_width() {
    let (fake, transport) = legacy();
    transport.reset(soon()).unwrap();
    transport.device_features().unwrap();
    transport.set_driver_features(crate::features::Features::EVENT_IDX).unwrap();
    transport.enable_interrupts(2).unwrap();
    transport.set_config_vector(Some(0)).unwrap();
    transport.set_queue(0, &QueueSetup { vector: Some(1), ..setup(&*transport, 256, 0x1000) }).unwrap();
    transport.doorbell(0).unwrap().ring(0).unwrap();
    transport.isr().unwrap();
    let log = fake.get().log.clone();
    let mut seen = log
        .iter()
        .filter(|a| a.place == Place::Legacy)
        .inspect(|a| {
            let width = match a.offset {
                DEVICE_FEATURES | DRIVER_FEATURES | QUEUE_ADDRESS => 4,
                DEVICE_STATUS | ISR_STATUS => 1,
                _ => 2,
            };
            assert_eq!(a.width, width, "{a:x?}");
        })
        .map(|a| a.offset)
        .collect::<Vec<_>>();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0x00, 0x04, 0x08, 0x0C, 0x0E, 0x10, 0x12, 0x13, 0x14, 0x16]);
}

#[test]
fn s4_1_4_10_the_configuration_moves_with_msix_and_back() {
    let (fake, transport) = legacy();
    assert_eq!((transport.config_len(), transport.read_config(0, 1).unwrap()), (CONFIG_LEN, 1));
    assert!(matches!(transport.enable_interrupts(3).unwrap(), Interrupts::Vectors(_)));
    assert_eq!((transport.config_len(), transport.read_config(0, 1).unwrap()), (CONFIG_LEN - 4, 1));
    transport.write_config(4, 4, 0x0A0B_0C0D).unwrap();
    assert_eq!(fake.get().config[4..8], [0x0D, 0x0C, 0x0B, 0x0A]);
    transport.disable_interrupts().unwrap();
    assert_eq!((transport.config_len(), transport.read_config(4, 4).unwrap()), (CONFIG_LEN, 0x0A0B_0C0D));
}

#[test]
fn msix_that_somebody_left_on_is_switched_off_before_the_configuration_is_read() {
    let fake = Fake::new();
    fake.get().msix = 2;
    let transport = open(&fake, Place::Legacy).unwrap();
    assert_eq!(fake.get().msix, 0);
    assert_eq!(transport.read_config(0, 1).unwrap(), 1);
}

#[test]
fn c24_the_size_of_a_queue_is_the_devices() {
    let (fake, transport) = legacy();
    assert_eq!(transport.ring_layout(), RingLayout::Legacy { align: 4096 });
    assert_error!(transport.set_queue(0, &setup(&*transport, 128, 0x1000)), Error::QueueUnavailable { .. });
    transport.set_queue(0, &setup(&*transport, 256, 0x1000)).unwrap();
    assert_eq!(fake.get().queues[0].pfn, 1);
}

#[test]
fn c24_a_page_number_beyond_32_bits_is_refused_and_not_cut() {
    let (fake, transport) = legacy();
    let last = 0xFFFF_FFFEu64 << 12;
    transport.set_queue(0, &setup(&*transport, 256, last)).unwrap();
    assert_eq!(fake.get().queues[0].pfn, 0xFFFF_FFFE);
    for base in [1 << 44, (1 << 44) + 0x1000, 1 << 63] {
        let refused = error(transport.set_queue(1, &setup(&*transport, 256, base)));
        assert!(matches!(refused, Error::MemoryLimit { have: 0x1000_0000_0000, .. }), "{refused:?}");
    }
    assert_eq!(fake.writes(Place::Legacy, QUEUE_ADDRESS), [0xFFFF_FFFE]);
}

#[test]
fn an_address_that_no_page_number_can_tell_is_refused() {
    let (fake, transport) = legacy();
    for base in [0, 0x800] {
        let setup = setup(&*transport, 256, base);
        assert_error!(transport.set_queue(0, &setup), Error::Misuse { .. });
    }
    let setup = QueueSetup {
        descriptor_area: u64::MAX - 0xFFF,
        driver_area: 0,
        device_area: 0,
        ..setup(&*transport, 256, 0x1000)
    };
    assert_error!(transport.set_queue(0, &setup), Error::Misuse { .. });
    assert!(fake.writes(Place::Legacy, QUEUE_ADDRESS).is_empty());
}

#[test]
fn c12_a_refused_vector_leaves_the_queue_without_address() {
    let (fake, transport) = legacy();
    transport.enable_interrupts(2).unwrap();
    fake.lie(Place::Legacy, QUEUE_MSIX_VECTOR, NO_VECTOR.into());
    fake.lie(Place::Legacy, CONFIG_MSIX_VECTOR, NO_VECTOR.into());
    assert_error!(transport.set_config_vector(Some(1)), Error::VectorRefused { vector: 1 });
    let wanted = QueueSetup { vector: Some(1), ..setup(&*transport, 256, 0x1000) };
    assert_error!(transport.set_queue(0, &wanted), Error::VectorRefused { vector: 1 });
    assert_eq!(fake.get().queues[0].pfn, 0);
    transport.set_queue(0, &QueueSetup { vector: None, ..wanted }).unwrap();
}

#[test]
fn s4_1_2_3_a_function_whose_ids_exclude_a_legacy_interface_has_none() {
    let open_legacy = |change: &dyn Fn(&Fake)| {
        let fake = Fake::new();
        change(&fake);
        PciLegacy::open(Arc::new(fake.function()), ByteOrder::Little)
    };
    let modern_only = open_legacy(&|fake| fake.get().pci_config = pci_config(0x1042, &standard_caps()));
    assert_error!(modern_only, Error::Unsupported { .. });
    let revision = open_legacy(&|fake| fake.get().pci_config[8] = 1);
    assert_error!(revision, Error::Unsupported { .. });
    assert!(open_legacy(&|_| ()).is_ok());
}

#[test]
fn s4_1_4_10_a_legacy_interface_lies_in_bar_0_in_io_space() {
    let fake = Fake::new();
    let mut without = fake.function();
    without.bars[0] = None;
    assert_error!(PciLegacy::open(Arc::new(without), ByteOrder::Little), Error::Unsupported { .. });
    let mut memory = fake.function();
    memory.bars[0].as_mut().unwrap().kind = BarKind::Memory;
    assert_error!(PciLegacy::open(Arc::new(memory), ByteOrder::Little), Error::Unsupported { .. });
}

#[test]
fn a_legacy_interface_has_no_shared_memory() {
    let (_, transport) = legacy();
    assert!(transport.shared_memory(0).unwrap().is_none());
}
