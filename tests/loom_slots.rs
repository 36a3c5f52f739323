//! The slots of a pool: each is one holder's at a time, whoever takes from the top or by number, and none is lost.
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
                held.into_iter().flatten().for_each(|slot| pool.slots.give(slot));
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
                held.into_iter().for_each(|slot| pool.slots.give(slot));
                pool.take()
            })
        };
        for _ in 0..2 {
            if pool.take_at(0) {
                pool.slots.give(0);
            }
        }
        let theirs = other.join().unwrap();
        pool.check(2, theirs);
    });
}
