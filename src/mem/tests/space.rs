#![expect(unsafe_code, reason = "fork")]

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use crate::mem::dma::{DmaAddr, DmaLimits, DmaMapper, MAX_REGIONS, SoftDma};
use crate::mem::quarantine::StoppedProof;
use crate::mem::region::DmaRegion;
use crate::mem::space::{DmaChunk, DmaSpace};
use crate::mem::spans::{GRANULE, Spans};
use crate::{Error, Result};

fn close(space: &DmaSpace) -> Result<()> {
    space.close(&StoppedProof::confirmed(space))
}

/// Counts, limits the bytes that may be mapped, and can fail to unmap.
#[derive(Debug, Default)]
struct Picky {
    inner: SoftDma,
    budget: Option<usize>,
    mapped: AtomicUsize,
    unmaps: AtomicUsize,
    stuck: AtomicBool,
    limits: DmaLimits,
}

impl DmaMapper for Picky {
    fn map(&self, region: &Arc<DmaRegion>) -> Result<DmaAddr> {
        let have = self.budget.map_or(usize::MAX, |budget| budget - self.mapped.load(Ordering::Relaxed));
        if region.len() > have {
            let (needed, have) = (region.len() as u64, have as u64);
            return Err(Error::MemoryLimit { needed, have, limit: "locked memory" });
        }
        let addr = self.inner.map(region)?;
        self.mapped.fetch_add(region.len(), Ordering::Relaxed);
        Ok(addr)
    }

    fn unmap(&self, region: &Arc<DmaRegion>) -> Result<()> {
        self.unmaps.fetch_add(1, Ordering::Relaxed);
        if self.stuck.load(Ordering::Relaxed) {
            return Err(Error::Os { doing: "unmap", errno: 5 });
        }
        self.mapped.fetch_sub(region.len(), Ordering::Relaxed);
        self.inner.unmap(region)
    }

    fn limits(&self) -> DmaLimits {
        self.limits
    }
}

#[test]
fn chunks_are_zero_aligned_and_reachable_for_the_device() {
    let dma = Arc::new(SoftDma::new());
    let space = DmaSpace::new(dma.clone());
    for (len, align) in [(1, 1), (100, 2), (64, 64), (5000, 4096), (10, 65_536), (3, 1 << 20), (7, 1 << 22)] {
        let chunk = space.alloc(len, align).unwrap();
        assert_eq!(chunk.len(), len);
        assert!(chunk.device_addr().is_multiple_of(align.max(64) as u64), "{chunk:?} for {align}");
        assert!(chunk.as_ptr().addr().is_multiple_of(align.clamp(64, 4096)));
        let mut bytes = vec![1; len];
        chunk.read(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == 0), "{len} bytes at {align} are not zero");
        chunk.fill(0, len, 0xFF).unwrap();
        dma.read(chunk.device_addr(), &mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == 0xFF));
    }
    close(&space).unwrap();
}

#[test]
fn accesses_are_checked_against_the_chunk_not_the_region() {
    let space = DmaSpace::new(Arc::new(SoftDma::new()));
    let (a, b) = (space.alloc(100, 1).unwrap(), space.alloc(100, 1).unwrap());
    assert_eq!(a.write(90, &[1; 11]), Err(Error::OutOfBounds { offset: 90, len: 11, size: 100 }));
    assert!(a.read(101, &mut []).is_err() && a.fill(0, 101, 1).is_err() && a.fill(1, usize::MAX, 1).is_err());
    let mut bytes = [1; 100];
    b.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 100]);
    close(&space).unwrap();
}

#[test]
fn many_chunks_come_from_few_regions() {
    let space = DmaSpace::new(Arc::new(SoftDma::new()));
    let chunks: Vec<_> = (0..2000).map(|i| space.alloc(4096 + i, 4096).unwrap()).collect();
    assert!(space.regions().len() <= 4, "{space:?}");
    drop(chunks);
    close(&space).unwrap();
}

#[test]
fn the_ninth_region_is_refused_and_what_was_given_back_is_used_again() {
    let dma = Arc::new(SoftDma::new());
    let space = DmaSpace::with_first_region(dma, 4096);
    let mut chunks = Vec::new();
    let refused = loop {
        // Each more than all that is free, so that each needs a region of its own.
        match space.alloc(space.free_bytes() + 1, 1) {
            Ok(chunk) => chunks.push(chunk),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::MemoryLimit { have: 0, .. }), "{refused:?}");
    assert_eq!((chunks.len(), space.regions().len()), (MAX_REGIONS, MAX_REGIONS));
    let caller = DmaRegion::new(4096).unwrap();
    assert!(matches!(space.add_region(&caller), Err(Error::MemoryLimit { .. })));
    let largest = chunks.pop().unwrap().len();
    drop(space.alloc(largest, 1).unwrap());
    drop(chunks);
    close(&space).unwrap();
}

