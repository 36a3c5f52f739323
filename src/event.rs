//! Events between a device and its driver, and deadlines.
//!
//! Every wait of this crate is one of [`wait_readable`], to a [`Deadline`] in monotonic time, after a short
//! [`spin`] where an answer may come at once. Signals are hints: whoever wakes looks at the ring or the register.

use alloc::sync::{Arc, Weak};
use core::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, ReadWriteFlags};

use crate::{Error, Result};

/// A counter that one side signals and another waits for: Linux's eventfd, shared by its clones.
///
/// A signal is a hint, never a fact: what has happened is told by the ring or the register behind it.
#[derive(Clone)]
pub struct EventFd(Arc<Inner>);

struct Inner {
    fd: OwnedFd,
    /// Whether another process has it too, and may do with it what it likes.
    shared: bool,
}

impl EventFd {
    /// A new event, not signalled, for this process alone. Fails with the errno of eventfd(2) ([`Error::Os`]).
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        eventfd(0, flags).map(Self::from_fd).map_err(|e| Error::os("eventfd", e))
    }

    /// A new event, not signalled, whose descriptor goes to a process that is not to be trusted.
    ///
    /// Its signals go through io_submit(2) and take some three times as long as those of another, since a write waits
    /// where the peer took O_NONBLOCK away and filled the counter (fault V20). Where a system has no asynchronous I/O
    /// (a filter of system calls, fs.aio-max-nr used up), the counter is looked at before it is written to, and one
    /// hole is left: a peer that fills it between the two holds up [`EventFd::signal`] until the counter is read.
    pub fn for_peer() -> Result<Self> {
        let event = Self::new()?;
        let inner = Arc::into_inner(event.0).map(|inner| Inner { shared: true, ..inner });
        inner.map(|inner| Self(Arc::new(inner))).ok_or(Error::Misuse { what: "a new event has one owner" })
    }

    /// Over a descriptor that somebody else made, and is trusted with.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Arc::new(Inner { fd, shared: false }))
    }

    /// Over an event that a process which is not to be trusted made. [`Error::Misuse`] for any other descriptor, as far
    /// as the kernel tells what it is.
    #[cfg(all(feature = "soft", feature = "vhost-user", not(loom)))]
    pub(crate) fn of_peer(fd: OwnedFd) -> Result<Self> {
        let name = std::format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        if std::fs::read_link(name).is_ok_and(|target| target.as_os_str() != "anon_inode:[eventfd]") {
            return Err(Error::Misuse { what: "the descriptor is not an event's" });
        }
        Ok(Self(Arc::new(Inner { fd, shared: true })))
    }

    /// Signals it. Never waits: a full counter is signalled already (fault V14). What a peer can do about that is
    /// said at [`EventFd::for_peer`].
    pub fn signal(&self) -> Result<()> {
        if self.0.shared && (signal_for_peer(self.as_fd())? || !ready(self, PollFlags::OUT, Duration::ZERO)?)
        {
            return Ok(());
        }
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.0.fd, &1u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(Error::os("signal an event", e)),
        }
    }

    /// Takes the signals away; answers whether there were any. Never waits, also where a peer that shares the
    /// descriptor took O_NONBLOCK away and reads it at the same time (fault V20), on Linux 5.8 and later.
    pub fn drain(&self) -> Result<bool> {
        let mut count = [0u8; 8];
        let drained = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut count)];
            // At no position: an event has none.
            rustix::io::preadv2(&self.0.fd, &mut parts, u64::MAX, ReadWriteFlags::NOWAIT)
        });
        let drained = match drained {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::SPIPE) if readable(self, Duration::ZERO)? => {
                rustix::io::retry_on_intr(|| rustix::io::read(&self.0.fd, &mut count))
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::SPIPE) => return Ok(false),
            outcome => outcome,
        };
        match drained {
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
    ready(fd, PollFlags::IN, limit)
}

/// Signals an event in a way that cannot wait; `false` where there is none.
#[cfg(feature = "vhost-user")]
fn signal_for_peer(event: BorrowedFd<'_>) -> Result<bool> {
    crate::bus::signal::signal(event)
}

/// Without sockets there is no peer.
#[cfg(not(feature = "vhost-user"))]
fn signal_for_peer(_event: BorrowedFd<'_>) -> Result<bool> {
    Ok(false)
}

fn ready(fd: &impl AsFd, what: PollFlags, limit: Duration) -> Result<bool> {
    let limit = limit.min(LONGEST_POLL);
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut [PollFd::new(fd, what)], Some(&limit)) {
        Ok(n) => Ok(n > 0),
        // A signal came: the caller's loop looks at its deadline and comes back.
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(Error::os("wait for an event", e)),
    }
}

/// An event that its waiters may drop: whoever signals it keeps no descriptor open.
#[derive(Debug, Clone)]
pub struct WeakEventFd(Weak<Inner>);

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
        self.0.fd.as_fd()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.fd, f)
    }
}

impl fmt::Debug for EventFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventFd({:?})", self.0.fd)
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
