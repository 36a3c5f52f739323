//! Where rings go that have no queue any more.

use alloc::sync::Arc;

use super::health::Health;
use crate::mem::lease::Lease;
use crate::queue::Ring;

/// A ring without a queue. A drop takes the buffers in flight out of it, if the device was proven to have stopped;
/// else the ring forgets them.
pub(super) struct Shelved<B: Lease> {
    pub(super) ring: Ring<B>,
    pub(super) health: Arc<Health>,
}

impl<B: Lease> Drop for Shelved<B> {
    fn drop(&mut self) {
        if let Some(proof) = self.health.proof()
            && let Err(error) = self.ring.reset(&proof.for_rings(), |_, _| {})
        {
            log::error!("queue {} could not be cleared: {error}", self.ring.queue());
        }
    }
}
