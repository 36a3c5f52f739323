//! The faults of libvirtio's ring code, each shown absent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use virtio::error::Violation;
use virtio::mem::lease::RawRange;
use virtio::queue::{Ring, RingLayout};
use virtio::soft::Lie;
use virtio::spec::ByteOrder;

use crate::ring_common::{Case, RING_ADDR, Rig, memory_at, stopped};

/// Its barrier kept the compiler in order, and not the machine. Two threads store and then load what the other
/// stores: with a fence for the machine at least one of them sees the other's store, every time.
#[test]
fn seed_barrier_is_one_for_the_machine() {
    const ROUNDS: usize = 20_000;
    let cells = |_| AtomicU32::new(0);
    let stored: [Vec<AtomicU32>; 2] = std::array::from_fn(|_| (0..ROUNDS).map(cells).collect());
    let seen: [Vec<AtomicU32>; 2] = std::array::from_fn(|_| (0..ROUNDS).map(cells).collect());
    let arrived = AtomicUsize::new(0);
    let side = |own: usize| {
        for round in 0..ROUNDS {
            // Both begin a round together, or the race is never met.
            arrived.fetch_add(1, Ordering::SeqCst);
            let mut spins = 0;
            while arrived.load(Ordering::SeqCst) < 2 * (round + 1) {
                spins += 1;
                // Where the two have only one processor, the other must be let on it.
                if spins < 1_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
            stored[own][round].store(1, Ordering::Relaxed);
            virtio::sync::mb();
            seen[own][round].store(stored[1 - own][round].load(Ordering::Relaxed), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| side(0));
        side(1);
    });
    for (round, (one, other)) in seen[0].iter().zip(&seen[1]).enumerate() {
        let both = [one, other].map(|seen| seen.load(Ordering::Relaxed));
        assert_ne!(both, [0, 0], "round {round}: neither thread saw the other's store");
    }
}

/// It swapped 64-bit ring fields as two 32-bit halves. What lies in memory, byte by byte, in both orders.
#[test]
fn seed_fields_have_the_bytes_of_their_order() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let config = Case { order, ..Case::new(false, false) }.config();
        let (memory, block) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        let block = block.upgrade().unwrap();
        let mut ring = Ring::new(&memory, None, &config).unwrap();
        let areas = virtio::queue::Areas::new(RingLayout::Modern, 8).unwrap();
        // SAFETY: nobody follows the addresses.
        let range = |addr, len| unsafe { RawRange::new(addr, len) };
        let token = ring
            .add([range(0x1122_3344_5566_7788, 0x0102_0304)], [range(0xFFEE_DDCC_BBAA_9988, 0x0506_0708)])
            .unwrap();
        let _ = ring.publish();

        let in_order = |parts: &[&[u8]]| -> Vec<u8> {
            let field = |part: &&[u8]| match order {
                ByteOrder::Big => part.to_vec(),
                ByteOrder::Little => part.iter().rev().copied().collect(),
            };
            parts.iter().flat_map(field).collect()
        };
        let first: &[&[u8]] =
            &[&[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88], &[1, 2, 3, 4], &[0, 1], &[0, 1]];
        let second: &[&[u8]] =
            &[&[0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99, 0x88], &[5, 6, 7, 8], &[0, 2], &[0, 0]];
        assert_eq!(block.bytes(areas.descriptor, 16), in_order(first));
        assert_eq!(block.bytes(areas.descriptor + 16, 16), in_order(second));
        assert_eq!(block.bytes(areas.driver, 6), in_order(&[&[0, 0], &[0, 1], &[0, 0]]));

        block.write(areas.device + 4, &in_order(&[&[0, 0, 0, 0], &[0, 0, 1, 2]]));
        block.write(areas.device + 2, &in_order(&[&[0, 1]]));
        let done = ring.pop().unwrap().expect("a completion");
        assert_eq!((done.token(), done.written()), (token, 0x0102));
    }
}

/// It took the used id as an index into its own array.
#[test]
fn seed_used_id_indexes_nothing_unchecked() {
    let beyond = [8, 9, 63, 64, 65_535, 65_536, 0x7FFF_FFFF, 0x8000_0000, u32::MAX];
    for id in (0..8).chain(beyond) {
        let mut rig = Rig::new(Case::new(false, false));
        let chains = rig.give(1);
        rig.device.plan(Lie::UsedIdRange { id });
        rig.device.push_used(chains[0].head, 0);
        rig.device.publish_used();
        if id == 0 {
            assert!(rig.take().unwrap().is_some());
            continue;
        }
        let range = Violation::UsedIdRange { id, size: 8 };
        rig.expect_broken(if id < 8 { Violation::UsedIdNotHead { id } } else { range });
        rig.reset();
    }
}

/// It kept the list of free descriptors in the table, for the device to write.
#[test]
fn seed_free_list_is_not_in_shared_memory() {
    for seed in 1..200 {
        let mut rig = Rig::new(Case { size: 16, ..Case::new(false, false) });
        let chains = rig.give(3);
        for chain in &chains {
            rig.device.push_used(chain.head, 0);
        }
        rig.device.publish_used();
        while rig.take().unwrap().is_some() {}
        rig.device.tell(Lie::ScribbleRing { seed });
        // All descriptors, each once.
        let slots: BTreeSet<u16> = (0..16).map(|_| rig.add(1, 0).token.slot()).collect();
        assert_eq!(slots, (0..16).collect());
        assert!(matches!(rig.try_add(1, 0, 1), Err(virtio::Error::QueueFull { .. })));
        let _ = rig.ring.publish();
        let heads: BTreeSet<u16> = rig.device_takes(16).iter().map(|chain| chain.head).collect();
        assert_eq!(heads, slots);
    }
}

/// It cut addresses to 32 bits of page number. A ring has no such place: buffers and tables above 2^44 reach the
/// device whole (what a legacy transport can be told of a ring's own address is the transport's to check).
#[test]
fn seed_addresses_keep_all_64_bits() {
    for addr in [1 << 32, 1 << 44, 1 << 52, u64::MAX - 0xFFF] {
        let config = Case::new(true, false).config();
        let (memory, _) = memory_at(addr, config.ring_bytes().unwrap());
        let (tables, _) = memory_at(addr - (1 << 20), config.table_bytes());
        let mut ring = Ring::new(&memory, Some(&tables), &config).unwrap();
        let mut device = virtio::soft::DeviceRing::beside(&memory, &config).unwrap();
        assert_eq!(memory.device_addr(), addr);
        // SAFETY: nobody follows the addresses.
        let range = |at: u64| unsafe { RawRange::new(addr + at, 8) };
        ring.add([range(0)], [range(64)]).unwrap();
        let _ = ring.publish();
        // The table is found at its whole address only.
        let chain = device.pop(&tables).unwrap().unwrap();
        assert_eq!(chain.descs.iter().map(|desc| desc.addr).collect::<Vec<_>>(), [addr, addr + 64]);
        // What is in flight at the end of a ring's life would be a leak.
        ring.reset(&stopped(), |_, _| {}).unwrap();
    }
}
