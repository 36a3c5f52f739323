//! Many leases, taken and given back with one look at the pool's count.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

#[cfg(any(test, feature = "python"))]
use super::DmaPool;
use super::{DmaBuf, Inner};
#[cfg(any(test, feature = "python"))]
use crate::Result;

/// Takes buffers of a pool, for which it has the counts already.
#[cfg(any(test, feature = "python"))]
pub(crate) struct Takes<'a> {
    pool: &'a DmaPool,
    /// Counts that it has.
    left: usize,
}

#[cfg(any(test, feature = "python"))]
impl<'a> Takes<'a> {
    /// For so many leases at once; others are counted one by one.
    #[inline]
    pub(crate) fn new(pool: &'a DmaPool, leases: u16) -> Self {
        let left = usize::from(leases);
        pool.inner().hold(left);
        Self { pool, left }
    }

    /// As [`DmaPool::slot`].
    #[inline(always)]
    pub(crate) fn slot(&mut self, index: u32) -> Result<DmaBuf> {
        if self.left == 0 {
            return self.pool.slot(index);
        }
        if !self.pool.inner().slots.take_at(index) {
            return Err(self.pool.refusal(index));
        }
        let record = self.pool.record(index)?;
        self.left = self.left.wrapping_sub(1);
        Ok(DmaBuf(NonNull::from(record)))
    }
}

#[cfg(any(test, feature = "python"))]
impl Drop for Takes<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.left != 0 {
            // SAFETY: counts that no lease has; the handle has another one.
            unsafe { Inner::let_go(self.pool.0, self.left) };
        }
    }
}

/// Takes leases back, and keeps the counts of those that belong to the pool of the first one until it is dropped.
pub(crate) struct Returns {
    pool: Option<NonNull<Inner>>,
    counts: usize,
}

impl Returns {
    pub(crate) const fn new() -> Self {
        Self { pool: None, counts: 0 }
    }

    /// As dropping it.
    #[inline(always)]
    pub(crate) fn give(&mut self, buf: DmaBuf) {
        let pool = buf.record().pool;
        if *self.pool.get_or_insert(pool) != pool {
            return drop_one(buf);
        }
        // The slot is free from here on; the count stays.
        let buf = ManuallyDrop::new(buf);
        buf.inner().slots.give(buf.index());
        self.counts = self.counts.wrapping_add(1);
    }
}

#[inline(never)]
fn drop_one(buf: DmaBuf) {
    drop(buf);
}

impl Drop for Returns {
    #[inline]
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            // SAFETY: of as many leases as were given, none of which was dropped: of one at least.
            unsafe { Inner::let_go(pool, self.counts) };
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::mem::dma::SoftDma;
    use crate::mem::space::DmaSpace;

    fn space() -> DmaSpace {
        DmaSpace::new(Arc::new(SoftDma::new()))
    }

    fn pool(space: &DmaSpace) -> DmaPool {
        DmaPool::new(space, 4, 64).unwrap()
    }

    fn holders(pool: &DmaPool) -> usize {
        pool.inner().holders.load(core::sync::atomic::Ordering::Relaxed)
    }

    #[test]
    fn leases_that_were_taken_at_once_hold_the_pool_one_by_one() {
        let pool = pool(&space());
        let mut takes = Takes::new(&pool, 2);
        assert_eq!(holders(&pool), 3);
        let bufs = [takes.slot(3).unwrap(), takes.slot(1).unwrap(), takes.slot(0).unwrap()];
        assert!(takes.slot(3).is_err() && takes.slot(4).is_err());
        assert_eq!((holders(&pool), pool.free()), (4, 1), "the third was counted by itself");
        drop(takes);
        drop(bufs);
        assert_eq!((holders(&pool), pool.free()), (1, 4));
        let mut takes = Takes::new(&pool, 9);
        let buf = takes.slot(2).unwrap();
        assert!(takes.slot(2).is_err());
        drop(takes);
        assert_eq!(holders(&pool), 2, "counts that were not used go back");
        drop(pool);
        buf.write(0, b"alive").unwrap();
    }

    #[test]
    fn leases_that_are_given_back_at_once_are_counted_at_the_end() {
        let space = space();
        let (other, free) = (pool(&space), space.free_bytes());
        let pool = pool(&space);
        let mut returns = Returns::new();
        for index in 0..3 {
            returns.give(pool.slot(index).unwrap());
        }
        returns.give(other.slot(0).unwrap());
        assert_eq!((pool.free(), other.free(), holders(&other)), (4, 4, 1));
        assert_eq!(holders(&pool), 4);
        drop(returns);
        assert_eq!(holders(&pool), 1);
        let mut returns = Returns::new();
        returns.give(pool.take().unwrap());
        drop(pool);
        assert!(space.free_bytes() < free, "the last count keeps the pool");
        drop(returns);
        assert_eq!(space.free_bytes(), free);
    }
}
