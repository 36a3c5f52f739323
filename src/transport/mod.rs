//! What the registers of a device mean.
//!
//! A [`Transport`] turns the questions of VIRTIO 1.4 §2 and §3 (type, features, status, configuration, queues,
//! notifications, interrupts) into accesses to the registers of one interface: PCI modern, PCI legacy, MMIO of
//! either version. It is written once against the traits of [`crate::bus`], knows no device type and trusts
//! no value that a device gives it.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test may fail"
    )
)]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Debug, Display};
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::bus::{Doorbell, RegisterSpace};
use crate::event::{Deadline, EventFd};
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::mem::dma::DmaMapper;
use crate::spec::pci::isr;
pub use crate::spec::split::RingLayout;
use crate::spec::{ByteOrder, DeviceType, Status};
use crate::{Error, Result};

mod checks;
mod mmio;
mod pci;
mod pci_caps;
mod pci_legacy;
mod pci_modern;
#[cfg(test)]
mod tests;
#[cfg(feature = "vhost-user")]
mod vhost_user;
mod wait;
mod window;

pub use mmio::{Mmio, open_mmio};
pub use pci::{PciInterface, open_pci};
pub use pci_legacy::PciLegacy;
pub use pci_modern::PciModern;
#[cfg(feature = "vhost-user")]
pub use vhost_user::{VhostUser, VhostUserOptions};

/// Which interface a transport speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// PCI with virtio's vendor capabilities (VIRTIO 1.4 §4.1.4).
    PciModern,
    /// The legacy interface in I/O BAR 0 (§4.1.4.10).
    PciLegacy,
    /// MMIO version 2 (§4.2.2).
    Mmio,
    /// MMIO version 1 (§4.2.4).
    MmioLegacy,
    /// The vhost-user protocol, towards another process.
    VhostUser,
}

impl TransportKind {
    /// Whether it is a legacy interface (§1.3.1): no VERSION_1, no FEATURES_OK, the guest's byte order.
    pub const fn legacy(self) -> bool {
        matches!(self, Self::PciLegacy | Self::MmioLegacy)
    }

    /// Name as in addresses: `pci-modern`, `pci-legacy`, `mmio`, `mmio-legacy`, `vhost-user`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PciModern => "pci-modern",
            Self::PciLegacy => "pci-legacy",
            Self::Mmio => "mmio",
            Self::MmioLegacy => "mmio-legacy",
            Self::VhostUser => "vhost-user",
        }
    }
}

impl Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a queue is set up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSetup {
    /// Queue size in descriptors, at most what [`Transport::queue_max_size`] answered.
    pub size: u16,
    /// Device address of the descriptor area (descriptor table, or packed descriptor ring).
    pub descriptor_area: u64,
    /// Device address of the driver area (available ring, or driver event suppression).
    pub driver_area: u64,
    /// Device address of the device area (used ring, or device event suppression).
    pub device_area: u64,
    /// Interrupt vector for used buffer notifications; `None` where the transport has none, or for a queue
    /// that is polled.
    pub vector: Option<u16>,
}

/// What caused an interrupt: the bits of the ISR status that have a meaning (§4.1.4.5, §4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterruptCause {
    /// A queue has used buffers.
    pub queue: bool,
    /// The configuration changed, or the device set DEVICE_NEEDS_RESET.
    pub config: bool,
}

impl InterruptCause {
    fn from_bits(bits: u8) -> Self {
        Self { queue: bits & isr::QUEUE != 0, config: bits & isr::CONFIG != 0 }
    }
}

/// How the interrupts of a device arrive.
#[derive(Debug, Clone)]
pub enum Interrupts {
    /// One event per MSI-X vector, in order of vector. Events are mapped to vectors by
    /// [`Transport::set_config_vector`] and [`QueueSetup::vector`]; [`Transport::isr`] is not needed.
    Vectors(Vec<EventFd>),
    /// One event for everything. After it, [`Transport::isr`] tells the cause, and
    /// [`Transport::interrupt_handled`] lets the next one come.
    Line(EventFd),
}

/// A shared memory region of a device (§2.10).
#[derive(Debug, Clone)]
pub struct SharedMemory {
    /// What it lies in: a BAR, or the region itself.
    pub registers: Arc<dyn RegisterSpace>,
    /// Offset of the region in `registers`, in bytes.
    pub offset: u64,
    /// Length of the region in bytes; `offset + len` is at most the size of `registers`.
    pub len: u64,
}

/// One device behind one interface.
///
/// May be used from several threads: sequences that select a queue or a feature word and then access it are
/// atomic towards each other. The order of the calls is the caller's concern (§3.1.1).
///
/// Each call may fail with what the bus gives, and with [`crate::Error::DeviceGone`] where a register reads
/// all ones and the device proves to be gone. No call waits longer than its deadline, and only those that
/// take one wait at all.
pub trait Transport: Send + Sync + Debug {
    /// Which interface it is.
    fn kind(&self) -> TransportKind;

