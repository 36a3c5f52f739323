//! The device end of the vhost-user protocol: a software device behind a Unix socket.
//!
//! One thread has everything: it waits for a front-end, talks to it, and serves the rings. What a front-end sends is
//! not believed. A message that none may send ends the connection, and the device waits for the next one.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::thread::{Builder, JoinHandle};

use self::engine::Modelled;
pub(super) use self::engine::{Engine, RingPlace};
use self::server::Server;
use super::device::Report;
use super::machine::{Machine, Run};
use super::model::DeviceModel;
use super::null::{NullBlock, NullEngine};
use super::plan::Plan;
use super::script::DeviceLie;
use crate::bus::endpoint::Endpoint;
use crate::event::{Deadline, EventFd};
use crate::features::Features;
use crate::mem::dma::SoftDma;
use crate::mem::process::Process;
use crate::spec::vhost_user::{MAX_EVENT_RINGS, protocol};
use crate::spec::{ByteOrder, DeviceType};
use crate::sync::Mutex;
use crate::{Error, Result};

mod engine;
mod messages;
mod server;
mod session;
mod table;
mod watch;

/// For the thread to end when its device is dropped.
const END: Duration = Duration::from_secs(5);

/// What a device end did and saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VhostUserReport {
    /// Whether a front-end is connected.
    pub connected: bool,
    /// Front-ends that have connected.
    pub connections: u64,
    /// What the device itself did and saw: its notifications are the kicks that were taken, its interrupts the calls.
    /// Accesses are not counted, there being no registers; a null device tells no more than what it counted.
    pub device: Report,
    /// What ended the last connection that did not end in peace.
    pub error: Option<Error>,
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    wake: EventFd,
    /// Signalled by the thread as the last thing that it does.
    ended: EventFd,
    stop: AtomicBool,
    hang_up: AtomicBool,
    /// Chains, kicks and calls.
    counts: [AtomicU64; 3],
    seen: Mutex<VhostUserReport>,
}

/// Makes a [`VhostUserDevice`].
#[derive(Debug)]
pub struct VhostUserDeviceBuilder {
    plan: Plan,
    protocol: u64,
}

impl VhostUserDeviceBuilder {
    /// Whether the driver is held to the rules of the rings ([`Report::broken`]); those of registers have no place
    /// here. Without a word as [`super::SoftDeviceBuilder::checked`].
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.plan.checked = Some(checked);
        self
    }

    /// Features to offer beyond what the type and the rings bring.
    #[must_use]
    pub fn offer(mut self, features: Features) -> Self {
        self.plan.offer |= features;
        self
    }

    /// Features not to offer.
    #[must_use]
    pub fn withhold(mut self, features: Features) -> Self {
        self.plan.withhold |= features;
        self
    }

    /// Protocol features not to offer: bits of [`crate::spec::vhost_user::protocol`].
    #[must_use]
    pub fn withhold_protocol(mut self, features: u64) -> Self {
        self.protocol &= !features;
        self
    }

    /// Lies that it tells from the start: of [`DeviceLie`] those about features, configuration and rings.
    #[must_use]
    pub fn lies(mut self, lies: impl IntoIterator<Item = DeviceLie>) -> Self {
        self.plan.lies.extend(lies);
        self
    }

    /// The device, waiting at `path` for a front-end. A socket that is there is taken over if nobody waits at it.
    ///
    /// [`Error::Misuse`] for a model with more than 256 queues, [`Error::Os`] with what the operating system gives.
    pub fn build(mut self, path: impl AsRef<Path>) -> Result<VhostUserDevice> {
        let model = &self.plan.model;
        if model.queues() > MAX_EVENT_RINGS {
            return Err(Error::Misuse { what: "a vhost-user device has at most 256 queues" });
        }
        let (device_type, vectors) = (model.device_type(), model.queues().saturating_add(1));
        let path = path.as_ref();
        let address = address(path, device_type)?;
        let dma = Arc::new(SoftDma::new());
        self.plan.withhold |= NOT_CARRIED;
        let core = self.plan.core((true, false), ByteOrder::NATIVE, dma.view(), vectors, &address)?;
        let machine = Arc::new(Machine::new(address, Arc::clone(&dma), core, Run::Stepped)?);
        let changed = EventFd::new()?;
        let engine = Box::new(Modelled::new(Arc::clone(&machine), changed.clone()));
        VhostUserDevice::start(path, device_type, engine, Some(machine), self.protocol, (dma, changed))
    }
}

/// What only registers can carry.
const NOT_CARRIED: Features = Features::RING_RESET;

/// A software device behind a Unix socket: a vhost-user back-end in this process, in a thread of its own.
///
/// It waits at its path for a front-end, serves it, survives its end and waits for the next one; a second one waits
/// until the first is gone. Dropping the device hangs up, ends the thread and removes the socket.
///
/// Descriptors of the front-end's memory are closed as soon as it is mapped. Memory files are sealed against
/// shrinking where they can be; a front-end that cuts one that cannot ends this process by SIGBUS.
///
/// ```
/// use virtio::soft::{Block, VhostUserDevice};
///
/// # fn main() -> virtio::Result {
/// let path = std::env::temp_dir().join(format!("block-{}.sock", std::process::id()));
/// let device = VhostUserDevice::builder(Block::zeroes(64)).build(&path)?;
/// let found = virtio::open(&device.address())?;
/// # drop(found);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct VhostUserDevice {
    path: PathBuf,
    address: String,
    shared: Arc<Shared>,
    machine: Option<Arc<Machine>>,
    thread: Option<JoinHandle<()>>,
    owner: Process,
}

