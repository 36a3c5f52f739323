//! Free descriptors: whatever the lengths of chains and the order in which they come back, none is given away twice and
//! none is lost.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use std::collections::BTreeSet;

use ring_common::{Block, Case, RING_ADDR, Rig, memory_at};
use virtio::queue::{Areas, Ring, Token};
use virtio::soft::{DeviceRing, LyingRing};

/// A rig, and the memory that its ring lies in.
struct Bench {
    rig: Rig,
    memory: std::sync::Weak<Block>,
    table: usize,
}

impl Bench {
    fn new(size: u16) -> Self {
        let case = Case { size, ..Case::new(false, false) };
        let mut rig = Rig::new(case);
        let config = case.config();
        let (memory, block) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        rig.ring = Ring::new(&memory, None, &config).unwrap();
        rig.device = LyingRing::new(DeviceRing::beside(&memory, &config).unwrap(), None);
        rig.memory = memory;
        let table = Areas::new(config.layout, size).unwrap().descriptor;
        Self { rig, memory: block, table }
    }

    /// The descriptors of a chain, as the table leads from one to the next.
    fn descriptors(&self, token: Token) -> Vec<u16> {
        let block = self.memory.upgrade().unwrap();
        let half = |at: usize| u16::from_le_bytes(block.bytes(at, 2).try_into().unwrap());
        let (mut path, mut at) = (Vec::new(), token.slot());
        loop {
            path.push(at);
            let start = self.table + 16 * usize::from(at);
            if half(start + 12) & 1 == 0 || path.len() > 64 {
                return path;
            }
            at = half(start + 14);
        }
    }

    /// Adds a chain of so many buffers in one call, or, of four, one by one.
    fn add(&mut self, parts: usize) -> Token {
        let rig = &mut self.rig;
        macro_rules! add {
            ($readable:literal, $writable:literal) => {{
                let readable: [_; $readable] = std::array::from_fn(|_| rig.buf(64));
                let writable: [_; $writable] = std::array::from_fn(|_| rig.buf(64));
                rig.ring.add(readable, writable).unwrap()
            }};
        }
        match parts {
            1 => add!(1, 0),
            2 => add!(0, 2),
            3 => add!(1, 2),
            5 => add!(2, 3),
            other => rig.add(1, other as u16 - 1).token,
        }
    }

    /// The device gives back the chain of this slot.
    fn complete(&mut self, token: Token) {
        self.rig.device.push_used(token.slot(), 0);
        self.rig.device.publish_used();
        let done = self.rig.ring.pop().unwrap().expect("it was completed");
        assert_eq!(done.token(), token);
    }

    fn publish(&mut self) {
        let _ = self.rig.ring.publish();
        while self.rig.device.pop().unwrap().is_some() {}
    }
}

#[test]
fn chains_of_all_lengths_never_share_a_descriptor_and_lose_none() {
    for size in [8u16, 16, 64] {
        let mut bench = Bench::new(size);
        let mut flying: Vec<(Token, Vec<u16>)> = Vec::new();
        let mut seed = 0x9e37_79b9u32;
        for step in 0..4000 {
            // Any sequence will do that mixes lengths and orders: a linear congruence.
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let parts = [1, 3, 2, 5, 3, 1, 4, 3][(seed >> 13) as usize % 8];
            if bench.rig.ring.free() >= parts as u32 && !(seed >> 24).is_multiple_of(5) {
                let token = bench.add(parts);
                let path = bench.descriptors(token);
                assert_eq!(path.len(), parts, "step {step}: {path:?}");
                flying.push((token, path));
                bench.publish();
            } else if !flying.is_empty() {
                let (token, _) = flying.swap_remove((seed >> 8) as usize % flying.len());
                bench.complete(token);
            }
            let taken: Vec<u16> = flying.iter().flat_map(|(_, path)| path.clone()).collect();
            let distinct: BTreeSet<u16> = taken.iter().copied().collect();
            assert!(
                distinct.len() == taken.len() && taken.iter().all(|&at| at < size),
                "step {step}: {taken:?}"
            );
            assert_eq!(bench.rig.ring.free(), u32::from(size) - taken.len() as u32, "step {step}");
        }
        for (token, _) in std::mem::take(&mut flying) {
            bench.complete(token);
        }
        let whole = bench.rig.add(1, size - 1).token;
        let path: BTreeSet<u16> = bench.descriptors(whole).into_iter().collect();
        assert_eq!(path.len(), usize::from(size), "all are free again");
    }
}

#[test]
fn descriptors_that_came_back_out_of_order_are_neighbours_again_before_long() {
    const SIZE: u16 = 32;
    let mut bench = Bench::new(SIZE);
    let singles: Vec<Token> = (0..SIZE).map(|_| bench.add(1)).collect();
    bench.publish();
    // They go out again as they came back: 31, 30, 29 …
    singles.into_iter().rev().for_each(|token| bench.complete(token));
    let mut steps = Vec::new();
    for _ in 0..2 * SIZE {
        let token = bench.add(3);
        let path = bench.descriptors(token);
        steps.push(path.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect::<Vec<_>>());
        bench.publish();
        bench.complete(token);
    }
    assert_ne!(steps[0], [1, 1], "else the test shows nothing");
    assert_eq!(steps.last().unwrap(), &[1, 1], "{steps:?}");
}

#[test]
fn chains_that_come_back_one_after_the_other_go_out_again_in_this_order() {
    let mut bench = Bench::new(32);
    let mut orders = Vec::new();
    for _ in 0..3 {
        let tokens: Vec<Token> = (0..8).map(|_| bench.add(3)).collect();
        bench.publish();
        orders.push(tokens.iter().map(|token| token.slot()).collect::<Vec<_>>());
        tokens.into_iter().for_each(|token| bench.complete(token));
    }
    let slots: Vec<u16> = (0..8).map(|chain| 3 * chain).collect();
    assert_eq!(orders, [slots.clone(), slots.clone(), slots]);
}

#[test]
fn a_completion_that_is_forgotten_keeps_its_buffers_and_no_descriptor() {
    let mut bench = Bench::new(4);
    let token = bench.add(3);
    bench.publish();
    bench.rig.device.push_used(token.slot(), 0);
    bench.rig.device.publish_used();
    std::mem::forget(bench.rig.ring.pop().unwrap().expect("it was completed"));
    assert_eq!(bench.rig.ring.free(), 4);
    assert!(!bench.rig.ring.holds(token));
    let ledger = bench.rig.ledger.clone();
    assert_eq!(ledger.alive(), 3, "a buffer that was not handed out is not dropped");
    drop(bench);
    assert_eq!(ledger.alive(), 0, "they go with the ring");
}
