//! The end of one queue: with its device, or before it.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::PoisonError;

use super::Queue;
use crate::device::health::{Condition, Health};
use crate::device::life::{Life, Phase};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::lease::Lease;
use crate::mem::space::DmaSpace;
use crate::queue::Ring;
use crate::sync::Mutex;
use crate::transport::Transport;
use crate::{Error, Result};

/// What a queue needs of its device at its end.
#[derive(Debug)]
pub(in crate::device) struct Home {
    pub(in crate::device) transport: Arc<dyn Transport>,
    pub(in crate::device) life: Arc<Mutex<Life>>,
    pub(in crate::device) health: Arc<Health>,
    pub(in crate::device) space: DmaSpace,
    /// Limit on the wait for the reset of a queue.
    pub(in crate::device) patience: Duration,
}

impl Home {
    /// Takes queue `index` from the running device, where RING_RESET was negotiated (VIRTIO 1.4 §2.6.1); answers
    /// whether the device has let it go, so that it can be set up again. One that says so and keeps the queue
    /// enabled has not (fault C28).
    fn release(&self, index: u16) -> Result<bool> {
        if self.health.condition() != Condition::Running {
            return Ok(false);
        }
        // Held over the reset, so that it meets no queue of the device's next life.
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let resets = life.negotiated.as_ref().is_some_and(|all| all.contains(Features::RING_RESET));
        if !Arc::ptr_eq(&life.health, &self.health) || life.phase != Phase::Running || !resets {
            return Ok(false);
        }
        match self.transport.reset_queue(index, Deadline::after(self.patience)) {
            Ok(()) => {
                life.queues.retain(|&taken| taken != index);
                life.released.push(index);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), Error::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error.at(self.transport.address())),
        }
    }

    /// The end of a ring. Its memory goes home if the device was proven to have stopped, or has nothing of it and
    /// has `released` it; else it is kept until the one is so. A reset of the queue is no proof for what was in
    /// flight: devices were seen to write such buffers a second later.
    pub(super) fn put_away<B: Lease + Send + 'static>(&self, ring: Ring<B>, released: bool) {
        if !self.health.is_ours() || (released && ring.tokens().next().is_none()) {
            return drop(ring);
        }
        let bytes = u64::try_from(ring.memory().len()).unwrap_or(u64::MAX);
        let mut shelved = Some(Shelved { ring, health: Arc::clone(&self.health) });
        self.health.unless_stopped(|| {
            if let Some(shelved) = shelved.take() {
                self.space.quarantine().hold(shelved, bytes);
            }
        });
    }
}

/// A ring without a queue. A drop takes the buffers in flight out of it, if the device was proven to have stopped;
/// else the ring forgets them.
struct Shelved<B: Lease> {
    ring: Ring<B>,
    health: Arc<Health>,
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

impl<B: Lease + Send + 'static> Queue<B> {
    /// Ends the queue before its device: takes and drops completions until nothing is in flight, at most until
    /// `deadline`, and takes the queue from the device where RING_RESET was negotiated (VIRTIO 1.4 §2.6.1).
    /// Answers whether [`super::super::Device::take_queue`] can set it up again; without the feature, or behind a
    /// device that does not do what it says (fault C28), that needs a reset of the device.
    ///
    /// From then on the queue answers each request that was not completed once, as [`Error::Indeterminate`], and
    /// then [`Error::Closed`]. The memory of such requests is kept until the device's next confirmed reset. A
    /// drop does the same, without the wait for what is in flight.
    ///
    /// # Errors
    /// [`Error::Timeout`] where the reset of the queue takes longer than the device's control time-out: it is
    /// closed all the same. Before that, whatever [`Queue::get`] gives of a device that has ended.
    pub fn close(&mut self, deadline: Deadline) -> Result<bool> {
        while self.outstanding() != 0 {
            match self.get_with(deadline, || Ok(())) {
                Ok(used) => drop(used),
                Err(error) if matches!(error.kind(), Error::Timeout { .. } | Error::Broken { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        self.health.check()?;
        let ring = self.ring.take().ok_or(Error::Closed { what: "queue" })?;
        self.counters = ring.counters();
        self.ended.extend(ring.tokens());
        let released = self.home.release(self.index);
        self.home.put_away(ring, matches!(released, Ok(true)));
        released
    }

    /// Ends the use of the queue, as dropping it does, for whoever has to keep the value. Every later call answers
    /// [`Error::Closed`], or what became of the device.
    pub fn end_use(&mut self) {
        let Some(ring) = self.ring.take() else { return };
        self.counters = ring.counters();
        let released = self.home.release(self.index).unwrap_or_else(|error| {
            log::warn!("queue {} was not reset: {error}", self.index);
            false
        });
        self.home.put_away(ring, released);
    }
}

impl<B: Lease + Send + 'static> Drop for Queue<B> {
    fn drop(&mut self) {
        self.end_use();
    }
}
