//! The peer of `benches/python/bench.py`: the same requests in Rust, over the same device, when it is asked for them. A
//! line of the standard input is a series and a number of requests; the answer is nanoseconds a request.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::{Duration, Instant};

use virtio::device::{Device, Done, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};

const BATCH: u32 = 32;

/// A queue of the device, buffers for it, and arrays for tokens and lengths.
struct Bench {
    queue: Queue<DmaBuf>,
    pool: DmaPool,
    tokens: [u64; BATCH as usize],
    written: [u32; BATCH as usize],
    // After what is in flight on it.
    _device: Device,
}

impl Bench {
    fn new(address: &str) -> virtio::Result<Self> {
        let device = virtio::open(address)?;
        device.negotiate(Features::EMPTY, Features::VERSION_1)?;
        let queue = device.take_queue(0, QueueConfig::size(64))?;
        device.start()?;
        let pool = device.pool(BATCH, 64)?;
        let (tokens, written) = ([0; BATCH as usize], [0; BATCH as usize]);
        Ok(Self { queue, pool, tokens, written, _device: device })
    }

    fn one(&mut self) -> virtio::Result<()> {
        let token = self.queue.add([], [self.pool.take()?])?;
        self.queue.notify()?;
        let used = self.queue.get(Some(Duration::from_secs(1)))?;
        assert_eq!(used.token, token);
        black_box(used.written);
        Ok(())
    }

    fn batch(&mut self) -> virtio::Result<()> {
        for (slot, token) in (0..).zip(&mut self.tokens) {
            *token = self.queue.add([], [self.pool.slot(slot)?])?.into_raw();
        }
        self.queue.notify()?;
        for (token, written) in self.tokens.iter_mut().zip(&mut self.written) {
            let done = self.queue.pop_with(Done::take)?.ok_or("not used in the notification");
            let done = done.map_err(|what| virtio::Error::Misuse { what })?;
            (*token, *written) = (done.token.into_raw(), done.written);
        }
        black_box((&self.tokens, &self.written));
        Ok(())
    }
}

fn timed(count: u32, of_each: u32, mut work: impl FnMut() -> virtio::Result<()>) -> virtio::Result<f64> {
    let rounds = count / of_each;
    let start = Instant::now();
    for _ in 0..rounds {
        work()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(rounds * of_each))
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("the address of a device is missing")?;
    let mut bench = Bench::new(&address)?;
    for line in stdin().lock().lines() {
        let line = line?;
        let (series, count) = line.split_once(' ').ok_or("a series and a number of requests")?;
        let count = count.parse()?;
        let ns = match series {
            "single" => timed(count, 1, || bench.one())?,
            "batch" => timed(count, BATCH, || bench.batch())?,
            other => return Err(format!("no series is {other}").into()),
        };
        let mut out = stdout().lock();
        writeln!(out, "{ns:.2}")?;
        out.flush()?;
    }
    Ok(())
}
