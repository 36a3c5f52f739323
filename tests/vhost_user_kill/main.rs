//! A storage daemon that is killed, or stopped, at random moments under load (faults E1, V12, V13; rule R9).
//!
//! A program of its own, whose tests run one after the other: they count descriptors and mappings of the process.
#![cfg(feature = "vhost-user")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[path = "../vhost_user/daemon.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod daemon;
mod fail;
#[path = "../vhost_user/random.rs"]
mod random;
mod retry;
#[path = "../soak_common/mod.rs"]
mod soak_common;
mod stopped;

/// What a wait may last beyond its deadline.
const SLACK: Duration = Duration::from_millis(50);

static ONE: Mutex<()> = Mutex::new(());

/// Lets one test run at a time.
fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Descriptors and device mappings of this process, and what it keeps for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
    kept: u64,
}

fn holdings() -> Holdings {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mappings = maps.lines().filter(|line| line.contains("virtio-dma")).count();
    Holdings { descriptors, mappings, kept: virtio::mem::quarantine::kept().bytes }
}

/// Runs `call` and sees that it ends no later than its deadline.
fn timely<T>(limit: Duration, call: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = call();
    let took = start.elapsed();
    assert!(took <= limit + SLACK, "a call with {limit:?} took {took:?}");
    value
}
