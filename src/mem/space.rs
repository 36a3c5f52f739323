//! The memory of one device: a few large regions, and the chunks that rings, tables and pools take from them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::PoisonError;

#[cfg(not(loom))]
use super::cell::RingMemory;
use super::dma::{DmaAddr, DmaMapper, MAX_REGIONS, too_many_regions};
use super::mapping::{base_page_size, bytes, round_up};
use super::process::Process;
use super::quarantine::{Quarantine, StoppedProof, keep_for_ever};
use super::region::DmaRegion;
use super::spans::Spans;
use crate::error::errno;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Size in bytes of the first region of a space; each later one is at least twice as large as the one before.
const FIRST_REGION: usize = 2 << 20;
/// Where the doubling ends.
const LARGEST_STEP: usize = 1 << 30;

/// The memory of one device.
///
/// It reserves large regions as they are needed, at most [`MAX_REGIONS`] at a time, maps each once, and hands out
/// [`DmaChunk`]s. Clones share the memory. Any thread may call.
///
/// A region stays mapped for the device until [`DmaSpace::close`] is given a proof that the device has
/// stopped, or another one needs its place and nothing of it is given out. A space that is dropped without one leaves its regions, mappings and all but their descriptors,
/// to the process-wide quarantine, for ever. Chunks may outlive the space; their memory stays readable.
#[derive(Clone)]
pub struct DmaSpace(Arc<Inner>);

struct Inner {
    id: u64,
    /// A fork's child must not touch the device.
    owner: Process,
    mapper: Arc<dyn DmaMapper>,
    quarantine: Quarantine,
    state: Mutex<State>,
}

struct State {
    regions: Vec<Arc<SpaceRegion>>,
    next_size: usize,
    closed: bool,
}

/// A region of a space, with its book of free parts.
struct SpaceRegion {
    owner: Process,
    region: Arc<DmaRegion>,
    addr: u64,
    purpose: Purpose,
}

enum Purpose {
    /// Reserved by the space: its free parts.
    Own(Mutex<Spans>),
    /// A caller's: given out as a whole; whether it is.
    Lent(AtomicBool),
}

impl SpaceRegion {
    fn spans(&self) -> Option<MutexGuard<'_, Spans>> {
        match &self.purpose {
            Purpose::Own(spans) => Some(spans.lock().unwrap_or_else(PoisonError::into_inner)),
            Purpose::Lent(_) => None,
        }
    }

    /// Whether nothing of it is given out.
    fn is_idle(&self) -> bool {
        match &self.purpose {
            Purpose::Own(_) => self.spans().is_some_and(|spans| spans.is_whole(self.region.len())),
            Purpose::Lent(out) => !out.load(Ordering::Acquire),
        }
    }

    /// Marks a caller's region as given out; `false` where it is already, or is not a caller's.
    fn lend(&self) -> bool {
        match &self.purpose {
            Purpose::Own(_) => false,
            Purpose::Lent(out) => !out.swap(true, Ordering::AcqRel),
        }
    }
}

