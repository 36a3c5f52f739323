//! Queues that end before their device, and while it ends.

use std::sync::Barrier;
use std::thread;

use virtio::Error;
use virtio::device::{Device, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::pool::DmaBuf;
use virtio::soft::{DeviceLie, Lie, SoftDevice};
use virtio::transport::TransportKind;

use crate::rig::*;

/// A running device with RING_RESET, where the interface has it.
fn resettable(
    way: Way,
    lies: impl IntoIterator<Item = DeviceLie>,
) -> (SoftDevice, Device, Vec<Queue<DmaBuf>>) {
    let soft = build(way, console().lies(lies));
    let device = open(way, &soft).unwrap();
    let wanted = Features::RING_RESET | Features::EVENT_IDX | Features::INDIRECT_DESC;
    let accepted = device.negotiate(wanted, Features::EMPTY).unwrap();
    assert_eq!(accepted.contains(Features::RING_RESET), !way.legacy());
    let queues = start(&device).unwrap();
    (soft, device, queues)
}

fn receive(device: &Device, queue: &mut Queue<DmaBuf>) -> virtio::queue::Token {
    let token = queue.add_chain([], [device.alloc(1).unwrap()]).unwrap();
    queue.notify().unwrap();
    token
}

#[track_caller]
fn held(device: &Device) -> usize {
    device.memory().quarantine().tally().count
}

each!(s2_6_1_a_queue_that_is_closed_on_its_own_is_reset_and_set_up_again(way) on modern {
    let (soft, device, mut queues) = resettable(way, []);
    let free = device.memory().free_bytes();
    for _ in 0..3 {
        send(&device, &mut queues[1]).unwrap();
        assert!(queues[1].close(deadline()).unwrap());
        assert!(!device.transport().queue_enabled(1).unwrap());
        fails!(queues[1].pop(), Error::Closed { .. });
        fails!(queues[1].notify(), Error::Closed { .. });
        fails!(queues[1].close(deadline()), Error::Closed { .. });
        // Nothing was in flight: nothing is kept. The other queue serves on.
        assert_eq!(held(&device), 0);
        queues[1] = device.take_queue(1, QueueConfig::default()).unwrap();
        assert!(device.transport().queue_enabled(1).unwrap());
    }
    let token = receive(&device, &mut queues[0]);
    send(&device, &mut queues[1]).unwrap();
    assert_eq!(queues[0].get(Some(SOON)).unwrap().token, token);
    fails!(device.take_queue(1, QueueConfig::default()), Error::Misuse { .. });
    assert_eq!(device.memory().free_bytes(), free);
    kept_the_rules(&soft);
});

each!(s2_6_1_a_queue_that_is_dropped_on_its_own_is_reset_too(way) on modern {
    let (soft, device, mut queues) = resettable(way, []);
    drop(queues.remove(1).share());
    assert!(!device.transport().queue_enabled(1).unwrap());
    let mut queue = device.take_queue(1, QueueConfig::size(8)).unwrap();
    send(&device, &mut queue).unwrap();
    kept_the_rules(&soft);
});

each!(s2_6_1_what_a_reset_queue_had_in_flight_ends_once_and_is_kept_until_the_device_is_reset(way) on modern {
    let (soft, device, mut queues) = resettable(way, []);
    let pool = device.pool(1, 64).unwrap();
    let token = queues[0].add_chain([], [pool.take().unwrap()]).unwrap();
    queues[0].notify().unwrap();
    assert!(queues[0].close(virtio::event::Deadline::after(SHORT)).unwrap());
    fails!(queues[0].pop(), Error::Indeterminate { token: ended } if *ended == token.into_raw());
    fails!(queues[0].pop(), Error::Closed { .. });
    // Devices were seen to write such buffers after the reset of their queue.
    assert_eq!((held(&device), pool.free()), (1, 0));
    let mut again = device.take_queue(0, QueueConfig::default()).unwrap();
    let token = receive(&device, &mut again);
    send(&device, &mut queues[1]).unwrap();
    assert_eq!(again.get(Some(SOON)).unwrap().token, token);
    assert_eq!((held(&device), pool.free()), (1, 0));
    device.reset().unwrap();
    assert_eq!((held(&device), pool.free()), (0, 1));
    kept_the_rules(&soft);
});

each!(s2_6_1_a_broken_queue_is_mended_by_its_own_reset(way) on modern {
    let (soft, device, mut queues) = resettable(way, []);
    let token = receive(&device, &mut queues[0]);
    soft.tell(DeviceLie::Ring { queue: 0, chain: 0, lie: Lie::UsedIdRange { id: 1 << 20 } }).unwrap();
    fails!(queues[0].pop(), Error::Broken { queue: 0, .. });
    soft.be_honest().unwrap();
    assert!(queues[0].close(deadline()).unwrap());
    fails!(queues[0].pop(), Error::Indeterminate { token: ended } if *ended == token.into_raw());
    queues[0] = device.take_queue(0, QueueConfig::default()).unwrap();
    let token = receive(&device, &mut queues[0]);
    send(&device, &mut queues[1]).unwrap();
    assert_eq!(queues[0].get(Some(SOON)).unwrap().token, token);
});

each!(s2_6_1_a_slow_queue_reset_is_waited_for(way) on modern {
    let (soft, device, mut queues) = resettable(way, [DeviceLie::SlowReset { reads: 3 }]);
    assert!(queues[1].close(deadline()).unwrap());
    queues[1] = device.take_queue(1, QueueConfig::default()).unwrap();
    send(&device, &mut queues[1]).unwrap();
    kept_the_rules(&soft);
});

each!(s2_6_1_a_queue_reset_that_never_ends_is_a_time_out(way) on modern {
    let (soft, device, mut queues) = resettable(way, []);
    soft.tell(DeviceLie::SlowReset { reads: u32::MAX }).unwrap();
    fails!(queues[1].close(deadline()), Error::Timeout { .. });
    fails!(queues[1].pop(), Error::Closed { .. });
    fails!(device.take_queue(1, QueueConfig::default()), Error::Misuse { .. });
    assert_eq!(held(&device), 1);
    soft.be_honest().unwrap();
    device.reset().unwrap();
    assert_eq!(held(&device), 0);
});

each!(c28_a_queue_reset_without_effect_does_not_count(way) on modern {
    let (soft, device, mut queues) = resettable(way, [DeviceLie::QueueResetIgnored]);
    let token = receive(&device, &mut queues[0]);
    assert!(!queues[1].close(deadline()).unwrap());
    // As without the feature: closed to calls, its memory kept until the device is reset.
    assert!(device.transport().queue_enabled(1).unwrap());
    fails!(queues[1].pop(), Error::Closed { .. });
    fails!(device.take_queue(1, QueueConfig::default()), Error::Misuse { .. });
    assert_eq!(held(&device), 1);
    assert!(!queues[0].close(virtio::event::Deadline::after(SHORT)).unwrap());
    fails!(queues[0].pop(), Error::Indeterminate { token: ended } if *ended == token.into_raw());
    assert_eq!(held(&device), 2);
    device.reset().unwrap();
    assert_eq!(held(&device), 0);
    device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
    let mut queues = start(&device).unwrap();
    send(&device, &mut queues[1]).unwrap();
    kept_the_rules(&soft);
});

each!(s2_6_1_without_ring_reset_a_closed_queue_is_closed_until_the_device_is_reset(way) on all {
    let soft = build(way, console());
    let device = negotiated(way, &soft).unwrap();
    let mut queues = start(&device).unwrap();
    send(&device, &mut queues[1]).unwrap();
    assert!(!queues[1].close(deadline()).unwrap());
    fails!(queues[1].notify(), Error::Closed { .. });
    fails!(device.take_queue(1, QueueConfig::default()), Error::Misuse { .. });
    assert_eq!(held(&device), 1);
    device.reset().unwrap();
    assert_eq!(held(&device), 0);
    kept_the_rules(&soft);
});

each!(s2_6_1_a_queue_of_an_earlier_life_resets_no_queue_of_this_one(way) on modern {
    let (soft, device, old) = resettable(way, []);
    device.reset().unwrap();
    device.negotiate(Features::RING_RESET, Features::EMPTY).unwrap();
    let mut queues = start(&device).unwrap();
    drop(old);
    assert!(device.transport().queue_enabled(1).unwrap());
    send(&device, &mut queues[1]).unwrap();
    kept_the_rules(&soft);
});

each!(m2_queues_dropped_by_one_thread_while_another_resets_leave_nothing_behind(way) on all {
    for features in [Features::EMPTY, Features::RING_RESET] {
        let soft = build(way, console());
        let device = open(way, &soft).unwrap();
        let pool = device.pool(1, 64).unwrap();
        for _ in 0..50 {
            device.negotiate(features, Features::EMPTY).unwrap();
            let mut queues = start(&device).unwrap();
            queues[0].add_chain([], [pool.take().unwrap()]).unwrap();
            queues[0].notify().unwrap();
            let both = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    drop(queues);
                });
                both.wait();
                device.reset().unwrap();
            });
            assert_eq!((held(&device), pool.free()), (0, 1));
        }
        kept_the_rules(&soft);
    }
});

// Queue resets are for interfaces with the register.
each!(s6_ring_reset_is_accepted_from_modern_interfaces_only(way) on all {
    let (_soft, device, _queues) = resettable(way, []);
    let modern = matches!(device.transport().kind(), TransportKind::PciModern | TransportKind::Mmio);
    assert_eq!(device.features().contains(Features::RING_RESET), modern);
});
