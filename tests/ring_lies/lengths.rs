//! Lengths of used elements: D9, D11.

use virtio::error::Violation;
use virtio::soft::Lie;

use crate::ring_common::{Case, Rig};

row!(d9_a_used_length_above_the_room_is_cut_and_counted: cut);
row!(d9_a_strict_ring_breaks_at_a_used_length_above_the_room: strict);
row!(d9_a_used_length_up_to_the_room_is_as_it_is: exact);
row!(d11_a_used_length_without_writable_buffers_is_zero_and_counted: read_only);

/// The chains of the rig have 2 × 64 device-writable bytes after 64 readable ones.
const ROOM: u32 = 128;

fn cut(case: Case) {
    let mut rig = Rig::new(case);
    for (n, len) in [ROOM + 1, ROOM + 64, 0x8000_0000, u32::MAX].into_iter().enumerate() {
        let chains = rig.give(1);
        rig.device.plan(Lie::UsedLenTooLarge { len });
        rig.device.push_used(chains[0].head, 0);
        rig.device.publish_used();
        assert_eq!(rig.take().unwrap().unwrap().1, ROOM);
        assert_eq!(rig.ring.counters().clamped, n as u64 + 1);
    }
    assert!(rig.ring.check().is_ok());
    rig.round_trips(2);
    rig.reset();
}

fn strict(case: Case) {
    for written in [ROOM + 1, u32::MAX] {
        let mut rig = Rig::new(Case { strict: true, ..case });
        let chains = rig.give(2);
        rig.device.plan(Lie::UsedLenTooLarge { len: written });
        rig.device.push_used(chains[0].head, 0);
        rig.device.publish_used();
        rig.expect_broken(Violation::UsedLenTooLarge { written, capacity: ROOM });
        rig.reset();
    }
}

fn exact(case: Case) {
    for strict in [false, true] {
        let mut rig = Rig::new(Case { strict, ..case });
        for len in [0, 1, ROOM - 1, ROOM] {
            let chains = rig.give(1);
            rig.device.push_used(chains[0].head, len);
            rig.device.publish_used();
            assert_eq!(rig.take().unwrap().unwrap().1, len);
        }
        assert_eq!(rig.ring.counters().clamped, 0);
    }
}

fn read_only(case: Case) {
    for strict in [false, true] {
        let mut rig = Rig::new(Case { strict, ..case });
        for (n, len) in [1, 64, u32::MAX].into_iter().enumerate() {
            rig.add(2, 0);
            let _ = rig.ring.publish();
            let chain = rig.device.pop().unwrap().unwrap();
            rig.device.plan(Lie::UsedLenOfReadOnly { len });
            rig.device.push_used(chain.head, 0);
            rig.device.publish_used();
            assert_eq!(rig.take().unwrap().unwrap().1, 0);
            assert_eq!(rig.ring.counters().clamped, n as u64 + 1);
        }
        rig.round_trips(2);
    }
}
