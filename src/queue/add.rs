//! Adding a chain in one call: the hot path, for chains whose number of buffers is known to the compiler.

use super::indirect::{SMALL, Table};
use super::inflight::{NIL, Place};
use super::ring::{UNKNOWN, Written};
use super::runs::{Run, Straight};
use super::split::{Desc, encode_rest};
use super::{Ring, Token};
use crate::Error;
use crate::error::ChainFault;
use crate::mem::cell::Pair64;
use crate::mem::lease::Lease;
use crate::spec::ByteOrder;
use crate::spec::split::DESC_F_WRITE;
use crate::sync::Ordering::Relaxed;
use crate::sync::mutant;

/// A chain that was not accepted, with its buffers. The ring is as it was.
///
/// Turns into the plain [`Error`] with `?`, which drops the buffers.
#[derive(Debug)]
pub struct Refused<B, const R: usize, const W: usize> {
    /// Why.
    pub error: Error,
    /// The device-readable buffers.
    pub readable: [B; R],
    /// The device-writable buffers.
    pub writable: [B; W],
}

impl<B, const R: usize, const W: usize> From<Refused<B, R, W>> for Error {
    fn from(refused: Refused<B, R, W>) -> Self {
        refused.error
    }
}

/// A chain that may be added: what was found out about it.
#[derive(Clone, Copy)]
struct Admitted {
    parts: u16,
    writable: u32,
}

impl<B: Lease> Ring<B> {
    /// Adds the chain of these buffers, to be shown to the device by the next [`Ring::publish`]: the same as
    /// [`Ring::chain`], buffer by buffer, and [`super::Chain::add`], but faster, and a refusal gives the buffers
    /// back.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::BadChain`], [`Error::Broken`], in a [`Refused`]: the ring is as it was.
    #[inline(always)]
    pub fn add<const R: usize, const W: usize>(
        &mut self,
        readable: [B; R],
        writable: [B; W],
    ) -> Result<Token, Refused<B, R, W>> {
        // The common chain goes into the table of a little-endian ring: one question, asked here, spares two below, and
        // the one whether there is room. And it finds its descriptors side by side.
        let parts = (R.wrapping_add(W) & 0xffff) as u32;
        let otherwise = self.inflight.free().wrapping_sub(parts).cast_signed() < self.direct_from;
        if otherwise || !self.inflight.has_run(parts) {
            return self.add_otherwise(readable, writable);
        }
        match Self::admit(&readable, &writable) {
            Some(chain) => self.fill_straight(chain, readable, writable),
            None => Err(self.refuse(readable, writable)),
        }
    }

    /// The same for chains that go into tables of their own, for big-endian rings, for those that remember or take their
    /// slots in order, where free descriptors have to be put together first, and where there is no room.
    #[inline(never)]
    fn add_otherwise<const R: usize, const W: usize>(
        &mut self,
        readable: [B; R],
        writable: [B; W],
    ) -> Result<Token, Refused<B, R, W>> {
        let admitted = Self::admit(&readable, &writable).filter(|chain| self.has_room(chain.parts));
        let Some(chain) = admitted else { return Err(self.refuse(readable, writable)) };
        let enough = u32::from(self.config().direct_from.max(chain.parts));
        if self.uses_table(chain.parts) && self.inflight.free() < enough {
            return Ok(self.fill_table(chain, readable, writable));
        }
        self.inflight.make_run(chain.parts.into());
        self.fill_path(chain, readable, writable)
    }

    /// The chain goes back to the caller, with the reason.
    #[cold]
    fn refuse<const R: usize, const W: usize>(&self, readable: [B; R], writable: [B; W]) -> Refused<B, R, W> {
        Refused { error: self.refusal(&readable, &writable), readable, writable }
    }

    #[inline(always)]
    fn uses_table(&self, parts: u16) -> bool {
        self.indirect && parts > 1
    }

