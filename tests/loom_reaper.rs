//! The role of the reaper: whoever has it wakes the owners of what it reaps, and hands it on when it leaves.
#![cfg(loom)]
#![allow(unsafe_code, reason = "ranges that no memory is behind")]

mod loom_queue;
mod loom_support;
mod ring_lane;

use std::sync::Arc;
use std::time::Duration;

use loom_queue::{Kept, ModelDevice, queue, range};
use loom_support::model;
use virtio::Error;
use virtio::event::Deadline;
use virtio::queue::Token;
use virtio::sync::Mutex;
use virtio::sync::mutants::Mutant;

fn complete(device: &Mutex<ModelDevice>, token: Token) {
    let bell = device.lock().unwrap().give_back(token);
    if let Some(bell) = bell {
        bell.ring();
    }
}

/// One thread sleeps on the device, the other on it. The first leaves with its completion, and the second request is
/// completed only then: the other must be reaping by that time, or learn that nobody does.
#[test]
fn the_role_is_handed_to_the_other() {
    let mutants = [Mutant::NoHandOver, Mutant::NoArmFence, Mutant::NoRecheck];
    model("reaper leaves", &mutants, || {
        let (shared, device) = queue(2);
        let shared = Arc::new(Kept::new(shared));
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        // Whichever thread has it; loom's lock, as the first may still be looking whether it is to tell of the chain.
        let device = Arc::new(Mutex::new(device));
        let second = {
            let (shared, device) = (Arc::clone(&shared), Arc::clone(&device));
            loom::thread::spawn(move || {
                complete(&device, tokens[0]);
                shared.wait(tokens[1], Deadline::never()).unwrap().token
            })
        };
        assert_eq!(shared.wait(tokens[0], Deadline::never()).unwrap().token, tokens[0]);
        complete(&device, tokens[1]);
        assert_eq!(second.join().unwrap(), tokens[1]);
    });
}

/// The reaper finds the other's completion, and not its own.
#[test]
fn the_reaper_wakes_the_owner() {
    let mutants = [Mutant::NoWakeOwner, Mutant::NoArmFence, Mutant::NoRecheck];
    model("reaper wakes the owner", &mutants, || {
        let (shared, mut device) = queue(2);
        let shared = Arc::new(Kept::new(shared));
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let second = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.wait(tokens[1], Deadline::never()).unwrap().token)
        };
        device.complete(tokens[0]);
        assert_eq!(shared.wait(tokens[0], Deadline::never()).unwrap().token, tokens[0]);
        device.complete(tokens[1]);
        assert_eq!(second.join().unwrap(), tokens[1]);
    });
}

/// Room for whoever stands in line is made by a wait that takes its own completion and leaves, while somebody else has
/// the role: nothing but its word wakes the producer, since nobody else's request has come back and no role is handed on.
#[test]
fn room_that_a_wait_leaves_behind_is_told_of() {
    let mutants = [Mutant::RoomUntold, Mutant::NoHandOver, Mutant::NoArmFence, Mutant::NoRecheck];
    model("one in line, a wait leaves", &mutants, || {
        let (shared, device) = queue(2);
        let shared = Arc::new(Kept::new(shared));
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let device = Arc::new(Mutex::new(device));
        let (theirs, its) = (Arc::clone(&shared), Arc::clone(&device));
        // A third caller, while the reaper sleeps: with a thread of its own there would be too many interleavings.
        let third = move || {
            complete(&its, tokens[0]);
            let now = Deadline::after(Duration::ZERO);
            assert_eq!(theirs.wait(tokens[0], now).unwrap().token, tokens[0]);
        };
        shared.with(|lane| lane.port.at_first_sleep(third));
        let producer = {
            let (shared, device) = (Arc::clone(&shared), Arc::clone(&device));
            loom::thread::spawn(move || {
                shared.add([range(2)], [], Deadline::never()).unwrap();
                complete(&device, tokens[1]);
            })
        };
        assert_eq!(shared.wait(tokens[1], Deadline::never()).unwrap().token, tokens[1]);
        producer.join().unwrap();
    });
}

/// The same for room made by the reaper, between two sleeps, with a call that does not wait: from
/// its sleep on, until which there is no producer.
#[test]
fn room_that_a_look_leaves_behind_is_told_of() {
    let mutants = [Mutant::RoomUntold, Mutant::NoArmFence, Mutant::NoRecheck];
    model("one in line, a look in between", &mutants, || {
        let (shared, mut device) = queue(2);
        let shared = Arc::new(Kept::new(shared));
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        shared.notify().unwrap();
        let producer = Arc::new(std::sync::Mutex::new(None));
        let (its, theirs) = (Arc::clone(&producer), Arc::clone(&shared));
        let begin = move || {
            let producer = loom::thread::spawn(move || {
                // Completed once the producer has its place in line.
                let mut first = Some(tokens[0]);
                let complete = || {
                    first.take().into_iter().for_each(|token| device.complete(token));
                    Ok(())
                };
                theirs.add_with([range(2)], [], Deadline::never(), complete).unwrap();
                device.complete(tokens[1]);
            });
            *its.lock().unwrap() = Some(producer);
        };
        shared.with(|lane| lane.port.at_first_sleep(begin));
        let waited = shared.wait_with(tokens[1], Deadline::never(), || shared.pop().map(drop));
        assert_eq!(waited.unwrap().token, tokens[1]);
        let producer = producer.lock().unwrap().take();
        producer.unwrap().join().unwrap();
    });
}

/// A token that somebody waits for is nobody else's, even if it came back before the wait began.
#[test]
fn get_does_not_take_what_is_waited_for() {
    let mutants = [Mutant::ClaimLate, Mutant::NoArmFence, Mutant::NoRecheck];
    model("wait against get", &mutants, || {
        let (shared, mut device) = queue(4);
        let shared = Arc::new(Kept::new(shared));
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
