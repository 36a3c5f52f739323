//! The modern PCI interface (VIRTIO 1.4 §4.1.4).

use alloc::sync::Arc;

use super::checks::{check_areas, check_features, check_size, lock, unavailable, usable_size};
use super::pci::VirtioFunction;
use super::pci_caps::Structures;
use super::wait::poll;
use super::{
    InterruptCause, Interrupts, QueueSetup, RingLayout, SharedMemory, Transport, TransportKind, barrier_for,
    believe_field, gone, or_ended, reset_until,
};
use crate::bus::{Doorbell, PciFunction};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::barrier::Barrier;
use crate::mem::dma::DmaMapper;
use crate::spec::pci::common;
use crate::spec::{ByteOrder, DeviceType, Status};
use crate::sync::Mutex;
use crate::{Error, Result};

/// A device behind the modern PCI interface: registers in memory or I/O BARs, found by vendor capabilities.
#[derive(Debug)]
pub struct PciModern {
    pci: VirtioFunction,
    structures: Structures,
    state: Mutex<State>,
}

/// Held over each sequence that selects something first.
#[derive(Debug, Default)]
struct State {
    accepted: Features,
}

impl State {
    fn packed(&self) -> bool {
        self.accepted.contains(Features::RING_PACKED)
    }
}

impl PciModern {
    /// Looks for the modern interface of a function; `None` where it has none of virtio's capabilities.
    /// Writes nothing. Fails as [`super::open_pci`] does.
    pub fn find(function: Arc<dyn PciFunction>) -> Result<Option<Self>> {
        let address = Arc::clone(&function);
        let find = || {
            let pci = VirtioFunction::identify(function)?;
            let structures = Structures::find(pci.function().as_ref())?;
            Ok(structures.map(|structures| Self { pci, structures, state: Mutex::default() }))
        };
        find().map_err(|error: Error| error.at(address.address()))
    }

    fn read16(&self, register: u64) -> Result<u16> {
        let value = self.structures.common.read16(register)?;
        self.pci.believe(value)
    }

    /// Selects queue `index`, if it is one of the device's.
    fn select(&self, state: &State, index: u16) -> Result<()> {
        let count = self.structures.common.read16(common::NUM_QUEUES)?;
        if index >= count && !self.is_admin_queue(state, index, count)? {
            self.pci.present()?;
            return Err(unavailable(index, "the device has fewer queues"));
        }
        self.structures.common.write16(common::QUEUE_SELECT, index)
    }

    /// Whether `index` is an administration queue; a range that breaks its rules holds none (C25).
    fn is_admin_queue(&self, state: &State, index: u16, count: u16) -> Result<bool> {
        if !state.accepted.contains(Features::ADMIN_VQ) {
            return Ok(false);
        }
        let first = self.structures.common.read16(common::ADMIN_QUEUE_INDEX)?;
        let number = self.structures.common.read16(common::ADMIN_QUEUE_NUM)?;
        let end = u32::from(first).saturating_add(number.into());
        Ok(first >= count && end <= 0x1_0000 && index >= first && u32::from(index) < end)
    }

    fn enabled(&self) -> Result<bool> {
        Ok(self.read16(common::QUEUE_ENABLE)? != 0)
    }

    /// Largest size of the selected queue.
    fn max_size(&self, state: &State, index: u16) -> Result<u16> {
        let size = self.read16(common::QUEUE_SIZE)?;
        usable_size(size.into(), state.packed()).ok_or(unavailable(index, "the device has no such queue"))
    }

    /// Writes one of the registers that the device may refuse, and reads it back.
    fn write_vector(&self, register: u64, vector: Option<u16>) -> Result<()> {
        let Some(value) = self.pci.vector_value(vector)? else { return Ok(()) };
        self.structures.common.write16(register, value)?;
        self.pci.check_vector(value, self.structures.common.read16(register)?)
    }

    fn carries_data(state: &State) -> bool {
        state.accepted.contains(Features::NOTIFICATION_DATA)
    }
}

