//! Cells over real memory.

use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use super::Owner;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The memory behind a handle.
pub(super) struct Inner {
    ptr: NonNull<u8>,
    pub(super) len: usize,
    pub(super) device_addr: u64,
    _owner: Option<Owner>,
}

// SAFETY: the memory is reached by atomic accesses only, which any thread may make; `_owner` is Send + Sync.
unsafe impl Send for Inner {}
// SAFETY: as above: a shared handle offers nothing but atomic accesses.
unsafe impl Sync for Inner {}

impl Inner {
    /// # Safety
    /// As [`super::RingMemory::from_raw`], alignment included.
    pub(super) unsafe fn new(ptr: NonNull<u8>, len: usize, device_addr: u64, owner: Option<Owner>) -> Self {
        Self { ptr, len, device_addr, _owner: owner }
    }

    /// Address of byte `offset`.
    ///
    /// # Safety
    /// `offset` is at most the length.
    unsafe fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: the caller keeps `offset` inside the allocation that `from_raw` was promised.
        unsafe { self.ptr.add(offset) }
    }
}

/// Zeroes 16-bit cells; bounds and alignment were checked by the caller in this module's parent.
pub(super) fn zero(inner: &Inner, offset: usize, len: usize) {
    for at in (offset..offset.saturating_add(len)).step_by(2) {
        // SAFETY: `RingMemory::zero` checked that `offset + len` is inside and the offset even.
        let cell = unsafe { inner.at(at) }.cast::<AtomicU16>();
        // SAFETY: in bounds and aligned (as above), alive through `inner`, shared only as atomics.
        unsafe { cell.as_ref() }.store(0, Ordering::Relaxed);
    }
}

/// Cells that are borrowed for `'a`, by value. The lifetime is what keeps the memory alive.
#[derive(Clone, Copy)]
pub(super) struct View<'a, C>(C, PhantomData<&'a C>);

/// The cells, borrowed.
#[inline(always)]
pub(super) fn view<C: Copy>(cells: &C) -> View<'_, C> {
    View(*cells, PhantomData)
}

impl<C> Deref for View<'_, C> {
    type Target = C;

    #[inline(always)]
    fn deref(&self) -> &C {
        &self.0
    }
}

/// Declares an array of cells of `$width` atomics of type `$atomic` each.
macro_rules! raw_cells {
    ($name:ident, $atomic:ty) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name(NonNull<$atomic>);

        // SAFETY: a pointer to atomics, which any thread may use; the parent keeps the memory alive.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            /// # Safety
            /// The cells from `offset` on lie inside `inner`, are aligned for the atomic, and the memory
            /// outlives the value.
            pub(super) unsafe fn new(inner: &Inner, offset: usize, _count: usize) -> Self {
                // SAFETY: the caller checked that the cells, and so `offset`, are inside.
                Self(unsafe { inner.at(offset) }.cast())
            }

            /// The atomic number `index`. In bounds because every caller in the parent masks its index by the
            /// length that was checked against the memory.
            #[inline(always)]
            fn cell(&self, index: usize) -> &$atomic {
                // SAFETY: in bounds, as said above.
                let cell = unsafe { self.0.add(index) };
                // SAFETY: aligned and alive by the contract of `new`; every access of this process is atomic
                // by the contract of `RingMemory::from_raw`.
                unsafe { cell.as_ref() }
            }
        }
    };
}

raw_cells!(Cells16, AtomicU16);
raw_cells!(Pairs32, AtomicU32);
raw_cells!(Pairs64, AtomicU64);

impl Cells16 {
    #[inline(always)]
    pub(super) fn load(&self, index: usize, order: Ordering) -> u16 {
        self.cell(index).load(order)
    }

    #[inline(always)]
    pub(super) fn store(&self, index: usize, value: u16, order: Ordering) {
        self.cell(index).store(value, order);
    }
}

/// A pair is two neighbouring atomics.
macro_rules! pair_access {
    ($name:ident, $word:ty) => {
        impl $name {
            #[inline(always)]
            pub(super) fn load(&self, index: usize, order: Ordering) -> ($word, $word) {
                let first = index << 1;
                (self.cell(first).load(order), self.cell(first | 1).load(order))
            }

            #[inline(always)]
            pub(super) fn store(&self, index: usize, value: ($word, $word), order: Ordering) {
                let first = index << 1;
                self.cell(first).store(value.0, order);
                self.cell(first | 1).store(value.1, order);
            }
        }
    };
}

pair_access!(Pairs32, u32);
pair_access!(Pairs64, u64);

impl Pairs64 {
    /// `half` is 0 or 1.
    #[inline(always)]
    pub(super) fn store_half(&self, index: usize, half: usize, value: u64, order: Ordering) {
        self.cell(index << 1 | (half & 1)).store(value, order);
    }
}
