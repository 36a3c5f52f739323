//! What a device tells of itself: a changed configuration, a wish for a reset, its removal.

use std::os::fd::{AsFd, BorrowedFd};

use super::health::Condition;
use super::interrupts::Wake;
use super::life::Device;
use crate::Result;
use crate::event::{Deadline, EventFd, wait_readable};

/// What has happened since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// The configuration may have changed (VIRTIO 1.4 §2.5): read it again.
    pub config_changed: bool,
    /// The device asks for a reset (§2.1.1, fault C3): [`Device::reset`], then set it up again.
    pub needs_reset: bool,
    /// The device is gone (faults C2, C30).
    pub gone: bool,
}

impl Events {
    /// Whether there is anything.
    pub fn any(self) -> bool {
        self.config_changed || self.needs_reset || self.gone
    }
}

/// A watch over one device, from a set-up of its queues to the next reset: its descriptor is readable when there
/// may be something to look at.
#[derive(Debug)]
pub struct Watch<'a> {
    device: &'a Device,
    wake: Wake,
}

impl Device {
    /// Takes what has happened. Looks at the device too, so that a device without interrupts is understood, and
    /// one that was lost.
    pub fn events(&self) -> Result<Events> {
        let (hub, health) = {
            let life = self.lock();
            (life.wiring.hub.clone(), life.health.clone())
        };
        let mut events = Events::default();
        if let Some(hub) = hub {
            self.located(hub.pump())?;
            hub.ask();
            events.config_changed = hub.take_config_changed();
        }
        events.needs_reset = health.condition() == Condition::NeedsReset;
        events.gone = health.condition() == Condition::Gone;
        Ok(events)
    }

    /// Starts to watch for events.
    pub fn watch(&self) -> Result<Watch<'_>> {
        Ok(Watch { device: self, wake: self.wake()? })
    }

    /// What [`Device::watch`] waits on, for whoever brings an event loop of his own: its descriptor is readable when
    /// [`Device::events`] may have something to tell. Good until the next reset.
    pub fn wake(&self) -> Result<Wake> {
        let (hub, health) = {
            let life = self.lock();
            (life.wiring.hub.clone(), life.health.clone())
        };
        let own = match &hub {
            Some(hub) => hub.notice.clone(),
            None => EventFd::new()?,
        };
        health.add_waker(&own);
        Wake::new(own, hub)
    }
}

impl Watch<'_> {
    /// Waits for an event, at most until `deadline`; no event then.
    pub fn wait(&self, deadline: Deadline) -> Result<Events> {
        loop {
            let woken = wait_readable(&self.wake, deadline)?;
            self.wake.clear()?;
            let events = self.device.events()?;
            if events.any() || !woken {
                return Ok(events);
            }
        }
    }
}

impl AsFd for Watch<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
