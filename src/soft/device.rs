//! A software device: built, run, looked at.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use super::check::BrokenMust;
use super::core::Face;
use super::machine::{AtEnd, Machine, Run, Running};
use super::mmio::SoftMmio;
use super::model::DeviceModel;
use super::pci::SoftPci;
use super::plan::Plan;
use super::script::DeviceLie;
use crate::bus::{MmioSlot, PciFunction};
use crate::features::Features;
use crate::mem::dma::{DmaLimits, SoftDma};
use crate::spec::ByteOrder;
use crate::spec::pci::MAX_VECTORS;
use crate::{Error, Result};

/// Which registers a software device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interface {
    /// PCI with the modern structures (VIRTIO 1.4 §4.1.4).
    #[default]
    PciModern,
    /// PCI with the modern structures and the legacy registers, at the driver's choice.
    PciTransitional,
    /// PCI with the legacy registers only (§4.1.4.10).
    PciLegacy,
    /// MMIO version 2 (§4.2.2).
    Mmio,
    /// MMIO version 1 (§4.2.4).
    MmioLegacy,
}

impl Interface {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::PciModern, Self::PciTransitional, Self::PciLegacy, Self::Mmio, Self::MmioLegacy];

    /// Name as in addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PciModern => "pci-modern",
            Self::PciTransitional => "pci-transitional",
            Self::PciLegacy => "pci-legacy",
            Self::Mmio => "mmio",
            Self::MmioLegacy => "mmio-legacy",
        }
    }

    /// Whether it is a PCI function (else an MMIO slot).
    pub const fn is_pci(self) -> bool {
        matches!(self, Self::PciModern | Self::PciTransitional | Self::PciLegacy)
    }

    const fn legacy(self) -> bool {
        matches!(self, Self::PciTransitional | Self::PciLegacy | Self::MmioLegacy)
    }

    const fn modern(self) -> bool {
        matches!(self, Self::PciTransitional | Self::PciModern | Self::Mmio)
    }
}

/// What a software device did and saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The first rule for drivers that the driver broke, where the device was checked.
    pub broken: Option<BrokenMust>,
    /// Chains used since the device was made.
    pub chains: u64,
    /// Notifications received since then.
    pub notifications: u64,
    /// Interrupts sent for used chains since then.
    pub interrupts: u64,
    /// Accesses to its registers since it was made, by whatever driver: reads, writes, notifications.
    pub accesses: u64,
    /// The device status.
    pub status: u8,
    /// The features that the driver accepted.
    pub accepted: Features,
}

/// Makes a [`SoftDevice`].
#[derive(Debug)]
pub struct SoftDeviceBuilder {
    plan: Plan,
    interface: Interface,
    run: Run,
    order: ByteOrder,
    vectors: Option<u16>,
    address: Option<String>,
    dma: Option<Arc<SoftDma>>,
    at_end: AtEnd,
}

impl SoftDeviceBuilder {
    /// Its registers; modern PCI unless told.
    #[must_use]
    pub fn interface(mut self, interface: Interface) -> Self {
        self.interface = interface;
        self
    }

    /// How it is run; by a thread unless told.
    #[must_use]
    pub fn run(mut self, run: Run) -> Self {
        self.run = run;
        self
    }

    /// Lies that it tells from the start.
    #[must_use]
    pub fn lies(mut self, lies: impl IntoIterator<Item = DeviceLie>) -> Self {
        self.plan.lies.extend(lies);
        self
    }

    /// Whether the driver is checked ([`Report::broken`]).
    ///
    /// Without a word here the driver is not checked, unless the environment has `VIRTIO_SOFT_CHECK=abort`, which is
    /// for runs of tests: the first rule that a driver breaks then ends the process, and is named on its standard
    /// error.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.plan.checked = Some(checked);
        self
    }

    /// Calls `look` with what the device did and saw in all, when the last handle of it is gone.
    #[must_use]
    pub fn at_end(mut self, look: impl FnOnce(&Report) + Send + Sync + 'static) -> Self {
        self.at_end = AtEnd(Some(Box::new(look)));
        self
    }

    /// Byte order of the machine, which the legacy interface has; little-endian unless told.
    #[must_use]
    pub fn byte_order(mut self, order: ByteOrder) -> Self {
        self.order = order;
        self
    }

    /// Features to offer beyond what the type, the rings and the interface bring.
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

    /// Number of MSI-X vectors of a PCI function (at most 2048); unless told one for each of up to 63 queues
    /// and one for the configuration.
    #[must_use]
    pub fn vectors(mut self, vectors: u16) -> Self {
        self.vectors = Some(vectors.min(MAX_VECTORS));
        self
    }

    /// Where it says that it is, for errors.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Device addresses of its memory start at `base` (C24).
    #[must_use]
    pub fn memory_at(mut self, base: u64) -> Self {
        self.dma = Some(Arc::new(SoftDma::with_limits(base, DmaLimits::default())));
        self
    }

    /// The device, running.
    ///
    /// Fails with [`Error::Misuse`] for a type that has no transitional PCI id behind such an interface, and
    /// with what the operating system gives.
    pub fn build(self) -> Result<SoftDevice> {
        let device_type = self.plan.model.device_type();
        let pci = self.interface.is_pci();
        if pci && self.interface.legacy() && device_type.transitional_pci_device_id().is_none() {
            return Err(Error::Misuse { what: "a device of this type has no legacy PCI interface" });
        }
        let queues = self.plan.model.queues();
        let vectors = self.vectors.unwrap_or(queues.min(63).saturating_add(1));
        let dma = self.dma.unwrap_or_default();
        let address = self.address.unwrap_or_else(|| format!("soft:{device_type}"));
        let sides = (self.interface.modern(), self.interface.legacy());
        let core = self.plan.core(sides, self.order, dma.view(), if pci { vectors } else { 0 }, &address)?;
        let running = Running::start(Machine::new(address, dma, core, self.run)?, self.at_end)?;
        Ok(SoftDevice { running, interface: self.interface })
    }
}