    /// All rules for a chain in one look; which one was broken is for [`Ring::refusal`] to find out. Whether there
    /// is room is another question: a ring that is broken has none, nor has one for more parts than its size.
    #[inline(always)]
    fn admit<const R: usize, const W: usize>(readable: &[B; R], writable: &[B; W]) -> Option<Admitted> {
        let parts = u16::try_from(R.wrapping_add(W)).ok()?;
        // One look at each length: of a lease that is shared with others it is an atomic load. `none` has bits
        // above the 32nd exactly if a length is 0.
        let (mut none, mut first, mut second) = (u64::from(parts).wrapping_sub(1), 0u64, 0u64);
        for buf in readable {
            let len = u64::from(buf.len());
            (none, first) = (none | len.wrapping_sub(1), first.wrapping_add(len));
        }
        for buf in writable {
            let len = u64::from(buf.len());
            (none, second) = (none | len.wrapping_sub(1), second.wrapping_add(len));
        }
        let good = (none | first.wrapping_add(second)) <= u64::from(u32::MAX);
        // Fits: the total is below 2^32.
        good.then_some(Admitted { parts, writable: second as u32 })
    }

    /// Runs the rules again, one by one.
    #[cold]
    fn refusal<const R: usize, const W: usize>(&self, readable: &[B; R], writable: &[B; W]) -> Error {
        if let Err(broken) = self.check() {
            return broken;
        }
        let parts = R.saturating_add(W);
        let lens = || readable.iter().chain(writable).map(|buf| u64::from(buf.len()));
        let fault = if parts == 0 {
            ChainFault::Empty
        } else if lens().any(|len| len == 0) {
            ChainFault::EmptyBuffer
        } else if lens().fold(0, u64::saturating_add) > u64::from(u32::MAX) {
            ChainFault::TooManyBytes
        } else if parts > usize::from(self.size) {
            ChainFault::TooManyBuffers
        } else {
            return Error::QueueFull { queue: self.queue, need: parts as u32, free: self.inflight.free() };
        };
        fault.into()
    }

    /// One descriptor of the ring's own table, of a little-endian ring that remembers nothing, for each buffer: those of
    /// the straight run that the caller has found.
    #[inline(always)]
    fn fill_straight<const R: usize, const W: usize>(
        &mut self,
        chain: Admitted,
        readable: [B; R],
        writable: [B; W],
    ) -> Result<Token, Refused<B, R, W>> {
        let (first, count) = (self.inflight.first(), usize::from(chain.parts));
        let Some(table) = self.split.table().run(first as usize, count) else {
            return Err(self.refuse(readable, writable));
        };
        let Some(run) = self.inflight.take_straight(chain.parts) else {
            return Err(self.refuse(readable, writable));
        };
        let Straight { head, places, record, token } = run;
        let mut fill = Fill { written: &mut [], order: ByteOrder::Little };
        let last = places.len().wrapping_sub(1);
        let mut index = 0usize;
        let mut put = |buf: B, flags: u16| {
            let next = (index != last).then(|| head.wrapping_add(index as u32).wrapping_add(1));
            let desc = table.cell(index);
            fill.put(buf, flags, index, next, desc.zip(places.get_mut(index)));
            index = index.wrapping_add(1);
        };
        each(readable, |buf| put(buf, 0));
        each(writable, |buf| put(buf, DESC_F_WRITE));
        let entry = self.split.push(ByteOrder::Little, head);
        Ok(record.start(token, head, chain.parts, chain.writable, entry))
    }

    /// The same for any ring, and any run that the caller made.
    #[inline(always)]
    fn fill_path<const R: usize, const W: usize>(
        &mut self,
        chain: Admitted,
        readable: [B; R],
        writable: [B; W],
    ) -> Result<Token, Refused<B, R, W>> {
        let (table, order) = (self.split.table(), self.split.order());
        let Some(run) = self.inflight.take_run::<R, W>(table.len(), chain.parts) else {
            return Err(self.refuse(readable, writable));
        };
        let Run { head, path: (first, second), places, record, token } = run;
        let mut fill = Fill { written: &mut self.written, order };
        let at = |i: usize| first.get(i).or_else(|| second.get(i.wrapping_sub(R))).copied();
        let mut index = 0usize;
        let mut put = |buf: B, flags: u16| {
            let place = at(index).unwrap_or(NIL) as usize;
            index = index.wrapping_add(1);
            fill.put(buf, flags, place, at(index), table.cell(place).zip(places.get_mut(place)));
        };
        each(readable, |buf| put(buf, 0));
        each(writable, |buf| put(buf, DESC_F_WRITE));
        let entry = self.split.push(order, head);
        Ok(record.start(token, head, chain.parts, chain.writable, entry))
    }

