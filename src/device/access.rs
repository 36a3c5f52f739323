//! Who may still use a device: the process that opened it, until it is closed.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::mem::process::Process;
use crate::{Error, Result};

/// Shared by a device and its configuration space. Registers live on behind a closed handle, and may be somebody
/// else's device by then (fault M3).
#[derive(Debug, Clone)]
pub(super) struct Access {
    owner: Process,
    closed: Arc<AtomicBool>,
}

impl Access {
    /// For this process.
    pub(super) fn new() -> Self {
        Self { owner: Process::current(), closed: Arc::default() }
    }

    /// Whether the process is the one that opened the device.
    pub(super) fn is_owner(&self) -> bool {
        self.owner.is_current()
    }

    /// Fails in a fork's child (fault M6).
    pub(super) fn check_process(&self) -> Result<()> {
        self.owner.check("device")
    }

    /// Fails there too, and after the close.
    pub(super) fn check(&self) -> Result<()> {
        self.check_process()?;
        // Relaxed, and so in `close`: it leads to an error and to no memory. A call of another thread in the middle
        // of a close may be on either side of it.
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed { what: "device" }) } else { Ok(()) }
    }

    /// The handle is of no use any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}
