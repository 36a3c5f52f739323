use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::mem::dma::SoftDma;
use crate::mem::lease::Lease;
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::mem::quarantine::StoppedProof;
use crate::mem::region::DmaRegion;
use crate::mem::space::DmaSpace;

/// A space over a software mapper, closed with a proof at the end.
struct Rig {
    dma: Arc<SoftDma>,
    space: DmaSpace,
}

impl Rig {
    fn new() -> Self {
        let dma = Arc::new(SoftDma::new());
        Self { space: DmaSpace::new(dma.clone()), dma }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.space.close(&StoppedProof::confirmed(&self.space)).unwrap();
    }
}

#[test]
fn a_buffer_is_one_pointer_and_can_go_to_another_thread() {
    fn send<T: Send + Sync + 'static>() {}
    send::<DmaBuf>();
    send::<DmaPool>();
    if cfg!(target_pointer_width = "64") {
        assert_eq!(size_of::<Option<DmaBuf>>(), size_of::<usize>());
        assert_eq!(size_of::<DmaBuf>(), 8);
    }
}

#[test]
fn buffers_are_distinct_and_where_the_pool_says() {
    let rig = Rig::new();
    let pool = DmaPool::new(&rig.space, 8, 512).unwrap();
    let buffers: Vec<_> = (0..8).map(|_| pool.take().unwrap()).collect();
    for (i, buffer) in buffers.iter().enumerate() {
        let i = i as u32;
        assert_eq!((buffer.index(), buffer.len(), buffer.capacity()), (i, 512, 512));
        assert_eq!(Lease::device_addr(buffer), pool.memory().device_addr() + u64::from(i) * 512);
        assert_eq!(buffer.space_id(), rig.space.id());
        buffer.fill(i as u8 + 1).unwrap();
    }
    for i in 0..8u8 {
        let mut seen = [0; 512];
        pool.read(usize::from(i) * 512, &mut seen).unwrap();
        assert_eq!(seen, [i + 1; 512]);
        rig.dma.read(buffers[usize::from(i)].device_addr(), &mut seen).unwrap();
        assert_eq!(seen, [i + 1; 512]);
    }
}

#[test]
fn an_empty_pool_says_so_and_the_buffer_given_back_last_comes_first() {
    let rig = Rig::new();
    let pool = DmaPool::new(&rig.space, 3, 100).unwrap();
    let (a, b, c) = (pool.take().unwrap(), pool.take().unwrap(), pool.take().unwrap());
    assert!(matches!(pool.take(), Err(Error::MemoryLimit { needed: 100, have: 0, .. })));
    drop((c, a));
    assert_eq!(pool.free(), 2);
    assert_eq!(pool.take().unwrap().index(), 0);
    let a = pool.take().unwrap();
    let c = pool.take().unwrap();
    assert_eq!((a.index(), b.index(), c.index()), (0, 1, 2));
}

#[test]
fn a_buffer_can_be_asked_for_by_its_number() {
    let rig = Rig::new();
    let pool = DmaPool::new(&rig.space, 4, 64).unwrap();
    let two = pool.slot(2).unwrap();
    assert_eq!(two.index(), 2);
    assert!(matches!(pool.slot(2), Err(Error::Misuse { what }) if what.contains("taken")));
    assert!(matches!(pool.slot(4), Err(Error::Misuse { what }) if what.contains("number")));
    let rest: Vec<_> = (0..3).map(|_| pool.take().unwrap().index()).collect();
    assert_eq!(rest, [0, 0, 0], "given back at once, taken again");
    let rest: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
    assert_eq!(rest.iter().map(DmaBuf::index).collect::<Vec<_>>(), [0, 1, 3]);
    assert!(pool.take().is_err());
    drop(two);
    assert_eq!(pool.take().unwrap().index(), 2);
    drop(rest);
    for _ in 0..1000 {
        drop(pool.slot(1).unwrap());
    }
    let all: Vec<_> = (0..4).map(|_| pool.take().unwrap()).collect();
    assert!(pool.take().is_err() && pool.free() == 0);
    drop(all);
    assert_eq!(pool.free(), 4);
}

