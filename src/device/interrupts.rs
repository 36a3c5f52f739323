//! How interrupts reach queues: a vector for each, or one interrupt that many share.
//!
//! The library has no thread that waits for interrupts. Instead every queue's descriptor also becomes readable
//! when an interrupt arrives that it shares with others, and whoever is woken first reads the cause, once, and
//! signals those that it concerns ([`Hub::pump`]). The same holds for the configuration interrupt, which tells of
//! a device that asks for a reset.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::health::{Condition, Health};
use crate::event::{Deadline, EventFd, WeakEventFd, wait_readable};
use crate::spec::Status;
use crate::sync::Mutex;
use crate::transport::{Interrupts, Transport};
use crate::{Error, Result};

/// Most vectors to ask for: more queues than that share one.
const MAX_VECTORS: u16 = 65;

/// What a device's queues and the device itself share of its interrupts.
#[derive(Debug)]
pub(super) struct Hub {
    transport: Arc<dyn Transport>,
    health: Arc<Health>,
    /// The interrupt that many share, and whether its cause must be read.
    shared: Option<(EventFd, bool)>,
    /// The configuration's own interrupt.
    config: Option<EventFd>,
    /// Events of the queues behind the shared interrupt.
    members: Mutex<Vec<WeakEventFd>>,
    /// What the interface itself has to say, beside interrupts.
    channel: Option<Arc<OwnedFd>>,
    /// For whoever watches the device: something is to be asked of it.
    pub(super) notice: EventFd,
    config_changed: AtomicBool,
}

