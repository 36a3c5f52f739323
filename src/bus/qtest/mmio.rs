//! MMIO slots of a machine (VIRTIO 1.4 §4.2).

use alloc::string::String;
use alloc::sync::Arc;
use std::sync::PoisonError;

use super::layout::SLOT_LEN;
use super::machine::{Claim, Machine};
use super::registers::{Place, Registers};
use crate::Result;
use crate::bus::{MmioSlot, RegisterSpace};
use crate::event::{Deadline, EventFd};
use crate::mem::dma::DmaMapper;
use crate::spec::{DeviceType, mmio};
use crate::sync::Mutex;

/// A slot that is in use.
#[derive(Debug)]
pub(super) struct Slot {
    address: String,
    machine: Arc<Machine>,
    registers: Arc<Registers>,
    line: Mutex<Option<u64>>,
    dma: Arc<dyn DmaMapper>,
    claim: Mutex<Option<Claim>>,
}

impl Machine {
    fn slot_registers(self: &Arc<Self>, base: u64) -> Registers {
        Registers { machine: Arc::clone(self), place: Place::Memory(base), size: SLOT_LEN }
    }

    /// The type of the device in the slot at `base`, if there is one.
    pub(super) fn probe_slot(self: &Arc<Self>, base: u64) -> Result<Option<DeviceType>> {
        let registers = self.slot_registers(base);
        if registers.read32(mmio::MAGIC_VALUE)? != mmio::MAGIC {
            return Ok(None);
        }
        let id = registers.read32(mmio::DEVICE_ID)?;
        Ok((id != 0).then_some(DeviceType(id)))
    }

    /// Resets the device in the slot at `base`, if there is one, so that it does not reach memory.
    pub(super) fn disarm_slot(self: &Arc<Self>, base: u64) -> Result<()> {
        if self.probe_slot(base)?.is_some() {
            self.slot_registers(base).write32(mmio::STATUS, 0)?;
        }
        Ok(())
    }

    /// Takes the slot at `base`.
    pub(super) fn slot(self: &Arc<Self>, base: u64, address: &str) -> Result<Slot> {
        self.take_over()?;
        let claim = self.claim(&alloc::format!("mmio {base:#x}"))?;
        Ok(Slot {
            address: address.into(),
            machine: Arc::clone(self),
            registers: Arc::new(self.slot_registers(base)),
            line: Mutex::new(None),
            dma: self.dma(),
            claim: Mutex::new(Some(claim)),
        })
    }
}

impl MmioSlot for Slot {
    fn address(&self) -> &str {
        &self.address
    }

    fn registers(&self) -> Arc<dyn RegisterSpace> {
        Arc::clone(&self.registers) as Arc<dyn RegisterSpace>
    }

    fn enable_interrupt(&self) -> Result<EventFd> {
        let (number, event) = self.machine.line()?;
        let before = self.line.lock().unwrap_or_else(PoisonError::into_inner).replace(number);
        if let Some(before) = before {
            self.machine.shared().remove_line(before);
        }
        Ok(event)
    }

    fn unmask_interrupt(&self) -> Result<()> {
        self.machine.shared().served();
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::clone(&self.dma)
    }

    fn shared_memory(&self, address: u64, length: u64) -> Result<Option<Arc<dyn RegisterSpace>>> {
        let registers =
            Registers { machine: Arc::clone(&self.machine), place: Place::Memory(address), size: length };
        Ok(Some(Arc::new(registers)))
    }

    fn ended(&self, deadline: Deadline) -> bool {
        self.machine.dead(deadline)
    }

    fn release(&self) {
        self.quiet();
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Slot {
    /// Nobody is to be told of its interrupts any more.
    fn quiet(&self) {
        if let Some(line) = self.line.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.machine.shared().remove_line(line);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.quiet();
    }
}
