//! Building a descriptor chain (VIRTIO 1.4 §2.7.4, §2.7.13.1).

use super::indirect::{SMALL, Table};
use super::runs::bend;
use super::split::Desc;
use super::{Ring, Token};
use crate::error::ChainFault;
use crate::mem::lease::Lease;
use crate::spec::split::DESC_F_WRITE;
use crate::sync::mutant;
use crate::{Error, Result};

/// A chain under construction: device-readable buffers first, then device-writable ones.
///
/// Nothing of it is visible to the device. [`Chain::add`] makes it one in flight; a chain that is dropped
/// before, or whose `add` fails, leaves the ring as it was and drops its buffers.
#[must_use = "a chain that is not added is dropped, and its buffers with it"]
#[derive(Debug)]
pub struct Chain<'r, B: Lease> {
    ring: &'r mut Ring<B>,
    /// Whether the parts go into a table.
    indirect: bool,
    /// A table of the pool, once the slot's own is too small.
    table: Option<Table>,
    head: u32,
    tail: u32,
    /// What the record of the chain has in its tail besides, because of the places that were taken.
    mark: u32,
    /// The last part, which is written when it is known whether another follows.
    pending: Desc,
    parts: u16,
    total: u32,
    writable: u32,
    fault: Option<Fault>,
}

/// The first thing that went wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Rule(ChainFault),
    Full { need: u32, free: u32 },
}

impl<'r, B: Lease> Chain<'r, B> {
    #[inline(always)]
    pub(super) fn new(ring: &'r mut Ring<B>, indirect: bool) -> Self {
        Self {
            ring,
            indirect,
            table: None,
            head: 0,
            tail: 0,
            mark: 0,
            pending: Desc::default(),
            parts: 0,
            total: 0,
            writable: 0,
            fault: None,
        }
    }

    /// Appends a buffer that the device reads.
    #[inline(always)]
    pub fn readable(mut self, buf: B) -> Self {
        self.push(buf, false);
        self
    }

    /// Appends a buffer that the device writes.
    #[inline(always)]
    pub fn writable(mut self, buf: B) -> Self {
        self.push(buf, true);
        self
    }