/// Numbers the spaces of the process, so that a proof or a buffer of another device is known as such.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl DmaSpace {
    /// The memory of a device that `mapper` makes memory reachable for. Nothing is reserved yet.
    pub fn new(mapper: Arc<dyn DmaMapper>) -> Self {
        Self::with_first_region(mapper, FIRST_REGION)
    }

    /// As [`DmaSpace::new`], with a wish for the size in bytes of the first region. Each later one doubles.
    pub fn with_first_region(mapper: Arc<dyn DmaMapper>, first: usize) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let state = State { regions: Vec::new(), next_size: first, closed: false };
        let quarantine = Quarantine::new(id);
        Self(Arc::new(Inner { id, owner: Process::current(), mapper, quarantine, state: Mutex::new(state) }))
    }

    /// A number that no other space of this process has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What the device was not proven to have let go.
    pub fn quarantine(&self) -> &Quarantine {
        &self.0.quarantine
    }

    /// The mapper behind it.
    pub fn mapper(&self) -> &Arc<dyn DmaMapper> {
        &self.0.mapper
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        self.0.owner.check("device memory")?;
        let state = self.0.lock();
        if state.closed {
            return Err(Error::Closed { what: "device memory" });
        }
        Ok(state)
    }

    /// `len` bytes, all zero, whose device address is a multiple of `align` (a power of two). Both are
    /// rounded up to a cache line, so that no two chunks share one.
    ///
    /// [`Error::MemoryLimit`] where the device has all the regions that it may have and none has room, or
    /// where the system or the mapper has no more; [`Error::Misuse`] for no bytes or another alignment;
    /// [`Error::Closed`] after [`DmaSpace::close`].
    pub fn alloc(&self, len: usize, align: usize) -> Result<DmaChunk> {
        if len == 0 {
            return Err(Error::Misuse { what: "memory of no bytes cannot be given to a device" });
        }
        if !align.is_power_of_two() {
            return Err(Error::Misuse { what: "an alignment must be a power of two" });
        }
        let mut state = self.open_state()?;
        if let Some(chunk) = state.regions.iter().cloned().find_map(|home| self.carve(home, len, align)) {
            return chunk;
        }
        let home = self.grow(&mut state, len, align)?;
        self.carve(home, len, align).unwrap_or(Err(too_many_regions(len)))
    }

    /// A chunk of `home`, or `None` where it has no room.
    fn carve(&self, home: Arc<SpaceRegion>, len: usize, align: usize) -> Option<Result<DmaChunk>> {
        let span = home.spans()?.take(home.addr, len, bytes(align))?;
        let addr = home.addr.wrapping_add(bytes(span.offset));
        let chunk = DmaChunk { home, space: self.0.id, addr, offset: span.offset, len, taken: span.len };
        // Only what was handed out before: a fresh region is zero, and stays untouched until it is used.
        Some(chunk.home.region.fill(span.offset, span.used_before, 0).map(|()| chunk))
    }

    /// Reserves and maps one more region with room for `len` bytes at `align`.
    fn grow(&self, state: &mut State, len: usize, align: usize) -> Result<Arc<SpaceRegion>> {
        if !self.make_room(state)? {
            return Err(too_many_regions(len));
        }
        let page = base_page_size();
        // A region is only known to begin at a page, so that a larger alignment may cost its difference.
        let need = round_up(len.saturating_add(align.saturating_sub(page)), page)?;
        let wish = need.max(state.next_size);
        let made = self.reserve(wish).or_else(|error| match error.errno() {
            // Little memory, or a small limit on locked memory: take what is needed alone.
            errno::ENOMEM if wish > need => self.reserve(need),
            _ => Err(error),
        })?;
        state.next_size = made.region.len().saturating_mul(2).min(LARGEST_STEP);
        state.regions.push(Arc::clone(&made));
        Ok(made)
    }

    /// Whether the device may have one more region. Where it has all that it may, one of which nothing is given out,
    /// not even to the quarantine, is taken from it: a caller's before the space's own.
    fn make_room(&self, state: &mut State) -> Result<bool> {
        if state.regions.len() < self.0.mapper.limits().max_regions.min(MAX_REGIONS) {
            return Ok(true);
        }
        let idle =
            |own| state.regions.iter().position(|home| home.spans().is_some() == own && home.is_idle());
        let Some(place) = idle(false).or_else(|| idle(true)) else { return Ok(false) };
        let home = state.regions.remove(place);
        // Nothing is added while the state is locked, so that it is idle still.
        if let Err(error) = self.0.mapper.withdraw(&home.region) {
            state.regions.insert(place, home);
            return Err(error);
        }
        Ok(true)
    }

    fn reserve(&self, len: usize) -> Result<Arc<SpaceRegion>> {
        let region = self.0.mapper.new_region(len)?;
        let spans = Mutex::new(Spans::new(region.len()));
        self.map(region, Purpose::Own(spans))
    }

    fn map(&self, region: Arc<DmaRegion>, purpose: Purpose) -> Result<Arc<SpaceRegion>> {
        let limits = self.0.mapper.limits();
        let DmaAddr(addr) = self.0.mapper.map(&region)?;
        let last = addr.checked_add(bytes(region.len() - 1));
        if last.is_none_or(|last| last > limits.max_addr) {
            // The device was told of no address in it yet, so that it may go at once.
            self.0.mapper.unmap(&region)?;
            return Err(Error::MemoryLimit {
                needed: addr.saturating_add(bytes(region.len())),
                have: limits.max_addr,
                limit: "what the device can address",
            });
        }
        Ok(Arc::new(SpaceRegion { owner: self.0.owner, region, addr, purpose }))
    }

    /// Maps a caller's region and gives it out as one chunk; its content stays. It counts towards the
    /// device's [`MAX_REGIONS`] and stays mapped until [`DmaSpace::close`]; once its chunk was dropped it can
    /// be asked for again, and makes room for another region where there is none.
    ///
    /// [`Error::MemoryLimit`] where the device has all its regions and all are in use, [`Error::Misuse`] while a chunk over it is
    /// out. Should the device never be proven to have stopped, [`DmaRegion::close_fd`] is called on it.
    pub fn add_region(&self, region: &Arc<DmaRegion>) -> Result<DmaChunk> {
        let mut state = self.open_state()?;
        let known = state.regions.iter().find(|home| Arc::ptr_eq(&home.region, region)).cloned();
        let home = match known {
            Some(home) => home,
            None if !self.make_room(&mut state)? => return Err(too_many_regions(region.len())),
            None => {
                let home = self.map(Arc::clone(region), Purpose::Lent(AtomicBool::new(false)))?;
                state.regions.push(Arc::clone(&home));
                home
            }
        };
        if !home.lend() {
            return Err(Error::Misuse { what: "this region is in use by the device already" });
        }
        let (addr, len) = (home.addr, region.len());
        Ok(DmaChunk { home, space: self.0.id, addr, offset: 0, len, taken: len })
    }

    /// The regions that the device can reach, with their addresses.
    pub fn regions(&self) -> Vec<(Arc<DmaRegion>, DmaAddr)> {
        let state = self.0.lock();
        state.regions.iter().map(|home| (Arc::clone(&home.region), DmaAddr(home.addr))).collect()
    }

    /// Bytes that [`DmaSpace::alloc`] can give without another region (in one piece or not).
    pub fn free_bytes(&self) -> usize {
        let state = self.0.lock();
        state.regions.iter().filter_map(|home| home.spans().map(|spans| spans.free_bytes())).sum()
    }

    /// Takes all memory from the device, which was proven to have stopped: empties the quarantine and unmaps
    /// every region. Chunks and buffers that are alive keep their memory readable.
    ///
    /// [`Error::Misuse`] for another device's proof; then nothing happened. A region that the mapper fails to
    /// unmap is kept for ever, and the first such error given. In a fork's child nothing is unmapped and the
    /// error is [`Error::ForkedProcess`].
    pub fn close(&self, proof: &StoppedProof) -> Result<()> {
        self.0.owner.check("device memory")?;
        self.0.quarantine.release(proof)?;
        let regions = {
            let mut state = self.0.lock();
            state.closed = true;
            core::mem::take(&mut state.regions)
        };
        let mut outcome = Ok(());
        for home in regions {
            if let Err(error) = self.0.mapper.unmap(&home.region) {
                log::error!("{} bytes of memory are kept: unmapping them failed: {error}", home.region.len());
                keep_region(home);
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }
}

/// Keeps a region mapped for the life of the process, without its descriptor.
fn keep_region(home: Arc<SpaceRegion>) {
    home.region.close_fd();
    let len = bytes(home.region.len());
    keep_for_ever(Box::new(home), len);
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let regions = core::mem::take(&mut state.regions);
        if !self.owner.is_current() {
            // A fork's child owns neither device nor mapping: what it holds is a copy of the books, which keeps
            // no descriptor open.
            regions.iter().for_each(|home| home.region.close_fd());
            self.quarantine.discard();
            return;
        }
        if regions.is_empty() {
            return;
        }
        let len: usize = regions.iter().map(|home| home.region.len()).sum();
        regions.into_iter().for_each(keep_region);
        log::error!(
            "{len} bytes of memory are kept for the life of the process: their device was not proven to have \
             stopped; close it with a reset"
        );
    }
}

