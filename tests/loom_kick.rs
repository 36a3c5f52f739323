//! The handshake of available buffer notifications: a device that asked for one, saw nothing and sleeps is woken
//! by the next chain (VIRTIO 1.4 §2.7.10, §2.7.13.4).
//!
//! The device was polling before: its wish is not yet the one that it sleeps with. Without that the fences would
//! have nothing to do, and the model would not miss them.
#![cfg(loom)]
#![allow(unsafe_code, reason = "payload in loom's cells, and ranges that no memory is behind")]

mod loom_support;

use std::sync::Arc;

use loom_support::{Bell, Payload, model};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{DeviceStopped, RawRange};
use virtio::queue::{Ring, RingConfig};
use virtio::soft::DeviceRing;
use virtio::sync::mutants::Mutant;

/// Serves until `total` chains have come: polls, and sleeps when the ring is empty after the wish for a
/// notification was said.
fn serve(device: &mut DeviceRing, bell: &Bell, payload: &Payload, total: usize) {
    let mut taken = 0;
    loop {
        while let Some(chain) = device.pop(&()).unwrap() {
            assert_eq!(chain.descs[0].addr, taken as u64);
            assert_eq!(payload.read(taken), 100 + taken as u32);
            taken += 1;
        }
        if taken == total {
            return;
        }
        if !device.enable_notifications().unwrap() {
            bell.wait();
        }
        device.disable_notifications();
    }
}

/// The driver publishes batches of these sizes, from index `start` on, and notifies where the ring says so.
fn handshake(event_idx: bool, start: u16, batches: &[usize]) {
    handshake_showing(event_idx, start, batches, usize::MAX);
}

/// The same, with every `each` chains shown before the rest of their batch is added.
fn handshake_showing(event_idx: bool, start: u16, batches: &[usize], each: usize) {
    let total = batches.iter().sum();
    let mut config = RingConfig::new(0, 4);
    config.event_idx = event_idx;
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let mut ring = Ring::new(&memory, None, &config).unwrap();
    let mut device = DeviceRing::beside(&memory, &config).unwrap();
    ring.start_at(start);
    device.start_at(start);
    device.disable_notifications();
    let (bell, payload) = (Bell::new(), Payload::new(total));
    let (their_bell, theirs) = (Arc::clone(&bell), Arc::clone(&payload));
    let device = loom::thread::spawn(move || serve(&mut device, &their_bell, &theirs, total));
    let mut chain = 0;
    for &batch in batches {
        for number in 0..batch {
            if number != 0 && number % each == 0 {
                ring.show();
            }
            payload.write(chain, 100 + chain as u32);
            // SAFETY: nothing is behind this address, and the device's end of this model reaches nothing.
            let range = unsafe { RawRange::new(chain as u64, 4) };
            ring.add([range], []).unwrap();
            chain += 1;
        }
        if ring.publish().is_some() {
            bell.ring();
        }
    }
    device.join().unwrap();
    // SAFETY: the device's end is gone.
    let stopped = unsafe { DeviceStopped::assume() };
    // A ring that is dropped with chains in flight keeps its memory, in every execution.
    ring.reset(&stopped, |_, _| ()).unwrap();
}

#[test]
fn no_device_sleeps_on_chains_flags() {
    let mutants = [Mutant::NoKickFence, Mutant::NoWishFence, Mutant::NoDeviceRecheck, Mutant::PublishRelaxed];
    model("kick, flags, 1 + 1", &mutants, || handshake(false, 0, &[1, 1]));
}

#[test]
fn no_device_sleeps_on_chains_event_idx() {
    let mutants = [Mutant::NoKickFence, Mutant::NoWishFence, Mutant::NoDeviceRecheck, Mutant::PublishRelaxed];
    model("kick, EVENT_IDX, 1 + 1", &mutants, || handshake(true, 0, &[1, 1]));
}

/// D15: the batch takes the index over its wrap.
#[test]
fn d15_no_device_sleeps_on_a_batch_across_the_wrap() {
    let mutants = [Mutant::NoKickFence, Mutant::NoWishFence, Mutant::KickNotModular, Mutant::KickOldIndex];
    model("kick, EVENT_IDX, batch of 3 at 65,534", &mutants, || handshake(true, 65_534, &[3]));
}

#[test]
fn d15_no_device_sleeps_on_batches_up_to_the_wrap_and_over_it() {
    let mutants = [Mutant::NoKickFence, Mutant::NoWishFence, Mutant::KickNotModular, Mutant::KickOldIndex];
    model("kick, EVENT_IDX, 1 + 2 at 65,534", &mutants, || handshake(true, 65_534, &[1, 2]));
}

/// What was shown before the rest of its batch counts when the batch is published.
#[test]
fn no_device_sleeps_on_chains_that_were_shown_before_their_batch_was_complete() {
    let mutants = [Mutant::NoKickFence, Mutant::NoWishFence, Mutant::ShowForgets, Mutant::PublishRelaxed];
    model("kick, EVENT_IDX, 1 shown + 1", &mutants, || handshake_showing(true, 0, &[2], 1));
    let mutants = [Mutant::NoKickFence, Mutant::NoWishFence, Mutant::PublishRelaxed];
    model("kick, flags, 1 shown + 1", &mutants, || handshake_showing(false, 0, &[2], 1));
}
