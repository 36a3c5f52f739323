//! The crate's own ring.

use crate::driver::{Buffers, DATA_BYTES, HEADER_BYTES, Request, RingDriver, SLOTS, STATUS_BYTES};
use crate::heap::{HeapUse, heap_use};
use crate::raw::{RingAreas, leak_pages};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::Arc;
use virtio::mem::cell::RingMemory;
use virtio::mem::dma::SoftDma;
use virtio::mem::lease::{Lease, RawRange};
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::mem::quarantine::StoppedProof;
use virtio::mem::space::DmaSpace;
use virtio::queue::{Areas, Completion, Ring, RingConfig};
use virtio::{Error, Result};

/// Where the ring's buffers come from, and where they go when it gives them back.
pub trait Source: Send {
    /// What the ring holds in flight.
    type Buf: Lease + Send;
    /// [`DATA_BYTES`] for the device to read.
    fn one(&mut self, request: &Request) -> Self::Buf;
    /// [`HEADER_BYTES`] for the device to read, [`DATA_BYTES`] and [`STATUS_BYTES`] for it to write.
    fn three(&mut self, request: &Request) -> [Self::Buf; 3];
    /// Takes the buffers of a chain back.
    fn take_back(&mut self, completion: Completion<'_, Self::Buf>);
}

/// The caller's raw memory.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

fn range(addr: u64, len: u32) -> RawRange {
    // SAFETY: requests name the harness's buffers: leaked, and touched by nobody.
    unsafe { RawRange::new(addr, len) }
}

impl Source for Raw {
    type Buf = RawRange;

    #[inline(always)]
    fn one(&mut self, r: &Request) -> RawRange {
        range(r.data, DATA_BYTES)
    }

    #[inline(always)]
    fn three(&mut self, r: &Request) -> [RawRange; 3] {
        [range(r.header, HEADER_BYTES), range(r.data, DATA_BYTES), range(r.status, STATUS_BYTES)]
    }

    #[inline(always)]
    fn take_back(&mut self, completion: Completion<'_, RawRange>) {
        black_box((completion.token(), completion.written()));
    }
}

/// Owned buffers from pools: the safe path. They move into the ring and back; none is taken from its pool, or
/// given back to it, while the clock runs.
#[derive(Debug)]
pub struct Owned {
    ones: Vec<DmaBuf>,
    /// Header, data and status of the requests that are not in flight.
    threes: Vec<[DmaBuf; 3]>,
    /// Lets the pools' memory go at the end: no device ever had it.
    space: DmaSpace,
}

impl Owned {
    /// As many buffers of each kind as requests may be in flight.
    ///
    /// # Errors
    /// As [`DmaPool::new`].
    pub fn new() -> Result<Self> {
        let space = DmaSpace::new(Arc::new(SoftDma::new()));
        let pool = |bytes: u32| DmaPool::new(&space, SLOTS as u32, bytes);
        let (ones, headers) = (pool(DATA_BYTES)?, pool(HEADER_BYTES)?);
        let (data, statuses) = (pool(DATA_BYTES)?, pool(STATUS_BYTES)?);
        let mut threes = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            threes.push([headers.take()?, data.take()?, statuses.take()?]);
        }
        let ones = (0..SLOTS).map(|_| ones.take()).collect::<Result<_>>()?;
        Ok(Self { ones, threes, space })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the device end of these benches touches no payload.
        let proof = unsafe { StoppedProof::assume_stopped(&self.space) };
        self.space.close(&proof).expect("a software mapper unmaps what it mapped");
    }
}

const SAME: &str = "the ring gives back the buffers that it was given";
const ENOUGH: &str = "the harness has no more requests in flight than there are buffers";

impl Source for Owned {
    type Buf = DmaBuf;

    #[inline(always)]
    fn one(&mut self, _: &Request) -> DmaBuf {
        self.ones.pop().expect(ENOUGH)
    }

    #[inline(always)]
    fn three(&mut self, _: &Request) -> [DmaBuf; 3] {
        self.threes.pop().expect(ENOUGH)
    }

    #[inline(always)]
    fn take_back(&mut self, mut completion: Completion<'_, DmaBuf>) {
        black_box((completion.token(), completion.written()));
        if completion.len() == 1 {
            let data = completion.next();
            // Before the vector, which could panic: a completion that may be dropped while unwinding lies in
            // memory, and not in registers.
            drop(completion);
            self.ones.extend(data);
        } else {
            let bufs = completion.take_array();
            drop(completion);
            let [Some(header), Some(data), Some(status)] = bufs else { panic!("{SAME}") };
            // Tells the compiler that the push does not grow the vector: for that, which may panic, the leases
            // would be written to memory as an array first.
            assert!(self.threes.len() < self.threes.capacity(), "{SAME}");
            self.threes.push([header, data, status]);
        }
    }
}

