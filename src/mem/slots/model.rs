//! The slots of a pool as a model sees them.
#![expect(unsafe_code, reason = "loads that the model checks to be alone")]

use super::Slots;

/// The slots of a pool without its memory, for `tests/loom_slots.rs`.
#[derive(Debug)]
pub struct ModelSlots(Slots);

impl ModelSlots {
    /// As many free slots.
    pub fn new(count: u32) -> Self {
        Self(Slots::new(count))
    }

    /// As [`crate::mem::pool::DmaPool::take`].
    pub fn take(&self) -> Option<u32> {
        self.0.take()
    }

    /// As [`crate::mem::pool::DmaPool::slot`].
    pub fn take_at(&self, index: u32) -> bool {
        self.0.take_at(index)
    }

    /// As dropping the buffer; answers whether the pool ends with that.
    pub fn give(&self, index: u32) -> bool {
        self.0.cells().give(index)
    }

    /// As cloning a pool.
    pub fn hold(&self) {
        self.0.cells().hold();
    }

    /// As dropping a pool; answers whether it ends with that.
    pub fn let_go(&self) -> bool {
        self.0.cells().let_go()
    }

    /// As the end of the pool: nobody may change anything any more, and all that was changed is seen. Who only looks is not
    /// found.
    ///
    /// # Panics
    /// In the model, where one that is not ordered before this changes anything.
    pub fn end(&self) {
        let Slots { head, below, state, holders } = &self.0;
        // SAFETY: the model itself looks for whoever changes them meanwhile.
        unsafe { head.0.unsync_load() };
        // SAFETY: as above.
        unsafe { holders.unsync_load() };
        for (below, state) in below.iter().zip(state) {
            // SAFETY: as above.
            unsafe { below.unsync_load() };
            // SAFETY: as above.
            unsafe { state.unsync_load() };
        }
    }
}
