//! A device of a few registers behind each interface, whose every register can be made to lie.

use crate::sync::{Mutex, MutexGuard};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::bus::{Bar, BarKind, Doorbell, MmioSlot, PciFunction, RegisterSpace};
use crate::event::EventFd;
use crate::mem::dma::DmaMapper;
use crate::spec::{mmio, pci};
use crate::transport::checks::lock;
use crate::{Error, Result};

mod bus;
mod caps;

use bus::FakeSlot;
pub(super) use caps::{msix_cap, pci_config, standard_caps, vendor_cap};

/// Which registers an access went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// PCI configuration space.
    PciConfig,
    /// BAR of the modern interface.
    Modern,
    /// BAR of the legacy interface.
    Legacy,
    /// MMIO slot of version 2.
    Mmio2,
    /// MMIO slot of version 1.
    Mmio1,
}

/// Where the structures lie in the modern BAR.
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const MODERN_LEN: u64 = 0x4000;
pub(super) const CONFIG_LEN: u64 = 24;

/// One access: place, offset, width in bytes, and the value for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) place: Place,
    pub(super) offset: u64,
    pub(super) width: u8,
    pub(super) wrote: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct FakeQueue {
    pub(super) size: u32,
    pub(super) enable: u32,
    pub(super) notify_off: u16,
    pub(super) id: u16,
    pub(super) vector: u16,
    pub(super) areas: [u32; 6],
    pub(super) pfn: u32,
    pub(super) reset: u32,
}

type Lie = Box<dyn FnMut(&mut FakeDevice) -> u32 + Send>;

pub(super) struct FakeDevice {
    pub(super) features: [u32; 4],
    pub(super) accepted: [Option<u32>; 4],
    pub(super) status: u32,
    pub(super) num_queues: u16,
    pub(super) queues: Vec<FakeQueue>,
    pub(super) config: Vec<u8>,
    pub(super) generation: u32,
    pub(super) isr: u32,
    pub(super) config_vector: u16,
    pub(super) page_sizes: Vec<u32>,
    pub(super) align: u32,
    pub(super) msix: u16,
    pub(super) unmasked: u32,
    pub(super) shm: (u64, u64),
    pub(super) pci_config: Vec<u8>,
    pub(super) removed: bool,
    /// What registers of a removed device read: 0 as was measured for memory BARs, or all ones; PCI
    /// configuration space and I/O BARs read all ones in any case.
    pub(super) removed_reads: u32,
    pub(super) log: Vec<Access>,
    pub(super) lies: BTreeMap<(Place, u64), Lie>,
    sel_device: u32,
    sel_driver: u32,
    sel_queue: u32,
    sel_shm: u32,
}

/// The handle that tests keep.
#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<FakeDevice>>);

impl Fake {
    pub(super) fn new() -> Self {
        let queue = FakeQueue { size: 256, vector: pci::NO_VECTOR, ..FakeQueue::default() };
        let queues = (0..2).map(|i| FakeQueue { notify_off: i, id: 0x70 + i, ..queue.clone() }).collect();
        Self(Arc::new(Mutex::new(FakeDevice {
            features: [0x3000_0000, 0x1, 0, 0],
            accepted: [None; 4],
            status: 0,
            num_queues: 2,
            queues,
            config: (1..=CONFIG_LEN as u8).collect(),
            generation: 3,
            isr: 0,
            config_vector: pci::NO_VECTOR,
            page_sizes: Vec::new(),
            align: 0,
            msix: 0,
            unmasked: 0,
            shm: (u64::MAX, u64::MAX),
            pci_config: pci_config(0x1001, &standard_caps()),
            removed: false,
            removed_reads: 0,
            log: Vec::new(),
            lies: BTreeMap::new(),
            sel_device: 0,
            sel_driver: 0,
            sel_queue: 0,
            sel_shm: 0,
        })))
    }

