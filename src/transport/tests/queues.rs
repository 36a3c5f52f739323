//! Queues behind every interface: sizes, areas, use, and their reset.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::common::use_register;
use super::fake::{Fake, Place, name};
use super::{all, assert_error, later, open, setup, soon};
use crate::Error;
use crate::features::Features;
use crate::spec::{mmio, pci};
use crate::transport::{QueueSetup, Transport};
#[test]
fn a_queue_is_set_up_and_reads_as_enabled() {
    for (place, fake, transport) in all() {
        assert_eq!(transport.queue_max_size(1).unwrap(), 256, "{}", name(place));
        assert!(!transport.queue_enabled(1).unwrap());
        let setup = setup(&*transport, 256, 0x1_2345_6000);
        transport.set_queue(1, &setup).unwrap();
        assert!(transport.queue_enabled(1).unwrap());
        assert!(!transport.queue_enabled(0).unwrap());
        let device = fake.get();
        let queue = &device.queues[1];
        if transport.legacy() {
            assert_eq!(queue.pfn, 0x12_3456);
        } else {
            let areas = [setup.descriptor_area, setup.driver_area, setup.device_area];
            let words = areas.map(|area| [area as u32, (area >> 32) as u32]);
            assert_eq!(queue.areas[..], words.concat()[..]);
        }
    }
}

#[test]
fn c7_a_queue_of_size_0_is_not_available() {
    for (place, fake, transport) in all() {
        fake.get().queues[0].size = 0;
        assert_error!(transport.queue_max_size(0), Error::QueueUnavailable { queue: 0, .. }, name(place));
        let setup = setup(&*transport, 256, 0x10_0000);
        assert_error!(transport.set_queue(0, &setup), Error::QueueUnavailable { queue: 0, .. });
        assert_error!(transport.queue_max_size(9), Error::QueueUnavailable { queue: 9, .. });
    }
}

#[test]
fn c7_a_size_that_breaks_the_rules_is_clamped_down_or_refused_where_the_device_fixes_it() {
    for (place, fake, transport) in all() {
        let wide = u32::from(place != Place::Modern && place != Place::Legacy);
        for (size, usable) in [(3, 2), (255, 128), (0x8001, 0x8000), (0xFFFE | wide << 16, 0x8000)] {
            fake.get().queues[0].size = size;
            if transport.queue_size_fixed() {
                assert_error!(transport.queue_max_size(0), Error::QueueUnavailable { .. });
            } else {
                assert_eq!(transport.queue_max_size(0).unwrap(), usable, "{} {size}", name(place));
            }
        }
    }
}

#[test]
fn c7_a_packed_ring_may_have_any_size_up_to_32768() {
    for place in [Place::Modern, Place::Mmio2] {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        transport.set_driver_features(Features::VERSION_1 | Features::RING_PACKED).unwrap();
        fake.get().queues[0].size = 100;
        assert_eq!(transport.queue_max_size(0).unwrap(), 100);
        let good = setup(&*transport, 99, 0x1000);
        let by_two = QueueSetup { driver_area: good.driver_area + 2, ..good };
        assert_error!(transport.set_queue(0, &by_two), Error::Misuse { .. });
        transport.set_queue(0, &good).unwrap();
        fake.get().queues[1].size = 0x9000;
        assert_eq!(transport.queue_max_size(1).unwrap(), 0x8000);
    }
}

#[test]
fn c7_more_than_the_device_takes_is_not_written() {
    for (place, fake, transport) in all() {
        let big = setup(&*transport, 512, 0x10_0000);
        assert_error!(transport.set_queue(0, &big), Error::QueueUnavailable { .. }, name(place));
        for size in [0, 100] {
            let odd = setup(&*transport, size, 0x10_0000);
            assert_error!(transport.set_queue(0, &odd), Error::Misuse { .. }, name(place));
        }
        assert_eq!(fake.in_use(0), (0, 0));
    }
}

