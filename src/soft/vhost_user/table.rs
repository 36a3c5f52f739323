//! The memory that a front-end gave: which regions, and under which addresses.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::os::fd::OwnedFd;

use crate::mem::dma::{DmaMapper, SoftDma};
use crate::mem::region::DmaRegion;
use crate::spec::vhost_user::MemoryRegion;
use crate::{Error, Result};

/// Which file, and which of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    device: u64,
    inode: u64,
    start: u64,
    end: u64,
}

impl Origin {
    fn meets(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
            && self.start < other.end
            && other.start < self.end
    }
}

#[derive(Debug)]
struct Known {
    described: MemoryRegion,
    origin: Origin,
    mapped: Arc<DmaRegion>,
}

/// The memory table of one connection.
#[derive(Debug)]
pub(super) struct Table {
    dma: Arc<SoftDma>,
    known: Vec<Known>,
}

impl Table {
    pub(super) fn new(dma: Arc<SoftDma>) -> Self {
        Self { dma, known: Vec::new() }
    }

    /// Takes one region more. Its descriptor is closed when it is mapped.
    pub(super) fn add(&mut self, described: MemoryRegion, file: OwnedFd) -> Result<()> {
        let len = usize::try_from(described.size)
            .map_err(|_| Error::Misuse { what: "a memory region is larger than the address space" })?;
        let ends = described.user_addr.checked_add(described.size);
        let end = described.mmap_offset.checked_add(described.size);
        let (Some(end), Some(_)) = (end, ends) else {
            return Err(Error::Misuse { what: "a memory region ends beyond 2^64" });
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| Error::os("look at a memory file", e))?;
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let (device, inode) = (stat.st_dev as u64, stat.st_ino as u64);
        let origin = Origin { device, inode, start: described.mmap_offset, end };
        // Bytes with two addresses would be cells of two rings, which no look at the addresses could tell.
        if self.known.iter().any(|known| known.origin.meets(&origin)) {
            return Err(Error::Misuse { what: "a memory region holds bytes of another one" });
        }
        let mapped = DmaRegion::of_driver(file, described.mmap_offset, len)?;
        self.dma.map_at(&mapped, described.guest_addr)?;
        self.known.push(Known { described, origin, mapped });
        Ok(())
    }

    /// Takes away the region that is described like this one.
    pub(super) fn remove(&mut self, described: &MemoryRegion) -> Result<()> {
        let same = |known: &Known| {
            let known = &known.described;
            (known.guest_addr, known.user_addr, known.size)
                == (described.guest_addr, described.user_addr, described.size)
        };
        let Some(at) = self.known.iter().position(same) else {
            return Err(Error::Misuse { what: "the memory region to be removed is not known" });
        };
        let known = self.known.swap_remove(at);
        self.dma.unmap(&known.mapped)
    }

    /// Forgets all regions.
    pub(super) fn clear(&mut self) {
        for known in self.known.drain(..) {
            if let Err(error) = self.dma.unmap(&known.mapped) {
                log::warn!("a memory region stays mapped: {error}");
            }
        }
    }

    /// What descriptors call the byte that the front-end calls `user`.
    pub(super) fn guest_addr(&self, user: u64) -> Option<u64> {
        self.known.iter().find_map(|known| {
            let at = user.checked_sub(known.described.user_addr)?;
            (at < known.described.size).then(|| known.described.guest_addr.wrapping_add(at))
        })
    }
}
