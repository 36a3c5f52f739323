//! Long runs: how long, and the row of the table that they end with.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// `full`, or the part of it that `VIRTIO_SOAK_PERCENT` asks for.
pub(crate) fn amount(full: u64) -> u64 {
    let percent = std::env::var("VIRTIO_SOAK_PERCENT").ok().map_or(100, |text| text.parse().unwrap());
    (full * percent / 100).max(1)
}

/// Runs `test` with the amount to do, out of `full`, and prints the row of the table that `make soak` shows.
#[expect(clippy::print_stdout, reason = "the rows of a table that the runner of the tests collects")]
pub(crate) fn soak(run: &str, full: u64, unit: &str, test: impl FnOnce(u64)) {
    let amount = amount(full);
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| test(amount)));
    let result = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("soak | {run} | {} {unit} | {:.1} | {result}", grouped(amount), start.elapsed().as_secs_f64());
    if let Err(fault) = outcome {
        resume_unwind(fault);
    }
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let ends = digits.char_indices().map(|(at, digit)| {
        let comma = at != 0 && (digits.len() - at).is_multiple_of(3);
        if comma { format!(",{digit}") } else { digit.to_string() }
    });
    ends.collect()
}

/// Numbers that look random: xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far from each other, and none at zero, where the sequence stands still.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