/// A device in software, behind the registers of an interface.
///
/// What it gives out ([`SoftDevice::pci`], [`SoftDevice::mmio`]) keeps it running; this handle need not be
/// kept, but for looking at it and telling it to lie. Any thread may use it.
///
/// ```
/// use virtio::soft::{Entropy, Interface, Run, SoftDevice};
/// use virtio::spec::{ByteOrder, DeviceType};
/// use virtio::transport::open_mmio;
///
/// # fn main() -> virtio::Result {
/// let soft = SoftDevice::builder(Entropy::new(1)).interface(Interface::Mmio).run(Run::Stepped).build()?;
/// let transport = open_mmio(soft.mmio()?, ByteOrder::Little)?;
/// assert_eq!(transport.device_type(), DeviceType::ENTROPY);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SoftDevice {
    pub(super) running: Arc<Running>,
    interface: Interface,
}

impl SoftDevice {
    /// Starts with a model of what the device does.
    pub fn builder(model: impl DeviceModel + 'static) -> SoftDeviceBuilder {
        Self::builder_boxed(Box::new(model))
    }

    /// As [`SoftDevice::builder`].
    pub fn builder_boxed(model: Box<dyn DeviceModel>) -> SoftDeviceBuilder {
        SoftDeviceBuilder {
            plan: Plan::new(model),
            interface: Interface::default(),
            run: Run::default(),
            order: ByteOrder::Little,
            vectors: None,
            address: None,
            dma: None,
            at_end: AtEnd::default(),
        }
    }

    /// Its registers.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// The device as a PCI function; [`Error::Misuse`] for one in an MMIO slot.
    pub fn pci(&self) -> Result<Arc<dyn PciFunction>> {
        if !self.interface.is_pci() {
            return Err(Error::Misuse { what: "this software device is no PCI function" });
        }
        Ok(Arc::new(SoftPci::new(&self.running)))
    }

    /// The device as an MMIO slot; [`Error::Misuse`] for a PCI function.
    pub fn mmio(&self) -> Result<Arc<dyn MmioSlot>> {
        let face = match self.interface {
            Interface::Mmio => Face::Mmio,
            Interface::MmioLegacy => Face::MmioLegacy,
            _ => return Err(Error::Misuse { what: "this software device is in no MMIO slot" }),
        };
        Ok(Arc::new(SoftMmio::new(&self.running, face)))
    }

    /// Byte order of its machine, which its legacy interface has.
    pub fn byte_order(&self) -> ByteOrder {
        self.running.machine.core().make.order
    }

    /// Does what can be done for one chain of a notified queue; answers whether a chain was used.
    /// [`Error::Misuse`] for a device that is not [`Run::Stepped`].
    pub fn step(&self) -> Result<bool> {
        self.running.machine.step()
    }

    /// Steps until nothing is left to do; answers how many chains were used.
    pub fn settle(&self) -> Result<u64> {
        let mut chains = 0u64;
        while self.step()? {
            chains = chains.saturating_add(1);
        }
        Ok(chains)
    }

    /// Tells a lie from now on; see [`DeviceLie`] for when each shows. A ring's own lie is told at once, once and
    /// with an interrupt, where the device is running and the queue in use, whatever its number of a chain.
    pub fn tell(&self, lie: DeviceLie) -> Result<()> {
        self.running.machine.core().tell(lie)
    }

    /// Tells no lie any more. What was written to memory stays.
    pub fn be_honest(&self) -> Result<()> {
        self.running.machine.be_honest()
    }

    /// Changes the configuration space: `bytes` as they lie there, from `offset` on, with a notification (C16).
    pub fn change_config(&self, offset: u16, bytes: &[u8]) -> Result<()> {
        self.running.machine.core().change_config(offset, bytes)
    }

    /// What it did and saw.
    pub fn report(&self) -> Report {
        self.running.machine.report()
    }

    /// The address space that its driver maps memory into.
    pub fn dma(&self) -> &Arc<SoftDma> {
        &self.running.machine.dma
    }
}