impl fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaSpace")
            .field("id", &self.0.id)
            .field("regions", &self.regions())
            .field("quarantine", &self.0.quarantine)
            .finish_non_exhaustive()
    }
}

/// A piece of a device's memory, given back when it is dropped: for a ring, a table or a pool.
///
/// Dropping it while the device uses it lets the memory be handed out again under the device's hands; what
/// may be in flight goes to [`DmaSpace::quarantine`] instead.
pub struct DmaChunk {
    home: Arc<SpaceRegion>,
    space: u64,
    addr: u64,
    offset: usize,
    len: usize,
    /// Bytes that the book of free parts counts for it.
    taken: usize,
}

/// Refuses `len` bytes at `offset` of a piece of `size`.
#[inline]
pub(super) fn within(offset: usize, len: usize, size: usize) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Error::OutOfBounds { offset: bytes(offset), len: bytes(len), size: bytes(size) }),
    }
}

impl DmaChunk {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a chunk has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte as the device knows it.
    pub fn device_addr(&self) -> u64 {
        self.addr
    }

    /// Address of the first byte in this process; see [`DmaRegion::as_ptr`].
    pub fn as_ptr(&self) -> *mut u8 {
        self.home.region.as_ptr().wrapping_add(self.offset)
    }

    /// The region that it lies in.
    pub fn region(&self) -> &Arc<DmaRegion> {
        &self.home.region
    }

