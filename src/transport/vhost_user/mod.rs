//! Devices of other processes, behind the vhost-user protocol.
//!
//! The front-end (this crate) and the back-end (a storage daemon, a switch) talk over a Unix socket and share the
//! memory of rings and buffers; kicks and calls are event descriptors. The protocol has no registers: the device status
//! is kept here where the back-end does not offer one, and the configuration is read as a whole, so that its generation
//! is this module's own count of changes.
//!
//! Nothing that a back-end sends is believed, and no question waits longer than its deadline. What proves that a
//! back-end uses memory no more is said at [`Transport::needs_draining`]; the end of a connection proves nothing.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::TryLockError;

use self::control::Control;
use self::link::Link;
use self::wire::Wire;
use super::checks::{check_areas, check_features, check_size, lock, unavailable};
use super::{
    InterruptCause, Interrupts, QueueSetup, RingLayout, SharedMemory, Transport, TransportKind, wait,
};
use crate::bus::Doorbell;
use crate::bus::endpoint::Endpoint;
use crate::error::errno;
use crate::event::{Deadline, EventFd};
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::mem::dma::DmaMapper;
use crate::spec::vhost_user::{MAX_EVENT_RINGS, feature, protocol};
use crate::spec::{ByteOrder, DeviceType, Status};
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

mod control;
mod link;
mod memory;
mod wire;

/// What is said of a device whose connection has ended.
const GONE: Error = Error::DeviceGone { what: "its connection has ended" };

/// Largest queue: what every known back-end takes.
const MAX_QUEUE: u16 = 1024;

/// How a back-end is met.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VhostUserOptions {
    /// Whether to wait at the path for the back-end, rather than to connect to it.
    pub server: bool,
    /// For the connection, and for each answer.
    pub control_timeout: Duration,
    /// First bytes of the configuration space of a back-end that does not tell its own.
    pub config: Vec<u8>,
    /// What errors and logs call the device; its path without.
    pub address: Option<String>,
}

impl Default for VhostUserOptions {
    fn default() -> Self {
        Self { server: false, control_timeout: Duration::from_secs(2), config: Vec::new(), address: None }
    }
}

/// A device behind a vhost-user socket. See [`crate::open()`] for addresses.
///
/// [`Transport::reset`] of one whose back-end died succeeds once the death is proven; the next status that is written
/// then connects anew, with the memory that the device has.
pub struct VhostUser(Arc<Core>);

/// What the transport and the mapper of its memory share.
struct Core {
    endpoint: Endpoint,
    address: String,
    kind: DeviceType,
    timeout: Duration,
    stand_in: Vec<u8>,
    /// The conversation and what depends on it. Whoever holds it may wait for an answer.
    link: Mutex<Link>,
    /// The descriptors, for those who must not wait.
    wire: Mutex<Option<Arc<Wire>>>,
    status: AtomicU8,
    /// Whether the status that is kept may be out of date.
    stale: AtomicBool,
    /// Whether the last back-end is proven dead.
    dead: AtomicBool,
}

impl VhostUser {
    /// Connects to the back-end of a device of type `kind` behind the socket at `path`, or waits for it there.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nobody at the path until the time is over (fault E3); [`Error::Timeout`] for
    /// one that does not answer (V13); [`Error::Disconnected`], [`Error::Protocol`], [`Error::BackendRefused`].
    pub fn open(path: &str, kind: DeviceType, options: VhostUserOptions) -> Result<Arc<dyn Transport>> {
        let address = options.address.unwrap_or_else(|| path.to_string());
        let located = |error: Error| error.at(&address);
        let core = Core {
            endpoint: Endpoint::new(path, options.server).map_err(located)?,
            kind,
            timeout: options.control_timeout,
            stand_in: options.config,
            link: Mutex::new(Link::new()),
            wire: Mutex::new(None),
            status: AtomicU8::new(0),
            stale: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            address: address.clone(),
        };
        {
            let deadline = core.deadline();
            let mut link = core.link(deadline).map_err(located)?;
            core.connect(&mut link, deadline).map_err(|error| located(nobody_there(error)))?;
        }
        Ok(Arc::new(Self(Arc::new(core))))
    }
}