    pub(super) fn get(&self) -> MutexGuard<'_, FakeDevice> {
        lock(&self.0)
    }

    /// From now on reads of the register answer `value`.
    pub(super) fn lie(&self, place: Place, offset: u64, value: u32) {
        self.lie_with(place, offset, move |_| value);
    }

    pub(super) fn lie_with(
        &self,
        place: Place,
        offset: u64,
        lie: impl FnMut(&mut FakeDevice) -> u32 + Send + 'static,
    ) {
        self.get().lies.insert((place, offset), Box::new(lie));
    }

    pub(super) fn space(&self, place: Place) -> Arc<dyn RegisterSpace> {
        Arc::new(Space { device: self.clone(), place })
    }

    pub(super) fn function(&self) -> FakeFunction {
        let bar = |kind, place| Some(Bar { kind, registers: self.space(place) });
        let mut bars = [const { None }; 6];
        bars[0] = bar(BarKind::Io, Place::Legacy);
        bars[4] = bar(BarKind::Memory, Place::Modern);
        FakeFunction {
            device: self.clone(),
            bars,
            config: Space { device: self.clone(), place: Place::PciConfig },
        }
    }

    pub(super) fn slot(&self, place: Place) -> Arc<dyn MmioSlot> {
        Arc::new(FakeSlot { device: self.clone(), place })
    }

    /// What queue `index` was set up with: enable (or 0) and page number (or 0).
    pub(super) fn in_use(&self, index: usize) -> (u32, u32) {
        let device = self.get();
        (device.queues[index].enable, device.queues[index].pfn)
    }

    /// Writes to the register, in order.
    pub(super) fn writes(&self, place: Place, offset: u64) -> Vec<u32> {
        let hit = |a: &&Access| a.place == place && a.offset == offset;
        self.get().log.iter().filter(hit).filter_map(|a| a.wrote).collect()
    }
}

impl FakeDevice {
    fn queue(&mut self) -> Option<&mut FakeQueue> {
        self.queues.get_mut(self.sel_queue as usize)
    }

    fn reset(&mut self) {
        self.status = 0;
        self.accepted = [None; 4];
        self.isr = 0;
        for queue in &mut self.queues {
            queue.enable = 0;
            queue.pfn = 0;
            queue.vector = pci::NO_VECTOR;
        }
    }

    fn config_bytes(&self, offset: u64, width: u8) -> u32 {
        (0..u64::from(width))
            .rev()
            .fold(0, |value, i| value << 8 | u32::from(*self.config.get((offset + i) as usize).unwrap_or(&0)))
    }

    fn set_config_bytes(&mut self, offset: u64, width: u8, value: u32) {
        for i in 0..u64::from(width) {
            if let Some(byte) = self.config.get_mut((offset + i) as usize) {
                *byte = (value >> (8 * i)) as u8;
            }
        }
    }

    fn read_common(&mut self, offset: u64) -> u32 {
        use pci::common::*;
        let word = self.sel_device as usize;
        match offset {
            DEVICE_FEATURE_SELECT => self.sel_device,
            DEVICE_FEATURE => self.features.get(word).copied().unwrap_or(0),
            CONFIG_MSIX_VECTOR => self.config_vector.into(),
            NUM_QUEUES => self.num_queues.into(),
            DEVICE_STATUS => self.status,
            CONFIG_GENERATION => self.generation,
            _ => self.queue().map_or(0, |queue| match offset {
                QUEUE_SIZE => queue.size,
                QUEUE_MSIX_VECTOR => queue.vector.into(),
                QUEUE_ENABLE => queue.enable,
                QUEUE_NOTIFY_OFF => queue.notify_off.into(),
                QUEUE_NOTIF_CONFIG_DATA => queue.id.into(),
                QUEUE_RESET => queue.reset,
                _ => 0,
            }),
        }
    }

    fn write_common(&mut self, offset: u64, value: u32) {
        use pci::common::*;
        match offset {
            DEVICE_FEATURE_SELECT => self.sel_device = value,
            DRIVER_FEATURE_SELECT => self.sel_driver = value,
            DRIVER_FEATURE => self.accepted[self.sel_driver as usize] = Some(value),
            CONFIG_MSIX_VECTOR => self.config_vector = value as u16,
            DEVICE_STATUS if value == 0 => self.reset(),
            DEVICE_STATUS => self.status = value,
            QUEUE_SELECT => self.sel_queue = value,
            _ => {
                let Some(queue) = self.queue() else { return };
                match offset {
                    QUEUE_SIZE => queue.size = value,
                    QUEUE_MSIX_VECTOR => queue.vector = value as u16,
                    QUEUE_ENABLE => queue.enable = value,
                    QUEUE_DESC..LEN => queue.areas[((offset - QUEUE_DESC) / 4) as usize] = value,
                    QUEUE_RESET => queue.enable = 0,
                    _ => {}
                }
            }
        }
    }

