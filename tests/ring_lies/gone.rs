//! A device that went away, and one that is too early: D23, D24.

use virtio::error::Violation;
use virtio::soft::Lie;

use crate::ring_common::{Case, Rig};

row!(d23_a_ring_of_all_ones_breaks: all_ones);
row!(d23_a_ring_of_all_ones_breaks_at_the_id_where_its_index_is_possible: all_ones_at_the_wrap);
row!(d23_a_ring_of_all_ones_tells_nothing_where_its_index_is_the_last: all_ones_at_the_same_index);
row!(d24_used_elements_from_before_the_first_chain_are_skipped_and_counted: early);
row!(d24_an_early_device_still_completes_and_interrupts: early_then_honest);
row!(d24_used_elements_with_nothing_outstanding_break_the_ring: later);

fn all_ones(case: Case) {
    let mut rig = Rig::new(case);
    rig.give(2);
    rig.device.tell(Lie::AllOnes);
    rig.expect_broken(Violation::UsedIdxJump { span: u16::MAX, outstanding: 2 });
    rig.reset();
}

/// Uses chains until `used.idx` is `index`.
fn advance(rig: &mut Rig, index: u16) {
    for _ in 0..index {
        rig.add(0, 1);
        let _ = rig.ring.publish();
        let chain = rig.device.pop().unwrap().unwrap();
        rig.device.push_used(chain.head, 0);
        rig.device.publish_used();
        assert!(rig.take().unwrap().is_some());
    }
}

fn all_ones_at_the_wrap(case: Case) {
    let mut rig = Rig::new(case);
    advance(&mut rig, 0xFFFE);
    rig.give(2);
    rig.device.tell(Lie::AllOnes);
    rig.expect_broken(Violation::UsedIdRange { id: u32::MAX, size: 8 });
    rig.reset();
}

/// Looks like a device that does nothing: the deadline of a wait ends that.
fn all_ones_at_the_same_index(case: Case) {
    let mut rig = Rig::new(case);
    advance(&mut rig, 0xFFFF);
    rig.give(2);
    rig.device.tell(Lie::AllOnes);
    assert!(rig.take().unwrap().is_none());
    assert!(!rig.ring.enable_interrupts().unwrap());
    assert!(rig.ring.check().is_ok());
    rig.reset();
}

fn early(case: Case) {
    for count in [1, 2, 8, 1_000] {
        let mut rig = Rig::new(case);
        rig.device.tell(Lie::UsedBeforeAvailable { count });
        assert!(rig.take().unwrap().is_none());
        assert!(!rig.ring.has_used().unwrap());
        assert!(!rig.ring.enable_interrupts().unwrap());
        rig.add(1, 1);
        assert!(rig.take().unwrap().is_none(), "added, and not published");
        let _ = rig.ring.publish();
        assert!(rig.take().unwrap().is_none());
        assert_eq!(rig.ring.counters().early, u64::from(count));
        assert_eq!(rig.ring.outstanding(), 1);
        rig.reset();
    }
}

fn early_then_honest(case: Case) {
    for armed in [false, true] {
        let mut rig = Rig::new(case);
        rig.device.tell(Lie::UsedBeforeAvailable { count: 5 });
        if !armed {
            rig.ring.disable_interrupts();
        }
        let chains = rig.give(2);
        rig.device.push_used(chains[1].head, 1);
        let interrupts = rig.device.publish_used();
        assert_eq!(interrupts, u32::from(armed), "as the driver wished");
        assert_eq!(rig.take().unwrap().unwrap().1, 1);
        rig.device.push_used(chains[0].head, 2);
        rig.device.publish_used();
        assert_eq!(rig.take().unwrap().unwrap().1, 2);
        assert_eq!((rig.ring.counters().used, rig.ring.counters().early), (2, 5));
        rig.round_trips(3);
    }
}

fn later(case: Case) {
    let mut rig = Rig::new(case);
    rig.round_trips(1);
    rig.device.tell(Lie::UsedBeforeAvailable { count: 1 });
    rig.expect_broken(Violation::UsedIdxJump { span: 1, outstanding: 0 });
    rig.reset();
}
