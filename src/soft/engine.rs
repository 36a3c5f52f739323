//! Serving the queues.

use alloc::vec::Vec;
use core::cell::RefCell;

use super::core::{Core, Queue};
use super::lies::LyingRing;
use super::model::Reply;
use super::request::Request;
use super::ring::{DeviceChain, DeviceRing, DriverFault, Tables};
use super::script::DeviceLie;
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::mem::cell::{RING_ALIGN, RingMemory};
use crate::mem::dma::DmaView;
use crate::queue::{Areas, RingConfig};
use crate::spec::Status;
use crate::spec::pci::isr;
use crate::spec::split::RingLayout;
use crate::{Error, Result};

/// What came of serving a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Served {
    /// Chains used.
    pub(super) chains: u32,
    /// Whether there may be more to do without another notification.
    pub(super) more: bool,
}

/// The bits of an address that have to be 0 where ring memory begins.
const MISALIGNED: u64 = RING_ALIGN as u64 - 1;

/// Ring memory for `len` bytes at a device address, and the offset in it: cells want 16 bytes of alignment,
/// some structures have less.
fn memory_at(view: &mut DmaView, addr: u64, len: usize) -> Result<(RingMemory, usize)> {
    let offset = (addr & MISALIGNED) as usize;
    let memory = view.ring_memory(addr.wrapping_sub(offset as u64), len.saturating_add(offset))?;
    Ok((memory, offset))
}

/// Indirect tables anywhere in the memory that the device was given.
struct DmaTables<'a>(&'a RefCell<DmaView>);

impl Tables for DmaTables<'_> {
    fn table(&self, addr: u64, len: u32) -> Option<(RingMemory, usize)> {
        memory_at(&mut self.0.borrow_mut(), addr, usize::try_from(len).ok()?).ok()
    }
}

/// Device address and length of the three areas.
pub(super) type Ranges = [(u64, usize); 3];

/// Where the three areas are; fills in how they lie.
fn ranges_of(queue: &Queue, config: &mut RingConfig) -> Result<Ranges> {
    let n = usize::from(queue.size);
    let [mut descriptor, mut driver, mut device] = queue.areas;
    if queue.page != 0 {
        config.layout = RingLayout::Legacy { align: queue.align };
        let areas = Areas::new(config.layout, queue.size)?;
        let base = descriptor;
        let beyond = Error::Misuse { what: "a legacy queue ends beyond 2^64" };
        let at = |offset: usize| base.checked_add(offset as u64).ok_or(beyond.clone());
        (descriptor, driver, device) = (at(areas.descriptor)?, at(areas.driver)?, at(areas.device)?);
    }
    let used = n.saturating_mul(8).saturating_add(6);
    let avail = n.saturating_mul(2).saturating_add(6);
    Ok([(descriptor, n.saturating_mul(16)), (driver, avail), (device, used)])
}

fn ring_of(ranges: &Ranges, config: &RingConfig, view: &mut DmaView) -> Result<DeviceRing> {
    let [(descriptor, table_len), (driver, avail_len), (device, used_len)] = *ranges;
    let (table, table_at) = memory_at(view, descriptor, table_len)?;
    let (avail, avail_at) = memory_at(view, driver, avail_len)?;
    let (used, used_at) = memory_at(view, device, used_len)?;
    DeviceRing::new((&table, table_at), (&avail, avail_at), (&used, used_at), config)
}

/// A ring whose areas are at these device addresses, and where they are; none of them meets one of `others`.
#[cfg(feature = "vhost-user")]
pub(super) fn ring_at(
    areas: [u64; 3],
    config: &RingConfig,
    view: &mut DmaView,
    others: &[Ranges],
) -> Result<(DeviceRing, Ranges)> {
    let queue = Queue { size: config.size, areas, ..Queue::default() };
    let ranges = ranges_of(&queue, &mut config.clone())?;
    check_apart(&ranges, others)?;
    Ok((ring_of(&ranges, config, view)?, ranges))
}

