//! Which descriptors are free: *runs* of places that are linked already, in a list through the records of their heads.
//!
//! A chain that comes back is a run, and the next one of as many parts takes it whole: what is taken is found with one
//! look and not with one after the other from place to place, each of which would wait for the one before, from chain to
//! chain. Where the length is another, runs are joined and cut. In ring order there are no runs, the next is made when it
//! is wanted.
//!
//! Runs that come back one after the other stay in this order: chains that go out together come back together, and go out
//! again as neighbours in the order of the table, in which a device on another processor finds them soonest.
//!
//! A run is *straight* where each place is the one after the place before: so all are, until chains of different lengths
//! come back in another order than they went. Of a straight run all places are known from its head.

use super::Token;
use super::inflight::{FreeList, Head, InFlight, NIL, Place};

/// Set in `tail` of a run, and of a chain in the ring's own table, that is not straight. No place has such a number.
pub(super) const CROOKED: u32 = 1 << 31;

/// A straight run that was taken for a chain.
pub(super) struct Straight<'a, B> {
    pub(super) head: u32,
    /// Its places, all of them and no more.
    pub(super) places: &'a mut [Place<B>],
    pub(super) record: &'a mut Head,
    /// A token of the queue.
    pub(super) token: Token,
}

/// A run that was taken for a chain, straight or not.
pub(super) struct Run<'a, B, const R: usize, const W: usize> {
    pub(super) head: u32,
    /// Its places, in order.
    pub(super) path: ([u32; R], [u32; W]),
    /// The places of all descriptors.
    pub(super) places: &'a mut [Place<B>],
    pub(super) record: &'a mut Head,
    /// A token of the queue.
    pub(super) token: Token,
}

/// Place of the last part, without the mark.
#[inline(always)]
pub(super) fn place_of(tail: u32) -> u32 {
    tail & !CROOKED
}

/// The mark for places of which the one after `at` is `next`.
#[inline(always)]
pub(super) fn bend(at: u32, next: u32) -> u32 {
    if at.wrapping_add(1) == next { 0 } else { CROOKED }
}

impl<B> InFlight<B> {
    /// Whether the first run is a straight one of `count` places, not 0.
    #[inline(always)]
    pub(super) fn has_run(&self, count: u32) -> bool {
        let head = self.free.first;
        // A straight run of another length ends at another place, and the mark of one that is not is in no place.
        self.heads.get(head as usize).is_some_and(|run| run.tail == head.wrapping_add(count).wrapping_sub(1))
    }

    /// Makes the first run one of `count` places, not 0. The caller knows that so many are free.
    #[cold]
    #[inline(never)]
    pub(super) fn make_run(&mut self, count: u32) {
        let head = self.free.first;
        if self.ring_order.is_some() {
            let after = head.wrapping_add(count) & self.mask;
            self.set_run(head, after.wrapping_sub(1) & self.mask, count, after);
            return;
        }
        self.join(count);
        if !self.has_run(count) {
            self.bent = self.bent.wrapping_add(1);
            // After as many crooked runs as there are places: so it costs a chain no more than a look at one place.
            if self.bent > self.mask {
                self.bent = 0;
                self.sort();
                self.join(count);
            }
        }
    }

    /// Joins runs, or cuts one, until the first is of `count` places.
    fn join(&mut self, count: u32) {
        let head = self.free.first;
        let Some(&Head { mut tail, entry, writable: mut after, .. }) = self.heads.get(head as usize) else {
            return;
        };
        let mut have = u32::from(entry);
        while have < count {
            let Some(&Head { tail: end, entry, writable: next, .. }) = self.heads.get(after as usize) else {
                return;
            };
            let last = place_of(tail);
            self.link(last, after);
            tail = end | tail & CROOKED | bend(last, after);
            (after, have) = (next, have.wrapping_add(entry.into()));
        }
        if have > count {
            (tail, after) = self.cut(head, count, have.wrapping_sub(count), tail, after);
        }
        self.set_run(head, tail, count, after);
    }

    /// Makes all free places runs anew, straight and as long as can be.
    fn sort(&mut self) {
        // No tail is this, so that it can mark what is free.
        const FREE: u32 = NIL;
        let mut run = self.free.first;
        while let Some(&Head { entry, writable: after, .. }) = self.heads.get(run as usize) {
            let mut at = run;
            for _ in 0..entry {
                if let Some(record) = self.heads.get_mut(at as usize) {
                    record.tail = FREE;
                }
                at = self.next(at);
            }
            run = after;
        }
        let (mut first, mut tail, mut count) = (NIL, NIL, 0u32);
        for at in (0..=self.mask).rev() {
            match self.heads.get_mut(at as usize) {
                Some(record) if record.tail == FREE => record.tail = 0,
                _ => {
                    count = 0;
                    continue;
                }
            }
            // The run that begins behind it, if one does, begins here now.
            let mut after = first;
            if count == 0 {
                tail = at;
            } else {
                self.link(at, first);
                after = self.heads.get(first as usize).map_or(NIL, |run| run.writable);
            }
            count = count.wrapping_add(1);
            self.set_run(at, tail, count, after);
            first = at;
        }
        self.free.first = first;
    }

