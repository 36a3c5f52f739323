//! P1, P2, P3 and P8: the peer has the hole, we have not.

use virtio::error::Violation;
use virtio::soft::Lie;

use crate::peer::{Device, SIZE};
use crate::ring_common::{Case, Rig};

/// Chains that go through each queue: several times around the ring's index.
const CHAINS: u32 = 400_000;

/// Batches of one to eight chains, each while the device sleeps: every one of them needs a kick. Answers how many
/// were given none.
fn missed(mut batch: impl FnMut(u16) -> bool) -> u32 {
    let (mut sent, mut missed, mut random) = (0, 0, 1u32);
    while sent < CHAINS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let count = (random >> 16) as u16 % SIZE as u16 + 1;
        missed += u32::from(!batch(count));
        sent += u32::from(count);
    }
    missed
}

#[test]
fn p1_kicks_at_the_wrap_are_missed_by_the_peer_and_not_by_us() {
    let (mut device, mut queue) = Device::new(true);
    let request = [0u8; 16];
    let by_peer = missed(|count| {
        assert!(!device.ring().enable_notifications().unwrap());
        for _ in 0..count {
            // SAFETY: the buffer outlives the queue, and nobody writes it.
            unsafe { queue.add(&[&request], &mut []) }.unwrap();
        }
        let kick = queue.should_notify();
        assert_eq!(device.serve().len(), usize::from(count));
        while let Some(token) = queue.peek_used() {
            // SAFETY: these are the buffers of every chain.
            unsafe { queue.pop_used(token, &[&request], &mut []) }.unwrap();
        }
        kick
    });
    assert!(by_peer > 0, "the peer is expected to compare without wrapping");

    for indirect in [false, true] {
        let mut rig = Rig::new(Case::new(indirect, true));
        let by_us = missed(|count| {
            assert!(!rig.device.enable_notifications().unwrap());
            for _ in 0..count {
                rig.add(1, 0);
            }
            let kick = rig.ring.publish().is_some();
            for chain in rig.device_takes(count.into()) {
                rig.device.push_used(chain.head, 0);
            }
            rig.device.publish_used();
            while rig.take().unwrap().is_some() {}
            kick
        });
        assert_eq!(by_us, 0);
    }
}

#[test]
fn p2_a_wrong_id_lets_the_peer_free_what_the_device_may_write_and_not_us() {
    let (mut device, mut queue) = Device::new(false);
    device.plan(Lie::UsedIdNotHead { id: 5 });
    let freed = {
        let request = vec![1u8; 16];
        let mut reply = vec![0u8; 64];
        let outcome = queue.add_notify_wait_pop(&[&request], &mut [&mut reply], &mut device);
        assert_eq!(outcome, Err(virtio_drivers::Error::WrongToken));
        reply.as_ptr() as u64
    };
    // A safe call has returned, the buffer is freed, and the device still has its address.
    assert_eq!(device.descriptor_addr(1), freed);
    assert_eq!(queue.available_desc(), SIZE - 2);
    // The queue is stuck for good: from now on the device is honest, and it does not help.
    for _ in 0..2 {
        let outcome = queue.add_notify_wait_pop(&[&[1]], &mut [], &mut device);
        assert_eq!(outcome, Err(virtio_drivers::Error::WrongToken));
    }

    for indirect in [false, true] {
        Case::each(indirect, false, |case| {
            let mut rig = Rig::new(case);
            let chains = rig.give(1);
            rig.device.plan(Lie::UsedIdNotHead { id: 5 });
            rig.device.push_used(chains[0].head, 0);
            rig.device.publish_used();
            // `expect_broken` sees that no buffer is dropped, `reset` that each comes back, once, and that the
            // ring works again.
            rig.expect_broken(Violation::UsedIdNotHead { id: 5 });
            assert_eq!(rig.ledger.alive(), 3);
            rig.reset();
        });
    }
}

#[test]
fn p3_a_forged_length_is_believed_by_the_peer_and_not_by_us() {
    let (mut device, mut queue) = Device::new(false);
    device.plan(Lie::UsedLenTooLarge { len: u32::MAX });
    let mut reply = [0u8; 64];
    let outcome = queue.add_notify_wait_pop(&[], &mut [&mut reply], &mut device);
    assert_eq!(outcome, Ok(u32::MAX), "for a buffer of 64 bytes");

    for (indirect, event_idx) in [(false, false), (false, true), (true, false), (true, true)] {
        Case::each(indirect, event_idx, |case| {
            let mut rig = Rig::new(case);
            rig.add(0, 1);
            let _ = rig.ring.publish();
            let chain = rig.device.pop().unwrap().unwrap();
            rig.device.plan(Lie::UsedLenTooLarge { len: u32::MAX });
            rig.device.push_used(chain.head, 0);
            rig.device.publish_used();
            assert_eq!(rig.take().unwrap().unwrap().1, 64);
        });
    }
}

#[test]
fn p8_an_id_is_cut_to_16_bits_by_the_peer_and_not_by_us() {
    let (mut device, mut queue) = Device::new(false);
    device.plan(Lie::UsedIdRange { id: 0xABCD_0000 });
    let outcome = queue.add_notify_wait_pop(&[&[1]], &mut [], &mut device);
    assert_eq!(outcome, Ok(0), "taken for id 0");

    for indirect in [false, true] {
        Case::each(indirect, false, |case| {
            let mut rig = Rig::new(case);
            let chains = rig.give(1);
            assert_eq!(chains[0].head, 0);
            rig.device.plan(Lie::UsedIdRange { id: 0xABCD_0000 });
            rig.device.push_used(0, 0);
            rig.device.publish_used();
            rig.expect_broken(Violation::UsedIdRange { id: 0xABCD_0000, size: 8 });
            rig.reset();
        });
    }
}

/// P8's other half: a chain that is freed by following `next` in memory that the device writes.
#[test]
fn p8_a_chain_is_given_back_without_a_look_at_the_table() {
    for seed in 1..100 {
        let mut rig = Rig::new(Case::new(false, false));
        let chains = rig.give(2);
        rig.device.tell(Lie::ScribbleRing { seed });
        rig.device.push_used(chains[0].head, 0);
        rig.device.publish_used();
        assert!(rig.take().unwrap().is_some());
        assert_eq!(rig.ring.free(), 5, "three of six descriptors came back, whatever `next` says now");
        rig.device.push_used(chains[1].head, 0);
        rig.device.publish_used();
        assert!(rig.take().unwrap().is_some());
        rig.round_trips(2);
    }
}
