//! What the registers mean, whichever offsets they have: one list for all interfaces.

use super::core::{Core, Face};
use super::script::DeviceLie;
use crate::Result;
use crate::features::Features;
use crate::spec::pci::{NO_VECTOR, isr};
use crate::spec::{Status, mmio};

/// A register; 64-bit ones as two halves, the high one first in the second field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reg {
    Magic,
    Version,
    DeviceId,
    VendorId,
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    Status,
    Generation,
    QueueSelect,
    /// PCI: read and write; MMIO: write only.
    QueueSize,
    /// MMIO: read only.
    QueueSizeMax,
    QueueVector,
    QueueEnable,
    NotifyOff,
    /// Descriptor, driver or device area; whether it is the upper half.
    Area(u8, bool),
    NotifyData,
    QueueReset,
    AdminIndex,
    AdminCount,
    /// PCI: a read clears it.
    Isr,
    IsrAck,
    PageNumber,
    PageSize,
    QueueAlign,
    ShmSelect,
    /// Length, or else base; whether it is the upper half.
    Shm(bool, bool),
    Notify,
}

/// What NOTIF_CONFIG_DATA makes of a queue index: anything but the index.
pub(super) const NOTIFY_DATA: u16 = 0x5500;

fn half(value: u64, high: bool) -> u32 {
    if high { (value >> 32) as u32 } else { value as u32 }
}

impl Core {
    /// Reads a register.
    pub(super) fn read(&mut self, face: Face, reg: Reg) -> Result<u32> {
        self.register_reads = self.register_reads.wrapping_add(1);
        let honest = self.read_honest(face, reg)?;
        Ok(self.bend(reg, honest))
    }

    fn read_honest(&mut self, face: Face, reg: Reg) -> Result<u32> {
        let select = self.queue_select;
        let queue = self.queues.get(usize::from(select));
        let of_queue = |value: fn(&super::core::Queue) -> u32| queue.map_or(0, value);
        Ok(match reg {
            Reg::Magic => mmio::MAGIC,
            Reg::Version if face == Face::MmioLegacy => mmio::VERSION_LEGACY,
            Reg::Version => mmio::VERSION_MODERN,
            Reg::DeviceId => self.model.device_type().0,
            Reg::VendorId => u32::from(crate::spec::PCI_VENDOR_ID),
            Reg::DeviceFeatureSelect => self.device_select,
            Reg::DeviceFeature => self.read_features(face.legacy()),
            Reg::DriverFeatureSelect => self.driver_select,
            Reg::DriverFeature => self.accepted.get(self.driver_select as usize).copied().unwrap_or(0),
            Reg::ConfigVector => self.config_vector.into(),
            Reg::NumQueues => self.queues.len() as u32,
            Reg::Status => self.read_status().into(),
            Reg::Generation => self.generation,
            Reg::QueueSelect => select.into(),
            Reg::QueueSize => of_queue(|queue| queue.size.into()),
            Reg::QueueSizeMax => of_queue(|queue| queue.max.into()),
            Reg::QueueVector => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            Reg::QueueEnable => of_queue(|queue| queue.enabled.into()),
            Reg::NotifyOff => select.into(),
            Reg::NotifyData => u32::from(select ^ NOTIFY_DATA),
            Reg::Area(area, high) => {
                let value = queue.and_then(|queue| queue.areas.get(usize::from(area)));
                half(value.copied().unwrap_or(0), high)
            }
            Reg::QueueReset => self.read_queue_reset(),
            Reg::AdminIndex | Reg::AdminCount => 0,
            Reg::Isr => self.read_isr(face)?,
            Reg::PageNumber => of_queue(|queue| queue.page),
            Reg::Shm(len, high) => {
                let place = u8::try_from(self.shm_select).ok().and_then(|id| self.shared_place(id));
                let value = place.map_or(u64::MAX, |(base, size)| {
                    if len { size } else { base.saturating_add(super::mmio::SHARED_BASE) }
                });
                half(value, high)
            }
            // Write only.
            Reg::IsrAck | Reg::PageSize | Reg::QueueAlign | Reg::ShmSelect | Reg::Notify => 0,
        })
    }

