//! Signalling an event that another process has as well, without ever waiting (fault V20).
//!
//! Whether a write to an eventfd waits while its counter is full depends on O_NONBLOCK, which belongs to the open file
//! and so to everybody who has a descriptor of it: a peer can take it away and fill the counter between any two
//! calls of ours. There is no flag of the one call either: RWF_NOWAIT is for reads of an eventfd only. So the kernel
//! signals the event for us, as it does when asynchronous I/O has ended (IOCB_FLAG_RESFD of io_submit(2)). That adds
//! one to a counter that has room, leaves alone one that has none, and waits for nothing. The I/O itself is a read of
//! no bytes from the event, which the kernel refuses before it looks at anything else.
#![expect(unsafe_code, reason = "asynchronous I/O: system calls that the C library does not wrap")]

use core::sync::atomic::{AtomicUsize, Ordering};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::{Error, Result};

/// Refusals of the I/O that are not yet taken out of the context: so many signals between two looks at it.
const ROOM: libc::c_ulong = 128;
/// Taken out at once.
const BATCH: usize = 64;
/// Attempts before the signal is left to the caller.
const TRIES: u32 = 8;

/// No context of asynchronous I/O yet.
const NONE: usize = 0;
/// The system has none for us. No context has this number: they are addresses of pages.
const REFUSED: usize = usize::MAX;

/// This process's context; a fork's child finds that its parent's is not its own.
static CONTEXT: AtomicUsize = AtomicUsize::new(NONE);

/// `struct iocb` of linux/aio_abi.h. Two fields of four bytes each that are always 0 are one here, since their order is
/// not the same on every machine.
#[repr(C)]
#[derive(Default)]
struct Block {
    data: u64,
    key_and_flags: u64,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event: u32,
}

/// IOCB_CMD_PREAD.
const READ: u16 = 0;
/// IOCB_FLAG_RESFD.
const SIGNAL_EVENT: u32 = 1;

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ended {
    data: u64,
    block: u64,
    outcome: i64,
    more: i64,
}

/// Signals an event; `false` where the system does not do that, and nothing has happened.
pub(crate) fn signal(event: BorrowedFd<'_>) -> Result<bool> {
    let mut renewed = false;
    for _ in 0..TRIES {
        let Some(context) = context()? else { return Ok(false) };
        match submit(context, event) {
            Ok(()) => return Ok(true),
            Err(Errno::AGAIN) => take_ended(context),
            Err(Errno::NOSYS | Errno::PERM) => CONTEXT.store(REFUSED, Ordering::Relaxed),
            Err(Errno::INVAL) if !renewed => {
                // The context of the process that this one was forked from.
                let _ = CONTEXT.compare_exchange(context, NONE, Ordering::Relaxed, Ordering::Relaxed);
                renewed = true;
            }
            Err(Errno::INVAL) => return Ok(false),
            Err(errno) => return Err(Error::os("signal an event", errno)),
        }
    }
    Ok(false)
}

/// The context, made when it is asked for first.
fn context() -> Result<Option<usize>> {
    match CONTEXT.load(Ordering::Relaxed) {
        NONE => {}
        REFUSED => return Ok(None),
        known => return Ok(Some(known)),
    }
    let mut made: libc::c_ulong = 0;
    // SAFETY: `made` is a place for the number that the kernel writes, and is 0 as it must be.
    let outcome = check(unsafe { libc::syscall(libc::SYS_io_setup, ROOM, &raw mut made) });
    match outcome {
        Ok(()) => {}
        Err(Errno::NOSYS | Errno::PERM) => {
            CONTEXT.store(REFUSED, Ordering::Relaxed);
            return Ok(None);
        }
        // All that the machine allows is in use.
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(Error::os("set asynchronous I/O up", errno)),
    }
    let made = usize::try_from(made).unwrap_or(REFUSED);
    match CONTEXT.compare_exchange(NONE, made, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(Some(made)),
        Err(other) => {
            // Another thread was faster.
            // SAFETY: nobody else knows of this context, and nothing was asked of it.
            let _ = check(unsafe { libc::syscall(libc::SYS_io_destroy, made) });
            Ok((other != REFUSED).then_some(other))
        }
    }
}

fn submit(context: usize, event: BorrowedFd<'_>) -> core::result::Result<(), Errno> {
    let fd = event.as_raw_fd().cast_unsigned();
    let mut block = Block { opcode: READ, fd, flags: SIGNAL_EVENT, event: fd, ..Block::default() };
    let blocks = [&raw mut block];
    // SAFETY: one block, which the kernel reads, and of which it writes one field, before it returns. It names no
    // memory: the read is one of no bytes. A context that is not this process's is refused.
    check(unsafe { libc::syscall(libc::SYS_io_submit, context, 1 as libc::c_long, blocks.as_ptr()) })
}

/// Takes the ended I/O out of the context. What it came to is known: a refusal.
fn take_ended(context: usize) {
    let mut ended = [Ended::default(); BATCH];
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ended` has room for the number of them that is told, and `now` outlives the call. Any bytes make one.
    let outcome = check(unsafe {
        libc::syscall(
            libc::SYS_io_getevents,
            context,
            0 as libc::c_long,
            BATCH as libc::c_long,
            ended.as_mut_ptr(),
            &raw mut now,
        )
    });
    if let Err(errno) = outcome {
        log::debug!("ended I/O could not be taken: {errno}");
    }
}

fn check(outcome: libc::c_long) -> core::result::Result<(), Errno> {
    if outcome >= 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
