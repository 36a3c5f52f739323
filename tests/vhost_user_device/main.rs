//! The device end in software, `soft::VhostUserDevice`: this crate's driver over it, the crate `vhost` as a front-end of
//! somebody else's making, and front-ends that break the protocol.
#![cfg(all(feature = "soft", feature = "vhost-user", not(loom)))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod block;
mod hostile;
mod oracle;
mod restart;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A path for a socket of its own, which is gone when it is dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("virtio-end-{}-{number}.sock", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
