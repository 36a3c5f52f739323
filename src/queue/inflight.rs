//! The in-flight table: which descriptors are free, which chains the device has, and the buffers they own.
//!
//! All of it is private memory (`shadow-truth`, `own-in-flight`): a device that scribbles over the descriptor
//! table changes nothing here.
//!
//! A *place* holds one buffer. Places `0..size` are the ring's descriptors; those above belong to parts of
//! indirect chains after the first, which take no descriptor. `next` links the places of a chain. Free descriptors are
//! kept in [`super::runs`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::runs::{CROOKED, place_of};
use super::{RingConfig, SlotOrder, Token};
use crate::sync::mutant;

/// End of a list.
pub(super) const NIL: u32 = u32::MAX;

/// What is known of a chain, at the place of its head descriptor; or of a run of free ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    /// Goes up each time the slot is given back: a token of an earlier life is stale.
    generation: u32,
    /// Device-writable bytes of the chain. Of a run: head of the run after it.
    pub(super) writable: u32,
    /// Place of the last part; with [`CROOKED`] where places do not follow each other by number.
    pub(super) tail: u32,
    /// Number of its entry in the available ring. Of a run: number of its places.
    pub(super) entry: u16,
    /// Number of parts; 0: not the head of a chain in flight.
    pub(super) parts: u16,
}

impl Head {
    /// Makes the run a chain in flight. `token` is one of the queue.
    #[inline(always)]
    pub(super) fn start(&mut self, token: Token, head: u32, parts: u16, writable: u32, entry: u16) -> Token {
        (self.writable, self.entry, self.parts) = (writable, entry, parts);
        token.of(head, self.generation)
    }

    /// Makes it the head of a run of free places.
    #[inline(always)]
    pub(super) fn free(&mut self, count: u16, after: u32) {
        (self.writable, self.entry) = (after, count);
    }

    /// Ends the chain's life as one in flight.
    #[inline(always)]
    fn end(&mut self) {
        self.parts = 0;
        if !mutant!(SameLife) {
            self.generation = self.generation.wrapping_add(1);
        }
    }
}

/// A list of free places.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreeList {
    pub(super) first: u32,
    pub(super) count: u32,
    /// The run that was given back last, if none was taken since; else [`NIL`]. The next goes behind it, so that runs are
    /// taken in the order in which they came back: chains that go out together come back together, and lie side by side
    /// again, in which the device finds them soonest.
    pub(super) last: u32,
}

impl FreeList {
    /// The first run, of `parts` places, is taken: the one at `after` is the first now.
    #[inline(always)]
    pub(super) fn pop(&mut self, parts: u16, after: u32) {
        *self = Self { first: after, count: self.count.wrapping_sub(parts.into()), last: NIL };
    }
}

/// In ring order, places go back when all older ones have.
#[derive(Debug)]
pub(super) struct RingOrder {
    /// Place of the oldest chain that did not go back.
    oldest: u32,
    /// At each head: parts of a chain that was completed before an older one, else 0.
    done: Box<[u16]>,
}

/// A place: the buffer in it, and the place after it in its chain or in the list of free ones. Side by side, so
/// that one look finds both.
#[derive(Debug)]
pub(super) struct Place<B> {
    pub(super) buf: Option<B>,
    pub(super) next: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct InFlight<B> {
    /// A token of slot 0 and generation 0.
    pub(super) token: Token,
    pub(super) mask: u32,
    /// Chains whose last part lies below this are straight, and go back to the list of free descriptors when they end: the
    /// queue size, or 0 in ring order.
    simple: u32,
    pub(super) heads: Box<[Head]>,
    pub(super) places: Box<[Place<B>]>,
    pub(super) free: FreeList,
    /// Crooked runs that were made since the last time that all were straightened.
    pub(super) bent: u32,
    /// Free descriptors that are not to be used.
    hidden: u32,
    extra: FreeList,
    pub(super) ring_order: Option<RingOrder>,
}

/// A chain in flight, to be ended.
pub(super) struct Live<'a> {
    id: u32,
    /// Its record.
    pub(super) was: Head,
    heads: &'a mut [Head],
    free: &'a mut FreeList,
    simple: u32,
}

impl Live<'_> {
    /// Ends it: from here on its id is not a live one. Straight, it goes back to the free descriptors, which nobody takes
    /// while its [`super::Completion`] is there; else its places stay taken until [`InFlight::give_back`]. Answers whether
    /// it went back, and what [`FreeList::last`] was: two values, not one that is there or not, so that neither has to be
    /// put into a word with the other.
    #[inline(always)]
    pub(super) fn end(self) -> (bool, u32) {
        let Self { id, was, heads, free, simple } = self;
        let (last, mut after) = (free.last, free.first);
        let straight = was.tail < simple;
        if straight {
            match heads.get_mut(last as usize) {
                Some(before) => after = core::mem::replace(&mut before.writable, id),
                None => free.first = id,
            }
            (free.count, free.last) = (free.count.wrapping_add(was.parts.into()), id);
        }
        if let Some(record) = heads.get_mut(id as usize) {
            record.end();
            if straight {
                record.free(was.parts, after);
            }
        }
        (straight, last)
    }
}

