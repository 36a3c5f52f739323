//! The driver's memory, as the null device maps it.

use std::io::Result;
use std::os::fd::AsFd;
use std::ptr::null_mut;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::wire::bad;

/// Bytes of a region's description.
pub const DESCRIPTION: usize = 32;

/// One mapped region.
#[derive(Debug)]
struct Region {
    guest: u64,
    user: u64,
    size: u64,
    base: *mut u8,
    /// What was mapped: the region and what lies before it in its file.
    mapped: (*mut u8, usize),
}

/// All regions. Unmapped when it is dropped.
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<Region>,
}

// SAFETY: the pointers lead to mappings that the value owns.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps a region: guest address, size, user address and offset in the file, as the message says them.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn add(&mut self, [guest, size, user, offset]: [u64; 4], fd: impl AsFd) -> Result<()> {
        let total = size.checked_add(offset).and_then(|total| usize::try_from(total).ok());
        let total = total.ok_or_else(|| bad("a region is too large"))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so that no mapping of this process is replaced.
        let start = unsafe { mmap(null_mut(), total, protection, MapFlags::SHARED, fd, 0)? }.cast::<u8>();
        let base = start.wrapping_add(offset as usize);
        self.regions.push(Region { guest, user, size, base, mapped: (start, total) });
        Ok(())
    }

    /// Unmaps the region at this guest address.
    pub fn remove(&mut self, guest: u64) {
        self.regions.retain(|region| region.guest != guest);
    }

    /// Unmaps everything.
    pub fn clear(&mut self) {
        self.regions.clear();
    }

    /// Where `len` bytes at a guest address are. Null outside of all regions.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, addr: u64, len: u64) -> *mut u8 {
        for region in &self.regions {
            let offset = addr.wrapping_sub(region.guest);
            if offset < region.size && len <= region.size - offset {
                return region.base.wrapping_add(offset as usize);
            }
        }
        null_mut()
    }

    /// The same for an address of the driver's process, by which rings are told.
    ///
    /// # Errors
    /// It lies in no region.
    pub fn ring(&self, addr: u64, len: usize) -> Result<*mut u8> {
        let region = self.regions.iter().find(|region| addr.wrapping_sub(region.user) < region.size);
        let found = region.filter(|r| len as u64 <= r.size - (addr - r.user));
        let found = found.map(|r| r.base.wrapping_add((addr - r.user) as usize));
        found.ok_or_else(|| bad("a ring lies outside of the driver's memory"))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; the ring's thread, which uses it, has ended (`null`).
        if let Err(error) = unsafe { munmap(self.mapped.0.cast(), self.mapped.1) } {
            eprintln!("null device: munmap: {error}");
        }
    }
}
