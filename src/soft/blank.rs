//! A device that does nothing, at once: for measurements of drivers, where the device must cost next to nothing.

use super::model::{DeviceModel, Reply};
use super::request::Request;
use crate::Result;
use crate::spec::DeviceType;

/// Gives every chain back and says that all its device-writable bytes were written, without a look at any of them.
///
/// Its type is one that VIRTIO 1.4 §5 gives to no device, so that nobody takes what its buffers hold for data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blank;

impl Blank {
    /// Its type: the last number that a PCI device id has room for (VIRTIO 1.4 §4.1.2).
    pub const TYPE: DeviceType = DeviceType(0x3f);
}

impl DeviceModel for Blank {
    fn device_type(&self) -> DeviceType {
        Self::TYPE
    }

    fn queues(&self) -> u16 {
        1
    }

    fn handle(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        Ok(Reply::Used(u32::try_from(request.writable_len()).unwrap_or(u32::MAX)))
    }

    fn takes_all(&self) -> bool {
        true
    }
}
