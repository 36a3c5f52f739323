//! Which slots of a pool are free: a stack without locks, the slot given back last on top; and who keeps the pool.
//!
//! Handles of the pool are counted, and leases on its slots are not, as a count is one more atomic for each: with a handle
//! there, the pool stays. The last handle to go makes the slots [`COUNTED`], one after the other, with a count for each that
//! is held then or later. So the pool goes with the last handle or lease, whichever comes last.

use alloc::boxed::Box;

use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, mutant};

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub use model::ModelSlots;

/// No slot: the end of the stack.
const NONE: u32 = u32::MAX;

/// The slot is free and in the stack, or about to be put there by who gave it back.
const FREE: u8 = 0;
/// The slot was taken by its number while in the stack, or about to be put there; who finds it there skips it.
const TAKEN_IN_STACK: u8 = 1;
/// The slot is not in the stack, and taken.
const OUT: u8 = 2;
/// The slot is taken and not in the stack.
const TAKEN: u8 = TAKEN_IN_STACK | OUT;
/// Beside one of these: who holds the slot has a count.
const COUNTED: u8 = 0x80;

/// Set in the number of holders once the last handle went: from then on leases are among them.
const ALL_COUNT: u64 = 1 << 63;

/// The stack's head, by itself in a pair of cache lines: every taker writes it, and who holds a buffer reads
/// its neighbours.
#[derive(Debug)]
#[repr(align(128))]
struct Head(AtomicU64);

/// Free slots of a pool. Lock-free; used last, taken first, since its bytes are the likeliest to be cached.
#[derive(Debug)]
pub(super) struct Slots {
    /// Upper half: number of changes, so that a head that left and came back is not taken for the same.
    /// Lower half: index of the top slot, or [`NONE`].
    head: Head,
    /// For each slot in the stack, the one below it.
    below: Box<[AtomicU32]>,
    /// [`FREE`], [`TAKEN`] or [`TAKEN_IN_STACK`], each perhaps [`COUNTED`].
    state: Box<[AtomicU8]>,
    /// Handles, and calls that are at work on a slot that may be free already; with [`ALL_COUNT`] leases too.
    holders: AtomicU64,
}

fn top(head: u64) -> u32 {
    (head & u64::from(u32::MAX)) as u32
}

fn with_top(head: u64, index: u32) -> u64 {
    let changes = if mutant!(NoHeadCount) { 0 } else { (head >> 32).wrapping_add(1) };
    changes << 32 | u64::from(index)
}

impl Slots {
    /// `count` free slots (fewer than 2^32 − 1), number 0 on top.
    pub(super) fn new(count: u32) -> Self {
        let last = count.wrapping_sub(1);
        let below = (0..count).map(|i| AtomicU32::new(if i == last { NONE } else { i.wrapping_add(1) }));
        Self {
            head: Head(AtomicU64::new(u64::from(if count == 0 { NONE } else { 0 }))),
            below: below.collect(),
            state: (0..count).map(|_| AtomicU8::new(FREE)).collect(),
            holders: AtomicU64::new(1),
        }
    }

