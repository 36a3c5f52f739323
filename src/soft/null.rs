//! A block device that completes at once and touches no data: what is left is the driver.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::engine::{Ranges, ring_at};
use super::ring::{DeviceRing, DriverFault};
use super::vhost_user::{Engine, RingPlace};
use crate::event::EventFd;
use crate::features::Features;
use crate::mem::dma::{DmaView, SoftDma};
use crate::queue::RingConfig;
use crate::spec::device::block::{SECTOR_SIZE, config, feature};
use crate::spec::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use crate::spec::{ByteOrder, Status};
use crate::{Error, Result};

/// Used elements that are shown to the driver at a time: it gets a steady flow, and the line with the index does not
/// change hands for each.
const GROUP: u16 = 8;
/// Chains that are used before the socket is looked at.
const MOST_CHAINS: u32 = 1 << 14;
/// So many chains a pass over idle rings costs.
const IDLE_COSTS: u32 = 4;
/// Idle passes after which the spinning is told to the processor.
const IDLE_AT_FULL_SPEED: u32 = 1 << 8;
/// The status of every request.
const STATUS_OK: u8 = 0;
/// Bytes of its configuration space: up to those of write zeroes.
const CONFIG_LEN: usize = 60;
/// Data segments of a request, at most.
const SEG_MAX: u32 = 254;

/// A block device that completes every request at once, as done, and touches no data: a read leaves the driver's
/// buffer as it was.
///
/// It is a device for benchmarks of drivers, behind a socket ([`super::VhostUserDevice::null`]): the only bytes of a
/// request that it writes are the status and the used element.
///
/// ```
/// use virtio::soft::{NullBlock, VhostUserDevice};
///
/// # fn main() -> virtio::Result {
/// let path = std::env::temp_dir().join(format!("null-{}.sock", std::process::id()));
/// let device = VhostUserDevice::null(&path, NullBlock::new(1 << 20).with_queues(2))?;
/// let block = virtio::open(&device.address())?;
/// # drop(block);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct NullBlock {
    sectors: u64,
    queues: u16,
    spin: bool,
}

impl NullBlock {
    /// With a capacity of so many sectors of 512 bytes, and one queue.
    pub fn new(sectors: u64) -> Self {
        Self { sectors, queues: 1, spin: false }
    }

    /// Number of queues, at least 1 and at most 256. One thread serves them all.
    #[must_use]
    pub fn with_queues(mut self, queues: u16) -> Self {
        self.queues = queues.clamp(1, crate::spec::vhost_user::MAX_EVENT_RINGS);
        self
    }

    /// Whether its thread looks at the rings all the time while a driver has some, and wants no notifications. It
    /// then takes a processor for itself. Without, it sleeps until it is notified.
    #[must_use]
    pub fn spin(mut self, spin: bool) -> Self {
        self.spin = spin;
        self
    }

    fn features(&self) -> Features {
        let bits = [feature::SEG_MAX, feature::BLK_SIZE, feature::FLUSH];
        let mut all = Features::VERSION_1 | Features::INDIRECT_DESC | Features::EVENT_IDX;
        if self.queues > 1 {
            all.insert(Features::from_bit(feature::MQ));
        }
        bits.into_iter().fold(all, |all, bit| all | Features::from_bit(bit))
    }

    fn config(&self) -> Vec<u8> {
        let mut bytes = vec![0; CONFIG_LEN];
        let mut put = |offset: u16, value: &[u8]| {
            let start = usize::from(offset);
            if let Some(place) = bytes.get_mut(start..start.saturating_add(value.len())) {
                place.copy_from_slice(value);
            }
        };
        put(config::CAPACITY, &self.sectors.to_le_bytes());
        put(config::SEG_MAX, &SEG_MAX.to_le_bytes());
        put(config::BLK_SIZE, &u32::from(SECTOR_SIZE as u16).to_le_bytes());
        put(config::NUM_QUEUES, &self.queues.to_le_bytes());
        bytes
    }
}

#[derive(Debug, Default)]
struct Queue {
    ring: Option<DeviceRing>,
    /// Where its areas are, while there is a ring.
    ranges: Ranges,
    enabled: bool,
    /// Whether the ring has to be looked at, where nobody spins.
    pending: bool,
    call: Option<EventFd>,
    /// Calls made.
    calls: u64,
}

/// The device behind a socket.
#[derive(Debug)]
pub(super) struct NullEngine {
    make: NullBlock,
    dma: Arc<SoftDma>,
    view: DmaView,
    queues: Vec<Queue>,
    accepted: Features,
    status: Status,
    /// Signalled when it asks for a reset.
    changed: EventFd,
    chains: u64,
}

