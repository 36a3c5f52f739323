//! Memory that can be given to a device: sealed memory files, mapped shared.
#![expect(unsafe_code, reason = "the bytes are reached by raw pointer, after a check of the range")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

#[cfg(not(loom))]
use super::cell::{Owner, RingMemory};
use super::copy;
use super::mapping::{self, Mapping, bytes};
pub use super::word::Word;
use crate::{Error, Result};

/// Whether a region is to be made of huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Ordinary pages.
    #[default]
    No,
    /// Huge pages where enough are free, else ordinary ones; [`DmaRegion::page_size`] tells which.
    Try,
    /// Huge pages, or an error that says how to get them.
    Require,
}

/// How a new region is made; see [`DmaRegion::builder`].
#[derive(Debug, Clone, Default)]
pub struct DmaRegionBuilder {
    huge_pages: HugePages,
}

impl DmaRegionBuilder {
    /// Asks for huge pages of the machine's default size.
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// Makes the region; `len` bytes are rounded up to whole pages. For the errors see [`DmaRegion::new`];
    /// with [`HugePages::Require`] [`Error::MemoryLimit`] where too few huge pages are free and
    /// [`Error::Unsupported`] where the kernel has none.
    pub fn build(self, len: usize) -> Result<Arc<DmaRegion>> {
        match self.huge_pages {
            HugePages::No => DmaRegion::create(len, false),
            HugePages::Require => DmaRegion::create(len, true),
            HugePages::Try => DmaRegion::create(len, true).or_else(|error| {
                log::debug!("a region of {len} bytes gets ordinary pages: {error}");
                DmaRegion::create(len, false)
            }),
        }
    }
}

/// A stretch of memory that is given to a device as a whole.
///
/// It is a memory file (`memfd`) sealed against shrinking, so that no access can end in SIGBUS, and mapped
/// shared, so that another process can map it as well; [`DmaRegion::fd`] is how. It is zeroed when new, and
/// unmapped when its last [`Arc`] goes.
///
/// Any thread may read and write it at any time, whatever the device does meanwhile: no reference to the
/// bytes is ever made. What a copy gives while somebody else writes is a mixture of old and new bytes.
///
/// ```
/// use virtio::mem::region::DmaRegion;
/// # fn main() -> virtio::Result {
/// let region = DmaRegion::new(10_000)?;
/// assert_eq!(region.len(), 12_288, "whole pages");
/// region.write(100, b"hello")?;
/// let mut copy = [0; 7];
/// region.read(99, &mut copy)?;
/// assert_eq!(&copy, b"\0hello\0");
/// # Ok(()) }
/// ```
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
    page_size: usize,
    fd_offset: u64,
    /// Apart from the mapping, because quarantine keeps the mapping and no descriptor.
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// Keeps the bytes behind `base` mapped.
    _backing: Backing,
}

enum Backing {
    Mapped { _mapping: Mapping },
    Foreign { _owner: Box<dyn Any + Send + Sync> },
}

// SAFETY: `base` is an address of memory that `_backing` keeps mapped; the bytes behind it are only reached
// by atomics and opaque copies, from whatever thread. The other fields are Send by themselves.
unsafe impl Send for DmaRegion {}
// SAFETY: as above; the descriptor is behind a lock.
unsafe impl Sync for DmaRegion {}

impl DmaRegion {
    /// A new region of `len` bytes, rounded up to whole pages, all zero.
    ///
    /// [`Error::Misuse`] for no bytes, [`Error::Os`] where the system refuses (EMFILE, ENOMEM, …),
    /// [`Error::MemoryLimit`] where a known limit of the process stands against it.
    pub fn new(len: usize) -> Result<Arc<Self>> {
        Self::builder().build(len)
    }

    /// A new region, with a choice of page size.
    pub fn builder() -> DmaRegionBuilder {
        DmaRegionBuilder::default()
    }

    fn create(len: usize, huge: bool) -> Result<Arc<Self>> {
        refuse_empty(len)?;
        let (file, len, page_size) = mapping::create(len, huge)?;
        let mapping = Mapping::shared(file.as_fd(), 0, len, page_size)?;
        Ok(Self::over(mapping, len, page_size, file, 0))
    }

    fn over(mapping: Mapping, len: usize, page_size: usize, file: OwnedFd, fd_offset: u64) -> Arc<Self> {
        Arc::new(Self {
            base: mapping.base(),
            len,
            page_size,
            fd_offset,
            fd: Mutex::new(Some(Arc::new(file))),
            _backing: Backing::Mapped { _mapping: mapping },
        })
    }