/// Cells of two widths never share memory, whatever the driver says: no area of a ring meets another of it, or of
/// a ring that is there.
fn check_apart(ranges: &Ranges, others: &[Ranges]) -> Result<()> {
    let mut sorted: Vec<_> = others.iter().flatten().chain(ranges).copied().collect();
    sorted.sort_unstable();
    let apart = sorted.windows(2).all(|pair| match pair {
        [(start, len), (next, _)] => start.checked_add(*len as u64).is_some_and(|end| end <= *next),
        _ => true,
    });
    if apart { Ok(()) } else { Err(Error::Misuse { what: "areas of queues overlap" }) }
}

impl Core {
    /// Uses up to `most` chains of a queue, shows them to the driver at once and interrupts it if it wants
    /// that. A driver that breaks the rules makes the device ask for a reset.
    pub(super) fn serve(&mut self, index: u16, most: u32) -> Result<Served> {
        if !self.live() || !self.has_ring(index)? {
            return Ok(Served::default());
        }
        let mut served = Served::default();
        let outcome = self.take_chains(index, most, &mut served);
        let raised = self.show(index, served.chains);
        match outcome {
            Ok(()) => raised?,
            Err(_) => self.fail()?,
        }
        for _ in 0..served.chains {
            self.used = self.used.wrapping_add(1);
            self.total = self.total.wrapping_add(1);
            self.after_chains()?;
        }
        Ok(served)
    }

    /// Uses all chains of a queue of a model that [takes all](super::DeviceModel::takes_all), on the shortest way;
    /// `false` where it has to be served as every other.
    pub(super) fn serve_plain(&mut self, index: u16) -> Result<bool> {
        let live = Status::DRIVER_OK | Status::DEVICE_NEEDS_RESET | Status::FAILED;
        if !self.plain || self.status & live.bits() != Status::DRIVER_OK.bits() {
            return Ok(false);
        }
        let queue = self.queues.get_mut(usize::from(index)).filter(|queue| queue.plain);
        let Some(queue) = queue else { return Ok(false) };
        let Some(ring) = &mut queue.ring else { return Ok(false) };
        self.plain_rings = self.plain_rings.wrapping_add(1);
        let ring = ring.ring_mut();
        let taken = ring.use_all();
        let (wanted, vector) = (ring.publish_used(), queue.vector);
        let Ok(chains) = taken else { return self.fail().map(|()| true) };
        queue.used = queue.used.wrapping_add(chains.into());
        self.used = self.used.wrapping_add(chains.into());
        self.total = self.total.wrapping_add(chains.into());
        if wanted {
            self.interrupt(isr::QUEUE, vector)?;
        }
        Ok(true)
    }

