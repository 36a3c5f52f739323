//! A software device in an MMIO slot, versions 1 and 2 (VIRTIO 1.4 §4.2.2, §4.2.4).

use alloc::sync::Arc;

use super::core::Face;
use super::machine::{Machine, Running};
use super::registers::Reg;
use super::space::{self, Block, Which};
use crate::Result;
use crate::bus::{MmioSlot, RegisterSpace};
use crate::event::EventFd;
use crate::mem::dma::DmaMapper;
use crate::spec::mmio::*;

/// Physical address of the shared memory.
pub(super) const SHARED_BASE: u64 = 0x10_0000_0000;

/// Whether a register is read, written, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    Both,
}

/// The register at an offset, and what it is for. Each version has some that the other has not.
fn register(face: Face, offset: u64) -> Option<(Reg, Use)> {
    Some(match offset {
        MAGIC_VALUE => (Reg::Magic, Use::Read),
        VERSION => (Reg::Version, Use::Read),
        DEVICE_ID => (Reg::DeviceId, Use::Read),
        VENDOR_ID => (Reg::VendorId, Use::Read),
        DEVICE_FEATURES => (Reg::DeviceFeature, Use::Read),
        DEVICE_FEATURES_SEL => (Reg::DeviceFeatureSelect, Use::Write),
        DRIVER_FEATURES => (Reg::DriverFeature, Use::Write),
        DRIVER_FEATURES_SEL => (Reg::DriverFeatureSelect, Use::Write),
        QUEUE_SEL => (Reg::QueueSelect, Use::Write),
        QUEUE_SIZE_MAX => (Reg::QueueSizeMax, Use::Read),
        QUEUE_SIZE => (Reg::QueueSize, Use::Write),
        QUEUE_NOTIFY => (Reg::Notify, Use::Write),
        INTERRUPT_STATUS => (Reg::Isr, Use::Read),
        INTERRUPT_ACK => (Reg::IsrAck, Use::Write),
        STATUS => (Reg::Status, Use::Both),
        _ if face == Face::MmioLegacy => match offset {
            GUEST_PAGE_SIZE => (Reg::PageSize, Use::Write),
            QUEUE_ALIGN => (Reg::QueueAlign, Use::Write),
            QUEUE_PFN => (Reg::PageNumber, Use::Both),
            _ => return None,
        },
        QUEUE_READY => (Reg::QueueEnable, Use::Both),
        SHM_SEL => (Reg::ShmSelect, Use::Write),
        QUEUE_RESET => (Reg::QueueReset, Use::Both),
        CONFIG_GENERATION => (Reg::Generation, Use::Read),
        _ => return wide(offset),
    })
}

/// Halves of the 64-bit registers of version 2.
fn wide(offset: u64) -> Option<(Reg, Use)> {
    let half = |base: u64| match offset.checked_sub(base) {
        Some(0) => Some(false),
        Some(4) => Some(true),
        _ => None,
    };
    for (area, base) in [(0, QUEUE_DESC), (1, QUEUE_DRIVER), (2, QUEUE_DEVICE)] {
        if let Some(high) = half(base) {
            return Some((Reg::Area(area, high), Use::Write));
        }
    }
    for (len, base) in [(true, SHM_LEN), (false, SHM_BASE)] {
        if let Some(high) = half(base) {
            return Some((Reg::Shm(len, high), Use::Read));
        }
    }
    None
}

/// The register of an access that keeps the rules; tells the checker of one that does not.
fn decode(machine: &Machine, face: Face, offset: u64, width: u8, write: bool) -> Option<Reg> {
    let found = register(face, offset);
    let wrong = if write { Use::Read } else { Use::Write };
    if let Some(checker) = &mut machine.core().checker {
        match found {
            _ if width != 4 => checker.width(face, offset, width),
            None => checker.unknown_register(offset),
            Some((_, direction)) if direction == wrong => checker.direction(offset, write),
            Some(_) => {}
        }
    }
    found.filter(|(_, direction)| width == 4 && *direction != wrong).map(|(reg, _)| reg)
}

pub(super) fn read(machine: &Machine, face: Face, offset: u64, width: u8) -> Result<u32> {
    if let Some(at) = offset.checked_sub(CONFIG) {
        return Ok(space::read_config(machine, face, at, width));
    }
    match decode(machine, face, offset, width, false) {
        Some(reg) => machine.read(face, reg),
        None => Ok(0),
    }
}

pub(super) fn write(machine: &Machine, face: Face, offset: u64, width: u8, value: u32) -> Result<()> {
    if let Some(at) = offset.checked_sub(CONFIG) {
        space::write_config(machine, face, at, width, value);
        return Ok(());
    }
    match decode(machine, face, offset, width, true) {
        Some(Reg::Notify) => machine.notify(face, width, value, None),
        Some(reg) => machine.write(face, reg, value),
        None => Ok(()),
    }
}

/// A software device as an MMIO slot.
#[derive(Debug)]
pub(super) struct SoftMmio {
    running: Arc<Running>,
    face: Face,
}

impl SoftMmio {
    pub(super) fn new(running: &Arc<Running>, face: Face) -> Self {
        Self { running: Arc::clone(running), face }
    }
}

impl MmioSlot for SoftMmio {
    fn address(&self) -> &str {
        &self.running.machine.address
    }

    fn registers(&self) -> Arc<dyn RegisterSpace> {
        Arc::new(Block::new(&self.running, Which::Mmio(self.face)))
    }

    fn enable_interrupt(&self) -> Result<EventFd> {
        self.running.machine.core().irq.enable_line()
    }

    fn unmask_interrupt(&self) -> Result<()> {
        self.running.machine.core().irq.unmask_line()
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::clone(&self.running.machine.dma) as Arc<dyn DmaMapper>
    }

    fn shared_memory(&self, address: u64, length: u64) -> Result<Option<Arc<dyn RegisterSpace>>> {
        let size = space::shared_size(&self.running.machine.core());
        let start = address.checked_sub(SHARED_BASE);
        let inside = start.filter(|start| start.checked_add(length).is_some_and(|end| end <= size));
        Ok(inside.map(|start| {
            let block = Block::new(&self.running, Which::Shared(start, length));
            Arc::new(block) as Arc<dyn RegisterSpace>
        }))
    }
}
