//! A device that writes where only the driver may: D12, D13.

use virtio::soft::Lie;

use crate::ring_common::{Case, Rig};

row!(d12_a_scribbled_table_and_available_ring_change_nothing_for_the_driver: ring);
row!(d12_a_table_scribbled_under_a_chain_that_is_rolled_back_changes_nothing: rolled_back);
row!(d13_scribbled_indirect_tables_change_nothing_for_the_driver: indirect tables);

fn ring(case: Case) {
    scribbled(case, |seed| Lie::ScribbleRing { seed });
}

fn tables(case: Case) {
    scribbled(case, |seed| Lie::ScribbleTables { seed });
    scribbled(Case { size: 16, large_tables: 4, ..case }, |seed| Lie::ScribbleTables { seed });
}

/// Whatever the device overwrites while it has chains: each comes back with its own buffers, descriptors are
/// neither lost nor doubled, and the next chains are as new.
fn scribbled(case: Case, lie: impl Fn(u64) -> Lie) {
    let mut rig = Rig::new(case);
    for seed in 1..40 {
        let chains = if case.large_tables != 0 {
            rig.add(5, 6);
            rig.add(1, 9);
            let _ = rig.ring.publish();
            rig.device_takes(2)
        } else {
            rig.give(2)
        };
        rig.device.tell(lie(seed));
        for chain in chains.iter().rev() {
            rig.device.push_used(chain.head, 3);
        }
        rig.device.publish_used();
        rig.device.tell(lie(seed + 100));
        for _ in 0..2 {
            assert_eq!(rig.take().unwrap().unwrap().1, 3);
        }
        assert_eq!(rig.ring.free(), u32::from(case.size));
        assert_eq!(rig.ledger.alive(), 0);
    }
    rig.round_trips(4);
    rig.give(2);
    rig.device.tell(lie(7));
    rig.reset();
}

/// A chain under construction is taken back from private memory too.
fn rolled_back(case: Case) {
    let mut rig = Rig::new(case);
    rig.give(1);
    for seed in 1..20 {
        let (first, second) = (rig.buf(64), rig.buf(64));
        let free = rig.ring.free();
        let chain = rig.ring.chain().readable(first).readable(second);
        rig.device.tell(Lie::ScribbleRing { seed });
        rig.device.tell(Lie::ScribbleTables { seed });
        drop(chain);
        assert_eq!((rig.ring.free(), rig.ledger.alive()), (free, 3));
    }
    rig.reset();
}
