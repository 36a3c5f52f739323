//! What of a queue can be used without holding it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd};

use crate::Result;
use crate::bus::Doorbell;
use crate::device::health::Health;
use crate::device::interrupts::Wake;
use crate::device::lane::Port;
use crate::event::Deadline;

/// Sleep between looks at the ring of a queue that no interrupt announces.
const POLL_SLICE: Duration = Duration::from_millis(1);

/// Sleeps of a polled queue between looks at its device: about as often as a queue with interrupts looks.
const POLLS_PER_LOOK: u32 = 50;

/// Doorbell and event of a queue: what can be used without holding the queue.
#[derive(Debug)]
pub struct QueuePort {
    pub(super) doorbell: Doorbell,
    pub(super) id: u16,
    pub(super) wake: Wake,
    pub(super) interrupts: bool,
    /// Sleeps of a polled queue that brought nothing.
    pub(super) idle: AtomicU32,
    pub(super) health: Arc<Health>,
}

impl QueuePort {
    /// Whether the device announces used buffers; else the queue has to be looked at.
    pub fn announces(&self) -> bool {
        self.interrupts
    }

    /// Takes the signals of [`QueuePort::as_fd`] away, and passes on those that concern others.
    pub fn clear(&self) -> Result<()> {
        self.usable()?;
        self.wake.clear()
    }
}

impl AsFd for QueuePort {
    /// As [`super::Queue`]'s, for as long as the value lives.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Port for QueuePort {
    /// Sends the notification that the ring said is wanted.
    #[inline]
    fn ring(&self) -> Result<()> {
        self.doorbell.ring(self.id.into())
    }

    fn sleep(&self, limit: Duration) -> Result<()> {
        let limit = if self.interrupts { limit } else { limit.min(POLL_SLICE) };
        let woken = self.wake.wait(Deadline::after(limit))?;
        // A device that was removed, or cannot interrupt, tells nobody: waits without an end would not see it.
        if !woken && (self.interrupts || self.idle.fetch_add(1, Relaxed).is_multiple_of(POLLS_PER_LOOK)) {
            self.wake.ask();
        }
        Ok(())
    }

    fn wake(&self) {
        if let Err(error) = self.wake.own().signal() {
            log::error!("a waiter could not be woken: {error}");
        }
    }

    fn ask(&self) {
        self.wake.ask();
    }

    #[inline]
    fn usable(&self) -> Result<()> {
        self.health.check_process()
    }
}
