//! Std's mutex and condition variable, with what they order made visible to the thread sanitizer.
//!
//! The standard library is not instrumented, so that the sanitizer does not see a lock that was contended, and
//! reports what it guards. Here each release of the lock is a release of an atomic that the next owner
//! acquires: it says what the lock does already, and orders nothing that the lock does not.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult, WaitTimeoutResult};

/// [`std::sync::Mutex`], watched.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    inner: std::sync::Mutex<T>,
    releases: AtomicU32,
}

/// [`std::sync::MutexGuard`], watched.
pub struct MutexGuard<'a, T> {
    /// `None` only where the guard went into a wait.
    inner: Option<std::sync::MutexGuard<'a, T>>,
    releases: &'a AtomicU32,
}

/// [`std::sync::Condvar`] over watched locks.
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl<T> Mutex<T> {
    /// As [`std::sync::Mutex::new`].
    pub const fn new(value: T) -> Self {
        Self { inner: std::sync::Mutex::new(value), releases: AtomicU32::new(0) }
    }

    /// As [`std::sync::Mutex::lock`].
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        watch(self.inner.lock(), &self.releases)
    }

    /// As [`std::sync::Mutex::try_lock`].
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(watch(Ok(inner), &self.releases)?),
            Err(TryLockError::Poisoned(e)) => Ok(watch(Err(e), &self.releases)?),
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        }
    }

    /// As [`std::sync::Mutex::get_mut`].
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.releases.load(Ordering::Acquire);
        self.inner.get_mut()
    }

    /// As [`std::sync::Mutex::into_inner`].
    pub fn into_inner(self) -> LockResult<T> {
        self.releases.load(Ordering::Acquire);
        self.inner.into_inner()
    }
}

fn watch<'a, T>(
    locked: LockResult<std::sync::MutexGuard<'a, T>>,
    releases: &'a AtomicU32,
) -> LockResult<MutexGuard<'a, T>> {
    releases.load(Ordering::Acquire);
    match locked {
        Ok(inner) => Ok(MutexGuard { inner: Some(inner), releases }),
        Err(e) => Err(PoisonError::new(MutexGuard { inner: Some(e.into_inner()), releases })),
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// Takes the std guard out for a wait, which releases the lock.
    fn release(mut self) -> (std::sync::MutexGuard<'a, T>, &'a AtomicU32) {
        self.releases.fetch_add(1, Ordering::Release);
        match self.inner.take() {
            Some(inner) => (inner, self.releases),
            None => unreachable!("a guard is released once, by value"),
        }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // Before the std guard, which is dropped after this, gives the lock away.
        self.releases.fetch_add(1, Ordering::Release);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("a guard that was released is gone"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.inner {
            Some(inner) => inner,
            None => unreachable!("a guard that was released is gone"),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Condvar {
    /// As [`std::sync::Condvar::new`].
    pub const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// As [`std::sync::Condvar::wait`].
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (inner, releases) = guard.release();
        watch(self.0.wait(inner), releases)
    }

    /// As [`std::sync::Condvar::wait_timeout`].
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (inner, releases) = guard.release();
        let (locked, timed_out) = match self.0.wait_timeout(inner, limit) {
            Ok((inner, timed_out)) => (Ok(inner), timed_out),
            Err(e) => {
                let (inner, timed_out) = e.into_inner();
                (Err(PoisonError::new(inner)), timed_out)
            }
        };
        match watch(locked, releases) {
            Ok(guard) => Ok((guard, timed_out)),
            Err(e) => Err(PoisonError::new((e.into_inner(), timed_out))),
        }
    }

    /// As [`std::sync::Condvar::notify_one`].
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// As [`std::sync::Condvar::notify_all`].
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