    fn read_legacy(&mut self, offset: u64, width: u8) -> u32 {
        use pci::legacy::*;
        let config = if self.msix > 0 { CONFIG_MSIX } else { CONFIG };
        match offset {
            _ if offset >= config => self.config_bytes(offset - config, width),
            DEVICE_FEATURES => self.features[0],
            DEVICE_STATUS => self.status,
            ISR_STATUS => core::mem::take(&mut self.isr),
            CONFIG_MSIX_VECTOR => self.config_vector.into(),
            _ => self.queue().map_or(0, |queue| match offset {
                QUEUE_ADDRESS => queue.pfn,
                QUEUE_SIZE => queue.size,
                QUEUE_MSIX_VECTOR => queue.vector.into(),
                _ => 0,
            }),
        }
    }

    fn write_legacy(&mut self, offset: u64, width: u8, value: u32) {
        use pci::legacy::*;
        let config = if self.msix > 0 { CONFIG_MSIX } else { CONFIG };
        match offset {
            _ if offset >= config => self.set_config_bytes(offset - config, width, value),
            DRIVER_FEATURES => self.accepted[0] = Some(value),
            DEVICE_STATUS if value == 0 => self.reset(),
            DEVICE_STATUS => self.status = value,
            QUEUE_SELECT => self.sel_queue = value,
            CONFIG_MSIX_VECTOR => self.config_vector = value as u16,
            _ => {
                let Some(queue) = self.queue() else { return };
                match offset {
                    QUEUE_ADDRESS => queue.pfn = value,
                    QUEUE_MSIX_VECTOR => queue.vector = value as u16,
                    _ => {}
                }
            }
        }
    }

    fn read_mmio(&mut self, version: u32, offset: u64, width: u8) -> u32 {
        use mmio::*;
        let shm = if self.sel_shm == 0 { self.shm } else { (u64::MAX, u64::MAX) };
        let word = self.sel_device as usize;
        match offset {
            CONFIG.. => self.config_bytes(offset - CONFIG, width),
            MAGIC_VALUE => MAGIC,
            VERSION => version,
            DEVICE_ID => 2,
            DEVICE_FEATURES => self.features.get(word).copied().unwrap_or(0),
            INTERRUPT_STATUS => self.isr,
            STATUS => self.status,
            SHM_BASE => shm.0 as u32,
            0x0BC => (shm.0 >> 32) as u32,
            SHM_LEN => shm.1 as u32,
            0x0B4 => (shm.1 >> 32) as u32,
            CONFIG_GENERATION => self.generation,
            _ => self.queue().map_or(0, |queue| match offset {
                QUEUE_SIZE_MAX => queue.size,
                QUEUE_PFN => queue.pfn,
                QUEUE_READY => queue.enable,
                QUEUE_RESET => queue.reset,
                _ => 0,
            }),
        }
    }

    fn write_mmio(&mut self, offset: u64, width: u8, value: u32) {
        use mmio::*;
        match offset {
            CONFIG.. => self.set_config_bytes(offset - CONFIG, width, value),
            DEVICE_FEATURES_SEL => self.sel_device = value,
            DRIVER_FEATURES_SEL => self.sel_driver = value,
            DRIVER_FEATURES => self.accepted[self.sel_driver as usize] = Some(value),
            GUEST_PAGE_SIZE => self.page_sizes.push(value),
            QUEUE_SEL => self.sel_queue = value,
            QUEUE_ALIGN => self.align = value,
            INTERRUPT_ACK => self.isr &= !value,
            STATUS if value == 0 => self.reset(),
            STATUS => self.status = value,
            SHM_SEL => self.sel_shm = value,
            _ => {
                let Some(queue) = self.queue() else { return };
                match offset {
                    QUEUE_PFN => queue.pfn = value,
                    QUEUE_READY => queue.enable = value,
                    QUEUE_DESC | 0x84 => queue.areas[((offset - QUEUE_DESC) / 4) as usize] = value,
                    QUEUE_DRIVER | 0x94 => queue.areas[2 + ((offset - QUEUE_DRIVER) / 4) as usize] = value,
                    QUEUE_DEVICE | 0xA4 => queue.areas[4 + ((offset - QUEUE_DEVICE) / 4) as usize] = value,
                    QUEUE_RESET => queue.enable = 0,
                    _ => {}
                }
            }
        }
    }
}

