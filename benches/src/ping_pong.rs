//! The unit of everything across cores: a cache line's way there and back.

use crate::cpu::{pin, spin_until};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

#[repr(align(128))]
struct Line(AtomicU64);

/// Nanoseconds for one line's way from core to core and back, over `trips` trips.
#[must_use]
pub fn round_trip(cores: (usize, usize), trips: u64) -> f64 {
    let line = Line(AtomicU64::new(0));
    let line = &line.0;
    thread::scope(|scope| {
        scope.spawn(move || {
            pin(cores.1);
            for trip in 0..=trips {
                spin_until(|| line.load(Ordering::Acquire) == 2 * trip + 1);
                line.store(2 * trip + 2, Ordering::Release);
            }
        });
        pin(cores.0);
        // The first trip waits for the other thread to start and is not counted.
        let turn = |trip: u64| {
            line.store(2 * trip + 1, Ordering::Release);
            spin_until(|| line.load(Ordering::Acquire) == 2 * trip + 2);
        };
        turn(0);
        let start = Instant::now();
        for trip in 1..=trips {
            turn(trip);
        }
        start.elapsed().as_nanos() as f64 / trips as f64
    })
}