#[test]
fn length_and_accesses_are_checked_against_the_buffer() {
    let rig = Rig::new();
    let pool = DmaPool::new(&rig.space, 2, 100).unwrap();
    let mut buffer = pool.take().unwrap();
    assert_eq!(buffer.set_len(101), Err(Error::OutOfBounds { offset: 0, len: 101, size: 100 }));
    buffer.set_len(10).unwrap();
    assert!(buffer.write(4, &[1; 7]).is_err(), "beyond the length, within the capacity");
    assert!(buffer.read(usize::MAX, &mut [0; 2]).is_err());
    buffer.fill(9).unwrap();
    buffer.truncate(50);
    assert_eq!((buffer.len(), buffer.to_vec().unwrap()), (10, [9; 10].into()));
    buffer.set_len(100).unwrap();
    assert_eq!(buffer.to_vec().unwrap()[10..], [0; 90], "a fill beyond the length");
    buffer.set_len(0).unwrap();
    assert!(buffer.is_empty() && Lease::is_empty(&buffer));
    assert!(pool.write(199, &[1, 2]).is_err());
}

#[test]
fn bad_shapes_are_refused() {
    let rig = Rig::new();
    for (count, stride) in [(0, 64), (64, 0), (0, 0)] {
        assert!(matches!(DmaPool::new(&rig.space, count, stride), Err(Error::Misuse { .. })));
    }
    assert!(matches!(DmaPool::new(&rig.space, u32::MAX, u32::MAX), Err(Error::MemoryLimit { .. })));
    let chunk = rig.space.alloc(100, 1).unwrap();
    assert!(matches!(DmaPool::over(chunk, 101), Err(Error::Misuse { .. })));
    let chunk = rig.space.alloc(100, 1).unwrap();
    assert_eq!(DmaPool::over(chunk, 33).unwrap().count(), 3);
}

#[test]
fn a_whole_chunk_is_a_buffer_and_comes_back() {
    let rig = Rig::new();
    let held = rig.space.alloc(64, 1).unwrap();
    let free = rig.space.free_bytes();
    let buffer = DmaBuf::whole(rig.space.alloc(100_000, 4096).unwrap()).unwrap();
    assert_eq!((buffer.len(), buffer.index()), (100_000, 0));
    buffer.write(99_999, b"e").unwrap();
    drop(buffer);
    assert_eq!(rig.space.free_bytes(), free);
    drop(held);
}

#[test]
fn a_pool_lives_as_long_as_a_handle_or_a_lease_taken_any_way() {
    let rig = Rig::new();
    let held = rig.space.alloc(64, 1).unwrap();
    let free = rig.space.free_bytes();
    let used = |what: &str| assert!(rig.space.free_bytes() < free, "{what}");
    let pool = DmaPool::new(&rig.space, 4, 64).unwrap();
    let (by_number, from_the_top) = (pool.slot(2).unwrap(), pool.take().unwrap());
    let other = pool.clone();
    drop(pool);
    used("a handle is there");
    drop(other);
    used("two leases are there");
    // A lease leads to a handle again, which works like every other.
    let pool = by_number.pool();
    drop(by_number);
    let (again, top) = (pool.slot(2).unwrap(), pool.take().unwrap());
    assert!(pool.slot(2).is_err() && pool.free() == 1);
    drop(from_the_top);
    again.write(0, b"alive").unwrap();
    drop((pool, again));
    used("one lease is there");
    drop(top);
    assert_eq!(rig.space.free_bytes(), free, "the last one gives it back");
    drop(held);
}