/// One block of the device's registers.
struct Space {
    device: Fake,
    place: Place,
}

impl core::fmt::Debug for Space {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Space({:?})", self.place)
    }
}

impl Space {
    fn check(&self, offset: u64, width: u8) -> Result<()> {
        let len = self.size();
        let inside = offset.checked_add(width.into()).is_some_and(|end| end <= len);
        if inside && offset.is_multiple_of(width.into()) {
            return Ok(());
        }
        Err(Error::RegisterOutOfRange { offset, width: width.into(), len })
    }

    fn read(&self, offset: u64, width: u8) -> Result<u32> {
        self.check(offset, width)?;
        let mut device = self.device.get();
        device.log.push(Access { place: self.place, offset, width, wrote: None });
        if device.removed {
            let ones = matches!(self.place, Place::PciConfig | Place::Legacy);
            return Ok(if ones { u32::MAX } else { device.removed_reads });
        }
        if let Some(mut lie) = device.lies.remove(&(self.place, offset)) {
            let value = lie(&mut device);
            device.lies.insert((self.place, offset), lie);
            return Ok(value);
        }
        Ok(match (self.place, offset) {
            (Place::PciConfig, _) => (0..u64::from(width))
                .rev()
                .fold(0, |value, i| value << 8 | u32::from(device.pci_config[(offset + i) as usize])),
            (Place::Modern, COMMON..ISR) => device.read_common(offset),
            (Place::Modern, ISR) => core::mem::take(&mut device.isr),
            (Place::Modern, DEVICE..NOTIFY) => device.config_bytes(offset - DEVICE, width),
            (Place::Modern, _) => 0,
            (Place::Legacy, _) => device.read_legacy(offset, width),
            (Place::Mmio2, _) => device.read_mmio(2, offset, width),
            (Place::Mmio1, _) => device.read_mmio(1, offset, width),
        })
    }

    fn write(&self, offset: u64, width: u8, value: u32) -> Result<()> {
        self.check(offset, width)?;
        let mut device = self.device.get();
        device.log.push(Access { place: self.place, offset, width, wrote: Some(value) });
        match (self.place, offset) {
            _ if device.removed => {}
            (Place::Modern, COMMON..ISR) => device.write_common(offset, value),
            (Place::Modern, DEVICE..NOTIFY) => device.set_config_bytes(offset - DEVICE, width, value),
            (Place::PciConfig | Place::Modern, _) => {}
            (Place::Legacy, _) => device.write_legacy(offset, width, value),
            (Place::Mmio2 | Place::Mmio1, _) => device.write_mmio(offset, width, value),
        }
        Ok(())
    }
}

impl RegisterSpace for Space {
    fn size(&self) -> u64 {
        match self.place {
            Place::PciConfig => pci::config::LEN,
            Place::Modern => MODERN_LEN,
            Place::Legacy => pci::legacy::CONFIG + CONFIG_LEN,
            Place::Mmio2 | Place::Mmio1 => mmio::CONFIG + CONFIG_LEN,
        }
    }

    fn read8(&self, offset: u64) -> Result<u8> {
        self.read(offset, 1).map(|value| value as u8)
    }

    fn read16(&self, offset: u64) -> Result<u16> {
        self.read(offset, 2).map(|value| value as u16)
    }

    fn read32(&self, offset: u64) -> Result<u32> {
        self.read(offset, 4)
    }

    fn write8(&self, offset: u64, value: u8) -> Result<()> {
        self.write(offset, 1, value.into())
    }

    fn write16(&self, offset: u64, value: u16) -> Result<()> {
        self.write(offset, 2, value.into())
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.write(offset, 4, value)
    }

    fn doorbell(&self, offset: u64, width: u8) -> Result<Doorbell> {
        self.check(offset, width)?;
        let space = Self { device: self.device.clone(), place: self.place };
        Ok(Doorbell::Call(Arc::new(move |value| space.write(offset, width, value))))
    }
}

#[derive(Debug)]
pub(super) struct FakeFunction {
    device: Fake,
    pub(super) bars: [Option<Bar>; 6],
    config: Space,
}

impl core::fmt::Debug for Fake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Fake")
    }
}

/// What a fake is called in messages.
pub(super) fn name(place: Place) -> String {
    alloc::format!("{place:?}")
}
