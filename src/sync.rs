//! Atomics, fences and locks: core's and std's, or loom's under `--cfg loom`.
//!
//! Rings, shared queues and pools take their tools from here, so that what loom explores is the real code. Under
//! loom a *mutant* can be switched on at run time: a place that names one with `mutant!` leaves its fence out, relaxes
//! its store or forgets its wake-up, and the models of `tests/loom_*.rs` must notice.

#[cfg(not(loom))]
pub use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(loom)]
pub use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(all(feature = "std", loom))]
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(all(feature = "std", not(loom)))]
pub use std::sync::Arc;
#[cfg(all(feature = "std", not(any(loom, tsan))))]
pub use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(all(feature = "std", tsan, not(loom)))]
mod watched;
#[cfg(all(feature = "std", tsan, not(loom)))]
pub use watched::{Condvar, Mutex, MutexGuard};

/// A full fence between everything before and everything after: libvirtio's `virtio_mb`, but for the machine
/// and not for the compiler only.
///
/// Orders memory shared with another CPU. Towards hardware use [`crate::mem::barrier::Barrier::Device`].
#[inline(always)]
pub fn mb() {
    fence(Ordering::SeqCst);
}

/// Faults that can be seeded into the crate's own code, one at a time, under `--cfg loom` only.
#[cfg(loom)]
pub mod mutants {
    use core::sync::atomic::{AtomicU32, Ordering};

    /// A seeded fault. Each is named at the one place in the code that it spoils.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[repr(u32)]
    pub enum Mutant {
        /// The code as it is.
        None = 0,
        /// `Split::publish` stores `avail.idx` relaxed.
        PublishRelaxed,
        /// No full fence between `avail.idx` and the read of `avail_event` or `used.flags`.
        NoKickFence,
        /// `Split::show` takes the decision whether to kick for made.
        ShowForgets,
        /// The kick decision compares without wrapping arithmetic.
        KickNotModular,
        /// The kick decision takes the index before the last chain for the one before the batch.
        KickOldIndex,
        /// `Split::look` loads `used.idx` relaxed.
        UsedRelaxed,
        /// No full fence between arming interrupts and the look at the ring.
        NoArmFence,
        /// No look at the ring after arming.
        NoRecheck,
        /// `used_event` is not advanced when interrupts are enabled.
        StaleUsedEvent,
        /// The last entry of an indirect table is left out.
        IndirectShort,
        /// A chain that stands goes out again with the header of its life before.
        ResendUnprepared,
        /// A chain that stands goes out again with the middle of its life before.
        ResendStale,
        /// A chain that is over leaves its token good for the next one in its slot.
        SameLife,
        /// A ring that remembers takes every descriptor for what it should be.
        RememberStale,
        /// A ring that remembers does not notice descriptors that were written by another way.
        NotForgotten,
        /// `DeviceRing::available` loads `avail.idx` relaxed.
        AvailRelaxed,
        /// `DeviceRing::publish_used` stores `used.idx` relaxed.
        UsedStoreRelaxed,
        /// The device has no full fence between its wish for a notification and its look at the ring.
        NoWishFence,
        /// The device does not look at the ring after its wish.
        NoDeviceRecheck,
        /// The device has no full fence between `used.idx` and the read of `used_event` or `avail.flags`.
        NoCallFence,
        /// A waiter that leaves does not hand on the reaping role.
        NoHandOver,
        /// The reaper does not wake the owners of what it reaped.
        NoWakeOwner,
        /// Close wakes everybody before it says that the queue is closed.
        CloseLate,
        /// Close does not wake the reaper.
        CloseNoWake,
        /// A waiter that wakes does not look whether the queue was closed.
        CloseUnseen,
        /// Those in line for room are not told of a completion that goes to whoever reaped it.
        RoomUntold,
        /// A waiter does not take its token's completion at once, so that somebody else may.
        ClaimLate,
        /// Whoever found room does not let the next in line look.
        NoWakeRoom,
        /// A full queue waits for room before the device was shown what it holds.
        FullUnpublished,
        /// The head of a pool's stack that left and came back is the same.
        NoHeadCount,
        /// `Slots::take` looks at the head relaxed.
        HeadRelaxed,
        /// `Cells::push` shows the new head relaxed.
        PushRelaxed,
        /// `Slots::take` hands out a slot that somebody holds by its number.
        HeldUnseen,
        /// `Cells::give` says relaxed that the slot is free.
        FreeRelaxed,
        /// `Cells::give` keeps the pool no more while it puts the slot on the stack.
        PushUnheld,
        /// Counts of a pool are taken back relaxed.
        LetGoRelaxed,
        /// The last handle of a pool looks relaxed whether slots are free.
        FreeUnseen,
        /// The last handle of a pool leaves no counts to leases.
        LeaseUncounted,
        /// It takes the counts of free slots back relaxed.
        CountsRelaxed,
        /// `Slots::take` counts no lease after the last handle.
        TopUncounted,
        /// `Slots::take_at` counts no lease after the last handle.
        NumberUncounted,
    }

    static CHOSEN: AtomicU32 = AtomicU32::new(0);

    /// Switches `mutant` on for the models that follow.
    pub fn choose(mutant: Mutant) {
        CHOSEN.store(mutant as u32, Ordering::SeqCst);
    }

    /// Whether `mutant` is on.
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::SeqCst) == mutant as u32
    }
}

/// Whether the named mutant is switched on: a constant `false` outside loom.
#[cfg(loom)]
macro_rules! mutant {
    ($name:ident) => {
        $crate::sync::mutants::is($crate::sync::mutants::Mutant::$name)
    };
}
#[cfg(not(loom))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
pub(crate) use mutant;
