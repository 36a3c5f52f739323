//! The device's end of a split virtqueue (VIRTIO 1.4 §2.7).
//!
//! The mirror image of the driver's ring, for software devices, tests and benchmarks. A driver is not trusted
//! either: a chain that breaks a rule is a [`DriverFault`] that names the clause. Only the ring's structures are
//! reached; what the descriptors point to is the caller's business.

use alloc::vec::Vec;

use crate::Result;
use crate::mem::barrier::Barrier;
use crate::mem::cell::{Cells16, Pairs32, Pairs64, RingMemory};
use crate::queue::suppress::{self, NO_INTERRUPT, NO_NOTIFY};
use crate::queue::{Areas, RingConfig};
use crate::spec::ByteOrder;
use crate::spec::split::{AVAIL_RING, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, USED_RING};
use crate::spec::split::{avail_event, used_event};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::mutant;

/// A rule that the driver broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverFault {
    /// More chains published than the ring has entries.
    #[error("available index moved by {span} in a ring of {size} (VIRTIO 1.4 §2.7.13.3)")]
    AvailIdxJump {
        /// How far it moved.
        span: u16,
        /// Queue size.
        size: u16,
    },
    /// A head or `next` outside the table.
    #[error("descriptor {index} is outside a table of {size} (VIRTIO 1.4 §2.7.5)")]
    IndexRange {
        /// The index.
        index: u16,
        /// Length of the table.
        size: u32,
    },
    /// A chain longer than the queue size, or one that loops (§2.7.5.1, §2.7.5.3.1).
    #[error("a chain is longer than the queue size (VIRTIO 1.4 §2.7.5.3.1)")]
    ChainTooLong,
    /// A device-readable descriptor after a device-writable one (§2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one (VIRTIO 1.4 §2.7.4.2)")]
    ReadableAfterWritable,
    /// An indirect descriptor without the feature (§2.7.5.3.1).
    #[error("an indirect descriptor, but INDIRECT_DESC was not negotiated (VIRTIO 1.4 §2.7.5.3.1)")]
    IndirectNotNegotiated,
    /// INDIRECT and NEXT together (§2.7.5.3.1).
    #[error("a descriptor has INDIRECT and NEXT (VIRTIO 1.4 §2.7.5.3.1)")]
    IndirectWithNext,
    /// INDIRECT within an indirect table (§2.7.5.3.1).
    #[error("an indirect descriptor within an indirect table (VIRTIO 1.4 §2.7.5.3.1)")]
    NestedIndirect,
    /// A table whose length is no multiple of 16, or that cannot be reached.
    #[error("an indirect table of {len} bytes at {addr:#x} cannot be used (VIRTIO 1.4 §2.7.5.3)")]
    BadTable {
        /// Its address.
        addr: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// More than 2^32 bytes in a chain (§2.7.5.1).
    #[error("a chain of more than 2^32 bytes (VIRTIO 1.4 §2.7.5.1)")]
    TooManyBytes,
}

/// One buffer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceDesc {
    /// Its device address.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Whether the device writes it (else it reads it).
    pub writable: bool,
}

/// A chain that the driver made available.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceChain {
    /// The descriptor that heads it: the id to give it back with.
    pub head: u16,
    /// Whether it came in an indirect table.
    pub indirect: bool,
    /// Its buffers, in order.
    pub descs: Vec<DeviceDesc>,
}

impl DeviceChain {
    /// Device-writable bytes.
    pub fn writable_len(&self) -> u64 {
        self.descs.iter().filter(|desc| desc.writable).map(|desc| u64::from(desc.len)).sum()
    }
}

/// Finds indirect tables.
pub trait Tables {
    /// Memory that begins at device address `addr` (or contains it) and holds `len` bytes from there, with the
    /// offset of `addr` in it; `None` where the device cannot reach them.
    fn table(&self, addr: u64, len: u32) -> Option<(RingMemory, usize)>;
}

/// No table can be reached.
impl Tables for () {
    fn table(&self, _addr: u64, _len: u32) -> Option<(RingMemory, usize)> {
        None
    }
}

/// Tables in one piece of memory: that which a driver's ring was given.
impl Tables for RingMemory {
    fn table(&self, addr: u64, len: u32) -> Option<(RingMemory, usize)> {
        let offset = usize::try_from(addr.checked_sub(self.device_addr())?).ok()?;
        (offset.checked_add(len as usize)? <= self.len()).then(|| (self.clone(), offset))
    }
}

