//! What a block device is set up with, and the setting up of its queues.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::lane::{Lane, Make};
use super::limits::Limits;
use super::rescue::Reconnect;
use super::split::Shape;
use crate::device::{Device, QueueConfig};
use crate::drivers::Between;
use crate::sync::Mutex;
use crate::{Error, Result};

/// How a block device is driven.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BlockOptions {
    /// Request queues to have, at least 1; the device may have fewer.
    pub queues: u16,
    /// Descriptors of each; see [`QueueConfig::size`].
    pub queue_size: Option<u16>,
    /// Longest wait for the next answer while requests are in flight.
    pub timeout: Duration,
    /// Longest wait for everything else that is asked of the device: connections, resets, configuration. For
    /// [`Block::open`](super::Block::open); a device that is open has a limit of its own.
    pub control_timeout: Duration,
    /// Bytes of a read or write request, where the device takes that many.
    pub chunk: u32,
    /// Bytes of data in flight on each queue, in memory that is reserved for it.
    pub window: u32,
    /// Whether answers are announced by interrupts; else the queues are polled.
    pub interrupts: bool,
    /// What happens when the device's back-end goes away.
    pub reconnect: Reconnect,
    /// What is called during waits.
    pub between: Between,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: None,
            timeout: Duration::from_secs(30),
            control_timeout: Duration::from_secs(2),
            chunk: 128 << 10,
            window: 2 << 20,
            interrupts: true,
            reconnect: Reconnect::Fail,
            between: Between::default(),
        }
    }
}

impl BlockOptions {
    /// How each queue is wished for.
    pub(super) fn queue(&self) -> QueueConfig {
        let mut wish = QueueConfig { interrupts: self.interrupts, ..QueueConfig::default() };
        (wish.size, wish.direct_first) = (self.queue_size, true);
        wish
    }
}

/// Sets the request queues up: as many as are wished for and there.
pub(super) fn lanes(
    device: &Device,
    options: &BlockOptions,
    limits: &Limits,
) -> Result<(Box<[Mutex<Lane>]>, Shape)> {
    let count = options.queues.max(1).min(limits.queues);
    let mut queues = Vec::new();
    for index in 0..count {
        match device.take_queue(index, options.queue()) {
            Ok(queue) => queues.push(queue),
            // A device that has fewer queues than it says is used with those that it has.
            Err(error) if index > 0 && matches!(error.kind(), Error::QueueUnavailable { .. }) => {
                log::warn!("{}: {index} request queues are used: {error}", device.address());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let size = queues.iter().map(|queue| queue.size()).min().unwrap_or(0);
    let places = u32::from(size).saturating_sub(2);
    if places == 0 {
        return Err(Error::QueueUnavailable {
            queue: 0,
            why: "a block request takes three descriptors, more than it has",
        });
    }
    let shape = Shape::new(options.chunk, limits.size_max, limits.seg_max, places, limits.block_size);
    let make =
        Make { shape, window: options.window, timeout: options.timeout, between: options.between.clone() };
    let lanes = queues.into_iter().map(|queue| Lane::new(device, queue, &make).map(Mutex::new));
    Ok((lanes.collect::<Result<_>>()?, shape))
}
