//! Shared cells: single values in memory that a device reads and writes.
//!
//! A ring's structures are arrays of 16-, 32- and 64-bit fields in memory that the caller provides
//! ([`RingMemory`]). They are reached only through the types of this module: atomic accesses of the field's
//! own width, never a reference to the memory as plain data (`no-shared-refs`). An index is taken modulo the
//! length of the array, as the specification's ring indices are, so that no access can leave it and none
//! needs a branch.
//!
//! Values are as they lie in memory; byte order is the caller's concern.
//!
//! Under `--cfg loom` the cells are loom's atomics, found again by offset and width, and there is no memory
//! behind them.
#![expect(unsafe_code, reason = "the one place where ring memory is turned into atomic cells")]

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use crate::sync::Ordering;
use crate::{Error, Result};

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod raw;

#[cfg(loom)]
use model as imp;
#[cfg(not(loom))]
use raw as imp;

/// Alignment that ring memory needs: that of a descriptor table (VIRTIO 1.4 §2.7).
pub const RING_ALIGN: usize = 16;

/// Memory for the structures of rings: where it is for us, how long it is, and where it is for the device.
///
/// A clone is another handle on the same memory. The memory lives at least as long as any handle or cell.
#[derive(Clone)]
pub struct RingMemory(Arc<imp::Inner>);

/// What keeps ring memory alive.
pub type Owner = Arc<dyn Any + Send + Sync>;

impl RingMemory {
    /// Over `len` bytes at `ptr`, which the device knows as `device_addr`.
    ///
    /// # Safety
    /// - `ptr` is valid for reads and writes of `len` bytes, and stays so until the last handle and cell made
    ///   of the result is dropped; where `owner` is given, keeping it alive must be enough for that;
    /// - while they live, this process reaches the memory by atomic or volatile accesses, or through this
    ///   crate, only (another process or a device may do as it likes);
    /// - `ptr` has an alignment of [`RING_ALIGN`] (checked: `Misuse`).
    #[cfg(not(loom))]
    pub unsafe fn from_raw(
        ptr: core::ptr::NonNull<u8>,
        len: usize,
        device_addr: u64,
        owner: Option<Owner>,
    ) -> Result<Self> {
        if ptr.as_ptr().align_offset(RING_ALIGN) != 0 {
            return Err(Error::Misuse { what: "ring memory must be aligned to 16 bytes" });
        }
        // SAFETY: validity and sharing are this function's own contract, alignment was just checked.
        let inner = unsafe { imp::Inner::new(ptr, len, device_addr, owner) };
        Ok(Self(Arc::new(inner)))
    }

    /// Memory of `len` bytes made of loom's cells.
    #[cfg(loom)]
    pub fn model(len: usize, device_addr: u64) -> Self {
        Self(Arc::new(imp::Inner::new(len, device_addr)))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Where the device finds the first byte.
    pub fn device_addr(&self) -> u64 {
        self.0.device_addr
    }

    /// Whether the bytes `offset..offset + len` lie inside and `offset` is a multiple of `align`.
    fn check(&self, offset: usize, len: Option<usize>, align: usize) -> Result {
        let end = len.and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > self.0.len) {
            return Err(Error::Misuse { what: "the ring does not fit into the memory given for it" });
        }
        if !offset.is_multiple_of(align) {
            return Err(Error::Misuse {
                what: "a ring structure is not aligned as the specification demands",
            });
        }
        Ok(())
    }