/// An area of a ring: the memory that it lies in, and where.
pub type Area<'a> = (&'a RingMemory, usize);

/// The device's end of one split ring.
#[derive(Debug)]
pub struct DeviceRing {
    size: u16,
    order: ByteOrder,
    barrier: Barrier,
    event_idx: bool,
    indirect: bool,
    pub(super) table: Pairs64,
    pub(super) avail_flags: Cells16,
    pub(super) avail_idx: Cells16,
    pub(super) avail_ring: Cells16,
    pub(super) used_event: Cells16,
    pub(super) used_flags: Cells16,
    pub(super) used_idx: Cells16,
    pub(super) used_ring: Pairs32,
    pub(super) avail_event: Cells16,
    /// Available entries taken.
    taken: u16,
    /// `avail.idx` as last read and checked: entries up to here are taken without another look.
    seen: u16,
    /// Used elements written.
    next_used: u16,
    /// What `used.idx` holds.
    published: u16,
    /// The event index that keeps notifications away, while it is to do so.
    parked: Option<u16>,
}

impl DeviceRing {
    /// The end of a ring of `config`'s size, byte order and features whose three areas lie here.
    /// [`crate::Error::Misuse`] where an area does not fit its memory, is not aligned, or the size is no power
    /// of two.
    pub fn new(
        descriptor: Area<'_>,
        driver: Area<'_>,
        device: Area<'_>,
        config: &RingConfig,
    ) -> Result<Self> {
        let n = usize::from(config.size);
        let field = |area: Area<'_>, at: usize| Cells16::new(area.0, area.1.saturating_add(at), 1);
        Ok(Self {
            size: config.size,
            order: config.order,
            barrier: config.barrier,
            event_idx: config.event_idx,
            indirect: config.indirect,
            table: Pairs64::new(descriptor.0, descriptor.1, n)?,
            avail_flags: field(driver, 0)?,
            avail_idx: field(driver, 2)?,
            avail_ring: Cells16::new(driver.0, driver.1.saturating_add(AVAIL_RING), n)?,
            used_event: field(driver, used_event(config.size))?,
            used_flags: field(device, 0)?,
            used_idx: field(device, 2)?,
            used_ring: Pairs32::new(device.0, device.1.saturating_add(USED_RING), n)?,
            avail_event: field(device, avail_event(config.size))?,
            taken: 0,
            seen: 0,
            next_used: 0,
            published: 0,
            parked: None,
        })
    }

    /// The other end of a ring that [`crate::queue::Ring`] set up in `memory`.
    pub fn beside(memory: &RingMemory, config: &RingConfig) -> Result<Self> {
        let areas = Areas::new(config.layout, config.size)?;
        Self::new((memory, areas.descriptor), (memory, areas.driver), (memory, areas.device), config)
    }

    /// Byte order.
    pub fn order(&self) -> ByteOrder {
        self.order
    }

    /// As if `index` chains had come and gone already: models cannot afford so many before a wrap.
    #[cfg(loom)]
    pub fn start_at(&mut self, index: u16) {
        (self.taken, self.seen, self.next_used, self.published) = (index, index, index, index);
        self.used_idx.store(0, self.order.u16(index), Relaxed);
    }

    /// Goes on where an earlier end of the ring was stopped: `taken` chains were taken, and what was used is told by
    /// the ring itself.
    #[cfg(not(loom))]
    pub(super) fn resume(&mut self, taken: u16) {
        // Acquire, as nothing else is known of who wrote it.
        let used = self.order.u16(self.used_idx.load(0, Acquire));
        (self.taken, self.seen, self.next_used, self.published) = (taken, taken, used, used);
    }

    /// Chains taken, modulo 2^16.
    #[cfg(all(feature = "vhost-user", not(loom)))]
    pub(super) fn taken(&self) -> u16 {
        self.taken
    }

    /// Whether indirect tables were negotiated.
    #[cfg(all(feature = "vhost-user", not(loom)))]
    pub(super) fn indirect(&self) -> bool {
        self.indirect
    }