impl Transport for PciModern {
    fn kind(&self) -> TransportKind {
        TransportKind::PciModern
    }

    fn address(&self) -> &str {
        self.pci.function().address()
    }

    fn device_type(&self) -> DeviceType {
        self.pci.device_type()
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    fn ring_layout(&self) -> RingLayout {
        RingLayout::Modern
    }

    fn barrier(&self) -> Barrier {
        barrier_for(lock(&self.state).accepted)
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        self.pci.function().dma()
    }

    fn present(&self) -> Result<()> {
        self.pci.present()
    }

    fn device_features(&self) -> Result<Features> {
        let _selected = lock(&self.state);
        let mut words = [0; 4];
        for (word, select) in words.iter_mut().zip(0..) {
            self.structures.common.write32(common::DEVICE_FEATURE_SELECT, select)?;
            *word = self.pci.believe(self.structures.common.read32(common::DEVICE_FEATURE)?)?;
        }
        Ok(Features::from_words(words))
    }

    fn supported_features(&self) -> Features {
        let lacks = |end: u64, feature| {
            if self.structures.common.len() < end { feature } else { Features::EMPTY }
        };
        let without = lacks(common::QUEUE_RESET, Features::NOTIF_CONFIG_DATA)
            | lacks(common::ADMIN_QUEUE_INDEX, Features::RING_RESET)
            | lacks(common::FULL_LEN, Features::ADMIN_VQ);
        Features(u128::MAX) - without
    }

    fn set_driver_features(&self, accepted: Features) -> Result<()> {
        check_features(accepted, self.supported_features())?;
        let mut state = lock(&self.state);
        for (word, select) in accepted.words().into_iter().zip(0..) {
            // Words above 63 stay untouched unless the driver means them: C27.
            if select < 2 || word != 0 {
                self.structures.common.write32(common::DRIVER_FEATURE_SELECT, select)?;
                self.structures.common.write32(common::DRIVER_FEATURE, word)?;
            }
        }
        state.accepted = accepted;
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let status = self.structures.common.read8(common::DEVICE_STATUS)?;
        if status == u8::MAX {
            return Err(gone());
        }
        self.pci.believe(status).map(Status::from_bits_retain)
    }

    fn set_status(&self, status: Status) -> Result<()> {
        if status.is_empty() {
            return Err(Error::Misuse { what: "status 0 is a reset: call reset" });
        }
        self.structures.common.write8(common::DEVICE_STATUS, status.bits())
    }

    fn reset(&self, deadline: Deadline) -> Result<()> {
        lock(&self.state).accepted = Features::EMPTY;
        let reset = self
            .structures
            .common
            .write8(common::DEVICE_STATUS, 0)
            .and_then(|()| reset_until(deadline, || self.status().map(|status| status.bits().into())));
        or_ended(reset, || self.pci.function().ended(deadline))
    }

    fn config_len(&self) -> u64 {
        self.structures.device.as_ref().map_or(0, |window| window.len())
    }

    fn read_config(&self, offset: u64, width: u8) -> Result<u64> {
        match &self.structures.device {
            Some(window) => {
                let value = window.read_field(offset, width, ByteOrder::Little)?;
                believe_field(value, width, || self.pci.present())
            }
            None => Err(Error::ConfigOutOfRange { offset, width: width.into(), len: 0 }),
        }
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) -> Result<()> {
        match &self.structures.device {
            Some(window) => window.write_field(offset, width, value, ByteOrder::Little),
            None => Err(Error::ConfigOutOfRange { offset, width: width.into(), len: 0 }),
        }
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        self.structures.common.read8(common::CONFIG_GENERATION).map(|value| Some(value.into()))
    }

    fn queue_count(&self) -> Result<Option<u16>> {
        self.read16(common::NUM_QUEUES).map(Some)
    }

    fn queue_max_size(&self, index: u16) -> Result<u16> {
        let state = lock(&self.state);
        self.select(&state, index)?;
        let max = self.max_size(&state, index)?;
        if self.enabled()? {
            return Err(unavailable(index, "it is in use already: reset the device"));
        }
        Ok(max)
    }

    fn set_queue(&self, index: u16, setup: &QueueSetup) -> Result<()> {
        let state = lock(&self.state);
        check_areas(setup, state.packed())?;
        self.select(&state, index)?;
        check_size(index, setup.size, self.max_size(&state, index)?, state.packed())?;
        if self.enabled()? {
            return Err(unavailable(index, "it is in use already: reset the device"));
        }
        let common = &self.structures.common;
        common.write16(common::QUEUE_SIZE, setup.size)?;
        if self.read16(common::QUEUE_SIZE)? != setup.size {
            return Err(unavailable(index, "the device did not take the size"));
        }
        self.write_vector(common::QUEUE_MSIX_VECTOR, setup.vector)?;
        common.write64(common::QUEUE_DESC, setup.descriptor_area)?;
        common.write64(common::QUEUE_DRIVER, setup.driver_area)?;
        common.write64(common::QUEUE_DEVICE, setup.device_area)?;
        common.write16(common::QUEUE_ENABLE, 1)?;
        if self.read16(common::QUEUE_ENABLE)? != 1 {
            return Err(unavailable(index, "the device did not enable it"));
        }
        Ok(())
    }

    fn queue_enabled(&self, index: u16) -> Result<bool> {
        let state = lock(&self.state);
        self.select(&state, index)?;
        self.enabled()
    }

    fn reset_queue(&self, index: u16, deadline: Deadline) -> Result<()> {
        let unsupported = |what| Error::Unsupported { what };
        {
            let state = lock(&self.state);
            if !state.accepted.contains(Features::RING_RESET) {
                return Err(unsupported("RING_RESET was not accepted: reset the device"));
            }
            self.select(&state, index)?;
            self.structures.common.write16(common::QUEUE_RESET, 1)?;
        }
        let stopped = poll(deadline, || {
            let state = lock(&self.state);
            self.select(&state, index)?;
            let ongoing = self.read16(common::QUEUE_RESET)? != 0;
            if ongoing { Ok(None) } else { self.enabled().map(|enabled| Some(!enabled)) }
        })?;
        match stopped {
            None => Err(deadline.timeout("the reset of a queue")),
            Some(false) => Err(unsupported("the device calls the queue reset but keeps it enabled")),
            Some(true) => Ok(()),
        }
    }

    fn stop_queue(&self, _index: u16) -> Result<()> {
        Err(Error::Unsupported {
            what: "a queue of PCI modern ends with RING_RESET or a reset of the device",
        })
    }

    fn doorbell(&self, index: u16) -> Result<Doorbell> {
        let state = lock(&self.state);
        self.select(&state, index)?;
        let units = u64::from(self.read16(common::QUEUE_NOTIFY_OFF)?);
        let width = if Self::carries_data(&state) { 4 } else { 2 };
        let offset = units.saturating_mul(self.structures.notify_off_multiplier.into());
        self.structures.notify.doorbell(offset, width)?.ok_or(unavailable(
            index,
            "its notification address is not aligned or outside the notification structure",
        ))
    }

    fn notification_id(&self, index: u16) -> Result<u16> {
        let state = lock(&self.state);
        if !state.accepted.contains(Features::NOTIF_CONFIG_DATA) {
            return Ok(index);
        }
        self.select(&state, index)?;
        self.read16(common::QUEUE_NOTIF_CONFIG_DATA)
    }

    fn enable_interrupts(&self, vectors: u16) -> Result<Interrupts> {
        self.pci.enable_interrupts(vectors)
    }

    fn disable_interrupts(&self) -> Result<()> {
        self.pci.disable_interrupts()
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<()> {
        self.write_vector(common::CONFIG_MSIX_VECTOR, vector)
    }

    fn isr(&self) -> Result<InterruptCause> {
        let bits = self.structures.isr.read8(0)?;
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

    fn shared_memory(&self, id: u8) -> Result<Option<SharedMemory>> {
        self.structures.shared_memory(self.pci.function().as_ref(), id)
    }
}