    /// A region over `len` bytes of a caller's memory file from `offset` on, a multiple of its page size.
    ///
    /// The file must have been made by `memfd_create` with `MFD_ALLOW_SEALING`; it is **sealed against
    /// shrinking for good** where it was not yet. Its content stays. Give it a `File` or an `OwnedFd`; clone
    /// the descriptor to keep one.
    ///
    /// [`Error::Misuse`] for a file that cannot be sealed (a regular file, POSIX shared memory) or written,
    /// [`Error::OutOfBounds`] for one shorter than `offset + len`; else as [`DmaRegion::new`].
    pub fn from_fd(fd: impl Into<OwnedFd>, offset: u64, len: usize) -> Result<Arc<Self>> {
        refuse_empty(len)?;
        let file = fd.into();
        let overflow = Error::OutOfBounds { offset, len: bytes(len), size: u64::MAX };
        let end = offset.checked_add(bytes(len)).ok_or(overflow)?;
        mapping::adopt(file.as_fd(), end)?;
        let page_size = mapping::page_size_of(file.as_fd())?;
        if !offset.is_multiple_of(bytes(page_size)) {
            return Err(Error::Misuse { what: "the offset must be a multiple of the file's page size" });
        }
        let mapped = mapping::round_up(len, page_size)?;
        let mapping = Mapping::shared(file.as_fd(), offset, mapped, page_size)?;
        Ok(Self::over(mapping, len, page_size, file, offset))
    }

    /// A region over memory that is mapped already, such as the guest RAM of a machine under test. It has no
    /// descriptor. [`Error::Misuse`] where it is empty or does not begin at a page.
    ///
    /// # Safety
    /// `ptr` leads to `len` readable and writable bytes that stay mapped, whatever other processes do, until
    /// `owner` is dropped; no reference to them is made, and this process reaches them by nothing but atomics,
    /// [`copy`](mod@super::copy) and system calls.
    pub unsafe fn from_raw(
        ptr: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>> {
        refuse_empty(len)?;
        let page_size = mapping::base_page_size();
        mapping::round_up(len, page_size)?;
        if !ptr.addr().get().is_multiple_of(page_size) {
            return Err(Error::Misuse { what: "memory for a device must begin at a page" });
        }
        Ok(Arc::new(Self {
            base: ptr,
            len,
            page_size,
            fd_offset: 0,
            fd: Mutex::new(None),
            _backing: Backing::Foreign { _owner: owner },
        }))
    }

    /// Memory that the driver of a software device gave it: `len` bytes of a file from `offset` on, a multiple of the
    /// file's page size. The file has those bytes, and is sealed against shrinking where it can be; who cuts one that
    /// cannot ends this process by SIGBUS. It keeps no descriptor.
    #[cfg(all(feature = "soft", feature = "vhost-user", not(loom)))]
    pub(crate) fn of_driver(file: OwnedFd, offset: u64, len: usize) -> Result<Arc<Self>> {
        refuse_empty(len)?;
        let page_size = mapping::page_size_of(file.as_fd())?;
        if !offset.is_multiple_of(bytes(page_size)) {
            return Err(Error::Misuse { what: "the offset must be a multiple of the file's page size" });
        }
        let size = mapping::sealed_len(file.as_fd())?;
        let outside = Error::OutOfBounds { offset, len: bytes(len), size };
        offset.checked_add(bytes(len)).filter(|end| *end <= size).ok_or(outside)?;
        let mapped = mapping::round_up(len, page_size)?;
        let mapping = Mapping::shared(file.as_fd(), offset, mapped, page_size)?;
        let region = Self::over(mapping, len, page_size, file, offset);
        region.close_fd();
        Ok(region)
    }

    /// The RAM file of a machine under test, as a whole. Its shrinking is sealed where that can be; a regular file
    /// cannot be sealed, and whoever cuts it ends this process by SIGBUS.
    #[cfg(all(feature = "qtest", not(loom)))]
    pub(super) fn over_ram_file(file: OwnedFd) -> Result<Arc<Self>> {
        let len = mapping::ram_file_len(file.as_fd())?;
        refuse_empty(len)?;
        let page_size = mapping::page_size_of(file.as_fd())?;
        let mapping = Mapping::shared(file.as_fd(), 0, len, page_size)?;
        Ok(Self::over(mapping, len, page_size, file, 0))
    }

    /// A region over `len` bytes of this one from `offset` on, a multiple of the page size. `owner` keeps the whole.
    #[cfg(all(feature = "qtest", not(loom)))]
    pub(super) fn part(
        self: &Arc<Self>,
        offset: usize,
        len: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>> {
        refuse_empty(len)?;
        let base = self.range(offset, len)?;
        let Some(base) = NonNull::new(base).filter(|_| offset.is_multiple_of(self.page_size)) else {
            return Err(Error::Misuse { what: "memory for a device must begin at a page" });
        };
        Ok(Arc::new(Self {
            base,
            len,
            page_size: self.page_size,
            fd_offset: self.fd_offset.saturating_add(bytes(offset)),
            fd: Mutex::new(self.fd()),
            _backing: Backing::Foreign { _owner: Box::new((Arc::clone(self), owner)) },
        }))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a region has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in bytes of the pages that it is made of.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Address of the first byte in this process: valid, and aligned to a page, while the region lives.
    ///
    /// For whoever has to hand the address on (the kernel, a buffer export). The memory may change at any
    /// moment; it must not be reached through references.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The memory file behind it, for another process or library; `None` where there is none, or where it
    /// was closed because the region went into quarantine.
    pub fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the region begins in [`DmaRegion::fd`], in bytes.
    pub fn fd_offset(&self) -> u64 {
        self.fd_offset
    }

    /// Gives the descriptor up (it is closed when nobody holds a clone); the memory stays.
    pub fn close_fd(&self) {
        let closed = self.fd.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(closed);
    }

    /// The address of `len` bytes from `offset` on, if they lie in the region.
    #[inline]
    fn range(&self, offset: usize, len: usize) -> Result<*mut u8> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => {
                // SAFETY: `offset` is at most the region's length, whose bytes are one mapping.
                Ok(unsafe { self.base.as_ptr().add(offset) })
            }
            _ => Err(Error::OutOfBounds { offset: bytes(offset), len: bytes(len), size: bytes(self.len) }),
        }
    }

    /// Copies bytes from `offset` on into `to`. [`Error::OutOfBounds`] where they do not lie in the region.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        let from = self.range(offset, to.len())?;
        // SAFETY: `range` checked the length, and the region keeps the bytes mapped.
        unsafe { copy::copy_from_shared(to, from) };
        Ok(())
    }

