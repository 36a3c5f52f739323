//! What becomes of a ring's memory, and of descriptors, beyond the life of a chain.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use ring_common::{Buf, Case, Ledger, RING_ADDR, TABLE_ADDR, memory_at, stopped};
use virtio::queue::Ring;

/// Makes a ring, gives the device one chain, drops the ring; answers whether ring memory and table memory live.
fn drop_ring(indirect: bool, published: bool, reset: bool) -> (bool, bool) {
    let config = Case::new(indirect, false).config();
    let (memory, ring_alive) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
    let (tables, tables_alive) = memory_at(TABLE_ADDR, config.table_bytes());
    let mut ring = Ring::<Buf>::new(&memory, indirect.then_some(&tables), &config).unwrap();
    drop((memory, tables));
    let ledger = Ledger::default();
    ring.chain().readable(ledger.buf(0, 1)).writable(ledger.buf(8, 1)).add().unwrap();
    if published {
        let _ = ring.publish();
    }
    if reset {
        ring.reset(&stopped(), |_, _| {}).unwrap();
    }
    drop(ring);
    assert_eq!(ledger.alive(), if reset { 0 } else { 2 }, "buffers in flight are never dropped");
    (ring_alive.strong_count() != 0, tables_alive.strong_count() != 0)
}

/// R2, R9: a device that was not proven to have stopped may still read the ring, and whatever lies in a table
/// it takes for descriptors that it may write through.
#[test]
#[cfg_attr(asan, ignore = "the leak is what is tested")]
fn a_ring_dropped_with_chains_in_flight_frees_neither_ring_nor_tables() {
    assert_eq!(drop_ring(true, true, false), (true, true));
    assert!(drop_ring(false, true, false).0);
}

#[test]
fn a_ring_that_was_reset_frees_its_memory() {
    assert_eq!(drop_ring(true, true, true), (false, false));
    assert_eq!(drop_ring(false, true, true), (false, false));
}