#[test]
fn a_region_of_which_nothing_is_given_out_makes_room_for_another() {
    let mapper = Arc::new(Picky::default());
    let space = DmaSpace::with_first_region(mapper.clone(), 4096);
    let own = space.alloc(4096, 1).unwrap();
    // Callers' regions come and go, and one of them stays in use.
    let kept = DmaRegion::new(4096).unwrap();
    let kept_chunk = space.add_region(&kept).unwrap();
    for _ in 0..100 {
        let region = DmaRegion::new(4096).unwrap();
        drop(space.add_region(&region).unwrap());
        assert!(space.regions().len() <= MAX_REGIONS);
    }
    assert_eq!(mapper.unmaps.load(Ordering::Relaxed), 100 - (MAX_REGIONS - 2));
    kept_chunk.write(0, b"mapped").unwrap();
    mapper.inner.read(kept_chunk.device_addr(), &mut [0; 6]).unwrap();
    // The space's own are given up as well, where they are whole: pieces that grow and go do not fill it.
    for step in 0..20 {
        let chunk = space.alloc(8192 << step, 1).unwrap();
        mapper.inner.read(chunk.device_addr(), &mut [0; 8]).unwrap();
    }
    // What is in quarantine is given out.
    let chunks: Vec<_> =
        core::iter::from_fn(|| space.add_region(&DmaRegion::new(4096).unwrap()).ok()).collect();
    let regions = space.regions().len();
    chunks.into_iter().for_each(|chunk| space.quarantine().hold(chunk, 4096));
    assert!(matches!(space.add_region(&DmaRegion::new(4096).unwrap()), Err(Error::MemoryLimit { .. })));
    assert_eq!(space.regions().len(), regions);
    drop(own);
    close(&space).unwrap();
}

#[test]
fn a_region_that_cannot_be_withdrawn_stays_the_device_s() {
    let mapper = Arc::new(Picky::default());
    let space = DmaSpace::with_first_region(mapper.clone(), 4096);
    for _ in 0..MAX_REGIONS {
        drop(space.add_region(&DmaRegion::new(4096).unwrap()).unwrap());
    }
    mapper.stuck.store(true, Ordering::Relaxed);
    assert!(matches!(space.add_region(&DmaRegion::new(4096).unwrap()), Err(Error::Os { .. })));
    assert_eq!(space.regions().len(), MAX_REGIONS);
    mapper.stuck.store(false, Ordering::Relaxed);
    drop(space.add_region(&DmaRegion::new(4096).unwrap()).unwrap());
    close(&space).unwrap();
}

#[test]
fn a_mapper_may_allow_fewer_regions() {
    let limits = DmaLimits { max_regions: 1, ..DmaLimits::default() };
    let space = DmaSpace::with_first_region(Arc::new(SoftDma::with_limits(1 << 32, limits)), 8192);
    let first = space.alloc(8192, 4096).unwrap();
    assert!(matches!(space.alloc(1, 1), Err(Error::MemoryLimit { .. })));
    drop(first);
    space.alloc(1, 1).unwrap();
    close(&space).unwrap();
}

#[test]
fn e5_little_lockable_memory_is_used_to_the_last_page() {
    let mapper = Arc::new(Picky { budget: Some(7 << 20), ..Picky::default() });
    let space = DmaSpace::new(mapper.clone());
    let mut chunks: Vec<_> = (0..3).map(|_| space.alloc(2 << 20, 4096).unwrap()).collect();
    chunks.push(space.alloc(1 << 20, 4096).unwrap());
    assert_eq!(mapper.mapped.load(Ordering::Relaxed), 7 << 20);
    let refused = space.alloc(1 << 20, 4096).unwrap_err();
    assert!(matches!(refused, Error::MemoryLimit { limit: "locked memory", .. }), "{refused:?}");
    drop(chunks);
    close(&space).unwrap();
}

#[test]
fn an_address_beyond_the_devices_reach_is_refused_and_unmapped() {
    let limits = DmaLimits { max_addr: u64::from(u32::MAX), ..DmaLimits::default() };
    let mapper = Arc::new(Picky { limits, ..Picky::default() });
    let space = DmaSpace::new(mapper.clone());
    assert!(matches!(space.alloc(1, 1), Err(Error::MemoryLimit { limit, .. }) if limit.contains("address")));
    assert_eq!(mapper.mapped.load(Ordering::Relaxed), 0);
    assert!(space.regions().is_empty());
}

