//! Setting up a device's queues (VIRTIO 1.4 §3.1.1 step 7).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::gauge::Gauge;
use super::interrupts::{Wake, Wiring};
use super::life::{Device, Life, Phase};
use super::queue::{Home, Parts, Queue};
use crate::features::Features;
use crate::mem::cell::RingMemory;
use crate::mem::pool::DmaBuf;
use crate::queue::{Areas, MAX_SIZE, Ring, RingConfig, RingLayout};
use crate::sync::MutexGuard;
use crate::transport::QueueSetup;
use crate::{Error, Result};

/// How a queue is wished for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueueConfig {
    /// Number of descriptors to have: the device may have fewer, and a legacy PCI device fixes it. `None` takes
    /// what the device offers, at most 256.
    pub size: Option<u16>,
    /// Whether chains of several buffers go into indirect tables where that was negotiated.
    pub indirect: bool,
    /// Whether chains of several buffers go into tables only when a quarter of the descriptors is left: see
    /// [`RingConfig::direct_from`]; and whether descriptors that would not change are left alone
    /// ([`RingConfig::remember`]).
    pub direct_first: bool,
    /// Tables for chains of more than 8 buffers: 0 or a power of two.
    pub large_tables: u16,
    /// Whether used buffers are announced by interrupts; else the queue is polled.
    pub interrupts: bool,
}

/// Where the generations of the next queue's tokens begin: steps of the golden ratio keep all beginnings as far apart
/// as their number allows. Of the last `n` queues of the process, no two are nearer than 2^32 / 3`n`, and a token meets
/// its like on another one only after so many requests through its slot. A token of before a reset is stale, and so is
/// another device's (fault M1).
fn first_generation() -> u32 {
    /// 2^32 divided by the golden ratio, to the nearest odd number.
    const STEP: u32 = 0x9e37_79b9;
    static NEXT: AtomicU32 = AtomicU32::new(STEP);
    // Relaxed: the number is all that is asked for.
    NEXT.fetch_add(STEP, Ordering::Relaxed)
}

/// Descriptors of a queue that nobody said a wish for.
const USUAL_SIZE: u16 = 256;

impl Default for QueueConfig {
    fn default() -> Self {
        Self { size: None, indirect: true, direct_first: false, large_tables: 0, interrupts: true }
    }
}

impl QueueConfig {
    /// A queue of `size` descriptors, or as near below that as the device has.
    pub fn size(size: u16) -> Self {
        Self { size: Some(size), ..Self::default() }
    }
}

impl Device {
    /// Sets queue `index` up, between negotiation and start, and gives it to the caller. After the start it can be
    /// set up again where it was closed on its own ([`Queue::close`], RING_RESET).
    ///
    /// # Errors
    /// [`Error::QueueUnavailable`] where the device has no such queue or it was taken already (C7, C9);
    /// [`Error::Misuse`] in another phase; [`Error::MemoryLimit`]. Where the device was told of the queue and did
    /// not take it before the start, the device is failed: only a reset leads on.
    pub fn take_queue(&self, index: u16, config: QueueConfig) -> Result<Queue<DmaBuf>> {
        self.located(self.try_take_queue(index, &config))
    }

    fn try_take_queue(&self, index: u16, wish: &QueueConfig) -> Result<Queue<DmaBuf>> {
        let mut life = self.life_for_queue(index)?;
        if life.queues.contains(&index) {
            return Err(Error::QueueUnavailable {
                queue: index,
                why: "it was set up already (reset the device)",
            });
        }
        if life.wiring.hub.is_none() {
            life.wiring = Wiring::set_up(&self.transport, &life.health, self.options.interrupts)?;
        }
        let config = self.ring_config(&life, index, wish)?;
        let memory = self.ring_memory(&config)?;
        let tables = match config.table_bytes() {
            0 => None,
            bytes => Some(self.space.alloc(bytes, 64)?.into_ring_memory()?),
        };
        let ring = Ring::new(&memory, tables.as_ref(), &config)?;
        let (vector, wake) = if wish.interrupts {
            life.wiring.plan(index)?
        } else {
            (None, Wake::new(crate::event::EventFd::new()?, life.wiring.hub.clone())?)
        };
        let (doorbell, id) = (self.transport.doorbell(index)?, self.transport.notification_id(index)?);
        let vector = match self.enable_queue(index, &config, &memory, vector) {
            Ok(vector) => vector,
            Err(error) => {
                // How far the device got with it nobody knows: it keeps the memory until it is reset.
                let bytes = u64::try_from(memory.len()).unwrap_or(u64::MAX);
                self.space.quarantine().hold(ring, bytes);
                return Err(match life.phase {
                    Phase::Running => error,
                    _ => self.give_up(&mut life, error),
                });
            }
        };
        life.queues.push(index);
        let gauge = match self.transport.needs_draining() {
            true => Some(Gauge::new(&memory, &Areas::new(config.layout, config.size)?, config.order)?),
            false => None,
        };
        life.gauges.extend(gauge.clone());
        let parts = Parts {
            gauge,
            interrupts: wish.interrupts && life.wiring.announces(vector),
            doorbell,
            id,
            home: Home {
                transport: Arc::clone(&self.transport),
                life: Arc::clone(&self.life),
                health: Arc::clone(&life.health),
                space: self.space.clone(),
                patience: self.options.control_timeout,
            },
            ring,
            wake,
        };
        Ok(Queue::new(parts))
    }

