//! The legacy PCI interface (VIRTIO 1.4 §4.1.4.10, §4.1.5.1.3.1).

use alloc::sync::Arc;

use super::checks::{check_features, check_size, legacy_page, lock, unavailable, usable_size};
use super::pci::VirtioFunction;
use super::window::Window;
use super::{
    InterruptCause, Interrupts, QueueSetup, RingLayout, SharedMemory, Transport, TransportKind,
    believe_field, gone, or_ended, reset_until,
};
use crate::bus::{BarKind, Doorbell, PciFunction};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::mem::dma::DmaMapper;
use crate::spec::pci::{LEGACY_REVISION, config, legacy};
use crate::spec::{ByteOrder, DeviceType, PCI_DEVICE_ID_BASE, Status};
use crate::sync::Mutex;
use crate::{Error, Result};

/// A device behind the legacy PCI interface: registers in I/O BAR 0, one page number a queue.
#[derive(Debug)]
pub struct PciLegacy {
    pci: VirtioFunction,
    registers: Window,
    order: ByteOrder,
    /// Held over each sequence that selects a queue first.
    selected: Mutex<()>,
}

impl PciLegacy {
    /// Opens the legacy interface of a function, for a machine of byte order `order`. MSI-X is switched off,
    /// since the configuration lies elsewhere while it is on; nothing else is written.
    ///
    /// Fails as [`super::open_pci`] does.
    pub fn open(function: Arc<dyn PciFunction>, order: ByteOrder) -> Result<Self> {
        let address = Arc::clone(&function);
        Self::open_function(function, order).map_err(|error| error.at(address.address()))
    }

    fn open_function(function: Arc<dyn PciFunction>, order: ByteOrder) -> Result<Self> {
        let pci = VirtioFunction::identify(function)?;
        let revision = pci.function().config().read8(config::REVISION_ID)?;
        if pci.device_id() >= PCI_DEVICE_ID_BASE || revision != LEGACY_REVISION {
            return Err(Error::Unsupported { what: "the function has no legacy interface, by its ids" });
        }
        let bar = pci.function().bar(0)?.filter(|bar| bar.kind == BarKind::Io);
        let bar = bar.ok_or(Error::Unsupported { what: "a legacy interface without BAR 0 in I/O space" })?;
        let registers = Window::whole(bar.registers);
        let len = registers.len();
        if len < legacy::CONFIG {
            let width = legacy::CONFIG as u32;
            return Err(Error::RegisterOutOfRange { offset: 0, width, len });
        }
        pci.disable_interrupts()?;
        Ok(Self { pci, registers, order, selected: Mutex::new(()) })
    }

    /// The device configuration, which moves with MSI-X.
    fn config(&self) -> Window {
        self.registers.from(if self.pci.vectors() > 0 { legacy::CONFIG_MSIX } else { legacy::CONFIG })
    }

    fn select(&self, index: u16) -> Result<()> {
        self.registers.write16(legacy::QUEUE_SELECT, index)
    }

    fn page(&self) -> Result<u32> {
        self.pci.believe(self.registers.read32(legacy::QUEUE_ADDRESS)?)
    }

    /// Size of the selected queue, which is the device's to choose: one that cannot be used is not mended
    /// by a smaller one.
    fn size(&self, index: u16) -> Result<u16> {
        let size = self.pci.believe(self.registers.read16(legacy::QUEUE_SIZE)?)?;
        match usable_size(size.into(), false) {
            Some(usable) if usable == size => Ok(size),
            Some(_) => Err(unavailable(index, "its size is no power of two up to 32768")),
            None => Err(unavailable(index, "the device has no such queue")),
        }
    }

    fn check_unused(&self, index: u16) -> Result<()> {
        if self.page()? == 0 {
            Ok(())
        } else {
            Err(unavailable(index, "it is in use already: reset the device"))
        }
    }

    fn write_vector(&self, register: u64, vector: Option<u16>) -> Result<()> {
        let Some(value) = self.pci.vector_value(vector)? else { return Ok(()) };
        self.registers.write16(register, value)?;
        self.pci.check_vector(value, self.registers.read16(register)?)
    }
}

impl Transport for PciLegacy {
    fn kind(&self) -> TransportKind {
        TransportKind::PciLegacy
    }

    fn address(&self) -> &str {
        self.pci.function().address()
    }

