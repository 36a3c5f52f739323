//! The walk over PCI capabilities (faults C17 to C19, C25; peers' holes P5, P6).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::assert_error;
use super::fake::{
    COMMON, CONFIG_LEN, DEVICE, Fake, MODERN_LEN, NOTIFY, msix_cap, pci_config, standard_caps, vendor_cap,
};
use crate::bus::BarKind;
use crate::event::Deadline;
use crate::spec::pci::cap::*;
use crate::spec::pci::config;
use crate::spec::{ByteOrder, DeviceType};
use crate::transport::{PciInterface, PciModern, Transport, TransportKind, open_pci};
use crate::{Error, Result};

fn find(bytes: Vec<u8>) -> Result<Option<PciModern>> {
    let fake = Fake::new();
    fake.get().pci_config = bytes;
    PciModern::find(Arc::new(fake.function()))
}

/// The standard function with one capability changed, as far as it is opened by it.
fn with(index: usize, cap: Vec<u8>) -> Result<Option<PciModern>> {
    let mut caps = standard_caps();
    caps[index] = cap;
    find(pci_config(0x1042, &caps))
}

const COMMON_AT: usize = 1;
const ISR_AT: usize = 2;
const DEVICE_AT: usize = 3;
const NOTIFY_AT: usize = 4;

fn with_bytes(change: impl FnOnce(&mut Vec<u8>)) -> Result<Option<PciModern>> {
    let mut bytes = pci_config(0x1042, &standard_caps());
    change(&mut bytes);
    find(bytes)
}

#[test]
fn c17_p6_a_circle_of_capabilities_ends_the_open() {
    assert_error!(with_bytes(|b| b[0x41] = 0x40), Error::BadCapability { at: 0x41, .. });
    assert_error!(with_bytes(|b| b[0x91] = 0x40), Error::BadCapability { at: 0x91, .. });
}

#[test]
fn c17_a_link_into_the_header_ends_the_open() {
    assert_error!(with_bytes(|b| b[0x34] = 0x3C), Error::BadCapability { at: 0x34, .. });
    assert_error!(with_bytes(|b| b[0x41] = 0x04), Error::BadCapability { at: 0x41, .. });
}

#[test]
fn c17_a_misaligned_link_ends_the_open() {
    assert_error!(with_bytes(|b| b[0x41] = 0x4D), Error::BadCapability { at: 0x41, .. });
}

#[test]
fn c17_48_capabilities_are_walked_to_the_end() {
    let mut bytes = pci_config(0x1042, &[]);
    bytes[0x34] = 0x40;
    for at in (0x40..0xFC).step_by(4) {
        bytes[at] = 0x01;
        bytes[at + 1] = at as u8 + 4;
    }
    assert!(find(bytes.clone()).unwrap().is_none());
    bytes[0xFD] = 0x40;
    assert_error!(find(bytes), Error::BadCapability { at: 0xFD, .. });
}

#[test]
fn c17_a_capability_that_runs_past_the_configuration_space_is_not_used() {
    let mut bytes = pci_config(0x1042, &standard_caps());
    bytes[0x41] = 0xF8;
    bytes[0xF8..0xFC].copy_from_slice(&[ID_VENDOR, 0, 16, COMMON_CFG]);
    assert_error!(find(bytes.clone()), Error::BadCapability { at: 0xF8, .. });
    bytes[0xF8] = 0x11;
    assert_error!(find(bytes), Error::BadCapability { at: 0xF8, .. });
}

#[test]
fn c18_a_capability_shorter_than_its_type_is_not_used() {
    let mut short = vendor_cap(COMMON_CFG, 4, COMMON as u32, 0x40, &[]);
    short[2] = 15;
    assert_error!(with(COMMON_AT, short), Error::BadCapability { .. });
    let plain = vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32, 0x100, &[]);
    assert_error!(with(NOTIFY_AT, plain), Error::BadCapability { .. });
}

#[test]
fn c18_a_reserved_bar_is_not_used() {
    for bar in [6, 7, 255] {
        let cap = vendor_cap(ISR_CFG, bar, 0x1000, 1, &[]);
        assert_error!(with(ISR_AT, cap), Error::BadCapability { .. });
    }
}

#[test]
fn c18_a_bar_that_is_not_there_is_not_used() {
    assert_error!(with(ISR_AT, vendor_cap(ISR_CFG, 5, 0x1000, 1, &[])), Error::BadCapability { .. });
}

