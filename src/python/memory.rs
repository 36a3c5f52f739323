//! Pools of a device's memory, as Python's buffers and queues share them.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::PoisonError;

use crate::device::Device;
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::mem::process::Process;
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

/// Equal buffers of a device, each of which is at its owner's, or in flight. Clones are the same buffers.
///
/// A slot that is in flight is taken in the pool's own books, and stays so in quarantine: nothing is kept here that
/// could contradict them but which way the last flight went.
#[derive(Debug, Clone)]
pub(super) struct Bank {
    pool: DmaPool,
    flows: Arc<[AtomicU8]>,
}

impl Bank {
    /// `count` buffers over `pool`, which has as many at least.
    fn new(pool: DmaPool, count: u32) -> Self {
        Self { pool, flows: (0..count).map(|_| AtomicU8::new(Flow::Readable as u8)).collect() }
    }

    /// New memory, or a caller's region, for `device`.
    fn of_device(device: &Device, count: u32, stride: u32, region: Option<&Arc<DmaRegion>>) -> Result<Self> {
        let Some(region) = region else { return Ok(Self::new(device.pool(count, stride)?, count)) };
        let size = u64::from(count).saturating_mul(stride.into());
        if size > region.len() as u64 {
            return Err(Error::OutOfBounds { offset: 0, len: size, size: region.len() as u64 });
        }
        Ok(Self::new(DmaPool::over(device.memory().add_region(region)?, stride)?, count))
    }

    /// Number of buffers.
    fn count(&self) -> u32 {
        u32::try_from(self.flows.len()).unwrap_or(u32::MAX)
    }

    /// Takes a buffer for a flight. [`Error::Misuse`] where it is in flight (fault M10).
    #[inline(always)]
    pub(super) fn take(&self, index: u32, flow: Flow) -> Result<DmaBuf> {
        let Some(mark) = self.flows.get(index as usize) else {
            return Err(Error::Misuse { what: "the pool has no buffer of this number" });
        };
        let Ok(buf) = self.pool.slot(index) else {
            return Err(Error::Misuse {
                what: "this buffer is in flight already, or given twice: wait for its request, or take another buffer",
            });
        };
        mark.store(flow as u8, Ordering::Release);
        Ok(buf)
    }

    /// Which way a buffer is in flight, if it is.
    fn in_flight(&self, index: u32) -> Option<Flow> {
        if self.pool.is_free(index) {
            return None;
        }
        let flow = self.flows.get(index as usize)?.load(Ordering::Acquire);
        Some(if flow == Flow::Readable as u8 { Flow::Readable } else { Flow::Writable })
    }
}

/// A bank as Python's objects hold it. With the last of them its numbers are forgotten; its memory goes back to the
/// device's when no view, and no request in flight or in quarantine, has any of it either.
#[derive(Debug)]
pub(super) struct Memory {
    bank: Bank,
    /// Number of the first buffer at the device.
    first: u32,
    pools: Weak<Pools>,
    /// A fork's child may find the list locked for ever.
    owner: Process,
}

impl Memory {
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    pub(super) fn count(&self) -> u32 {
        self.bank.count()
    }

    pub(super) fn stride(&self) -> u32 {
        self.bank.pool.stride()
    }

    /// Bytes of all buffers.
    pub(super) fn len(&self) -> usize {
        (self.count() as usize).saturating_mul(self.stride() as usize)
    }

    /// Address of a buffer's first byte, valid as long as this value lives.
    pub(super) fn address(&self, index: u32) -> *mut u8 {
        let at = (index as usize).wrapping_mul(self.stride() as usize);
        self.bank.pool.memory().as_ptr().wrapping_add(at)
    }

    pub(super) fn region(&self) -> &Arc<DmaRegion> {
        self.bank.pool.memory().region()
    }

    /// Where the first buffer begins in the region, in bytes.
    pub(super) fn offset(&self) -> usize {
        self.bank.pool.memory().offset()
    }

    /// Takes the first `count` buffers for a flight; errors as [`Bank::take`].
    pub(super) fn take_first(&self, count: usize, flow: Flow) -> Result<Vec<DmaBuf>> {
        // Not collected, which does not know how many there are, and grows.
        let mut bufs = Vec::with_capacity(count.min(self.bank.flows.len()));
        for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            bufs.push(self.bank.take(index, flow)?);
        }
        Ok(bufs)
    }

    /// As [`Bank::take`].
    #[inline]
    pub(super) fn take(&self, index: u32, flow: Flow) -> Result<DmaBuf> {
        self.bank.take(index, flow)
    }

    /// As [`Bank::in_flight`].
    pub(super) fn in_flight(&self, index: u32) -> Option<Flow> {
        self.bank.in_flight(index)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.owner.is_current()
            && let Some(pools) = self.pools.upgrade()
        {
            pools.remove(self.first);
        }
    }
}

