//! Barriers of two strengths: between CPUs, and between a CPU and a device on a bus.
#![cfg_attr(
    all(target_arch = "aarch64", not(loom)),
    expect(unsafe_code, reason = "barriers towards a bus are instructions that core does not offer")
)]

use crate::sync::{Ordering, fence};

/// Whom a barrier orders memory for; a property of the transport (VIRTIO 1.4 §6, ORDER_PLATFORM).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Barrier {
    /// The device is software on another CPU of the same coherent machine.
    #[default]
    Cpu,
    /// The device is hardware behind a bus: the platform's DMA barriers.
    Device,
}

impl Barrier {
    /// Everything before is visible before any store after it (store-store).
    #[inline(always)]
    pub fn before_store(self) {
        #[cfg(all(target_arch = "aarch64", not(loom)))]
        if self == Self::Device {
            // SAFETY: a barrier instruction touches no memory and no register of the compiler's.
            unsafe { core::arch::asm!("dmb oshst", options(nostack, preserves_flags)) };
        }
        #[cfg(not(target_arch = "aarch64"))]
        let _ = self;
    }

    /// No load after it is done before the loads that precede it (load-load, load-store).
    #[inline(always)]
    pub fn after_load(self) {
        #[cfg(all(target_arch = "aarch64", not(loom)))]
        if self == Self::Device {
            // SAFETY: a barrier instruction touches no memory and no register of the compiler's.
            unsafe { core::arch::asm!("dmb oshld", options(nostack, preserves_flags)) };
        }
        #[cfg(not(target_arch = "aarch64"))]
        let _ = self;
    }

    /// The full fence: stores before it are visible before any load after it is done (store-load).
    #[inline(always)]
    pub fn full(self) {
        #[cfg(all(target_arch = "aarch64", not(loom)))]
        if self == Self::Device {
            // SAFETY: a barrier instruction touches no memory and no register of the compiler's.
            unsafe { core::arch::asm!("dmb osh", options(nostack, preserves_flags)) };
            return;
        }
        #[cfg(not(target_arch = "aarch64"))]
        let _ = self;
        fence(Ordering::SeqCst);
    }
}
