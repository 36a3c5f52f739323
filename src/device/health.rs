//! What a device's queues must know of it: whether it runs, and how that ended.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::PoisonError;

use crate::event::{EventFd, WeakEventFd};
use crate::mem::process::Process;
use crate::mem::quarantine::StoppedProof;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// In which condition the device is, as far as its queues are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// Set up, not started (before DRIVER_OK): nothing may be notified.
    Ready,
    /// Running.
    Running,
    /// The device asks for a reset (fault C3).
    NeedsReset,
    /// The device does not answer any more (faults C2, C30, D23).
    Gone,
    /// The device was reset, and the reset was confirmed: what was in flight will not be completed.
    Stopped,
    /// Closed without a confirmed reset: what was in flight stays quarantined.
    Closed,
    /// About to be reset: takes no more requests, completes those that it has.
    Draining,
    /// The asking process is not the device's, but a fork's child: it has nothing of it (fault M6).
    Forked,
}

/// Shared by a device and the queues of one of its lives (from one reset to the next).
///
/// A change of condition wakes every queue. Any thread may call.
pub struct Health {
    /// What every call on a queue looks at: a [`Condition`] as a number. Written under the lock.
    condition: AtomicU8,
    state: Mutex<State>,
    owner: Process,
}

struct State {
    wakers: Vec<WeakEventFd>,
    /// With [`Condition::Stopped`]: what lets queues give their buffers back.
    proof: Option<Arc<StoppedProof>>,
}

impl Health {
    pub(super) fn new() -> Arc<Self> {
        let state = State { wakers: Vec::new(), proof: None };
        let condition = AtomicU8::new(Condition::Ready as u8);
        Arc::new(Self { condition, state: Mutex::new(state), owner: Process::current() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The condition now.
    #[inline]
    pub fn condition(&self) -> Condition {
        if !self.is_ours() {
            return Condition::Forked;
        }
        // Acquire: whoever sees the end of the device also sees the proof of it; pairs with `change`.
        match self.condition.load(Ordering::Acquire) {
            0 => Condition::Ready,
            1 => Condition::Running,
            2 => Condition::NeedsReset,
            3 => Condition::Gone,
            4 => Condition::Stopped,
            6 => Condition::Draining,
            _ => Condition::Closed,
        }
    }

    /// Ok while the device runs or is about to; else the error that every call on its queues gives.
    pub fn check(&self) -> Result<()> {
        match self.condition() {
            Condition::Ready | Condition::Running => Ok(()),
            Condition::NeedsReset => Err(Error::DeviceNeedsReset),
            Condition::Gone => {
                Err(Error::DeviceGone { what: "it was removed or its registers read all ones" })
            }
            Condition::Stopped | Condition::Closed | Condition::Draining => {
                Err(Error::Closed { what: "queue" })
            }
            Condition::Forked => self.check_process(),
        }
    }

    /// Whether the asking process is the device's.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.owner.is_current()
    }

    /// Fails with [`Error::ForkedProcess`] in a fork's child.
    #[inline]
    pub(super) fn check_process(&self) -> Result<()> {
        self.owner.check("queue")
    }

    /// The proof that the device has stopped, where there is one that this process can use.
    pub(super) fn proof(&self) -> Option<Arc<StoppedProof>> {
        // The lock of a fork's child may be held by nobody, for ever.
        if self.is_ours() { self.lock().proof.clone() } else { None }
    }

    /// Runs `keep` unless the device was proven to have stopped; no such proof comes while it runs, so that what
    /// it puts into quarantine is there when the proof empties that.
    pub(super) fn unless_stopped(&self, keep: impl FnOnce()) {
        let state = self.lock();
        if state.proof.is_none() {
            keep();
        }
    }

    /// Has `waker` signalled at every change of condition.
    pub(super) fn add_waker(&self, waker: &EventFd) {
        let mut state = self.lock();
        state.wakers.retain(|known| known.upgrade().is_some());
        state.wakers.push(waker.downgrade());
    }

    /// Moves on to `condition`, unless that would be a step back, and wakes everybody.
    pub(super) fn set(&self, condition: Condition) {
        self.change(condition, None);
    }

    /// The device was reset, and `proof` says so.
    pub(super) fn stopped(&self, proof: StoppedProof) {
        self.change(Condition::Stopped, Some(Arc::new(proof)));
    }

    fn change(&self, condition: Condition, proof: Option<Arc<StoppedProof>>) {
        let wakers = {
            let mut state = self.lock();
            let before = self.condition();
            if before == condition || !may_follow(before, condition) {
                return;
            }
            state.proof = proof;
            // Release: the proof before the condition; pairs with the acquire in `condition`.
            self.condition.store(condition as u8, Ordering::Release);
            state.wakers.clone()
        };
        for waker in wakers.iter().filter_map(WeakEventFd::upgrade) {
            if let Err(error) = waker.signal() {
                log::error!("a queue could not be woken: {error}");
            }
        }
    }
}

/// Whether `next` can come after `before`. What a late look at the device finds takes back no end: requests that
/// are to be told of theirs would wait for ever.
fn may_follow(before: Condition, next: Condition) -> bool {
    use Condition::{Closed, Gone, NeedsReset, Stopped};
    match before {
        Stopped => false,
        Closed => next == Stopped,
        Gone => matches!(next, Stopped | Closed),
        NeedsReset => matches!(next, Stopped | Closed | Gone),
        Condition::Draining => !matches!(next, Condition::Ready | Condition::Running),
        Condition::Ready | Condition::Running => true,
        Condition::Forked => false,
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health({:?})", self.condition())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::mem::dma::SoftDma;
    use crate::mem::space::DmaSpace;

    /// Forces the order in which a queue finds no proof, the device is proven to have stopped and its quarantine is
    /// emptied, and only then the queue's memory gets there: it would stay until the device's next reset.
    #[test]
    fn m2_what_goes_into_quarantine_during_the_devices_stop_comes_out_by_it() {
        let space = DmaSpace::new(Arc::new(SoftDma::new()));
        let health = Health::new();
        let (looked, look) = channel();
        let (stopped, stop) = channel();
        thread::scope(|scope| {
            let (space, health) = (&space, &health);
            scope.spawn(move || {
                health.unless_stopped(|| {
                    looked.send(()).unwrap();
                    // Comes only where the stop does not wait for this.
                    let _ = stop.recv_timeout(Duration::from_millis(100));
                    space.quarantine().hold((), 1);
                });
            });
            look.recv().unwrap();
            health.stopped(StoppedProof::confirmed(space));
            space.quarantine().release(&StoppedProof::confirmed(space)).unwrap();
            let _ = stopped.send(());
        });
        assert_eq!(space.quarantine().tally().count, 0);
        let mut kept = false;
        health.unless_stopped(|| kept = true);
        assert!(!kept, "with the proof, nothing is kept");
    }
}