#[test]
fn c18_p5_offset_and_length_are_added_in_64_bits() {
    for (offset, length) in [(0xFFFF_FFF0, 0x40), (0xFFFF_FFFC, 0xFFFF_FFFF), (4, 0xFFFF_FFFC)] {
        let cap = vendor_cap(DEVICE_CFG, 4, offset, length, &[]);
        assert_error!(with(DEVICE_AT, cap), Error::BadCapability { .. });
    }
}

#[test]
fn c18_a_structure_ends_with_its_bar_at_the_latest() {
    let len = MODERN_LEN as u32;
    assert_error!(
        with(NOTIFY_AT, vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32, len - NOTIFY as u32 + 1, &[4])),
        Error::BadCapability { .. }
    );
    let last = with(NOTIFY_AT, vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32, len - NOTIFY as u32, &[4]));
    assert!(last.unwrap().is_some());
}

#[test]
fn c18_a_misaligned_structure_is_not_used() {
    let cases = [
        (COMMON_AT, vendor_cap(COMMON_CFG, 4, 2, 0x40, &[])),
        (DEVICE_AT, vendor_cap(DEVICE_CFG, 4, DEVICE as u32 + 2, 8, &[])),
        (NOTIFY_AT, vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32 + 1, 8, &[4])),
    ];
    for (index, cap) in cases {
        assert_error!(with(index, cap), Error::BadCapability { .. });
    }
    let isr = with(ISR_AT, vendor_cap(ISR_CFG, 4, 0x1003, 1, &[]));
    assert!(isr.unwrap().is_some(), "the ISR status has no alignment (§4.1.4.5)");
}

#[test]
fn c18_a_structure_too_short_for_its_registers_is_not_used() {
    assert_error!(with(COMMON_AT, vendor_cap(COMMON_CFG, 4, 0, 0x37, &[])), Error::BadCapability { .. });
    assert_error!(
        with(NOTIFY_AT, vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32, 1, &[4])),
        Error::BadCapability { .. }
    );
    assert_error!(with(ISR_AT, vendor_cap(ISR_CFG, 4, 0x1000, 0, &[])), Error::BadCapability { .. });
}

#[test]
fn c18_overlapping_structures_are_not_used() {
    assert_error!(with(ISR_AT, vendor_cap(ISR_CFG, 4, 0x3F, 1, &[])), Error::BadCapability { .. });
    assert_error!(with(DEVICE_AT, vendor_cap(DEVICE_CFG, 4, 0x20, 8, &[])), Error::BadCapability { .. });
    assert!(with(ISR_AT, vendor_cap(ISR_CFG, 4, 0x40, 1, &[])).unwrap().is_some(), "neighbours are fine");
}

#[test]
fn c18_a_structure_over_the_msix_table_or_its_pending_bits_is_not_used() {
    assert_error!(with(0, msix_cap(4, DEVICE as u32)), Error::BadCapability { .. });
    assert_error!(with(0, msix_cap(4, DEVICE as u32 - 0x800)), Error::BadCapability { .. });
    assert!(with(0, msix_cap(4, 0x1400)).unwrap().is_some());
}

#[test]
fn c10_an_odd_notification_multiplier_is_refused_at_open() {
    for multiplier in [1, 3, u32::MAX] {
        let cap = vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32, 0x100, &[multiplier]);
        assert_error!(with(NOTIFY_AT, cap), Error::BadCapability { .. });
    }
}

#[test]
fn c18_each_required_structure_is_required() {
    for index in [COMMON_AT, ISR_AT, NOTIFY_AT] {
        let mut caps = standard_caps();
        caps.remove(index);
        assert_error!(find(pci_config(0x1042, &caps)), Error::BadCapability { at: 0x34, .. });
    }
    let mut caps = standard_caps();
    caps.remove(DEVICE_AT);
    let modern = find(pci_config(0x1044, &caps)).unwrap().unwrap();
    assert_eq!(modern.config_len(), 0);
    assert_error!(modern.read_config(0, 1), Error::ConfigOutOfRange { len: 0, .. });
    assert_error!(modern.write_config(0, 1, 0), Error::ConfigOutOfRange { len: 0, .. });
}

#[test]
fn s4_1_4_1_a_longer_cap_len_is_accepted() {
    let cap = vendor_cap(COMMON_CFG, 4, COMMON as u32, 0x40, &[0xDEAD_BEEF, 0xDEAD_BEEF]);
    assert!(with(COMMON_AT, cap).unwrap().is_some());
}

#[test]
fn s4_1_4_1_reserved_types_are_ignored_whatever_they_hold() {
    for cfg_type in [0, 6, 7, 10, 255] {
        let mut caps = standard_caps();
        caps.insert(1, vendor_cap(cfg_type, 4, 0, u32::MAX, &[]));
        assert!(find(pci_config(0x1042, &caps)).unwrap().is_some(), "type {cfg_type}");
    }
}

