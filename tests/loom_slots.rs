//! The slots of a pool: each is one holder's at a time, whoever takes from the top or by number, and none is lost. The pool
//! ends with its last handle or lease, once, and nobody changes it any more.
#![cfg(loom)]
#![allow(unsafe_code, reason = "payload in loom's cells")]

mod loom_support;

use std::sync::Arc;

use loom_support::{Payload, model};
use virtio::mem::ModelSlots;
use virtio::sync::mutants::Mutant;

/// Both threads' view: the slots, and for each the bytes that its holder may write.
struct Pool {
    slots: ModelSlots,
    bytes: Arc<Payload>,
}

impl Pool {
    fn new(count: u32) -> Arc<Self> {
        Arc::new(Self { slots: ModelSlots::new(count), bytes: Payload::new(count as usize) })
    }

    /// Takes the slot on top and writes to it, as only its one holder may.
    fn take(&self) -> Option<u32> {
        let slot = self.slots.take()?;
        self.bytes.write(slot as usize, slot);
        Some(slot)
    }

    /// The same by number.
    fn take_at(&self, slot: u32) -> bool {
        let taken = self.slots.take_at(slot);
        if taken {
            self.bytes.write(slot as usize, slot);
        }
        taken
    }

    /// All that is left can be taken, each slot once: with what is `held`, all `count` of them.
    fn check(&self, count: u32, held: impl IntoIterator<Item = u32>) {
        let mut slots: Vec<u32> = held.into_iter().collect();
        while let Some(slot) = self.take() {
            slots.push(slot);
            assert!(slots.len() <= count as usize, "handed out twice: {slots:?}");
        }
        slots.sort_unstable();
        assert!(slots.iter().copied().eq(0..count), "{slots:?}");
    }
}

/// One is stopped in the middle of a take, while the other takes two and gives them back, the first one first: on top is
/// what was there, and what is below it is not.
#[test]
fn no_slot_is_lost_or_doubled_taken_from_the_top() {
    let mutants = [Mutant::NoHeadCount, Mutant::HeadRelaxed, Mutant::PushRelaxed];
    model("slots, from the top", &mutants, || {
        let pool = Pool::new(3);
        let other = {
            let pool = Arc::clone(&pool);
            loom::thread::spawn(move || {
                let held = [pool.take(), pool.take()];
                held.into_iter().flatten().for_each(|slot| assert!(!pool.slots.give(slot)));
            })
        };
        let mine = pool.take();
        other.join().unwrap();
        pool.check(3, mine);
    });
}

/// One takes a slot by its number and gives it back, while the other takes from the top, where that slot is.
#[test]
fn no_slot_has_two_holders_taken_by_number() {
    let mutants = [Mutant::HeldUnseen, Mutant::FreeRelaxed, Mutant::PushRelaxed];
    model("slots, by number and from the top", &mutants, || {
        let pool = Pool::new(2);
        let other = {
            let pool = Arc::clone(&pool);
            loom::thread::spawn(move || {
                let held = pool.take();
                held.into_iter().for_each(|slot| assert!(!pool.slots.give(slot)));
                pool.take()
            })
        };
        if pool.take_at(0) {
            assert!(!pool.slots.give(0));
        }
        let theirs = other.join().unwrap();
        pool.check(2, theirs);
    });
}

impl Pool {
    /// Ends the pool if a call `says` so: what its slots hold is written by nobody any more. Answers how often it ended.
    fn end(&self, says: bool) -> usize {
        if says {
            self.slots.end();
            self.bytes.write(0, 0);
        }
        usize::from(says)
    }
}

/// What a thread does with a lease on slot 0, which it may let go of, while another thread drops the last handle.
fn ends_once(name: &str, mutants: &[Mutant], take: fn(&Pool), work: fn(&Pool) -> usize) {
    model(name, mutants, move || {
        let pool = Pool::new(2);
        take(&pool);
        let other = {
            let pool = Arc::clone(&pool);
            loom::thread::spawn(move || {
                pool.bytes.write(0, 7);
                work(&pool)
            })
        };
        let mine = pool.end(pool.slots.let_go());
        assert_eq!(mine + other.join().unwrap(), 1, "ends of the pool");
    });
}

fn take_at_0(pool: &Pool) {
    assert!(pool.take_at(0));
}

/// The lease needs no count of its own while there is a handle, and has one from then on.
#[test]
fn a_pool_ends_once_after_its_last_handle_and_a_lease_taken_by_number() {
    let mutants = [Mutant::FreeUnseen, Mutant::LeaseUncounted, Mutant::LetGoRelaxed];
    ends_once("a pool's end, by number", &mutants, take_at_0, |pool| pool.end(pool.slots.give(0)));
}

/// The slot is free before it is back on the stack.
#[test]
fn a_pool_does_not_end_while_a_slot_goes_back_to_the_top() {
    let mutants = [Mutant::PushUnheld, Mutant::LeaseUncounted, Mutant::LetGoRelaxed];
    let take = |pool: &Pool| assert_eq!(pool.take(), Some(0));
    ends_once("a pool's end, from the top", &mutants, take, |pool| pool.end(pool.slots.give(0)));
}

/// Whoever has a lease may come by a handle again, while the last one goes, and take another slot.
#[test]
fn a_pool_ends_once_where_a_lease_gives_a_handle() {
    let mutants = [Mutant::FreeUnseen, Mutant::LeaseUncounted, Mutant::LetGoRelaxed];
    ends_once("a pool's end, a handle from a lease", &mutants, take_at_0, |pool| {
        pool.slots.hold();
        let ends = pool.end(pool.slots.give(0));
        assert!(pool.slots.take_at(1));
        ends + pool.end(pool.slots.let_go()) + pool.end(pool.slots.give(1))
    });
}

/// A handle from a lease takes slots that the last one may have made counted: from the top, past one that is held by its
/// number, and by number what was just put back.
#[test]
fn a_pool_ends_once_where_slots_are_taken_after_its_last_handle() {
    let mutants =
        [Mutant::TopUncounted, Mutant::NumberUncounted, Mutant::CountsRelaxed, Mutant::LeaseUncounted];
    ends_once("a pool's end, slots taken after it", &mutants, take_at_0, |pool| {
        pool.slots.hold();
        assert_eq!(pool.slots.take(), Some(1), "slot 0 is passed, and not in the stack any more");
        let mut ends = pool.end(pool.slots.give(0));
        assert!(pool.slots.take_at(0), "it is back");
        ends += pool.end(pool.slots.let_go());
        ends += pool.end(pool.slots.give(1));
        ends + pool.end(pool.slots.give(0))
    });
}