    /// Copies `from` to `offset`. [`Error::OutOfBounds`] where it does not fit; then nothing is written.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        let to = self.range(offset, from.len())?;
        // SAFETY: `range` checked the length, and the region keeps the bytes mapped.
        unsafe { copy::copy_to_shared(to, from) };
        Ok(())
    }

    /// Sets `len` bytes from `offset` on to `value`. [`Error::OutOfBounds`] as [`DmaRegion::write`].
    #[inline]
    pub fn fill(&self, offset: usize, len: usize, value: u8) -> Result<()> {
        let to = self.range(offset, len)?;
        // SAFETY: `range` checked the length, and the region keeps the bytes mapped.
        unsafe { copy::fill_shared(to, value, len) };
        Ok(())
    }

    /// Copies `len` bytes of `from` (which may be this region, and overlap) to `offset`.
    /// [`Error::OutOfBounds`] where either end does not lie in its region; then nothing is written.
    #[inline]
    pub fn copy_from(&self, offset: usize, from: &DmaRegion, from_offset: usize, len: usize) -> Result<()> {
        let to = self.range(offset, len)?;
        let from = from.range(from_offset, len)?;
        // SAFETY: `range` checked both lengths, and both regions keep their bytes mapped.
        unsafe { copy::copy_shared(to, from, len) };
        Ok(())
    }

    #[inline]
    fn word<T: Word>(&self, offset: usize) -> Result<*mut u8> {
        let p = self.range(offset, size_of::<T>())?;
        if !p.addr().is_multiple_of(size_of::<T>()) {
            return Err(Error::Misuse { what: "a word of shared memory must be aligned to its size" });
        }
        Ok(p)
    }

    /// Reads the word at `offset` in one access, with acquire order: what its writer stored before it with
    /// release order is seen after it. [`Error::OutOfBounds`] outside the region, [`Error::Misuse`] where it
    /// is not aligned to its size.
    #[inline]
    pub fn load<T: Word>(&self, offset: usize) -> Result<T> {
        let p = self.word::<T>(offset)?;
        // SAFETY: `word` checked range and alignment.
        Ok(unsafe { T::load_at(p) })
    }

    /// Writes the word at `offset` in one access, with release order: who loads it sees all writes before it.
    /// Errors as [`DmaRegion::load`].
    #[inline]
    pub fn store<T: Word>(&self, offset: usize, value: T) -> Result<()> {
        let p = self.word::<T>(offset)?;
        // SAFETY: `word` checked range and alignment.
        unsafe { T::store_at(p, value) };
        Ok(())
    }

    /// Ring memory over `len` bytes from `offset` on, which the device knows as `device_addr`. `owner` holds
    /// the region. [`Error::OutOfBounds`] outside the region.
    #[cfg(not(loom))]
    pub(super) fn ring_memory(
        &self,
        offset: usize,
        len: usize,
        device_addr: u64,
        owner: Owner,
    ) -> Result<RingMemory> {
        let base = self.range(offset, len)?;
        let Some(base) = NonNull::new(base) else {
            return Err(Error::Misuse { what: "ring memory cannot be at address 0" });
        };
        // SAFETY: `range` checked the length; `owner` holds the region, which keeps the bytes mapped; this
        // process reaches them through this crate, or as `from_raw` allows.
        unsafe { RingMemory::from_raw(base, len, device_addr, Some(owner)) }
    }
}

fn refuse_empty(len: usize) -> Result<()> {
    if len == 0 {
        return Err(Error::Misuse { what: "memory of no bytes cannot be given to a device" });
    }
    Ok(())
}

impl fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaRegion")
            .field("base", &self.base)
            .field("len", &self.len)
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}
