//! What the device has used.

use super::Token;
use super::indirect::{SMALL, Tables};
use super::inflight::InFlight;

/// A used buffer: a chain that the device gave back (VIRTIO 1.4 §2.7.14).
///
/// As an iterator it hands out the chain's buffers in the order in which they were added. Dropping it drops
/// those that were not taken, and frees the chain's descriptors.
#[must_use = "dropping a completion drops the chain's buffers"]
#[derive(Debug)]
pub struct Completion<'r, B> {
    pub(super) inflight: &'r mut InFlight<B>,
    pub(super) tables: &'r mut Option<Tables>,
    pub(super) token: Token,
    pub(super) written: u32,
    pub(super) capacity: u32,
    pub(super) head: u32,
    pub(super) parts: u16,
    /// Whether it lies in descriptors side by side, which went back to the free ones when it ended; behind which others.
    pub(super) straight: bool,
    pub(super) before: u32,
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

    /// The next `N` buffers at once, `None` from where there are no more: with one look at how many are left.
    #[inline(always)]
    pub fn take_array<const N: usize>(&mut self) -> [Option<B>; N] {
        match self.left.checked_sub(N as u16) {
            Some(left) if N <= usize::from(u16::MAX) => {
                self.left = left;
                if self.straight
                    && let Some(bufs) = self.inflight.take_bufs(&mut self.at)
                {
                    return bufs;
                }
                core::array::from_fn(|_| self.inflight.take_buf(&mut self.at))
            }
            _ => core::array::from_fn(|_| self.next()),
        }
    }

    /// Device-writable bytes that the chain had.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

impl<B> Iterator for Completion<'_, B> {
    type Item = B;

    #[inline(always)]
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
        // What is rare is done elsewhere, by value, so that a completion need not lie in memory.
        if core::mem::needs_drop::<B>() && self.left != 0 {
            drop_rest(self.inflight, self.at, self.left);
        }
        // What is free already needs nothing.
        if !self.straight {
            give_back_special(self.inflight, self.tables, self.head, self.parts);
        }
    }
}

/// Drops the `left` buffers from `at` on.
#[inline(never)]
fn drop_rest<B>(inflight: &mut InFlight<B>, mut at: u32, left: u16) {
    for _ in 0..left {
        drop(inflight.take_buf(&mut at));
    }
}

/// A chain in an indirect table, one that is not straight, or slots in ring order. Out of line: the drop of a completion
/// is inlined only while it is small, and one that is called needs the completion in memory.
#[inline(never)]
fn give_back_special<B>(inflight: &mut InFlight<B>, tables: &mut Option<Tables>, head: u32, parts: u16) {
    let tail = inflight.tail(head);
    // Only a chain with more parts than a slot's table holds can have one of the pool.
    if inflight.in_table(tail)
        && parts > SMALL
        && let Some(tables) = tables
    {
        tables.give_back(head);
    }
    inflight.give_back(head, tail, parts);
}