impl VhostUserDevice {
    /// Starts with a model of what the device does.
    pub fn builder(model: impl DeviceModel + 'static) -> VhostUserDeviceBuilder {
        Self::builder_boxed(Box::new(model))
    }

    /// As [`VhostUserDevice::builder`].
    pub fn builder_boxed(model: Box<dyn DeviceModel>) -> VhostUserDeviceBuilder {
        VhostUserDeviceBuilder { plan: Plan::new(model), protocol: protocol::USED }
    }

    /// A block device that does nothing but complete, for benchmarks. Errors as [`VhostUserDeviceBuilder::build`].
    pub fn null(path: impl AsRef<Path>, null: NullBlock) -> Result<Self> {
        let dma = Arc::new(SoftDma::new());
        let changed = EventFd::new()?;
        let engine = Box::new(NullEngine::new(null, Arc::clone(&dma), changed.clone()));
        Self::start(path.as_ref(), DeviceType::BLOCK, engine, None, protocol::USED, (dma, changed))
    }

    fn start(
        path: &Path,
        device_type: DeviceType,
        engine: Box<dyn Engine>,
        machine: Option<Arc<Machine>>,
        protocol: u64,
        (dma, changed): (Arc<SoftDma>, EventFd),
    ) -> Result<Self> {
        let address = address(path, device_type)?;
        let endpoint = Endpoint::new(text(path)?, true).map_err(|error| error.at(&address))?;
        let shared = Arc::new(Shared {
            wake: EventFd::new()?,
            ended: EventFd::new()?,
            stop: AtomicBool::new(false),
            hang_up: AtomicBool::new(false),
            counts: Default::default(),
            seen: Mutex::new(VhostUserReport::default()),
        });
        let server = Server::new(endpoint, Arc::clone(&shared), engine, protocol, dma, changed)?;
        let spawned = Builder::new().name("virtio-vhost".into()).spawn(move || server.run());
        let thread = spawned.map_err(|error| Error::Os {
            doing: "start the thread of a software device",
            errno: error.raw_os_error().unwrap_or(crate::error::errno::EIO),
        })?;
        let path = path.to_path_buf();
        Ok(Self { path, address, shared, machine, thread: Some(thread), owner: Process::current() })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its address, as [`crate::open()`] takes it.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// What it did and saw.
    pub fn report(&self) -> VhostUserReport {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let device = self.machine.as_ref().map(|machine| machine.report()).unwrap_or_default();
        let [chains, notifications, interrupts] =
            [0, 1, 2].map(|at| self.shared.counts.get(at).map_or(0, |count| count.load(Ordering::Relaxed)));
        VhostUserReport { device: Report { chains, notifications, interrupts, ..device }, ..seen }
    }

    /// Ends the connection that there is, as a back-end that dies does.
    pub fn hang_up(&self) -> Result<()> {
        self.shared.hang_up.store(true, Ordering::SeqCst);
        self.shared.wake.signal()
    }

    /// Tells no lie any more. What was written to memory stays. [`Error::Misuse`] for a null device.
    pub fn be_honest(&self) -> Result<()> {
        self.machine()?.be_honest()?;
        self.shared.wake.signal()
    }

    /// Tells a lie from now on, as [`super::SoftDevice::tell`]. [`Error::Misuse`] for a null device.
    pub fn tell(&self, lie: DeviceLie) -> Result<()> {
        self.machine()?.core().tell(lie)?;
        self.shared.wake.signal()
    }

    /// Changes the configuration space: `bytes` as they lie there, from `offset` on, with a message to the front-end.
    /// [`Error::Misuse`] for a null device.
    pub fn change_config(&self, offset: u16, bytes: &[u8]) -> Result<()> {
        self.machine()?.core().change_config(offset, bytes)
    }

    fn machine(&self) -> Result<&Machine> {
        self.machine.as_deref().ok_or(Error::Misuse { what: "a null device has no model" })
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or(Error::Misuse { what: "the path of a socket must be text" })
}

fn address(path: &Path, device_type: DeviceType) -> Result<String> {
    Ok(format!("vhost-user:{}?type={}", text(path)?, device_type))
}

impl Drop for VhostUserDevice {
    fn drop(&mut self) {
        let thread = self.thread.take();
        // A fork's child has no such thread, and its event is the parent's.
        if !self.owner.is_current() {
            return core::mem::forget(thread);
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        let woken = self.shared.wake.signal().and_then(|()| self.shared.ended.wait(Deadline::after(END)));
        match (woken, thread) {
            (Ok(true), Some(thread)) => drop(thread.join()),
            (outcome, _) => log::error!("{}: its thread is left to itself: {outcome:?}", self.address),
        }
    }
}
