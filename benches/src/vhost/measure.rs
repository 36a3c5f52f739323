//! What a client of a block device is asked to do, and how long that takes.

use std::time::{Duration, Instant};

use super::null::CAPACITY;

/// Bytes of a request.
pub const BLOCK: usize = 4096;
/// Descriptors of the queues of all Rust clients.
pub const QUEUE: u16 = 512;

/// Where requests go: a fixed series, the same for everybody.
#[derive(Debug)]
pub struct Offsets(u64);

impl Default for Offsets {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Offsets {
    /// The next offset: a multiple of [`BLOCK`] below [`CAPACITY`].
    #[inline(always)]
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (CAPACITY / BLOCK as u64)) * BLOCK as u64
    }
}

/// Reads at one depth, on an open device.
pub trait Client {
    /// Makes at least so many requests, and answers how many it made.
    fn turn(&mut self, requests: u64) -> u64;
}

/// Requests between two looks at the clock.
const TURN: u64 = 4096;

/// Requests a second over `time`, after a quarter of that to warm up.
pub fn rate(client: &mut impl Client, time: Duration) -> f64 {
    for_time(client, time / 4);
    let (made, taken) = for_time(client, time);
    made as f64 / taken.as_secs_f64()
}

fn for_time(client: &mut impl Client, time: Duration) -> (u64, Duration) {
    let (start, mut made) = (Instant::now(), 0);
    loop {
        made += client.turn(TURN);
        let taken = start.elapsed();
        if taken >= time {
            return (made, taken);
        }
    }
}
