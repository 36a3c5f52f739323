//! Chains that stand: what comes back keeps its first and its last buffer, in their places and in the descriptor table,
//! and goes out again with another one between them.
//!
//! A request of most device types is a header, data and a status. Header and status are the driver's own, request after
//! request; a chain that stands moves them nowhere, and writes no descriptor of theirs again.

use core::mem::ManuallyDrop;

use super::inflight::{Head, InFlight};
use super::ring::Written;
use super::runs::place_of;
use super::split::{Desc, encode_rest};
use super::{Completion, Ring, Token};
use crate::error::ChainFault;
use crate::mem::lease::Lease;
use crate::spec::split::DESC_F_WRITE;
use crate::sync::mutant;
use crate::{Error, Result};

/// Set in the number of parts of a chain that stands: its buffers lie in their places, and the device has it not. No chain
/// has so many parts and one more.
const STANDS: u16 = 1 << 15;

/// Parts of a chain that stands.
const PARTS: u16 = 3;

impl Head {
    /// Whether it is the head of a chain in flight.
    #[inline(always)]
    pub(super) fn is_live(&self) -> bool {
        self.parts.wrapping_sub(1) < STANDS
    }

    /// Whether it is the head of a chain that stands.
    #[inline(always)]
    fn stands(&self) -> bool {
        self.parts > STANDS
    }
}

impl<B> InFlight<B> {
    /// Has the chain at `head`, of `parts` places, stand, which has just ended with this answer of
    /// [`super::inflight::Live::end`].
    #[inline(always)]
    fn stand(&mut self, head: u32, parts: u16, (straight, before): (bool, u32)) {
        if straight {
            self.take_back(head, parts, before);
        }
        if let Some(record) = self.heads.get_mut(head as usize) {
            record.parts = parts | STANDS;
        }
    }

    /// What the record of the chain that stands at `head`, if one does, has as its tail.
    #[inline(always)]
    fn standing(&self, head: u32) -> Option<u32> {
        let record = self.heads.get(head as usize)?;
        record.stands().then_some(record.tail)
    }

    /// Frees the places of the chain that stands at `head`, and whatever buffers are in them.
    #[cold]
    pub(super) fn dismiss(&mut self, head: u32) {
        let Some(record) = self.heads.get_mut(head as usize).filter(|record| record.stands()) else { return };
        let (tail, parts) = (record.tail, record.parts & !STANDS);
        record.parts = 0;
        self.roll_back(head, tail, parts);
    }

    /// The same for all chains that stand.
    pub(super) fn dismiss_all(&mut self) {
        (0..self.heads.len() as u32).for_each(|head| self.dismiss(head));
    }
}

impl<B: Lease> Completion<'_, B> {
    /// The last buffer of a chain that can stand: one of three buffers, the last of them device-writable and the first
    /// not, in the ring's own table, of which none was taken. `None` for any other.
    #[inline(always)]
    pub fn last_of_three(&self) -> Option<&B> {
        let tail = self.inflight.tail(self.head);
        if self.parts != PARTS || self.left != PARTS || !self.inflight.is_plain(tail) {
            return None;
        }
        let last = self.inflight.buf(place_of(tail))?;
        // Writable buffers come last: these are one, or two.
        let beside = self.capacity.checked_sub(last.len())?;
        let middle = self.inflight.buf(self.inflight.following(self.head))?;
        (beside == 0 || beside == middle.len()).then_some(last)
    }

    /// Takes the buffer between the two others out, and has the chain stand with these at its token's
    /// [`Token::slot`], until [`Ring::resend`] or [`Ring::dismiss`].
    ///
    /// `None` where it cannot ([`Completion::last_of_three`]): then it is dropped.
    #[inline(always)]
    pub fn stand(self) -> Option<B> {
        self.last_of_three()?;
        // Not dropped: that would free its descriptors.
        let mut this = ManuallyDrop::new(self);
        let (head, mut middle) = (this.head, this.inflight.following(this.head));
        let buf = this.inflight.take_buf(&mut middle);
        let freed = (this.straight, this.before);
        this.inflight.stand(head, PARTS, freed);
        buf
    }
}

