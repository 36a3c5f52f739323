//! Machines that are killed or stopped at random moments under load. A program of its own, one test at a time: it
//! counts descriptors, threads and memory of the process.
#![cfg(all(feature = "qtest", not(loom)))]

#[path = "../qemu/common.rs"]
mod common;
mod kill;
#[path = "../soak_common/mod.rs"]
mod soak_common;
mod stop;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a process holds that must not become more: descriptors, threads, mappings of machines' RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    mappings: usize,
    kept: usize,
}

impl Holdings {
    fn now() -> Self {
        let count = |path: &str| std::fs::read_dir(path).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            mappings: maps.lines().filter(|line| line.contains("virtio-qemu-")).count(),
            kept: virtio::mem::quarantine::kept().count,
        }
    }
}
