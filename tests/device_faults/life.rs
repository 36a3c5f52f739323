//! Status, reset, removal.

use std::thread;

use virtio::Error;
use virtio::device::{Phase, QueueConfig};
use virtio::features::Features;
use virtio::mem::quarantine::kept;
use virtio::soft::DeviceLie;
use virtio::spec::Status;

use crate::rig::*;

// Also P9, and libvirtio's reset that waits for ever.
each!(c1_p9_seed_a_reset_that_is_not_confirmed_ends_at_its_deadline_and_frees_nothing(way) on all {
    let mut busy = Busy::new(way, console());
    busy.soft.tell(DeviceLie::StatusNeverResets).unwrap();
    fails!(busy.device.reset(), Error::ResetTimeout { .. });
    assert_eq!(busy.device.phase(), Phase::Failed);
    busy.ends_once();
    fails!(busy.queues[0].get(None), Error::Closed { .. });
    busy.keeps_its_memory();
    fails!(busy.device.reset(), Error::ResetTimeout { .. });
    busy.keeps_its_memory();
    busy.starts_again();
});

each!(c1_a_device_that_is_closed_without_a_confirmed_reset_is_kept_for_ever(way) on all {
    let mut busy = Busy::new(way, console());
    busy.soft.tell(DeviceLie::StatusNeverResets).unwrap();
    fails!(busy.device.close(), Error::ResetTimeout { .. });
    busy.ends_once();
    busy.keeps_its_memory();
    let before = kept().count;
    let Busy { soft, device, queues, pool, .. } = busy;
    drop((device, queues));
    assert_eq!(pool.free(), 0);
    drop(pool);
    assert!(kept().count > before);
    drop(soft);
});

each!(c1_c3_a_late_look_at_the_device_takes_back_no_end(way) on all {
    let mut busy = Busy::new(way, console());
    busy.soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
    busy.soft.tell(DeviceLie::StatusNeverResets).unwrap();
    fails!(busy.device.reset(), Error::ResetTimeout { .. });
    busy.device.events().unwrap();
    busy.ends_once();
    busy.keeps_its_memory();
    busy.starts_again();
});

each!(c2_a_status_of_all_ones_is_a_device_gone(way) on all {
    fails!(open(way, &lying(way, DeviceLie::StatusAllOnes)), Error::DeviceGone { .. });
    let mut busy = Busy::new(way, console());
    busy.soft.tell(DeviceLie::StatusAllOnes).unwrap();
    fails!(busy.device.status(), Error::DeviceGone { .. });
    fails!(busy.device.reset(), Error::DeviceGone { .. });
    busy.ends_once();
    fails!(busy.queues[0].pop(), Error::DeviceGone { .. });
    busy.keeps_its_memory();
    busy.starts_again();
});

each!(c3_p11_a_device_that_asks_for_a_reset_wakes_the_waiter_and_is_set_up_again(way) on all {
    let mut busy = Busy::new(way, console());
    let soft = busy.soft.clone();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| busy.get());
        soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
        assert_eq!(waiter.join().unwrap().kind(), &Error::DeviceNeedsReset);
    });
    assert!(busy.device.events().unwrap().needs_reset);
    fails!(busy.queues[1].notify(), Error::DeviceNeedsReset);
    assert_eq!(busy.pool.free(), 0);
    busy.device.reset().unwrap();
    busy.ends_once();
    fails!(busy.queues[0].pop(), Error::Closed { .. });
    assert_eq!(busy.pool.free(), 1);
    let soft = busy.soft.clone();
    busy.starts_again();
    kept_the_rules(&soft);
});

each!(c3_p11_a_reset_asked_for_before_or_with_driver_ok_fails_the_start(way) on all {
    let soft = lying(way, DeviceLie::NeedsReset { after: 0 });
    let device = negotiated(way, &soft).unwrap();
    let queue = device.take_queue(0, QueueConfig::default()).unwrap();
    fails!(device.start(), Error::DeviceNeedsReset);
    assert!(device.events().unwrap().needs_reset);
    soft.be_honest().unwrap();
    drop(queue);
    device.reset().unwrap();
    device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
    let mut queues = start(&device).unwrap();
    send(&device, &mut queues[1]).unwrap();
});