impl<B: Lease> Ring<B> {
    /// [`Ring::pop`] without a look at `used.idx`: `None` where all that was seen was taken. For loops that take what one
    /// look, by [`Ring::has_used`], has found.
    #[inline(always)]
    pub fn pop_seen(&mut self) -> Result<Option<Completion<'_, B>>> {
        if self.split.seen() == 0 { Ok(None) } else { self.pop() }
    }

    /// Adds the chain that stands at `slot` once more, with `buf` between its two buffers, device-writable or not, to be
    /// shown to the device by the next [`Ring::publish`]. Before that `prepare` gets the two, which the device does not
    /// have, to write to them; if it fails, so does the call, and the chain stands as before.
    ///
    /// # Errors
    /// [`Error::Misuse`] where no chain stands there; [`Error::BadChain`], [`Error::Broken`]. `buf` is dropped then.
    #[inline(always)]
    pub fn resend(
        &mut self,
        slot: u16,
        buf: B,
        writable: bool,
        prepare: impl FnOnce(&B, &B) -> Result<()>,
    ) -> Result<Token> {
        let head = u32::from(slot);
        let (Some(tail), false) = (self.inflight.standing(head), self.is_broken()) else {
            return Err(self.cannot_resend());
        };
        let middle = self.inflight.following(head);
        let end = place_of(tail);
        let (Some(first), Some(last)) = (self.inflight.buf(head), self.inflight.buf(end)) else {
            return Err(self.cannot_resend());
        };
        let (len, beside) = (u64::from(buf.len()), u64::from(last.len()));
        let total = u64::from(first.len()).wrapping_add(len).wrapping_add(beside);
        if len == 0 || total > u64::from(u32::MAX) {
            let fault = if len == 0 { ChainFault::EmptyBuffer } else { ChainFault::TooManyBytes };
            return Err(fault.into());
        }
        if !mutant!(ResendUnprepared) {
            prepare(first, last)?;
        }
        // Fits: the total does.
        let capacity = beside.wrapping_add(if writable { len } else { 0 }) as u32;
        self.write_middle(middle, end, &buf, if writable { DESC_F_WRITE } else { 0 });
        self.inflight.put(middle, buf);
        Ok(self.make_available(self.split.order(), head, tail, PARTS, capacity))
    }

    /// Writes the descriptor of a chain's middle part, unless it is known to be what it should.
    #[inline(always)]
    fn write_middle(&mut self, at: u32, next: u32, buf: &B, flags: u16) {
        let (order, at) = (self.split.order(), at as usize);
        let rest = encode_rest(order, buf.len(), flags, Some(next as u16));
        let new: Written = (order.u64(buf.device_addr()), rest);
        if let Some(written) = self.written.get_mut(at) {
            if *written == new || mutant!(ResendStale) {
                return;
            }
            *written = new;
        }
        let desc = Desc { addr: buf.device_addr(), len: buf.len(), flags };
        self.split.write_desc(at as u32, desc, Some(next));
    }

    #[cold]
    fn cannot_resend(&self) -> Error {
        let what =
            "no chain stands at this slot: only one that `Completion::stand` left there can be sent again";
        self.check().err().unwrap_or(Error::Misuse { what })
    }

    /// Ends the standing of the chain at `slot`: its descriptors are free, and its two buffers are the caller's again.
    /// `None` where no chain stands there, or the ring is broken: the buffers then stay until [`Ring::reset`].
    pub fn dismiss(&mut self, slot: u16) -> Option<[B; 2]> {
        let head = u32::from(slot);
        if self.is_broken() {
            return None;
        }
        let (mut first, mut last) = (head, place_of(self.inflight.standing(head)?));
        let bufs = [self.inflight.take_buf(&mut first)?, self.inflight.take_buf(&mut last)?];
        self.inflight.dismiss(head);
        Some(bufs)
    }
}
