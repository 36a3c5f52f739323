//! Buffers of one size, and the leases on them that go into a ring.
#![expect(unsafe_code, reason = "promises that a lease's memory outlives it")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use super::copy;
use super::lease::Lease;
use super::mapping::{base_page_size, bytes};
use super::region::DmaRegion;
use super::slots::Slots;
use super::space::{DmaChunk, DmaSpace, within};
use crate::{Error, Result};

/// Equal buffers in one piece of a device's memory: `count` slots, `stride` bytes apart.
///
/// Clones share the slots. Any thread may take and give back, without a lock. A slot that is taken again
/// holds what its last user or the device left in it; a new pool is all zero (but for one over a caller's
/// region).
///
/// ```
/// use std::sync::Arc;
/// use virtio::mem::{dma::SoftDma, pool::DmaPool, space::DmaSpace};
/// # fn main() -> virtio::Result {
/// let dma = Arc::new(SoftDma::new());
/// let space = DmaSpace::new(dma.clone());
/// let pool = DmaPool::new(&space, 64, 4096)?;
/// let mut buffer = pool.take()?;
/// buffer.write(0, b"for the device")?;
/// buffer.truncate(14);
///
/// let mut seen = [0; 14];
/// dma.read(buffer.device_addr(), &mut seen)?;
/// assert_eq!(&seen, b"for the device");
/// # drop((buffer, pool));
/// # // SAFETY: there is no device.
/// # space.close(&unsafe { virtio::mem::quarantine::StoppedProof::assume_stopped(&space) })?;
/// # Ok(()) }
/// ```
pub struct DmaPool(NonNull<Inner>);

// SAFETY: what it leads to is `Send + Sync`, and lives as long as the count that this handle holds.
unsafe impl Send for DmaPool {}
// SAFETY: as above.
unsafe impl Sync for DmaPool {}

/// Who keeps it is the slots' to know, and no `Arc`'s, so that leases need not be counted.
struct Inner {
    slots: Slots,
    chunk: DmaChunk,
    addr: u64,
    stride: u32,
    count: u32,
    /// One for each slot; what a lease points to.
    records: Box<[Record]>,
}

impl Inner {
    /// # Safety
    /// It is from [`DmaPool::over`], and nobody keeps it any more, as `let_go` or `give` of its slots has just answered the
    /// caller, who uses it no more.
    #[cold]
    #[inline(never)]
    unsafe fn end(this: NonNull<Self>) {
        // SAFETY: a box that was leaked there; by the caller's word nobody leads to it any more.
        drop(unsafe { Box::from_raw(this.as_ptr()) });
    }
}

impl Clone for DmaPool {
    fn clone(&self) -> Self {
        self.inner().slots.cells().hold();
        Self(self.0)
    }
}

impl Drop for DmaPool {
    fn drop(&mut self) {
        if self.inner().slots.cells().let_go() {
            // SAFETY: a pool's own; the answer was that nobody keeps it, and neither is it used below.
            unsafe { Inner::end(self.0) };
        }
    }
}

/// What is known of a slot, in one place, so that a lease can be a single pointer.
struct Record {
    addr: u64,
    /// The first byte in this process.
    start: *mut u8,
    /// [`DmaSpace::id`] of the chunk's space.
    space: u64,
    /// The pool, which this record is part of.
    pool: NonNull<Inner>,
    index: u32,
    /// Written by the slot's lease only; an atomic, because a lease may travel between threads.
    len: AtomicU32,
}

// SAFETY: `pool` and `start` are only followed by a `DmaBuf`, which keeps the pool alive, and the pool its chunk;
// everything else is `Send`.
unsafe impl Send for Record {}
// SAFETY: as above: everything else is `Sync`.
unsafe impl Sync for Record {}

impl DmaPool {
    /// A pool of `count` buffers of `stride` bytes, zeroed. It begins at a page where `stride` divides a page
    /// or is a multiple of one, else at a cache line.
    ///
    /// [`Error::Misuse`] for no buffers or empty ones; else as [`DmaSpace::alloc`].
    pub fn new(space: &DmaSpace, count: u32, stride: u32) -> Result<Self> {
        let total = u64::from(count).saturating_mul(u64::from(stride));
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let page = bytes(base_page_size());
        let stride64 = u64::from(stride);
        // So that no buffer straddles more pages than it must.
        let by_pages = page.is_multiple_of(stride64) || stride64.is_multiple_of(page);
        let align = if by_pages { base_page_size() } else { 1 };
        Self::over(space.alloc(total, align)?, stride)
    }

