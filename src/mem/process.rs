//! Which process a handle belongs to: a fork's child has copies of handles, and no device (fault M6).
//!
//! Asking the kernel costs as much as ten requests on a ring. Instead a page that the kernel fills with zeroes in
//! the child (Linux 4.14) holds the number of this process among its forefathers: asking is one load.
#![expect(unsafe_code, reason = "a page that is wiped in a fork's child")]

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::getpid;

use super::mapping::base_page_size;
use crate::{Error, Result};

/// The cell in the page; null until somebody asks. Never unmapped.
static CELL: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
/// Stands for the page where the kernel has none: process ids are told apart then.
static NO_PAGE: AtomicU64 = AtomicU64::new(0);
/// The last number given out. A child goes on from its parent's, so that no handle that it finds has its number.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Told apart from a number of ours.
const BY_PID: u64 = 1 << 63;

/// The process that made a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    /// This one.
    #[inline]
    pub(crate) fn current() -> Self {
        let cell = CELL.load(Ordering::Acquire);
        // SAFETY: null, or what `page` published: a static, or a page that stays mapped, with nothing else in it.
        match unsafe { cell.as_ref() }.map(|cell| cell.load(Ordering::Relaxed)) {
            None | Some(0) => Self(number()),
            Some(number) => Self(number),
        }
    }

    /// Whether it is the one that asks.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Fails with [`Error::ForkedProcess`] in another one.
    #[inline]
    pub(crate) fn check(self, what: &'static str) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(Error::ForkedProcess { what }) }
    }
}

/// The number of a process that was not asked for it yet.
#[cold]
fn number() -> u64 {
    let cell = page();
    if core::ptr::eq(cell, &NO_PAGE) {
        return BY_PID | u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    }
    let next = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    match cell.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(theirs) => theirs,
    }
}

/// The cell, mapped by whoever comes first. No lock: a child would find it taken for ever.
fn page() -> &'static AtomicU64 {
    let found = CELL.load(Ordering::Acquire);
    // SAFETY: as in `current`.
    if let Some(cell) = unsafe { found.as_ref() } {
        return cell;
    }
    let made = map();
    let new = made.unwrap_or_else(|| (&raw const NO_PAGE).cast_mut());
    // Release: the page before its address; pairs with the acquire loads.
    let published = match CELL.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(theirs) => {
            if let Some(page) = made {
                unmap(page);
            }
            theirs
        }
    };
    // SAFETY: as in `current`; it is not null any more.
    unsafe { published.as_ref() }.unwrap_or(&NO_PAGE)
}

fn map() -> Option<*mut AtomicU64> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: no address is asked for, so that no existing mapping can be replaced.
    let page = unsafe { mmap_anonymous(null_mut(), base_page_size(), protection, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: exactly the page that was just mapped, which nobody else knows; zeroes are what it holds anyway.
    if unsafe { madvise(page, base_page_size(), Advice::LinuxWipeOnFork) }.is_err() {
        unmap(page.cast());
        return None;
    }
    Some(page.cast())
}

fn unmap(page: *mut AtomicU64) {
    // SAFETY: a page of `map` whose address was given to nobody.
    if let Err(errno) = unsafe { munmap(page.cast(), base_page_size()) } {
        log::debug!("munmap of a page failed: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }

    #[test]
    fn m6_a_child_and_its_child_are_other_processes() {
        let ours = Process::current();
        assert!(ours.is_current() && Process::current() == ours);
        // SAFETY: the child only uses memory, which is a copy of ours, and leaves by _exit.
        let pid = unsafe { fork() };
        if pid == 0 {
            let child = Process::current();
            let mut good = !ours.is_current() && child.is_current() && child != ours;
            good &= ours.check("it").is_err() && child.check("it").is_ok();
            // SAFETY: as above.
            let pid = unsafe { fork() };
            if pid == 0 {
                let good = good && !ours.is_current() && !child.is_current();
                // SAFETY: ends the grandchild without running anything of the parent's.
                unsafe { _exit(if good { 0 } else { 1 }) };
            }
            let mut status = -1;
            // SAFETY: `status` is a live integer.
            let waited = unsafe { waitpid(pid, &mut status, 0) };
            let good = good && child.is_current() && (waited, status) == (pid, 0);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { _exit(if good { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: `status` is a live integer.
        let waited = unsafe { waitpid(pid, &mut status, 0) };
        assert_eq!((waited, status), (pid, 0), "the child saw something else");
        assert!(ours.is_current());
    }
}
