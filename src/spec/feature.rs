//! Feature bits that do not depend on the device type (VIRTIO 1.4 §6), and how bit numbers are allotted
//! (VIRTIO 1.4 §2.2).

use super::DeviceType;
use super::layout::FeatureBit;

/// Number of feature bits that VIRTIO 1.4 allots: 0 to 127.
pub const COUNT: u8 = 128;

/// Legacy: the device notifies when it runs out of available buffers, even if notifications are suppressed.
pub const NOTIFY_ON_EMPTY: u8 = 24;
/// Legacy: the device takes any framing of a request.
pub const ANY_LAYOUT: u8 = 27;
/// Descriptors may refer to a table of descriptors.
pub const INDIRECT_DESC: u8 = 28;
/// Notifications are suppressed by `used_event` and `avail_event`.
pub const EVENT_IDX: u8 = 29;
/// Legacy: a trap for early drivers, never to be accepted.
pub const UNUSED: u8 = 30;
/// The device complies with version 1 or later: it is not a legacy device.
pub const VERSION_1: u8 = 32;
/// The device's access to memory is limited or translated by the platform.
pub const ACCESS_PLATFORM: u8 = 33;
/// The packed virtqueue layout.
pub const RING_PACKED: u8 = 34;
/// The device uses buffers in the order in which they were made available.
pub const IN_ORDER: u8 = 35;
/// Memory accesses are ordered as the platform's devices need, not as between CPUs.
pub const ORDER_PLATFORM: u8 = 36;
/// Single root I/O virtualization; PCI only.
pub const SR_IOV: u8 = 37;
/// The driver's notifications carry the position in the queue.
pub const NOTIFICATION_DATA: u8 = 38;
/// The driver's notifications carry a value that the device chose instead of the queue index.
pub const NOTIF_CONFIG_DATA: u8 = 39;
/// One queue can be reset by itself.
pub const RING_RESET: u8 = 40;
/// The device has administration virtqueues; PCI only.
pub const ADMIN_VQ: u8 = 41;
/// The driver can suspend the device.
pub const SUSPEND: u8 = 43;

/// Every feature bit of VIRTIO 1.4 §6, in order of number.
///
/// The legacy interface reaches no bit above 31 (VIRTIO 1.4 §4.1.4.10), so each of those needs [`VERSION_1`].
pub const RESERVED: &[FeatureBit] = &[
    legacy(NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY"),
    legacy(ANY_LAYOUT, "ANY_LAYOUT"),
    any_version(INDIRECT_DESC, "INDIRECT_DESC"),
    any_version(EVENT_IDX, "EVENT_IDX"),
    legacy(UNUSED, "UNUSED"),
    any_version(VERSION_1, "VERSION_1"),
    modern(ACCESS_PLATFORM, "ACCESS_PLATFORM"),
    modern(RING_PACKED, "RING_PACKED"),
    modern(IN_ORDER, "IN_ORDER"),
    modern(ORDER_PLATFORM, "ORDER_PLATFORM"),
    modern(SR_IOV, "SR_IOV"),
    modern(NOTIFICATION_DATA, "NOTIFICATION_DATA"),
    modern(NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA"),
    modern(RING_RESET, "RING_RESET"),
    modern(ADMIN_VQ, "ADMIN_VQ"),
    modern(SUSPEND, "SUSPEND"),
];

const fn any_version(bit: u8, name: &'static str) -> FeatureBit {
    FeatureBit { bit, name, requires: &[], requires_any: &[], legacy: false }
}

const fn legacy(bit: u8, name: &'static str) -> FeatureBit {
    FeatureBit { legacy: true, ..any_version(bit, name) }
}

const fn modern(bit: u8, name: &'static str) -> FeatureBit {
    FeatureBit { requires: &[VERSION_1], ..any_version(bit, name) }
}

/// Whether the meaning of a bit number is the device type's to give (VIRTIO 1.4 §2.2). Bit 41 is, although
/// [`ADMIN_VQ`] has taken it since.
pub const fn is_device_specific(bit: u8) -> bool {
    matches!(bit, 0..=23 | 41 | 42 | 50..=127)
}

/// What is known of a bit offered by a device of this type; `None` where the specification does not name it.
///
/// A bit of [`RESERVED`] comes before one of the device type: of net's legacy bits, 41 is that of
/// [`ADMIN_VQ`] now, and no device can mean the old one.
pub fn lookup(device: DeviceType, bit: u8) -> Option<&'static FeatureBit> {
    let of_device = || super::device::spec(device).and_then(|spec| find(spec.features, bit));
    find(RESERVED, bit).or_else(of_device)
}

fn find(table: &'static [FeatureBit], bit: u8) -> Option<&'static FeatureBit> {
    table.iter().find(|entry| entry.bit == bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_table_is_sorted_and_stays_in_its_range() {
        assert!(RESERVED.is_sorted_by(|a, b| a.bit < b.bit));
        assert!(RESERVED.iter().all(|entry| (24..=43).contains(&entry.bit)));
    }

    #[test]
    fn reserved_names_are_distinct() {
        let names: std::collections::BTreeSet<_> = RESERVED.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), RESERVED.len());
    }

    #[test]
    fn every_reserved_bit_above_31_needs_version_1() {
        for entry in RESERVED {
            let needed = entry.bit > VERSION_1;
            assert_eq!(entry.requires == [VERSION_1], needed, "{}", entry.name);
            assert!(entry.requires_any.is_empty());
        }
    }

    #[test]
    fn legacy_bits_are_24_27_and_30() {
        let legacy: std::vec::Vec<u8> =
            RESERVED.iter().filter(|entry| entry.legacy).map(|entry| entry.bit).collect();
        assert_eq!(legacy, [24, 27, 30]);
    }

    #[test]
    fn bit_ranges_are_allotted_as_in_2_2() {
        let device: std::vec::Vec<u8> = (0..=u8::MAX).filter(|bit| is_device_specific(*bit)).collect();
        let expected: std::vec::Vec<u8> = (0..=23).chain([41, 42]).chain(50..=127).collect();
        assert_eq!(device, expected);
    }

    #[test]
    fn reserved_bits_are_found_for_any_device_type() {
        for device in [DeviceType::NET, DeviceType::BLOCK, DeviceType(4711)] {
            for entry in RESERVED {
                assert_eq!(lookup(device, entry.bit), Some(entry));
            }
        }
    }

    #[test]
    fn bits_that_nobody_names_are_not_found() {
        for bit in [25, 26, 31, 44, 49, 128, 255] {
            assert_eq!(lookup(DeviceType::NET, bit), None);
        }
        assert!(
            (0..=u8::MAX).filter(|bit| !RESERVED.iter().any(|entry| entry.bit == *bit)).all(|bit| lookup(
                DeviceType(4711),
                bit
            )
            .is_none())
        );
    }

    #[test]
    fn device_types_use_bits_that_are_theirs_to_give() {
        for spec in crate::spec::device::all() {
            for entry in spec.features {
                assert!(is_device_specific(entry.bit), "{}: {}", spec.device_type, entry.name);
            }
        }
    }

    #[test]
    fn device_bits_are_found_unless_a_reserved_bit_took_their_number() {
        for spec in crate::spec::device::all() {
            for entry in spec.features {
                let found = lookup(spec.device_type, entry.bit).expect("a named bit");
                if entry.bit == ADMIN_VQ {
                    assert!(entry.legacy, "{}: {}", spec.device_type, entry.name);
                    assert_eq!(found.name, "ADMIN_VQ");
                } else {
                    assert_eq!(found, entry);
                }
            }
        }
    }
}