    /// Where the device is, for errors.
    fn address(&self) -> &str;

    /// Type of the device (§5).
    fn device_type(&self) -> DeviceType;

    /// Whether the interface is a legacy one.
    fn legacy(&self) -> bool {
        self.kind().legacy()
    }

    /// Byte order of rings, of what lies in buffers, and of the device configuration. The values that
    /// [`Transport::read_config`] gives are in it already.
    fn byte_order(&self) -> ByteOrder;

    /// How the memory of a split ring has to lie.
    fn ring_layout(&self) -> RingLayout;

    /// Whether the device fixes the size of each queue, so that no smaller one can be had (legacy PCI).
    fn queue_size_fixed(&self) -> bool {
        false
    }

    /// Whom the ring's barriers and the doorbell order memory for: the device where ORDER_PLATFORM was
    /// accepted (§6), else another CPU.
    fn barrier(&self) -> Barrier;

    /// How memory is made reachable for the device.
    fn dma(&self) -> Arc<dyn DmaMapper>;

    /// Fails with [`crate::Error::DeviceGone`] where the device is not there any more: the PCI vendor id or
    /// MMIO's magic value does not read as it did (faults C2, C30).
    fn present(&self) -> Result<()>;

    /// The feature bits that the device offers.
    fn device_features(&self) -> Result<Features>;

    /// The feature bits that this interface can carry, whatever the device offers: a bit outside must not be
    /// accepted.
    fn supported_features(&self) -> Features;

    /// Tells the device which bits the driver accepts; once per reset. It also decides how queues are
    /// notified ([`Transport::doorbell`]) and whether [`Transport::reset_queue`] can be used.
    fn set_driver_features(&self, accepted: Features) -> Result<()>;

    /// The device status (§2.1).
    ///
    /// Fails with [`crate::Error::DeviceGone`] where it reads all ones (C2), and where it reads 0 while the
    /// device is not present (C30).
    fn status(&self) -> Result<Status>;

    /// Writes the device status; not 0, which is [`Transport::reset`] ([`crate::Error::Misuse`]).
    fn set_status(&self, status: Status) -> Result<()>;

    /// Resets the device (§2.4) and waits until it reads status 0 while present, or until its bus has proof that the
    /// device has ended ([`crate::bus::PciFunction::ended`]).
    ///
    /// Fails with [`crate::Error::ResetTimeout`] at the deadline and with [`crate::Error::DeviceGone`]; after
    /// both, the device may still use every piece of memory that it was given.
    fn reset(&self, deadline: Deadline) -> Result<()>;

    /// Length of the device configuration in bytes; 0 where there is none.
    fn config_len(&self) -> u64;

    /// Reads `width` bytes (1, 2, 4 or 8) of the device configuration as one access; 8 are two accesses of 4,
    /// which [`Transport::config_generation`] must frame.
    ///
    /// Fails with [`crate::Error::ConfigOutOfRange`] (C14), and with [`crate::Error::Misuse`] for another
    /// width, or an offset that is no multiple of it (of 4 for a width of 8).
    fn read_config(&self, offset: u64, width: u8) -> Result<u64>;

    /// Writes to the device configuration, under the rules of [`Transport::read_config`].
    fn write_config(&self, offset: u64, width: u8, value: u64) -> Result<()>;

    /// The configuration generation (§2.5.1); `None` for a legacy interface, where two equal reads stand for
    /// it (§2.5.4).
    fn config_generation(&self) -> Result<Option<u32>>;

    /// Number of queues that the device says it has, administration queues not counted; a hint, and `None`
    /// where the interface does not tell.
    fn queue_count(&self) -> Result<Option<u16>>;

    /// Largest size of queue `index`: 1 to 32768, and a power of two unless RING_PACKED was accepted.
    ///
    /// Fails with [`crate::Error::QueueUnavailable`] where there is no such queue, where it is in use
    /// already, or where its size breaks the rules in a way that a smaller size does not mend (C7).
    fn queue_max_size(&self, index: u16) -> Result<u16>;

    /// Sets queue `index` up and enables it, reading back what can be read (C9, C12, C23).
    ///
    /// Fails with [`crate::Error::QueueUnavailable`] where the device does not take it; with
    /// [`crate::Error::VectorRefused`] where only the vector was refused: nothing was enabled then, and the
    /// call may be repeated with another vector or none; with [`crate::Error::MemoryLimit`] where the
    /// addresses do not fit the registers (C24); with [`crate::Error::Misuse`] where they break the layout.
    fn set_queue(&self, index: u16, setup: &QueueSetup) -> Result<()>;

    /// Whether queue `index` reads as enabled.
    fn queue_enabled(&self, index: u16) -> Result<bool>;

    /// Resets queue `index` (RING_RESET, §2.6.1) and waits for the device to say so.
    ///
    /// Fails with [`crate::Error::Unsupported`] where RING_RESET was not accepted, or where the device says
    /// that it is done but the queue still reads enabled (C28); with [`crate::Error::Timeout`] at the
    /// deadline. Success stops new requests only: what was in flight may still be written to.
    fn reset_queue(&self, index: u16, deadline: Deadline) -> Result<()>;

