//! The device end: as little as a device can do, so that it is never the bottleneck.

use crate::raw::{INDIRECT, NEXT, NO_NOTIFY, RingAreas, WRITE, read_descriptor};
use std::hint::black_box;
use std::sync::atomic::Ordering;

/// A raw loop that reads every descriptor, writes each used element, stores `used.idx` once a drain, touches
/// no payload and wants no notification.
#[derive(Debug)]
pub struct RawDevice {
    ring: RingAreas,
    last_avail: u16,
    used_idx: u16,
}

impl RawDevice {
    /// The device end of a ring that was not used yet.
    #[must_use]
    pub fn new(ring: RingAreas) -> Self {
        ring.used_flags().store(NO_NOTIFY, Ordering::Relaxed);
        Self { ring, last_avail: 0, used_idx: 0 }
    }

    /// Completes what `avail.idx` announces at this moment and returns the number of chains.
    #[inline(never)]
    pub fn drain(&mut self) -> u16 {
        let end = self.ring.avail_idx().load(Ordering::Acquire);
        let count = end.wrapping_sub(self.last_avail);
        while self.last_avail != end {
            let head = self.ring.avail_ring(self.last_avail).load(Ordering::Relaxed);
            self.last_avail = self.last_avail.wrapping_add(1);
            let written = self.walk(head);
            self.ring.write_used(self.used_idx, u32::from(head), written);
            self.used_idx = self.used_idx.wrapping_add(1);
        }
        if count != 0 {
            self.ring.used_idx().store(self.used_idx, Ordering::Release);
        }
        count
    }

    /// Reads the chain at `head`; answers the number of bytes that a device could write into it.
    #[inline(always)]
    fn walk(&self, head: u16) -> u32 {
        let mut index = head;
        let mut written = 0u32;
        loop {
            let d = self.ring.read_desc(index);
            black_box(d.addr);
            if d.flags & INDIRECT != 0 {
                return walk_table(d.addr, d.len);
            }
            if d.flags & WRITE != 0 {
                written = written.wrapping_add(d.len);
            }
            if d.flags & NEXT == 0 {
                return written;
            }
            index = d.next;
        }
    }
}

/// The same for an indirect table of `bytes` bytes at `addr`.
#[inline(never)]
fn walk_table(addr: u64, bytes: u32) -> u32 {
    let count = bytes as usize / 16;
    let mut written = 0u32;
    let mut index = 0;
    while index < count {
        // SAFETY: the drivers of this crate use identity addresses, and name a table of `bytes` bytes that
        // they keep until it was completed; `index` is below its number of descriptors.
        let d = unsafe { read_descriptor(addr as *mut u8, index) };
        black_box(d.addr);
        if d.flags & WRITE != 0 {
            written = written.wrapping_add(d.len);
        }
        if d.flags & NEXT == 0 {
            break;
        }
        index = usize::from(d.next);
    }
    written
}
