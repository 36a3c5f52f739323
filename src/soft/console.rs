//! A console (VIRTIO 1.4 §5.3) that sends back what it is sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::model::{DeviceModel, Reply};
use super::request::Request;
use crate::Result;
use crate::features::Features;
use crate::spec::device::console::{config, feature, queue};
use crate::spec::{ByteOrder, DeviceType};

/// Bytes that it holds before it takes no more.
const ROOM: usize = 1 << 20;

/// An echo console with one port.
#[derive(Debug, Clone)]
pub struct Console {
    size: (u16, u16),
    held: VecDeque<u8>,
}

impl Console {
    /// Of so many columns and rows.
    pub fn new(columns: u16, rows: u16) -> Self {
        Self { size: (columns, rows), held: VecDeque::new() }
    }

    fn take(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        let len = usize::try_from(request.readable_len()).unwrap_or(usize::MAX);
        // A chain that would never fit is cut.
        let len = len.min(ROOM);
        if self.held.len().saturating_add(len) > ROOM {
            return Ok(Reply::Wait);
        }
        let mut bytes = alloc::vec![0; len];
        request.read(0, &mut bytes)?;
        self.held.extend(bytes);
        Ok(Reply::Used(0))
    }

    fn give(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        if self.held.is_empty() {
            return Ok(Reply::Wait);
        }
        let room = usize::try_from(request.writable_len()).unwrap_or(usize::MAX);
        let len = room.min(self.held.len());
        let bytes: Vec<u8> = self.held.iter().take(len).copied().collect();
        request.write(0, &bytes)?;
        self.held.drain(..len);
        Ok(Reply::Used(len as u32))
    }
}

impl DeviceModel for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::CONSOLE
    }

    fn features(&self) -> Features {
        Features::from_bit(feature::SIZE) | Features::from_bit(feature::EMERG_WRITE)
    }

    fn queues(&self) -> u16 {
        2
    }

    fn config(&self, order: ByteOrder) -> Vec<u8> {
        let mut bytes = Vec::from(order.u16_to_bytes(self.size.0));
        bytes.extend(order.u16_to_bytes(self.size.1));
        bytes.extend([0; 8]);
        bytes
    }

    fn write_config(&mut self, offset: u64, bytes: &[u8], order: ByteOrder) {
        let at = offset == u64::from(config::EMERG_WR);
        if let Some(word) = bytes.first_chunk().filter(|_| at && self.held.len() < ROOM) {
            self.held.push_back(order.u32_from_bytes(*word) as u8);
        }
    }

    fn reset(&mut self) {
        self.held.clear();
    }

    fn handle(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        match request.queue() {
            queue::RECEIVE_PORT0 => self.give(request),
            _ => self.take(request),
        }
    }
}
