//! MMIO, versions 1 and 2 (VIRTIO 1.4 §4.2).

use alloc::sync::Arc;

use super::checks::{check_areas, check_features, check_size, legacy_page, lock, unavailable, usable_size};
use super::wait::poll;
use super::window::Window;
use super::{
    InterruptCause, Interrupts, QueueSetup, RingLayout, SharedMemory, Transport, TransportKind, barrier_for,
    believe_field, gone, or_ended, reset_until,
};
use crate::bus::{Doorbell, MmioSlot};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::mem::dma::DmaMapper;
use crate::spec::mmio::*;
use crate::spec::{ByteOrder, DeviceType, Status, pci};
use crate::sync::Mutex;
use crate::{Error, Result};

/// Page size and alignment that a version 1 device is told: the page size of the machines that it knows.
const PAGE: u32 = 4096;

/// A device in an MMIO slot, of either version.
#[derive(Debug)]
pub struct Mmio {
    slot: Arc<dyn MmioSlot>,
    registers: Window,
    config: Window,
    device_type: DeviceType,
    legacy: bool,
    order: ByteOrder,
    state: Mutex<State>,
}

/// Held over each sequence that selects something first.
#[derive(Debug, Default)]
struct State {
    accepted: Features,
    /// Version 1: whether the device was told the page size since its reset.
    page_size_told: bool,
}

impl State {
    fn packed(&self) -> bool {
        self.accepted.contains(Features::RING_PACKED)
    }
}

/// Opens the device in an MMIO slot. `order` is the byte order of the machine that a version 1 device belongs
/// to; version 2 does not use it. Nothing is written to the device.
///
/// Fails with [`Error::BadMagic`], [`Error::BadVersion`] and, for an empty slot, [`Error::NoDevice`]; always
/// with the address ([`Error::At`]).
pub fn open_mmio(slot: Arc<dyn MmioSlot>, order: ByteOrder) -> Result<Arc<dyn Transport>> {
    Mmio::open(slot, order).map(|device| Arc::new(device) as Arc<dyn Transport>)
}

impl Mmio {
    /// Opens the device in an MMIO slot, as [`open_mmio`] does.
    pub fn open(slot: Arc<dyn MmioSlot>, order: ByteOrder) -> Result<Self> {
        let address = Arc::clone(&slot);
        Self::open_slot(slot, order).map_err(|error| error.at(address.address()))
    }

    /// Reads the three identifying registers in order, none after one that does not fit (§4.2.3.1.1).
    fn open_slot(slot: Arc<dyn MmioSlot>, order: ByteOrder) -> Result<Self> {
        let registers = Window::whole(slot.registers());
        match registers.read32(MAGIC_VALUE)? {
            MAGIC => {}
            found => return Err(Error::BadMagic { found }),
        }
        let legacy = match registers.read32(VERSION)? {
            VERSION_LEGACY => true,
            VERSION_MODERN => false,
            found => return Err(Error::BadVersion { found }),
        };
        let device_type = match registers.read32(DEVICE_ID)? {
            0 => return Err(Error::NoDevice),
            id => DeviceType(id),
        };
        let order = if legacy { order } else { ByteOrder::Little };
        let config = registers.from(CONFIG);
        Ok(Self { slot, registers, config, device_type, legacy, order, state: Mutex::default() })
    }

    /// Passes a register's value on, after a look at the magic value where a missing device reads the same.
    fn believe(&self, value: u32) -> Result<u32> {
        if value == 0 || value == u32::MAX {
            self.present()?;
        }
        Ok(value)
    }

    fn read(&self, register: u64) -> Result<u32> {
        self.believe(self.registers.read32(register)?)
    }

    fn select(&self, index: u16) -> Result<()> {
        self.registers.write32(QUEUE_SEL, index.into())
    }

    /// The register that tells whether the selected queue is in use.
    fn in_use(&self) -> Result<bool> {
        self.read(if self.legacy { QUEUE_PFN } else { QUEUE_READY }).map(|value| value != 0)
    }

    /// Largest size of the selected queue; not to be read while it is in use (§4.2.2.2, §4.2.4).
    fn max_size(&self, state: &State, index: u16) -> Result<u16> {
        if self.in_use()? {
            return Err(unavailable(index, "it is in use already: reset the device"));
        }
        let size = self.read(QUEUE_SIZE_MAX)?;
        usable_size(size, state.packed()).ok_or(unavailable(index, "the device has no such queue"))
    }

    fn set_areas(&self, index: u16, setup: &QueueSetup) -> Result<()> {
        self.registers.write32(QUEUE_SIZE, setup.size.into())?;
        self.registers.write64(QUEUE_DESC, setup.descriptor_area)?;
        self.registers.write64(QUEUE_DRIVER, setup.driver_area)?;
        self.registers.write64(QUEUE_DEVICE, setup.device_area)?;
        self.registers.write32(QUEUE_READY, 1)?;
        if self.read(QUEUE_READY)? != 1 {
            return Err(unavailable(index, "the device did not enable it"));
        }
        Ok(())
    }