impl NullEngine {
    pub(super) fn new(make: NullBlock, dma: Arc<SoftDma>, changed: EventFd) -> Self {
        let queues = core::iter::repeat_with(Queue::default).take(make.queues.into()).collect();
        Self {
            view: dma.view(),
            make,
            dma,
            queues,
            accepted: Features::EMPTY,
            status: Status::empty(),
            changed,
            chains: 0,
        }
    }

    fn live(&self) -> bool {
        self.status & (Status::DRIVER_OK | Status::DEVICE_NEEDS_RESET | Status::FAILED) == Status::DRIVER_OK
    }

    /// One pass over all rings; answers how many chains were used.
    #[inline]
    fn pass(&mut self) -> u32 {
        let Self { queues, view, .. } = self;
        let spin = self.make.spin;
        let mut used = 0u32;
        let mut broken = None;
        for queue in queues.iter_mut().filter(|queue| queue.enabled && (spin || queue.pending)) {
            match queue.drain(view, spin) {
                Ok(chains) => used = used.saturating_add(chains),
                Err(error) => broken = Some(error),
            }
        }
        if let Some(error) = broken {
            self.fail(&error);
        }
        self.chains = self.chains.wrapping_add(used.into());
        used
    }

    #[cold]
    fn fail(&mut self, error: &Error) {
        log::warn!("a null block device asks for a reset: {error}");
        self.status |= Status::DEVICE_NEEDS_RESET;
        if let Err(error) = self.changed.signal() {
            log::warn!("nobody hears of it: {error}");
        }
    }

    fn reset(&mut self) {
        (self.status, self.accepted) = (Status::empty(), Features::EMPTY);
        for queue in &mut self.queues {
            *queue = Queue { call: queue.call.take(), calls: queue.calls, ..Queue::default() };
        }
    }

    /// Looks at the rings all the time, but for a while only.
    fn spin(&mut self) {
        let (mut budget, mut idle) = (MOST_CHAINS, 0u32);
        while budget != 0 && self.live() {
            let used = self.pass();
            budget = budget.saturating_sub(used.max(IDLE_COSTS));
            if used != 0 {
                idle = 0;
            } else if idle < IDLE_AT_FULL_SPEED {
                idle = idle.saturating_add(1);
            } else {
                core::hint::spin_loop();
            }
        }
    }
}

impl Queue {
    /// Completes what is available; where nobody spins, asks for a notification of what comes after that.
    fn drain(&mut self, view: &mut DmaView, spin: bool) -> Result<u32> {
        let Some(ring) = &mut self.ring else { return Ok(0) };
        if !spin {
            ring.disable_notifications();
        }
        let mut used = 0u32;
        let mut group = 0u16;
        let outcome = loop {
            match complete_next(ring, view) {
                Ok(true) => {}
                Ok(false) if spin => break Ok(()),
                Ok(false) => {
                    show(ring, &self.call, &mut self.calls);
                    if !ring.enable_notifications().map_err(fault)? {
                        self.pending = false;
                        break Ok(());
                    }
                    continue;
                }
                Err(error) => break Err(error),
            }
            used = used.saturating_add(1);
            group = group.wrapping_add(1);
            if group == GROUP {
                show(ring, &self.call, &mut self.calls);
                group = 0;
            }
            if used >= MOST_CHAINS {
                break Ok(());
            }
        };
        show(ring, &self.call, &mut self.calls);
        outcome.map(|()| used)
    }
}

/// Shows what was used, and tells the driver if it wants that.
#[inline]
fn show(ring: &mut DeviceRing, call: &Option<EventFd>, calls: &mut u64) {
    if !ring.publish_used() {
        return;
    }
    let Some(call) = call else { return };
    *calls = calls.wrapping_add(1);
    if let Err(error) = call.signal() {
        log::warn!("a driver cannot be told of used chains: {error}");
    }
}

/// Completes the next chain; answers whether there was one.
#[inline]
fn complete_next(ring: &mut DeviceRing, view: &mut DmaView) -> Result<bool> {
    let Some(head) = ring.pop_head().map_err(fault)? else { return Ok(false) };
    let room = walk(ring, head, view)?;
    if room.len != 0 {
        view.store(room.last, STATUS_OK)?;
    }
    ring.push_used(head, room.len);
    Ok(true)
}

fn fault(fault: DriverFault) -> Error {
    Error::protocol(alloc::format!("{fault}"))
}

/// The device-writable bytes of a chain.
#[derive(Debug, Default)]
struct Room {
    len: u32,
    /// Address of the last one: the status.
    last: u64,
}

impl Room {
    #[inline(always)]
    fn add(&mut self, addr: u64, len: u32, flags: u16) {
        if flags & DESC_F_WRITE != 0 && len != 0 {
            self.len = self.len.saturating_add(len);
            self.last = addr.wrapping_add(u64::from(len)).wrapping_sub(1);
        }
    }
}

