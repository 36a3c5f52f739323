//! Two producers and room for one chain: each adds, notifies, and gets its own completion.
#![cfg(loom)]
#![allow(unsafe_code, reason = "ranges that no memory is behind")]

mod loom_queue;
mod loom_support;
mod ring_lane;

use std::sync::Arc;

use loom_queue::{Kept, inline, queue, range};
use loom_support::model;
use virtio::event::Deadline;
use virtio::sync::mutants::Mutant;

/// Two producers and room for one chain, whichever of them comes first: the other shows the device what it finds, and
/// sleeps until the chain comes back. Only one of them notifies.
#[test]
fn two_producers_take_turns() {
    let mutants = [Mutant::FullUnpublished, Mutant::NoArmFence, Mutant::NoRecheck];
    model("two producers", &mutants, || {
        let shared = Arc::new(inline(1));
        let other = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.add([range(1)], [], Deadline::never()).unwrap())
        };
        let mine = shared.add([range(0)], [], Deadline::never()).unwrap();
        shared.notify().unwrap();
        let mut tokens = [mine, other.join().unwrap()];
        shared.notify().unwrap();
        let mut done = tokens.map(|_| shared.pop().unwrap().unwrap().token);
        tokens.sort();
        done.sort();
        assert_eq!(tokens, done);
    });
}

/// Two wait in line for two slots that come free at once: the second must look when the first has gone.
#[test]
fn room_for_two_serves_two() {
    let mutants = [Mutant::NoWakeRoom, Mutant::NoArmFence, Mutant::NoRecheck];
    model("two in line, two slots", &mutants, || {
        let (shared, mut device) = queue(2);
        let shared = Arc::new(Kept::new(shared));
        let first = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let other = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.add([range(2)], [], Deadline::never()).unwrap())
        };
        device.ring.push_used(first[0].slot(), 0);
        device.complete(first[1]);
        shared.add([range(3)], [], Deadline::never()).unwrap();
        other.join().unwrap();
    });
}
