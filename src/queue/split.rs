//! The split virtqueue as the driver sees it (VIRTIO 1.4 §2.7): cells and private indices, no buffers.
//!
//! `shadow-truth`: the descriptor table and the available ring are written and never read back; of what the
//! device writes, each field is loaded once into a local, checked by the caller, then used.

use super::suppress::{self, NO_INTERRUPT};
use super::{Areas, RingConfig};
use crate::Result;
use crate::mem::barrier::Barrier;
use crate::mem::cell::{Cells16, Pairs32, Pairs64, Pairs64View, RingMemory};
use crate::spec::ByteOrder;
use crate::spec::split::{DESC_F_INDIRECT, DESC_F_NEXT};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::mutant;

/// One descriptor before it is encoded (§2.7.5).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Desc {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
}

/// Writes a descriptor into a descriptor table: the ring's own, or an indirect one.
#[inline(always)]
pub(super) fn write_desc(table: &Pairs64, order: ByteOrder, at: usize, desc: Desc, next: Option<u16>) {
    let rest = encode_rest(order, desc.len, desc.flags, next);
    // Relaxed: the release of `avail.idx` in `publish` orders it.
    table.store(at, (order.u64(desc.addr), rest), Relaxed);
}

/// All of a descriptor but its address, as it stands in the table.
#[inline(always)]
pub(super) fn encode_rest(order: ByteOrder, len: u32, flags: u16, next: Option<u16>) -> u64 {
    let flags = if next.is_some() { flags | DESC_F_NEXT } else { flags };
    let (len, flags, next) = (u64::from(len), u64::from(flags), u64::from(next.unwrap_or(0)));
    order.u64(match order {
        ByteOrder::Little => len | flags << 32 | next << 48,
        ByteOrder::Big => len << 32 | flags << 16 | next,
    })
}

/// Kept apart, so that the common order is a branch that is never taken and not two selections.
#[cold]
fn swap_used(id: u32, len: u32) -> (u32, u32) {
    (id.to_be(), len.to_be())
}

/// Cells and indices of one split ring.
#[derive(Debug)]
pub(super) struct Split {
    order: ByteOrder,
    event_idx: bool,
    barrier: Barrier,
    /// Descriptor table; write-only from our side.
    table: Pairs64,
    avail_flags: Cells16,
    avail_idx: Cells16,
    avail_ring: Cells16,
    used_event: Cells16,
    used_flags: Cells16,
    used_idx: Cells16,
    used_ring: Pairs32,
    avail_event: Cells16,
    /// Index of the next available ring entry to fill, as far as chains were added.
    next: u16,
    /// What `avail.idx` holds.
    published: u16,
    /// What it held when the device was last asked whether it wants to be notified.
    asked: u16,
    /// Number of used elements taken.
    last_used: u16,
    /// Used elements that were there before any chain was published, and belong to none.
    early: u16,
    /// `used.idx` as last read: elements up to here may be taken without another look.
    seen_used: u16,
    /// Whether used buffer notifications are wanted.
    armed: bool,
    /// What `used_event` holds.
    event: u16,
}

impl Split {
    pub(super) fn new(memory: &RingMemory, config: &RingConfig) -> Result<Self> {
        let areas = Areas::new(config.layout, config.size)?;
        let n = usize::from(config.size);
        let (driver, device) = (areas.driver, areas.device);
        // §2.7.10.1: the driver initialises `used.flags`; all else of both rings is zeroed with it.
        memory.zero(driver, n.wrapping_mul(2).wrapping_add(6))?;
        memory.zero(device, n.wrapping_mul(8).wrapping_add(6))?;
        let field = |area: usize, at: usize| Cells16::new(memory, area.saturating_add(at), 1);
        let after = |header: usize, entry: usize| n.saturating_mul(entry).saturating_add(header);
        Ok(Self {
            order: config.order,
            event_idx: config.event_idx,
            barrier: config.barrier,
            table: Pairs64::new(memory, areas.descriptor, n)?,
            avail_flags: field(driver, 0)?,
            avail_idx: field(driver, 2)?,
            avail_ring: Cells16::new(memory, driver.saturating_add(4), n)?,
            used_event: field(driver, after(4, 2))?,
            used_flags: field(device, 0)?,
            used_idx: field(device, 2)?,
            used_ring: Pairs32::new(memory, device.saturating_add(4), n)?,
            avail_event: field(device, after(4, 8))?,
            next: 0,
            published: 0,
            asked: 0,
            last_used: 0,
            early: 0,
            seen_used: 0,
            armed: true,
            event: 0,
        })
    }

