//! A device and its life: reset, features, queues, running, reset again, closed (VIRTIO 1.4 §3).

use alloc::string::ToString;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use std::sync::PoisonError;

use super::access::Access;
use super::config::Config;
use super::gauge::{Gauge, drain};
use super::health::{Condition, Health};
use super::interrupts::Wiring;
use crate::event::Deadline;
use crate::features::{Features, Negotiated, Negotiation, Origin};
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::mem::quarantine::StoppedProof;
use crate::mem::space::DmaSpace;
use crate::spec::{DeviceType, Status};
use crate::sync::{Mutex, MutexGuard};
use crate::transport::Transport;
use crate::{Error, Result};

/// How a device is handled. All times are limits on waits for the device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// For resets and other answers of registers.
    pub control_timeout: Duration,
    /// Attempts at a consistent read of the configuration.
    pub config_tries: u32,
    /// Whether a used length above what a chain has room for breaks its queue (fault D9).
    pub strict: bool,
    /// Whether interrupts are used at all; without, every wait polls the rings.
    pub interrupts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { control_timeout: Duration::from_secs(2), config_tries: 64, strict: false, interrupts: true }
    }
}

/// Where a device stands in its initialisation (§3.1.1). Each step is possible in its phase only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reset, acknowledged, and told that a driver knows it: features come next.
    Reset,
    /// Features are agreed on: queues are set up, then the device is started.
    Negotiated,
    /// DRIVER_OK is set.
    Running,
    /// Given up with FAILED: only a reset leads on.
    Failed,
    /// Closed.
    Closed,
}

/// What is true of one life of the device, from one reset to the next.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) phase: Phase,
    pub(super) negotiated: Option<Negotiated>,
    pub(super) health: Arc<Health>,
    pub(super) wiring: Wiring,
    /// Queues that were set up.
    pub(super) queues: alloc::vec::Vec<u16>,
    /// What those still have in flight, where that counts at a reset.
    pub(super) gauges: alloc::vec::Vec<Arc<Gauge>>,
    /// Queues that were reset on their own since the start: they can be set up again.
    pub(super) released: alloc::vec::Vec<u16>,
}

/// One virtio device behind a transport. Calls are checked against its state at run time; any thread may call.
///
/// Its queues ([`Device::take_queue`]) are objects of their own, owned by who drives them, and may outlive it:
/// they then answer [`Error::Closed`].
///
/// A drop closes it as [`Device::close`] does, and logs what could not be done.
pub struct Device {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) space: DmaSpace,
    pub(super) options: Options,
    pub(super) life: Arc<Mutex<Life>>,
    config: Config,
    pub(super) access: Access,
}

impl Device {
    /// Takes the device over: resets it, and tells it that it was noticed and that there is a driver (§3.1.1
    /// steps 1 to 3).
    ///
    /// Fails where the reset is not confirmed ([`Error::ResetTimeout`], [`Error::DeviceGone`]); always with
    /// the device's address.
    pub fn open(transport: Arc<dyn Transport>, options: Options) -> Result<Self> {
        let address = transport.address().to_string();
        Self::take_over(transport, options).map_err(|error| error.at(&address))
    }

    fn take_over(transport: Arc<dyn Transport>, options: Options) -> Result<Self> {
        transport.present()?;
        let space = DmaSpace::new(transport.dma());
        let life = Life {
            phase: Phase::Failed,
            negotiated: None,
            health: Health::new(),
            wiring: Wiring::none(),
            queues: alloc::vec::Vec::new(),
            gauges: alloc::vec::Vec::new(),
            released: alloc::vec::Vec::new(),
        };
        let access = Access::new();
        let config = Config::new(Arc::clone(&transport), options.config_tries, access.clone());
        let device = Self { transport, space, options, life: Arc::new(Mutex::new(life)), config, access };
        device.reset()?;
        Ok(device)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the life of a device that is in `phase`; [`Error::Misuse`] with `what` in another one.
    pub(super) fn in_phase(&self, phase: Phase, what: &'static str) -> Result<MutexGuard<'_, Life>> {
        self.check_process()?;
        let life = self.lock();
        match life.phase {
            found if found == phase => Ok(life),
            Phase::Closed => Err(Error::Closed { what: "device" }),
            _ => Err(Error::Misuse { what }),
        }
    }

    /// Fails in a fork's child (fault M6), which must also take no lock: whoever held it there is not there.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.access.check_process()
    }

    /// Fails there too, and after the close.
    #[cfg(feature = "python")]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.access.check()
    }

