//! Blocks of registers: what the traits of [`crate::bus`] ask for, over a running device.

use alloc::sync::Arc;

use super::core::{Core, Face};
use super::machine::{Machine, Running};
use super::script::DeviceLie;
use super::{mmio, pci, pci_config};
use crate::bus::{Doorbell, RegisterSpace};
use crate::{Error, Result};

/// Which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    PciConfig,
    /// BAR with the modern structures.
    Modern,
    /// BAR with the legacy registers.
    Legacy,
    /// BAR with the MSI-X table.
    Msix,
    /// Shared memory from this offset on, so many bytes.
    Shared(u64, u64),
    Mmio(Face),
}

/// A block of a device's registers.
#[derive(Debug, Clone)]
pub(super) struct Block {
    running: Arc<Running>,
    which: Which,
    size: u64,
}

impl Block {
    pub(super) fn new(running: &Arc<Running>, which: Which) -> Self {
        let size = size_of(&running.machine.core(), which);
        Self { running: Arc::clone(running), which, size }
    }

    fn machine(&self) -> &Machine {
        &self.running.machine
    }

    fn check(&self, offset: u64, width: u8) -> Result<()> {
        let inside = offset.checked_add(width.into()).is_some_and(|end| end <= self.size);
        if inside && offset.is_multiple_of(width.into()) {
            return Ok(());
        }
        Err(Error::RegisterOutOfRange { offset, width: width.into(), len: self.size })
    }

    /// What every access to a device that is not there any more reads; `None` where it is there.
    fn missing(&self) -> Option<u32> {
        let core = self.machine().core();
        if core.script.tells(&DeviceLie::AllOnes) {
            return Some(u32::MAX);
        }
        let memory = matches!(self.which, Which::Modern | Which::Msix | Which::Shared(..));
        core.script.tells(&DeviceLie::Removed).then_some(if memory { 0 } else { u32::MAX })
    }

    fn read(&self, offset: u64, width: u8) -> Result<u32> {
        self.machine().accessed();
        self.check(offset, width)?;
        if let Some(value) = self.missing() {
            return Ok(value);
        }
        let machine = self.machine();
        match self.which {
            Which::PciConfig => pci_config::read(machine, offset, width),
            Which::Modern => pci::read_modern(machine, offset, width),
            Which::Legacy => pci::read_legacy(machine, offset, width),
            Which::Msix => Ok(machine.core().irq.read_table(offset & !3, pci::MSIX_PBA)),
            Which::Shared(start, _) => Ok(read_shared(&machine.core(), start.saturating_add(offset), width)),
            Which::Mmio(face) => mmio::read(machine, face, offset, width),
        }
    }

    fn write(&self, offset: u64, width: u8, value: u32) -> Result<()> {
        self.machine().accessed();
        self.check(offset, width)?;
        if self.missing().is_some() {
            return Ok(());
        }
        let machine = self.machine();
        match self.which {
            Which::PciConfig => pci_config::write(machine, offset, width, value),
            Which::Modern => pci::write_modern(machine, offset, width, value),
            Which::Legacy => pci::write_legacy(machine, offset, width, value),
            Which::Msix => machine.core().irq.write_table(offset & !3, value),
            Which::Shared(start, _) => {
                write_shared(&mut machine.core(), start.saturating_add(offset), width, value);
                Ok(())
            }
            Which::Mmio(face) => mmio::write(machine, face, offset, width, value),
        }
    }
}

fn size_of(core: &Core, which: Which) -> u64 {
    let config = core.config(which == Which::Legacy).len() as u64;
    match which {
        Which::PciConfig => crate::spec::pci::config::LEN,
        Which::Modern => pci::modern_size(core),
        Which::Legacy => crate::spec::pci::legacy::CONFIG_MSIX.saturating_add(config).next_power_of_two(),
        Which::Msix => pci::MSIX_SIZE,
        Which::Shared(_, len) => len,
        Which::Mmio(_) => crate::spec::mmio::CONFIG.saturating_add(config),
    }
}

/// Length of the memory in which all shared memory regions lie.
pub(super) fn shared_size(core: &Core) -> u64 {
    let pad = |len: usize| (len as u64).next_multiple_of(4096);
    core.shared.iter().fold(0, |sum: u64, region| sum.saturating_add(pad(region.bytes.len())))
}

/// The bytes of shared memory from `offset` on.
fn shared_at(core: &mut Core, offset: u64) -> Option<&mut [u8]> {
    let mut start = 0u64;
    for region in &mut core.shared {
        let len = region.bytes.len() as u64;
        if offset >= start && offset < start.saturating_add(len) {
            return region.bytes.get_mut(offset.saturating_sub(start) as usize..);
        }
        start = start.saturating_add(len).next_multiple_of(4096);
    }
    None
}

fn read_shared(core: &Core, offset: u64, width: u8) -> u32 {
    let mut start = 0u64;
    for region in &core.shared {
        let len = region.bytes.len() as u64;
        if let Some(at) = offset.checked_sub(start).filter(|at| *at < len) {
            return read_bytes(&region.bytes, at, width);
        }
        start = start.saturating_add(len).next_multiple_of(4096);
    }
    0
}

fn write_shared(core: &mut Core, offset: u64, width: u8, value: u32) {
    if let Some(bytes) = shared_at(core, offset) {
        for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()).take(width.into()) {
            *to = from;
        }
    }
}

/// Up to four bytes as a number, the first as the lowest; what is not there is 0.
pub(super) fn read_bytes(bytes: &[u8], offset: u64, width: u8) -> u32 {
    let from = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
    from.iter().take(width.into()).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The device configuration of an interface, as it is read and written.
pub(super) fn read_config(machine: &Machine, face: Face, offset: u64, width: u8) -> u32 {
    let mut core = machine.core();
    if let Some(mut checker) = core.checker.take() {
        checker.config(&core, face, offset, width, false);
        core.checker = Some(checker);
    }
    read_bytes(&core.config(face.legacy()), offset, width)
}

pub(super) fn write_config(machine: &Machine, face: Face, offset: u64, width: u8, value: u32) {
    let mut core = machine.core();
    if let Some(mut checker) = core.checker.take() {
        checker.config(&core, face, offset, width, true);
        core.checker = Some(checker);
    }
    let bytes = value.to_le_bytes();
    core.write_config(offset, bytes.get(..usize::from(width)).unwrap_or_default(), face.legacy());
}

impl RegisterSpace for Block {
    fn size(&self) -> u64 {
        self.size
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
        let running = Arc::clone(&self.running);
        // A driver rings often: what it means is found once.
        let rings = match self.which {
            Which::Modern => {
                pci::modern_notify(&running.machine.core(), offset).map(|at| (Face::PciModern, at))
            }
            Which::Legacy if offset == crate::spec::pci::legacy::QUEUE_NOTIFY => {
                Some((Face::PciLegacy, None))
            }
            Which::Mmio(face) if offset == crate::spec::mmio::QUEUE_NOTIFY => Some((face, None)),
            _ => None,
        };
        if let Some((face, at)) = rings {
            let ring = move |value| running.machine.notify(face, width, value, at);
            return Ok(Doorbell::Call(Arc::new(ring)));
        }
        let block = self.clone();
        Ok(Doorbell::Call(Arc::new(move |value| block.write(offset, width, value))))
    }
}
