//! The bytes of a descriptor chain, as a device model sees them.

use super::ring::DeviceChain;
use crate::features::Features;
use crate::mem::dma::DmaView;
use crate::spec::ByteOrder;
use crate::{Error, Result};

/// One chain that the driver made available, with the memory behind it.
///
/// Offsets count the device-readable bytes, or the device-writable ones, from the start of the chain, however
/// the driver framed them (VIRTIO 1.4 §2.7.4).
#[derive(Debug)]
pub struct Request<'a> {
    queue: u16,
    order: ByteOrder,
    features: Features,
    chain: &'a DeviceChain,
    view: &'a mut DmaView,
}

/// Where an access of `len` bytes at `at` ends up that is not wholly inside `size` bytes.
fn outside(at: u64, len: usize, size: u64) -> Error {
    Error::OutOfBounds { offset: at, len: len as u64, size }
}

impl<'a> Request<'a> {
    pub(super) fn new(
        queue: u16,
        order: ByteOrder,
        features: Features,
        chain: &'a DeviceChain,
        view: &'a mut DmaView,
    ) -> Self {
        Self { queue, order, features, chain, view }
    }

    /// Index of the queue that it came from.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Byte order of what lies in the buffers.
    pub fn order(&self) -> ByteOrder {
        self.order
    }

    /// The features that were negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Number of device-readable bytes.
    pub fn readable_len(&self) -> u64 {
        self.len_of(false)
    }

    /// Number of device-writable bytes.
    pub fn writable_len(&self) -> u64 {
        self.len_of(true)
    }

    /// The lengths of the buffers of one kind, in order.
    pub fn buffers(&self, writable: bool) -> impl Iterator<Item = u32> {
        self.chain.descs.iter().filter(move |desc| desc.writable == writable).map(|desc| desc.len)
    }

    fn len_of(&self, writable: bool) -> u64 {
        self.buffers(writable).fold(0, |sum: u64, len| sum.saturating_add(len.into()))
    }

    /// Calls `copy` with each piece of the `len` bytes at `at`: the device address, and the range of those bytes.
    fn pieces(
        &mut self,
        writable: bool,
        at: u64,
        len: usize,
        mut copy: impl FnMut(&mut DmaView, u64, core::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let (mut skip, mut done) = (at, 0usize);
        for desc in self.chain.descs.iter().filter(|desc| desc.writable == writable) {
            if done == len {
                return Ok(());
            }
            let size = u64::from(desc.len);
            if skip >= size {
                skip = skip.saturating_sub(size);
                continue;
            }
            let room = usize::try_from(size.saturating_sub(skip)).unwrap_or(usize::MAX);
            let end = done.saturating_add(room.min(len.saturating_sub(done)));
            copy(self.view, desc.addr.wrapping_add(skip), done..end)?;
            (skip, done) = (0, end);
        }
        if done == len { Ok(()) } else { Err(outside(at, len, self.len_of(writable))) }
    }

    /// Copies device-readable bytes from offset `at` on. [`Error::OutOfBounds`] where there are fewer,
    /// [`Error::NotMapped`] where the driver's address leads nowhere.
    pub fn read(&mut self, at: u64, to: &mut [u8]) -> Result<()> {
        self.pieces(false, at, to.len(), |view, addr, range| match to.get_mut(range) {
            Some(to) => view.read(addr, to),
            None => Ok(()),
        })
    }

    /// Copies to the device-writable bytes from offset `at` on. Fails as [`Request::read`] does.
    pub fn write(&mut self, at: u64, from: &[u8]) -> Result<()> {
        self.pieces(true, at, from.len(), |view, addr, range| match from.get(range) {
            Some(from) => view.write(addr, from),
            None => Ok(()),
        })
    }

    /// Sets `len` device-writable bytes from offset `at` on to `value`. Fails as [`Request::read`] does.
    pub fn fill(&mut self, at: u64, len: usize, value: u8) -> Result<()> {
        self.pieces(true, at, len, |view, addr, range| view.fill(addr, range.len(), value))
    }
}
