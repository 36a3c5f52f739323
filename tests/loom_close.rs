//! Close against waiters: one that reaps and sleeps on the device, one that sleeps on the reaper (fault M4).
#![cfg(loom)]
#![allow(unsafe_code, reason = "ranges that no memory is behind")]

mod loom_queue;
mod loom_support;
mod ring_lane;

use std::sync::Arc;

use loom_queue::{queue, range};
use loom_support::model;
use virtio::Error;
use virtio::event::Deadline;
use virtio::sync::mutants::Mutant;

#[test]
fn every_waiter_learns_of_the_close() {
    let mutants = [Mutant::CloseLate, Mutant::CloseNoWake, Mutant::CloseUnseen];
    model("close, 2 waiters", &mutants, || {
        let (shared, _device) = queue(2);
        let shared = Arc::new(shared);
        let tokens = [0, 1].map(|at| shared.try_add([range(at)], []).unwrap());
        let waiters = tokens.map(|token| {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || shared.wait(token, Deadline::never()))
        });
        shared.close();
        for waiter in waiters {
            let outcome = waiter.join().unwrap();
            assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
        }
    });
}
