//! Where the other end of the vhost-user protocol is met: a socket to connect to, or one to wait at.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::thread;

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use crate::event::{Deadline, wait_readable};
use crate::mem::process::Process;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A path, and what waits at it in server mode.
#[derive(Debug)]
pub(crate) struct Endpoint {
    path: String,
    listener: Mutex<Option<Arc<OwnedFd>>>,
    /// A fork's child must not take the path away.
    owner: Process,
}

impl Endpoint {
    /// In server mode the path is taken, also from a socket at which nobody waits any more.
    pub(crate) fn new(path: &str, server: bool) -> Result<Self> {
        let endpoint = Self { path: path.into(), listener: Mutex::new(None), owner: Process::current() };
        if server {
            *endpoint.lock() = Some(Arc::new(endpoint.serve()?));
        }
        Ok(endpoint)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is readable when somebody connects; `None` but in server mode.
    #[cfg(all(feature = "soft", not(loom)))]
    pub(crate) fn listener(&self) -> Option<Arc<OwnedFd>> {
        self.lock().clone()
    }

    fn address(&self) -> Result<SocketAddrUnix> {
        SocketAddrUnix::new(self.path.as_str()).map_err(|e| Error::os("use the path of a socket", e))
    }

    fn serve(&self) -> Result<OwnedFd> {
        let address = self.address()?;
        let fd = fresh()?;
        match bind(&fd, &address) {
            Err(Errno::ADDRINUSE) if self.is_left_over(&address)? => {
                rustix::fs::unlink(&self.path).map_err(|e| Error::os("take over the path of a socket", e))?;
                bind(&fd, &address)
            }
            outcome => outcome,
        }
        .map_err(|e| Error::os("bind a socket", e))?;
        listen(&fd, 1).map_err(|e| Error::os("listen at a socket", e))?;
        Ok(fd)
    }

    /// Whether a socket is at the path at which nobody waits. A connection to what is no socket is refused as well.
    fn is_left_over(&self, address: &SocketAddrUnix) -> Result<bool> {
        let found = rustix::fs::lstat(&self.path);
        let socket = found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket);
        Ok(socket && connect(fresh()?, address) == Err(Errno::CONNREFUSED))
    }

    /// Nobody is waited for any more, so that another endpoint can take the path.
    pub(crate) fn close(&self) {
        if self.lock().take().is_some()
            && self.owner.is_current()
            && let Err(errno) = rustix::fs::unlink(&self.path)
        {
            log::debug!("{} could not be removed: {errno}", self.path);
        }
    }

    /// Connects, or waits for a connection, at most until `deadline`. A refused connection, a path that is not
    /// there yet and a full queue of connections are tried again (fault E3).
    pub(crate) fn connect(&self, deadline: Deadline) -> Result<OwnedFd> {
        let Some(listener) = self.lock().clone() else { return self.reach(deadline) };
        loop {
            match accept_with(&listener, SocketFlags::CLOEXEC) {
                Ok(fd) => return Ok(fd),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(Error::os("accept a connection", errno)),
            }
            if !wait_readable(&listener, deadline)? {
                return Err(deadline.timeout("the other end to connect"));
            }
        }
    }

    fn reach(&self, deadline: Deadline) -> Result<OwnedFd> {
        let address = self.address()?;
        let mut pause = PAUSES.0;
        loop {
            let fd = fresh()?;
            match connect(&fd, &address) {
                Ok(()) => return Ok(fd),
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) if !deadline.passed() => {
                }
                Err(errno) => return Err(Error::os("connect to the other end's socket", errno)),
            }
            thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }
}

/// A socket that does not block: connecting to a full queue would.
fn fresh() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|e| Error::os("make a socket", e))
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}