each!(c3_p11_every_waiter_of_a_shared_queue_is_woken_and_every_token_ends_once(way) on all {
    let soft = build(way, console());
    let device = negotiated(way, &soft).unwrap();
    let mut queues = start(&device).unwrap();
    let mut queue = queues.remove(0);
    let tokens: Vec<_> = (0..4)
        .map(|_| queue.add_chain([], [device.alloc(8).unwrap()]).unwrap())
        .collect();
    let shared = queue.share();
    shared.notify().unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> =
            tokens.iter().map(|&token| scope.spawn({ let shared = &shared; move || shared.wait(token, deadline()) })).collect();
        soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
        for waiter in waiters {
            fails!(waiter.join().unwrap(), Error::DeviceNeedsReset);
        }
        let waiters: Vec<_> = tokens[..3]
            .iter()
            .map(|&token| (token, scope.spawn({ let shared = &shared; move || shared.wait(token, deadline()) })))
            .collect();
        device.reset().unwrap();
        for (token, waiter) in waiters {
            // One that looked before the reset was told to ask for it, and may wait again.
            let mut ended = waiter.join().unwrap();
            if matches!(&ended, Err(error) if error.kind() == &Error::DeviceNeedsReset) {
                ended = shared.wait(token, deadline());
            }
            let wanted = token.into_raw();
            fails!(ended, Error::Indeterminate { token } if *token == wanted);
            fails!(shared.wait(token, deadline()), Error::StaleToken { .. });
        }
    });
    let last = tokens[3].into_raw();
    fails!(shared.get(deadline()), Error::Indeterminate { token } if *token == last);
    fails!(shared.get(deadline()), Error::Closed { .. });
});

each!(m2_a_reset_of_a_running_device_ends_what_is_in_flight_once(way) on all {
    let mut busy = Busy::new(way, console());
    busy.device.reset().unwrap();
    busy.ends_once();
    let soft = busy.soft.clone();
    busy.starts_again();
    kept_the_rules(&soft);
});

// libvirtio frees a destroyed queue that the device still has.
each!(m2_seed_a_queue_dropped_with_the_device_running_is_kept_until_the_reset(way) on all {
    let mut busy = Busy::new(way, console());
    busy.queues.clear();
    busy.keeps_its_memory();
    busy.device.reset().unwrap();
    for queue in 0..2 {
        assert!(!busy.device.transport().queue_enabled(queue).unwrap());
    }
    let soft = busy.soft.clone();
    busy.starts_again();
    kept_the_rules(&soft);
});

each!(m2_a_queue_dropped_before_its_device_is_closed_comes_home_then(way) on all {
    let mut busy = Busy::new(way, console());
    busy.queues.clear();
    busy.device.close().unwrap();
    assert_eq!((busy.device.memory().quarantine().tally().count, busy.pool.free()), (0, 1));
});

each!(m3_a_queue_outlives_its_device(way) on all {
    let mut busy = Busy::new(way, console());
    busy.device.close().unwrap();
    busy.ends_once();
    fails!(busy.queues[0].pop(), Error::Closed { .. });
    fails!(busy.queues[1].notify(), Error::Closed { .. });
    fails!(busy.device.reset(), Error::Closed { .. });
    assert_eq!(busy.pool.free(), 1);
});

each!(m3_a_closed_handle_reaches_no_register_of_the_next_owner_s_device(way) on all {
    let mut busy = Busy::new(way, console());
    let config = busy.device.config().clone();
    busy.device.close().unwrap();
    busy.ends_once();
    fails!(busy.device.status(), Error::Closed { .. });
    fails!(busy.device.offered(), Error::Closed { .. });
    fails!(config.read(0, 2), Error::Closed { .. });
    fails!(config.write(0, 2, 1), Error::Closed { .. });
    fails!(config.snapshot(virtio::features::Features::EMPTY), Error::Closed { .. });
});

each!(c26_a_slow_reset_is_waited_for(way) on all {
    lives(way, DeviceLie::SlowReset { reads: 3 });
});

each!(c26_a_device_that_does_nothing_ends_in_a_time_out_and_nothing_is_lost(way) on all {
    let soft = lying(way, DeviceLie::Stalls);
    let device = negotiated(way, &soft).unwrap();
    let mut queues = start(&device).unwrap();
    let token = queues[1].add_chain([device.alloc(1).unwrap()], []).unwrap();
    queues[1].notify().unwrap();
    fails!(queues[1].get(Some(SHORT)), Error::Timeout { .. });
    assert!(queues[1].holds(token));
    soft.be_honest().unwrap();
    assert_eq!(queues[1].get(Some(SOON)).unwrap().token, token);
    kept_the_rules(&soft);
});

