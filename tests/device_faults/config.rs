//! The configuration space.

use std::sync::atomic::{AtomicU32, Ordering};

use virtio::Error;
use virtio::features::Features;
use virtio::soft::{DeviceLie, DeviceModel, Reply, Request, SoftDevice};
use virtio::spec::device;
use virtio::spec::layout::ConfigField;
use virtio::spec::{ByteOrder, DeviceType};

use crate::rig::*;

/// A device of any type with any configuration.
#[derive(Debug)]
struct Typed {
    device_type: DeviceType,
    config: Vec<u8>,
}

impl DeviceModel for Typed {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn features(&self) -> Features {
        // All of the type's, so that each field is there.
        Features(!0 >> 104) | Features(!0 << 50 & !(!0 << 64))
    }

    fn queues(&self) -> u16 {
        1
    }

    fn config(&self, _order: ByteOrder) -> Vec<u8> {
        self.config.clone()
    }

    fn handle(&mut self, _request: &mut Request<'_>) -> virtio::Result<Reply> {
        Ok(Reply::Wait)
    }
}

/// A device whose configuration is another one whenever it is looked at.
#[derive(Debug, Default)]
struct Restless(AtomicU32);

impl DeviceModel for Restless {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLOCK
    }

    fn queues(&self) -> u16 {
        1
    }

    fn config(&self, _order: ByteOrder) -> Vec<u8> {
        vec![self.0.fetch_add(1, Ordering::Relaxed) as u8; 60]
    }

    fn handle(&mut self, _request: &mut Request<'_>) -> virtio::Result<Reply> {
        Ok(Reply::Wait)
    }
}

each!(c13_p7_a_configuration_that_never_rests_ends_in_an_error(way) on all {
    let builder = SoftDevice::builder(Restless::default()).lies([DeviceLie::GenerationChanges]);
    let device = open(way, &build(way, builder)).unwrap();
    let tries = virtio::device::Options::default().config_tries;
    fails!(device.config().read(0, 8), Error::ConfigUnstable { tries: n } if *n == tries);
    fails!(device.config().snapshot(Features::EMPTY), Error::ConfigUnstable { .. });
});

each!(c14_an_access_outside_the_configuration_is_refused(way) on all {
    let device = open(way, &build(way, console())).unwrap();
    for offset in [device.config().len(), !3, 1 << 32] {
        fails!(device.config().read(offset, 4), Error::ConfigOutOfRange { .. });
        fails!(device.config().write(offset, 4, 0), Error::ConfigOutOfRange { .. });
    }
});

each!(c14_a_configuration_shorter_than_its_fields_has_fewer(way) on [pci_modern transitional_modern] {
    let device = open(way, &lying(way, DeviceLie::ConfigLen(2))).unwrap();
    fails!(device.config().read(4, 4), Error::ConfigOutOfRange { .. });
    let fields = device.config().snapshot(Features(u128::MAX)).unwrap();
    assert!(fields.iter().all(|value| value.field.end() <= 2));
});

each!(c15_every_field_of_every_type_survives_absurd_values(way) on all {
    assert_eq!(device::all().len(), 23);
    let random = |n: usize| (n.wrapping_mul(0x9e37_79b9) >> 7) as u8;
    for spec in device::all() {
        if way.interface.is_pci() && way.interface != virtio::soft::Interface::PciModern
            && spec.device_type.transitional_pci_device_id().is_none()
        {
            continue;
        }
        let len = spec.config.iter().map(|field| field.end() as usize).max().unwrap_or(0);
        for config in [vec![0; len], vec![0xff; len], (0..len).map(random).collect()] {
            let ones = config.iter().all(|&byte| byte == 0xff);
            let model = Typed { device_type: spec.device_type, config };
            let device = open(way, &build(way, SoftDevice::builder(model))).unwrap();
            let offered = device.offered().unwrap();
            let fields = device.config().snapshot(offered).unwrap();
            let there = |field: &&ConfigField| {
                field.valid_if.is_empty() || field.valid_if.iter().any(|&bit| offered.has(bit))
            };
            assert_eq!(fields.len(), spec.config.iter().filter(there).count(), "{}", spec.device_type);
            // A legacy interface has no room for the bits of some.
            assert!(way.legacy() || fields.len() == spec.config.len(), "{}", spec.device_type);
            for value in &fields {
                assert_eq!(value.values.len(), usize::from(value.field.count));
                let all = u64::MAX >> (64 - 8 * u32::from(value.field.width));
                assert!(!ones || value.values.iter().all(|&one| one == all), "{}", value.field.name);
                let first = device.config().valid_field(value.field, offered).unwrap();
                assert_eq!(first, value.values.first().copied());
            }
        }
    }
});