    fn read_features(&mut self, legacy: bool) -> u32 {
        let mut features = self.offered(legacy);
        for lie in self.script.iter() {
            match lie {
                DeviceLie::OffersFlicker(bits) if self.register_reads / 4 % 2 == 1 => features.remove(*bits),
                DeviceLie::OffersFlicker(bits) => features.insert(*bits),
                _ => {}
            }
        }
        let words = features.words();
        let echo = self.script.tells(&DeviceLie::FeatureWordsEcho);
        let select = if echo { self.device_select.min(1) } else { self.device_select };
        let select = if legacy { 0 } else { select };
        words.get(select as usize).copied().unwrap_or(0)
    }

    fn read_status(&mut self) -> u8 {
        if self.resetting.0 > 0 {
            self.resetting.0 = self.resetting.0.saturating_sub(1);
            return self.resetting.1;
        }
        if self.script.tells(&DeviceLie::StatusNeverResets) && self.status == 0 {
            return self.resetting.1.max(Status::ACKNOWLEDGE.bits());
        }
        self.status
    }

    fn read_queue_reset(&mut self) -> u32 {
        let Some(queue) = self.queue() else { return 0 };
        let busy = queue.resetting > 0;
        queue.resetting = queue.resetting.saturating_sub(1);
        busy.into()
    }

    fn read_isr(&mut self, face: Face) -> Result<u32> {
        let mut bits = self.isr;
        if self.script.tells(&DeviceLie::IsrLosesConfig) {
            bits &= !isr::CONFIG;
        }
        if face.pci() {
            self.isr = 0;
            self.irq.set_line(false)?;
        }
        Ok(bits.into())
    }

    /// What the script makes of a register's value.
    fn bend(&self, reg: Reg, honest: u32) -> u32 {
        let select = self.queue_select;
        let size = |value: u32, size: u16| {
            let written = self.queues.get(usize::from(select)).is_some_and(|queue| queue.size_written);
            if written { value } else { size.into() }
        };
        self.script.iter().fold(honest, |value, lie| match (reg, lie) {
            (Reg::Magic, DeviceLie::Magic(lied))
            | (Reg::Version, DeviceLie::Version(lied))
            | (Reg::DeviceId, DeviceLie::DeviceId(lied))
            | (Reg::VendorId, DeviceLie::Vendor(lied)) => *lied,
            (Reg::Status, DeviceLie::StatusAllOnes) => u8::MAX.into(),
            (Reg::NumQueues, DeviceLie::NumQueues(lied)) => (*lied).into(),
            (Reg::QueueSize, DeviceLie::QueueSize { queue, size: lied }) if *queue == select => {
                size(value, *lied)
            }
            (Reg::QueueSizeMax, DeviceLie::QueueSize { queue, size: lied }) if *queue == select => {
                (*lied).into()
            }
            (Reg::QueueSize, DeviceLie::QueueSizeGrows) => value.saturating_mul(2),
            (Reg::QueueEnable, DeviceLie::QueueEnableReads0) => 0,
            (Reg::QueueEnable, DeviceLie::QueueEnableReads1) => 1,
            (Reg::NotifyOff, DeviceLie::NotifyOff(off)) => (*off).into(),
            (Reg::Isr, DeviceLie::IsrBits(bits)) => value | u32::from(*bits),
            (Reg::ConfigVector | Reg::QueueVector, DeviceLie::VectorRefused { from })
                if value >= (*from).into() =>
            {
                NO_VECTOR.into()
            }
            (Reg::Generation, DeviceLie::GenerationChanges) => self.register_reads,
            (Reg::PageNumber, DeviceLie::PageNumberReads(lied)) if value != 0 => *lied,
            (Reg::AdminIndex, DeviceLie::AdminQueues { index, .. }) => (*index).into(),
            (Reg::AdminCount, DeviceLie::AdminQueues { count, .. }) => (*count).into(),
            _ => value,
        })
    }