impl Hub {
    /// Takes the interrupts that have arrived and passes them on.
    pub(super) fn pump(&self) -> Result<()> {
        if let Some((event, read_cause)) = &self.shared
            && event.drain()?
        {
            // A vector tells nothing but that it is not the configuration's, where that has one of its own.
            let (mut queue, mut config) = (true, self.config.is_none());
            if *read_cause {
                match self.transport.isr() {
                    Ok(cause) => (queue, config) = (cause.queue, cause.config),
                    Err(error) if matches!(error.kind(), Error::DeviceGone { .. }) => {
                        // For whoever waits it ends what is in flight; the wait itself did not fail.
                        self.health.set(Condition::Gone);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
                self.transport.interrupt_handled()?;
                if !queue && !config {
                    // The bit of the configuration may have been lost (fault C11).
                    self.ask();
                }
            }
            if queue {
                let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
                members.iter().filter_map(WeakEventFd::upgrade).try_for_each(|event| event.signal())?;
            }
            if config {
                self.config_interrupt()?;
            }
        }
        if self.channel.is_some() {
            match self.transport.attend() {
                Ok(false) => {}
                Ok(true) => self.config_interrupt()?,
                Err(error) if matches!(error.kind(), Error::DeviceGone { .. }) => {
                    self.health.set(Condition::Gone);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        match &self.config {
            Some(event) if event.drain()? => self.config_interrupt(),
            _ => Ok(()),
        }
    }

    fn config_interrupt(&self) -> Result<()> {
        // A shared vector without a cause register tells nothing: the generation would have to be compared, and
        // the reader of the configuration does that anyway.
        self.config_changed.store(true, Ordering::Release);
        self.ask();
        self.notice.signal()
    }

    pub(super) fn ask(&self) {
        ask(&self.transport, &self.health);
    }

    /// Whether the configuration has changed since the last call, as far as the device told.
    pub(super) fn take_config_changed(&self) -> bool {
        self.config_changed.swap(false, Ordering::AcqRel)
    }

    /// The descriptors that somebody must pump.
    fn raw(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let interrupts = self.shared.iter().map(|(event, _)| event).chain(&self.config);
        interrupts.map(AsFd::as_fd).chain(self.channel.iter().map(|fd| fd.as_fd()))
    }
}

/// Asks the device how it is, and tells its queues if that is not well (faults C2, C3, D23).
pub(super) fn ask(transport: &Arc<dyn Transport>, health: &Health) {
    let condition = match transport.status() {
        Ok(status) if status.contains(Status::DEVICE_NEEDS_RESET) => Condition::NeedsReset,
        Ok(_) => return,
        Err(error) if matches!(error.kind(), Error::DeviceGone { .. }) => Condition::Gone,
        Err(error) => {
            log::warn!("{}: its status could not be read: {error}", transport.address());
            return;
        }
    };
    health.set(condition);
}

/// What one queue, or the device itself, waits on.
#[derive(Debug)]
pub struct Wake {
    own: EventFd,
    hub: Option<Arc<Hub>>,
    /// Readable when the own event or one of the hub's is.
    set: Option<OwnedFd>,
}

impl Wake {
    /// Waits on `own` and on what `hub` has to pump.
    pub(super) fn new(own: EventFd, hub: Option<Arc<Hub>>) -> Result<Self> {
        let mut set = None;
        if let Some(hub) = &hub
            && hub.raw().next().is_some()
        {
            let fd = epoll::create(CreateFlags::CLOEXEC).map_err(|e| Error::os("epoll_create", e))?;
            for event in hub.raw().chain([own.as_fd()]) {
                epoll::add(&fd, event, EventData::new_u64(0), EventFlags::IN)
                    .map_err(|e| Error::os("epoll_ctl", e))?;
            }
            set = Some(fd);
        }
        Ok(Self { own, hub, set })
    }

    /// An event of one's own, with no device behind it: for queues that are put together by hand.
    pub fn event(own: EventFd) -> Self {
        Self { own, hub: None, set: None }
    }

    /// Waits until there may be something, at most until `deadline`, and takes the signals away. `false` at the
    /// deadline.
    pub fn wait(&self, deadline: Deadline) -> Result<bool> {
        let woken = wait_readable(self, deadline)?;
        if woken {
            self.clear()?;
        }
        Ok(woken)
    }

    /// Takes the signals away and passes on those that concern others.
    pub fn clear(&self) -> Result<()> {
        if let Some(hub) = &self.hub {
            hub.pump()?;
        }
        self.own.drain().map(drop)
    }

    /// Asks the device how it is, after a wait that brought nothing.
    pub fn ask(&self) {
        if let Some(hub) = &self.hub {
            hub.ask();
        }
    }

    /// The event that wakes this waiter and no other.
    pub fn own(&self) -> &EventFd {
        &self.own
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_ref().map_or_else(|| self.own.as_fd(), AsFd::as_fd)
    }
}

/// Which vector is whose, in one life of a device.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) hub: Option<Arc<Hub>>,
    /// Events of the vectors that belong to one queue each, from vector 1 on.
    own: Vec<EventFd>,
    /// The vector of all other queues; `None` with a line, or where nothing interrupts.
    shared: Option<u16>,
}

impl Wiring {
    /// Before the features are agreed on, and after the end.
    pub(super) fn none() -> Self {
        Self { hub: None, own: Vec::new(), shared: None }
    }

    /// Switches the device's interrupts on (or leaves them off), and plans who gets which.
    pub(super) fn set_up(transport: &Arc<dyn Transport>, health: &Arc<Health>, wanted: bool) -> Result<Self> {
        let mut hub = Hub {
            transport: Arc::clone(transport),
            health: Arc::clone(health),
            shared: None,
            config: None,
            channel: transport.channel(),
            members: Mutex::default(),
            notice: EventFd::new()?,
            config_changed: AtomicBool::new(false),
        };
        let mut wiring = Self::none();
        if wanted {
            let queues = transport.queue_count()?.unwrap_or(MAX_VECTORS);
            match transport.enable_interrupts(queues.saturating_add(1).min(MAX_VECTORS))? {
                Interrupts::Line(event) => hub.shared = Some((event, true)),
                Interrupts::Vectors(events) => wiring.assign(&mut hub, events, queues)?,
            }
        }
        wiring.hub = Some(Arc::new(hub));
        Ok(wiring)
    }

    /// Vector 0 is the configuration's; the last one is shared where there are more queues than vectors.
    fn assign(&mut self, hub: &mut Hub, events: Vec<EventFd>, queues: u16) -> Result<()> {
        let enough = events.len() > usize::from(queues);
        let mut events = events.into_iter();
        let Some(first) = events.next() else { return Ok(()) };
        self.own = events.collect();
        // Refused (fault C12): configuration changes are found by looking.
        let told = match hub.transport.set_config_vector(Some(0)) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), Error::VectorRefused { .. }) => false,
            Err(error) => return Err(error),
        };
        if self.own.is_empty() {
            self.shared = Some(0);
            hub.shared = Some((first, false));
            return Ok(());
        }
        hub.config = told.then_some(first);
        if !enough {
            self.shared = u16::try_from(self.own.len()).ok();
            hub.shared = self.own.pop().map(|event| (event, false));
        }
        Ok(())
    }

    /// The vector for queue `index`, and what to wait on.
    pub(super) fn plan(&self, index: u16) -> Result<(Option<u16>, Wake)> {
        let hub = self.hub.clone();
        if let Some(own) = self.own.get(usize::from(index)) {
            return Ok((Some(index.saturating_add(1)), Wake::new(own.clone(), hub)?));
        }
        let own = EventFd::new()?;
        if let Some(hub) = &hub {
            hub.members.lock().unwrap_or_else(PoisonError::into_inner).push(own.downgrade());
        }
        Ok((self.shared, Wake::new(own, hub)?))
    }

    /// Whether used buffers are announced for a queue with this vector.
    pub(super) fn announces(&self, vector: Option<u16>) -> bool {
        let line = self.hub.as_ref().is_some_and(|hub| matches!(hub.shared, Some((_, true))));
        vector.is_some() || line
    }
}