/// What a failed connection means at the opening: nothing is behind the address. Later, a back-end is missing that
/// was there, and the error stays what the system said.
fn nobody_there(error: Error) -> Error {
    match error {
        Error::Os { errno: errno::ENOENT | errno::ECONNREFUSED, .. } => Error::NotFound {
            why: "no back-end listens at this socket: start it, or give its socket's path".into(),
        },
        other => other,
    }
}

impl Core {
    fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// The conversation, when nobody else is at it.
    fn link(&self, deadline: Deadline) -> Result<MutexGuard<'_, Link>> {
        let free = wait::poll(deadline, || match self.link.try_lock() {
            Ok(link) => Ok(Some(link)),
            Err(TryLockError::Poisoned(link)) => Ok(Some(link.into_inner())),
            Err(TryLockError::WouldBlock) => Ok(None),
        })?;
        free.ok_or_else(|| deadline.timeout("the back-end to answer somebody else"))
    }

    /// The conversation, and when it has to have its answer.
    fn talk(&self) -> Result<(MutexGuard<'_, Link>, Deadline)> {
        let deadline = self.deadline();
        Ok((self.link(deadline)?, deadline))
    }

    fn wire(&self) -> Option<Arc<Wire>> {
        lock(&self.wire).clone()
    }

    fn connect(&self, link: &mut Link, deadline: Deadline) -> Result<()> {
        let socket = Arc::new(self.endpoint.connect(deadline)?);
        let wire = Wire::new(Arc::clone(&socket))?;
        link.shake_hands(Control::new(socket), &wire, self.kind, &self.stand_in, deadline)?;
        *lock(&self.wire) = Some(Arc::new(wire));
        self.status.store(0, Ordering::Release);
        self.stale.store(false, Ordering::Release);
        self.dead.store(false, Ordering::Release);
        Ok(())
    }

    /// [`Error::DeviceGone`] where the connection has ended.
    fn check_wire(&self) -> Result<()> {
        match self.wire() {
            Some(wire) if !wire.ended()? => Ok(()),
            _ => Err(GONE),
        }
    }

    fn stop(&self, link: &mut Link, deadline: Deadline) -> Result<()> {
        if link.control.is_none() && self.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.check_wire().is_ok() {
            match link.stop_all(deadline) {
                Ok(()) => return Ok(()),
                Err(Error::Disconnected { .. }) => {}
                Err(error) if self.check_wire().is_ok() => return Err(error),
                Err(_) => {}
            }
        }
        // The connection is over, and will not be taken up again. Its end alone proves nothing (R9).
        let wire = self.wire().ok_or(GONE)?;
        let given_up = link.control.as_ref().is_some_and(Control::given_up);
        let patience = if given_up { Deadline::after(Duration::ZERO) } else { deadline };
        if !wire.peer_is_dead(patience)? {
            return Err(GONE);
        }
        self.dead.store(true, Ordering::Release);
        (link.control, link.told) = (None, false);
        link.rings.clear();
        *lock(&self.wire) = None;
        Ok(())
    }

    fn supported() -> Features {
        let own = Features::from_bit(feature::LOG_ALL) | Features::from_bit(feature::PROTOCOL_FEATURES);
        Features::from_words([u32::MAX, u32::MAX, 0, 0]).difference(own).difference(NOT_CARRIED)
    }

    /// Whether the queue is one that the back-end has.
    fn check_index(&self, link: &Link, index: u16) -> Result<()> {
        if index >= link.queues.unwrap_or(MAX_EVENT_RINGS).min(MAX_EVENT_RINGS) {
            return Err(unavailable(index, "the back-end has no such queue"));
        }
        Ok(())
    }
}

