//! What a ring must offer to be measured, and the requests that all of them carry.

use crate::raw::{RingAreas, leak_pages};

/// Requests in flight have buffers of their own, this many at most.
pub const SLOTS: usize = 256;
/// Chains of a batch between two calls of [`RingDriver::show`].
pub const SHOW_EVERY: usize = 16;
/// Bytes of the device-readable header of a request of three parts.
pub const HEADER_BYTES: u32 = 16;
/// Bytes of its device-writable data, and of the one device-readable buffer of a request of one part.
pub const DATA_BYTES: u32 = 4096;
/// Bytes of its device-writable status.
pub const STATUS_BYTES: u32 = 1;

/// Addresses of one request's buffers. Virtual and device addresses are the same.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// [`HEADER_BYTES`] for the device to read.
    pub header: u64,
    /// [`DATA_BYTES`] for the device to write (three parts) or to read (one part).
    pub data: u64,
    /// [`STATUS_BYTES`] for the device to write.
    pub status: u64,
}

/// The memory behind the requests: nobody ever touches it, only its addresses travel.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    base: u64,
}

impl Buffers {
    /// New memory for [`SLOTS`] requests.
    #[must_use]
    pub fn allocate() -> Self {
        Self {
            base: leak_pages(SLOTS * (DATA_BYTES as usize + 2 * HEADER_BYTES as usize)).as_mut_ptr() as u64,
        }
    }

    /// The buffers of the `sequence`-th request, counted from 0 and reused after [`SLOTS`].
    #[inline(always)]
    #[must_use]
    pub fn request(&self, sequence: usize) -> Request {
        let slot = (sequence % SLOTS) as u64;
        let data = self.base + slot * u64::from(DATA_BYTES);
        let header = self.base + SLOTS as u64 * u64::from(DATA_BYTES) + slot * 2 * u64::from(HEADER_BYTES);
        Request { header, data, status: header + u64::from(HEADER_BYTES) }
    }
}

/// A split ring's driver end. Everything is monomorphised over it: no `dyn` between a measurement and a ring.
///
/// The harness adds at most as many chains as fit, publishes once a batch, and pops in the order of adding.
/// Misuse and failure panic: a benchmark that went wrong has no result.
pub trait RingDriver: Send {
    /// Where the device end finds the ring.
    fn areas(&self) -> RingAreas;
    /// Adds a chain of one part: the data, device-readable.
    fn add1(&mut self, request: &Request);
    /// Adds a chain of three parts: header (readable), data and status (writable).
    fn add3(&mut self, request: &Request);
    /// Within a batch, after each [`SHOW_EVERY`] chains: shows the device what was added, where the driver does that
    /// before the batch is whole, and `add` does not do so itself.
    #[inline(always)]
    fn show(&mut self) {}
    /// Makes what was added visible, where `add` did not do so itself, and asks whether the device wants a
    /// notification. It does not (the device end says so once, at its creation).
    fn publish(&mut self);
    /// Takes one completion, if there is one.
    fn pop(&mut self) -> bool;
}