    /// Its atomics.
    #[inline(always)]
    pub(super) fn cells(&self) -> Cells<'_> {
        Cells { head: &self.head.0, below: &self.below, state: &self.state, holders: &self.holders }
    }

    fn cell(&self, index: u32) -> Option<(&AtomicU32, &AtomicU8)> {
        let index = usize::try_from(index).ok()?;
        Some((self.below.get(index)?, self.state.get(index)?))
    }

    /// Takes the slot on top.
    pub(super) fn take(&self) -> Option<u32> {
        // Acquire: the slot below the one on top; pairs with the release in `push`. tests/loom_slots.rs dies without it
        // (HeadRelaxed).
        let acquire = if mutant!(HeadRelaxed) { Relaxed } else { Acquire };
        let mut head = self.head.0.load(acquire);
        loop {
            let index = top(head);
            let (below, state) = self.cell(index)?;
            // May be out of date by now; then the count in `head` is too, and the exchange fails.
            let next = with_top(head, below.load(Relaxed));
            match self.head.0.compare_exchange_weak(head, next, AcqRel, acquire) {
                Err(now) => head = now,
                // Acquire: what the slot's last holder did to it comes before what its next one does.
                Ok(_) => match state.fetch_or(TAKEN, AcqRel) {
                    FREE => return Some(index),
                    counted if counted & TAKEN == FREE || mutant!(HeldUnseen) => {
                        if !mutant!(TopUncounted) {
                            self.cells().hold();
                        }
                        return Some(index);
                    }
                    // Somebody holds it by its number; from now on it is not in the stack.
                    _ => head = self.head.0.load(acquire),
                },
            }
        }
    }

    /// Takes this slot, if it is free.
    #[inline]
    pub(super) fn take_at(&self, index: u32) -> bool {
        let Some(state) = self.state.get(index as usize) else { return false };
        match state.compare_exchange(FREE, TAKEN_IN_STACK, AcqRel, Relaxed) {
            Ok(_) => true,
            Err(seen) => seen == FREE | COUNTED && self.take_counted(state),
        }
    }

    /// The same for one whose holder has a count.
    #[cold]
    fn take_counted(&self, state: &AtomicU8) -> bool {
        let taken = state.compare_exchange(FREE | COUNTED, TAKEN_IN_STACK | COUNTED, AcqRel, Relaxed).is_ok();
        if taken && !mutant!(NumberUncounted) {
            self.cells().hold();
        }
        taken
    }

    /// Whether the slot is free; a snapshot that may be out of date at once.
    pub(super) fn is_free(&self, index: u32) -> bool {
        // Acquire: what its last holder did to it is seen; pairs with `give`.
        self.cell(index).is_some_and(|(_, state)| state.load(Acquire) & TAKEN == FREE)
    }

    /// Number of free slots; a snapshot that may be out of date at once.
    pub(super) fn free(&self) -> usize {
        self.state.iter().filter(|state| state.load(Relaxed) & TAKEN == FREE).count()
    }
}

/// The atomics of [`Slots`], by value: a call that gives the pool up has no reference to anything else that may go with it
/// before the call returns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cells<'a> {
    head: &'a AtomicU64,
    below: &'a [AtomicU32],
    state: &'a [AtomicU8],
    holders: &'a AtomicU64,
}