    /// Number of the next used element, modulo 2^16.
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many chains wait.
    pub fn available(&self) -> core::result::Result<u16, DriverFault> {
        // Acquire: table and ring entries before `idx`; pairs with the driver's release of it in
        // `Split::publish` (§2.7.13.3.1). tests/loom_publish.rs dies without it (AvailRelaxed).
        let order = if mutant!(AvailRelaxed) { Relaxed } else { Acquire };
        let idx = self.order.u16(self.avail_idx.load(0, order));
        self.barrier.after_load();
        let span = suppress::span(self.taken, idx);
        if span > self.size {
            return Err(DriverFault::AvailIdxJump { span, size: self.size });
        }
        Ok(span)
    }

    /// Takes the next chain, or `None`. Reads `avail.idx` only when everything seen before was taken. A faulty
    /// chain is taken too: its head is lost, as a broken driver's is.
    pub fn pop(&mut self, tables: &impl Tables) -> core::result::Result<Option<DeviceChain>, DriverFault> {
        let mut chain = DeviceChain::default();
        Ok(self.pop_into(tables, &mut chain)?.then_some(chain))
    }

    /// As [`DeviceRing::pop`], into a chain whose memory is used again. Answers whether there was one.
    pub fn pop_into(
        &mut self,
        tables: &impl Tables,
        chain: &mut DeviceChain,
    ) -> core::result::Result<bool, DriverFault> {
        let Some(head) = self.pop_head()? else { return Ok(false) };
        (chain.head, chain.indirect) = (head, false);
        chain.descs.clear();
        self.walk(chain, tables)?;
        Ok(true)
    }