    /// Writes zeroes over `len` bytes at `offset` (both multiples of 2).
    pub fn zero(&self, offset: usize, len: usize) -> Result {
        self.check(offset, Some(len), 2)?;
        imp::zero(&self.0, offset, len);
        Ok(())
    }
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingMemory({} bytes at {:#x})", self.0.len, self.0.device_addr)
    }
}

/// Declares an array of shared cells. `$item` is what one load gives; `$align` is what the field needs.
macro_rules! cells {
    ($(#[$doc:meta])* $name:ident, $item:ty, $size:expr, $align:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            cells: imp::$name,
            /// Length minus one: the length is a power of two.
            mask: usize,
            /// Keeps the memory behind `cells`.
            _memory: RingMemory,
        }

        impl $name {
            /// `count` cells (a power of two) from `offset` of `memory`. [`Error::Misuse`] where they do not
            /// fit, are not aligned, or `count` is not a power of two.
            ///
            /// For this crate only: the structures of one ring do not overlap, so that no memory is ever
            /// reached by atomics of two widths.
            pub(crate) fn new(memory: &RingMemory, offset: usize, count: usize) -> Result<Self> {
                memory.check(offset, count.checked_mul($size), $align)?;
                if !count.is_power_of_two() {
                    return Err(Error::Misuse { what: "an array of cells needs a power of two as its length" });
                }
                // SAFETY: bounds and alignment were checked; `_memory` below keeps the memory alive for as
                // long as the cells.
                #[cfg_attr(loom, allow(unused_unsafe))]
                let cells = unsafe { imp::$name::new(&memory.0, offset, count) };
                Ok(Self { cells, mask: count.wrapping_sub(1), _memory: memory.clone() })
            }

            /// Number of cells.
            #[expect(clippy::len_without_is_empty, reason = "a power of two is never zero")]
            pub fn len(&self) -> usize {
                self.mask.wrapping_add(1)
            }

            /// Loads cell `index` modulo the length.
            #[inline(always)]
            pub fn load(&self, index: usize, order: Ordering) -> $item {
                self.cells.load(index & self.mask, order)
            }

            /// Stores into cell `index` modulo the length.
            #[inline(always)]
            pub fn store(&self, index: usize, value: $item, order: Ordering) {
                self.cells.store(index & self.mask, value, order);
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "[{}]"), self.len())
            }
        }
    };
}

cells!(
    /// 16-bit fields: indices, flags, event indices and the available ring.
    Cells16,
    u16,
    2,
    2
);
cells!(
    /// Pairs of 32-bit fields, each loaded and stored on its own (first the first): used elements.
    ///
    /// An element of the used ring is aligned to 4 bytes only, so that it cannot be one access.
    Pairs32,
    (u32, u32),
    8,
    4
);
cells!(
    /// Pairs of 64-bit words, each loaded and stored on its own (first the first): descriptors.
    Pairs64,
    (u64, u64),
    16,
    16
);

/// A descriptor table or a part of one, borrowed and held by value: for loops, which would otherwise load pointer and
/// length anew after every atomic store.
#[derive(Clone, Copy)]
pub(crate) struct Pairs64View<'a> {
    cells: imp::View<'a, imp::Pairs64>,
    /// Number of its first cell.
    start: usize,
    /// Number of its cells. All lie in the table.
    len: usize,
}

/// One cell of a [`Pairs64View`].
#[derive(Clone, Copy)]
pub(crate) struct Pair64<'a> {
    cells: imp::View<'a, imp::Pairs64>,
    /// Below the table's length.
    index: usize,
}

impl Pairs64 {
    /// The table by value.
    #[inline(always)]
    pub(crate) fn view(&self) -> Pairs64View<'_> {
        Pairs64View { cells: imp::view(&self.cells), start: 0, len: self.len() }
    }
}

impl<'a> Pairs64View<'a> {
    /// Number of cells.
    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Cell `index`, if there is one: a caller that knows there is pays nothing for the question.
    #[inline(always)]
    pub(crate) fn cell(self, index: usize) -> Option<Pair64<'a>> {
        (index < self.len).then_some(Pair64 { cells: self.cells, index: self.start.wrapping_add(index) })
    }

    /// The `len` cells from `start` on, if there are so many.
    #[inline(always)]
    pub(crate) fn run(self, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= self.len).then_some(Self { start: self.start.wrapping_add(start), len, ..self })
    }
}

impl Pair64<'_> {
    /// Stores the first word.
    #[inline(always)]
    pub(crate) fn store_first(self, value: u64, order: Ordering) {
        self.cells.store_half(self.index, 0, value, order);
    }

    /// Stores the second word.
    #[inline(always)]
    pub(crate) fn store_second(self, value: u64, order: Ordering) {
        self.cells.store_half(self.index, 1, value, order);
    }
}