/// All pools of one device that anybody refers to, so that a number names a buffer.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<PoolList>);

/// Pools in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct PoolList {
    /// Each with the number of its first buffer.
    banks: Vec<(u32, Bank)>,
    /// Where the next one's numbers are looked for: those of pools that are gone are used again as late as possible.
    next: u32,
}

impl Pools {
    pub(super) fn lock(&self) -> MutexGuard<'_, PoolList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New memory of `device`, or a caller's region, as a pool of its own.
    pub(super) fn make(
        self: &Arc<Self>,
        device: &Device,
        count: u32,
        stride: u32,
        region: Option<&Arc<DmaRegion>>,
    ) -> Result<Arc<Memory>> {
        let bank = Bank::of_device(device, count, stride, region)?;
        let first = self.lock().enter(&bank)?;
        Ok(Arc::new(Memory { bank, first, pools: Arc::downgrade(self), owner: Process::current() }))
    }

    fn remove(&self, first: u32) {
        let mut list = self.lock();
        let place = list.banks.binary_search_by_key(&first, |(first, _)| *first);
        let gone = place.ok().map(|place| list.banks.remove(place));
        // The device's books are locked by themselves.
        drop(list);
        drop(gone);
    }
}

impl PoolList {
    /// Gives a bank its numbers; answers the first one.
    fn enter(&mut self, bank: &Bank) -> Result<u32> {
        let count = bank.count();
        let first = self.gap(self.next, count).or_else(|| self.gap(0, count)).ok_or(Error::MemoryLimit {
            needed: count.into(),
            have: 0,
            limit: "the numbers of a device's buffers",
        })?;
        let place = self.banks.partition_point(|(known, _)| *known < first);
        self.banks.insert(place, (first, bank.clone()));
        self.next = first.wrapping_add(count);
        Ok(first)
    }

    /// The first of `count` numbers that name nothing, at `from` or after it.
    fn gap(&self, from: u32, count: u32) -> Option<u32> {
        let mut at = from;
        let begin = self.banks.partition_point(|(known, _)| *known < from);
        if let Some((first, bank)) = begin.checked_sub(1).and_then(|before| self.banks.get(before)) {
            at = at.max(first.wrapping_add(bank.count()));
        }
        for (first, bank) in self.banks.get(begin..)? {
            if at.checked_add(count)? <= *first {
                return Some(at);
            }
            at = first.wrapping_add(bank.count());
        }
        at.checked_add(count).map(|_| at)
    }

    /// The bank of a number, the number of its first buffer, and the index of this one, if the bank has so many.
    fn find(&self, number: u64) -> Option<(u32, &Bank, u32)> {
        let number = u32::try_from(number).ok()?;
        let place = self.banks.partition_point(|(first, _)| *first <= number);
        let (first, bank) = self.banks.get(place.checked_sub(1)?)?;
        Some((*first, bank, number.checked_sub(*first)?))
    }
}

/// Takes buffers by their numbers, where most are of the same pool as the one before.
pub(super) struct Finder<'a> {
    list: &'a PoolList,
    /// The pool of the last one, and the number of its first buffer.
    bank: Option<(u32, &'a Bank)>,
}

impl<'a> Finder<'a> {
    #[inline]
    pub(super) fn new(list: &'a PoolList) -> Self {
        Self { list, bank: None }
    }

    /// Takes the buffer of this number for a flight. [`Error::Misuse`] where no pool has it, or it is in flight.
    #[inline(always)]
    pub(super) fn take(&mut self, number: u64, flow: Flow) -> Result<DmaBuf> {
        match self.bank {
            Some((first, bank)) if number.wrapping_sub(u64::from(first)) < bank.flows.len() as u64 => {
                // Fits: a pool has fewer buffers than 2^32.
                bank.take((number as u32).wrapping_sub(first), flow)
            }
            _ => self.take_from_another(number, flow),
        }
    }

    #[inline(never)]
    fn take_from_another(&mut self, number: u64, flow: Flow) -> Result<DmaBuf> {
        let Some((first, bank, index)) = self.list.find(number) else {
            return Err(Error::Misuse { what: "no pool of this device has a buffer of this number" });
        };
        self.bank = Some((first, bank));
        bank.take(index, flow)
    }
}
