//! What a device tells of itself: a changed configuration, a wish for a reset, its removal.

use alloc::sync::Arc;
use std::os::fd::{AsFd, BorrowedFd};

use super::health::{Condition, Health};
use super::interrupts::{Wake, ask};
use super::life::{Device, Phase};
use super::queue::SLICE;
use crate::event::{Deadline, EventFd, wait_readable};
use crate::{Error, Result};

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
    health: Arc<Health>,
    wake: Wake,
}

impl Device {
    /// Takes what has happened. Looks at the device too, so that a device without interrupts is understood, and
    /// one that was lost.
    pub fn events(&self) -> Result<Events> {
        self.located(self.check_process())?;
        let (hub, health, closed) = {
            let life = self.lock();
            (life.wiring.hub.clone(), life.health.clone(), life.phase == Phase::Closed)
        };
        let mut events = Events::default();
        if let Some(hub) = hub {
            self.located(hub.pump())?;
            events.config_changed = hub.take_config_changed();
        }
        if !closed {
            ask(&self.transport, &health);
        }
        events.needs_reset = health.condition() == Condition::NeedsReset;
        events.gone = health.condition() == Condition::Gone;
        Ok(events)
    }

    /// Starts to watch for events.
    pub fn watch(&self) -> Result<Watch<'_>> {
        self.located(self.check_process())?;
        let health = Arc::clone(&self.lock().health);
        Ok(Watch { device: self, health, wake: self.wake()? })
    }

    /// What [`Device::watch`] waits on, for whoever brings an event loop of his own: its descriptor is readable when
    /// [`Device::events`] may have something to tell. Good until the next reset.
    pub fn wake(&self) -> Result<Wake> {
        self.located(self.check_process())?;
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
    /// Waits for an event, at most until `deadline`; no event then. Asks the device every 50 ms, so that one which
    /// cannot tell, or was removed, is noticed too.
    ///
    /// [`Error::Closed`] when the life of the device that is watched has ended by a reset or a close;
    /// [`Error::ForkedProcess`] in a fork's child.
    pub fn wait(&self, deadline: Deadline) -> Result<Events> {
        loop {
            self.device.located(self.device.check_process())?;
            let slice = deadline.left().map_or(SLICE, |left| left.min(SLICE));
            wait_readable(&self.wake, Deadline::after(slice))?;
            self.wake.clear()?;
            let events = self.device.events()?;
            if events.any() {
                return Ok(events);
            }
            if matches!(self.health.condition(), Condition::Stopped | Condition::Closed) {
                return self.device.located(Err(Error::Closed { what: "watch" }));
            }
            if deadline.passed() {
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
