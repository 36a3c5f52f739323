//! The lanes of a device, and who waits for one.

use alloc::boxed::Box;
use core::cell::Cell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, TryLockError};

use super::lane::Lane;
use super::submit::LOOK;
use crate::Result;
use crate::drivers::Between;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Threads are numbered as they come, so that each starts at a lane of its own.
static THREADS: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    static HINT: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
}

/// See the module. Whoever has a lane waits for its device with time limits, so that a wait for a lane ends.
pub(super) struct Lanes {
    all: Box<[Mutex<Lane>]>,
    line: Line,
    between: Between,
}

/// Those who wait for a lane.
#[derive(Default)]
struct Line {
    waiting: Mutex<usize>,
    freed: Condvar,
}

/// A lane for one call. The lane goes first, and its end is told then.
pub(super) struct Taken<'a> {
    lane: MutexGuard<'a, Lane>,
    _end: End<'a>,
}

struct End<'a>(&'a Line);

impl Lanes {
    pub(super) fn new(all: Box<[Mutex<Lane>]>, between: Between) -> Self {
        Self { all, line: Line::default(), between }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Mutex<Lane>> {
        self.all.get(index)
    }

    /// All of them, for good.
    pub(super) fn take(&mut self) -> Box<[Mutex<Lane>]> {
        core::mem::take(&mut self.all)
    }

    /// A lane that is free, if possible the one that this thread used before; waits for one where none is, looking
    /// meanwhile after what the driver was given to look after (fault M7).
    pub(super) fn lane(&self) -> Result<Taken<'_>> {
        if let Some(taken) = self.free() {
            return Ok(taken);
        }
        self.line.count(|waiting| waiting.saturating_add(1));
        let taken = self.wait();
        self.line.count(|waiting| waiting.saturating_sub(1));
        taken
    }

    fn wait(&self) -> Result<Taken<'_>> {
        loop {
            {
                let waiting = self.line.lock();
                // Under this lock: who gives a lane back after this look finds that there is somebody to be told.
                if let Some(taken) = self.free() {
                    return Ok(taken);
                }
                drop(self.line.freed.wait_timeout(waiting, LOOK));
            }
            self.between.look()?;
        }
    }

    fn free(&self) -> Option<Taken<'_>> {
        let first = HINT.get();
        for step in 0..self.all.len() {
            let index = first.wrapping_add(step).checked_rem(self.all.len()).unwrap_or(0);
            let lane = match self.all.get(index)?.try_lock() {
                Ok(lane) => lane,
                Err(TryLockError::Poisoned(lane)) => lane.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            return Some(Taken { lane, _end: End(&self.line) });
        }
        None
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, new: impl FnOnce(usize) -> usize) {
        let mut waiting = self.lock();
        *waiting = new(*waiting);
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if *self.0.lock() != 0 {
            self.0.freed.notify_one();
        }
    }
}

impl Deref for Taken<'_> {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.lane
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Lane {
        &mut self.lane
    }
}
