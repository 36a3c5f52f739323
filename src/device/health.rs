//! What a device's queues must know of it: whether it runs, and how that ended.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::sync::PoisonError;

use crate::event::{EventFd, WeakEventFd};
use crate::mem::quarantine::StoppedProof;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// In which condition the device is, as far as its queues are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// Shared by a device and the queues of one of its lives (from one reset to the next).
///
/// A change of condition wakes every queue. Any thread may call.
pub struct Health {
    state: Mutex<State>,
}

struct State {
    condition: Condition,
    wakers: Vec<WeakEventFd>,
    /// With [`Condition::Stopped`]: what lets queues give their buffers back.
    proof: Option<Arc<StoppedProof>>,
}

impl Health {
    pub(super) fn new() -> Arc<Self> {
        let state = State { condition: Condition::Ready, wakers: Vec::new(), proof: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The condition now.
    pub fn condition(&self) -> Condition {
        self.lock().condition
    }

    /// Ok while the device runs or is about to; else the error that every call on its queues gives.
    pub fn check(&self) -> Result<()> {
        match self.condition() {
            Condition::Ready | Condition::Running => Ok(()),
            Condition::NeedsReset => Err(Error::DeviceNeedsReset),
            Condition::Gone => {
                Err(Error::DeviceGone { what: "it was removed or its registers read all ones" })
            }
            Condition::Stopped | Condition::Closed => Err(Error::Closed { what: "queue" }),
        }
    }

    /// The proof that the device has stopped, where there is one.
    pub(super) fn proof(&self) -> Option<Arc<StoppedProof>> {
        self.lock().proof.clone()
    }

    /// Has `waker` signalled at every change of condition.
    pub(super) fn add_waker(&self, waker: &EventFd) {
        let mut state = self.lock();
        state.wakers.retain(|known| known.upgrade().is_some());
        state.wakers.push(waker.downgrade());
    }

    /// Moves on to `condition`, unless the device has stopped or was closed already, and wakes everybody.
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
            if state.condition == Condition::Stopped || state.condition == condition {
                return;
            }
            state.condition = condition;
            state.proof = proof;
            state.wakers.clone()
        };
        for waker in wakers.iter().filter_map(WeakEventFd::upgrade) {
            if let Err(error) = waker.signal() {
                log::error!("a queue could not be woken: {error}");
            }
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health({:?})", self.condition())
    }
}
