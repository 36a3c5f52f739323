//! The role of the reaper: whoever has it wakes the owners of what it reaps, and hands it on when it leaves.
#![cfg(loom)]
#![allow(unsafe_code, reason = "ranges that no memory is behind")]

mod loom_queue;
mod loom_support;
mod ring_lane;

use std::sync::Arc;

use loom_queue::{queue, range};
use loom_support::{Bell, model, model_within};
use virtio::Error;
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

/// The reaper leaves with its own completion, which makes room: whoever waits for that learns of it, although nobody
/// else's request has come back.
#[test]
fn room_that_the_reaper_leaves_behind_is_told_of() {
    let mutants = [Mutant::RoomUntold, Mutant::NoArmFence, Mutant::NoRecheck];
    model_within("reaper, waiter, one in line", 2, &mutants, || {
        let (shared, mut device) = queue(2);
        let shared = Arc::new(shared);
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let waiters = tokens.map(|token| {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                assert_eq!(shared.wait(token, Deadline::never()).unwrap().token, token)
            })
        });
        let producer = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.add([range(2)], [], Deadline::never()).unwrap())
        };
        device.complete(tokens[0]);
        producer.join().unwrap();
        device.complete(tokens[1]);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// A token that somebody waits for is nobody else's, even if it came back before the wait began.
#[test]
fn get_does_not_take_what_is_waited_for() {
    let mutants = [Mutant::ClaimLate, Mutant::NoArmFence, Mutant::NoRecheck];
    model("wait against get", &mutants, || {
        let (shared, mut device) = queue(4);
        let shared = Arc::new(shared);
        let tokens = [0, 1, 2].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        device.ring.push_used(tokens[0].slot(), 0);
        device.complete(tokens[1]);
        assert_eq!(shared.get(Deadline::never()).unwrap().token, tokens[0]);
        let getter = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.get(Deadline::never()).unwrap().token)
        };
        let waiter = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.wait(tokens[1], Deadline::never()).map(|used| used.token))
        };
        let waited = waiter.join().unwrap();
        device.complete(tokens[2]);
        match waited {
            Ok(token) => assert_eq!((token, getter.join().unwrap()), (tokens[1], tokens[2])),
            Err(error) => {
                assert!(matches!(error, Error::StaleToken { .. }), "{error}");
                assert_eq!(getter.join().unwrap(), tokens[1]);
                assert_eq!(shared.get(Deadline::never()).unwrap().token, tokens[2]);
            }
        }
    });
}