#[test]
fn misuse_is_named() {
    let space = DmaSpace::new(Arc::new(SoftDma::new()));
    assert!(matches!(space.alloc(0, 1), Err(Error::Misuse { .. })));
    assert!(matches!(space.alloc(1, 0), Err(Error::Misuse { .. })));
    assert!(matches!(space.alloc(1, 3), Err(Error::Misuse { .. })));
    assert!(matches!(space.alloc(usize::MAX, 1), Err(Error::MemoryLimit { .. })));
    assert!(matches!(space.alloc(usize::MAX - 100, 1 << 20), Err(Error::MemoryLimit { .. })));
    assert!(matches!(space.alloc(1, 1 << 63), Err(Error::MemoryLimit { .. })));
    close(&space).unwrap();
    assert!(matches!(space.alloc(1, 1), Err(Error::Closed { .. })));
}

#[test]
fn a_callers_region_is_mapped_once_and_given_out_whole() {
    let mapper = Arc::new(Picky::default());
    let space = DmaSpace::new(mapper.clone());
    let region = DmaRegion::new(16_384).unwrap();
    region.fill(0, 16_384, 7).unwrap();
    let chunk = space.add_region(&region).unwrap();
    assert_eq!((chunk.len(), chunk.offset()), (16_384, 0));
    assert!(Arc::ptr_eq(chunk.region(), &region));
    assert!(matches!(space.add_region(&region), Err(Error::Misuse { .. })));
    let addr = chunk.device_addr();
    drop(chunk);
    let other = space.alloc(64, 1).unwrap();
    assert!(!Arc::ptr_eq(other.region(), &region), "a caller's region is not allocated from");
    assert!(matches!(space.add_region(other.region()), Err(Error::Misuse { .. })));
    assert_eq!(space.add_region(&region).unwrap().device_addr(), addr);
    assert_eq!(region.load::<u8>(16_383).unwrap(), 7, "its content was changed");
    drop(other);
    close(&space).unwrap();
    assert_eq!(mapper.mapped.load(Ordering::Relaxed), 0);
    assert_eq!(mapper.unmaps.load(Ordering::Relaxed), 2);
    assert_eq!(Arc::strong_count(&region), 1);
}

#[test]
fn close_needs_this_devices_proof_and_unmaps_everything() {
    let dma = Arc::new(SoftDma::new());
    let (space, other) = (DmaSpace::new(dma.clone()), DmaSpace::new(Arc::new(SoftDma::new())));
    let chunk = space.alloc(4096, 1).unwrap();
    chunk.write(0, b"read me").unwrap();
    let refused = space.close(&StoppedProof::confirmed(&other));
    assert!(matches!(refused, Err(Error::Misuse { .. })));
    assert!(dma.translate(chunk.device_addr(), 1).is_some(), "unmapped without a proof");
    close(&space).unwrap();
    assert!(dma.translate(chunk.device_addr(), 1).is_none());
    let mut bytes = [0; 7];
    chunk.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"read me", "a live view was pulled away");
}

#[test]
fn a_region_that_cannot_be_unmapped_is_kept() {
    let mapper = Arc::new(Picky::default());
    let space = DmaSpace::new(mapper.clone());
    drop(space.alloc(1, 1).unwrap());
    let region = Arc::downgrade(&space.regions()[0].0);
    mapper.stuck.store(true, Ordering::Relaxed);
    assert_eq!(close(&space), Err(Error::Os { doing: "unmap", errno: 5 }));
    drop((space, mapper));
    assert!(region.upgrade().unwrap().fd().is_none());
}

#[cfg(not(loom))]
#[test]
fn driver_and_device_end_have_cells_over_the_same_ring_memory() {
    use crate::mem::cell::Cells16;
    use crate::sync::Ordering::Relaxed;

    let dma = Arc::new(SoftDma::new());
    let space = DmaSpace::new(dma.clone());
    let chunk = space.alloc(64, 16).unwrap();
    let (addr, free) = (chunk.device_addr(), space.free_bytes());
    let driver = chunk.into_ring_memory().unwrap();
    assert_eq!((driver.len(), driver.device_addr()), (64, addr));
    let mut view = dma.view();
    let device = view.ring_memory(addr, 64).unwrap();
    let cells = [Cells16::new(&driver, 0, 32).unwrap(), Cells16::new(&device, 0, 32).unwrap()];
    cells[0].store(7, 0x1234, Relaxed);
    assert_eq!(cells[1].load(7, Relaxed), 0x1234);
    assert!(matches!(view.ring_memory(addr + 8, 16), Err(Error::Misuse { .. })));
    assert!(matches!(view.ring_memory(addr + 16, usize::MAX), Err(Error::NotMapped { .. })));
    drop(driver);
    assert_eq!(space.free_bytes(), free, "given back with a cell alive");
    drop(cells);
    assert_eq!(space.free_bytes(), free + 64);
    close(&space).unwrap();
}

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