    /// Whether a queue can be served; sets its ring up at first.
    pub(super) fn has_ring(&mut self, index: u16) -> Result<bool> {
        let accepted = self.accepted();
        let (order, legacy) = (self.order(), self.legacy_driver());
        match self.queues.get(usize::from(index)) {
            Some(queue) if queue.in_use() && queue.ring.is_none() => {}
            other => return Ok(other.is_some_and(Queue::in_use)),
        }
        let others = self.ranges();
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return Ok(false) };
        let mut config = RingConfig::new(index, queue.size);
        config.order = order;
        config.event_idx = accepted.contains(Features::EVENT_IDX);
        config.indirect = accepted.contains(Features::INDIRECT_DESC);
        if accepted.contains(Features::ORDER_PLATFORM) {
            config.barrier = Barrier::Device;
        }
        let made = ranges_of(queue, &mut config).and_then(|ranges| {
            check_apart(&ranges, &others)?;
            let mut ring = ring_of(&ranges, &config, &mut self.view.borrow_mut())?;
            if let Some(base) = queue.base {
                ring.resume(base);
            }
            Ok((ring, ranges))
        });
        match made {
            Ok((ring, ranges)) => {
                queue.ranges = ranges;
                let longer = Features::INDIRECT_DESC | Features::EVENT_IDX | Features::NOTIF_CONFIG_DATA;
                queue.plain = !accepted.intersects(longer);
                let mut ring = LyingRing::new(ring, None);
                for lie in self.script.iter() {
                    if let DeviceLie::Ring { queue, chain, lie } = lie
                        && *queue == index
                    {
                        ring = ring.with(*chain, *lie);
                    }
                }
                if let Some(checker) = &mut self.checker {
                    checker.ring_started(index, queue, ring.ring(), legacy);
                }
                queue.ring = Some(ring);
                Ok(true)
            }
            Err(error) => {
                if let Some(checker) = &mut self.checker {
                    checker.ring_refused(index, queue, &error);
                }
                self.fail()?;
                Ok(false)
            }
        }
    }

    /// The areas of the rings that are in use.
    fn ranges(&self) -> Vec<Ranges> {
        self.queues.iter().filter(|queue| queue.ring.is_some()).map(|queue| queue.ranges).collect()
    }

    fn take_chains(&mut self, index: u16, most: u32, served: &mut Served) -> Result<()> {
        let (order, features) = (self.order(), self.accepted());
        let lied_len = self.script.find(|lie| match lie {
            DeviceLie::UsedLen(len) => Some(*len),
            _ => None,
        });
        let Self { model, queues, view, checker, .. } = self;
        let Some(queue) = queues.get_mut(usize::from(index)) else { return Ok(()) };
        let Some(ring) = &mut queue.ring else { return Ok(()) };
        while served.chains < most {
            let chain = match queue.parked.take() {
                Some(chain) => {
                    if let Some(checker) = checker.as_mut().filter(|_| !ring.misled()) {
                        checker.kept(index, &chain, ring.ring());
                    }
                    Some(chain)
                }
                None => {
                    let mut chain = core::mem::take(&mut queue.spare);
                    next_chain(ring, view, checker, (index, features), &mut chain)?.then_some(chain)
                }
            };
            let Some(chain) = chain else {
                let waiting = ring.enable_notifications().map_err(fault_error)?;
                if waiting {
                    continue;
                }
                return Ok(());
            };
            let reply = {
                let mut view = view.borrow_mut();
                model.handle(&mut Request::new(index, order, features, &chain, &mut view))?
            };
            match reply {
                Reply::Used(len) => {
                    ring.push_used(chain.head, lied_len.unwrap_or(len));
                    if let Some(checker) = checker {
                        checker.chain_used(index, &chain);
                    }
                    served.chains = served.chains.saturating_add(1);
                    queue.spare = chain;
                }
                Reply::Wait => {
                    queue.parked = Some(chain);
                    return Ok(());
                }
            }
        }
        served.more = true;
        Ok(())
    }

    /// Shows what was used, and interrupts as the driver wishes.
    fn show(&mut self, index: u16, chains: u32) -> Result<()> {
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return Ok(()) };
        let Some(ring) = &mut queue.ring else { return Ok(()) };
        queue.used = queue.used.wrapping_add(chains.into());
        let interrupts = ring.publish_used();
        let vector = queue.vector;
        for _ in 0..interrupts {
            self.interrupt(isr::QUEUE, vector)?;
        }
        Ok(())
    }

    /// Whether a queue has a chain that waits for something else to happen.
    pub(super) fn waits(&self, index: u16) -> bool {
        self.queues.get(usize::from(index)).is_some_and(|queue| queue.parked.is_some())
    }
}

fn next_chain(
    ring: &mut LyingRing,
    view: &RefCell<DmaView>,
    checker: &mut Option<alloc::boxed::Box<super::check::Checker>>,
    (index, features): (u16, Features),
    chain: &mut DeviceChain,
) -> Result<bool> {
    ring.settle();
    let mut checker = checker.as_mut().filter(|_| !ring.misled());
    if let Some(checker) = &mut checker {
        checker.looked(index, ring.ring(), features);
    }
    let popped = ring.pop_into(&DmaTables(view), chain);
    if let Some(checker) = checker {
        // Once more: the chain may have come after the look above.
        checker.looked(index, ring.ring(), features);
        checker.popped(index, popped.map(|taken| taken.then_some(&*chain)), ring.ring(), features);
    }
    popped.map_err(fault_error)
}

/// The caller does not see it: the device asks for a reset.
fn fault_error(fault: DriverFault) -> Error {
    Error::protocol(alloc::format!("{fault}"))
}
