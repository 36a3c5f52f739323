//! An entropy device (VIRTIO 1.4 §5.4) whose bytes are drawn from a seed: the same for the same seed.

use super::model::{DeviceModel, Reply};
use super::request::Request;
use crate::Result;
use crate::spec::DeviceType;

/// Most bytes for one chain: a device may fill less than it was given (VIRTIO 1.4 §5.4.6.2).
const MOST: u64 = 1 << 20;

/// An entropy device. Its bytes are for tests, not for keys.
#[derive(Debug, Clone)]
pub struct Entropy {
    state: u64,
    most: u64,
}

impl Entropy {
    /// With the bytes that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, most: MOST }
    }

    /// Gives at most `most` bytes for one chain (at least 1), however long it is.
    #[must_use]
    pub fn at_most(mut self, most: u64) -> Self {
        self.most = most.clamp(1, MOST);
        self
    }

    /// The next eight bytes: the generator splitmix64.
    fn next(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

impl DeviceModel for Entropy {
    fn device_type(&self) -> DeviceType {
        DeviceType::ENTROPY
    }

    fn queues(&self) -> u16 {
        1
    }

    fn handle(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        let len = request.writable_len().min(self.most);
        let mut bytes = [0u8; 512];
        let mut at = 0;
        while at < len {
            for word in bytes.chunks_exact_mut(8) {
                word.copy_from_slice(&self.next());
            }
            let part = len.saturating_sub(at).min(512);
            request.write(at, bytes.get(..part as usize).unwrap_or_default())?;
            at = at.saturating_add(part);
        }
        Ok(Reply::Used(len as u32))
    }
}