    /// One descriptor for the slot's own table, which leads to the buffers.
    #[inline(always)]
    fn fill_table<const R: usize, const W: usize>(
        &mut self,
        chain: Admitted,
        readable: [B; R],
        writable: [B; W],
    ) -> Token {
        // The caller knows that there is one.
        let head = self.inflight.take().unwrap_or(NIL);
        let (mut at, mut tail, mut index) = (head, head, 0u16);
        let table = self.table_for(head, chain.parts);
        let mut put = |buf: B, flags: u16| {
            if index != 0 {
                at = self.inflight.take_extra(tail).unwrap_or(tail);
            }
            let desc = Desc { addr: buf.device_addr(), len: buf.len(), flags };
            let more = index.wrapping_add(1) != chain.parts;
            if let Some(tables) = &self.tables {
                tables.write(table, index, desc, more);
            }
            self.inflight.put(at, buf);
            (tail, index) = (at, index.wrapping_add(1));
        };
        each(readable, |buf| put(buf, 0));
        each(writable, |buf| put(buf, DESC_F_WRITE));
        self.lead_to_table(head, table, chain.parts);
        self.make_available(self.split.order(), head, tail, chain.parts, chain.writable)
    }

    /// The slot's own table, or one of the pool where it is too small: the caller knows that there is one.
    #[inline]
    fn table_for(&mut self, head: u32, parts: u16) -> Table {
        let large = self.tables.as_mut().filter(|_| parts > SMALL).and_then(|tables| tables.take_large(head));
        large.unwrap_or(Table::Small(head))
    }

    /// Makes descriptor `head` lead to the table of `parts` entries.
    #[inline(always)]
    pub(super) fn lead_to_table(&mut self, head: u32, table: Table, parts: u16) {
        if let Some(tables) = &self.tables {
            let len = u32::from(parts).wrapping_mul(16);
            if let Some(written) = self.written.get_mut(head as usize) {
                *written = UNKNOWN;
            }
            self.split.write_indirect(head, tables.device_addr(table), len);
        }
    }
}

/// Gives every buffer to `put`. At the end of a `for` over the array there would be a look for buffers that are left.
#[inline(always)]
fn each<B, const N: usize>(bufs: [B; N], mut put: impl FnMut(B)) {
    let mut bufs = bufs.into_iter();
    for buf in bufs.by_ref() {
        put(buf);
    }
    core::mem::forget(bufs);
}

/// A chain on its way into the ring's table. A type, and no closure, because its one method must be inlined.
struct Fill<'a> {
    /// What the table holds, where that is remembered.
    written: &'a mut [Written],
    order: ByteOrder,
}

impl Fill<'_> {
    /// `at` is for [`Fill::written`]: the descriptor's number in the table.
    #[inline(always)]
    fn put<B: Lease>(
        &mut self,
        buf: B,
        flags: u16,
        at: usize,
        next: Option<u32>,
        to: Option<(Pair64<'_>, &mut Place<B>)>,
    ) {
        let Some((desc, place)) = to else {
            // Does not happen: who made the path was there. A drop would have to be able to unwind.
            core::mem::forget(buf);
            return;
        };
        let more = next.map(|next| next as u16);
        // Two halves, one after the other, so that few values live at a time: the loop that adds chains has more of
        // them than there are registers.
        let addr = self.order.u64(buf.device_addr());
        let rest = encode_rest(self.order, buf.len(), flags, more);
        // What is the same is left alone: the device's copy of the cache line stays good.
        let same = match self.written.get_mut(at) {
            Some(written) => core::mem::replace(written, (addr, rest)) == (addr, rest),
            None => false,
        };
        if !same && !mutant!(RememberStale) {
            // Relaxed: the release of `avail.idx` in `publish` orders both.
            desc.store_first(addr, Relaxed);
            desc.store_second(rest, Relaxed);
        }
        // A free place is empty; saying so spares the look whether something is to be dropped.
        core::mem::forget(place.buf.replace(buf));
    }
}