    /// Adds the address to an error.
    pub(super) fn located<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.at(self.transport.address()))
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.options.control_timeout)
    }

    /// Where the device is.
    pub fn address(&self) -> &str {
        self.transport.address()
    }

    /// Its type.
    pub fn device_type(&self) -> DeviceType {
        self.transport.device_type()
    }

    /// The interface that it is driven through.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Where it stands.
    /// [`Phase::Closed`] in a fork's child.
    pub fn phase(&self) -> Phase {
        if self.access.is_owner() { self.lock().phase } else { Phase::Closed }
    }

    /// The device status, as the register reads. [`Error::Closed`] after the close.
    pub fn status(&self) -> Result<Status> {
        self.located(self.access.check().and_then(|()| self.transport.status()))
    }

    /// Feature bits that the device offers and the interface can carry. [`Error::Closed`] after the close.
    pub fn offered(&self) -> Result<Features> {
        self.located(self.access.check().and_then(|()| self.transport.device_features()))
    }

    /// What was negotiated: which bits are in use, who asked for each, and why one is not.
    pub fn negotiated(&self) -> Option<Negotiated> {
        if self.access.is_owner() { self.lock().negotiated.clone() } else { None }
    }

    /// The features in use; none before the negotiation.
    pub fn features(&self) -> Features {
        self.negotiated().as_ref().map_or(Features::EMPTY, Negotiated::accepted)
    }

    /// Its configuration space: [`Error::Closed`] after the close.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The memory that it can reach.
    pub fn memory(&self) -> &DmaSpace {
        &self.space
    }

    /// A pool of `count` buffers of `stride` bytes, in memory that the device can reach.
    pub fn pool(&self, count: u32, stride: u32) -> Result<DmaPool> {
        self.located(DmaPool::new(&self.space, count, stride))
    }

    /// One buffer of `len` bytes, all zero.
    pub fn alloc(&self, len: usize) -> Result<DmaBuf> {
        self.located(self.space.alloc(len, 64).and_then(DmaBuf::whole))
    }

    /// Agrees with the device on features (§3.1.1 steps 4 to 6): `required` ones or none at all, `wanted` ones
    /// where offered. Nothing else is accepted, but for what the interface itself needs (VERSION_1).
    ///
    /// # Errors
    /// [`Error::MissingFeatures`]; [`Error::FeaturesRejected`] where the device does not keep FEATURES_OK
    /// (fault C4), which leaves it failed; [`Error::Misuse`] after it was done once.
    pub fn negotiate(&self, wanted: Features, required: Features) -> Result<Features> {
        self.negotiate_as(Origin::Caller, wanted, required)
    }

    /// The same, asked by a driver.
    pub fn negotiate_as(&self, origin: Origin, wanted: Features, required: Features) -> Result<Features> {
        let build = |negotiation: Negotiation| negotiation.want(origin, wanted).require(origin, required);
        self.located(self.try_negotiate(build))
    }

    /// The same, with all that a [`Negotiation`] can say: several origins, refusals with reasons.
    pub fn negotiate_with(&self, build: impl FnOnce(Negotiation) -> Negotiation) -> Result<Features> {
        self.located(self.try_negotiate(build))
    }

    fn try_negotiate(&self, build: impl FnOnce(Negotiation) -> Negotiation) -> Result<Features> {
        let what = "features are negotiated once, before queues are set up: reset the device first";
        let mut life = self.in_phase(Phase::Reset, what)?;
        let transport = &self.transport;
        let offered = transport.device_features()?;
        let mut negotiation = build(Negotiation::new(transport.device_type(), offered)).refuse(
            Origin::Transport,
            NOT_YET,
            "this version of the library does not implement it",
        );
        let unsupported = offered.difference(transport.supported_features());
        negotiation = negotiation.refuse(Origin::Transport, unsupported, "the interface cannot carry it");
        if !transport.legacy() {
            // C6: a modern interface without VERSION_1 is none.
            negotiation = negotiation.require(Origin::Transport, Features::VERSION_1);
        }
        let negotiated = match negotiation.resolve() {
            Ok(negotiated) => negotiated,
            Err(error) => return Err(self.give_up(&mut life, error)),
        };
        if let Err(error) = self.tell_features(negotiated.accepted()) {
            return Err(self.give_up(&mut life, error));
        }
        let accepted = negotiated.accepted();
        life.negotiated = Some(negotiated);
        life.phase = Phase::Negotiated;
        Ok(accepted)
    }

    /// Writes the accepted features and, where there is such a step, sees that FEATURES_OK stays (fault C4).
    fn tell_features(&self, accepted: Features) -> Result<()> {
        self.transport.set_driver_features(accepted)?;
        if self.transport.legacy() {
            return Ok(());
        }
        let status = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        self.transport.set_status(status)?;
        if self.transport.status()?.contains(Status::FEATURES_OK) {
            return Ok(());
        }
        let names = accepted.names(self.transport.device_type()).to_string();
        Err(Error::FeaturesRejected { accepted: names.into() })
    }

    /// Tells the device that the driver has given up (§2.1: FAILED), and passes the error on.
    pub(super) fn give_up(&self, life: &mut Life, error: Error) -> Error {
        life.phase = Phase::Failed;
        let told = self.transport.status().and_then(|now| self.transport.set_status(now | Status::FAILED));
        if let Err(also) = told {
            log::debug!("{}: FAILED could not be set: {also}", self.transport.address());
        }
        error
    }

    /// Sets the device going (§3.1.1 step 8): from now on its queues may be notified.
    ///
    /// [`Error::DeviceNeedsReset`] where the device asks for a reset at once; [`Error::Misuse`] in another
    /// phase than after the negotiation.
    pub fn start(&self) -> Result<()> {
        self.located(self.try_start())
    }

    fn try_start(&self) -> Result<()> {
        let what = "a device is started once, after its features were negotiated";
        let mut life = self.in_phase(Phase::Negotiated, what)?;
        let mut status = Status::ACKNOWLEDGE | Status::DRIVER | Status::DRIVER_OK;
        if !self.transport.legacy() {
            status |= Status::FEATURES_OK;
        }
        self.transport.set_status(status)?;
        life.phase = Phase::Running;
        life.health.set(Condition::Running);
        let now = self.transport.status().inspect_err(|error| {
            if matches!(error.kind(), Error::DeviceGone { .. }) {
                life.health.set(Condition::Gone);
            }
        })?;
        if now.contains(Status::DEVICE_NEEDS_RESET) {
            life.health.set(Condition::NeedsReset);
            return Err(Error::DeviceNeedsReset);
        }
        Ok(())
    }

    /// Resets the device and makes it ready for another initialisation, from the negotiation on. What was in
    /// flight ends once, as [`Error::Indeterminate`], on the queues that were set up, which answer
    /// [`Error::Closed`] from then on.
    ///
    /// Where the reset cannot be confirmed ([`Error::ResetTimeout`], [`Error::DeviceGone`]) the device stays
    /// failed, its queues are closed, and what it was given stays quarantined (faults C1, C2, C30).
    pub fn reset(&self) -> Result<()> {
        self.located(self.try_reset())
    }

    fn try_reset(&self) -> Result<()> {
        self.check_process()?;
        let mut life = self.lock();
        if life.phase == Phase::Closed {
            return Err(Error::Closed { what: "device" });
        }
        let _proof = self.stop(&mut life)?;
        life.health = Health::new();
        life.wiring = Wiring::none();
        life.negotiated = None;
        life.queues.clear();
        life.gauges.clear();
        life.released.clear();
        self.transport.set_status(Status::ACKNOWLEDGE)?;
        self.transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER)?;
        life.phase = Phase::Reset;
        Ok(())
    }

    /// Resets the device and tells its queues how that ended.
    fn stop(&self, life: &mut Life) -> Result<StoppedProof> {
        life.phase = Phase::Failed;
        let deadline = self.deadline();
        if self.transport.needs_draining() {
            // Half of the time, so that some is left for the reset itself.
            life.health.set(Condition::Draining);
            let half =
                Deadline::after(deadline.left().and_then(|left| left.checked_div(2)).unwrap_or_default());
            drain(&life.gauges, half, || self.transport.present().is_ok());
        }
        let reset = self.transport.reset(deadline).and_then(|()| {
            // What the device had taken before it stopped it may still work on.
            if self.transport.needs_draining() && !drain(&life.gauges, deadline, || true) {
                return Err(deadline.timeout("requests in flight, which go on after a queue was stopped"));
            }
            Ok(())
        });
        if let Err(error) = reset {
            let gone = matches!(error.kind(), Error::DeviceGone { .. });
            life.health.set(if gone { Condition::Gone } else { Condition::Closed });
            return Err(error);
        }
        let proof = StoppedProof::confirmed(&self.space);
        life.health.stopped(StoppedProof::confirmed(&self.space));
        self.space.quarantine().release(&proof)?;
        if let Err(error) = self.transport.disable_interrupts() {
            log::debug!("{}: interrupts could not be switched off: {error}", self.transport.address());
        }
        Ok(proof)
    }

    /// Resets the device, takes its memory from it and ends its use. Views and buffers that live on keep their
    /// memory.
    ///
    /// Where the reset cannot be confirmed, the error says so, and the memory is kept for the life of the
    /// process. A second call does nothing.
    pub fn close(&self) -> Result<()> {
        self.located(self.try_close())
    }

    fn try_close(&self) -> Result<()> {
        self.check_process()?;
        let mut life = self.lock();
        if life.phase == Phase::Closed {
            return Ok(());
        }
        let stopped = self.stop(&mut life);
        life.phase = Phase::Closed;
        self.access.close();
        life.wiring = Wiring::none();
        let closed = stopped.and_then(|proof| self.space.close(&proof));
        self.transport.close();
        closed
    }
}

/// Ring and device features that are specified and not implemented here: never accepted, and said so.
const NOT_YET: Features = Features::RING_PACKED
    .union(Features::IN_ORDER)
    .union(Features::SR_IOV)
    .union(Features::NOTIFICATION_DATA)
    .union(Features::NOTIF_CONFIG_DATA)
    .union(Features::ADMIN_VQ)
    .union(Features::SUSPEND);

impl Drop for Device {
    fn drop(&mut self) {
        match self.try_close() {
            // A fork's child has a copy of the handle, not the device.
            Ok(()) | Err(Error::ForkedProcess { .. }) => {}
            Err(error) => {
                log::error!("{}: closed without a confirmed reset: {error}", self.transport.address())
            }
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Device({}, {}, {:?})",
            self.transport.address(),
            self.transport.device_type(),
            self.phase()
        )
    }
}
