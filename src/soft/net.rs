//! A network device (VIRTIO 1.4 §5.1) whose wire ends in itself: each frame comes back on the same queue pair.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::model::{DeviceModel, Reply};
use super::request::Request;
use crate::features::Features;
use crate::spec::device::net::{config, feature, header};
use crate::spec::{ByteOrder, DeviceType};
use crate::{Error, Result};

/// Frames that are under way on one pair; more are dropped, as a wire does.
const FRAMES: usize = 256;
/// Longest frame, header not counted.
const LONGEST: u64 = 65_550;

/// A loopback network device.
#[derive(Debug, Clone)]
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    frames: Vec<VecDeque<Vec<u8>>>,
    dropped: u64,
}

impl Net {
    /// With this address, and one queue pair.
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac, mtu: 1500, frames: vec![VecDeque::new()], dropped: 0 }
    }

    /// Announces this MTU.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    fn header_len(request: &Request<'_>) -> u64 {
        let legacy = !request.features().contains(Features::VERSION_1);
        header::size(request.features().0, legacy) as u64
    }

    fn transmit(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        let start = Self::header_len(request);
        let short = Error::Misuse { what: "a frame without its header" };
        let len = request.readable_len().checked_sub(start).ok_or(short)?;
        let pair = self.frames.get_mut(usize::from(request.queue() / 2));
        let Some(frames) = pair.filter(|frames| frames.len() < FRAMES && len <= LONGEST) else {
            self.dropped = self.dropped.wrapping_add(1);
            return Ok(Reply::Used(0));
        };
        let mut frame = vec![0; len as usize];
        request.read(start, &mut frame)?;
        frames.push_back(frame);
        Ok(Reply::Used(0))
    }

    fn receive(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        let start = Self::header_len(request);
        let order = request.order();
        let Some(frames) = self.frames.get_mut(usize::from(request.queue() / 2)) else {
            return Ok(Reply::Wait);
        };
        let room = request.writable_len();
        while let Some(frame) = frames.pop_front() {
            let len = start.saturating_add(frame.len() as u64);
            if len > room {
                self.dropped = self.dropped.wrapping_add(1);
                continue;
            }
            request.fill(0, start as usize, 0)?;
            if start >= header::SIZE as u64 {
                request.write(header::NUM_BUFFERS as u64, &order.u16_to_bytes(1))?;
            }
            request.write(start, &frame)?;
            return Ok(Reply::Used(len as u32));
        }
        Ok(Reply::Wait)
    }
}

impl DeviceModel for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::NET
    }

    fn features(&self) -> Features {
        let bits = [feature::MAC, feature::STATUS, feature::MTU];
        bits.into_iter().fold(Features::EMPTY, |all, bit| all | Features::from_bit(bit))
    }

    fn queues(&self) -> u16 {
        2
    }

    fn config(&self, order: ByteOrder) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(config::MTU)];
        for (to, from) in bytes.iter_mut().zip(self.mac) {
            *to = from;
        }
        // The link is up.
        let status = usize::from(config::STATUS);
        if let Some(place) = bytes.get_mut(status..status.saturating_add(2)) {
            place.copy_from_slice(&order.u16_to_bytes(1));
        }
        bytes.extend(order.u16_to_bytes(self.mtu));
        bytes
    }

    fn reset(&mut self) {
        self.frames.iter_mut().for_each(VecDeque::clear);
    }

    fn handle(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        if request.queue().is_multiple_of(2) { self.receive(request) } else { self.transmit(request) }
    }
}
