//! The ring against a device end that is not ours: the crates `virtio-queue` and `vm-memory`, with random chains
//! of random lengths, every size, with and without tables and EVENT_IDX, stepped and in threads that sleep until
//! they are told. Every byte is checked on both sides.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

#[path = "ring_virtio_queue/ends.rs"]
mod ends;
mod soak_common;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ends::{Device, Random, Setup};
use soak_common::soak;

/// A side that waits longer than this was not told of something.
const DEADLINE: Duration = Duration::from_secs(20);

/// Chains of the tests of every day: 60,000 stepped and 40,000 in threads.
const STEPPED: u32 = 60_000;
const THREADED: u32 = 40_000;

fn setups() -> Vec<Setup> {
    let mut setups = Vec::new();
    for shift in 0..=8 {
        for indirect in [false, true] {
            for event_idx in [false, true] {
                setups.push(Setup { size: 1 << shift, indirect, event_idx });
            }
        }
    }
    setups
}

/// One thread takes both sides' steps in random order; the device uses chains in any order.
fn stepped(setup: Setup, chains: u32) {
    let (mut driver, mut device) = ends::both(setup);
    let mut random = Random(u64::from(setup.size) << 2 | u64::from(setup.indirect) << 1 | 1);
    let mut steps = 0;
    while driver.done < chains {
        steps += 1;
        assert!(steps < 100 * (chains + 100), "{setup:?} makes no progress");
        match random.below(4) {
            0 => {
                for _ in 0..=random.below(setup.size.into()) {
                    if driver.added < chains {
                        driver.add();
                    }
                }
            }
            1 => drop(driver.ring.publish()),
            2 => {
                device.take();
                let count = random.below(u64::from(device.taken()) + 1);
                (0..count).for_each(|_| device.use_one());
            }
            _ => driver.take_all(),
        }
        if driver.added == chains && random.below(4) == 0 {
            let _ = driver.ring.publish();
            device.take();
            (0..device.taken()).for_each(|_| device.use_one());
            driver.take_all();
        }
    }
    driver.check_idle(chains);
}

/// Both sides sleep whenever nothing is to be done, and are woken by notifications alone.
fn threaded(setup: Setup, chains: u32) {
    let (mut driver, mut device) = ends::both(setup);
    let (doorbell, kicked) = sync_channel(1);
    let (interrupt, interrupted) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || serve(&mut device, chains, &kicked, &interrupt));
        while driver.done < chains {
            driver.ring.disable_interrupts();
            while driver.added < chains && driver.add() {}
            if driver.ring.publish().is_some() {
                ring(&doorbell);
            }
            driver.take_all();
            if driver.done < chains
                && (driver.added == chains || !driver.has_room())
                && !driver.ring.enable_interrupts().unwrap()
            {
                sleep(&interrupted, "the driver was not told of a used buffer");
            }
        }
    });
    driver.check_idle(chains);
}

fn serve(device: &mut Device, chains: u32, kicked: &Receiver<()>, interrupt: &SyncSender<()>) {
    let mut used = 0;
    while used < chains {
        device.disable_notifications();
        device.take();
        while device.taken() != 0 {
            device.use_one();
            used += 1;
        }
        if device.wants_interrupt() {
            ring(interrupt);
        }
        if used < chains && !device.enable_notifications() {
            sleep(kicked, "the device was not told of an available buffer");
        }
    }
}

/// A doorbell that is rung already stays so.
fn ring(doorbell: &SyncSender<()>) {
    let _ = doorbell.try_send(());
}

fn sleep(bell: &Receiver<()>, what: &str) {
    bell.recv_timeout(DEADLINE).expect(what);
}

fn all(run: fn(Setup, u32), chains: u32) {
    let setups = setups();
    for setup in &setups {
        run(*setup, chains.div_ceil(setups.len() as u32));
    }
}

#[test]
fn random_chains_step_by_step() {
    all(stepped, STEPPED);
}

#[test]
fn random_chains_between_threads_that_sleep() {
    all(threaded, THREADED);
}

/// Small rings, so that the last batch before the wrap is soon a batch across it.
#[test]
fn random_chains_around_the_wrap_of_the_index() {
    for indirect in [false, true] {
        for event_idx in [false, true] {
            threaded(Setup { size: 4, indirect, event_idx }, 65_536 + 2_000);
        }
    }
}

#[test]
#[ignore = "soak: 10 million chains"]
fn soak_of_ten_million_chains() {
    for (name, run) in [("step by step", stepped as fn(Setup, u32)), ("between threads", threaded)] {
        soak(&format!("ring against virtio-queue, {name}"), 5_000_000, "chains", |chains| {
            all(run, u32::try_from(chains).unwrap());
        });
    }
}
