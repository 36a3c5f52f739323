//! Which slots of a pool are free: a stack without locks, the slot given back last on top.

use alloc::boxed::Box;

use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, mutant};

/// No slot: the end of the stack.
const NONE: u32 = u32::MAX;

/// The slot is free and in the stack, or about to be put there by who gave it back.
const FREE: u8 = 0;
/// The slot is taken and not in the stack.
const TAKEN: u8 = 1;
/// The slot was taken by its number while in the stack, where it still is; who finds it there skips it.
const TAKEN_IN_STACK: u8 = 2;

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
    /// [`FREE`], [`TAKEN`] or [`TAKEN_IN_STACK`].
    state: Box<[AtomicU8]>,
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
        }
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
                Ok(_) if state.swap(TAKEN, AcqRel) == FREE || mutant!(HeldUnseen) => return Some(index),
                // Somebody holds it by its number; from now on it is not in the stack.
                Ok(_) => head = self.head.0.load(acquire),
            }
        }
    }

    /// Takes this slot, if it is free.
    #[inline]
    pub(super) fn take_at(&self, index: u32) -> bool {
        let state = self.state.get(index as usize);
        state.is_some_and(|state| state.compare_exchange(FREE, TAKEN_IN_STACK, AcqRel, Relaxed).is_ok())
    }

    /// Whether the slot is free; a snapshot that may be out of date at once.
    pub(super) fn is_free(&self, index: u32) -> bool {
        // Acquire: what its last holder did to it is seen; pairs with `give`.
        self.cell(index).is_some_and(|(_, state)| state.load(Acquire) == FREE)
    }

    /// Gives a taken slot back.
    #[inline]
    pub(super) fn give(&self, index: u32) {
        let Some(state) = self.state.get(index as usize) else { return };
        if state.compare_exchange(TAKEN_IN_STACK, FREE, AcqRel, Relaxed).is_err() {
            self.push(index);
        }
    }

    /// Puts a slot that is not in the stack on top of it. Out of line: whoever drops a buffer has it inlined else.
    #[inline(never)]
    fn push(&self, index: u32) {
        let Some((below, state)) = self.cell(index) else { return };
        // Release: what its holder did to it comes before what the next one does, who may take it by its number and not
        // look at the head. tests/loom_slots.rs dies without it (FreeRelaxed).
        state.store(FREE, if mutant!(FreeRelaxed) { Relaxed } else { Release });
        let mut head = self.head.0.load(Relaxed);
        loop {
            below.store(top(head), Relaxed);
            // Release: who pops the slot sees the slot below it. tests/loom_slots.rs dies without it (PushRelaxed).
            let order = if mutant!(PushRelaxed) { Relaxed } else { AcqRel };
            match self.head.0.compare_exchange_weak(head, with_top(head, index), order, Relaxed) {
                Err(now) => head = now,
                Ok(_) => return,
            }
        }
    }

    /// Number of free slots; a snapshot that may be out of date at once.
    pub(super) fn free(&self) -> usize {
        self.state.iter().filter(|state| state.load(Relaxed) == FREE).count()
    }
}

/// The slots of a pool without its memory, for `tests/loom_slots.rs`.
#[cfg(loom)]
#[derive(Debug)]
pub struct ModelSlots(Slots);

#[cfg(loom)]
impl ModelSlots {
    /// As many free slots.
    pub fn new(count: u32) -> Self {
        Self(Slots::new(count))
    }

    /// As [`super::pool::DmaPool::take`].
    pub fn take(&self) -> Option<u32> {
        self.0.take()
    }

    /// As [`super::pool::DmaPool::take_at`].
    pub fn take_at(&self, index: u32) -> bool {
        self.0.take_at(index)
    }

    /// As dropping the buffer.
    pub fn give(&self, index: u32) {
        self.0.give(index);
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
        slots.give(0);
        assert_eq!(top(slots.head.0.load(Acquire)), 0, "on top again, and slot 1 is taken");
        let late = slots.head.0.compare_exchange(seen, with_top(seen, 1), AcqRel, Acquire);
        assert!(late.is_err(), "slot 1 would be handed out a second time");
    }
}
