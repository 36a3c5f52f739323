//! Checking the driver: the first rule for drivers that it broke, by its clause.
//!
//! The checker sees every access to the registers before the device does, and every chain after the device took
//! it. It changes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::io::{self, Write};
use std::process;

use crate::features::Features;

mod registers;
mod rings;
mod rules;
#[cfg(test)]
mod tests;

use rules::Must;
pub use rules::{BrokenMust, RULES};

/// Rules that are remembered beyond the first.
const MOST: usize = 64;

/// One life of the device: from a reset to the next.
#[derive(Debug, Default)]
struct Life {
    /// The status was written since the device was made.
    begun: bool,
    /// 0 was written to the status, and not read back yet.
    reset_open: bool,
    features_read: bool,
    /// What was offered whenever it was read.
    shown: Features,
    device_select: bool,
    driver_select: bool,
    features_ok_written: bool,
    /// What FEATURES_OK read after it was written.
    features_ok_read: Option<bool>,
    interrupt_read: bool,
    page_size: bool,
    config_vector_open: bool,
}

/// What the driver did with one queue in this life.
#[derive(Debug, Default)]
struct QueueCheck {
    /// Areas of which something was written, one bit each.
    areas: u8,
    vector_open: bool,
    reset_open: bool,
    stop_open: bool,
    /// Available entries looked at.
    seen: u16,
    /// For each head that was made available and not used, its descriptor as it was.
    exposed: Vec<Option<(u64, u64)>>,
}

/// What is known of a driver.
#[derive(Debug, Default)]
pub(super) struct Checker {
    broken: Vec<BrokenMust>,
    life: Life,
    queues: Vec<QueueCheck>,
    /// MMIO: which of magic, version and device id were read, one bit each.
    identified: u8,
    /// MMIO: the device id read 0.
    empty_slot: bool,
    /// The address of a device whose driver may break no rule: the first that it breaks ends the process.
    strict: Option<String>,
}

impl Checker {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// One that ends the process where a rule is broken.
    pub(super) fn strict(address: String) -> Self {
        Self { strict: Some(address), ..Self::default() }
    }

    /// The first rule that was broken.
    pub(super) fn first(&self) -> Option<BrokenMust> {
        self.broken.first().copied()
    }

    fn report(&mut self, must: Must) {
        let broken = must.broken();
        if let Some(address) = &self.strict {
            // Not a panic: the accused may be in any thread, this one may be the device's, and neither need be joined.
            let text = format!("{address}: the driver broke a rule of VIRTIO 1.4: {broken}\n");
            let _ = io::stderr().write_all(text.as_bytes());
            process::abort();
        }
        if self.broken.len() < MOST && !self.broken.contains(&broken) {
            self.broken.push(broken);
        }
    }

    fn require(&mut self, kept: bool, must: Must) {
        if !kept {
            self.report(must);
        }
    }

    fn queue(&mut self, index: u16) -> Option<&mut QueueCheck> {
        let at = usize::from(index);
        // Only queues that exist come here; the bound is on what a driver can select.
        if self.queues.len() <= at {
            self.queues.resize_with(at.saturating_add(1), QueueCheck::default);
        }
        self.queues.get_mut(at)
    }
}
