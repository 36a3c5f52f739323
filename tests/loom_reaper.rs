//! The role of the reaper: whoever has it wakes the owners of what it reaps, and hands it on when it leaves.
#![cfg(loom)]
#![allow(unsafe_code, reason = "ranges that no memory is behind")]

mod loom_queue;
mod loom_support;

use std::sync::Arc;

use loom_queue::{queue, range};
use loom_support::{Bell, model_within};
use virtio::event::Deadline;
use virtio::sync::mutants::Mutant;

/// The device completes the second request only when the first one's owner has gone: the other must be reaping by
/// then, or learn that nobody does.
#[test]
fn the_role_is_handed_on() {
    let mutants = [Mutant::NoHandOver, Mutant::NoWakeOwner, Mutant::NoArmFence, Mutant::NoRecheck];
    model_within("reaper, 2 waiters", 3, &mutants, || {
        let (shared, mut device) = queue(2);
        let shared = Arc::new(shared);
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let gone = Bell::new();
        let first = {
            let (shared, gone) = (Arc::clone(&shared), Arc::clone(&gone));
            loom::thread::spawn(move || {
                assert_eq!(shared.wait(tokens[0], Deadline::never()).unwrap().token, tokens[0]);
                gone.ring();
            })
        };
        let second = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.wait(tokens[1], Deadline::never()).unwrap().token)
        };
        device.complete(tokens[0]);
        gone.wait();
        device.complete(tokens[1]);
        first.join().unwrap();
        assert_eq!(second.join().unwrap(), tokens[1]);
    });
}
