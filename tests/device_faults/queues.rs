//! Setting queues up.

use virtio::Error;
use virtio::device::{Phase, QueueConfig};
use virtio::soft::DeviceLie;

use crate::rig::*;

#[track_caller]
fn take(way: Way, lie: DeviceLie, index: u16) -> virtio::Result<u16> {
    let device = negotiated(way, &lying(way, lie))?;
    device.take_queue(index, QueueConfig::default()).map(|queue| queue.size())
}

each!(c7_a_queue_of_size_0_is_not_there(way) on all {
    let soft = lying(way, DeviceLie::QueueSize { queue: 0, size: 0 });
    let device = negotiated(way, &soft).unwrap();
    fails!(device.take_queue(0, QueueConfig::default()), Error::QueueUnavailable { queue: 0, .. });
    // That one only: a driver may look how many there are.
    let mut queue = device.take_queue(1, QueueConfig::default()).unwrap();
    device.start().unwrap();
    send(&device, &mut queue).unwrap();
    kept_the_rules(&soft);
});

each!(c7_a_size_that_breaks_the_rules_is_clamped_or_refused(way) on all {
    for size in [3, 0x8001, u16::MAX] {
        match take(way, DeviceLie::QueueSize { queue: 0, size }, 0) {
            Ok(taken) => assert!(taken.is_power_of_two() && taken <= 256 && taken <= size, "{taken}"),
            Err(error) => {
                assert!(matches!(error.kind(), Error::QueueUnavailable { queue: 0, .. }), "{error}");
            }
        }
    }
});

each!(c7_a_size_that_the_device_fixes_is_refused_if_it_breaks_the_rules(way)
    on [transitional_legacy pci_legacy] {
    for size in [3, 0x8001] {
        let lie = DeviceLie::QueueSize { queue: 0, size };
        fails!(take(way, lie, 0), Error::QueueUnavailable { queue: 0, .. });
    }
});

each!(c7_a_size_that_grows_after_it_was_written_is_refused(way) on [pci_modern transitional_modern] {
    fails!(take(way, DeviceLie::QueueSizeGrows, 0), Error::QueueUnavailable { .. });
});

each!(c8_a_queue_beyond_the_devices_is_not_there(way) on all {
    let device = negotiated(way, &build(way, console())).unwrap();
    for index in [2, 7, u16::MAX] {
        fails!(device.take_queue(index, QueueConfig::default()), Error::QueueUnavailable { .. });
    }
    start(&device).unwrap();
});

each!(c8_the_number_of_queues_is_believed_for_nothing(way) on [pci_modern transitional_modern] {
    fails!(take(way, DeviceLie::NumQueues(0), 0), Error::QueueUnavailable { .. });
    fails!(take(way, DeviceLie::NumQueues(u16::MAX), 7), Error::QueueUnavailable { .. });
    lives(way, DeviceLie::NumQueues(u16::MAX));
});

each!(c9_a_queue_that_does_not_read_enabled_fails_the_device(way) on modern {
    let soft = lying(way, DeviceLie::QueueEnableReads0);
    let device = negotiated(way, &soft).unwrap();
    fails!(device.take_queue(0, QueueConfig::default()), Error::QueueUnavailable { queue: 0, .. });
    // The device has the address of memory that nobody watches: it must not be started with it.
    assert_eq!(device.phase(), Phase::Failed);
    fails!(device.start(), Error::Misuse { .. });
    assert_ne!(device.memory().quarantine().tally().count, 0);
    soft.be_honest().unwrap();
    device.reset().unwrap();
    assert_eq!(device.memory().quarantine().tally().count, 0);
});

each!(c9_a_queue_that_is_in_use_before_it_was_set_up_is_refused(way) on modern {
    fails!(take(way, DeviceLie::QueueEnableReads1, 0), Error::QueueUnavailable { queue: 0, .. });
});

each!(c10_p5_a_queue_with_a_notification_address_outside_its_structure_is_refused(way)
    on [pci_modern transitional_modern] {
    for lie in [DeviceLie::NotifyOff(u16::MAX), DeviceLie::NotifyMultiplier(u32::MAX - 1)] {
        let soft = lying(way, lie);
        let device = negotiated(way, &soft).unwrap();
        fails!(device.take_queue(1, QueueConfig::default()), Error::QueueUnavailable { queue: 1, .. });
        // It was not told of a queue that nobody can notify.
        assert!(!device.transport().queue_enabled(1).unwrap());
    }
});

each!(c10_a_multiplier_is_even_and_may_be_0(way) on [pci_modern transitional_modern] {
    fails!(open(way, &lying(way, DeviceLie::NotifyMultiplier(3))), Error::BadCapability { .. });
    lives(way, DeviceLie::NotifyMultiplier(0));
});

each!(c23_a_page_number_that_reads_back_other_fails_the_device(way) on legacy {
    let soft = lying(way, DeviceLie::PageNumberReads(77));
    let device = negotiated(way, &soft).unwrap();
    fails!(device.take_queue(0, QueueConfig::default()), Error::QueueUnavailable { queue: 0, .. });
    assert_eq!(device.phase(), Phase::Failed);
    assert_ne!(device.memory().quarantine().tally().count, 0);
});

// libvirtio cuts the address.
each!(c24_seed_memory_beyond_a_32_bit_page_number_is_refused(way) on legacy {
    let soft = build(way, console().memory_at(1 << 45));
    let device = negotiated(way, &soft).unwrap();
    fails!(device.take_queue(0, QueueConfig::default()), Error::MemoryLimit { .. });
    assert_eq!(soft.report().broken, None);
});

each!(c24_the_device_fixes_the_size(way) on [transitional_legacy pci_legacy] {
    let device = negotiated(way, &build(way, console())).unwrap();
    assert_eq!(device.take_queue(0, QueueConfig::size(8)).unwrap().size(), 256);
});