    /// Writes a register. What may not be written, or not now, is ignored.
    pub(super) fn write(&mut self, face: Face, reg: Reg, value: u32) -> Result<()> {
        match reg {
            Reg::DeviceFeatureSelect => self.device_select = value,
            Reg::DriverFeatureSelect => self.driver_select = value,
            Reg::DriverFeature => self.write_features(face, value),
            Reg::ConfigVector => self.config_vector = self.vector(value as u16),
            Reg::Status => return self.set_status(value as u8),
            Reg::QueueSelect => self.queue_select = value as u16,
            Reg::QueueEnable => return self.enable_queue(face, value),
            Reg::QueueReset => self.reset_queue(value),
            Reg::PageNumber => return self.write_page(face, value),
            Reg::PageSize => self.page_size = value,
            Reg::ShmSelect => self.shm_select = value,
            Reg::IsrAck => {
                self.isr &= !(value as u8);
                return self.irq.set_line(self.isr != 0);
            }
            Reg::QueueSize | Reg::QueueVector | Reg::Area(..) | Reg::QueueAlign => {
                self.write_queue(face, reg, value);
            }
            // Read only, or the business of whoever runs the device.
            _ => {}
        }
        Ok(())
    }

    fn vector(&self, value: u16) -> u16 {
        if value < self.irq.vectors() { value } else { NO_VECTOR }
    }

    fn write_features(&mut self, face: Face, value: u32) {
        // Frozen once agreed on (§3.1.1 step 5).
        if self.status & (Status::FEATURES_OK | Status::DRIVER_OK).bits() != 0 {
            return;
        }
        let echo = self.script.tells(&DeviceLie::FeatureWordsEcho);
        let select = match self.driver_select {
            _ if face.legacy() => 0,
            select if echo => select.min(1),
            select => select,
        };
        if let Some(word) = self.accepted.get_mut(select as usize) {
            *word = value;
        }
    }

    fn write_queue(&mut self, face: Face, reg: Reg, value: u32) {
        let packed = self.accepted().contains(Features::RING_PACKED);
        let vector = self.vector(value as u16);
        let Some(queue) = self.queue().filter(|queue| !queue.in_use()) else { return };
        match reg {
            Reg::QueueVector => queue.vector = vector,
            Reg::QueueAlign => queue.align = value,
            // Legacy PCI has no way to choose a size.
            Reg::QueueSize if face != Face::PciLegacy => {
                let size = value as u16;
                if size <= queue.max && size != 0 && (packed || size.is_power_of_two()) {
                    (queue.size, queue.size_written) = (size, true);
                }
            }
            Reg::Area(area, high) => {
                if let Some(area) = queue.areas.get_mut(usize::from(area)) {
                    let value = u64::from(value);
                    *area = if high { *area & 0xffff_ffff | value << 32 } else { *area >> 32 << 32 | value };
                }
            }
            _ => {}
        }
    }

    fn enable_queue(&mut self, face: Face, value: u32) -> Result<()> {
        // Only MMIO can take a queue away by this register (§4.2.2).
        let stops = face == Face::Mmio && value == 0;
        if let Some(queue) = self.queue() {
            if value == 1 {
                queue.enabled = true;
            } else if stops {
                queue.reset();
            }
        }
        if value == 1 { self.early_interrupt() } else { Ok(()) }
    }

    fn write_page(&mut self, face: Face, value: u32) -> Result<()> {
        let page_size = if face == Face::PciLegacy { 4096 } else { self.page_size };
        let Some(queue) = self.queue() else { return Ok(()) };
        if value == 0 {
            queue.reset();
            return Ok(());
        }
        if face == Face::PciLegacy {
            queue.align = 4096;
        }
        queue.page = value;
        // The unit is the page size at this moment.
        queue.areas = [u64::from(value).saturating_mul(page_size.into()), 0, 0];
        self.early_interrupt()
    }

    fn early_interrupt(&mut self) -> Result<()> {
        if !self.script.tells(&DeviceLie::EarlyInterrupt) {
            return Ok(());
        }
        let vector = self.queue().map_or(NO_VECTOR, |queue| queue.vector);
        self.interrupt(isr::QUEUE, vector)
    }

    fn reset_queue(&mut self, value: u32) {
        let accepted = self.accepted().contains(Features::RING_RESET);
        if value != 1 || !accepted || self.script.tells(&DeviceLie::QueueResetIgnored) {
            return;
        }
        let slow = self.script.find(|lie| match lie {
            DeviceLie::SlowReset { reads } => Some(*reads),
            _ => None,
        });
        if let Some(queue) = self.queue() {
            queue.reset();
            queue.resetting = slow.unwrap_or(0);
        }
    }
}