    /// A pool over a chunk: as many whole slots of `stride` bytes as it has room for. Content stays.
    ///
    /// [`Error::Misuse`] where it has no room for one, or for 2^32 − 1 and more.
    pub fn over(chunk: DmaChunk, stride: u32) -> Result<Self> {
        let slots = bytes(chunk.len()).checked_div(u64::from(stride)).unwrap_or(0);
        let count = match u32::try_from(slots) {
            Ok(count) if count != 0 && count != u32::MAX => count,
            _ => {
                return Err(Error::Misuse {
                    what: "a pool has at least one buffer, and fewer than 2^32 - 1",
                });
            }
        };
        let addr = chunk.device_addr();
        let records = Box::default();
        let inner = Box::new(Inner { slots: Slots::new(count), chunk, addr, stride, count, records });
        let pool = NonNull::from(Box::leak(inner));
        // SAFETY: just made, and nobody else has it.
        let inner = unsafe { &mut *pool.as_ptr() };
        let record = |index: u32| Record {
            addr: addr.wrapping_add(u64::from(index).wrapping_mul(u64::from(stride))),
            start: inner.chunk.as_ptr().wrapping_add((index as usize).wrapping_mul(stride as usize)),
            space: inner.chunk.space_id(),
            pool,
            index,
            len: AtomicU32::new(stride),
        };
        let records = (0..count).map(record).collect();
        inner.records = records;
        Ok(Self(pool))
    }

    #[inline(always)]
    fn inner(&self) -> &Inner {
        // SAFETY: kept by this handle; changed by nobody.
        unsafe { self.0.as_ref() }
    }

    /// Number of buffers.
    pub fn count(&self) -> u32 {
        self.inner().count
    }

    /// Bytes of each buffer, and from one to the next.
    pub fn stride(&self) -> u32 {
        self.inner().stride
    }

    /// Buffers that are not taken; out of date at once where other threads use the pool.
    pub fn free(&self) -> usize {
        self.inner().slots.free()
    }

    /// Whether buffer number `index` is there and not taken; out of date at once where other threads use the pool.
    pub fn is_free(&self, index: u32) -> bool {
        self.inner().slots.is_free(index)
    }

    /// Takes the buffer that was given back last. [`Error::MemoryLimit`] where all are taken.
    #[inline]
    pub fn take(&self) -> Result<DmaBuf> {
        match self.inner().slots.take() {
            Some(index) => self.lease(index),
            None => Err(Error::MemoryLimit {
                needed: u64::from(self.inner().stride),
                have: 0,
                limit: "the pool, all of whose buffers are taken: drop one, or make a larger pool",
            }),
        }
    }

    /// Takes buffer number `index`. [`Error::Misuse`] where it is taken or the pool has no such buffer.
    #[inline]
    pub fn slot(&self, index: u32) -> Result<DmaBuf> {
        if self.inner().slots.take_at(index) { self.lease(index) } else { Err(self.refusal(index)) }
    }

    /// The lease on a slot that was just taken.
    #[inline]
    fn lease(&self, index: u32) -> Result<DmaBuf> {
        let Some(record) = self.inner().records.get(index as usize) else { return Err(self.refusal(index)) };
        record.len.store(self.inner().stride, Ordering::Relaxed);
        Ok(DmaBuf(NonNull::from(record)))
    }

    #[cold]
    fn refusal(&self, index: u32) -> Error {
        Error::Misuse {
            what: match index < self.count() {
                true => "this buffer of the pool is taken",
                false => "the pool has no buffer of this number",
            },
        }
    }

    /// The memory of all buffers, taken or not: buffer `i` begins at byte `i * stride`. What it holds of a
    /// buffer that is in flight may change at any moment.
    pub fn memory(&self) -> &DmaChunk {
        &self.inner().chunk
    }

    /// Copies from byte `offset` of [`DmaPool::memory`] on. [`Error::OutOfBounds`] beyond its end.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        self.inner().chunk.read(offset, to)
    }

    /// Copies to byte `offset` of [`DmaPool::memory`]. [`Error::OutOfBounds`] beyond its end.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        self.inner().chunk.write(offset, from)
    }
}

impl fmt::Debug for DmaPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaPool({} x {} at {:#x})", self.count(), self.stride(), self.inner().addr)
    }
}

/// A buffer of a pool, taken: it goes back when it is dropped, and keeps the pool's memory until then.
///
/// One pointer; moving it, into a ring and out again, costs no atomic. A ring that it is given to owns it until
/// the device returns it, so that no safe call reaches it meanwhile.
pub struct DmaBuf(NonNull<Record>);

// SAFETY: the record is reached through atomics and immutable fields, and the pool behind it is `Send + Sync`.
unsafe impl Send for DmaBuf {}
// SAFETY: as above; `&DmaBuf` changes nothing but payload, by copies that races cannot make unsound.
unsafe impl Sync for DmaBuf {}

