//! Two producers and room for one chain: each adds, notifies, and gets its own completion.
#![cfg(loom)]
#![allow(unsafe_code, reason = "ranges that no memory is behind")]

mod loom_queue;
mod loom_support;
mod ring_lane;

use std::sync::Arc;

use loom_queue::{queue, range};
use loom_support::model_within;
use virtio::event::Deadline;
use virtio::sync::mutants::Mutant;

#[test]
fn two_producers_share_one_slot() {
    let mutants = [Mutant::FullUnpublished, Mutant::NoArmFence, Mutant::NoRecheck];
    model_within("two producers, one slot", 2, &mutants, || {
        let (shared, mut device) = queue(1);
        let shared = Arc::new(shared);
        let device = loom::thread::spawn(move || device.serve(3));
        let other = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let token = shared.add([range(2)], [], Deadline::never()).unwrap();
                shared.notify().unwrap();
                assert_eq!(shared.wait(token, Deadline::never()).unwrap().token, token);
            })
        };
        // The second finds the queue full with what only this thread knows of.
        let tokens = [0, 1].map(|at| shared.add([range(at)], [], Deadline::never()).unwrap());
        shared.notify().unwrap();
        for token in tokens {
            let used = shared.wait(token, Deadline::never()).unwrap();
            assert_eq!(used.token, token);
        }
        other.join().unwrap();
        device.join().unwrap();
    });
}

/// Two wait in line for two slots that come free at once: the second must look when the first has gone.
#[test]
fn room_for_two_serves_two() {
    let mutants = [Mutant::NoWakeRoom, Mutant::NoArmFence, Mutant::NoRecheck];
    model_within("two in line, two slots", 2, &mutants, || {
        let (shared, mut device) = queue(2);
        let shared = Arc::new(shared);
        let first = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let producers = [2, 3].map(|at| {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.add([range(at)], [], Deadline::never()).unwrap())
        });
        device.ring.push_used(first[0].slot(), 0);
        device.complete(first[1]);
        for producer in producers {
            producer.join().unwrap();
        }
    });
}