#[test]
fn a_pool_goes_once_whichever_thread_is_the_last_to_have_it() {
    let rig = Rig::new();
    let held = rig.space.alloc(64, 1).unwrap();
    let free = rig.space.free_bytes();
    for round in 0..500 {
        let pool = DmaPool::new(&rig.space, 3, 64).unwrap();
        let bufs = [pool.slot(1).unwrap(), pool.take().unwrap(), pool.slot(2).unwrap()];
        std::thread::scope(|scope| {
            for (at, buf) in bufs.into_iter().enumerate() {
                scope.spawn(move || {
                    buf.write(0, &[round as u8]).unwrap();
                    let again = (at == 2).then(|| buf.pool());
                    drop(buf);
                    drop(again.map(|pool| pool.take()));
                });
            }
            drop(pool);
        });
        assert_eq!(rig.space.free_bytes(), free, "round {round}");
    }
    drop(held);
}

#[test]
fn buffers_straddle_no_page_that_they_need_not() {
    let rig = Rig::new();
    let _shift = rig.space.alloc(64, 1).unwrap();
    for stride in [64, 512, 4096, 8192] {
        let pool = DmaPool::new(&rig.space, 3, stride).unwrap();
        assert!(pool.memory().device_addr().is_multiple_of(4096), "{stride}");
    }
}

#[test]
fn a_buffer_keeps_its_memory_when_pool_and_space_are_gone() {
    let rig = Rig::new();
    let pool = DmaPool::new(&rig.space, 1, 4096).unwrap();
    let buffer = pool.take().unwrap();
    let region = Arc::downgrade(buffer.region());
    buffer.write(0, b"alive").unwrap();
    drop(pool);
    drop(rig);
    assert_eq!(&buffer.to_vec().unwrap()[..5], b"alive");
    drop(buffer);
    assert!(region.upgrade().is_none(), "nobody else holds the region");
}

#[test]
fn a_pool_over_a_callers_region_keeps_its_content() {
    let rig = Rig::new();
    let region = DmaRegion::new(16_384).unwrap();
    region.write(8192, b"cached").unwrap();
    let pool = DmaPool::over(rig.space.add_region(&region).unwrap(), 4096).unwrap();
    let buffer = pool.slot(2).unwrap();
    assert_eq!(&buffer.to_vec().unwrap()[..6], b"cached");
}

#[test]
fn four_threads_never_hold_the_same_buffer_and_all_come_back() {
    const COUNT: u32 = 6;
    let rig = Rig::new();
    let pool = DmaPool::new(&rig.space, COUNT, 64).unwrap();
    let held: [AtomicBool; COUNT as usize] = Default::default();
    std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread: u32| {
            let (pool, held) = (&pool, &held);
            scope.spawn(move || {
                let mut kept: Vec<DmaBuf> = Vec::new();
                for round in 0..30_000u32 {
                    let number = round.wrapping_mul(7).wrapping_add(thread) % COUNT;
                    let taken = if round % 3 == 0 { pool.slot(number) } else { pool.take() };
                    if let Ok(buffer) = taken {
                        let before = held[buffer.index() as usize].swap(true, Ordering::AcqRel);
                        assert!(!before, "buffer {} is held twice", buffer.index());
                        let stamp = [thread as u8 + 1; 64];
                        buffer.write(0, &stamp).unwrap();
                        kept.push(buffer);
                    }
                    if kept.len() > (round % 3) as usize {
                        let buffer = kept.swap_remove(round as usize % kept.len());
                        assert_eq!(buffer.to_vec().unwrap(), [thread as u8 + 1; 64]);
                        held[buffer.index() as usize].store(false, Ordering::Release);
                    }
                }
                for buffer in kept {
                    held[buffer.index() as usize].store(false, Ordering::Release);
                }
            })
        });
        // The thread sanitizer sees a join, but not the end of a scope.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(pool.free(), COUNT as usize);
    let all: Vec<_> = (0..COUNT).map(|_| pool.take().unwrap()).collect();
    let mut numbers: Vec<_> = all.iter().map(DmaBuf::index).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
}