impl<B> InFlight<B> {
    /// For the descriptors of a ring (a power of two) and `extra` places for further parts of indirect chains.
    pub(super) fn new(config: &RingConfig, extra: u32) -> Self {
        let size = u32::from(config.size);
        let places = size.saturating_add(extra);
        let link = |at: u32| if at.wrapping_add(1) == places { NIL } else { at.wrapping_add(1) };
        let ring_order = (config.slots == SlotOrder::Ring)
            .then(|| RingOrder { oldest: 0, done: (0..size).map(|_| 0).collect::<Vec<_>>().into() });
        let mut table = Self {
            token: Token::new(config.queue, 0, 0),
            mask: size.wrapping_sub(1),
            simple: if ring_order.is_some() { 0 } else { size },
            heads: (0..size)
                .map(|_| Head { generation: config.first_generation, ..Head::default() })
                .collect(),
            places: (0..places).map(|at| Place { buf: None, next: link(at) }).collect(),
            free: FreeList { first: NIL, count: 0, last: NIL },
            bent: 0,
            hidden: 0,
            extra: FreeList { first: size, count: extra, last: NIL },
            ring_order,
        };
        // In ring order the last descriptor leads back to the first.
        let close = if table.ring_order.is_some() { 0 } else { NIL };
        table.link(table.mask, close);
        table.put_run(0, table.mask, config.size);
        table.free = FreeList { first: 0, count: size, last: NIL };
        table
    }

    #[inline(always)]
    pub(super) fn next(&self, at: u32) -> u32 {
        self.places.get(at as usize).map_or(NIL, |place| place.next)
    }

    /// Makes `to` the place after `at`.
    #[inline(always)]
    pub(super) fn link(&mut self, at: u32, to: u32) {
        if let Some(place) = self.places.get_mut(at as usize) {
            place.next = to;
        }
    }

    /// Free descriptors.
    #[inline(always)]
    pub(super) fn free(&self) -> u32 {
        self.free.count
    }

    /// Free places for parts of indirect chains after the first.
    #[inline(always)]
    pub(super) fn free_extra(&self) -> u32 {
        self.extra.count
    }

    /// Takes a place for a further part of the indirect chain that ends at `after`.
    #[inline(always)]
    pub(super) fn take_extra(&mut self, after: u32) -> Option<u32> {
        self.extra.count = self.extra.count.checked_sub(1)?;
        let at = self.extra.first;
        self.extra.first = self.next(at);
        if after <= self.mask {
            // Only the head is not linked to the extra places by their own list.
            self.link(after, at);
        }
        Some(at)
    }

    /// Puts a buffer into a place that was taken.
    #[inline(always)]
    pub(super) fn put(&mut self, at: u32, buf: B) {
        if let Some(place) = self.places.get_mut(at as usize) {
            // A free place is empty; saying so spares the look whether something is to be dropped.
            core::mem::forget(place.buf.replace(buf));
        } else {
            // Does not happen, and a drop would have to be able to unwind.
            core::mem::forget(buf);
        }
    }

    /// The buffer in a place.
    pub(super) fn buf(&self, at: u32) -> Option<&B> {
        self.places.get(at as usize)?.buf.as_ref()
    }

    /// The place after `at` in its chain, or in the list of free ones.
    #[inline(always)]
    pub(super) fn following(&self, at: u32) -> u32 {
        self.next(at)
    }

    /// Makes the chain one in flight.
    #[inline(always)]
    pub(super) fn start(&mut self, head: u32, tail: u32, parts: u16, writable: u32, entry: u16) -> Token {
        let mut generation = 0;
        if let Some(slot) = self.heads.get_mut(head as usize) {
            generation = slot.generation;
            *slot = Head { generation, writable, tail, entry, parts };
        }
        self.token.of(head, generation)
    }

    /// The chain whose head is descriptor `id`, if the device has one. All 32 bits of `id` count.
    #[inline(always)]
    pub(super) fn chain(&self, id: u32) -> Option<(Head, Token)> {
        let head = *self.heads.get(id as usize)?;
        head.is_live().then(|| (head, self.token.of(id, head.generation)))
    }

    /// As [`InFlight::chain`], to be ended by [`Live::end`].
    #[inline(always)]
    pub(super) fn chain_mut(&mut self, id: u32) -> Option<(Live<'_>, Token)> {
        let was = *self.heads.get(id as usize)?;
        let token = self.token.of(id, was.generation);
        let (heads, free, simple) = (&mut *self.heads, &mut self.free, self.simple);
        was.is_live().then_some((Live { id, was, heads, free, simple }, token))
    }

    /// Whether the token's chain is in flight.
    pub(super) fn holds(&self, token: Token) -> bool {
        token.queue() == self.token.queue()
            && self.chain(u32::from(token.slot())).is_some_and(|(_, current)| current == token)
    }

    /// [`Live::end`] of the chain at `head`.
    pub(super) fn end(&mut self, head: u32) -> (bool, u32) {
        self.chain_mut(head).map_or((false, NIL), |(live, _)| live.end())
    }

