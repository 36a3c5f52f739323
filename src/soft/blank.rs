//! A device that does nothing, at once: for measurements of drivers, where the device must cost next to nothing.

use super::model::{DeviceModel, Reply};
use super::request::Request;
use super::ring::{DeviceRing, DriverFault};
use crate::Result;
use crate::spec::DeviceType;
use crate::spec::split::{DESC_F_INDIRECT, DESC_F_NEXT};

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

impl DeviceRing {
    /// Writes a used element for every chain that waits, as if all its device-writable bytes had been written, and
    /// looks at no payload; answers how many chains they were. Nothing is kept of a chain but that number: for devices
    /// that must not be what a benchmark measures. Indirect tables are refused.
    pub fn use_all(&mut self) -> core::result::Result<u32, DriverFault> {
        // One look: for what comes later there is another notification.
        let count = self.look()?;
        for _ in 0..count {
            let Some(head) = self.pop_head()? else { break };
            let len = self.writable_bytes(head)?;
            self.push_used(head, len);
        }
        Ok(count.into())
    }

    /// Device-writable bytes of the chain at `head`, by the rules of [`DeviceRing::pop`].
    fn writable_bytes(&self, head: u16) -> core::result::Result<u32, DriverFault> {
        let (mut index, mut steps, mut total, mut writable) = (head, 0u16, 0u64, 0u64);
        let mut writes = false;
        loop {
            let (desc, flags, next) = self.desc(index)?;
            if flags & DESC_F_INDIRECT != 0 {
                let goes_on = flags & DESC_F_NEXT != 0;
                let alone = DriverFault::IndirectNotNegotiated;
                return Err(if goes_on { DriverFault::IndirectWithNext } else { alone });
            }
            if writes && !desc.writable {
                return Err(DriverFault::ReadableAfterWritable);
            }
            writes = desc.writable;
            total = total.saturating_add(desc.len.into());
            if total > 1 << 32 {
                return Err(DriverFault::TooManyBytes);
            }
            writable = writable.saturating_add(if writes { desc.len.into() } else { 0 });
            steps = steps.wrapping_add(1);
            if flags & DESC_F_NEXT == 0 {
                return Ok(u32::try_from(writable).unwrap_or(u32::MAX));
            }
            if steps >= self.size() {
                return Err(DriverFault::ChainTooLong);
            }
            index = next;
        }
    }
}
