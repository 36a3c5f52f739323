//! What the device has used.

use super::Token;
use super::indirect::Tables;
use super::inflight::InFlight;

/// A used buffer: a chain that the device gave back (VIRTIO 1.4 §2.7.14).
///
/// As an iterator it hands out the chain's buffers in the order in which they were added. Dropping it drops
/// those that were not taken, and frees the chain's descriptors.
#[must_use = "dropping a completion drops the chain's buffers"]
#[derive(Debug)]
pub struct Completion<'r, B> {
    pub(super) inflight: &'r mut InFlight<B>,
    pub(super) tables: Option<&'r mut Tables>,
    pub(super) token: Token,
    pub(super) written: u32,
    pub(super) capacity: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) parts: u16,
    /// Place of the next buffer to hand out.
    pub(super) at: u32,
    /// Buffers not handed out.
    pub(super) left: u16,
}

impl<B> Completion<'_, B> {
    /// The token that [`super::Chain::add`] gave.
    #[inline]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Bytes that the device wrote into the chain's device-writable buffers, from the first on, as it says.
    ///
    /// Never more than there was room for (§2.7.8): an answer above that is cut, and counted in
    /// [`super::Counters::clamped`]. Bytes beyond it are whatever the memory held before (§2.7.8.3).
    #[inline]
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Device-writable bytes that the chain had.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

impl<B> Iterator for Completion<'_, B> {
    type Item = B;

    #[inline]
    fn next(&mut self) -> Option<B> {
        self.left = self.left.checked_sub(1)?;
        self.inflight.take_buf(&mut self.at)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl<B> ExactSizeIterator for Completion<'_, B> {}

impl<B> Drop for Completion<'_, B> {
    #[inline(always)]
    fn drop(&mut self) {
        if core::mem::needs_drop::<B>() {
            self.by_ref().for_each(drop);
        }
        if self.inflight.in_table(self.tail) {
            self.free_table();
        }
        self.inflight.give_back(self.head, self.tail, self.parts);
    }
}

impl<B> Completion<'_, B> {
    /// Only a chain with more parts than a slot's table holds can have one of the pool.
    #[inline]
    fn free_table(&mut self) {
        if self.parts > super::indirect::SMALL
            && let Some(tables) = &mut self.tables
        {
            tables.give_back(self.head);
        }
    }
}
