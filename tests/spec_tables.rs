//! The tables of the device types are well formed (VIRTIO 1.4 §2.2, §2.5, §5).

use std::collections::BTreeSet;

use virtio::spec::layout::DeviceSpec;
use virtio::spec::{DeviceType, device, feature};

/// Ids of the device types that have a chapter in VIRTIO 1.4 §5, in the order of the chapters.
const CHAPTERS: [u32; 23] =
    [1, 2, 3, 4, 5, 8, 16, 18, 20, 19, 26, 28, 23, 25, 24, 34, 32, 41, 27, 36, 45, 48, 17];

fn each(check: impl Fn(&'static DeviceSpec)) {
    for spec in device::all() {
        check(spec);
    }
}

#[test]
fn s5_every_chapter_has_a_table_and_each_is_found_by_its_type() {
    let ids: Vec<u32> = device::all().iter().map(|spec| spec.device_type.0).collect();
    assert_eq!(ids, CHAPTERS);
    for id in 0..=100 {
        let found = device::spec(DeviceType(id));
        assert_eq!(found.map(|spec| spec.device_type.0), CHAPTERS.contains(&id).then_some(id));
    }
    assert_eq!(device::spec(DeviceType(u32::MAX)), None);
}

#[test]
fn s2_2_bits_are_sorted_unique_and_named_once() {
    each(|spec| {
        assert!(spec.features.is_sorted_by(|a, b| a.bit < b.bit), "{}", spec.device_type);
        let names: BTreeSet<_> = spec.features.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), spec.features.len(), "{}", spec.device_type);
        assert!(names.iter().all(|name| !name.is_empty() && !name.contains("_F_")));
    });
}

#[test]
fn s2_2_bits_are_in_the_range_of_device_types() {
    each(|spec| {
        for entry in spec.features {
            assert!(!matches!(entry.bit, 24..=40 | 43..=49 | 128..), "{} {}", spec.device_type, entry.name);
            assert!(feature::is_device_specific(entry.bit));
        }
    });
}

#[test]
fn s2_2_legacy_bits_are_those_of_net_and_block_that_the_specification_lists() {
    let legacy: Vec<(u32, &str)> = device::all()
        .iter()
        .flat_map(|spec| spec.features.iter().filter(|f| f.legacy).map(|f| (spec.device_type.0, f.name)))
        .collect();
    let expected = [(1, "GSO"), (1, "GUEST_RSC4"), (1, "GUEST_RSC6"), (2, "BARRIER"), (2, "SCSI")];
    assert_eq!(legacy, expected);
}

#[test]
fn s2_2_1_requirements_name_other_known_bits_and_have_no_circle() {
    each(|spec| {
        let bits: BTreeSet<u8> = spec.features.iter().map(|entry| entry.bit).collect();
        for entry in spec.features {
            for needed in entry.requires.iter().chain(entry.requires_any) {
                assert!(bits.contains(needed), "{} {}", spec.device_type, entry.name);
                assert_ne!(*needed, entry.bit);
            }
            assert_ne!(entry.requires_any.len(), 1, "a choice of one is a requirement");
        }
        // Accepting bits whose needs are met must reach all of them; a circle would stay outside for ever.
        let mut met = BTreeSet::new();
        for _ in spec.features {
            for entry in spec.features {
                let any = entry.requires_any;
                if entry.requires.iter().all(|bit| met.contains(bit))
                    && (any.is_empty() || any.iter().any(|bit| met.contains(bit)))
                {
                    met.insert(entry.bit);
                }
            }
        }
        assert_eq!(met, bits, "{}", spec.device_type);
    });
}

#[test]
fn s2_5_fields_are_sorted_disjoint_and_named_once() {
    each(|spec| {
        let sorted = spec.config.is_sorted_by(|a, b| a.end() <= u32::from(b.offset) && a.offset < b.offset);
        assert!(sorted, "{}", spec.device_type);
        let names: BTreeSet<_> = spec.config.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), spec.config.len(), "{}", spec.device_type);
    });
}

#[test]
fn s2_5_fields_have_a_width_that_can_be_accessed_and_are_aligned_to_it() {
    each(|spec| {
        for field in spec.config {
            assert!(matches!(field.width, 1 | 2 | 4 | 8), "{} {}", spec.device_type, field.name);
            assert!(field.count >= 1);
            assert_eq!(field.offset % u16::from(field.width), 0, "{} {}", spec.device_type, field.name);
        }
    });
}

#[test]
fn s2_5_gaps_between_fields_are_the_padding_of_the_specification() {
    let mut gaps = Vec::new();
    for spec in device::all() {
        let mut end = 0;
        for field in spec.config {
            if u32::from(field.offset) != end {
                gaps.push((spec.device_type.0, end, u32::from(field.offset)));
            }
            end = field.end();
        }
    }
    // unused0 and unused1 of block; reserved of input; padding of mem and gpio.
    assert_eq!(gaps, [(2, 33, 34), (2, 57, 60), (18, 3, 8), (24, 10, 16), (41, 2, 4)]);
}

#[test]
fn s5_the_configuration_space_has_the_length_that_the_chapter_gives() {
    let length = |id| device::spec(DeviceType(id)).and_then(|spec| spec.config.last()).map_or(0, |f| f.end());
    let expected = [28, 93, 12, 0, 16, 36, 20, 136, 56, 8, 44, 3, 37, 16, 56, 0, 0, 8, 16, 2, 32, 40, 0];
    for (id, expected) in CHAPTERS.into_iter().zip(expected) {
        assert_eq!(length(id), expected, "{}", DeviceType(id));
    }
}

#[test]
fn s2_5_fields_depend_on_known_bits_that_are_not_legacy() {
    each(|spec| {
        for field in spec.config {
            for bit in field.valid_if {
                let known = spec.features.iter().find(|entry| entry.bit == *bit);
                assert!(known.is_some_and(|entry| !entry.legacy), "{} {}", spec.device_type, field.name);
            }
        }
    });
}

#[test]
fn s5_the_driver_writes_only_the_fields_that_the_chapters_allow() {
    let writable: Vec<(u32, &str)> = device::all()
        .iter()
        .flat_map(|spec| spec.config.iter().filter(|f| f.writable).map(|f| (spec.device_type.0, f.name)))
        .collect();
    let expected = [
        (2, "writeback"),
        (3, "emerg_wr"),
        (5, "actual"),
        (5, "poison_val"),
        (8, "sense_size"),
        (8, "cdb_size"),
        (16, "events_clear"),
        (18, "select"),
        (18, "subsel"),
        (23, "bypass"),
    ];
    assert_eq!(writable, expected);
}
