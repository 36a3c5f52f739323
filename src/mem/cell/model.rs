//! Cells for loom: its atomics, found again by offset and width, so that both ends of a ring share them.

use alloc::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The words that were carved so far, by offset and width: an array that lies in another one, as an indirect
/// table lies in the memory of all tables, finds the same words. The lock is std's: carving is set-up, not part
/// of a model.
pub(super) struct Inner {
    pub(super) len: usize,
    pub(super) device_addr: u64,
    carved: Mutex<BTreeMap<(usize, usize), Arc<dyn core::any::Any + Send + Sync>>>,
}

impl Inner {
    pub(super) fn new(len: usize, device_addr: u64) -> Self {
        Self { len, device_addr, carved: Mutex::default() }
    }

    fn carve<T: Send + Sync + 'static>(
        &self,
        offset: usize,
        count: usize,
        width: usize,
        make: impl Fn() -> T,
    ) -> Arc<[Arc<T>]> {
        let mut carved = self.carved.lock().unwrap_or_else(PoisonError::into_inner);
        let words = (0..count).filter_map(|n| {
            let word = carved.entry((offset + n * width, width)).or_insert_with(|| Arc::new(make()));
            word.clone().downcast().ok()
        });
        words.collect()
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

/// `$per` words of type `$atomic`, `$width` bytes each, to a cell.
macro_rules! model_cells {
    ($name:ident, $atomic:ty, $width:expr, $per:expr) => {
        #[derive(Clone)]
        pub(super) struct $name(Arc<[Arc<$atomic>]>);

        impl $name {
            pub(super) fn new(inner: &Inner, offset: usize, count: usize) -> Self {
                Self(inner.carve(offset, count * $per, $width, || <$atomic>::new(0)))
            }
        }
    };
}

model_cells!(Cells16, AtomicU16, 2, 1);
model_cells!(Pairs32, AtomicU32, 4, 2);
model_cells!(Pairs64, AtomicU64, 8, 2);

impl Cells16 {
    pub(super) fn load(&self, index: usize, order: Ordering) -> u16 {
        self.0[index].load(order)
    }

    pub(super) fn store(&self, index: usize, value: u16, order: Ordering) {
        self.0[index].store(value, order);
    }
}

macro_rules! pair_access {
    ($name:ident, $word:ty) => {
        impl $name {
            pub(super) fn load(&self, index: usize, order: Ordering) -> ($word, $word) {
                (self.0[index * 2].load(order), self.0[index * 2 + 1].load(order))
            }

            pub(super) fn store(&self, index: usize, value: ($word, $word), order: Ordering) {
                self.0[index * 2].store(value.0, order);
                self.0[index * 2 + 1].store(value.1, order);
            }
        }
    };
}

pair_access!(Pairs32, u32);
pair_access!(Pairs64, u64);

impl Pairs64 {
    pub(super) fn store_half(&self, index: usize, half: usize, value: u64, order: Ordering) {
        self.0[index * 2 + half].store(value, order);
    }
}
