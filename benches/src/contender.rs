//! One ring, driven through one of the modes of a run.

use crate::cpu::{pin, spin_until};
use crate::device::RawDevice;
use crate::driver::{Buffers, RingDriver, SHOW_EVERY};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// How the two ends meet. `parts` is 1 or 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Both ends take turns on one core: `batch` adds, one publish, one drain, `batch` pops.
    OneThread {
        /// Parts of a chain.
        parts: u8,
        /// Chains of a batch.
        batch: usize,
    },
    /// The device end spins on the other core; `batch` adds, one publish, `batch` pops.
    Across {
        /// Parts of a chain.
        parts: u8,
        /// Chains of a batch.
        batch: usize,
    },
    /// As `Across`, but always topped up to `depth` in flight.
    Stream {
        /// Parts of a chain.
        parts: u8,
        /// Chains in flight.
        depth: usize,
    },
}

impl Mode {
    /// Whether the two ends sit on two cores.
    #[must_use]
    pub fn crosses(self) -> bool {
        !matches!(self, Self::OneThread { .. })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneThread { parts, batch } => write!(f, "one thread c{parts} b{batch}"),
            Self::Across { parts, batch } => write!(f, "two cores c{parts} b{batch}"),
            Self::Stream { parts, depth } => write!(f, "two cores c{parts} s{depth}"),
        }
    }
}

/// A ring that can be measured. The call is dynamic; what it measures is monomorphised.
pub trait Contender {
    /// What the tables call it.
    fn name(&self) -> &str;
    /// Takes at least `chains` chains round and answers nanoseconds a chain.
    fn run(&mut self, mode: Mode, chains: usize, cores: (usize, usize)) -> f64;
}

/// A [`RingDriver`] with the device end and the buffers.
pub struct Bench<D> {
    name: String,
    driver: D,
    device: Option<RawDevice>,
    buffers: Buffers,
    sequence: usize,
}

impl<D: RingDriver> Bench<D> {
    /// A new ring under this name. `buffers` are those that the driver was made with, where it knows any.
    #[must_use]
    pub fn new(name: &str, buffers: Buffers, driver: D) -> Self {
        let device = Some(RawDevice::new(driver.areas()));
        Self { name: name.to_owned(), driver, device, buffers, sequence: 0 }
    }

    #[inline(always)]
    fn add<const PARTS: u8>(&mut self) {
        let request = self.buffers.request(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        if PARTS == 1 { self.driver.add1(&request) } else { self.driver.add3(&request) }
    }

    #[inline(always)]
    fn add_batch<const PARTS: u8>(&mut self, batch: usize) {
        for first in (0..batch).step_by(SHOW_EVERY) {
            if first != 0 {
                self.driver.show();
            }
            for _ in first..batch.min(first + SHOW_EVERY) {
                self.add::<PARTS>();
            }
        }
    }

    #[inline(never)]
    fn one_thread<const PARTS: u8>(&mut self, batch: usize, chains: usize) -> f64 {
        let mut device = self.device.take().expect("the device end is back after each run");
        let batches = chains.div_ceil(batch);
        let mut popped = 0;
        let start = Instant::now();
        for _ in 0..batches {
            self.add_batch::<PARTS>(batch);
            self.driver.publish();
            device.drain();
            for _ in 0..batch {
                popped += usize::from(self.driver.pop());
            }
        }
        let elapsed = start.elapsed();
        assert_eq!(popped, batches * batch, "{}: chains were lost", self.name);
        self.device = Some(device);
        elapsed.as_nanos() as f64 / popped as f64
    }

    /// Runs `work` while the device end spins on `core`.
    fn beside_device(&mut self, core: usize, work: impl FnOnce(&mut Self) -> f64) -> f64 {
        let mut device = self.device.take().expect("the device end is back after each run");
        let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let (ready, stop) = (&ready, &stop);
        thread::scope(|scope| {
            let handle = scope.spawn(move || {
                pin(core);
                ready.store(true, Ordering::Release);
                while !stop.load(Ordering::Relaxed) {
                    spin_until(|| device.drain() != 0 || stop.load(Ordering::Relaxed));
                }
                device
            });
            spin_until(|| ready.load(Ordering::Acquire));
            let figure = work(self);
            stop.store(true, Ordering::Relaxed);
            self.device = handle.join().ok();
            figure
        })
    }

    #[inline(never)]
    fn across<const PARTS: u8>(&mut self, batch: usize, chains: usize) -> f64 {
        let batches = chains.div_ceil(batch);
        let start = Instant::now();
        for _ in 0..batches {
            self.add_batch::<PARTS>(batch);
            self.driver.publish();
            for _ in 0..batch {
                spin_until(|| self.driver.pop());
            }
        }
        start.elapsed().as_nanos() as f64 / (batches * batch) as f64
    }

    #[inline(never)]
    fn stream<const PARTS: u8>(&mut self, depth: usize, chains: usize) -> f64 {
        let (mut added, mut popped) = (0, 0);
        let start = Instant::now();
        while popped < chains {
            let room = depth - (added - popped);
            let more = room.min(chains - added);
            self.add_batch::<PARTS>(more);
            added += more;
            if more != 0 {
                self.driver.publish();
            }
            spin_until(|| self.driver.pop());
            popped += 1;
            while popped < added && self.driver.pop() {
                popped += 1;
            }
        }
        start.elapsed().as_nanos() as f64 / chains as f64
    }
}

impl<D: RingDriver> Contender for Bench<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, mode: Mode, chains: usize, cores: (usize, usize)) -> f64 {
        pin(cores.0);
        match mode {
            Mode::OneThread { parts: 1, batch } => self.one_thread::<1>(batch, chains),
            Mode::OneThread { batch, .. } => self.one_thread::<3>(batch, chains),
            Mode::Across { parts: 1, batch } => {
                self.beside_device(cores.1, |this| this.across::<1>(batch, chains))
            }
            Mode::Across { batch, .. } => self.beside_device(cores.1, |this| this.across::<3>(batch, chains)),
            Mode::Stream { parts: 1, depth } => {
                self.beside_device(cores.1, |this| this.stream::<1>(depth, chains))
            }
            Mode::Stream { depth, .. } => self.beside_device(cores.1, |this| this.stream::<3>(depth, chains)),
        }
    }
}
