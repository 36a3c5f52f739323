//! Cells for loom: its atomics, found again by offset and width, so that both ends of a ring share them.

use alloc::vec::Vec;
use core::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The cells that were carved so far. The lock is std's: carving is set-up, not part of a model.
pub(super) struct Inner {
    pub(super) len: usize,
    pub(super) device_addr: u64,
    carved: Mutex<Vec<Carved>>,
}

/// An array of cells: its place in bytes, its kind, its atomics.
struct Carved {
    at: usize,
    len: usize,
    kind: &'static str,
    array: Arc<dyn Any + Send + Sync>,
}

impl Inner {
    pub(super) fn new(len: usize, device_addr: u64) -> Self {
        Self { len, device_addr, carved: Mutex::default() }
    }

    /// The array that covers `len` bytes at `offset`, and how many bytes into it they start; made where there is
    /// none. A device finds an indirect table inside the driver's array of tables.
    fn carve<T: Send + Sync + 'static>(
        &self,
        offset: usize,
        len: usize,
        kind: &'static str,
        make: impl FnOnce() -> Vec<T>,
    ) -> (Arc<Vec<T>>, usize) {
        let mut carved = self.carved.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset + len;
        let around = carved
            .iter()
            .find(|carved| carved.kind == kind && carved.at <= offset && end <= carved.at + carved.len);
        let (array, at) = match around {
            Some(found) => (found.array.clone(), found.at),
            None => {
                let array: Arc<dyn Any + Send + Sync> = Arc::new(make());
                carved.push(Carved { at: offset, len, kind, array: array.clone() });
                (array, offset)
            }
        };
        drop(carved);
        (array.downcast().unwrap_or_else(|_| Arc::new(Vec::new())), offset - at)
    }
}

/// Loom's atomics are made with zero in them, and a model sets a ring up once.
pub(super) fn zero(_inner: &Inner, _offset: usize, _len: usize) {}

/// Borrowed cells.
pub(super) type View<'a, C> = &'a C;

/// The cells, borrowed.
pub(super) fn view<C>(cells: &C) -> View<'_, C> {
    cells
}

macro_rules! model_cells {
    ($name:ident, $atomic:ty, $word:ty, $per:expr) => {
        #[derive(Clone)]
        pub(super) struct $name {
            array: Arc<Vec<$atomic>>,
            /// The first atomic of these cells.
            first: usize,
        }

        impl $name {
            pub(super) fn new(inner: &Inner, offset: usize, count: usize) -> Self {
                let make = || (0..count * $per).map(|_| <$atomic>::new(0)).collect();
                let (width, kind) = (size_of::<$word>(), stringify!($name));
                let (array, skipped) = inner.carve(offset, count * $per * width, kind, make);
                Self { array, first: skipped / width }
            }
        }
    };
}

model_cells!(Cells16, AtomicU16, u16, 1);
model_cells!(Pairs32, AtomicU32, u32, 2);
model_cells!(Pairs64, AtomicU64, u64, 2);

impl Cells16 {
    pub(super) fn load(&self, index: usize, order: Ordering) -> u16 {
        self.array[self.first + index].load(order)
    }

    pub(super) fn store(&self, index: usize, value: u16, order: Ordering) {
        self.array[self.first + index].store(value, order);
    }
}

macro_rules! pair_access {
    ($name:ident, $word:ty) => {
        impl $name {
            pub(super) fn load(&self, index: usize, order: Ordering) -> ($word, $word) {
                (
                    self.array[self.first + index * 2].load(order),
                    self.array[self.first + index * 2 + 1].load(order),
                )
            }

            pub(super) fn store(&self, index: usize, value: ($word, $word), order: Ordering) {
                self.array[self.first + index * 2].store(value.0, order);
                self.array[self.first + index * 2 + 1].store(value.1, order);
            }
        }
    };
}

pair_access!(Pairs32, u32);
pair_access!(Pairs64, u64);