/// The ring with its source of buffers. With `SHOWS` a device that polls is shown a long batch piece by piece, by
/// [`Ring::show`], and begins while the rest is added; else it sees nothing before the batch is whole.
pub struct Ours<S: Source, const SHOWS: bool = true> {
    ring: Ring<S::Buf>,
    areas: RingAreas,
    source: S,
}

impl<S: Source, const SHOWS: bool> Ours<S, SHOWS> {
    /// A ring in new memory, device addresses the same as virtual ones.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn new(config: &RingConfig, source: S) -> Result<Self> {
        let (memory, start) = leaked(config.ring_bytes()?)?;
        let tables = if config.indirect { Some(leaked(config.table_bytes())?.0) } else { None };
        Self::over(config, source, &memory, start, tables.as_ref())
    }

    fn over(
        config: &RingConfig,
        source: S,
        memory: &RingMemory,
        start: *mut u8,
        tables: Option<&RingMemory>,
    ) -> Result<Self> {
        let mut ring = Ring::new(memory, tables, config)?;
        ring.disable_interrupts();
        let at = Areas::new(config.layout, config.size)?;
        // SAFETY: the ring placed its areas at these offsets of leaked memory, and accesses them atomically.
        let areas = unsafe {
            RingAreas::new(start.add(at.descriptor), start.add(at.driver), start.add(at.device), config.size)
        };
        Ok(Self { ring, areas, source })
    }
}

fn leaked(bytes: usize) -> Result<(RingMemory, *mut u8)> {
    let start = NonNull::from(leak_pages(bytes)).cast::<u8>();
    // SAFETY: new memory of that size, aligned to a page and leaked; all accesses to it are atomic.
    let memory = unsafe { RingMemory::from_raw(start, bytes, start.as_ptr() as u64, None)? };
    Ok((memory, start.as_ptr()))
}

impl<S: Source, const SHOWS: bool> RingDriver for Ours<S, SHOWS> {
    fn areas(&self) -> RingAreas {
        self.areas
    }

    #[inline(always)]
    fn add1(&mut self, r: &Request) {
        let data = self.source.one(r);
        let token = self.ring.add([data], []);
        black_box(token.map_err(Error::from).expect("the harness adds only what fits"));
    }

    #[inline(always)]
    fn add3(&mut self, r: &Request) {
        let [header, data, status] = self.source.three(r);
        let token = self.ring.add([header], [data, status]);
        black_box(token.map_err(Error::from).expect("the harness adds only what fits"));
    }

    #[inline(always)]
    fn show(&mut self) {
        if SHOWS {
            self.ring.show();
        }
    }

    #[inline(always)]
    fn publish(&mut self) {
        assert!(self.ring.publish().is_none());
    }

    #[inline(always)]
    fn pop(&mut self) -> bool {
        match self.ring.pop().expect("the device end is honest") {
            Some(completion) => {
                self.source.take_back(completion);
                true
            }
            None => false,
        }
    }
}

/// Heap use, in bytes, of a queue of 256 with 256 requests of three parts in tables of their own in flight:
/// all that the ring allocates, and the memory that it wants for tables. The ring's own memory is not in it.
///
/// # Errors
/// As [`Ring::new`].
pub fn memory_beyond_the_ring() -> Result<u64> {
    let mut config = RingConfig::new(0, 256);
    config.indirect = true;
    let (memory, start) = leaked(config.ring_bytes()?)?;
    let tables = leaked(config.table_bytes())?.0;
    let buffers = Buffers::allocate();
    let (ours, used) = heap_use(|| {
        let mut ours = Ours::<_, true>::over(&config, Raw, &memory, start, Some(&tables))?;
        for sequence in 0..256 {
            ours.add3(&buffers.request(sequence));
        }
        Ok::<_, virtio::Error>(ours)
    });
    drop(ours?);
    Ok(used.bytes + config.table_bytes() as u64)
}

/// What adding, publishing and taking allocates. `indirect` puts the chains into tables.
///
/// # Errors
/// As [`Ring::new`].
pub fn hot_path_allocations(indirect: bool) -> Result<u64> {
    let mut config = RingConfig::new(0, 256);
    config.indirect = indirect;
    let mut ours = Ours::<_, true>::new(&config, Raw)?;
    let mut device = crate::device::RawDevice::new(ours.areas());
    let buffers = Buffers::allocate();
    let ((), HeapUse { allocations, .. }) = heap_use(|| {
        for batch in 0..1000 {
            for sequence in 0..64 {
                ours.add3(&buffers.request(batch * 64 + sequence));
            }
            ours.publish();
            assert_eq!(device.drain(), 64);
            while ours.pop() {}
        }
    });
    Ok(allocations)
}
