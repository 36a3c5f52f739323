//! Making memory reachable for a device: the mapper that each bus brings, and the one of software devices.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::PoisonError;

#[cfg(not(loom))]
use super::cell::{Owner, RingMemory};
use super::mapping::{base_page_size, bytes};
use super::region::{DmaRegion, Word};
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// The most regions that one device is given, whatever its mapper allows: a vhost-user daemon without
/// CONFIGURE_MEM_SLOTS takes no more.
pub const MAX_REGIONS: usize = 8;

/// An address as a device knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmaAddr(pub u64);

impl DmaAddr {
    /// The address `offset` bytes further on, `None` beyond the end of the address space.
    pub fn checked_add(self, offset: u64) -> Option<Self> {
        self.0.checked_add(offset).map(Self)
    }
}

impl Debug for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaAddr({:#x})", self.0)
    }
}

impl fmt::Display for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a mapper can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaLimits {
    /// Regions that it maps at a time, at most [`MAX_REGIONS`].
    pub max_regions: usize,
    /// The highest address that the device can reach.
    pub max_addr: u64,
    /// What the device address of a region is aligned to, in bytes: a power of two, at least a page.
    pub alignment: u64,
}

impl Default for DmaLimits {
    /// [`MAX_REGIONS`], 64 bits, whole pages.
    fn default() -> Self {
        Self { max_regions: MAX_REGIONS, max_addr: u64::MAX, alignment: bytes(base_page_size()) }
    }
}

/// Makes regions reachable for one device.
///
/// For implementors: the address that [`map`](DmaMapper::map) gives leads to exactly the region, for this
/// device, until [`unmap`](DmaMapper::unmap) has succeeded; until then the mapper holds a clone of the
/// [`Arc`], so that memory which a device can reach is never unmapped. Any thread may call.
///
/// For callers: unmap only when the device was proven not to use the region any more.
pub trait DmaMapper: Send + Sync + Debug {
    /// Maps the whole region and answers the device address of its first byte.
    ///
    /// [`Error::MemoryLimit`] where a limit stands against it, [`Error::Misuse`] for one that is mapped
    /// already or that this mapper cannot map.
    fn map(&self, region: &Arc<DmaRegion>) -> Result<DmaAddr>;

    /// Takes it away again. [`Error::Misuse`] for one that is not mapped. After an error the region counts as
    /// mapped.
    fn unmap(&self, region: &Arc<DmaRegion>) -> Result<()>;

    /// Takes a region from a device that may be running, of which nothing is given out: all that the device was told
    /// of it has come back. Errors as [`unmap`](DmaMapper::unmap), which it is unless the device has to be told.
    fn withdraw(&self, region: &Arc<DmaRegion>) -> Result<()> {
        self.unmap(region)
    }

    /// What it can do; does not change.
    fn limits(&self) -> DmaLimits;

    /// A new region of at least `len` bytes that this mapper can map, not mapped yet. A memory file of
    /// ordinary pages unless the mapper needs something else.
    fn new_region(&self, len: usize) -> Result<Arc<DmaRegion>> {
        DmaRegion::new(len)
    }
}

/// A mapped region, as a software device sees it.
#[derive(Debug, Clone)]
struct Window {
    addr: u64,
    region: Arc<DmaRegion>,
}

impl Window {
    /// Offset of `addr` in the region, if `len` bytes from there on lie in it.
    #[inline]
    fn offset(&self, addr: u64, len: usize) -> Option<usize> {
        let offset = usize::try_from(addr.checked_sub(self.addr)?).ok()?;
        (offset.checked_add(len)? <= self.region.len()).then_some(offset)
    }
}

fn not_mapped(addr: u64, len: usize) -> Error {
    Error::NotMapped { addr, len: bytes(len) }
}

/// The address space of a device that is software in this process.
///
/// Addresses are made up, above 4 GiB and never used twice, with a gap behind each region: one that was cut
/// to 32 bits, confused with a pointer, or kept from an earlier life leads nowhere. The device end reaches
/// memory by [`SoftDma::view`]; whatever is not mapped is [`Error::NotMapped`] there.
///
/// ```
/// use std::sync::Arc;
/// use virtio::mem::dma::{DmaMapper, SoftDma};
/// use virtio::mem::region::DmaRegion;
/// # fn main() -> virtio::Result {
/// let dma = Arc::new(SoftDma::new());
/// let region = DmaRegion::new(4096)?;
/// let addr = dma.map(&region)?;
/// let mut device = dma.view();
/// device.write(addr.0 + 8, b"from the device")?;
/// assert!(device.write(addr.0 + 4090, b"over the end").is_err());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SoftDma {
    limits: DmaLimits,
    table: Mutex<Table>,
    /// Counts the changes of `table`; lets a view see without the lock that its copy is still good.
    changes: AtomicU64,
}

