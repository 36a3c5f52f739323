//! A software device behind PCI: BARs with the modern structures (VIRTIO 1.4 §4.1.4), the legacy registers
//! (§4.1.4.10), or both.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::core::{Core, Face};
use super::machine::{Machine, Running};
use super::pci_config::shared_bar;
use super::registers::Reg;
use super::script::DeviceLie;
use super::space::{self, Block, Which};
use crate::Result;
use crate::bus::{Bar, BarKind, PciFunction, RegisterSpace};
use crate::event::EventFd;
use crate::mem::dma::DmaMapper;
use crate::spec::pci::{common, legacy};

/// BAR of the legacy registers.
const LEGACY_BAR: u8 = 0;
/// BAR of the MSI-X table.
pub(super) const MSIX_BAR: u8 = 1;
/// BAR of shared memory.
pub(super) const SHARED_BAR: u8 = 2;
/// BAR of the modern structures.
pub(super) const MODERN_BAR: u8 = 4;

/// Where the pending bits lie: behind the longest table.
pub(super) const MSIX_PBA: u64 = 0x8000;
pub(super) const MSIX_SIZE: u64 = 0x1_0000;

/// Offsets of the structures in their BAR.
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
/// What queue_notify_off counts in.
pub(super) const NOTIFY_UNIT: u64 = 4;

pub(super) fn notify_len(core: &Core) -> u64 {
    (core.queues.len() as u64).saturating_mul(NOTIFY_UNIT)
}

pub(super) fn modern_size(core: &Core) -> u64 {
    NOTIFY.saturating_add(notify_len(core)).next_power_of_two()
}

/// The queue address that a place in the modern BAR is, in units; `None` where it is no notification address.
pub(super) fn modern_notify(core: &Core, offset: u64) -> Option<Option<u64>> {
    let at = offset.checked_sub(NOTIFY).filter(|at| *at < notify_len(core))?;
    Some(at.checked_div(NOTIFY_UNIT))
}

/// The register of the common structure at an offset, and its width.
fn common_reg(offset: u64) -> Option<(Reg, u8)> {
    Some(match offset {
        common::DEVICE_FEATURE_SELECT => (Reg::DeviceFeatureSelect, 4),
        common::DEVICE_FEATURE => (Reg::DeviceFeature, 4),
        common::DRIVER_FEATURE_SELECT => (Reg::DriverFeatureSelect, 4),
        common::DRIVER_FEATURE => (Reg::DriverFeature, 4),
        common::CONFIG_MSIX_VECTOR => (Reg::ConfigVector, 2),
        common::NUM_QUEUES => (Reg::NumQueues, 2),
        common::DEVICE_STATUS => (Reg::Status, 1),
        common::CONFIG_GENERATION => (Reg::Generation, 1),
        common::QUEUE_SELECT => (Reg::QueueSelect, 2),
        common::QUEUE_SIZE => (Reg::QueueSize, 2),
        common::QUEUE_MSIX_VECTOR => (Reg::QueueVector, 2),
        common::QUEUE_ENABLE => (Reg::QueueEnable, 2),
        common::QUEUE_NOTIFY_OFF => (Reg::NotifyOff, 2),
        0x20..0x38 if offset.is_multiple_of(4) => {
            (Reg::Area((offset.wrapping_sub(0x20) / 8) as u8, !offset.is_multiple_of(8)), 4)
        }
        common::QUEUE_NOTIF_CONFIG_DATA => (Reg::NotifyData, 2),
        common::QUEUE_RESET => (Reg::QueueReset, 2),
        common::ADMIN_QUEUE_INDEX => (Reg::AdminIndex, 2),
        common::ADMIN_QUEUE_NUM => (Reg::AdminCount, 2),
        _ => return None,
    })
}

/// The legacy register at an offset, and its width.
fn legacy_reg(offset: u64, msix: bool) -> Option<(Reg, u8)> {
    Some(match offset {
        legacy::DEVICE_FEATURES => (Reg::DeviceFeature, 4),
        legacy::DRIVER_FEATURES => (Reg::DriverFeature, 4),
        legacy::QUEUE_ADDRESS => (Reg::PageNumber, 4),
        legacy::QUEUE_SIZE => (Reg::QueueSize, 2),
        legacy::QUEUE_SELECT => (Reg::QueueSelect, 2),
        legacy::QUEUE_NOTIFY => (Reg::Notify, 2),
        legacy::DEVICE_STATUS => (Reg::Status, 1),
        legacy::ISR_STATUS => (Reg::Isr, 1),
        legacy::CONFIG_MSIX_VECTOR if msix => (Reg::ConfigVector, 2),
        legacy::QUEUE_MSIX_VECTOR if msix => (Reg::QueueVector, 2),
        _ => return None,
    })
}

fn width_broken(machine: &Machine, face: Face, offset: u64, width: u8) {
    if let Some(checker) = &mut machine.core().checker {
        checker.width(face, offset, width);
    }
}