    /// Takes queue `index` from the device without RING_RESET, where the interface can: MMIO (§4.2.2.2) and
    /// legacy PCI. [`crate::Error::Unsupported`] for PCI modern, whose queues end with a reset of the device.
    fn stop_queue(&self, index: u16) -> Result<()>;

    /// How queue `index` is notified, resolved once: 2 bytes wide, or 4 with NOTIFICATION_DATA; always 4 for
    /// MMIO. Queues may share one address.
    ///
    /// Fails with [`crate::Error::QueueUnavailable`] where the address lies outside of what the device gave
    /// for notifications, or is not aligned (C10).
    fn doorbell(&self, index: u16) -> Result<Doorbell>;

    /// The 16-bit value that names queue `index` in a notification: its index, or what the device supplied
    /// with NOTIF_CONFIG_DATA (§4.1.5.2). With NOTIFICATION_DATA it is the lower half of the value.
    fn notification_id(&self, index: u16) -> Result<u16>;

    /// Switches interrupts on: with up to `vectors` MSI-X vectors where there are any, else (and for
    /// `vectors` 0) with one line. Fewer vectors than asked for may come. To be called after a reset, before
    /// queues are set up; on legacy PCI the device configuration moves with it.
    fn enable_interrupts(&self, vectors: u16) -> Result<Interrupts>;

    /// Switches interrupts off.
    fn disable_interrupts(&self) -> Result<()>;

    /// Maps configuration change notifications to a vector (`None`: to no vector).
    ///
    /// Fails with [`crate::Error::VectorRefused`] where the device reads NO_VECTOR back (C12), and with
    /// [`crate::Error::Misuse`] for a vector that is not enabled.
    fn set_config_vector(&self, vector: Option<u16>) -> Result<()>;

    /// Reads why a line interrupt came, and acknowledges it: causes that arise after this call raise the
    /// interrupt again. Undefined bits are dropped (C11).
    fn isr(&self) -> Result<InterruptCause>;

    /// Lets a line interrupt come again after it was handled; without effect with vectors.
    fn interrupt_handled(&self) -> Result<()>;

    /// Shared memory region `id` (§2.10), `None` where the device has none of that id. A region that lies
    /// outside its BAR fails here and nowhere else (C25).
    fn shared_memory(&self, id: u8) -> Result<Option<SharedMemory>>;

    /// Whether a reset ends the device's use of memory only where every queue had given back all its chains
    /// before: what was in flight may still be written to then. So it is behind a socket, unless the process at
    /// the other end is proven dead.
    fn needs_draining(&self) -> bool {
        false
    }

    /// A descriptor that is readable while there is something to [`attend`](Transport::attend) to. `None` where all
    /// events are interrupts. It changes with a reset.
    fn channel(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    /// Serves what the device end asks for beside its queues, without waiting; answers whether the configuration
    /// changed. [`crate::Error::DeviceGone`] where the connection has ended.
    fn attend(&self) -> Result<bool> {
        Ok(false)
    }

    /// The device is not used any more: ends the connection, where there is one.
    fn close(&self) {}
}

/// Passes a field of the configuration on, after a look whether the device is there where a missing one reads the
/// same: nothing but zeroes or ones (faults C2, C30).
fn believe_field(value: u64, width: u8, present: impl FnOnce() -> Result<()>) -> Result<u64> {
    let ones = u64::MAX.checked_shr(64u32.saturating_sub(u32::from(width).saturating_mul(8))).unwrap_or(0);
    if value == 0 || value == ones {
        present()?;
    }
    Ok(value)
}

/// Barriers that a device asks for with ORDER_PLATFORM (§6).
fn barrier_for(accepted: Features) -> Barrier {
    if accepted.contains(Features::ORDER_PLATFORM) { Barrier::Device } else { Barrier::Cpu }
}

/// What a status register of all ones means (fault C2).
fn gone() -> Error {
    Error::DeviceGone { what: "its status reads all ones" }
}

/// A reset of a device that is gone is done all the same where `ended` knows that nothing of it is left.
fn or_ended(reset: Result<()>, ended: impl FnOnce() -> bool) -> Result<()> {
    match reset {
        Err(error) if matches!(error.kind(), Error::DeviceGone { .. }) && ended() => Ok(()),
        reset => reset,
    }
}

/// Waits until `status` gives 0, the last step of a reset (§2.4.2; faults C1, P9).
fn reset_until(deadline: Deadline, mut status: impl FnMut() -> Result<u32>) -> Result<()> {
    let start = Instant::now();
    let mut last = 0;
    let confirmed = wait::poll(deadline, || {
        last = status()?;
        Ok((last == 0).then_some(()))
    })?;
    let after_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    confirmed.ok_or(Error::ResetTimeout { status: last as u8, after_ms })
}
