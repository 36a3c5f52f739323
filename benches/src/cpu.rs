//! Which core a thread runs on, and how it waits.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::hint::spin_loop;

/// Two cores for the two ends, if this process may use two.
#[must_use]
pub fn two_cores() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    Some((cores.next()?, cores.next()?))
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("the core is one of those this process may use");
}

/// Looks that fit well into a microsecond: PAUSE costs more than a cache line's way between the cores, so the
/// first microsecond of a wait goes without.
const EAGER_SPINS: u32 = 1000;

/// Spins until `done` answers true.
#[inline(always)]
pub fn spin_until(mut done: impl FnMut() -> bool) {
    let mut spins = 0u32;
    while !done() {
        spins = spins.saturating_add(1);
        if spins > EAGER_SPINS {
            spin_loop();
        }
    }
}

/// What the machine calls its processor.
#[must_use]
pub fn model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_owned()
}

/// Does something on one core, such as starting a process that stays there; the thread comes back after it.
///
/// # Panics
/// The core is none that this process may use.
pub fn on_core<T>(core: usize, work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("a thread has cores");
    pin(core);
    let done = work();
    sched_setaffinity(None, &before).expect("the cores were its own before");
    done
}
