//! What a ring takes from the heap: nothing while it is in use, and when it is made no more than was promised.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory, and an allocator that counts")]

mod ring_common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use ring_common::{Case, RING_ADDR, TABLE_ADDR, memory_at, stopped};
use virtio::mem::cell::RingMemory;
use virtio::mem::dma::SoftDma;
use virtio::mem::lease::{Lease, RawRange};
use virtio::mem::pool::DmaPool;
use virtio::mem::quarantine::StoppedProof;
use virtio::mem::space::DmaSpace;
use virtio::queue::{Ring, RingConfig};
use virtio::soft::{DeviceChain, DeviceRing};

std::thread_local! {
    /// Allocations, and bytes that are taken, of this thread.
    static TAKEN: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

// SAFETY: every call goes to `System` unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (count, bytes) = TAKEN.get();
        TAKEN.set((count + 1, bytes.wrapping_add(layout.size())));
        // SAFETY: the caller keeps `GlobalAlloc`'s rules, which are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        let (count, bytes) = TAKEN.get();
        TAKEN.set((count, bytes.wrapping_sub(layout.size())));
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Rings of `size` by every way of keeping and telling of chains.
fn configs(size: u16) -> Vec<RingConfig> {
    let mut configs = Vec::new();
    for (indirect, event_idx) in [(false, false), (false, true), (true, false), (true, true)] {
        Case::each(indirect, event_idx, |case| {
            for remember in [false, true] {
                let mut config = Case { size, ..case }.config();
                config.remember = remember;
                configs.push(config);
            }
        });
    }
    configs
}

fn build<B: Lease>(config: &RingConfig) -> (Ring<B>, DeviceRing, RingMemory) {
    let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
    let (tables, _) = memory_at(TABLE_ADDR, config.table_bytes());
    let ring = Ring::new(&memory, config.indirect.then_some(&tables), config).unwrap();
    (ring, DeviceRing::beside(&memory, config).unwrap(), tables)
}

/// Batches of eight three-part chains go round, added in one call and buffer by buffer.
fn round<B: Lease>(config: &RingConfig, mut buf: impl FnMut() -> B) -> u64 {
    let (mut ring, mut device, tables) = build::<B>(config);
    let mut chain = DeviceChain::default();
    let mut turn = || {
        for number in 0..8 {
            if number % 2 == 0 {
                ring.add([buf()], [buf(), buf()]).map_err(virtio::Error::from).unwrap();
            } else {
                ring.chain().readable(buf()).writable(buf()).writable(buf()).add().unwrap();
            }
        }
        let _ = ring.publish();
        while device.pop_into(&tables, &mut chain).unwrap() {
            device.push_used(chain.head, 1);
        }
        let _ = device.publish_used();
        let _ = ring.enable_interrupts().unwrap();
        let mut back = 0;
        while let Some(used) = ring.pop().unwrap() {
            back += used.count();
        }
        ring.disable_interrupts();
        assert_eq!(back, 24);
    };
    // The device's end keeps the memory of its first chain.
    turn();
    let (before, _) = TAKEN.get();
    (0..200).for_each(|_| turn());
    TAKEN.get().0 - before
}

#[test]
fn a_ring_in_use_takes_nothing_from_the_heap() {
    // SAFETY: no device follows the address.
    let range = || unsafe { RawRange::new(0x9000, 64) };
    let space = DmaSpace::new(Arc::new(SoftDma::new()));
    let pool = DmaPool::new(&space, 24, 64).unwrap();
    for config in configs(32) {
        assert_eq!(round(&config, range), 0, "{config:?}");
        assert_eq!(round(&config, || pool.take().unwrap()), 0, "buffers of a pool, {config:?}");
    }
    drop(pool);
    // SAFETY: the devices of this test followed no address, and are gone.
    let stopped = unsafe { StoppedProof::assume_stopped(&space) };
    space.close(&stopped).unwrap();
}

/// 256 requests of three parts in the tables of a queue of 256 cost 64 KiB beyond the ring at most, tables included.
#[test]
fn a_full_queue_of_256_costs_no_more_than_64_kib_beyond_the_ring() {
    for config in configs(256).into_iter().filter(|config| config.indirect) {
        let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        let (tables, _) = memory_at(TABLE_ADDR, config.table_bytes());
        let (_, before) = TAKEN.get();
        let mut ring = Ring::new(&memory, Some(&tables), &config).unwrap();
        for at in 0..256u64 {
            // SAFETY: no device follows the addresses.
            let [a, b, c] = [0, 1, 2].map(|part| unsafe { RawRange::new(at << 8 | part, 64) });
            ring.add([a], [b, c]).unwrap();
        }
        let cost = TAKEN.get().1 - before + config.table_bytes();
        assert!(cost <= 64 << 10, "{cost} bytes, {config:?}");
        assert_eq!(ring.tokens().count(), 256);
        ring.reset(&stopped(), |_, _| {}).unwrap();
    }
}
