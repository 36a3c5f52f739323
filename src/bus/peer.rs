//! The process at the other end of a socket, and whether it is dead.
#![expect(unsafe_code, reason = "getsockopt: the kernel writes into memory of ours")]

use core::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Result;
use crate::event::{Deadline, wait_readable};

/// A handle on the process that was at the other end of a socket when it was connected.
///
/// It tells the death of that process for certain: the end of the connection does not.
#[derive(Debug)]
pub(crate) struct Peer(OwnedFd);

impl Peer {
    /// The process that `socket` was connected to; `None` where it has no number in this process's view, is this
    /// process itself, or is dead already, which all prove nothing.
    pub(crate) fn of(socket: &impl AsFd) -> Option<Self> {
        let credentials: libc::ucred = option(socket.as_fd(), libc::SO_PEERCRED).ok()?;
        let pid = Pid::from_raw(credentials.pid)?;
        if pid == rustix::process::getpid() {
            return None;
        }
        // The kernel's own handle cannot be another process's that got the same number meanwhile.
        let handle: core::result::Result<libc::c_int, Errno> = option(socket.as_fd(), libc::SO_PEERPIDFD);
        match handle {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            Ok(handle) if handle >= 0 => Some(Self(unsafe { OwnedFd::from_raw_fd(handle) })),
            // Kernels before 6.5.
            Err(Errno::NOPROTOOPT) => pidfd_open(pid, PidfdFlags::empty()).ok().map(Self),
            _ => None,
        }
    }

    /// Waits until the process is dead, all of its threads, at most until `deadline`; `false` then.
    pub(crate) fn wait_dead(&self, deadline: Deadline) -> Result<bool> {
        wait_readable(&self.0, deadline)
    }
}

/// What can be any bytes.
trait Plain: Copy {}
impl Plain for libc::ucred {}
impl Plain for libc::c_int {}

/// A socket option of fixed size.
fn option<T: Plain>(socket: BorrowedFd<'_>, name: libc::c_int) -> rustix::io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: `value` has room for `len` bytes, and both live until the call returns.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    if outcome != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    if usize::try_from(len) != Ok(size_of::<T>()) {
        return Err(Errno::INVAL);
    }
    // SAFETY: all bytes are set, by zeroes and by the kernel, and any bytes make a value of a plain type.
    Ok(unsafe { value.assume_init() })
}
