//! Notifications: D14, D15, D16, D25. Deadlines of waits are the queue's that waits; the ring's part is that no
//! value makes it believe something wrong, and that it can be told to kick again.

use virtio::soft::Lie;

use crate::ring_common::{Case, Rig};

row!(d14_any_avail_event_costs_at_most_a_kick: event_idx absurd_event);
row!(d14_an_avail_event_that_never_moves_is_helped_by_kicking_again: event_idx stuck_event);
row!(d15_an_avail_event_crossed_at_the_wrap_in_a_batch_kicks: event_idx event_at_wrap);
row!(d16_a_stuck_no_notify_flag_completes_by_the_device_polling: flags stuck_flag);
row!(d16_used_flags_mean_nothing_with_event_idx: event_idx ignored_flag);
row!(d25_a_storm_of_interrupts_finds_each_completion_once: storm);
row!(d25_without_any_interrupt_a_look_at_the_ring_finds_the_completion: silence);

/// Chains come back whatever the event index says.
fn absurd_event(case: Case) {
    for event in [0, 1, 2, 100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF] {
        let mut rig = Rig::new(case);
        rig.device.tell(Lie::AvailEventStuck { event });
        rig.round_trips(9);
        let counters = rig.ring.counters();
        assert_eq!(counters.kicks + counters.kicks_saved, 9, "one decision a batch");
        // Only a batch in which entry `event` lies kicks.
        let entries = 9 * u64::from(if case.indirect { 8u16 } else { 2 });
        assert_eq!(counters.kicks, u64::from(u64::from(event) < entries));
    }
}

fn stuck_event(case: Case) {
    let mut rig = Rig::new(case);
    rig.device.tell(Lie::AvailEventStuck { event: 0 });
    assert!(rig.ring.kick_again().is_none(), "nothing is there to hear of");
    rig.add(1, 1);
    assert!(rig.ring.publish().is_some());
    rig.add(1, 1);
    assert!(rig.ring.publish().is_none(), "the event was passed before");
    let again = rig.ring.kick_again().expect("the device has chains");
    assert_eq!((again.queue, again.next), (3, 2));
    for chain in rig.device_takes(2) {
        rig.device.push_used(chain.head, 0);
    }
    rig.device.publish_used();
    for _ in 0..2 {
        assert!(rig.take().unwrap().is_some());
    }
    assert!(rig.ring.kick_again().is_none());
    assert_eq!(rig.ring.counters().kicks, 2);
}

/// Batches of one to eight chains around entry 65,535.
fn event_at_wrap(case: Case) {
    for batch in 1..=2u16 {
        let mut rig = Rig::new(case);
        rig.device.tell(Lie::AvailEventAtWrap);
        let (mut published, mut kicks) = (0u32, Vec::new());
        while published < 65_536 + 8 {
            for _ in 0..batch {
                rig.add(0, 1);
            }
            if rig.ring.publish().is_some() {
                kicks.push(published);
            }
            for chain in rig.device_takes(batch.into()) {
                rig.device.push_used(chain.head, 0);
            }
            rig.device.publish_used();
            while rig.take().unwrap().is_some() {}
            published += u32::from(batch);
        }
        assert_eq!(kicks, [65_536 - u32::from(batch)], "the batch that holds entry 65,535, and no other");
    }
    // A batch that goes across: entries 65,533 to 65,540.
    let mut rig = Rig::new(case);
    rig.device.tell(Lie::AvailEventAtWrap);
    for _ in 0..65_533 {
        rig.add(0, 1);
        assert!(rig.ring.publish().is_none());
        let chain = rig.device.pop().unwrap().unwrap();
        rig.device.push_used(chain.head, 0);
        rig.device.publish_used();
        assert!(rig.take().unwrap().is_some());
    }
    for _ in 0..8 {
        rig.add(0, 1);
    }
    assert_eq!(rig.ring.publish().expect("entry 65,535 is in the batch").next, 5);
}

/// The device said once that it polls, and never takes it back.
fn stuck_flag(case: Case) {
    let mut rig = Rig::new(case);
    rig.device.tell(Lie::NoNotifyStuck);
    assert!(!rig.device.enable_notifications().unwrap());
    rig.add(1, 1);
    assert!(rig.ring.publish().is_none());
    assert_eq!(rig.ring.counters().kicks_saved, 1);
    assert!(rig.take().unwrap().is_none(), "nothing is made up");
    assert!(rig.ring.kick_again().is_some(), "a kick can be forced");
    let chains = rig.device_takes(1);
    rig.device.push_used(chains[0].head, 2);
    rig.device.publish_used();
    assert_eq!(rig.take().unwrap().unwrap().1, 2);
    rig.round_trips(2);
}

fn ignored_flag(case: Case) {
    let mut rig = Rig::new(case);
    rig.device.tell(Lie::NoNotifyStuck);
    rig.add(1, 1);
    assert!(rig.ring.publish().is_some(), "avail_event is 0, and entry 0 was published");
    rig.device_takes(1);
}

/// Each interrupt is only a reason to look.
fn storm(case: Case) {
    let mut rig = Rig::new(case);
    rig.device.tell(Lie::InterruptStorm { count: 1_000 });
    let chains = rig.give(2);
    let mut found = 0;
    for chain in chains {
        rig.device.push_used(chain.head, 4);
        for _ in 0..rig.device.publish_used() {
            while let Some((_, written)) = rig.take().unwrap() {
                assert_eq!(written, 4);
                found += 1;
            }
            assert!(!rig.ring.enable_interrupts().unwrap());
        }
    }
    assert_eq!((found, rig.ring.counters().used), (2, 2));
    rig.round_trips(1);
}

fn silence(case: Case) {
    let mut rig = Rig::new(case);
    rig.device.tell(Lie::NoInterrupts);
    let chains = rig.give(2);
    assert!(!rig.ring.enable_interrupts().unwrap());
    rig.device.push_used(chains[1].head, 4);
    assert_eq!(rig.device.publish_used(), 0);
    assert!(rig.ring.has_used().unwrap());
    assert_eq!(rig.take().unwrap().unwrap().1, 4);
    rig.reset();
}