/// Follows a chain to its end. What it does not look at is the business of devices that use the data.
#[inline]
fn walk(ring: &DeviceRing, head: u16, view: &mut DmaView) -> Result<Room> {
    let mut room = Room::default();
    let mut index = head;
    for _ in 0..ring.size() {
        let (desc, flags, next) = ring.desc(index).map_err(fault)?;
        if flags & DESC_F_INDIRECT != 0 {
            return walk_table(ring, desc.addr, desc.len, view);
        }
        room.add(desc.addr, desc.len, flags);
        if flags & DESC_F_NEXT == 0 {
            return Ok(room);
        }
        index = next;
    }
    Err(fault(DriverFault::ChainTooLong))
}

/// The same for an indirect table of `bytes` bytes at `addr`.
#[inline]
fn walk_table(ring: &DeviceRing, addr: u64, bytes: u32, view: &mut DmaView) -> Result<Room> {
    if !ring.indirect() {
        return Err(fault(DriverFault::IndirectNotNegotiated));
    }
    let count = bytes / 16;
    let (region, start) = view.translate(addr, bytes as usize)?;
    let mut room = Room::default();
    let mut index = 0u16;
    for _ in 0..count {
        if u32::from(index) >= count {
            return Err(fault(DriverFault::IndexRange { index, size: count }));
        }
        let at = start.saturating_add(usize::from(index).saturating_mul(16));
        let words = (region.load::<u64>(at)?, region.load::<u64>(at.saturating_add(8))?);
        let (desc, flags, next) = ring.decode(words);
        room.add(desc.addr, desc.len, flags);
        if flags & DESC_F_NEXT == 0 {
            return Ok(room);
        }
        index = next;
    }
    Err(fault(DriverFault::ChainTooLong))
}

impl Engine for NullEngine {
    fn queues(&self) -> u16 {
        self.make.queues
    }

    fn features(&self) -> Features {
        self.make.features()
    }

    fn config(&self) -> Vec<u8> {
        self.make.config()
    }

    fn write_config(&mut self, _offset: u64, _bytes: &[u8]) {}

    fn set_features(&mut self, accepted: Features) {
        self.accepted = accepted;
    }

    fn set_status(&mut self, status: u8) -> Result<()> {
        let mut status = Status::from_bits_retain(status);
        if status.is_empty() {
            self.reset();
            return Ok(());
        }
        if !self.accepted.contains(Features::VERSION_1) {
            status.remove(Status::FEATURES_OK);
        }
        self.status = status | (self.status & Status::DEVICE_NEEDS_RESET);
        for queue in &mut self.queues {
            queue.pending = true;
        }
        Ok(())
    }

    fn status(&self) -> u8 {
        self.status.bits()
    }

    fn set_call(&mut self, queue: u16, call: Option<EventFd>) {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.call = call;
        }
    }

    fn start(&mut self, index: u16, place: &RingPlace) -> Result<()> {
        let others: Vec<_> =
            self.queues.iter().filter(|queue| queue.ring.is_some()).map(|queue| queue.ranges).collect();
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return Ok(()) };
        if queue.ring.is_none() {
            let mut config = RingConfig::new(index, place.size);
            config.order = ByteOrder::Little;
            config.event_idx = self.accepted.contains(Features::EVENT_IDX);
            config.indirect = self.accepted.contains(Features::INDIRECT_DESC);
            let (mut ring, ranges) = ring_at(place.areas, &config, &mut self.view, &others)?;
            ring.resume(place.base);
            if self.make.spin {
                ring.disable_notifications();
            }
            (queue.ring, queue.ranges) = (Some(ring), ranges);
        }
        (queue.enabled, queue.pending) = (true, true);
        Ok(())
    }

    fn pause(&mut self, queue: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.enabled = false;
        }
    }

    fn stop(&mut self, queue: u16) -> Option<u16> {
        let queue = self.queues.get_mut(usize::from(queue))?;
        queue.enabled = false;
        queue.ring.take().map(|ring| ring.taken())
    }

    fn kicked(&mut self, queue: u16) -> Result<()> {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.pending = true;
        }
        Ok(())
    }

    fn disconnected(&mut self) -> Result<()> {
        self.reset();
        self.queues.iter_mut().for_each(|queue| queue.call = None);
        self.view = self.dma.view();
        Ok(())
    }

    fn work(&mut self) -> bool {
        if !self.live() {
            return false;
        }
        if self.make.spin {
            self.spin();
            return self.queues.iter().any(|queue| queue.enabled);
        }
        self.pass();
        self.live() && self.queues.iter().any(|queue| queue.enabled && queue.pending)
    }

    fn counted(&self) -> (u64, u64) {
        (self.chains, self.queues.iter().fold(0, |sum, queue| sum.wrapping_add(queue.calls)))
    }
}