/// What only registers can carry, or an IOMMU.
const NOT_CARRIED: Features = Features::ACCESS_PLATFORM
    .union(Features::SR_IOV)
    .union(Features::NOTIFICATION_DATA)
    .union(Features::NOTIF_CONFIG_DATA)
    .union(Features::RING_RESET)
    .union(Features::ADMIN_VQ);

impl Transport for VhostUser {
    fn kind(&self) -> TransportKind {
        TransportKind::VhostUser
    }

    fn address(&self) -> &str {
        &self.0.address
    }

    fn device_type(&self) -> DeviceType {
        self.0.kind
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    fn ring_layout(&self) -> RingLayout {
        RingLayout::Modern
    }

    fn barrier(&self) -> Barrier {
        Barrier::Cpu
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::clone(&self.0) as Arc<dyn DmaMapper>
    }

    fn present(&self) -> Result<()> {
        self.0.check_wire()
    }

    fn device_features(&self) -> Result<Features> {
        let (link, _) = self.0.talk()?;
        let (low, high) = (link.offered as u32, (link.offered >> 32) as u32);
        Ok(Features::from_words([low, high, 0, 0]).intersection(Core::supported()))
    }

    fn supported_features(&self) -> Features {
        Core::supported()
    }

    fn set_driver_features(&self, accepted: Features) -> Result<()> {
        check_features(accepted, Core::supported())?;
        let (mut link, deadline) = self.0.talk()?;
        link.tell_features(accepted, deadline)
    }

    fn status(&self) -> Result<Status> {
        self.0.check_wire()?;
        if self.0.stale.load(Ordering::Acquire) {
            let (mut link, deadline) = self.0.talk()?;
            if self.0.stale.swap(false, Ordering::AcqRel) && link.has(protocol::STATUS) {
                let read = link.read_status(deadline)?;
                self.0.status.store(read.bits(), Ordering::Release);
            }
        }
        Ok(Status::from_bits_retain(self.0.status.load(Ordering::Acquire)))
    }

    fn set_status(&self, status: Status) -> Result<()> {
        if status.is_empty() {
            return Err(Error::Misuse { what: "a status of 0 is a reset" });
        }
        let (mut link, deadline) = self.0.talk()?;
        if link.control.is_none() && self.0.dead.load(Ordering::Acquire) {
            self.0.connect(&mut link, deadline)?;
        }
        let mut now = status;
        if link.has(protocol::STATUS) {
            now = link.write_status(status, deadline)?;
        } else if status.contains(Status::DRIVER_OK) {
            // V19: what enables the rings was handled before the first kick.
            link.control()?.settle(deadline)?;
        }
        self.0.status.store(now.bits(), Ordering::Release);
        Ok(())
    }

    fn reset(&self, deadline: Deadline) -> Result<()> {
        let mut link = self.0.link(deadline)?;
        self.0.stop(&mut link, deadline)?;
        self.0.status.store(0, Ordering::Release);
        Ok(())
    }

    fn config_len(&self) -> u64 {
        self.0.talk().map_or(0, |(link, _)| link.config.len() as u64)
    }

    fn read_config(&self, offset: u64, width: u8) -> Result<u64> {
        let (mut link, deadline) = self.0.talk()?;
        let range = config_range(offset, width, link.config.len())?;
        link.refresh_config(deadline)?;
        let mut bytes = [0; 8];
        let found = link.config.get(range).unwrap_or_default();
        bytes.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
        Ok(u64::from_le_bytes(bytes))
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) -> Result<()> {
        let (mut link, deadline) = self.0.talk()?;
        config_range(offset, width, link.config.len())?;
        let bytes = value.to_le_bytes();
        link.write_config(offset, bytes.get(..width.into()).unwrap_or_default(), deadline)
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        let (mut link, deadline) = self.0.talk()?;
        link.refresh_config(deadline)?;
        Ok(Some(link.generation))
    }

    fn queue_count(&self) -> Result<Option<u16>> {
        Ok(self.0.talk()?.0.queues)
    }

    fn queue_max_size(&self, index: u16) -> Result<u16> {
        let (link, _) = self.0.talk()?;
        self.0.check_index(&link, index)?;
        if link.rings.iter().any(|ring| ring.index == index && ring.set) {
            return Err(unavailable(index, "it is in use already"));
        }
        Ok(MAX_QUEUE)
    }

    fn set_queue(&self, index: u16, setup: &QueueSetup) -> Result<()> {
        let max = self.queue_max_size(index)?;
        let (mut link, deadline) = self.0.talk()?;
        let packed = link.accepted.contains(Features::RING_PACKED);
        check_size(index, setup.size, max, packed)?;
        check_areas(setup, packed)?;
        link.set_ring(index, setup, deadline)
    }

    fn queue_enabled(&self, index: u16) -> Result<bool> {
        Ok(self.0.talk()?.0.rings.iter().any(|ring| ring.index == index && ring.set))
    }

    fn reset_queue(&self, _index: u16, _deadline: Deadline) -> Result<()> {
        Err(Error::Unsupported { what: "RING_RESET has no message in the vhost-user protocol" })
    }

    fn stop_queue(&self, index: u16) -> Result<()> {
        let (mut link, deadline) = self.0.talk()?;
        link.stop_ring(index, deadline)
    }

    fn doorbell(&self, index: u16) -> Result<Doorbell> {
        let (mut link, _) = self.0.talk()?;
        self.0.check_index(&link, index)?;
        link.kick(index).map(Doorbell::Event)
    }

    fn notification_id(&self, index: u16) -> Result<u16> {
        Ok(index)
    }

    fn enable_interrupts(&self, vectors: u16) -> Result<Interrupts> {
        let (mut link, _) = self.0.talk()?;
        link.calls = (0..vectors.max(1)).map(|_| EventFd::for_peer()).collect::<Result<_>>()?;
        Ok(Interrupts::Vectors(link.calls.clone()))
    }

    fn disable_interrupts(&self) -> Result<()> {
        self.0.talk()?.0.calls.clear();
        Ok(())
    }

    fn set_config_vector(&self, _vector: Option<u16>) -> Result<()> {
        // The back-end's own messages tell of changes.
        Ok(())
    }

    fn isr(&self) -> Result<InterruptCause> {
        Ok(InterruptCause::default())
    }

    fn interrupt_handled(&self) -> Result<()> {
        Ok(())
    }

    fn shared_memory(&self, _id: u8) -> Result<Option<SharedMemory>> {
        Ok(None)
    }

    fn needs_draining(&self) -> bool {
        !self.0.dead.load(Ordering::Acquire)
    }

    fn channel(&self) -> Option<Arc<OwnedFd>> {
        self.0.wire().map(|wire| Arc::clone(wire.watch()))
    }

    fn attend(&self) -> Result<bool> {
        let wire = self.0.wire().ok_or(GONE)?;
        let changed = wire.serve()?;
        if changed {
            self.0.stale.store(true, Ordering::Release);
        } else if wire.ended()? {
            return Err(GONE);
        }
        Ok(changed)
    }

    fn close(&self) {
        *lock(&self.0.wire) = None;
        self.0.endpoint.close();
        if let Ok(mut link) = self.0.link(self.0.deadline()) {
            link.control = None;
            link.rings.clear();
            link.calls.clear();
        }
    }
}

/// The bytes of an access to the configuration (fault C14).
fn config_range(offset: u64, width: u8, len: usize) -> Result<core::ops::Range<usize>> {
    let align = u64::from(width.min(4));
    if !matches!(width, 1 | 2 | 4 | 8) || !offset.is_multiple_of(align) {
        return Err(Error::Misuse { what: "a configuration access is 1, 2, 4 or 8 bytes wide, and aligned" });
    }
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| Some(start..start.checked_add(width.into())?));
    range.filter(|range| range.end <= len).ok_or(Error::ConfigOutOfRange {
        offset,
        width: width.into(),
        len: len as u64,
    })
}

impl fmt::Debug for VhostUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VhostUser({}, {})", self.0.address, self.0.kind)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vhost-user memory of {}", self.address)
    }
}