    /// Cuts the run from `head` to `tail` behind `count` places. The `rest` is a run before `after`, or several that are
    /// straight. Gives the tail of the first part and the head of what follows.
    fn cut(&mut self, head: u32, count: u32, rest: u32, tail: u32, after: u32) -> (u32, u32) {
        if tail & CROOKED == 0 {
            let second = head.wrapping_add(count);
            self.set_run(second, tail, rest, after);
            return (second.wrapping_sub(1), second);
        }
        let (mut last, mut mark) = (head, 0);
        for _ in 1..count {
            let next = self.next(last);
            (last, mark) = (next, mark | bend(last, next));
        }
        let second = self.next(last);
        self.straighten(second, rest, after);
        (last | mark, second)
    }

    /// Makes straight runs of `count` places from `head` on, the last of them before `after`.
    fn straighten(&mut self, head: u32, count: u32, after: u32) {
        let (mut head, mut last, mut have) = (head, head, 1u32);
        for _ in 1..count {
            let next = self.next(last);
            if bend(last, next) != 0 {
                self.set_run(head, last, have, next);
                (head, have) = (next, 0);
            }
            (last, have) = (next, have.wrapping_add(1));
        }
        self.set_run(head, last, have, after);
    }

    /// Writes down a run of `count` places.
    pub(super) fn set_run(&mut self, head: u32, tail: u32, count: u32, after: u32) {
        if let Some(run) = self.heads.get_mut(head as usize) {
            run.tail = tail;
            run.free(count as u16, after);
        }
    }

    /// Head of the first run.
    #[inline(always)]
    pub(super) fn first(&self) -> u32 {
        self.free.first
    }

    /// Takes the first run, straight, for a chain of `parts`, which it has. `None` does not happen: places are where
    /// records say.
    #[inline(always)]
    pub(super) fn take_straight(&mut self, parts: u16) -> Option<Straight<'_, B>> {
        let head = self.free.first;
        let record = self.heads.get_mut(head as usize)?;
        let start = head as usize;
        let places = self.places.get_mut(start..start.saturating_add(parts.into()))?;
        self.free.pop(parts, record.writable);
        Some(Straight { head, places, record, token: self.token })
    }

    /// Takes the first run for a chain of `parts`, R and W together, which it has. All places are looked at before
    /// anything is changed. `None` does not happen: places lead to places.
    #[inline(always)]
    pub(super) fn take_run<const R: usize, const W: usize>(
        &mut self,
        size: usize,
        parts: u16,
    ) -> Option<Run<'_, B, R, W>> {
        let head = self.free.first;
        let record = self.heads.get_mut(head as usize)?;
        let places = self.places.get_mut(..size)?;
        let (mut first, mut second) = ([0; R], [0; W]);
        let mut at = head;
        for slot in &mut first {
            *slot = at;
            at = places.get(at as usize)?.next;
        }
        for slot in &mut second {
            *slot = at;
            at = places.get(at as usize)?.next;
        }
        self.free.pop(parts, record.writable);
        Some(Run { head, path: (first, second), places, record, token: self.token })
    }

    /// Takes a descriptor.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.free.count == 0 {
            return None;
        }
        if !self.has_run(1) || self.ring_order.is_some() {
            self.make_run(1);
        }
        let at = self.free.first;
        let after = self.heads.get(at as usize)?.writable;
        self.free.pop(1, after);
        Some(at)
    }

    /// Takes the run of `parts` places from `head` on, which [`super::inflight::Live::end`] has just given back and answered
    /// with `before`, out again.
    #[inline(always)]
    pub(super) fn take_back(&mut self, head: u32, parts: u16, before: u32) {
        let Some(&Head { writable: after, .. }) = self.heads.get(head as usize) else { return };
        match self.heads.get_mut(before as usize) {
            Some(before) => before.writable = after,
            None => self.free.first = after,
        }
        (self.free.count, self.free.last) = (self.free.count.wrapping_sub(parts.into()), before);
    }

    /// Puts the places from `head` to `tail`, `count` of them, in front of the list.
    pub(super) fn put_run(&mut self, head: u32, tail: u32, count: u16) {
        let FreeList { first, count: free, .. } = self.free;
        self.set_run(head, tail, count.into(), first);
        self.free = FreeList { first: head, count: free.wrapping_add(count.into()), last: NIL };
    }
}