#[derive(Debug)]
struct Table {
    windows: Arc<[Window]>,
    next: u64,
}

impl Default for SoftDma {
    fn default() -> Self {
        Self::new()
    }
}

impl SoftDma {
    /// Nothing mapped; the first region goes to 4 GiB.
    pub fn new() -> Self {
        Self::with_limits(1 << 32, DmaLimits::default())
    }

    /// Nothing mapped; the first region goes to `base`, rounded up to the alignment of `limits`.
    pub fn with_limits(base: u64, limits: DmaLimits) -> Self {
        let windows = Arc::new([]);
        Self { limits, table: Mutex::new(Table { windows, next: base }), changes: AtomicU64::new(0) }
    }

    /// What the device end uses: a copy of the table that follows changes.
    pub fn view(self: &Arc<Self>) -> DmaView {
        let (windows, seen) = self.snapshot();
        DmaView { dma: Arc::clone(self), windows, seen }
    }

    /// The region that holds `len` bytes at `addr`, and their offset in it; `None` where they are not all in
    /// one mapped region. [`DmaView::translate`] does it without a lock.
    pub fn translate(&self, addr: u64, len: usize) -> Option<(Arc<DmaRegion>, usize)> {
        let (windows, _) = self.snapshot();
        windows.iter().find_map(|w| Some((Arc::clone(&w.region), w.offset(addr, len)?)))
    }

    /// Copies from device address `addr` into `to`; [`Error::NotMapped`] where it is not all mapped.
    pub fn read(&self, addr: u64, to: &mut [u8]) -> Result<()> {
        let found = self.translate(addr, to.len());
        let (region, offset) = found.ok_or_else(|| not_mapped(addr, to.len()))?;
        region.read(offset, to)
    }

    /// Copies `from` to device address `addr`; [`Error::NotMapped`] where it is not all mapped.
    pub fn write(&self, addr: u64, from: &[u8]) -> Result<()> {
        let found = self.translate(addr, from.len());
        let (region, offset) = found.ok_or_else(|| not_mapped(addr, from.len()))?;
        region.write(offset, from)
    }

    /// Maps a region at an address that its driver chose. [`Error::Misuse`] where that is not free or the region is
    /// mapped already, [`Error::MemoryLimit`] as [`DmaMapper::map`].
    #[cfg(all(feature = "soft", feature = "vhost-user", not(loom)))]
    pub(crate) fn map_at(&self, region: &Arc<DmaRegion>, addr: u64) -> Result<()> {
        let mut table = self.lock();
        if table.windows.len() >= self.limits.max_regions.min(MAX_REGIONS) {
            return Err(too_many_regions(region.len()));
        }
        let end = addr.checked_add(bytes(region.len()));
        let free = |end: u64| {
            let meets = |w: &Window| addr < w.addr.saturating_add(bytes(w.region.len())) && w.addr < end;
            !table.windows.iter().any(|w| meets(w) || Arc::ptr_eq(&w.region, region))
        };
        if !end.is_some_and(free) {
            return Err(Error::Misuse {
                what: "a memory region is where another one is, or ends beyond 2^64",
            });
        }
        let mut windows = table.windows.to_vec();
        windows.push(Window { addr, region: Arc::clone(region) });
        self.replace(&mut table, windows);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> (Arc<[Window]>, u64) {
        let table = self.lock();
        // Changed under the lock only, so that count and table agree.
        (Arc::clone(&table.windows), self.changes.load(Ordering::Relaxed))
    }

    fn replace(&self, table: &mut Table, windows: Vec<Window>) {
        table.windows = windows.into();
        // Pairs with the acquire in `DmaView::refresh`: who hears of an unmapping has what led to it.
        self.changes.fetch_add(1, Ordering::Release);
    }
}

impl DmaMapper for SoftDma {
    fn map(&self, region: &Arc<DmaRegion>) -> Result<DmaAddr> {
        let mut table = self.lock();
        if table.windows.iter().any(|w| Arc::ptr_eq(&w.region, region)) {
            return Err(Error::Misuse { what: "the region is mapped for this device already" });
        }
        let most = self.limits.max_regions.min(MAX_REGIONS);
        if table.windows.len() >= most {
            return Err(too_many_regions(region.len()));
        }
        let full = Error::MemoryLimit {
            needed: bytes(region.len()),
            have: self.limits.max_addr.saturating_sub(table.next),
            limit: "the device's address space",
        };
        let alignment = self.limits.alignment.max(bytes(region.page_size()));
        let place = || {
            let addr = table.next.checked_next_multiple_of(alignment)?;
            let end = addr.checked_add(bytes(region.len()))?;
            // One page lies between regions, so that an overrun meets no neighbour.
            let next = end.checked_add(bytes(base_page_size()))?;
            (end.checked_sub(1)? <= self.limits.max_addr).then_some((addr, next))
        };
        let (addr, next) = place().ok_or(full)?;
        let mut windows = table.windows.to_vec();
        windows.push(Window { addr, region: Arc::clone(region) });
        table.next = next;
        self.replace(&mut table, windows);
        Ok(DmaAddr(addr))
    }