each!(c30_a_removed_device_is_gone_and_not_reset(way) on all {
    for lie in [DeviceLie::Removed, DeviceLie::AllOnes] {
        let mut busy = Busy::new(way, console());
        busy.soft.tell(lie).unwrap();
        assert!(busy.device.events().unwrap().gone);
        fails!(busy.device.reset(), Error::DeviceGone { .. });
        busy.ends_once();
        fails!(busy.queues[0].pop(), Error::DeviceGone { .. });
        busy.keeps_its_memory();
        fails!(busy.device.close(), Error::DeviceGone { .. });
        busy.keeps_its_memory();
    }
});

each!(c30_whoever_waits_learns_of_the_removal_though_no_interrupt_tells(way) on all {
    let mut busy = Busy::new(way, console());
    busy.soft.tell(DeviceLie::Removed).unwrap();
    // For ever: it must be found by looking.
    let error = busy.queues[0].get(None).unwrap_err();
    assert_eq!(error.kind(), &Error::Indeterminate { token: busy.token.into_raw() });
    fails!(busy.queues[0].get(None), Error::DeviceGone { .. });
});

each!(d23_rings_and_status_of_all_ones_are_a_device_gone(way) on all {
    let mut busy = Busy::new(way, console());
    busy.soft.tell(DeviceLie::AllOnes).unwrap();
    busy.ends_once();
    fails!(busy.queues[0].pop(), Error::DeviceGone { .. });
    busy.keeps_its_memory();
});

each!(d24_an_interrupt_before_driver_ok_is_nothing_to_take(way) on all {
    let soft = lying(way, DeviceLie::EarlyInterrupt);
    let device = negotiated(way, &soft).unwrap();
    let mut queue = device.take_queue(1, QueueConfig::default()).unwrap();
    assert!(queue.pop().unwrap().is_none());
    assert!(!device.events().unwrap().needs_reset);
    fails!(queue.notify(), Error::Misuse { .. });
    device.start().unwrap();
    send(&device, &mut queue).unwrap();
    kept_the_rules(&soft);
});

each!(s2_1_a_failed_negotiation_sets_failed(way) on all {
    let soft = build(way, console());
    let device = open(way, &soft).unwrap();
    fails!(device.negotiate(Features::EMPTY, Features::SR_IOV), Error::MissingFeatures { .. });
    assert_eq!(device.phase(), Phase::Failed);
    assert!(Status::from_bits_retain(soft.report().status).contains(Status::FAILED));
    kept_the_rules(&soft);
});

each!(c30_a_watch_without_a_deadline_learns_of_a_removal_that_nothing_tells(way) on all {
    for started in [true, false] {
        let soft = build(way, console());
        let device = if started { negotiated(way, &soft) } else { open(way, &soft) }.unwrap();
        let queues = started.then(|| start(&device).unwrap());
        let watch = device.watch().unwrap();
        soft.tell(DeviceLie::Removed).unwrap();
        assert!(watch.wait(virtio::event::Deadline::never()).unwrap().gone);
        drop(queues);
    }
});

each!(c3_a_watch_without_a_deadline_learns_of_a_wish_for_a_reset_that_no_interrupt_tells(way) on all {
    let soft = build(way, console());
    let mut options = virtio::device::Options::default();
    options.interrupts = false;
    let device = virtio::device::Device::open(transport(way, &soft).unwrap(), options).unwrap();
    device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
    let _queues = start(&device).unwrap();
    let watch = device.watch().unwrap();
    soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
    assert!(watch.wait(virtio::event::Deadline::never()).unwrap().needs_reset);
});

each!(m4_a_watch_ends_with_the_life_of_the_device(way) on all {
    for close in [true, false] {
        let soft = build(way, console());
        let device = negotiated(way, &soft).unwrap();
        let _queues = start(&device).unwrap();
        let watch = device.watch().unwrap();
        assert!(!watch.wait(virtio::event::Deadline::after(SHORT)).unwrap().any());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| watch.wait(deadline()));
            if close { device.close() } else { device.reset() }.unwrap();
            fails!(waiter.join().unwrap(), Error::Closed { .. });
        });
        fails!(watch.wait(virtio::event::Deadline::never()), Error::Closed { .. });
    }
});