#[test]
fn s4_1_4_1_a_large_structure_is_accepted() {
    let fake = Fake::new();
    let mut caps = standard_caps();
    caps[DEVICE_AT] = vendor_cap(DEVICE_CFG, 4, DEVICE as u32, 0x1000, &[]);
    fake.get().pci_config = pci_config(0x1042, &caps);
    let modern = PciModern::find(Arc::new(fake.function())).unwrap().unwrap();
    assert_eq!(modern.config_len(), 0x1000);
}

#[test]
fn c19_the_first_usable_structure_of_a_type_wins() {
    let mut caps = standard_caps();
    caps.insert(DEVICE_AT, vendor_cap(DEVICE_CFG, 6, 0, 8, &[]));
    caps.push(vendor_cap(DEVICE_CFG, 4, DEVICE as u32 + 0x100, 4, &[]));
    let modern = find(pci_config(0x1042, &caps)).unwrap().unwrap();
    assert_eq!(modern.config_len(), CONFIG_LEN);

    let mut caps = standard_caps();
    caps.insert(DEVICE_AT, vendor_cap(DEVICE_CFG, 4, DEVICE as u32 + 0x100, 4, &[]));
    assert_eq!(find(pci_config(0x1042, &caps)).unwrap().unwrap().config_len(), 4);
}

#[test]
fn c19_a_structure_in_io_space_is_usable() {
    let fake = Fake::new();
    let mut function = fake.function();
    function.bars[4].as_mut().unwrap().kind = BarKind::Io;
    assert!(PciModern::find(Arc::new(function)).unwrap().is_some());
}

fn shared(caps: &[Vec<u8>]) -> PciModern {
    let mut all = standard_caps();
    all.truncate(5);
    all.extend_from_slice(caps);
    find(pci_config(0x1042, &all)).unwrap().unwrap()
}

fn region(id: u8, offset: u64, length: u64) -> Vec<u8> {
    let high = [(offset >> 32) as u32, (length >> 32) as u32];
    let mut cap = vendor_cap(SHARED_MEMORY_CFG, 4, offset as u32, length as u32, &high);
    cap[5] = id;
    cap
}

#[test]
fn c25_a_shared_memory_region_out_of_range_fails_alone() {
    for (offset, length) in [
        (MODERN_LEN, 0x1000),
        (0x3800, 0x801),
        (1 << 32, 0x100),
        (0x3800, 1 << 32),
        (u64::MAX - 0xFF, 0x1000),
        (0x3800, 0),
    ] {
        let modern = shared(&[region(7, offset, length)]);
        assert_error!(modern.shared_memory(7), Error::BadCapability { .. });
        assert!(modern.shared_memory(8).unwrap().is_none());
    }
}

#[test]
fn c25_shared_memory_must_not_lie_over_registers_or_in_io_space() {
    assert_error!(shared(&[region(1, DEVICE, 8)]).shared_memory(1), Error::BadCapability { .. });
    let mut in_io = region(1, 0, 8);
    in_io[4] = 0;
    assert_error!(shared(&[in_io]).shared_memory(1), Error::BadCapability { .. });
}

#[test]
fn s4_1_4_7_a_shared_memory_region_is_found_by_its_id() {
    let modern = shared(&[region(3, 0x3900, 0x40), region(9, 0x3A00, 0x600)]);
    let found = modern.shared_memory(9).unwrap().unwrap();
    assert_eq!((found.offset, found.len), (0x3A00, 0x600));
    assert!(modern.shared_memory(0).unwrap().is_none());
    let modern = shared(&[region(3, MODERN_LEN, 0x40), region(3, 0x3A00, 0x600)]);
    assert_eq!(modern.shared_memory(3).unwrap().unwrap().offset, 0x3A00);
}

#[test]
fn s4_1_5_1_1_1_without_virtio_capabilities_the_device_is_a_legacy_one() {
    let fake = Fake::new();
    fake.get().pci_config = pci_config(0x1001, &standard_caps()[..1]);
    let function = || Arc::new(fake.function());
    let any = open_pci(function(), PciInterface::Any, ByteOrder::Little).unwrap();
    assert_eq!(any.kind(), TransportKind::PciLegacy);
    let modern = open_pci(function(), PciInterface::Modern, ByteOrder::Little);
    assert_error!(modern, Error::Unsupported { .. });
    fake.get().pci_config[6] = 0;
    let any = open_pci(function(), PciInterface::Any, ByteOrder::Little).unwrap();
    assert_eq!(any.kind(), TransportKind::PciLegacy);
}

