//! Where the back-end is met: a socket to connect to, or one to wait at.

use alloc::string::String;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use rustix::process::{Pid, getpid};

use crate::event::{Deadline, wait_readable};
use crate::{Error, Result};

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A path, and what waits at it in server mode.
#[derive(Debug)]
pub(super) struct Endpoint {
    path: String,
    listener: Option<OwnedFd>,
    /// A fork's child must not take the path away.
    owner: Pid,
}

impl Endpoint {
    /// In server mode the path is taken, also from a socket at which nobody waits any more.
    pub(super) fn new(path: &str, server: bool) -> Result<Self> {
        let mut endpoint = Self { path: path.into(), listener: None, owner: getpid() };
        if server {
            endpoint.listener = Some(endpoint.serve()?);
        }
        Ok(endpoint)
    }

    fn address(&self) -> Result<SocketAddrUnix> {
        SocketAddrUnix::new(self.path.as_str()).map_err(|e| Error::os("use the path of a socket", e))
    }

    fn serve(&self) -> Result<OwnedFd> {
        let address = self.address()?;
        let fd = fresh()?;
        match bind(&fd, &address) {
            Err(Errno::ADDRINUSE) if connect(fresh()?, &address) == Err(Errno::CONNREFUSED) => {
                rustix::fs::unlink(&self.path).map_err(|e| Error::os("take over the path of a socket", e))?;
                bind(&fd, &address)
            }
            outcome => outcome,
        }
        .map_err(|e| Error::os("bind a socket", e))?;
        listen(&fd, 1).map_err(|e| Error::os("listen at a socket", e))?;
        Ok(fd)
    }

    /// Connects, or waits for a connection, at most until `deadline`. A refused connection, a path that is not
    /// there yet and a full queue of connections are tried again (fault E3).
    pub(super) fn connect(&self, deadline: Deadline) -> Result<OwnedFd> {
        let Some(listener) = &self.listener else { return self.reach(deadline) };
        loop {
            match accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(fd) => return Ok(fd),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(Error::os("accept a connection", errno)),
            }
            if !wait_readable(listener, deadline)? {
                return Err(deadline.timeout("a back-end that connects"));
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
                Err(Errno::NOENT | Errno::CONNREFUSED) => {
                    let why = "no back-end listens at this socket: start it, or give its socket's path";
                    return Err(Error::NotFound { why: why.into() });
                }
                Err(errno) => return Err(Error::os("connect to the back-end's socket", errno)),
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
        if self.listener.is_some()
            && getpid() == self.owner
            && let Err(errno) = rustix::fs::unlink(&self.path)
        {
            log::debug!("{} could not be removed: {errno}", self.path);
        }
    }
}