    /// Takes the buffer at `at` and steps on.
    #[inline(always)]
    pub(super) fn take_buf(&mut self, at: &mut u32) -> Option<B> {
        let place = self.places.get_mut(*at as usize)?;
        *at = place.next;
        place.buf.take()
    }

    /// The same for the `N` places from `at` on, of a straight chain. `None` does not happen.
    #[inline(always)]
    pub(super) fn take_bufs<const N: usize>(&mut self, at: &mut u32) -> Option<[Option<B>; N]> {
        let start = *at as usize;
        let places: &mut [Place<B>; N] =
            self.places.get_mut(start..start.saturating_add(N))?.try_into().ok()?;
        *at = at.wrapping_add(N as u32);
        Some(places.each_mut().map(|place| place.buf.take()))
    }

    /// What the record of the chain at `head`, in flight or just ended, has as its tail.
    #[inline(always)]
    pub(super) fn tail(&self, head: u32) -> u32 {
        self.heads.get(head as usize).map_or(NIL, |record| record.tail)
    }

    /// Whether a chain whose record has `tail` lies in descriptors that go back to the list of free ones as they are.
    #[inline(always)]
    pub(super) fn is_plain(&self, tail: u32) -> bool {
        place_of(tail) < self.simple
    }

    /// Whether a chain whose record has `tail` lies in an indirect table.
    #[inline(always)]
    pub(super) fn in_table(&self, tail: u32) -> bool {
        tail > self.mask && tail < CROOKED
    }

    /// Puts the places from `head` to `tail`, `parts` of them, back.
    pub(super) fn give_back(&mut self, head: u32, tail: u32, parts: u16) {
        let (mut tail, mut count) = (tail, parts);
        if self.in_table(tail) {
            self.give_back_extra(head, tail, parts);
            (tail, count) = (head, 1);
        }
        if self.ring_order.is_some() {
            self.give_back_in_order(head, count);
        } else {
            self.put_run(head, tail, count);
        }
    }

    /// The parts of an indirect chain after its first.
    fn give_back_extra(&mut self, head: u32, tail: u32, parts: u16) {
        let (first, old) = (self.next(head), self.extra.first);
        self.link(tail, old);
        self.extra.first = first;
        self.extra.count = self.extra.count.wrapping_add(u32::from(parts).wrapping_sub(1));
        if self.ring_order.is_some() {
            self.link(head, head.wrapping_add(1) & self.mask);
        }
    }

    fn give_back_in_order(&mut self, head: u32, descriptors: u16) {
        let Some(order) = &mut self.ring_order else { return };
        if let Some(done) = order.done.get_mut(head as usize) {
            *done = descriptors;
        }
        while let Some(done) = order.done.get_mut(order.oldest as usize) {
            if *done == 0 {
                break;
            }
            let parts = u32::from(core::mem::take(done));
            order.oldest = order.oldest.wrapping_add(parts) & self.mask;
            self.free.count = self.free.count.wrapping_add(parts);
        }
    }

    /// Takes the descriptors of a chain that was never added back: `head` on, `parts` places up to `tail`.
    pub(super) fn roll_back(&mut self, head: u32, tail: u32, parts: u16) {
        let mut at = head;
        for _ in 0..parts {
            drop(self.take_buf(&mut at));
        }
        if self.ring_order.is_none() {
            self.give_back(head, tail, parts);
            return;
        }
        let descriptors = if self.in_table(tail) {
            self.give_back_extra(head, tail, parts);
            1
        } else {
            u32::from(parts)
        };
        self.free.first = head;
        self.free.count = self.free.count.wrapping_add(descriptors);
    }

    /// Leaves no room for chains until [`InFlight::open`]: the ring is broken. So the hot path need not ask.
    pub(super) fn close(&mut self) {
        self.hidden = self.hidden.wrapping_add(self.free.count);
        self.free.count = 0;
    }

    /// Takes [`InFlight::close`] back, for a device that starts anew.
    pub(super) fn open(&mut self) {
        self.free.count = self.free.count.wrapping_add(core::mem::take(&mut self.hidden));
        if let Some(order) = &mut self.ring_order
            && self.free.count > self.mask
        {
            // §2.7.5.2: ring order starts from descriptor 0.
            (self.free.first, order.oldest) = (0, 0);
        }
    }

    /// Heads of all chains in flight.
    pub(super) fn live(&self) -> impl Iterator<Item = u32> + '_ {
        self.heads.iter().zip(0u32..).filter(|(head, _)| head.is_live()).map(|(_, at)| at)
    }

    /// Leaves every buffer in flight where it is, for ever: its drop will not run.
    pub(super) fn forget(&mut self) {
        for place in &mut self.places {
            core::mem::forget(place.buf.take());
        }
    }

    /// Bytes of private memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.heads)
            .saturating_add(size_of_val(&*self.places))
            .saturating_add(self.ring_order.as_ref().map_or(0, |order| size_of_val(&*order.done)))
    }
}