#[test]
fn a_transitional_function_opens_by_either_interface() {
    let fake = Fake::new();
    let open = |interface| open_pci(Arc::new(fake.function()), interface, ByteOrder::Big).unwrap();
    for (interface, kind, order) in [
        (PciInterface::Any, TransportKind::PciModern, ByteOrder::Little),
        (PciInterface::Modern, TransportKind::PciModern, ByteOrder::Little),
        (PciInterface::Legacy, TransportKind::PciLegacy, ByteOrder::Big),
    ] {
        let transport = open(interface);
        assert_eq!((transport.kind(), transport.byte_order()), (kind, order));
        assert_eq!(transport.device_type(), DeviceType(2));
        assert_eq!(transport.address(), "fake:pci");
    }
}

#[test]
fn what_is_no_virtio_function_is_not_opened() {
    let mut foreign = pci_config(0x1042, &standard_caps());
    foreign[0] = 0x86;
    assert_error!(find(foreign), Error::NotFound { .. });
    assert_error!(find(pci_config(0x1040, &standard_caps())), Error::NotFound { .. });
    assert_error!(find(pci_config(0x1080, &standard_caps())), Error::NotFound { .. });
    assert_error!(find([0xFF; 256].into()), Error::DeviceGone { .. });
    let error = find(pci_config(0x1080, &[])).unwrap_err();
    assert_eq!(error.address(), Some("fake:pci"));
}

/// Configuration spaces that get past the ids more often than chance would.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let random = proptest::collection::vec(any::<u8>(), 256);
    let caps = proptest::collection::vec(
        (
            prop_oneof![Just(1u8), Just(2), Just(3), Just(4), Just(5), Just(8), any::<u8>()],
            prop_oneof![Just(4u8), Just(0), any::<u8>()],
            prop_oneof![0u32..0x5000, any::<u32>()],
            prop_oneof![0u32..0x5000, any::<u32>()],
            proptest::collection::vec(prop_oneof![Just(0u32), Just(4), any::<u32>()], 0..3),
        ),
        0..8,
    );
    let edits = proptest::collection::vec((0x34usize..256, any::<u8>()), 0..3);
    let built = (caps, edits).prop_map(|(caps, edits)| {
        let mut list = alloc::vec![msix_cap(4, 0x1400)];
        list.extend(
            caps.iter()
                .map(|(kind, bar, offset, length, extra)| vendor_cap(*kind, *bar, *offset, *length, extra)),
        );
        list.truncate(7);
        let mut bytes = pci_config(0x1042, &list);
        for (at, value) in edits {
            bytes[at] = value;
        }
        bytes
    });
    let headed = random.prop_map(|mut bytes| {
        bytes[0..4].copy_from_slice(&[0xF4, 0x1A, 0x42, 0x10]);
        bytes[6] |= config::STATUS_CAPABILITIES as u8;
        bytes
    });
    prop_oneof![2 => built, 1 => headed, 1 => proptest::collection::vec(any::<u8>(), 256)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The fake's BAR fails an access outside it with `RegisterOutOfRange`, which no register below may give.
    #[test]
    fn c17_c18_p5_p6_no_configuration_space_panics_hangs_or_leads_outside_a_bar(bytes in hostile()) {
        let fake = Fake::new();
        fake.get().pci_config = bytes;
        let inside = |error: &Error| !matches!(error.kind(), Error::RegisterOutOfRange { .. });
        match PciModern::find(Arc::new(fake.function())) {
            Ok(None) => {}
            Err(error) => prop_assert!(inside(&error), "{error:?}"),
            Ok(Some(modern)) => {
                let len = modern.config_len();
                let results = [
                    modern.status().map(drop),
                    modern.device_features().map(drop),
                    modern.isr().map(drop),
                    modern.queue_max_size(0).map(drop),
                    modern.reset(Deadline::after(Duration::ZERO)),
                    modern.read_config(0, 1).map(drop),
                    modern.read_config(len.saturating_sub(1), 1).map(drop),
                ];
                for error in results.iter().filter_map(|result| result.as_ref().err()) {
                    prop_assert!(inside(error), "{error:?}");
                }
                for index in 0..2 {
                    if let Err(error) = modern.doorbell(index).and_then(|bell| bell.ring(index.into())) {
                        prop_assert!(inside(&error), "{error:?}");
                    }
                }
                for id in 0..=255 {
                    if let Ok(Some(region)) = modern.shared_memory(id) {
                        let end = region.offset.checked_add(region.len).unwrap();
                        prop_assert!(end <= region.registers.size());
                    }
                }
            }
        }
    }
}
