//! What becomes of a ring's memory, and of descriptors, beyond the life of a chain.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use ring_common::{Buf, Case, Ledger, RING_ADDR, Rig, TABLE_ADDR, memory_at, stopped};
use virtio::queue::{Ring, SlotOrder};

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

/// §2.7.5.2: with IN_ORDER descriptors are used in ring order, starting from offset 0 in the table.
#[test]
fn ring_order_starts_from_descriptor_0_again_after_a_reset() {
    for indirect in [false, true] {
        let mut rig = Rig::new(Case { slots: SlotOrder::Ring, ..Case::new(indirect, false) });
        for chain in rig.give(2) {
            rig.device.push_used(chain.head, 0);
        }
        rig.device.publish_used();
        while rig.take().unwrap().is_some() {}
        rig.add(1, 0);
        rig.ring.reset(&stopped(), |_, _| {}).unwrap();
        rig.added.clear();
        rig.new_device();
        assert_eq!(rig.give(1)[0].head, 0);
    }
}

/// What `has_room` promises, `chain` keeps, and the other way round.
#[test]
fn has_room_tells_the_truth_for_every_number_of_parts() {
    for (indirect, large_tables) in [(false, 0), (true, 0), (true, 1), (true, 2)] {
        for size in [1, 2, 4, 8, 16, 32] {
            let mut rig = Rig::new(Case { size, large_tables, ..Case::new(indirect, false) });
            for filled in 0..=3 {
                for parts in 1..=size + 2 {
                    let room = rig.ring.has_room(parts);
                    let added = rig.try_add(parts, 0, 1).is_ok();
                    assert_eq!(
                        room, added,
                        "{parts} parts, size {size}, indirect {indirect}, {filled} filled"
                    );
                    if added {
                        // Undone: the device uses it.
                        let last = rig.added.pop().unwrap();
                        let _ = rig.ring.publish();
                        let chain = rig.device.pop().unwrap().unwrap();
                        assert_eq!(chain.head, last.token.slot());
                        rig.device.push_used(chain.head, 0);
                        rig.device.publish_used();
                        assert_eq!(rig.ring.pop().unwrap().unwrap().token(), last.token);
                    }
                }
                let long = if large_tables != 0 { size.min(9) } else { 1 };
                if rig.try_add(long, 0, 1).is_ok() {
                    let _ = rig.ring.publish();
                    rig.device_takes(1);
                }
            }
        }
    }
}