#[test]
fn c9_a_queue_in_use_before_it_was_set_up_is_refused() {
    for (place, fake, transport) in all() {
        fake.lie(place, use_register(place), 1);
        assert_error!(transport.queue_max_size(0), Error::QueueUnavailable { .. }, name(place));
        let setup = setup(&*transport, 256, 0x10_0000);
        assert_error!(transport.set_queue(0, &setup), Error::QueueUnavailable { .. }, name(place));
        assert_eq!(fake.in_use(0), (0, 0));
    }
}

#[test]
fn c9_c23_a_queue_that_does_not_read_back_is_refused() {
    for (place, fake, transport) in all() {
        fake.lie(place, use_register(place), 0);
        let setup = setup(&*transport, 256, 0x10_0000);
        assert_error!(transport.set_queue(0, &setup), Error::QueueUnavailable { .. }, name(place));
        let mut reads = 0;
        fake.lie_with(place, use_register(place), move |_| {
            reads += 1;
            if reads > 1 { 0x101 } else { 0 }
        });
        assert_error!(transport.set_queue(0, &setup), Error::QueueUnavailable { .. }, name(place));
    }
}

#[test]
fn areas_that_break_the_layout_are_not_written() {
    for (place, fake, transport) in all() {
        let good = setup(&*transport, 256, 0x10_0000);
        let mut bad = [good; 3];
        bad[0].descriptor_area += 8;
        bad[1].driver_area += 1;
        bad[2].device_area += 2;
        for setup in bad {
            assert_error!(transport.set_queue(0, &setup), Error::Misuse { .. }, name(place));
        }
        assert!(fake.writes(place, use_register(place)).is_empty());
    }
}

#[test]
fn a_stopped_queue_is_taken_from_the_device() {
    for (place, fake, transport) in all() {
        transport.set_queue(0, &setup(&*transport, 256, 0x10_0000)).unwrap();
        if place == Place::Modern {
            assert_error!(transport.stop_queue(0), Error::Unsupported { .. });
            continue;
        }
        transport.stop_queue(0).unwrap();
        assert!(!transport.queue_enabled(0).unwrap(), "{}", name(place));
        assert_eq!(fake.writes(place, use_register(place)).last(), Some(&0));
        fake.lie(place, use_register(place), 1);
        assert_error!(transport.stop_queue(0), Error::QueueUnavailable { .. });
    }
}

#[test]
fn a_queue_reset_needs_ring_reset() {
    for (place, _, transport) in all() {
        assert_error!(transport.reset_queue(0, soon()), Error::Unsupported { .. }, name(place));
    }
}

/// Interfaces with RING_RESET, negotiated, queue 0 set up; and their reset register.
pub(super) fn with_ring_reset() -> Vec<(Place, u64, Fake, Arc<dyn Transport>)> {
    let registers = [(Place::Modern, pci::common::QUEUE_RESET), (Place::Mmio2, mmio::QUEUE_RESET)];
    let each = |(place, register)| {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        transport.set_driver_features(Features::VERSION_1 | Features::RING_RESET).unwrap();
        transport.set_queue(0, &setup(&*transport, 256, 0x10_0000)).unwrap();
        (place, register, fake, transport)
    };
    registers.map(each).into()
}

#[test]
fn s2_6_1_a_queue_reset_waits_until_the_device_says_so() {
    for (place, register, fake, transport) in with_ring_reset() {
        let mut left = 100;
        fake.lie_with(place, register, move |_| {
            left -= 1;
            u32::from(left > 0)
        });
        transport.reset_queue(0, later()).unwrap();
        assert_eq!(fake.writes(place, register), [1], "{}", name(place));
        fake.lie(place, register, 1);
        assert_error!(transport.reset_queue(0, soon()), Error::Timeout { .. });
    }
}

#[test]
fn c28_a_queue_reset_without_effect_does_not_count() {
    for (place, _, fake, transport) in with_ring_reset() {
        fake.lie(place, use_register(place), 1);
        assert_error!(transport.reset_queue(0, later()), Error::Unsupported { .. }, name(place));
    }
}

#[test]
fn c30_a_queue_reset_of_a_removed_device_does_not_count() {
    for (place, register, fake, transport) in with_ring_reset() {
        fake.lie_with(place, register, |device| {
            device.removed = true;
            0
        });
        assert_error!(transport.reset_queue(0, later()), Error::DeviceGone { .. }, name(place));
    }
}
