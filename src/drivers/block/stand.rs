//! Which chains of a queue stand with a header and a status, and which buffer each of them had between.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::mem::pool::DmaBuf;

/// Chains that stand, by their slots. A buffer gets the chain that it had before, if that stands: then no descriptor
/// changes, and the device's copy of its line stays good.
#[derive(Debug)]
pub(super) struct Standing {
    slots: Vec<u16>,
    /// For each slot of the queue: one more than its place in `slots`, 0 where it has none.
    places: Box<[u16]>,
    /// By a buffer's number in its pool, modulo the size of the queue: the slot that such a one had.
    hints: Box<[u16]>,
}

impl Standing {
    /// For a queue of `size` descriptors, which has at most a third as many chains that stand.
    pub(super) fn new(size: u16) -> Self {
        let zeroes = || (0..size).map(|_| 0).collect();
        Self { slots: Vec::with_capacity(size.into()), places: zeroes(), hints: zeroes() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[inline(always)]
    fn hint(&mut self, buf: &DmaBuf) -> Option<&mut u16> {
        // The size is a power of two.
        let mask = self.hints.len().wrapping_sub(1);
        self.hints.get_mut(buf.index() as usize & mask)
    }

    /// A chain for this buffer.
    #[inline(always)]
    pub(super) fn take(&mut self, buf: &DmaBuf) -> Option<u16> {
        let hinted = *self.hint(buf)?;
        let place = self.places.get_mut(usize::from(hinted)).map_or(0, core::mem::take);
        let Some(at) = place.checked_sub(1) else { return self.pop() };
        let last = self.slots.pop()?;
        if let Some(hole) = self.slots.get_mut(usize::from(at)) {
            *hole = last;
            if let Some(moved) = self.places.get_mut(usize::from(last)) {
                *moved = place;
            }
        }
        Some(hinted)
    }

    /// Any chain.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<u16> {
        let slot = self.slots.pop()?;
        if let Some(place) = self.places.get_mut(usize::from(slot)) {
            *place = 0;
        }
        Some(slot)
    }

    /// The chain at `slot` stands, and had `buf`.
    #[inline(always)]
    pub(super) fn put(&mut self, slot: u16, buf: Option<&DmaBuf>) {
        if let Some(hint) = buf.and_then(|buf| self.hint(buf)) {
            *hint = slot;
        }
        self.slots.push(slot);
        // Fits: there are fewer than descriptors.
        let place = self.slots.len() as u16;
        if let Some(at) = self.places.get_mut(usize::from(slot)) {
            *at = place;
        }
    }

    /// The queue is another one.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.places.fill(0);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::mem::dma::SoftDma;
    use crate::mem::pool::DmaPool;
    use crate::mem::space::DmaSpace;

    #[test]
    fn a_buffer_gets_the_chain_that_it_had_while_that_stands_and_any_other_else() {
        let pool = DmaPool::new(&DmaSpace::new(Arc::new(SoftDma::new())), 4, 64).unwrap();
        let bufs: Vec<_> = (0..4).map(|index| pool.slot(index).unwrap()).collect();
        let mut standing = Standing::new(16);
        for (slot, buf) in [3, 0, 9].into_iter().zip(&bufs) {
            standing.put(slot, Some(buf));
        }
        assert_eq!(standing.take(&bufs[0]), Some(3));
        assert_eq!(standing.take(&bufs[2]), Some(9), "its place had changed");
        standing.put(3, None);
        assert_eq!(standing.take(&bufs[2]), Some(3), "its own is away");
        assert_eq!(
            (standing.take(&bufs[1]), standing.take(&bufs[1]), standing.is_empty()),
            (Some(0), None, true)
        );
        standing.put(15, Some(&bufs[3]));
        standing.clear();
        assert_eq!((standing.take(&bufs[3]), standing.pop()), (None, None));
    }
}
