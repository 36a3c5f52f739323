//! Random operations on a ring, against a model of it that is a few queues and counters.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;
mod soak_common;

#[path = "ring_model/model.rs"]
mod model;

use model::{Lied, Model, Op};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring_common::Case;
use soak_common::soak;
use virtio::queue::SlotOrder;
use virtio::spec::ByteOrder;

fn op(size: u16) -> impl Strategy<Value = Op> {
    // Mostly short chains; some that fill the queue, some that are too long for it.
    let parts = prop_oneof![6 => 1u16..=4, 2 => 1u16..=12, 1 => 1..=size.saturating_add(1)];
    let add =
        (parts.clone(), any::<u16>(), 1u32..5_000, any::<bool>()).prop_map(|(parts, split, len, direct)| {
            Op::Add { parts, readable: split % (parts + 1), len, direct }
        });
    let lie = prop_oneof![
        any::<u16>().prop_map(Lied::IdxAhead),
        (1u16..0x8000).prop_map(Lied::IdxBack),
        any::<u32>().prop_map(Lied::IdRange),
        any::<u16>().prop_map(Lied::NotHead),
        Just(Lied::Twice),
        Just(Lied::AllOnes),
    ];
    prop_oneof![
        30 => add,
        8 => (0usize..7, 1u32..5_000).prop_map(|(shape, len)| Op::AddArrays { shape, len }),
        4 => parts.prop_map(|parts| Op::RollBack { parts }),
        20 => Just(Op::Publish),
        25 => (1usize..8).prop_map(|count| Op::DevicePop { count }),
        30 => (any::<usize>(), 0u32..20_000).prop_map(|(which, len)| Op::DeviceUse { which, len }),
        20 => Just(Op::DevicePublish),
        25 => (1usize..8).prop_map(|count| Op::Take { count }),
        5 => Just(Op::EnableInterrupts),
        5 => Just(Op::DisableInterrupts),
        5 => Just(Op::EnableNotifications),
        5 => Just(Op::DisableNotifications),
        2 => any::<u64>().prop_map(|seed| Op::Scribble { seed }),
        1 => Just(Op::Reset),
        2 => lie.prop_map(Op::Lie),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    // Mostly every chain of several buffers goes into a table; else those do that find few descriptors free.
    let direct_from = prop_oneof![Just(u16::MAX), 0u16..=12, 0u16..=256];
    (0u16..=8, any::<[bool; 5]>(), 0u16..4, direct_from).prop_map(
        |(shift, [indirect, event_idx, ring, big, strict], large, direct_from)| Case {
            indirect,
            event_idx,
            size: 1 << shift,
            slots: if ring { SlotOrder::Ring } else { SlotOrder::FreeList },
            order: if big { ByteOrder::Big } else { ByteOrder::Little },
            strict,
            large_tables: if large == 0 { 0 } else { 1 << large },
            direct_from,
        },
    )
}

/// So many walks of both sides, each with a ring of its own.
fn walks(count: u32) {
    let config = ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() };
    let walk = case().prop_flat_map(|case| (Just(case), prop::collection::vec(op(case.size), 1..300)));
    let outcome = TestRunner::new(config).run(&walk, |(case, ops)| {
        let mut model = Model::new(case);
        for op in ops {
            model.run(&op);
        }
        model.drain();
        Ok(())
    });
    outcome.unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn any_sequence_of_operations_does_what_the_model_does() {
    walks(2_000);
}

#[test]
#[ignore = "soak: 200,000 walks"]
fn soak_any_sequence_of_operations_does_what_the_model_does() {
    soak("ring against its model", 200_000, "walks", |count| walks(count as u32));
}
