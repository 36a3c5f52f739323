//! How a device is reached: registers, interrupts and DMA mapping.
//!
//! A *bus* moves bytes; what the registers mean is the business of [`crate::transport`]. Each transport is
//! written once against the traits of this module and runs over every bus: software devices today, and
//! whatever implements them later.
//!
//! Numbers cross these traits as values: a register that the specification gives as little-endian is read
//! as the number it stands for, on every host. A legacy device of a big-endian machine is the transport's
//! concern.
//!
//! To bring a bus of your own, implement [`PciFunction`] or [`MmioSlot`] with the [`RegisterSpace`]s and the
//! [`DmaMapper`] behind it, and give it to [`crate::transport::open_pci`] or [`crate::transport::open_mmio`]; the
//! software devices do nothing else. No thread of the library waits for the events that a bus hands out: whoever
//! waits for a queue does.
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
use core::fmt::Debug;

use crate::Result;
use crate::event::{Deadline, EventFd};
use crate::mem::dma::DmaMapper;

mod doorbell;
#[cfg(feature = "vhost-user")]
pub(crate) mod endpoint;
#[cfg(any(feature = "vhost-user", all(feature = "qtest", not(loom))))]
pub(crate) mod peer;
#[cfg(feature = "qtest")]
pub mod qtest;
#[cfg(feature = "vhost-user")]
pub(crate) mod signal;
#[cfg(feature = "vhost-user")]
pub(crate) mod socket;

pub use doorbell::Doorbell;

/// A block of registers: a BAR, a PCI configuration space, an MMIO slot.
///
/// Each access has the width of the register (VIRTIO 1.4 §4.1.3.1, §4.2.2.2) and fails where it is not
/// naturally aligned or not wholly inside the block ([`crate::Error::RegisterOutOfRange`]). Accesses of one
/// thread reach the device in program order. May be used from several threads.
pub trait RegisterSpace: Send + Sync + Debug {
    /// Length of the block in bytes.
    fn size(&self) -> u64;
    /// Reads the byte at `offset`.
    fn read8(&self, offset: u64) -> Result<u8>;
    /// Reads the 16-bit register at `offset`.
    fn read16(&self, offset: u64) -> Result<u16>;
    /// Reads the 32-bit register at `offset`.
    fn read32(&self, offset: u64) -> Result<u32>;
    /// Writes the byte at `offset`.
    fn write8(&self, offset: u64, value: u8) -> Result<()>;
    /// Writes the 16-bit register at `offset`.
    fn write16(&self, offset: u64, value: u16) -> Result<()>;
    /// Writes the 32-bit register at `offset`.
    fn write32(&self, offset: u64, value: u32) -> Result<()>;
    /// The fastest way to write the register at `offset` again and again, `width` bytes (2 or 4) wide.
    fn doorbell(&self, offset: u64, width: u8) -> Result<Doorbell>;
}

/// Whether a BAR is reached by memory or by port accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Memory space, of 32 or 64 bits.
    Memory,
    /// I/O space.
    Io,
}

/// One base address register, sized, placed and enabled by the bus.
#[derive(Debug, Clone)]
pub struct Bar {
    /// How it is reached.
    pub kind: BarKind,
    /// Its registers; their [`RegisterSpace::size`] is the length of the BAR.
    pub registers: Arc<dyn RegisterSpace>,
}

/// A PCI function (VIRTIO 1.4 §4.1).
pub trait PciFunction: Send + Sync + Debug {
    /// Where it is, for errors.
    fn address(&self) -> &str;
    /// Its configuration space, 256 or 4,096 bytes.
    fn config(&self) -> &dyn RegisterSpace;
    /// Base address register `index` (0 to 5), or `None` where it is not implemented.
    fn bar(&self, index: u8) -> Result<Option<Bar>>;
    /// Number of MSI-X vectors, 0 where the function has none.
    fn msix_vectors(&self) -> u16;
    /// Switches MSI-X on with `count` vectors, each signalling an event of its own; `0` switches it off.
    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>>;
    /// Switches the pin interrupt on; the event is signalled each time the line goes up.
    /// [`PciFunction::unmask_intx`] must follow each handled interrupt.
    fn enable_intx(&self) -> Result<EventFd>;
    /// Lets the pin interrupt come again.
    fn unmask_intx(&self) -> Result<()>;
    /// How memory is made reachable for this function.
    fn dma(&self) -> Arc<dyn DmaMapper>;

    /// Waits for a proof that the device has ended for good, so that nothing of it reads or writes memory any more,
    /// at most until `deadline`. `false` where there is none: the end of a connection is not enough.
    fn ended(&self, _deadline: Deadline) -> bool {
        false
    }

    /// The device is not used any more: whoever comes next may have it. What the bus gave out answers as before.
    fn release(&self) {}
}

/// An MMIO slot (VIRTIO 1.4 §4.2).
pub trait MmioSlot: Send + Sync + Debug {
    /// Where it is, for errors.
    fn address(&self) -> &str;
    /// Its register block, control registers first, configuration space from 0x100.
    fn registers(&self) -> Arc<dyn RegisterSpace>;
    /// Switches its interrupt on; the event is signalled each time the line goes up.
    fn enable_interrupt(&self) -> Result<EventFd>;
    /// Lets the interrupt come again after it was handled and acknowledged.
    fn unmask_interrupt(&self) -> Result<()>;
    /// How memory is made reachable for this device.
    fn dma(&self) -> Arc<dyn DmaMapper>;
    /// A shared memory region of the device, by the physical address and length that its registers told
    /// (VIRTIO 1.4 §2.10); `None` where the bus cannot reach it.
    fn shared_memory(&self, address: u64, length: u64) -> Result<Option<Arc<dyn RegisterSpace>>>;

    /// Waits for a proof that the device has ended for good, so that nothing of it reads or writes memory any more,
    /// at most until `deadline`. `false` where there is none: the end of a connection is not enough.
    fn ended(&self, _deadline: Deadline) -> bool {
        false
    }

    /// The device is not used any more: whoever comes next may have it. What the bus gave out answers as before.
    fn release(&self) {}
}