    /// Where it begins in [`DmaChunk::region`], in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// [`DmaSpace::id`] of the space that it comes from.
    pub fn space_id(&self) -> u64 {
        self.space
    }

    /// Makes it the memory of a ring. The chunk goes back when the last handle or cell of it is dropped; a
    /// clone in [`DmaSpace::quarantine`] keeps it.
    ///
    /// [`Error::Misuse`] where it is not aligned to [`RING_ALIGN`](super::cell::RING_ALIGN) (every chunk of
    /// [`DmaSpace::alloc`] is).
    #[cfg(not(loom))]
    pub fn into_ring_memory(self) -> Result<RingMemory> {
        let (region, offset, len, addr) = (Arc::clone(self.region()), self.offset, self.len, self.addr);
        region.ring_memory(offset, len, addr, Arc::new(self))
    }

    /// As [`DmaRegion::read`], from `offset` in the chunk on.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        within(offset, to.len(), self.len)?;
        self.home.region.read(self.offset.wrapping_add(offset), to)
    }

    /// As [`DmaRegion::write`], to `offset` in the chunk.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        within(offset, from.len(), self.len)?;
        self.home.region.write(self.offset.wrapping_add(offset), from)
    }

    /// As [`DmaRegion::fill`], from `offset` in the chunk on.
    #[inline]
    pub fn fill(&self, offset: usize, len: usize, value: u8) -> Result<()> {
        within(offset, len, self.len)?;
        self.home.region.fill(self.offset.wrapping_add(offset), len, value)
    }
}

impl Drop for DmaChunk {
    fn drop(&mut self) {
        // The book may have been locked by another thread when this process was forked, and for ever.
        if !self.home.owner.is_current() {
            return;
        }
        match &self.home.purpose {
            Purpose::Own(spans) => {
                spans.lock().unwrap_or_else(PoisonError::into_inner).give(self.offset, self.taken);
            }
            Purpose::Lent(out) => out.store(false, Ordering::Release),
        }
    }
}

impl fmt::Debug for DmaChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaChunk({:#x}+{:#x})", self.addr, self.len)
    }
}
