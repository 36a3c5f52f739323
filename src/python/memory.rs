//! Pools of a device's memory, as Python's buffers and queues share them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::PoisonError;

use crate::device::Device;
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::mem::region::DmaRegion;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// What a device does with a buffer in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Flow {
    /// The device reads it.
    Readable = 0,
    /// The device writes it.
    Writable = 1,
}

/// Equal buffers of a device, each of which is at its owner's, or in flight.
///
/// A slot that is in flight is taken in the pool's own books, and stays so in quarantine: nothing is kept here that
/// could contradict them but which way the last flight went.
#[derive(Debug)]
pub(super) struct Memory {
    pool: DmaPool,
    count: u32,
    flows: Box<[AtomicU8]>,
}

impl Memory {
    /// `count` buffers over `pool`, which has as many at least.
    pub(super) fn new(pool: DmaPool, count: u32) -> Arc<Self> {
        let flows = (0..count).map(|_| AtomicU8::new(Flow::Readable as u8)).collect();
        Arc::new(Self { pool, count, flows })
    }

    /// New memory, or a caller's region, for `device`.
    pub(super) fn of_device(
        device: &Device,
        count: u32,
        stride: u32,
        region: Option<&Arc<DmaRegion>>,
    ) -> Result<Arc<Self>> {
        let Some(region) = region else { return Ok(Self::new(device.pool(count, stride)?, count)) };
        let size = u64::from(count).saturating_mul(stride.into());
        if size > region.len() as u64 {
            return Err(Error::OutOfBounds { offset: 0, len: size, size: region.len() as u64 });
        }
        Ok(Self::new(DmaPool::over(device.memory().add_region(region)?, stride)?, count))
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn stride(&self) -> u32 {
        self.pool.stride()
    }

    /// Bytes of all buffers.
    pub(super) fn len(&self) -> usize {
        (self.count as usize).saturating_mul(self.stride() as usize)
    }

    /// Address of a buffer's first byte, valid as long as this value lives.
    pub(super) fn address(&self, index: u32) -> *mut u8 {
        let at = (index as usize).wrapping_mul(self.stride() as usize);
        self.pool.memory().as_ptr().wrapping_add(at)
    }

    pub(super) fn region(&self) -> &Arc<DmaRegion> {
        self.pool.memory().region()
    }

    /// Where the first buffer begins in the region, in bytes.
    pub(super) fn offset(&self) -> usize {
        self.pool.memory().offset()
    }

    /// Takes a buffer for a flight. [`Error::Misuse`] where it is in flight (fault M10).
    #[inline]
    pub(super) fn take(&self, index: u32, flow: Flow) -> Result<DmaBuf> {
        let Some(mark) = self.flows.get(index as usize) else {
            return Err(Error::Misuse { what: "the pool has no buffer of this number" });
        };
        let buf = self.pool.slot(index).map_err(|_| Error::Misuse {
            what: "this buffer is in flight already: wait for its request, or take another buffer",
        })?;
        mark.store(flow as u8, Ordering::Release);
        Ok(buf)
    }

    /// Which way a buffer is in flight, if it is.
    pub(super) fn in_flight(&self, index: u32) -> Option<Flow> {
        if self.pool.is_free(index) {
            return None;
        }
        let flow = self.flows.get(index as usize)?.load(Ordering::Acquire);
        Some(if flow == Flow::Readable as u8 { Flow::Readable } else { Flow::Writable })
    }
}

/// All pools of one device, so that a number names a buffer: the first pool's begin at 0, each further one's where
/// the one before ended.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<PoolList>);

/// A pool and the number of its first buffer.
pub(super) type PoolList = alloc::vec::Vec<(u32, Arc<Memory>)>;

impl Pools {
    pub(super) fn lock(&self) -> MutexGuard<'_, PoolList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a pool; answers the number of its first buffer.
    pub(super) fn add(&self, memory: &Arc<Memory>) -> u32 {
        let mut list = self.lock();
        let first = list.last().map_or(0, |(first, last)| first.saturating_add(last.count()));
        list.push((first, Arc::clone(memory)));
        first
    }
}

/// The memory and index of the buffer of this number.
#[inline]
pub(super) fn slot(list: &PoolList, number: u64) -> Result<(&Memory, u32)> {
    let unknown = Error::Misuse { what: "no pool of this device has a buffer of this number" };
    let Ok(number) = u32::try_from(number) else { return Err(unknown) };
    let found = list.iter().rev().find(|(first, _)| *first <= number);
    let (first, memory) = found.ok_or(unknown)?;
    Ok((memory, number.wrapping_sub(*first)))
}