impl DmaBuf {
    #[inline(always)]
    fn record(&self) -> &Record {
        // SAFETY: the record is part of the pool, which this lease keeps.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn inner(&self) -> &Inner {
        // SAFETY: this lease keeps the pool.
        unsafe { self.record().pool.as_ref() }
    }

    /// A whole chunk as one buffer. [`Error::Misuse`] where it is longer than a descriptor can say (2^32 − 1
    /// bytes).
    pub fn whole(chunk: DmaChunk) -> Result<Self> {
        match u32::try_from(chunk.len()) {
            Ok(stride) => DmaPool::over(chunk, stride)?.take(),
            Err(_) => Err(Error::Misuse { what: "a buffer has fewer than 2^32 bytes: use several" }),
        }
    }

    /// Length in bytes that a ring will give to the device.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // Relaxed: only the lease itself writes it, and it moves between threads with what orders that.
        self.record().len.load(Ordering::Relaxed)
    }

    /// Whether the length was set to nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it has room for: the most that its length can be.
    pub fn capacity(&self) -> u32 {
        self.inner().stride
    }

    /// Number of the buffer in its pool.
    pub fn index(&self) -> u32 {
        self.record().index
    }

    /// Address of the first byte as the device knows it.
    #[inline]
    pub fn device_addr(&self) -> u64 {
        self.record().addr
    }

    /// Address of the first byte in this process; see [`DmaRegion::as_ptr`].
    pub fn as_ptr(&self) -> *mut u8 {
        self.record().start
    }

    /// The region that it lies in.
    pub fn region(&self) -> &Arc<DmaRegion> {
        self.inner().chunk.region()
    }

    /// The pool that it belongs to.
    pub fn pool(&self) -> DmaPool {
        self.inner().slots.cells().hold();
        DmaPool(self.record().pool)
    }

    /// [`DmaSpace::id`] of the space that it comes from: only that space's device can reach it.
    #[inline]
    pub fn space_id(&self) -> u64 {
        self.record().space
    }

    /// Sets the length. [`Error::OutOfBounds`] above the capacity.
    #[inline]
    pub fn set_len(&mut self, len: u32) -> Result<()> {
        if len > self.inner().stride {
            let size = u64::from(self.inner().stride);
            return Err(Error::OutOfBounds { offset: 0, len: u64::from(len), size });
        }
        self.record().len.store(len, Ordering::Relaxed);
        Ok(())
    }

    /// Makes it at most `len` bytes long.
    pub fn truncate(&mut self, len: u32) {
        self.record().len.store(self.len().min(len), Ordering::Relaxed);
    }

    /// Where it begins in its pool. Cannot overflow: the pool lies in memory.
    #[inline]
    fn start(&self) -> usize {
        (self.index() as usize).wrapping_mul(self.inner().stride as usize)
    }

    /// Copies from `offset` on into `to`. [`Error::OutOfBounds`] beyond the length.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        within(offset, to.len(), self.len() as usize)?;
        // SAFETY: the slot has at least `len` bytes, and its chunk stays mapped as long as the pool, which this lease
        // keeps; payload is reached by copies and by the device alone.
        unsafe { copy::copy_from_shared(to, self.record().start.wrapping_add(offset)) };
        Ok(())
    }

    /// Copies `from` to `offset`. [`Error::OutOfBounds`] beyond the length; then nothing is written.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        within(offset, from.len(), self.len() as usize)?;
        // SAFETY: as in `read`.
        unsafe { copy::copy_to_shared(self.record().start.wrapping_add(offset), from) };
        Ok(())
    }

    /// Sets all its bytes, to its length, to `value`.
    pub fn fill(&self, value: u8) -> Result<()> {
        self.inner().chunk.fill(self.start(), self.len() as usize, value)
    }

    /// A copy of its bytes, to its length.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len() as usize];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

// SAFETY: the slot is this value's until it is dropped, and the pool holds the chunk, which holds the region, so
// that the memory is neither unmapped from this process nor given out again. The region leaves the device's
// reach only by `DmaSpace::close`, for a device that was proven to have stopped. Address and length change
// through `&mut` alone, which a ring that owns the value does not give out.
unsafe impl Lease for DmaBuf {
    #[inline(always)]
    fn device_addr(&self) -> u64 {
        DmaBuf::device_addr(self)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        DmaBuf::len(self)
    }

    #[inline(always)]
    fn space(&self) -> Option<u64> {
        Some(self.space_id())
    }
}

impl Drop for DmaBuf {
    #[inline]
    fn drop(&mut self) {
        let Record { pool, index, .. } = *self.record();
        if self.inner().slots.cells().give(index) {
            // SAFETY: a pool's own; the answer was that nobody keeps it, and neither is it used below.
            unsafe { Inner::end(pool) };
        }
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuf({:#x}+{:#x})", self.device_addr(), self.len())
    }
}