    /// As [`DeviceRing::pop`] for whoever walks chains by itself: the head alone.
    #[inline]
    pub(super) fn pop_head(&mut self) -> core::result::Result<Option<u16>, DriverFault> {
        if self.seen == self.taken && self.look()? == 0 {
            return Ok(None);
        }
        // Relaxed, as the table's: ordered by the acquire of `avail.idx`.
        let head = self.order.u16(self.avail_ring.load(usize::from(self.taken), Relaxed));
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(head))
    }

    /// The descriptor at `index`, its flags and its `next`; a fault outside the table.
    #[inline]
    pub(super) fn desc(&self, index: u16) -> core::result::Result<(DeviceDesc, u16, u16), DriverFault> {
        if index >= self.size {
            return Err(DriverFault::IndexRange { index, size: self.size.into() });
        }
        Ok(self.decode(self.table.load(usize::from(index), Relaxed)))
    }

    /// Looks at `avail.idx`: how many chains wait.
    #[inline]
    pub(super) fn look(&mut self) -> core::result::Result<u16, DriverFault> {
        let span = self.available()?;
        self.seen = self.taken.wrapping_add(span);
        if self.parked.is_some_and(|event| suppress::far_event_is_stale(event, self.taken)) {
            self.park();
        }
        Ok(span)
    }

    fn walk(&self, chain: &mut DeviceChain, tables: &impl Tables) -> core::result::Result<(), DriverFault> {
        let (mut index, mut steps) = (chain.head, 0u16);
        loop {
            let (desc, flags, next) = self.desc(index)?;
            if flags & DESC_F_INDIRECT != 0 {
                if flags & DESC_F_NEXT != 0 {
                    return Err(DriverFault::IndirectWithNext);
                }
                // Normal descriptors may come before it, and its WRITE flag is ignored (§2.7.5.3.2).
                return self.walk_table(chain, desc, tables);
            }
            self.append(chain, desc)?;
            steps = steps.wrapping_add(1);
            if flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            if steps >= self.size {
                return Err(DriverFault::ChainTooLong);
            }
            index = next;
        }
    }

    fn walk_table(
        &self,
        chain: &mut DeviceChain,
        table: DeviceDesc,
        tables: &impl Tables,
    ) -> core::result::Result<(), DriverFault> {
        let DeviceDesc { addr, len, .. } = table;
        if !self.indirect {
            return Err(DriverFault::IndirectNotNegotiated);
        }
        let bad = DriverFault::BadTable { addr, len };
        if len == 0 || !len.is_multiple_of(16) {
            return Err(bad);
        }
        chain.indirect = true;
        let count = len / 16;
        let (memory, offset) = tables.table(addr, len).ok_or(bad)?;
        let (mut index, mut steps) = (0u16, 0u32);
        loop {
            if u32::from(index) >= count {
                return Err(DriverFault::IndexRange { index, size: count });
            }
            let at = offset.saturating_add(usize::from(index).saturating_mul(16));
            let cell = Pairs64::new(&memory, at, 1).map_err(|_| bad)?;
            let (desc, flags, next) = self.decode(cell.load(0, Relaxed));
            if flags & DESC_F_INDIRECT != 0 {
                return Err(DriverFault::NestedIndirect);
            }
            self.append(chain, desc)?;
            steps = steps.wrapping_add(1);
            if flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            if steps >= count {
                return Err(DriverFault::ChainTooLong);
            }
            index = next;
        }
    }

    fn append(&self, chain: &mut DeviceChain, desc: DeviceDesc) -> core::result::Result<(), DriverFault> {
        if chain.descs.len() >= usize::from(self.size) {
            return Err(DriverFault::ChainTooLong);
        }
        if !desc.writable && chain.descs.last().is_some_and(|last| last.writable) {
            return Err(DriverFault::ReadableAfterWritable);
        }
        chain.descs.push(desc);
        let total: u64 = chain.descs.iter().map(|desc| u64::from(desc.len)).sum();
        if total > 1 << 32 { Err(DriverFault::TooManyBytes) } else { Ok(()) }
    }

    /// A descriptor as it lies in memory.
    pub(super) fn decode(&self, (addr, rest): (u64, u64)) -> (DeviceDesc, u16, u16) {
        let (addr, rest) = (self.order.u64(addr), self.order.u64(rest));
        let (len, flags, next) = match self.order {
            ByteOrder::Little => (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16),
            ByteOrder::Big => ((rest >> 32) as u32, (rest >> 16) as u16, rest as u16),
        };
        (DeviceDesc { addr, len, writable: flags & DESC_F_WRITE != 0 }, flags, next)
    }

    /// Writes a used element, for the driver to see with the next [`DeviceRing::publish_used`] (§2.7.8).
    pub fn push_used(&mut self, head: u16, len: u32) {
        self.push_element(head.into(), len);
    }

    /// With any id, as only a lying device has.
    pub(super) fn push_element(&mut self, id: u32, len: u32) {
        let element = (self.order.u32(id), self.order.u32(len));
        // Relaxed: the release of `used.idx` orders it.
        self.used_ring.store(usize::from(self.next_used), element, Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows all used elements to the driver, and answers whether it wants a notification (§2.7.7.2).
    pub fn publish_used(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return false;
        }
        self.barrier.before_store();
        // Release: elements and payload before `idx`; pairs with the driver's acquire of it in `Split::look`
        // (§2.7.8.2). tests/loom_publish.rs dies without it (UsedStoreRelaxed).
        let order = if mutant!(UsedStoreRelaxed) { Relaxed } else { Release };
        self.used_idx.store(0, self.order.u16(new), order);
        self.published = new;
        // Full fence: our store of `idx` against our load of the driver's wish; pairs with the fence between the
        // driver's wish and its look at `idx` (`Split::arm`). tests/loom_rearm.rs dies without it (NoCallFence).
        if !mutant!(NoCallFence) {
            self.barrier.full();
        }
        if self.event_idx {
            suppress::passes_event(self.order.u16(self.used_event.load(0, Relaxed)), new, old)
        } else {
            self.order.u16(self.avail_flags.load(0, Relaxed)) & NO_INTERRUPT == 0
        }
    }

    /// Asks for a notification of the next available buffer, and answers whether one is there already
    /// (§2.7.10.2).
    pub fn enable_notifications(&mut self) -> core::result::Result<bool, DriverFault> {
        self.parked = None;
        if self.event_idx {
            self.avail_event.store(0, self.order.u16(self.taken), Relaxed);
        } else {
            self.used_flags.store(0, 0, Relaxed);
        }
        // Full fence: our store of the wish against our load of `avail.idx`; pairs with the one in the driver's
        // `Split::publish`. tests/loom_kick.rs dies without it (NoWishFence).
        if !mutant!(NoWishFence) {
            self.barrier.full();
        }
        Ok(!mutant!(NoDeviceRecheck) && self.look()? != 0)
    }

    /// Tells the driver that no notifications are needed. It may send some all the same.
    pub fn disable_notifications(&mut self) {
        if self.event_idx {
            // `flags` stays 0 with EVENT_IDX (§2.7.10.2).
            self.park();
        } else {
            self.used_flags.store(0, self.order.u16(NO_NOTIFY), Relaxed);
        }
    }

    fn park(&mut self) {
        let event = suppress::far_event(self.taken);
        self.parked = Some(event);
        self.avail_event.store(0, self.order.u16(event), Relaxed);
    }
}
