//! Whether a queue's device has given back all that it was given: what counts where a reset does not end its use of
//! memory by itself ([`Transport::needs_draining`](crate::transport::Transport::needs_draining)).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, Ordering};
use core::time::Duration;
use std::thread;

use crate::Result;
use crate::event::Deadline;
use crate::mem::cell::{Cells16, RingMemory};
use crate::queue::Areas;
use crate::spec::ByteOrder;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// One queue's books, kept beside the queue since that may be anywhere, or gone.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Number of chains that were shown to the device, modulo 2^16; never behind what the device can see.
    shown: AtomicU16,
    /// The ring's used area.
    used: Cells16,
    order: ByteOrder,
}

/// Where the used index lies in the used area, in 16-bit words (VIRTIO 1.4 §2.7.8).
const INDEX: usize = 1;

impl Gauge {
    pub(super) fn new(memory: &RingMemory, areas: &Areas, order: ByteOrder) -> Result<Arc<Self>> {
        let used = Cells16::new(memory, areas.device, 2)?;
        Ok(Arc::new(Self { shown: AtomicU16::new(0), used, order }))
    }

    /// Before the chains up to `next` are shown.
    #[inline]
    pub(super) fn show(&self, next: u16) {
        // The store of the available index, which follows, is a release: who was told of it by the device finds
        // this as well.
        self.shown.store(next, Ordering::Release);
    }

    /// Whether the device has given all of them back. A device that says so falsely could as well return every chain
    /// at once: it is believed as far as the ring believes it.
    fn is_empty(&self) -> bool {
        let used = self.order.u16(self.used.load(INDEX, Ordering::Acquire));
        used == self.shown.load(Ordering::Acquire)
    }
}

/// Waits until all are empty, at most until `deadline` and while `there` says that the device is; `false` then.
pub(super) fn drain(gauges: &[Arc<Gauge>], deadline: Deadline, there: impl Fn() -> bool) -> bool {
    loop {
        if gauges.iter().all(|gauge| gauge.is_empty()) {
            return true;
        }
        if deadline.passed() || !there() {
            return false;
        }
        thread::sleep(PAUSE);
    }
}