    fn set_page(&self, state: &mut State, index: u16, size: u16, page: u32) -> Result<()> {
        if !state.page_size_told {
            self.registers.write32(GUEST_PAGE_SIZE, PAGE)?;
            state.page_size_told = true;
        }
        self.registers.write32(QUEUE_SIZE, size.into())?;
        self.registers.write32(QUEUE_ALIGN, PAGE)?;
        self.registers.write32(QUEUE_PFN, page)?;
        if self.read(QUEUE_PFN)? != page {
            return Err(unavailable(index, "the device did not take its address"));
        }
        Ok(())
    }

    /// Version 2's feature words. QEMU 7.2 answers words 2 and 3 with word 1: such an echo offers nothing
    /// above bit 63 (fault C27).
    fn feature_words(&self) -> Result<[u32; 4]> {
        let mut words = [0; 4];
        for (word, select) in words.iter_mut().zip(0..) {
            self.registers.write32(DEVICE_FEATURES_SEL, select)?;
            *word = self.read(DEVICE_FEATURES)?;
        }
        Ok(match words {
            [first, second, third, fourth] if second != 0 && third == second && fourth == second => {
                [first, second, 0, 0]
            }
            words => words,
        })
    }

    /// A shared memory region's place, as the registers tell it.
    fn shared_range(&self, id: u8) -> Result<Option<(u64, u64)>> {
        let _selected = lock(&self.state);
        self.registers.write32(SHM_SEL, id.into())?;
        let len = self.registers.read64(SHM_LEN)?;
        let base = self.registers.read64(SHM_BASE)?;
        let missing = len == 0 || len == u64::MAX || base == u64::MAX;
        if missing { self.present().map(|()| None) } else { Ok(Some((base, len))) }
    }
}

impl Transport for Mmio {
    fn kind(&self) -> TransportKind {
        if self.legacy { TransportKind::MmioLegacy } else { TransportKind::Mmio }
    }

    fn address(&self) -> &str {
        self.slot.address()
    }

    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn ring_layout(&self) -> RingLayout {
        if self.legacy { RingLayout::Legacy { align: PAGE } } else { RingLayout::Modern }
    }

    fn barrier(&self) -> Barrier {
        barrier_for(lock(&self.state).accepted)
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        self.slot.dma()
    }

    fn present(&self) -> Result<()> {
        if self.registers.read32(MAGIC_VALUE)? == MAGIC {
            return Ok(());
        }
        Err(Error::DeviceGone { what: "its magic value does not read \"virt\" any more" })
    }

    fn device_features(&self) -> Result<Features> {
        let _selected = lock(&self.state);
        if self.legacy {
            self.registers.write32(DEVICE_FEATURES_SEL, 0)?;
            return Ok(Features::from_words([self.read(DEVICE_FEATURES)?, 0, 0, 0]));
        }
        self.feature_words().map(Features::from_words)
    }

    fn supported_features(&self) -> Features {
        if self.legacy {
            return Features::LEGACY_MASK;
        }
        // §4.2.5, and §6 for SR_IOV; NOTIF_CONFIG_DATA has no register here.
        Features(u128::MAX) - (Features::ADMIN_VQ | Features::SR_IOV | Features::NOTIF_CONFIG_DATA)
    }

    fn set_driver_features(&self, accepted: Features) -> Result<()> {
        check_features(accepted, self.supported_features())?;
        let always = if self.legacy { 1 } else { 2 };
        let mut state = lock(&self.state);
        for (word, select) in accepted.words().into_iter().zip(0..) {
            // Words above 63 stay untouched unless the driver means them: for a device that takes each of
            // them for word 1, a 0 there would take VERSION_1 away (fault C27).
            if select < always || word != 0 {
                self.registers.write32(DRIVER_FEATURES_SEL, select)?;
                self.registers.write32(DRIVER_FEATURES, word)?;
            }
        }
        state.accepted = accepted;
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let bits = self.read(STATUS)? as u8;
        if bits == u8::MAX {
            return Err(gone());
        }
        Ok(Status::from_bits_retain(bits))
    }

    fn set_status(&self, status: Status) -> Result<()> {
        if status.is_empty() {
            return Err(Error::Misuse { what: "status 0 is a reset: call reset" });
        }
        self.registers.write32(STATUS, status.bits().into())
    }

    fn reset(&self, deadline: Deadline) -> Result<()> {
        *lock(&self.state) = State::default();
        let reset = self.registers.write32(STATUS, 0).and_then(|()| {
            reset_until(deadline, || match self.read(STATUS)? {
                bits if bits as u8 == u8::MAX => Err(gone()),
                bits => Ok(bits),
            })
        });
        or_ended(reset, || self.slot.ended(deadline))
    }

    fn config_len(&self) -> u64 {
        self.config.len()
    }