    /// The life of a device that queue `index` may be set up in: after the negotiation, and after the start where
    /// the queue alone was reset (§2.6.1).
    fn life_for_queue(&self, index: u16) -> Result<MutexGuard<'_, Life>> {
        self.check_process()?;
        let mut life = self.lock();
        if life.phase == Phase::Running
            && let Some(at) = life.released.iter().position(|&released| released == index)
        {
            life.released.swap_remove(at);
            return Ok(life);
        }
        match life.phase {
            Phase::Negotiated => Ok(life),
            Phase::Closed => Err(Error::Closed { what: "device" }),
            _ => Err(Error::Misuse { what: "queues are set up after the negotiation and before the start" }),
        }
    }

    fn ring_config(&self, life: &Life, index: u16, wish: &QueueConfig) -> Result<RingConfig> {
        let offered = self.transport.queue_max_size(index)?;
        let wanted = wish.size.unwrap_or(USUAL_SIZE).min(offered).min(MAX_SIZE);
        // The largest power of two that is not above the wish.
        let size = match wanted.checked_ilog2() {
            _ if self.transport.queue_size_fixed() => offered,
            Some(log) => 1 << log,
            None => return Err(Error::Misuse { what: "a queue has at least one descriptor" }),
        };
        let has = |feature| life.negotiated.as_ref().is_some_and(|n| n.contains(feature));
        let mut config = RingConfig::new(index, size);
        config.layout = self.transport.ring_layout();
        config.order = self.transport.byte_order();
        config.barrier = self.transport.barrier();
        config.event_idx = has(Features::EVENT_IDX);
        config.indirect = wish.indirect && has(Features::INDIRECT_DESC);
        config.direct_from = if wish.direct_first { size / 4 } else { u16::MAX };
        config.remember = wish.direct_first;
        config.large_tables = if config.indirect { wish.large_tables } else { 0 };
        config.strict = self.options.strict;
        config.first_generation = first_generation();
        Ok(config)
    }

    /// Memory for the ring, aligned as its layout demands.
    fn ring_memory(&self, config: &RingConfig) -> Result<RingMemory> {
        let align = match config.layout {
            RingLayout::Modern => 64,
            RingLayout::Legacy { align } => usize::try_from(align).unwrap_or(usize::MAX),
        };
        self.space.alloc(config.ring_bytes()?, align)?.into_ring_memory()
    }

    /// Tells the device of the queue. A vector that it refuses (fault C12) is done without: the queue is polled.
    fn enable_queue(
        &self,
        index: u16,
        config: &RingConfig,
        memory: &RingMemory,
        vector: Option<u16>,
    ) -> Result<Option<u16>> {
        let areas = Areas::new(config.layout, config.size)?;
        let at = |offset: usize| memory.device_addr().wrapping_add(offset as u64);
        let mut setup = QueueSetup {
            size: config.size,
            descriptor_area: at(areas.descriptor),
            driver_area: at(areas.driver),
            device_area: at(areas.device),
            vector,
        };
        match self.transport.set_queue(index, &setup) {
            Err(error) if matches!(error.kind(), Error::VectorRefused { .. }) => {
                log::warn!("{}: queue {index} is polled: {error}", self.transport.address());
                setup.vector = None;
                self.transport.set_queue(index, &setup)?;
            }
            result => result?,
        }
        Ok(setup.vector)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::first_generation;

    #[test]
    fn m1_the_generations_of_queues_begin_far_apart() {
        let mut begun: Vec<u32> = Vec::new();
        for count in 1..2000u64 {
            let (least, last) = ((1 << 32) / (3 * count), first_generation());
            for other in &begun {
                let apart = last.wrapping_sub(*other).min(other.wrapping_sub(last));
                assert!(u64::from(apart) >= least, "{count} queues, {apart} apart");
            }
            begun.push(last);
        }
    }
}
