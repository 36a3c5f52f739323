//! A used buffer, owned.

use alloc::vec::Vec;

use crate::queue::{Completion, Token};

/// Buffers that a [`Used`] holds without an allocation.
const INLINE: usize = 4;

/// What the device gave back: a chain's token, how much was written, and its buffers.
///
/// Dropping it gives the buffers back to where they came from.
#[derive(Debug)]
pub struct Used<B> {
    /// The token that adding gave.
    pub token: Token,
    /// Bytes that the device says it wrote, from the first device-writable buffer on; never more than there was
    /// room for (VIRTIO 1.4 §2.7.8).
    pub written: u32,
    /// Device-writable bytes of the chain.
    pub capacity: u32,
    first: [Option<B>; INLINE],
    rest: Vec<B>,
}

/// A [`Used`] without its buffers, which went back to where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The token that adding gave.
    pub token: Token,
    /// As [`Used::written`].
    pub written: u32,
}

impl Done {
    /// Of a ring's completion, which is dropped.
    #[inline]
    pub fn take<B>(completion: Completion<'_, B>) -> Self {
        Self { token: completion.token(), written: completion.written() }
    }
}

impl<B> From<Used<B>> for Done {
    fn from(used: Used<B>) -> Self {
        Self { token: used.token, written: used.written }
    }
}

impl<B> From<Done> for Used<B> {
    /// One whose buffers are gone.
    fn from(done: Done) -> Self {
        let Done { token, written } = done;
        Self { token, written, capacity: 0, first: [const { None }; INLINE], rest: Vec::new() }
    }
}

impl<B> Used<B> {
    /// Takes the buffers out of a ring's completion. Allocates for more than four only.
    #[inline]
    pub fn take(mut completion: Completion<'_, B>) -> Self {
        let (token, written, capacity) = (completion.token(), completion.written(), completion.capacity());
        let first = core::array::from_fn(|_| completion.next());
        Self { token, written, capacity, first, rest: completion.by_ref().collect() }
    }

    /// The buffers, in the order in which they were added.
    pub fn into_buffers(self) -> impl Iterator<Item = B> {
        self.first.into_iter().flatten().chain(self.rest)
    }

    /// The buffers, in place.
    pub fn buffers(&self) -> impl Iterator<Item = &B> {
        self.first.iter().flatten().chain(&self.rest)
    }

    /// Takes buffer number `index` out, if it is there.
    pub fn buffer(&mut self, index: usize) -> Option<B> {
        match self.first.get_mut(index) {
            Some(place) => place.take(),
            None => {
                let at = index.checked_sub(INLINE).filter(|&at| at < self.rest.len())?;
                Some(self.rest.remove(at))
            }
        }
    }
}