    /// See [`super::Ring::start_at`].
    #[cfg(loom)]
    pub(super) fn start_at(&mut self, index: u16) {
        (self.next, self.published, self.last_used, self.seen_used) = (index, index, index, index);
        self.asked = index;
        self.avail_idx.store(0, self.order.u16(index), Relaxed);
        self.used_idx.store(0, self.order.u16(index), Relaxed);
        self.arm_event();
    }

    /// The ring's own table, by value.
    #[inline(always)]
    pub(super) fn table(&self) -> Pairs64View<'_> {
        self.table.view()
    }

    /// Byte order of the ring.
    #[inline(always)]
    pub(super) fn order(&self) -> ByteOrder {
        self.order
    }

    /// Writes descriptor `at` of the ring's table; `next` continues the chain.
    #[inline(always)]
    pub(super) fn write_desc(&self, at: u32, desc: Desc, next: Option<u32>) {
        write_desc(&self.table, self.order, at as usize, desc, next.map(|n| n as u16));
    }

    /// Writes descriptor `at` to lead to an indirect table (§2.7.5.3).
    #[inline(always)]
    pub(super) fn write_indirect(&self, at: u32, table: u64, len: u32) {
        self.write_desc(at, Desc { addr: table, len, flags: DESC_F_INDIRECT }, None);
    }

    /// Puts the chain into the available ring, to nobody's notice yet (§2.7.13.2). Gives the entry's number.
    /// `order` is the ring's, which a caller that knows it as a constant can say.
    #[inline(always)]
    pub(super) fn push(&mut self, order: ByteOrder, head: u32) -> u16 {
        let entry = self.next;
        // Relaxed: the release of `avail.idx` in `publish` orders it.
        self.avail_ring.store(usize::from(entry), order.u16(head as u16), Relaxed);
        self.next = entry.wrapping_add(1);
        entry
    }

    /// Chains added and not published.
    #[inline(always)]
    pub(super) fn unpublished(&self) -> u16 {
        suppress::span(self.published, self.next)
    }

    /// Number of the first entry that is not published.
    #[inline(always)]
    pub(super) fn published(&self) -> u16 {
        self.published
    }

    /// Chains that were published and not taken back: each takes one element of the used ring.
    #[inline(always)]
    pub(super) fn outstanding(&self) -> u16 {
        suppress::span(self.last_used.wrapping_sub(self.early), self.published)
    }

    /// Whether there are chains for which the device was not asked whether it wants to be notified.
    #[inline(always)]
    pub(super) fn owes_question(&self) -> bool {
        self.asked != self.next
    }

    /// Shows all added chains to the device. Whether it is to be notified is for [`Split::publish`] to decide.
    #[inline(always)]
    pub(super) fn show(&mut self) {
        self.barrier.before_store();
        // Release: table and ring entries before `idx`; pairs with the device's acquire of `idx`
        // (§2.7.13.3.1). tests/loom_publish.rs dies without it (PublishRelaxed).
        let order = if mutant!(PublishRelaxed) { Relaxed } else { Release };
        self.avail_idx.store(0, self.order.u16(self.next), order);
        self.published = self.next;
        if mutant!(ShowForgets) {
            self.asked = self.next;
        }
    }

    /// Shows all added chains to the device and decides whether it wants a notification (§2.7.13.3, .4): for all since
    /// the last decision, also those that were shown before.
    #[inline(always)]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.asked, self.next);
        if self.published != new {
            self.show();
        }
        self.asked = new;
        // Full fence: our store of `idx` against our load of the device's wish; the device does the mirror
        // image, stores its wish and then loads `idx` (§2.7.13.4.1). Without it both may read the old value
        // and sleep for ever: tests/loom_kick.rs dies (NoKickFence).
        if !mutant!(NoKickFence) {
            self.barrier.full();
        }
        if self.event_idx {
            // §2.7.10.1: `flags` is ignored. Any value is a possible one: at worst a kick too many or too
            // few, and a wait kicks again before its deadline (D14).
            suppress::passes_event(self.order.u16(self.avail_event.load(0, Relaxed)), new, old)
        } else {
            suppress::wants_notification(self.order.u16(self.used_flags.load(0, Relaxed)))
        }
    }

    /// Used elements that were seen and not taken.
    #[inline(always)]
    pub(super) fn seen(&self) -> u16 {
        suppress::span(self.last_used, self.seen_used)
    }

    /// Loads `used.idx`, once, and answers how far it is ahead of what was taken. The caller checks that
    /// before it calls [`Split::trust`].
    #[inline]
    pub(super) fn look(&self) -> u16 {
        // Acquire: what the device wrote before `idx` (elements and payload); pairs with its release of
        // `idx` (§2.7.8.2). tests/loom_publish.rs dies without it (UsedRelaxed).
        let order = if mutant!(UsedRelaxed) { Relaxed } else { Acquire };
        let idx = self.order.u16(self.used_idx.load(0, order));
        self.barrier.after_load();
        suppress::span(self.last_used, idx)
    }

    /// Takes `span`, as [`Split::look`] answered, for true.
    #[inline]
    pub(super) fn trust(&mut self, span: u16) {
        self.seen_used = self.last_used.wrapping_add(span);
        if !self.armed && self.event_idx && suppress::far_event_is_stale(self.event, self.last_used) {
            self.park();
        }
    }

    /// Starts counting from where the device says it is (D24: it was there before it had anything to do).
    pub(super) fn skip_to(&mut self, span: u16) {
        self.last_used = self.last_used.wrapping_add(span);
        self.early = span;
        self.seen_used = self.last_used;
        // The event index moves along, else the first real completion would not be told of.
        if self.event_idx && self.armed {
            self.arm_event();
        }
    }

    /// The oldest used element that was not taken: id and length as the device wrote them.
    #[inline(always)]
    pub(super) fn used(&self) -> (u32, u32) {
        // Relaxed: ordered by the acquire in `look`.
        let (id, len) = self.used_ring.load(usize::from(self.last_used), Relaxed);
        if self.order == ByteOrder::Little { (id.to_le(), len.to_le()) } else { swap_used(id, len) }
    }

    /// Counts it as taken.
    #[inline(always)]
    pub(super) fn advance(&mut self) {
        self.last_used = self.last_used.wrapping_add(1);
    }

    /// Forgets what was seen, so that every later call looks at the ring's state first.
    pub(super) fn forget_seen(&mut self) {
        self.seen_used = self.last_used;
    }

    /// Asks for a notification of the next used buffer, then looks at the ring again: answers as
    /// [`Split::look`].
    pub(super) fn arm(&mut self) -> u16 {
        self.armed = true;
        if self.event_idx {
            if !mutant!(StaleUsedEvent) {
                self.arm_event();
            }
        } else {
            self.avail_flags.store(0, 0, Relaxed);
        }
        // Full fence: our store of the wish against our load of `used.idx`; the device stores `idx` and then
        // loads the wish (§2.7.14). Without it a completion in between is told by nobody:
        // tests/loom_rearm.rs dies (NoArmFence).
        if !mutant!(NoArmFence) {
            self.barrier.full();
        }
        if mutant!(NoRecheck) { 0 } else { self.look() }
    }

    fn arm_event(&mut self) {
        self.event = self.last_used;
        self.used_event.store(0, self.order.u16(self.event), Relaxed);
    }

    /// Advises the device that no notifications are needed (§2.7.7.1).
    pub(super) fn disarm(&mut self) {
        self.armed = false;
        if self.event_idx {
            // `flags` must stay 0 with EVENT_IDX: an event index that is far away does it.
            self.park();
        } else {
            self.avail_flags.store(0, self.order.u16(NO_INTERRUPT), Relaxed);
        }
    }

    fn park(&mut self) {
        self.event = suppress::far_event(self.last_used);
        self.used_event.store(0, self.order.u16(self.event), Relaxed);
    }
}