impl Cells<'_> {
    /// Counts one more, for whoever has a handle or a lease.
    #[inline]
    pub(super) fn hold(self) {
        // Relaxed: whoever counts keeps the pool already.
        let before = self.holders.fetch_add(1, Relaxed) & !ALL_COUNT;
        if before > ALL_COUNT >> 1 {
            // So many were forgotten that the count would come round, and the pool go under its leases.
            std::process::abort();
        }
    }

    /// Takes the caller's count back; answers whether nobody has the pool any more, which is the caller's to end then, once.
    /// Where it is not, others may have ended it when this returns.
    #[must_use]
    pub(super) fn let_go(self) -> bool {
        let slots = self.state.len() as u64;
        let mut now = self.holders.load(Relaxed);
        loop {
            // The last handle leaves a count to each slot, and keeps its own until it has seen them all.
            let next = if now == 1 { ALL_COUNT | slots.wrapping_add(1) } else { now.wrapping_sub(1) };
            // Release: what was done by this count comes before the end; acquire: the end comes after what was done by all
            // others. One pairs with the other of the same line, and of `count_leases`. tests/loom_slots.rs dies without it
            // (LetGoRelaxed).
            let order = if mutant!(LetGoRelaxed) { Relaxed } else { AcqRel };
            match self.holders.compare_exchange_weak(now, next, order, Relaxed) {
                Err(seen) => now = seen,
                Ok(1) => return self.count_leases(),
                Ok(_) => return next == ALL_COUNT,
            }
        }
    }

    /// Makes every slot one whose holder has a count, and takes back those of slots that nobody holds, with the caller's.
    #[cold]
    fn count_leases(self) -> bool {
        let free = |state: &AtomicU8| {
            // Acquire: what the slot's last holder did, who has no count, comes before the end; pairs with the release in
            // `give`. Release: whoever sees the mark sees that all count. tests/loom_slots.rs dies without it (FreeUnseen).
            let order = if mutant!(FreeUnseen) { Relaxed } else { AcqRel };
            state.fetch_or(COUNTED, order) & TAKEN == FREE || mutant!(LeaseUncounted)
        };
        let mut counts = self.state.iter().filter(|state| free(state)).count() as u64;
        counts = counts.wrapping_add(1);
        // As in `let_go`; tests/loom_slots.rs dies without it (CountsRelaxed).
        let order = if mutant!(CountsRelaxed) { Relaxed } else { AcqRel };
        self.holders.fetch_sub(counts, order) == ALL_COUNT | counts
    }

    /// Gives the caller's slot back, once; answers as [`Cells::let_go`].
    #[inline(always)]
    #[must_use]
    pub(super) fn give(self, index: u32) -> bool {
        let Some(state) = self.state.get(index as usize) else { return false };
        // With that the slot is somebody else's, and so may the pool be: nothing may come after it. Release: what its holder
        // did to it comes before what the next one does; pairs with the acquire of whoever takes it.
        state.compare_exchange(TAKEN_IN_STACK, FREE, AcqRel, Relaxed).is_err() && self.give_other(index)
    }

    /// The same for a slot that is not in the stack, or whose holder has a count. Out of line: whoever drops a buffer has it
    /// inlined else.
    #[inline(never)]
    fn give_other(self, index: u32) -> bool {
        let at = index as usize;
        let (Some(below), Some(state)) = (self.below.get(at), self.state.get(at)) else { return false };
        // For as long as this takes: once the slot is free, it keeps the pool no more.
        let held = !mutant!(PushUnheld);
        if held {
            self.hold();
        }
        // Release: what its holder did to it comes before what the next one does, who may take it by its number and not
        // look at the head. tests/loom_slots.rs dies without it (FreeRelaxed).
        let was = state.fetch_and(!TAKEN, if mutant!(FreeRelaxed) { Relaxed } else { AcqRel });
        if was & OUT != 0 {
            self.push(index, below);
        }
        // The slot's count first: this call's own is still there, so that it cannot be the last.
        let lease = was & COUNTED != 0 && self.let_go();
        held && self.let_go() || lease
    }

    /// Puts a slot that is not in the stack on top of it.
    fn push(self, index: u32, below: &AtomicU32) {
        let mut head = self.head.load(Relaxed);
        loop {
            below.store(top(head), Relaxed);
            // Release: who pops the slot sees the slot below it. tests/loom_slots.rs dies without it (PushRelaxed).
            let order = if mutant!(PushRelaxed) { Relaxed } else { AcqRel };
            match self.head.compare_exchange_weak(head, with_top(head, index), order, Relaxed) {
                Err(now) => head = now,
                Ok(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_left_and_came_back_is_another_head() {
        let slots = Slots::new(3);
        // A taker that was stopped before its exchange: it saw slot 0 on top, slot 1 below.
        let seen = slots.head.0.load(Acquire);
        assert_eq!((slots.take(), slots.take()), (Some(0), Some(1)));
        assert!(!slots.cells().give(0));
        assert_eq!(top(slots.head.0.load(Acquire)), 0, "on top again, and slot 1 is taken");
        let late = slots.head.0.compare_exchange(seen, with_top(seen, 1), AcqRel, Acquire);
        assert!(late.is_err(), "slot 1 would be handed out a second time");
    }

    #[test]
    fn leases_keep_what_no_handle_keeps() {
        // Taken by number and from the top, before the last handle went and after.
        let slots = Slots::new(4);
        assert!(slots.take_at(2) && slots.take() == Some(0));
        slots.cells().hold();
        assert!(!slots.cells().let_go() && !slots.cells().let_go(), "two are held");
        // Whoever has a lease may come by a handle again.
        slots.cells().hold();
        assert!(!slots.take_at(2) && slots.take_at(1) && slots.take() == Some(3) && slots.take().is_none());
        assert_eq!(slots.free(), 0);
        assert!(!slots.cells().give(2) && !slots.cells().give(0) && slots.is_free(2));
        assert!(slots.take_at(2), "it is in the stack, and free");
        assert!(
            !slots.cells().give(2)
                && !slots.cells().let_go()
                && !slots.cells().give(1)
                && slots.cells().give(3),
            "the last one ends it"
        );
    }

    #[test]
    fn without_leases_the_last_handle_is_the_end() {
        let slots = Slots::new(3);
        assert!(slots.take_at(1) && slots.take() == Some(0));
        assert!(!slots.cells().give(0) && !slots.cells().give(1));
        slots.cells().hold();
        assert!(!slots.cells().let_go() && slots.cells().let_go());
    }
}
