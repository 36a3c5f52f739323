//! Memory that a device may still write: kept until it is proven that the device does not.
//!
//! Only completion or a confirmed device reset ends a device's hold on a buffer. A time-out, a queue reset or
//! a closed connection proves nothing: devices were seen to write data buffers more than a second after such
//! an end. What was in flight goes here, and comes out with a [`StoppedProof`] only. Where none can be had,
//! it stays mapped for the life of the process, without a descriptor ([`kept`]).
#![expect(unsafe_code, reason = "that a device has stopped is declared, not computed")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lease::DeviceStopped;
use super::space::DmaSpace;
use crate::{Error, Result};

/// Says that the device of one [`DmaSpace`] reads and writes its memory no more.
///
/// The device layer makes it when a device was reset and reads status 0 (VIRTIO 1.4 §2.4), when an IOMMU
/// mapping was taken away, when the peer process is dead, or when the device never got an address of the
/// memory. It is good for the state of the device in which it was made: use it before the device is started
/// again.
#[derive(Debug)]
#[must_use = "the proof is what lets memory go"]
pub struct StoppedProof {
    space: u64,
}

impl StoppedProof {
    /// For the device layer, which has just confirmed it.
    pub(crate) fn confirmed(space: &DmaSpace) -> Self {
        Self { space: space.id() }
    }

    /// A proof by declaration, for device layers outside this crate.
    ///
    /// # Safety
    /// The device that `space` was made for neither reads nor writes its memory until the proof is dropped and
    /// every queue was set up anew.
    pub unsafe fn assume_stopped(space: &DmaSpace) -> Self {
        Self::confirmed(space)
    }

    /// The same, as the device's rings want it.
    pub fn for_rings(&self) -> DeviceStopped {
        // SAFETY: that the device has stopped is what this value stands for.
        unsafe { DeviceStopped::assume() }
    }

    pub(super) fn is_for(&self, space: u64) -> bool {
        self.space == space
    }
}

/// What one device has not been proven to have let go. Any thread may call.
///
/// Dropped with something in it, it hands that to the process-wide store ([`kept`]) and logs an error.
pub struct Quarantine {
    space: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    things: Vec<Box<dyn Any + Send>>,
    bytes: u64,
}

impl Held {
    fn push(&mut self, thing: Box<dyn Any + Send>, bytes: u64) {
        self.things.push(thing);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn tally(&self) -> Tally {
        Tally { count: self.things.len(), bytes: self.bytes }
    }
}

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Number of leases, chunks or regions.
    pub count: usize,
    /// Bytes of memory that they cover.
    pub bytes: u64,
}

/// What is kept for the life of the process. Statics are not dropped, so that this holds to the very end.
static KEPT: Mutex<Held> = Mutex::new(Held { things: Vec::new(), bytes: 0 });

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process keeps for ever because no device was proven to have let it go.
pub fn kept() -> Tally {
    lock(&KEPT).tally()
}

/// Keeps `thing` for the life of the process; the caller has logged why.
pub(super) fn keep_for_ever(thing: Box<dyn Any + Send>, bytes: u64) {
    lock(&KEPT).push(thing, bytes);
}

impl Quarantine {
    pub(super) fn new(space: u64) -> Self {
        Self { space, held: Mutex::default() }
    }

    /// Takes `thing` (a lease, a chunk, or many) that covers `bytes` bytes of the device's memory.
    pub fn hold(&self, thing: impl Any + Send, bytes: u64) {
        lock(&self.held).push(Box::new(thing), bytes);
    }

    /// Drops everything that is held, since the device was proven to have let it go; answers how much.
    /// [`Error::Misuse`] for another device's proof; nothing is dropped then.
    pub fn release(&self, proof: &StoppedProof) -> Result<Tally> {
        if !proof.is_for(self.space) {
            return Err(Error::Misuse { what: "the proof that a device stopped is another device's" });
        }
        let held = core::mem::take(&mut *lock(&self.held));
        // Outside the lock: what is dropped here may take locks of its own.
        Ok(held.tally())
    }

    /// How much is held.
    pub fn tally(&self) -> Tally {
        lock(&self.held).tally()
    }

    /// Drops everything, in the child of a fork: it holds copies of books, and no device.
    pub(super) fn discard(&self) {
        let held = core::mem::take(&mut *lock(&self.held));
        drop(held);
    }

    /// Moves everything to the process-wide store; answers how much.
    pub(super) fn abandon(&self) -> Tally {
        let held = core::mem::take(&mut *lock(&self.held));
        let tally = held.tally();
        let mut kept = lock(&KEPT);
        for thing in held.things {
            kept.push(thing, 0);
        }
        kept.bytes = kept.bytes.saturating_add(tally.bytes);
        tally
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        let tally = self.abandon();
        if tally.count > 0 {
            log::error!(
                "{} buffers ({} bytes) are kept for the life of the process: their device was not proven to \
                 have stopped; reset it before closing",
                tally.count,
                tally.bytes
            );
        }
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine").field("held", &self.tally()).finish_non_exhaustive()
    }
}
