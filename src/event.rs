//! Events between a device and its driver, and deadlines.
//!
//! Every wait of this crate is one of [`wait_readable`], to a [`Deadline`] in monotonic time, after a short
//! [`spin`] where an answer may come at once. Signals are hints: whoever wakes looks at the ring or the register.

use alloc::sync::{Arc, Weak};
use core::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::{Error, Result};

/// A counter that one side signals and another waits for: Linux's eventfd, shared by its clones.
///
/// A signal is a hint, never a fact: what has happened is told by the ring or the register behind it.
#[derive(Clone)]
pub struct EventFd(Arc<OwnedFd>);

impl EventFd {
    /// A new event, not signalled. Fails with the errno of eventfd(2) ([`Error::Os`]).
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        eventfd(0, flags).map(|fd| Self(Arc::new(fd))).map_err(|e| Error::os("eventfd", e))
    }

    /// Over a descriptor that somebody else made.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    /// Signals it. Never blocks: a full counter is signalled already (faults V14).
    pub fn signal(&self) -> Result<()> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&*self.0, &1u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(Error::os("signal an event", e)),
        }
    }

    /// Takes the signals away; answers whether there were any. Never blocks, even where the peer that shares
    /// the descriptor cleared O_NONBLOCK (faults V20): it asks poll first.
    pub fn drain(&self) -> Result<bool> {
        if !readable(self, Duration::ZERO)? {
            return Ok(false);
        }
        let mut count = [0u8; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&*self.0, &mut count)) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(e) => Err(Error::os("read an event", e)),
        }
    }

    /// Waits until it is signalled, at most until `deadline`; leaves the signal there. `false` at the deadline.
    pub fn wait(&self, deadline: Deadline) -> Result<bool> {
        wait_readable(self, deadline)
    }
}

/// Waits until a descriptor is readable, at most until `deadline`; `false` then.
pub fn wait_readable(fd: &impl AsFd, deadline: Deadline) -> Result<bool> {
    loop {
        if readable(fd, deadline.left().unwrap_or(LONGEST_POLL))? {
            return Ok(true);
        }
        if deadline.passed() {
            return Ok(false);
        }
    }
}

/// One poll lasts no longer; the loop around it starts another.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

fn readable(fd: &impl AsFd, limit: Duration) -> Result<bool> {
    let limit = limit.min(LONGEST_POLL);
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)) {
        Ok(n) => Ok(n > 0),
        // A signal came: the caller's loop looks at its deadline and comes back.
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(Error::os("wait for an event", e)),
    }
}

/// An event that its waiters may drop: whoever signals it keeps no descriptor open.
#[derive(Debug, Clone)]
pub struct WeakEventFd(Weak<OwnedFd>);

impl WeakEventFd {
    /// The event, while somebody still has it.
    pub fn upgrade(&self) -> Option<EventFd> {
        self.0.upgrade().map(EventFd)
    }
}

impl EventFd {
    /// A handle that does not keep it.
    pub fn downgrade(&self) -> WeakEventFd {
        WeakEventFd(Arc::downgrade(&self.0))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for EventFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventFd({:?})", self.0)
    }
}

/// A point in monotonic time at which a wait ends, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    start: Instant,
    end: Option<Instant>,
}

impl Deadline {
    /// `limit` from now. A limit beyond the clock's range is none.
    pub fn after(limit: Duration) -> Self {
        let start = Instant::now();
        Self { start, end: start.checked_add(limit) }
    }

    /// No deadline: a wait that only an event or a close ends.
    pub fn never() -> Self {
        Self { start: Instant::now(), end: None }
    }

    /// Time left, zero when it has passed, `None` where there is no end.
    pub fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// The error of a wait for `what` that ended here.
    pub fn timeout(&self, what: &'static str) -> Error {
        Error::Timeout { what, after_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) }
    }
}

/// Spins until `ready` says so, at most for `budget`; zero is no spin at all.
///
/// In the first microsecond without the CPU's pause hint, which would double the latency of an answer that comes
/// at once; after that with it. The clock is read every 64 rounds only.
pub fn spin(budget: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<bool> {
    if budget.is_zero() {
        return Ok(false);
    }
    let start = Instant::now();
    let mut spent = Duration::ZERO;
    while spent < budget {
        for _ in 0..64 {
            if ready()? {
                return Ok(true);
            }
            if spent >= Duration::from_micros(1) {
                core::hint::spin_loop();
            }
        }
        spent = start.elapsed();
    }
    Ok(false)
}
