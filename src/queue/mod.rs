//! The virtqueue alone (VIRTIO 1.4 §2.6, §2.7): a ring in shared memory, with no notifier and no event.
//!
//! The driver builds descriptor chains with [`Ring::chain`], shows a batch of them to the device with one
//! [`Ring::publish`], and takes them back with [`Ring::pop`]. It believes nothing that the device writes: used
//! indices, ids and lengths are checked against private memory, and the first lie makes the ring
//! [`crate::Error::Broken`] until the device is reset.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test may fail"
    )
)]

mod add;
mod chain;
mod completion;
mod indirect;
mod inflight;
mod layout;
mod ring;
mod runs;
mod split;
mod standing;
pub mod suppress;

use core::fmt;

pub use add::Refused;
pub use chain::Chain;
pub use completion::Completion;
pub use layout::Areas;
pub use ring::Ring;

pub use crate::spec::split::{MAX_SIZE, RingLayout};

use crate::Result;
use crate::mem::barrier::Barrier;
use crate::spec::ByteOrder;

/// Names one chain on one queue for as long as it is in flight: queue, slot and generation, so that a token
/// that was used up, or is another queue's, is never taken for another request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    #[inline(always)]
    pub(crate) fn new(queue: u16, slot: u16, generation: u32) -> Self {
        Self(u64::from(queue) << 48 | u64::from(slot) << 32 | u64::from(generation))
    }

    /// The token of a slot of the same queue.
    #[inline(always)]
    fn of(self, slot: u32, generation: u32) -> Self {
        Self(self.0 | u64::from(slot) << 32 | u64::from(generation))
    }

    /// The token as a number, to be carried through other interfaces.
    pub fn into_raw(self) -> u64 {
        self.0
    }

    /// Back from [`Token::into_raw`]. Any number will do: one that names nothing in flight is refused where it
    /// is used.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Index of the queue.
    #[inline(always)]
    pub fn queue(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Descriptor that heads the chain.
    #[inline(always)]
    pub fn slot(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(queue {}, slot {}, generation {})", self.queue(), self.slot(), self.0 as u32)
    }
}

/// How free descriptors are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotOrder {
    /// The one that came back last is used first: it is in the cache.
    #[default]
    FreeList,
    /// In ring order, x + 1 after x, as IN_ORDER demands (§2.7.5.2). Descriptors go back oldest first.
    Ring,
}

/// What a ring is set up with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingConfig {
    /// Index of the queue at its device; part of its tokens.
    pub queue: u16,
    /// Number of descriptors: a power of two from 1 to 32,768.
    pub size: u16,
    /// How the areas are placed.
    pub layout: RingLayout,
    /// Byte order of the ring: a property of the transport.
    pub order: ByteOrder,
    /// Whom barriers must reach: a property of the transport.
    pub barrier: Barrier,
    /// Whether EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// Whether INDIRECT_DESC was negotiated and is to be used.
    pub indirect: bool,
    /// With `indirect`: [`Ring::add`] uses a table only while fewer descriptors than this are free. A chain in the ring's
    /// own table saves the device a cache line; one in a table of its own saves descriptors, which counts when they get
    /// rare. 65,535, where every chain of several buffers uses one, is what [`RingConfig::new`] sets.
    pub direct_from: u16,
    /// Whether the ring remembers what it wrote to its own table, 16 bytes a descriptor, and lets [`Ring::add`] leave a
    /// descriptor that would not change as it is: buffers that come again and again then move no cache line of the table
    /// between driver and device. It costs those that never do.
    pub remember: bool,
    /// Tables for chains of more than 8 buffers, each of the queue's size: 0 or a power of two.
    pub large_tables: u16,
    /// How free descriptors are handed out.
    pub slots: SlotOrder,
    /// Whether a used length above the chain's device-writable bytes breaks the ring. Else it is cut and
    /// counted: real devices are known to report too much.
    pub strict: bool,
    /// Generation of each slot's first token. Rings that follow one another on a queue begin far apart, so that the
    /// tokens of one are stale on the next (fault M1).
    pub first_generation: u32,
}

impl RingConfig {
    /// A ring of `size` descriptors for queue `queue`, modern and little-endian, with no feature.
    pub fn new(queue: u16, size: u16) -> Self {
        Self {
            queue,
            size,
            layout: RingLayout::Modern,
            order: ByteOrder::Little,
            barrier: Barrier::Cpu,
            event_idx: false,
            indirect: false,
            direct_from: u16::MAX,
            remember: false,
            large_tables: 0,
            slots: SlotOrder::FreeList,
            strict: false,
            first_generation: 1,
        }
    }

    /// Bytes of memory that the ring needs. [`crate::Error::Misuse`] for a size that no split ring has.
    pub fn ring_bytes(&self) -> Result<usize> {
        Ok(Areas::new(self.layout, self.size)?.total)
    }
}

/// An available buffer notification that the device wants (§2.9): send it, or the device may sleep for ever.
#[must_use = "the device waits for this notification"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Index of the queue.
    pub queue: u16,
    /// Number of the next available ring entry, as NOTIFICATION_DATA wants it.
    pub next: u16,
}

/// What a ring has counted. All wrap at 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Chains added and published.
    pub added: u64,
    /// Chains that came back by completion.
    pub used: u64,
    /// Notifications to send.
    pub kicks: u64,
    /// Batches for which the device wanted none.
    pub kicks_saved: u64,
    /// Used lengths above what the chain had room for, cut (D9, D11).
    pub clamped: u64,
    /// Used elements that were there before anything was published, skipped (D24).
    pub early: u64,
}
