//! Entropy driver (VIRTIO 1.4 §5.4).

use core::time::Duration;

use super::{Between, agree};
use crate::device::{Device, Queue, QueueConfig, Used};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::spec::DeviceType;
use crate::{Error, Result};

/// Bytes asked for at a time.
const CHUNK: u32 = 4096;
/// Buffers: more than one, so that a request that timed out does not end the use of the device.
const BUFFERS: u32 = 4;
/// Answers without a byte that are taken in a row before the device counts as broken.
const EMPTY_ANSWERS: u32 = 16;

/// Random bytes from an entropy device. One thread at a time (`&mut self`).
///
/// A request that timed out stays in flight; its bytes are dropped when they come.
///
/// ```
/// use std::time::Duration;
/// use virtio::drivers::Entropy;
///
/// # #[cfg(feature = "soft")] {
/// let mut entropy = Entropy::open("soft:entropy", Duration::from_secs(5))?;
/// let mut key = [0; 32];
/// entropy.fill(&mut key)?;
/// assert_ne!(key, [0; 32]);
/// # }
/// # Ok::<(), virtio::Error>(())
/// ```
#[derive(Debug)]
pub struct Entropy {
    // Before the device: a queue that is dropped after the reset finds its proof.
    queue: Queue<DmaBuf>,
    pool: DmaPool,
    device: Device,
    timeout: Duration,
    between: Between,
}

impl Entropy {
    /// Sets an entropy device up: one that was opened, or opened and negotiated. `timeout` limits each wait for
    /// an answer.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a device of another type; else as [`Device::negotiate`], [`Device::take_queue`] and
    /// [`Device::start`].
    pub fn new(device: Device, timeout: Duration) -> Result<Self> {
        if device.device_type() != DeviceType::ENTROPY {
            let wrong = Error::Misuse { what: "this device is no entropy device" };
            return Err(wrong.at(device.address()));
        }
        agree(&device, Features::EMPTY)?;
        let queue = device.take_queue(0, QueueConfig::size(16))?;
        let pool = device.pool(BUFFERS, CHUNK)?;
        device.start()?;
        Ok(Self { queue, pool, device, timeout, between: Between::default() })
    }

    /// Has `between` called during waits.
    #[must_use]
    pub fn with_between(mut self, between: Between) -> Self {
        self.between = between;
        self
    }

    /// The device behind it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Gives the device back. What is in flight stays its own until a reset.
    pub fn into_device(self) -> Device {
        self.device
    }

    /// Fills `to` with random bytes, in as many requests as it takes.
    ///
    /// # Errors
    /// As [`Entropy::read`]; what `to` holds then is not to be used.
    pub fn fill(&mut self, to: &mut [u8]) -> Result<()> {
        let mut rest = to;
        while !rest.is_empty() {
            let got = self.read(rest)?;
            rest = rest.get_mut(got..).unwrap_or_default();
        }
        Ok(())
    }

    /// Fills the beginning of `to` from one answer of the device, and tells how many bytes that were: at least
    /// one, unless `to` is empty. How many is the device's choice (VIRTIO 1.4 §5.4.6.1, §5.4.6.2).
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::ShortReply`] for a device that keeps answering without a byte (fault D10);
    /// what [`Queue::pop`] gives for a device that is broken, lost or reset.
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        self.try_read(to).map_err(|error| error.at(self.device.address()))
    }

    fn try_read(&mut self, to: &mut [u8]) -> Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        let deadline = Deadline::after(self.timeout);
        for _ in 0..EMPTY_ANSWERS {
            let got = self.request(to, deadline)?;
            if got != 0 {
                return Ok(got);
            }
        }
        Err(Error::ShortReply { need: 1, got: 0 })
    }

    /// One request and its answer.
    fn request(&mut self, to: &mut [u8], deadline: Deadline) -> Result<usize> {
        let mut buffer = self.buffer(deadline)?;
        buffer.set_len(u32::try_from(to.len()).unwrap_or(CHUNK).min(CHUNK))?;
        let token = self.queue.add([], [buffer])?;
        self.queue.notify()?;
        loop {
            let used = self.queue.get_with(deadline, || self.between.look())?;
            if used.token == token {
                return take(used, to);
            }
            // The late answer to a request that timed out.
            wipe(used)?;
        }
    }

    /// A buffer that is free, if need be after the late answer to a request that timed out.
    fn buffer(&mut self, deadline: Deadline) -> Result<DmaBuf> {
        loop {
            while let Some(late) = self.queue.pop()? {
                wipe(late)?;
            }
            match self.pool.take() {
                Err(Error::MemoryLimit { .. }) => {
                    wipe(self.queue.get_with(deadline, || self.between.look())?)?
                }
                buffer => return buffer,
            }
        }
    }
}

/// Copies out what the device says it wrote.
fn take(mut used: Used<DmaBuf>, to: &mut [u8]) -> Result<usize> {
    let Some(buffer) = used.buffer(0) else { return Ok(0) };
    let written = usize::try_from(used.written).unwrap_or(usize::MAX).min(to.len());
    buffer.read(0, to.get_mut(..written).unwrap_or_default())?;
    // Random bytes are given out once: a device that claims more than it wrote must not bring these back.
    buffer.fill(0)?;
    Ok(written)
}

fn wipe(used: Used<DmaBuf>) -> Result<()> {
    used.into_buffers().try_for_each(|buffer| buffer.fill(0))
}
