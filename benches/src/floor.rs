//! The yardstick: the least a split driver can do, and the same with the two indices treated well.

use crate::driver::{DATA_BYTES, HEADER_BYTES, Request, RingDriver, STATUS_BYTES};
use crate::raw::{Descriptor, NEXT, RingAreas, WRITE};
use std::hint::black_box;
use std::sync::atomic::Ordering;

/// The floor, or with `BATCHED` the floor with `avail.idx` stored once a batch and `used.idx` cached.
///
/// It fills descriptors in ring order (the device end completes in order, so there is no free list to keep),
/// with no fence, no check and no shadow state. Without `BATCHED` it writes the available slot and
/// `avail.idx` for every chain and reads `used.idx` for every pop.
#[derive(Debug)]
pub struct Floor<const BATCHED: bool> {
    ring: RingAreas,
    next_desc: u16,
    avail_idx: u16,
    last_used: u16,
    cached_used: u16,
}

impl<const BATCHED: bool> Floor<BATCHED> {
    /// The floor over a new ring of this size.
    #[must_use]
    pub fn new(size: u16) -> Self {
        Self { ring: RingAreas::allocate(size), next_desc: 0, avail_idx: 0, last_used: 0, cached_used: 0 }
    }

    #[inline(always)]
    fn make_available(&mut self, head: u16) {
        self.ring.avail_ring(self.avail_idx).store(head, Ordering::Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        if !BATCHED {
            self.ring.avail_idx().store(self.avail_idx, Ordering::Release);
        }
    }

    #[inline(always)]
    fn take_desc(&mut self) -> u16 {
        let index = self.next_desc;
        self.next_desc = (index + 1) & (self.ring.size() - 1);
        index
    }
}

impl<const BATCHED: bool> RingDriver for Floor<BATCHED> {
    fn areas(&self) -> RingAreas {
        self.ring
    }

    #[inline(always)]
    fn add1(&mut self, r: &Request) {
        let head = self.take_desc();
        self.ring.write_desc(head, Descriptor { addr: r.data, len: DATA_BYTES, flags: 0, next: 0 });
        self.make_available(head);
    }

    #[inline(always)]
    fn add3(&mut self, r: &Request) {
        let (head, data, status) = (self.take_desc(), self.take_desc(), self.take_desc());
        let d = Descriptor { addr: r.header, len: HEADER_BYTES, flags: NEXT, next: data };
        self.ring.write_desc(head, d);
        let d = Descriptor { addr: r.data, len: DATA_BYTES, flags: NEXT | WRITE, next: status };
        self.ring.write_desc(data, d);
        let d = Descriptor { addr: r.status, len: STATUS_BYTES, flags: WRITE, next: 0 };
        self.ring.write_desc(status, d);
        self.make_available(head);
    }

    #[inline(always)]
    fn publish(&mut self) {
        if BATCHED {
            self.ring.avail_idx().store(self.avail_idx, Ordering::Release);
        }
    }

    #[inline(always)]
    fn pop(&mut self) -> bool {
        if !BATCHED || self.cached_used == self.last_used {
            self.cached_used = self.ring.used_idx().load(Ordering::Acquire);
            if self.cached_used == self.last_used {
                return false;
            }
        }
        black_box(self.ring.read_used(self.last_used));
        self.last_used = self.last_used.wrapping_add(1);
        true
    }
}