    fn device_type(&self) -> DeviceType {
        self.pci.device_type()
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn ring_layout(&self) -> RingLayout {
        RingLayout::Legacy { align: legacy::PAGE }
    }

    fn queue_size_fixed(&self) -> bool {
        true
    }

    fn barrier(&self) -> Barrier {
        Barrier::Cpu
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        self.pci.function().dma()
    }

    fn present(&self) -> Result<()> {
        self.pci.present()
    }

    fn device_features(&self) -> Result<Features> {
        let word = self.pci.believe(self.registers.read32(legacy::DEVICE_FEATURES)?)?;
        Ok(Features::from_words([word, 0, 0, 0]))
    }

    fn supported_features(&self) -> Features {
        Features::LEGACY_MASK
    }

    fn set_driver_features(&self, accepted: Features) -> Result<()> {
        check_features(accepted, self.supported_features())?;
        let [word, ..] = accepted.words();
        self.registers.write32(legacy::DRIVER_FEATURES, word)
    }

    fn status(&self) -> Result<Status> {
        let status = self.registers.read8(legacy::DEVICE_STATUS)?;
        if status == u8::MAX {
            return Err(gone());
        }
        self.pci.believe(status).map(Status::from_bits_retain)
    }

    fn set_status(&self, status: Status) -> Result<()> {
        if status.is_empty() {
            return Err(Error::Misuse { what: "status 0 is a reset: call reset" });
        }
        self.registers.write8(legacy::DEVICE_STATUS, status.bits())
    }

    fn reset(&self, deadline: Deadline) -> Result<()> {
        let reset = self
            .registers
            .write8(legacy::DEVICE_STATUS, 0)
            .and_then(|()| reset_until(deadline, || self.status().map(|status| status.bits().into())));
        or_ended(reset, || self.pci.function().ended(deadline))
    }

    fn config_len(&self) -> u64 {
        self.config().len()
    }

    fn read_config(&self, offset: u64, width: u8) -> Result<u64> {
        let value = self.config().read_field(offset, width, self.order)?;
        believe_field(value, width, || self.pci.present())
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) -> Result<()> {
        self.config().write_field(offset, width, value, self.order)
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        Ok(None)
    }

    fn queue_count(&self) -> Result<Option<u16>> {
        Ok(None)
    }

    fn queue_max_size(&self, index: u16) -> Result<u16> {
        let _selected = lock(&self.selected);
        self.select(index)?;
        let size = self.size(index)?;
        self.check_unused(index)?;
        Ok(size)
    }

    fn set_queue(&self, index: u16, setup: &QueueSetup) -> Result<()> {
        let page = legacy_page(setup, legacy::PAGE)?;
        let _selected = lock(&self.selected);
        self.select(index)?;
        let size = self.size(index)?;
        check_size(index, setup.size, size, false)?;
        if setup.size != size {
            return Err(unavailable(index, "the device fixes its size: take that one"));
        }
        self.check_unused(index)?;
        self.write_vector(legacy::QUEUE_MSIX_VECTOR, setup.vector)?;
        self.registers.write32(legacy::QUEUE_ADDRESS, page)?;
        if self.page()? != page {
            return Err(unavailable(index, "the device did not take its address"));
        }
        Ok(())
    }

    fn queue_enabled(&self, index: u16) -> Result<bool> {
        let _selected = lock(&self.selected);
        self.select(index)?;
        self.page().map(|page| page != 0)
    }

    fn reset_queue(&self, _index: u16, _deadline: Deadline) -> Result<()> {
        Err(Error::Unsupported { what: "a legacy interface has no RING_RESET: reset the device" })
    }

    fn stop_queue(&self, index: u16) -> Result<()> {
        let _selected = lock(&self.selected);
        self.select(index)?;
        self.registers.write32(legacy::QUEUE_ADDRESS, 0)?;
        if self.page()? == 0 { Ok(()) } else { Err(unavailable(index, "the device keeps it in use")) }
    }

    fn doorbell(&self, index: u16) -> Result<Doorbell> {
        let doorbell = self.registers.doorbell(legacy::QUEUE_NOTIFY, 2)?;
        doorbell.ok_or(unavailable(index, "the function has no register for notifications"))
    }

    fn notification_id(&self, index: u16) -> Result<u16> {
        Ok(index)
    }

    fn enable_interrupts(&self, vectors: u16) -> Result<Interrupts> {
        self.pci.enable_interrupts(vectors)
    }

    fn disable_interrupts(&self) -> Result<()> {
        self.pci.disable_interrupts()
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<()> {
        self.write_vector(legacy::CONFIG_MSIX_VECTOR, vector)
    }

    fn isr(&self) -> Result<InterruptCause> {
        let bits = self.registers.read8(legacy::ISR_STATUS)?;
        if bits == u8::MAX {
            self.pci.present()?;
        }
        Ok(InterruptCause::from_bits(bits))
    }

    fn interrupt_handled(&self) -> Result<()> {
        self.pci.interrupt_handled()
    }

    fn close(&self) {
        self.pci.function().release();
    }

    fn shared_memory(&self, _id: u8) -> Result<Option<SharedMemory>> {
        Ok(None)
    }
}
