//! Rules about rings.

use super::super::core::{Core, Queue};
use super::super::ring::{DeviceChain, DeviceRing, DriverFault};
use super::{Checker, Must};
use crate::Error;
use crate::features::Features;
use crate::spec::ByteOrder;
use crate::spec::split::{DESC_F_INDIRECT, DESC_F_NEXT};
use crate::sync::Ordering::{Acquire, Relaxed};

impl Checker {
    /// The device is about to use a queue for the first time.
    pub(in super::super) fn ring_started(
        &mut self,
        index: u16,
        queue: &Queue,
        ring: &DeviceRing,
        legacy: bool,
    ) {
        if !legacy {
            let aligned = queue.areas.iter().zip([16, 2, 4]).all(|(area, align)| area.is_multiple_of(align));
            self.require(aligned, Must::RING_ALIGN);
        }
        self.require(ring.used_flags.load(0, Relaxed) == 0, Must::RING_USED_FLAGS);
        if let Some(state) = self.queue(index) {
            (state.seen, state.exposed) = (0, alloc::vec![None; usize::from(queue.size)]);
        }
    }

    /// The device cannot use a queue.
    pub(in super::super) fn ring_refused(&mut self, _index: u16, queue: &Queue, error: &Error) {
        let modern = queue.page == 0;
        let aligned = queue.areas.iter().zip([16, 2, 4]).all(|(area, align)| area.is_multiple_of(align));
        let misaligned = matches!(error.kind(), Error::Misuse { .. }) && modern && !aligned;
        self.report(if misaligned { Must::RING_ALIGN } else { Must::RING_UNREACHABLE });
    }

    /// The device looks at a queue.
    pub(in super::super) fn looked(&mut self, index: u16, ring: &DeviceRing, features: Features) {
        let order = ring.order();
        let flags = order.u16(ring.avail_flags.load(0, Relaxed));
        if features.contains(Features::EVENT_IDX) {
            self.require(flags == 0, Must::RING_FLAGS_EVENT_IDX);
        } else {
            self.require(flags <= 1, Must::RING_FLAGS);
        }
        let idx = order.u16(ring.avail_idx.load(0, Acquire));
        let Some(state) = self.queue(index) else { return };
        let mut twice = false;
        let span = idx.wrapping_sub(state.seen);
        if span > ring.size() {
            // The device reports it.
            return;
        }
        while state.seen != idx {
            let head = order.u16(ring.avail_ring.load(usize::from(state.seen), Relaxed));
            if let Some(slot) = state.exposed.get_mut(usize::from(head)) {
                twice |= slot.is_some();
                *slot = Some(ring.table.load(usize::from(head), Relaxed));
            }
            state.seen = state.seen.wrapping_add(1);
        }
        self.require(!twice, Must::RING_HEAD_IN_USE);
    }

    /// The device took a chain, or could not.
    pub(in super::super) fn popped(
        &mut self,
        index: u16,
        popped: Result<Option<&DeviceChain>, DriverFault>,
        ring: &DeviceRing,
        features: Features,
    ) {
        match popped {
            Ok(None) => {}
            Ok(Some(chain)) => {
                let now = ring.table.load(usize::from(chain.head), Relaxed);
                let state = self.queue(index);
                let then =
                    state.and_then(|state| state.exposed.get(usize::from(chain.head)).copied().flatten());
                self.require(then.is_none_or(|then| then == now), Must::RING_EXPOSED_CHANGED);
                if features.contains(Features::IN_ORDER) {
                    self.require(in_ring_order(chain.head, ring), Must::RING_IN_ORDER);
                }
            }
            Err(fault) => self.report(match fault {
                DriverFault::AvailIdxJump { .. } => Must::RING_IDX,
                DriverFault::IndexRange { .. } => Must::RING_INDEX,
                DriverFault::ChainTooLong => Must::RING_CHAIN_TOO_LONG,
                DriverFault::ReadableAfterWritable => Must::RING_FRAMING,
                DriverFault::IndirectNotNegotiated => Must::RING_INDIRECT_FEATURE,
                DriverFault::IndirectWithNext => Must::RING_INDIRECT_NEXT,
                DriverFault::NestedIndirect => Must::RING_INDIRECT_NESTED,
                DriverFault::BadTable { .. } => Must::RING_BAD_TABLE,
                DriverFault::TooManyBytes => Must::RING_TOO_MANY_BYTES,
            }),
        }
    }

    /// A chain that waits was still the same when it was offered again.
    pub(in super::super) fn kept(&mut self, index: u16, chain: &DeviceChain, ring: &DeviceRing) {
        let now = ring.table.load(usize::from(chain.head), Relaxed);
        let then =
            self.queue(index).and_then(|state| state.exposed.get(usize::from(chain.head)).copied().flatten());
        self.require(then.is_none_or(|then| then == now), Must::RING_EXPOSED_CHANGED);
    }

    /// A chain went back to the driver.
    pub(in super::super) fn chain_used(&mut self, index: u16, chain: &DeviceChain) {
        if let Some(slot) = self.queue(index).and_then(|state| state.exposed.get_mut(usize::from(chain.head)))
        {
            *slot = None;
        }
    }

    /// Everything that the driver does is done for now: whatever it made available and the device asked to
    /// hear of was told.
    pub(in super::super) fn quiet(&mut self, core: &Core, notified: impl Fn(u16) -> bool) {
        if !core.live() {
            return;
        }
        for (index, queue) in (0..).zip(&core.queues) {
            let Some(ring) = queue.ring.as_ref().filter(|ring| !ring.misled()) else { continue };
            let waiting = ring.ring().available().unwrap_or(0);
            // A chain that waits in the device keeps it from looking further.
            let hidden = waiting > 0 && !notified(index) && queue.parked.is_none();
            self.require(!hidden, Must::RING_NOT_NOTIFIED);
        }
    }
}

/// Whether each `next` of a chain is the next number (§2.7.5.2).
fn in_ring_order(head: u16, ring: &DeviceRing) -> bool {
    let mask = ring.size().wrapping_sub(1);
    let mut at = head;
    for _ in 0..ring.size() {
        let rest = ring.order().u64(ring.table.load(usize::from(at), Relaxed).1);
        let (flags, next) = match ring.order() {
            ByteOrder::Little => ((rest >> 32) as u16, (rest >> 48) as u16),
            ByteOrder::Big => ((rest >> 16) as u16, rest as u16),
        };
        if flags & DESC_F_INDIRECT != 0 || flags & DESC_F_NEXT == 0 {
            return true;
        }
        if next != at.wrapping_add(1) & mask {
            return false;
        }
        at = next;
    }
    true
}
