//! What is behind the socket: all but the protocol.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Debug;

use crate::Result;
use crate::event::EventFd;
use crate::features::Features;
use crate::soft::machine::{BATCH, Machine};
use crate::spec::ByteOrder;
use crate::{Error, spec};

/// A ring as the front-end described it, with addresses as descriptors have them.
#[derive(Debug, Clone, Copy)]
pub(in crate::soft) struct RingPlace {
    pub(in crate::soft) size: u16,
    /// Number of the next available entry to take.
    pub(in crate::soft) base: u16,
    /// Descriptor, driver and device area.
    pub(in crate::soft) areas: [u64; 3],
}

/// A device, as the conversation with a front-end needs it. All calls come from the thread of the device end.
pub(in crate::soft) trait Engine: Send + Debug {
    /// Number of queues.
    fn queues(&self) -> u16;
    /// Features of the device and its rings, none of the protocol's own.
    fn features(&self) -> Features;
    /// The configuration space.
    fn config(&self) -> Vec<u8>;
    /// The driver writes to the configuration space.
    fn write_config(&mut self, offset: u64, bytes: &[u8]);
    /// What the driver accepted; checked.
    fn set_features(&mut self, accepted: Features);
    /// The driver writes the device status; 0 is a reset.
    fn set_status(&mut self, status: u8) -> Result<()>;
    /// The device status.
    fn status(&self) -> u8;
    /// The event to tell the driver of used chains by.
    fn set_call(&mut self, queue: u16, call: Option<EventFd>);
    /// Serves a ring from now on. One that was paused goes on as it was.
    fn start(&mut self, queue: u16, place: &RingPlace) -> Result<()>;
    /// Serves a ring no more for a while.
    fn pause(&mut self, queue: u16);
    /// Forgets a ring, and answers where it stopped; `None` for one that was never started.
    fn stop(&mut self, queue: u16) -> Option<u16>;
    /// The driver notified a queue.
    fn kicked(&mut self, queue: u16) -> Result<()>;
    /// The connection has ended: nothing of it is kept.
    fn disconnected(&mut self) -> Result<()>;
    /// Serves rings for a moment; answers whether there is more to do at once.
    fn work(&mut self) -> bool;
    /// Chains used, and calls made, in all.
    fn counted(&self) -> (u64, u64);
}

/// A software device of [`crate::soft`].
#[derive(Debug)]
pub(super) struct Modelled {
    machine: Arc<Machine>,
    /// Signalled when the configuration changes, or the device asks for a reset.
    changed: EventFd,
}

impl Modelled {
    pub(super) fn new(machine: Arc<Machine>, changed: EventFd) -> Self {
        let modelled = Self { machine, changed };
        modelled.wire_config();
        modelled
    }

    /// A reset forgets it.
    fn wire_config(&self) {
        let mut core = self.machine.core();
        let vector = u16::try_from(core.queues.len()).unwrap_or(u16::MAX);
        core.config_vector = vector;
        core.irq.set_event(vector, Some(self.changed.clone()));
    }
}

impl Engine for Modelled {
    fn queues(&self) -> u16 {
        u16::try_from(self.machine.core().queues.len()).unwrap_or(u16::MAX)
    }

    fn features(&self) -> Features {
        self.machine.core().offered(false)
    }

    fn config(&self) -> Vec<u8> {
        self.machine.core().config(false)
    }

    fn write_config(&mut self, offset: u64, bytes: &[u8]) {
        self.machine.core().model.write_config(offset, bytes, ByteOrder::Little);
    }

    fn set_features(&mut self, accepted: Features) {
        self.machine.core().accepted = accepted.words();
    }

    fn set_status(&mut self, status: u8) -> Result<()> {
        let live = {
            let mut core = self.machine.core();
            core.set_status(status)?;
            core.live()
        };
        self.wire_config();
        if live { self.machine.look_again() } else { Ok(()) }
    }

    fn status(&self) -> u8 {
        self.machine.core().status
    }

    fn set_call(&mut self, queue: u16, call: Option<EventFd>) {
        self.machine.core().irq.set_event(queue, call);
    }

    fn start(&mut self, index: u16, place: &RingPlace) -> Result<()> {
        {
            let mut core = self.machine.core();
            let Some(queue) = core.queues.get_mut(usize::from(index)) else { return Ok(()) };
            if queue.ring.is_none() {
                queue.reset();
                (queue.size, queue.areas, queue.base) = (place.size, place.areas, Some(place.base));
            }
            (queue.vector, queue.enabled) = (index, true);
            if !core.has_ring(index)? {
                return Err(Error::Misuse {
                    what: "a ring is not in the memory that was given, or not aligned",
                });
            }
        }
        self.machine.notify_queue(index)
    }

    fn pause(&mut self, index: u16) {
        if let Some(queue) = self.machine.core().queues.get_mut(usize::from(index)) {
            queue.enabled = false;
        }
    }

    fn stop(&mut self, index: u16) -> Option<u16> {
        let mut core = self.machine.core();
        let queue = core.queues.get_mut(usize::from(index))?;
        let stopped = queue.ring.as_ref().map(|ring| {
            // A chain that waits is to be offered again.
            ring.ring().taken().wrapping_sub(queue.parked.is_some().into())
        });
        queue.reset();
        stopped
    }

    fn kicked(&mut self, queue: u16) -> Result<()> {
        self.machine.notify_queue(queue)
    }

    fn disconnected(&mut self) -> Result<()> {
        {
            let mut core = self.machine.core();
            core.reset()?;
            let view = self.machine.dma.view();
            core.view = RefCell::new(view);
            for queue in 0..spec::vhost_user::MAX_EVENT_RINGS {
                core.irq.set_event(queue, None);
            }
        }
        self.wire_config();
        Ok(())
    }

    fn work(&mut self) -> bool {
        self.machine.round(BATCH, false).unwrap_or_else(|error| {
            // Only an event that cannot be signalled: the driver has none, and polls or times out.
            log::warn!("{}: {error}", self.machine.address);
            true
        })
    }

    fn counted(&self) -> (u64, u64) {
        let core = self.machine.core();
        (core.total, core.interrupts)
    }
}
