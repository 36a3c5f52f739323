//! What a device end sleeps on.

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// Events that are taken at once.
const MOST: usize = 16;

/// Who woke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The owner of the device.
    Owner,
    /// The front-end has sent something, or is gone.
    Message,
    /// The device's configuration changed.
    Changed,
    /// A ring was notified.
    Ring(u16),
}

/// Numbers of rings begin here.
const RINGS: u64 = 3;

impl Woken {
    fn number(self) -> u64 {
        match self {
            Self::Owner => 0,
            Self::Message => 1,
            Self::Changed => 2,
            Self::Ring(index) => RINGS.saturating_add(index.into()),
        }
    }

    fn of(number: u64) -> Self {
        match number {
            0 => Self::Owner,
            1 => Self::Message,
            2 => Self::Changed,
            ring => Self::Ring(u16::try_from(ring.saturating_sub(RINGS)).unwrap_or(u16::MAX)),
        }
    }
}

/// An epoll set of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    set: OwnedFd,
}

impl Watch {
    pub(super) fn new() -> Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(|e| Error::os("epoll_create", e))?;
        Ok(Self { set })
    }

    pub(super) fn add(&self, fd: impl AsFd, woken: Woken) -> Result<()> {
        epoll::add(&self.set, fd, EventData::new_u64(woken.number()), EventFlags::IN)
            .map_err(|e| Error::os("epoll_ctl", e))
    }

    /// To be called before the descriptor is closed: the front-end has another one of the same file, which keeps it in
    /// the set.
    pub(super) fn remove(&self, fd: impl AsFd) -> Result<()> {
        epoll::delete(&self.set, fd).map_err(|e| Error::os("epoll_ctl", e))
    }

    /// Sleeps until something is there, or only looks.
    pub(super) fn wait(&self, sleep: bool) -> Result<Vec<Woken>> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut room = [const { MaybeUninit::<Event>::uninit() }; MOST];
        match epoll::wait(&self.set, &mut room, (!sleep).then_some(&now)) {
            Ok((found, _)) => Ok(found.iter().map(|event| Woken::of(event.data.u64())).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(Error::os("epoll_wait", errno)),
        }
    }
}
