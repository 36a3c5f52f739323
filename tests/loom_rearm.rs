//! Used buffer notifications switched on again: a driver that asked for one, looked again and sleeps hears of the
//! next completion (VIRTIO 1.4 §2.7.7, §2.7.14).
//!
//! The driver was polling before: what it asked for is not yet what it sleeps with.
#![cfg(loom)]
#![allow(unsafe_code, reason = "payload in loom's cells, and ranges that no memory is behind")]

mod loom_support;

use std::sync::Arc;

use loom_support::{Bell, Payload, model};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{Lease, RawRange};
use virtio::queue::{Ring, RingConfig};
use virtio::soft::DeviceRing;
use virtio::sync::mutants::Mutant;

/// Polls, and sleeps when nothing is used after interrupts were asked for; until `total` chains are back.
fn collect(ring: &mut Ring<RawRange>, bell: &Bell, payload: &Payload, total: usize) {
    let mut back = 0;
    loop {
        while let Some(mut used) = ring.pop().unwrap() {
            let at = used.next().unwrap().device_addr() as usize;
            assert_eq!((at, used.written()), (back, 4));
            assert_eq!(payload.read(at), 200 + at as u32);
            back += 1;
        }
        if back == total {
            return;
        }
        if !ring.enable_interrupts().unwrap() {
            bell.wait();
        }
        ring.disable_interrupts();
    }
}

/// The device uses batches of these sizes, from index `start` on, and notifies where the driver wants it.
fn handshake(event_idx: bool, start: u16, batches: &'static [usize]) {
    let total = batches.iter().sum();
    let mut config = RingConfig::new(0, 4);
    config.event_idx = event_idx;
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let mut ring = Ring::new(&memory, None, &config).unwrap();
    let mut device = DeviceRing::beside(&memory, &config).unwrap();
    ring.start_at(start);
    device.start_at(start);
    ring.disable_interrupts();
    let heads: Vec<u16> = (0..total as u64)
        .map(|at| {
            // SAFETY: nothing is behind this address: the device's end of this model maps it to `payload`.
            ring.add([], [unsafe { RawRange::new(at, 4) }]).unwrap();
            let _ = ring.publish();
            device.pop(&()).unwrap().unwrap().head
        })
        .collect();
    let (bell, payload) = (Bell::new(), Payload::new(total));
    let (their_bell, theirs) = (Arc::clone(&bell), Arc::clone(&payload));
    let device = loom::thread::spawn(move || {
        let mut heads = heads.into_iter().enumerate();
        for &batch in batches {
            for (at, head) in heads.by_ref().take(batch) {
                theirs.write(at, 200 + at as u32);
                device.push_used(head, 4);
            }
            if device.publish_used() {
                their_bell.ring();
            }
        }
    });
    collect(&mut ring, &bell, &payload, total);
    device.join().unwrap();
}

#[test]
fn no_completion_is_lost_flags() {
    let mutants = [Mutant::NoArmFence, Mutant::NoRecheck, Mutant::NoCallFence, Mutant::UsedRelaxed];
    model("re-arm, flags, 1 + 1", &mutants, || handshake(false, 0, &[1, 1]));
}

#[test]
fn no_completion_is_lost_event_idx() {
    let mutants = [Mutant::NoArmFence, Mutant::NoRecheck, Mutant::NoCallFence, Mutant::StaleUsedEvent];
    model("re-arm, EVENT_IDX, 1 + 1", &mutants, || handshake(true, 0, &[1, 1]));
}

#[test]
fn no_completion_is_lost_in_batches_across_the_wrap() {
    let mutants = [
        Mutant::NoArmFence,
        Mutant::NoRecheck,
        Mutant::NoCallFence,
        Mutant::StaleUsedEvent,
        Mutant::KickNotModular,
        Mutant::KickOldIndex,
    ];
    model("re-arm, EVENT_IDX, 1 + 2 at 65,534", &mutants, || handshake(true, 65_534, &[1, 2]));
}