#[test]
fn m6_a_forks_child_touches_neither_mapper_nor_quarantine() {
    let mapper = Arc::new(Picky::default());
    let space = DmaSpace::new(mapper.clone());
    let chunk = space.alloc(64, 1).unwrap();
    let held = Arc::new(());
    space.quarantine().hold(Arc::clone(&held), 1);
    let region = Arc::downgrade(chunk.region());
    // SAFETY: the child only uses memory, which is a copy of ours, and leaves by _exit.
    let pid = unsafe { fork() };
    if pid == 0 {
        let good = matches!(space.alloc(1, 1), Err(Error::ForkedProcess { .. }))
            && matches!(close(&space), Err(Error::ForkedProcess { .. }))
            && chunk.write(0, b"child").is_ok();
        drop(space);
        drop(chunk);
        let good = good
            && mapper.unmaps.load(Ordering::Relaxed) == 0
            && Arc::strong_count(&held) == 1
            && region.strong_count() == 1; // The child's copy of the mapper.
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { _exit(if good { 0 } else { 1 }) };
    }
    let mut status = -1;
    // SAFETY: `status` is a live integer.
    let waited = unsafe { waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the child saw something else");
    let mut bytes = [0; 5];
    chunk.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"child", "views are shared with the child");
    space.alloc(1, 1).unwrap();
    close(&space).unwrap();
    assert_eq!(mapper.unmaps.load(Ordering::Relaxed), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_never_overlap_and_all_come_back(
        len in 64usize..200_000,
        steps in prop::collection::vec((any::<bool>(), 1usize..9000, 0u32..14, any::<prop::sample::Index>()), 1..120),
    ) {
        let base = 0x1_0000_0000u64;
        let mut spans = Spans::new(len);
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut high = 0;
        for (give, size, shift, pick) in steps {
            if give && !taken.is_empty() {
                let (offset, size) = taken.swap_remove(pick.index(taken.len()));
                spans.give(offset, size);
            } else if let Some(span) = spans.take(base, size, 1 << shift) {
                prop_assert!(span.len >= size && span.len < size + GRANULE);
                prop_assert!((base + span.offset as u64).is_multiple_of(1 << shift));
                prop_assert!(span.offset + span.len <= len);
                prop_assert_eq!(span.used_before, high.min(span.offset + span.len).max(span.offset) - span.offset);
                high = high.max(span.offset + span.len);
                for (offset, size) in &taken {
                    prop_assert!(span.offset + span.len <= *offset || offset + size <= span.offset);
                }
                taken.push((span.offset, span.len));
            } else {
                // First fit without fragmentation by alignment: only refused when no part holds it.
                prop_assert!(shift > 6 || spans.free_parts().iter().all(|(_, part)| *part < size.next_multiple_of(GRANULE)));
            }
            let used: usize = taken.iter().map(|(_, size)| size).sum();
            prop_assert_eq!(used + spans.free_bytes(), len - len % GRANULE);
        }
        for (offset, size) in taken {
            spans.give(offset, size);
        }
        prop_assert_eq!(spans.free_parts(), vec![(0, len - len % GRANULE)], "neighbours are joined");
    }

    #[test]
    fn chunks_keep_their_bytes_until_they_are_dropped(
        steps in prop::collection::vec((any::<bool>(), 1usize..20_000, 0u32..13, any::<prop::sample::Index>()), 1..60),
    ) {
        let space = DmaSpace::with_first_region(Arc::new(SoftDma::new()), 16_384);
        let mut taken: Vec<(DmaChunk, u8)> = Vec::new();
        let check = |chunk: &DmaChunk, stamp: u8| {
            let mut bytes = vec![0; chunk.len()];
            chunk.read(0, &mut bytes).unwrap();
            bytes.iter().all(|b| *b == stamp)
        };
        for (i, (give, size, shift, pick)) in steps.into_iter().enumerate() {
            if give && !taken.is_empty() {
                let (chunk, stamp) = taken.swap_remove(pick.index(taken.len()));
                prop_assert!(check(&chunk, stamp), "another chunk wrote here");
            } else if let Ok(chunk) = space.alloc(size, 1 << shift) {
                prop_assert!(check(&chunk, 0), "not zero");
                let stamp = i as u8 | 0x80;
                chunk.fill(0, size, stamp).unwrap();
                taken.push((chunk, stamp));
            }
        }
        for (chunk, stamp) in &taken {
            prop_assert!(check(chunk, *stamp), "another chunk wrote here");
        }
        let total: usize = space.regions().iter().map(|(region, _)| region.len()).sum();
        drop(taken);
        prop_assert_eq!(space.free_bytes(), total);
        close(&space).unwrap();
    }
}