    /// Puts the chain into the available ring, to be shown to the device by the next [`Ring::publish`].
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::BadChain`], [`Error::Broken`]: the ring is as it was, and the buffers are
    /// dropped.
    #[inline(always)]
    pub fn add(mut self) -> Result<Token> {
        if self.fault.is_some() || self.parts == 0 || self.ring.is_broken() {
            return Err(refusal(self.ring, self.fault));
        }
        self.write_pending(None);
        if self.indirect && self.parts > 1 {
            self.ring.lead_to_table(self.head, self.current_table(), self.parts);
        }
        let (head, tail, parts) = (self.head, self.tail | self.mark, self.parts);
        // From here on the chain is the ring's: nothing to roll back.
        self.parts = 0;
        Ok(self.ring.make_available(self.ring.split.order(), head, tail, parts, self.writable))
    }

    #[inline(always)]
    fn push(&mut self, buf: B, write: bool) {
        if self.fault.is_none()
            && let Err(fault) = self.try_push(buf, write)
        {
            self.fault = Some(fault);
        }
    }

    #[inline(always)]
    fn try_push(&mut self, buf: B, write: bool) -> Result<(), Fault> {
        let len = buf.len();
        if len == 0 {
            return Err(Fault::Rule(ChainFault::EmptyBuffer));
        }
        if !write && self.writable != 0 {
            return Err(Fault::Rule(ChainFault::ReadableAfterWritable));
        }
        let total = self.total.checked_add(len).ok_or(Fault::Rule(ChainFault::TooManyBytes))?;
        if self.parts >= self.ring.size {
            return Err(Fault::Rule(ChainFault::TooManyBuffers));
        }
        let desc = Desc { addr: buf.device_addr(), len, flags: if write { DESC_F_WRITE } else { 0 } };
        let place = self.take_place()?;
        if self.parts == 0 {
            self.head = place;
        } else {
            self.write_pending(Some(place));
        }
        self.ring.inflight.put(place, buf);
        (self.pending, self.tail, self.total) = (desc, place, total);
        self.parts = self.parts.wrapping_add(1);
        if write {
            self.writable = self.writable.wrapping_add(len);
        }
        Ok(())
    }

    /// A place for the next part, and a table that has room for it.
    #[inline(always)]
    fn take_place(&mut self) -> Result<u32, Fault> {
        let inflight = &mut self.ring.inflight;
        if self.parts == 0 || !self.indirect {
            let need = u32::from(self.parts).wrapping_add(1);
            let place = inflight.take().ok_or(Fault::Full { need, free: u32::from(self.parts) })?;
            if self.parts != 0 {
                inflight.link(self.tail, place);
                self.mark |= bend(self.tail, place);
            }
            return Ok(place);
        }
        if self.parts == SMALL {
            self.table = Some(Self::grow(self.ring, self.head, self.parts, self.total, self.writable)?);
        }
        let free = self.ring.inflight.free_extra();
        self.ring.inflight.take_extra(self.tail).ok_or(Fault::Full { need: 1, free })
    }

    /// Moves the chain from its slot's table to a large one. What was written is written again from the
    /// in-flight table: shared memory is not read back.
    #[cold]
    #[inline(never)]
    fn grow(ring: &mut Ring<B>, head: u32, parts: u16, total: u32, writable: u32) -> Result<Table, Fault> {
        let need = u32::from(SMALL).wrapping_add(1);
        let Some((tables, table)) = ring
            .tables
            .as_mut()
            .and_then(|t| Some((t.take_large(head)?, t)))
            .map(|(table, tables)| (tables, table))
        else {
            return Err(Fault::Full { need, free: u32::from(SMALL) });
        };
        let (mut at, mut readable) = (head, total.wrapping_sub(writable));
        // The last part is pending still.
        for index in 0..parts.wrapping_sub(1) {
            if let Some(buf) = ring.inflight.buf(at) {
                let flags = if readable == 0 { DESC_F_WRITE } else { 0 };
                readable = readable.saturating_sub(buf.len());
                tables.write(table, index, Desc { addr: buf.device_addr(), len: buf.len(), flags }, true);
            }
            at = ring.inflight.following(at);
        }
        Ok(table)
    }

    #[inline(always)]
    fn current_table(&self) -> Table {
        self.table.unwrap_or(Table::Small(self.head))
    }

    /// Writes the last part, now that it is known what follows.
    #[inline(always)]
    fn write_pending(&mut self, next: Option<u32>) {
        // A single part needs no table: it goes into the ring's own (next is None, parts is 1).
        if !self.indirect || (next.is_none() && self.parts == 1) {
            if !mutant!(NotForgotten) {
                self.ring.forget(self.tail);
            }
            self.ring.split.write_desc(self.tail, self.pending, next);
        } else if let Some(tables) = &self.ring.tables {
            let at = self.parts.wrapping_sub(1);
            tables.write(self.current_table(), at, self.pending, next.is_some());
        }
    }
}

#[cold]
#[inline(never)]
fn refusal<B: Lease>(ring: &Ring<B>, fault: Option<Fault>) -> Error {
    if let Err(broken) = ring.check() {
        return broken;
    }
    match fault {
        Some(Fault::Full { need, free }) => Error::QueueFull { queue: ring.queue, need, free },
        Some(Fault::Rule(fault)) => fault.into(),
        None => ChainFault::Empty.into(),
    }
}

impl<B: Lease> Drop for Chain<'_, B> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.parts != 0 {
            let tail = self.tail | self.mark;
            roll_back(self.ring, self.table.is_some(), self.head, tail, self.parts);
        }
    }
}

#[cold]
#[inline(never)]
fn roll_back<B: Lease>(ring: &mut Ring<B>, large: bool, head: u32, tail: u32, parts: u16) {
    if large && let Some(tables) = &mut ring.tables {
        tables.give_back(head);
    }
    ring.inflight.roll_back(head, tail, parts);
}
