//! The used index: D1, D2, D3.

use std::sync::atomic::{AtomicBool, Ordering};

use virtio::error::Violation;
use virtio::soft::Lie;

use crate::ring_common::{Case, Rig};

row!(d1_used_idx_beyond_what_is_outstanding_breaks_the_ring: beyond_outstanding);
row!(d1_used_idx_beyond_the_queue_size_breaks_the_ring: beyond_size);
row!(d1_used_idx_beyond_what_is_left_of_a_batch_breaks_the_ring: beyond_the_rest);
row!(d2_used_idx_that_goes_back_breaks_the_ring: back);
row!(d2_used_idx_that_goes_back_under_a_drain_breaks_the_ring_after_it: back_under_a_drain);
row!(d3_used_idx_that_grows_under_a_drain_is_seen_at_the_next_look: grows);
row!(d3_used_idx_that_changes_between_reads_is_read_once: flickers);

fn jump(span: u16, outstanding: u16) -> Violation {
    Violation::UsedIdxJump { span, outstanding }
}

fn beyond_outstanding(case: Case) {
    for by in [3, 4, 8] {
        let mut rig = Rig::new(case);
        rig.give(2);
        rig.device.tell(Lie::UsedIdxAhead { by });
        rig.expect_broken(jump(by, 2));
        rig.reset();
    }
}

fn beyond_size(case: Case) {
    for by in [9, 255, 0x7FFF, 0x8000, 0xFFFF] {
        let mut rig = Rig::new(case);
        rig.give(2);
        rig.device.tell(Lie::UsedIdxAhead { by });
        rig.expect_broken(jump(by, 2));
        rig.reset();
    }
}

/// One of two is used honestly, then the index jumps by two with one outstanding.
fn beyond_the_rest(case: Case) {
    let mut rig = Rig::new(case);
    let chains = rig.give(2);
    rig.device.push_used(chains[0].head, 1);
    rig.device.publish_used();
    assert_eq!(rig.take().unwrap().unwrap().1, 1);
    rig.device.tell(Lie::UsedIdxAhead { by: 2 });
    rig.expect_broken(jump(2, 1));
    rig.reset();
}

fn back(case: Case) {
    for by in [1, 2, 0x7FFF] {
        let mut rig = Rig::new(case);
        rig.round_trips(1);
        rig.give(2);
        rig.device.tell(Lie::UsedIdxBack { by });
        rig.expect_broken(jump(0u16.wrapping_sub(by), 2));
        rig.reset();
    }
}

/// What was seen before stands: both elements were shown with the first index.
fn back_under_a_drain(case: Case) {
    let mut rig = Rig::new(case);
    for chain in rig.give(2) {
        rig.device.push_used(chain.head, 0);
    }
    rig.device.publish_used();
    assert!(rig.take().unwrap().is_some());
    rig.device.tell(Lie::UsedIdxBack { by: 1 });
    assert!(rig.take().unwrap().is_some(), "seen before the index went back");
    rig.expect_broken(jump(u16::MAX, 0));
    rig.reset();
}

fn grows(case: Case) {
    let mut rig = Rig::new(case);
    let chains = rig.give(2);
    rig.device.push_used(chains[0].head, 1);
    rig.device.publish_used();
    assert!(rig.ring.has_used().unwrap());
    rig.device.push_used(chains[1].head, 2);
    rig.device.publish_used();
    assert_eq!(rig.take().unwrap().unwrap().1, 1);
    assert_eq!(rig.take().unwrap().unwrap().1, 2);
    assert!(rig.take().unwrap().is_none());
    rig.round_trips(2);
}

/// A thread turns the index from right to wrong and back. Whichever of the two a look meets decides alone: the
/// chain comes back, once, and nothing after it, or the ring is broken by exactly the wrong value. An index that
/// is checked and then read again would take elements that nobody wrote.
fn flickers(case: Case) {
    const BY: u16 = 2;
    let mut rig = Rig::new(case);
    for round in 0..40 {
        let token = rig.add(1, 1).token;
        let _ = rig.ring.publish();
        let outstanding = rig.ring.outstanding();
        let chain = rig.device.pop().unwrap().unwrap();
        let done = AtomicBool::new(false);
        let (device, ring) = (&mut rig.device, &mut rig.ring);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                device.push_used(chain.head, 1);
                device.publish_used();
                while !done.load(Ordering::Relaxed) {
                    device.tell(Lie::UsedIdxFlickers { by: BY });
                    device.settle();
                }
            });
            // Begin at different moments, else one of the two values may be met always.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            let outcome = loop {
                match ring.pop() {
                    Ok(None) => std::thread::yield_now(),
                    Ok(Some(done)) => break Ok(done.token()),
                    Err(error) => break Err(error),
                }
            };
            done.store(true, Ordering::Relaxed);
            outcome
        });
        match outcome {
            Ok(back) => {
                assert_eq!(back, token);
                rig.added.clear();
                assert!(rig.take().unwrap().is_none(), "one element was written, and no more");
            }
            Err(error) => {
                let violation = Violation::UsedIdxJump { span: 1 + BY, outstanding };
                assert_eq!(error, virtio::Error::Broken { queue: 3, violation });
                rig.reset();
            }
        }
    }
}