    fn read_config(&self, offset: u64, width: u8) -> Result<u64> {
        let value = self.config.read_field(offset, width, self.order)?;
        believe_field(value, width, || self.present())
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) -> Result<()> {
        self.config.write_field(offset, width, value, self.order)
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        if self.legacy { Ok(None) } else { self.registers.read32(CONFIG_GENERATION).map(Some) }
    }

    fn queue_count(&self) -> Result<Option<u16>> {
        Ok(None)
    }

    fn queue_max_size(&self, index: u16) -> Result<u16> {
        let state = lock(&self.state);
        self.select(index)?;
        self.max_size(&state, index)
    }

    fn set_queue(&self, index: u16, setup: &QueueSetup) -> Result<()> {
        let mut state = lock(&self.state);
        let page = if self.legacy {
            legacy_page(setup, PAGE)?
        } else {
            check_areas(setup, state.packed())?;
            0
        };
        if setup.vector.is_some() {
            return Err(no_vectors());
        }
        self.select(index)?;
        check_size(index, setup.size, self.max_size(&state, index)?, state.packed())?;
        if self.legacy {
            self.set_page(&mut state, index, setup.size, page)
        } else {
            self.set_areas(index, setup)
        }
    }

    fn queue_enabled(&self, index: u16) -> Result<bool> {
        let _selected = lock(&self.state);
        self.select(index)?;
        self.in_use()
    }

    fn reset_queue(&self, index: u16, deadline: Deadline) -> Result<()> {
        let unsupported = |what| Error::Unsupported { what };
        {
            let state = lock(&self.state);
            if !state.accepted.contains(Features::RING_RESET) {
                return Err(unsupported("RING_RESET was not accepted: reset the device"));
            }
            self.select(index)?;
            self.registers.write32(QUEUE_RESET, 1)?;
        }
        let stopped = poll(deadline, || {
            let _selected = lock(&self.state);
            self.select(index)?;
            let ongoing = self.read(QUEUE_RESET)? != 0;
            if ongoing { Ok(None) } else { self.in_use().map(|in_use| Some(!in_use)) }
        })?;
        match stopped {
            None => Err(deadline.timeout("the reset of a queue")),
            Some(false) => Err(unsupported("the device calls the queue reset but keeps it enabled")),
            Some(true) => Ok(()),
        }
    }

    fn stop_queue(&self, index: u16) -> Result<()> {
        let _selected = lock(&self.state);
        self.select(index)?;
        self.registers.write32(if self.legacy { QUEUE_PFN } else { QUEUE_READY }, 0)?;
        if self.in_use()? { Err(unavailable(index, "the device keeps it in use")) } else { Ok(()) }
    }

    fn doorbell(&self, index: u16) -> Result<Doorbell> {
        let doorbell = self.registers.doorbell(QUEUE_NOTIFY, 4)?;
        doorbell.ok_or(unavailable(index, "the slot has no register for notifications"))
    }

    fn notification_id(&self, index: u16) -> Result<u16> {
        Ok(index)
    }

    fn enable_interrupts(&self, _vectors: u16) -> Result<Interrupts> {
        self.slot.enable_interrupt().map(Interrupts::Line)
    }

    /// Leaves the line as it is: it stays silent from its next interrupt on, since nobody unmasks it.
    fn disable_interrupts(&self) -> Result<()> {
        Ok(())
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<()> {
        if vector.is_some() { Err(no_vectors()) } else { Ok(()) }
    }

    /// Acknowledged before it is handled: a used buffer that comes in between then raises the interrupt
    /// again, where a late acknowledgement would swallow it.
    fn isr(&self) -> Result<InterruptCause> {
        let bits = self.registers.read32(INTERRUPT_STATUS)?;
        if bits == u32::MAX {
            self.present()?;
        }
        let defined = bits & u32::from(pci::isr::DEFINED);
        if defined != 0 {
            self.registers.write32(INTERRUPT_ACK, defined)?;
        }
        Ok(InterruptCause::from_bits(defined as u8))
    }

    fn interrupt_handled(&self) -> Result<()> {
        self.slot.unmask_interrupt()
    }

    fn close(&self) {
        self.slot.release();
    }

    fn shared_memory(&self, id: u8) -> Result<Option<SharedMemory>> {
        if self.legacy {
            return Ok(None);
        }
        let Some((base, len)) = self.shared_range(id)? else { return Ok(None) };
        let bad = |field, value, why| Error::BadConfig { field, value, why };
        if base.checked_add(len).is_none() {
            return Err(bad("SHMBase", base, "ends beyond 2^64 with SHMLen"));
        }
        let region = self.slot.shared_memory(base, len)?;
        let registers = region.ok_or(Error::Unsupported { what: "shared memory out of this bus's reach" })?;
        if registers.size() < len {
            return Err(bad("SHMLen", len, "is more than can be reached there"));
        }
        Ok(Some(SharedMemory { registers, offset: 0, len }))
    }
}

fn no_vectors() -> Error {
    Error::Misuse { what: "an MMIO device has one interrupt and no vectors" }
}
