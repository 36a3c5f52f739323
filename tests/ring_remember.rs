//! A ring that remembers its descriptors leaves those alone that would not change, and writes all others.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use ring_common::{memory_at, stopped};
use virtio::mem::lease::RawRange;
use virtio::queue::{Ring, RingConfig, SlotOrder};
use virtio::soft::DeviceRing;
use virtio::spec::ByteOrder;

const SIZE: u16 = 8;

fn configs() -> impl Iterator<Item = RingConfig> {
    let slots = [SlotOrder::FreeList, SlotOrder::Ring];
    slots.into_iter().flat_map(|slots| {
        [ByteOrder::Little, ByteOrder::Big].map(|order| {
            let mut config = RingConfig::new(0, SIZE);
            (config.slots, config.order, config.remember) = (slots, order, true);
            config
        })
    })
}

fn range(addr: u64, len: u32) -> RawRange {
    // SAFETY: the device end of these tests reaches no buffer.
    unsafe { RawRange::new(addr, len) }
}

/// Adds one chain by one of the ways, and has the device find and complete it.
fn round(ring: &mut Ring<RawRange>, device: &mut DeviceRing, seed: u64) {
    let part =
        |index: u64| range(0x1000 * (1 + (seed >> index) % 2), 16 * (1 + (seed >> (index + 3)) as u32 % 2));
    let [a, b, c] = [0, 1, 2].map(part);
    let (parts, wanted) = match seed % 5 {
        0 => (ring.add([a], []).unwrap(), vec![a]),
        1 => (ring.add([a], [b]).unwrap(), vec![a, b]),
        2 => (ring.add([a, b], [c]).unwrap(), vec![a, b, c]),
        3 => (ring.add([], [a, b, c]).unwrap(), vec![a, b, c]),
        _ => (ring.chain().readable(a).writable(b).add().unwrap(), vec![a, b]),
    };
    let _ = ring.publish();
    let chain = device.pop(&()).unwrap().expect("it was published");
    assert_eq!(chain.head, parts.slot());
    let found: Vec<_> = chain.descs.iter().map(|desc| range(desc.addr, desc.len)).collect();
    assert_eq!(found, wanted, "seed {seed:#x}");
    let written = match seed % 5 {
        0 => [0; 3],
        1 | 4 => [0, 1, 0],
        2 => [0, 0, 1],
        _ => [1; 3],
    };
    assert!(chain.descs.iter().zip(written).all(|(desc, written)| desc.writable == (written == 1)));
    device.push_used(chain.head, 0);
    let _ = device.publish_used();
    assert_eq!(ring.pop().unwrap().expect("it was completed").token(), parts);
}

#[test]
fn s2_7_5_the_device_finds_every_chain_whatever_the_table_held_before() {
    for config in configs() {
        let (memory, block) = memory_at(0, config.ring_bytes().unwrap());
        let mut ring = Ring::new(&memory, None, &config).unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for life in 0..4 {
            let mut device = DeviceRing::beside(&memory, &config).unwrap();
            for _ in 0..500 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                round(&mut ring, &mut device, seed >> 33);
            }
            // A device may leave anything behind.
            block.upgrade().unwrap().write(0, &[0xa0 | life; 16 * SIZE as usize]);
            ring.reset(&stopped(), |_, _| ()).unwrap();
        }
    }
}

#[test]
fn a_descriptor_that_would_not_change_is_left_alone_and_one_that_would_is_not() {
    for config in configs() {
        let (memory, block) = memory_at(0, config.ring_bytes().unwrap());
        let block = block.upgrade().unwrap();
        let mut ring = Ring::new(&memory, None, &config).unwrap();
        let mut device = DeviceRing::beside(&memory, &config).unwrap();
        let table = 16 * usize::from(SIZE);
        let add = |ring: &mut Ring<RawRange>, len: u32| {
            ring.add([range(0x1000, len)], [range(0x2000, 8)]).unwrap();
            let _ = ring.publish();
        };
        let mut complete = |ring: &mut Ring<RawRange>| {
            let chain = device.pop(&()).unwrap().expect("it was published");
            device.push_used(chain.head, 0);
            let _ = device.publish_used();
            assert!(ring.pop().unwrap().is_some());
        };
        // Once round, for slots in ring order.
        for _ in 0..SIZE / 2 {
            add(&mut ring, 16);
            complete(&mut ring);
        }
        let before = block.bytes(0, table);
        block.write(0, &vec![0x55; table]);
        add(&mut ring, 16);
        assert_eq!(block.bytes(0, table), vec![0x55; table], "nothing was written");
        block.write(0, &before);
        complete(&mut ring);
        for _ in 0..SIZE / 2 {
            add(&mut ring, 32);
            complete(&mut ring);
        }
        assert_ne!(block.bytes(0, table), before);
    }
}