pub(super) fn read_modern(machine: &Machine, offset: u64, width: u8) -> Result<u32> {
    let face = Face::PciModern;
    match offset {
        ISR => machine.read(face, Reg::Isr),
        DEVICE..NOTIFY => Ok(space::read_config(machine, face, offset.saturating_sub(DEVICE), width)),
        0..common::FULL_LEN => match common_reg(offset) {
            Some((reg, right)) if right == width => machine.read(face, reg),
            _ => {
                width_broken(machine, face, offset, width);
                Ok(0)
            }
        },
        _ => Ok(0),
    }
}

pub(super) fn write_modern(machine: &Machine, offset: u64, width: u8, value: u32) -> Result<()> {
    let face = Face::PciModern;
    match offset {
        DEVICE..NOTIFY => {
            space::write_config(machine, face, offset.saturating_sub(DEVICE), width, value);
            Ok(())
        }
        0..common::FULL_LEN => match common_reg(offset) {
            Some((reg, right)) if right == width => machine.write(face, reg, value),
            _ => {
                width_broken(machine, face, offset, width);
                Ok(())
            }
        },
        _ => {
            let at = modern_notify(&machine.core(), offset);
            at.map_or(Ok(()), |at| machine.notify(face, width, value, at))
        }
    }
}

/// Where the device configuration starts: it moves with MSI-X.
fn legacy_config(machine: &Machine) -> (u64, bool) {
    let msix = machine.core().irq.msix_enabled();
    (if msix { legacy::CONFIG_MSIX } else { legacy::CONFIG }, msix)
}

pub(super) fn read_legacy(machine: &Machine, offset: u64, width: u8) -> Result<u32> {
    let face = Face::PciLegacy;
    let (config, msix) = legacy_config(machine);
    if let Some(at) = offset.checked_sub(config) {
        return Ok(space::read_config(machine, face, at, width));
    }
    match legacy_reg(offset, msix) {
        Some((reg, right)) if right == width => machine.read(face, reg),
        _ => {
            width_broken(machine, face, offset, width);
            Ok(0)
        }
    }
}

pub(super) fn write_legacy(machine: &Machine, offset: u64, width: u8, value: u32) -> Result<()> {
    let face = Face::PciLegacy;
    let (config, msix) = legacy_config(machine);
    if let Some(at) = offset.checked_sub(config) {
        space::write_config(machine, face, at, width, value);
        return Ok(());
    }
    match legacy_reg(offset, msix) {
        Some((Reg::Notify, 2)) => machine.notify(face, width, value, None),
        Some((reg, right)) if right == width => machine.write(face, reg, value),
        _ => {
            width_broken(machine, face, offset, width);
            Ok(())
        }
    }
}

/// For the PCI configuration access capability (§4.1.4.9): the driver has no other way to a BAR.
pub(super) fn read_bar(machine: &Machine, bar: u8, offset: u64, width: u8) -> Result<u32> {
    let inside = offset.is_multiple_of(width.into()) && offset < modern_size(&machine.core());
    if bar == MODERN_BAR && inside { read_modern(machine, offset, width) } else { Ok(u32::MAX) }
}

pub(super) fn write_bar(machine: &Machine, bar: u8, offset: u64, width: u8, value: u32) -> Result<()> {
    let inside = offset.is_multiple_of(width.into()) && offset < modern_size(&machine.core());
    if bar == MODERN_BAR && inside { write_modern(machine, offset, width, value) } else { Ok(()) }
}

/// A software device as a PCI function.
#[derive(Debug)]
pub(super) struct SoftPci {
    running: Arc<Running>,
    config: Block,
}

impl SoftPci {
    pub(super) fn new(running: &Arc<Running>) -> Self {
        Self { running: Arc::clone(running), config: Block::new(running, Which::PciConfig) }
    }
}

impl PciFunction for SoftPci {
    fn address(&self) -> &str {
        &self.running.machine.address
    }

    fn config(&self) -> &dyn RegisterSpace {
        &self.config
    }

    fn bar(&self, index: u8) -> Result<Option<Bar>> {
        let (kind, which) = {
            let core = self.running.machine.core();
            match index {
                LEGACY_BAR if core.make.legacy => (BarKind::Io, Which::Legacy),
                MSIX_BAR if core.irq.vectors() > 0 => (BarKind::Memory, Which::Msix),
                SHARED_BAR if !core.shared.is_empty() => {
                    (BarKind::Memory, Which::Shared(0, shared_bar(&core)))
                }
                MODERN_BAR if core.make.modern && !core.script.tells(&DeviceLie::BarMissing) => {
                    (BarKind::Memory, Which::Modern)
                }
                _ => return Ok(None),
            }
        };
        Ok(Some(Bar { kind, registers: Arc::new(Block::new(&self.running, which)) }))
    }

    fn msix_vectors(&self) -> u16 {
        self.running.machine.core().irq.vectors()
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>> {
        self.running.machine.core().irq.enable_msix(count)
    }

    fn enable_intx(&self) -> Result<EventFd> {
        self.running.machine.core().irq.enable_line()
    }

    fn unmask_intx(&self) -> Result<()> {
        self.running.machine.core().irq.unmask_line()
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::clone(&self.running.machine.dma) as Arc<dyn DmaMapper>
    }
}
