//! What a software device does: everything but its registers and rings.

use alloc::vec::Vec;
use core::fmt::Debug;

use super::request::Request;
use crate::Result;
use crate::features::Features;
use crate::spec::{ByteOrder, DeviceType};

/// A piece of a device's own memory that its driver reaches through registers (VIRTIO 1.4 §2.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRegion {
    /// Its id, unique for the device.
    pub id: u8,
    /// What it holds at first.
    pub bytes: Vec<u8>,
}

/// What became of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It is used: so many bytes were written to its device-writable buffers.
    Used(u32),
    /// It cannot be served yet. It is offered again, before the queue's next chain, whenever something else
    /// was done.
    Wait,
}

/// A device type, in software.
///
/// One instance is one device. All calls come one at a time, under the device's lock, from whatever thread
/// runs it; none may block for long or call back into the device. What a driver wrote is not to be trusted.
pub trait DeviceModel: Send + Debug {
    /// Its type (VIRTIO 1.4 §5).
    fn device_type(&self) -> DeviceType;

    /// The feature bits of its type that it offers.
    fn features(&self) -> Features {
        Features::EMPTY
    }

    /// Number of its queues, at least 1.
    fn queues(&self) -> u16;

    /// Size of queue `queue`: the largest, and on legacy PCI the only one. A power of two.
    fn queue_size(&self, _queue: u16) -> u16 {
        256
    }

    /// Its configuration space, numbers in `order` (little-endian but through a legacy interface).
    fn config(&self, _order: ByteOrder) -> Vec<u8> {
        Vec::new()
    }

    /// The driver wrote `bytes` at `offset` of the configuration space, in `order`. What of it is taken over is
    /// read back by [`DeviceModel::config`].
    fn write_config(&mut self, _offset: u64, _bytes: &[u8], _order: ByteOrder) {}

    /// Its shared memory regions.
    fn shared_memory(&self) -> Vec<SharedRegion> {
        Vec::new()
    }

    /// The driver has set itself up with these features; chains come from now on.
    fn start(&mut self, _features: Features) {}

    /// The driver has reset the device.
    fn reset(&mut self) {}

    /// Whether every chain is used as soon as it is seen, as if all its device-writable bytes had been written. Where
    /// the driver accepted neither INDIRECT_DESC nor EVENT_IDX, the device is run inline, and neither checks its driver
    /// nor lies to it, [`DeviceModel::handle`] is then not called, and serving a chain takes tens of nanoseconds.
    fn takes_all(&self) -> bool {
        false
    }

    /// Serves one chain. Fails where the chain cannot be understood at all: the device then asks for a reset.
    fn handle(&mut self, request: &mut Request<'_>) -> Result<Reply>;
}