    fn unmap(&self, region: &Arc<DmaRegion>) -> Result<()> {
        let mut table = self.lock();
        let mut windows = table.windows.to_vec();
        windows.retain(|w| !Arc::ptr_eq(&w.region, region));
        if windows.len() == table.windows.len() {
            return Err(Error::Misuse { what: "the region is not mapped for this device" });
        }
        self.replace(&mut table, windows);
        Ok(())
    }

    fn limits(&self) -> DmaLimits {
        self.limits
    }
}

/// The error of a device that has all the regions it may have.
pub(super) fn too_many_regions(needed: usize) -> Error {
    Error::MemoryLimit {
        needed: bytes(needed),
        have: 0,
        limit: "the number of memory regions of one device: use fewer, larger ones",
    }
}

/// A software device's own view of a [`SoftDma`]: one for each thread of the device end.
///
/// An access costs one load more than the copy itself while the mapping does not change. Each takes a device
/// address and is [`Error::NotMapped`] unless all its bytes lie in one mapped region.
#[derive(Debug, Clone)]
pub struct DmaView {
    dma: Arc<SoftDma>,
    windows: Arc<[Window]>,
    seen: u64,
}

impl DmaView {
    /// The region that holds `len` bytes at `addr`, and their offset in it.
    #[inline]
    pub fn translate(&mut self, addr: u64, len: usize) -> Result<(&Arc<DmaRegion>, usize)> {
        self.refresh();
        let found = self.windows.iter().find_map(|w| Some((&w.region, w.offset(addr, len)?)));
        found.ok_or_else(|| not_mapped(addr, len))
    }

    #[inline]
    fn refresh(&mut self) {
        if self.dma.changes.load(Ordering::Acquire) != self.seen {
            (self.windows, self.seen) = self.dma.snapshot();
        }
    }

    /// Copies from `addr` into `to`.
    #[inline]
    pub fn read(&mut self, addr: u64, to: &mut [u8]) -> Result<()> {
        let (region, offset) = self.translate(addr, to.len())?;
        region.read(offset, to)
    }

    /// Copies `from` to `addr`.
    #[inline]
    pub fn write(&mut self, addr: u64, from: &[u8]) -> Result<()> {
        let (region, offset) = self.translate(addr, from.len())?;
        region.write(offset, from)
    }

    /// Sets `len` bytes at `addr` to `value`.
    #[inline]
    pub fn fill(&mut self, addr: u64, len: usize, value: u8) -> Result<()> {
        let (region, offset) = self.translate(addr, len)?;
        region.fill(offset, len, value)
    }

    /// Reads the word at `addr`, in the machine's byte order, with acquire order.
    /// [`Error::Misuse`] where it is not aligned.
    #[inline]
    pub fn load<T: Word>(&mut self, addr: u64) -> Result<T> {
        let (region, offset) = self.translate(addr, size_of::<T>())?;
        region.load(offset)
    }

    /// Writes the word at `addr`, in the machine's byte order, with release order.
    /// [`Error::Misuse`] where it is not aligned.
    #[inline]
    pub fn store<T: Word>(&mut self, addr: u64, value: T) -> Result<()> {
        let (region, offset) = self.translate(addr, size_of::<T>())?;
        region.store(offset, value)
    }

    /// The rings' memory of `len` bytes at `addr`, for the device end of a virtqueue: cells as the driver has
    /// them. Kept alive by itself, mapped or not. [`Error::Misuse`] where it is not aligned to
    /// [`RING_ALIGN`](super::cell::RING_ALIGN).
    #[cfg(not(loom))]
    pub fn ring_memory(&mut self, addr: u64, len: usize) -> Result<RingMemory> {
        let (region, offset) = self.translate(addr, len)?;
        region.ring_memory(offset, len, addr, Arc::clone(region) as Owner)
    }
}
