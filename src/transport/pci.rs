//! What both PCI interfaces share: identification, presence, interrupts, and the choice between them.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, Ordering};

use super::{Interrupts, PciLegacy, PciModern, Transport};
use crate::bus::PciFunction;
use crate::spec::pci::{MAX_VECTORS, NO_VECTOR, config};
use crate::spec::{ByteOrder, DeviceType, PCI_VENDOR_ID};
use crate::{Error, Result};

/// Which interface of a PCI function to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PciInterface {
    /// The modern one where the function has it, else the legacy one (VIRTIO 1.4 §4.1.5.1.1.1).
    #[default]
    Any,
    /// The modern one only.
    Modern,
    /// The legacy one only.
    Legacy,
}

/// Opens a virtio PCI function. `order` is the byte order of the machine that a legacy device belongs to;
/// the modern interface does not use it. Nothing is written to the device.
///
/// Fails with [`Error::NotFound`] where the ids are no virtio device's, with [`Error::BadCapability`] where
/// the function's structures cannot be used, with [`Error::Unsupported`] where it lacks the interface, and
/// with [`Error::DeviceGone`]; always with the address ([`Error::At`]).
pub fn open_pci(
    function: Arc<dyn PciFunction>,
    interface: PciInterface,
    order: ByteOrder,
) -> Result<Arc<dyn Transport>> {
    if interface != PciInterface::Legacy {
        if let Some(modern) = PciModern::find(Arc::clone(&function))? {
            return Ok(Arc::new(modern));
        }
        if interface == PciInterface::Modern {
            let what = "the function has no virtio capability, so only a legacy interface";
            return Err(Error::Unsupported { what }.at(function.address()));
        }
    }
    Ok(Arc::new(PciLegacy::open(function, order)?))
}

/// A PCI function that was found to be a virtio device.
#[derive(Debug)]
pub(super) struct VirtioFunction {
    function: Arc<dyn PciFunction>,
    device_id: u16,
    device_type: DeviceType,
    /// Number of enabled MSI-X vectors, 0 while MSI-X is off.
    vectors: AtomicU16,
}

impl VirtioFunction {
    pub(super) fn identify(function: Arc<dyn PciFunction>) -> Result<Self> {
        let space = function.config();
        let vendor = space.read16(config::VENDOR_ID)?;
        if vendor == u16::MAX {
            return Err(Error::DeviceGone { what: "its PCI vendor id reads all ones" });
        }
        let device_id = space.read16(config::DEVICE_ID)?;
        let subsystem = space.read16(config::SUBSYSTEM_ID)?;
        let device_type = DeviceType::from_pci_ids(vendor, device_id, subsystem);
        let device_type = device_type.ok_or_else(|| Error::NotFound {
            why: format!("PCI id {vendor:04x}:{device_id:04x} is no virtio device's").into(),
        })?;
        Ok(Self { function, device_id, device_type, vectors: AtomicU16::new(0) })
    }

    pub(super) fn function(&self) -> &Arc<dyn PciFunction> {
        &self.function
    }

    pub(super) fn device_id(&self) -> u16 {
        self.device_id
    }

    pub(super) fn device_type(&self) -> DeviceType {
        self.device_type
    }

    /// A removed device's configuration space reads all ones, while its memory BAR was measured to read 0,
    /// and reads all ones elsewhere: neither value proves anything without the vendor id (faults C2, C30).
    pub(super) fn present(&self) -> Result<()> {
        if self.function.config().read16(config::VENDOR_ID)? == PCI_VENDOR_ID {
            return Ok(());
        }
        Err(Error::DeviceGone { what: "its PCI vendor id does not read 0x1af4 any more" })
    }

    /// Passes a register's value on, after a look at the vendor id where a missing device reads the same.
    pub(super) fn believe<T: Copy + Into<u32>>(&self, value: T) -> Result<T> {
        let unused = size_of::<u32>().saturating_sub(size_of::<T>()).saturating_mul(8);
        let missing = u32::MAX.checked_shr(unused as u32).unwrap_or(0);
        let bits: u32 = value.into();
        if bits == 0 || bits == missing {
            self.present()?;
        }
        Ok(value)
    }

    /// Number of enabled MSI-X vectors, 0 while MSI-X is off.
    pub(super) fn vectors(&self) -> u16 {
        self.vectors.load(Ordering::Relaxed)
    }

    pub(super) fn enable_interrupts(&self, wanted: u16) -> Result<Interrupts> {
        let count = wanted.min(self.function.msix_vectors()).min(MAX_VECTORS);
        if count > 0 {
            let events = self.function.enable_msix(count)?;
            let enabled = u16::try_from(events.len()).unwrap_or(u16::MAX).min(MAX_VECTORS);
            self.vectors.store(enabled, Ordering::Relaxed);
            if enabled > 0 {
                return Ok(Interrupts::Vectors(events));
            }
        }
        self.disable_interrupts()?;
        self.function.enable_intx().map(Interrupts::Line)
    }

    /// Switches MSI-X off. The line stays silent from its next interrupt on, since nobody unmasks it.
    pub(super) fn disable_interrupts(&self) -> Result<()> {
        if self.function.msix_vectors() > 0 {
            self.function.enable_msix(0)?;
        }
        self.vectors.store(0, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn interrupt_handled(&self) -> Result<()> {
        if self.vectors() > 0 { Ok(()) } else { self.function.unmask_intx() }
    }

    /// What to write to a vector register for `vector`; `None` where there is no such register now.
    pub(super) fn vector_value(&self, vector: Option<u16>) -> Result<Option<u16>> {
        match (vector, self.vectors()) {
            (None, 0) => Ok(None),
            (None, _) => Ok(Some(NO_VECTOR)),
            (Some(vector), enabled) if vector < enabled => Ok(Some(vector)),
            _ => Err(Error::Misuse { what: "that interrupt vector was not enabled" }),
        }
    }

    /// Checks what a vector register reads after `wrote` was written to it (§4.1.5.1.2, fault C12).
    pub(super) fn check_vector(&self, wrote: u16, read: u16) -> Result<()> {
        if wrote == read || wrote == NO_VECTOR {
            return Ok(());
        }
        self.believe(read)?;
        Err(Error::VectorRefused { vector: wrote })
    }
}
