//! PCI functions of a machine: configuration, base address registers, interrupts (VIRTIO 1.4 §4.1).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::PoisonError;

use super::machine::{Claim, Machine};
use super::pump::{MESSAGE, Vector};
use super::registers::{Place, Registers, Slot};
use crate::bus::{Bar, BarKind, PciFunction, RegisterSpace};
use crate::event::{Deadline, EventFd};
use crate::mem::dma::DmaMapper;
use crate::spec::DeviceType;
use crate::spec::pci::{cap, config, msix};
use crate::sync::Mutex;
use crate::{Error, Result};

/// Bits of the command register: I/O space, memory space, bus master, interrupt line off.
mod command {
    pub(super) const IO: u16 = 0x1;
    pub(super) const MEMORY: u16 = 0x2;
    pub(super) const MASTER: u16 = 0x4;
    pub(super) const LINE_OFF: u16 = 0x400;
}

/// Capabilities that a list may have: what is longer goes in circles.
const MOST_CAPABILITIES: usize = 48;

/// A function that is in use.
#[derive(Debug)]
pub(super) struct Function {
    address: String,
    machine: Arc<Machine>,
    config: Registers,
    bars: Vec<Option<Bar>>,
    msix: Option<Msix>,
    interrupts: Mutex<Interrupts>,
    dma: Arc<dyn DmaMapper>,
    claim: Mutex<Option<Claim>>,
}

/// Where the MSI-X capability and its table are.
#[derive(Debug)]
struct Msix {
    capability: u64,
    table: Registers,
    offset: u64,
    count: u16,
}

#[derive(Debug, Default)]
struct Interrupts {
    vectors: Vec<Vector>,
    line: Option<u64>,
}

impl Machine {
    pub(super) fn config(self: &Arc<Self>, slot: Slot) -> Registers {
        Registers { machine: Arc::clone(self), place: Place::Config(slot), size: config::LEN }
    }

    /// The type of the virtio device that is the function, if it is one.
    pub(super) fn probe_function(self: &Arc<Self>, slot: Slot) -> Result<Option<DeviceType>> {
        let space = self.config(slot);
        let ids = space.read32(config::VENDOR_ID)?;
        let (vendor, device) = (ids as u16, (ids >> 16) as u16);
        if vendor == u16::MAX {
            return Ok(None);
        }
        Ok(DeviceType::from_pci_ids(vendor, device, space.read16(config::SUBSYSTEM_ID)?))
    }

    /// Whether the device of function 0 has other functions.
    pub(super) fn many_functions(self: &Arc<Self>, bus: u8, device: u8) -> Result<bool> {
        let space = self.config(Slot { bus, device, function: 0 });
        Ok(space.read16(config::VENDOR_ID)? != u16::MAX && space.read8(config::HEADER_TYPE)? & 0x80 != 0)
    }

    /// Keeps the function, if it is a virtio device's, from reaching memory.
    pub(super) fn disarm_function(self: &Arc<Self>, slot: Slot) -> Result<()> {
        if self.probe_function(slot)?.is_some() {
            let space = self.config(slot);
            let before = space.read16(config::COMMAND)?;
            space.write16(config::COMMAND, before & !command::MASTER)?;
        }
        Ok(())
    }

    /// Takes a function: its BARs are sized, placed and switched on.
    pub(super) fn function(self: &Arc<Self>, slot: Slot, address: &str) -> Result<Function> {
        self.take_over()?;
        let Slot { bus, device, function } = slot;
        let claim = self.claim(&alloc::format!("pci {bus:02x}:{device:02x}.{function:x}"))?;
        let space = self.config(slot);
        if space.read16(config::VENDOR_ID)? == u16::MAX {
            let why = alloc::format!("PCI function {bus:02x}:{device:02x}.{function:x} is empty");
            return Err(Error::NotFound { why: why.into() });
        }
        let before = space.read16(config::COMMAND)?;
        space.write16(config::COMMAND, before & !(command::IO | command::MEMORY | command::MASTER))?;
        let bars = self.bars(slot, &space)?;
        let on = command::IO | command::MEMORY | command::MASTER;
        space.write16(config::COMMAND, before & !command::LINE_OFF | on)?;
        let msix = find_msix(&space, &bars)?;
        let bars = bars
            .into_iter()
            .map(|bar| bar.map(|(kind, registers)| Bar { kind, registers: Arc::new(registers) }));
        Ok(Function {
            address: address.into(),
            machine: Arc::clone(self),
            config: space,
            bars: bars.collect(),
            msix,
            interrupts: Mutex::default(),
            dma: self.dma(),
            claim: Mutex::new(Some(claim)),
        })
    }

    /// Sizes and places all base address registers, which are switched off meanwhile.
    fn bars(self: &Arc<Self>, slot: Slot, space: &Registers) -> Result<Vec<Option<(BarKind, Registers)>>> {
        let mut bars = Vec::new();
        while bars.len() < usize::from(config::BARS) {
            let index = bars.len() as u8;
            let at = config::BAR0.saturating_add(u64::from(index).saturating_mul(4));
            space.write32(at, u32::MAX)?;
            let mask = space.read32(at)?;
            let io = mask & 1 != 0;
            let wide = !io && mask & 0x6 == 0x4;
            let size = u64::from((!(mask & if io { !0x3 } else { !0xF })).wrapping_add(1));
            // An I/O BAR may decode 16 bits only.
            let size = if io { size & 0xFFFF } else { size };
            if mask == 0 || size == 0 {
                // None, or one of 4 GiB and more, which finds no room.
                space.write32(at, 0)?;
                bars.push(None);
            } else {
                let place = self.place_bar(slot, index, size, io)?;
                space.write32(at, place as u32)?;
                let (kind, place) = if io {
                    (BarKind::Io, Place::Ports(place))
                } else {
                    (BarKind::Memory, Place::Memory(place))
                };
                bars.push(Some((kind, Registers { machine: Arc::clone(self), place, size })));
            }
            if wide && bars.len() < usize::from(config::BARS) {
                space.write32(at.saturating_add(4), 0)?;
                bars.push(None);
            }
        }
        Ok(bars)
    }
}

/// Finds MSI-X among the capabilities; `None` where it is not there or makes no sense.
fn find_msix(space: &Registers, bars: &[Option<(BarKind, Registers)>]) -> Result<Option<Msix>> {
    if space.read16(config::STATUS)? & config::STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut at = u64::from(space.read8(config::CAPABILITIES)? & !0x3);
    for _ in 0..MOST_CAPABILITIES {
        if at < config::HEADER_END {
            break;
        }
        if space.read8(at.saturating_add(cap::ID))? != msix::ID {
            at = u64::from(space.read8(at.saturating_add(cap::NEXT))? & !0x3);
            continue;
        }
        let count = (space.read16(at.saturating_add(msix::CONTROL))? & msix::CONTROL_SIZE).saturating_add(1);
        let table = space.read32(at.saturating_add(msix::TABLE))?;
        let offset = u64::from(table & !msix::BIR);
        let end = offset.saturating_add(u64::from(count).saturating_mul(msix::ENTRY));
        let bar = bars.get((table & msix::BIR) as usize).and_then(Option::as_ref);
        let bar = bar.filter(|(kind, registers)| *kind == BarKind::Memory && end <= registers.size);
        return Ok(bar.map(|(_, table)| Msix { capability: at, table: table.clone(), offset, count }));
    }
    Ok(None)
}

impl Msix {
    /// Writes table entry `index`; it is masked where there is no vector for it.
    fn set(&self, index: u16, vector: Option<&Vector>) -> Result<()> {
        let entry = self.offset.saturating_add(u64::from(index).saturating_mul(msix::ENTRY));
        let write = |field: u64, value: u32| self.table.write32(entry.saturating_add(field), value);
        let Some(vector) = vector else {
            return write(msix::ENTRY_CONTROL, 1);
        };
        write(msix::ENTRY_ADDRESS, vector.address as u32)?;
        write(msix::ENTRY_ADDRESS.saturating_add(4), (vector.address >> 32) as u32)?;
        write(msix::ENTRY_DATA, MESSAGE)?;
        write(msix::ENTRY_CONTROL, 0)
    }
}

impl Function {
    /// Nobody is to be told of its interrupts any more.
    fn quiet(&self) {
        let mut interrupts = self.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        for vector in interrupts.vectors.drain(..) {
            self.machine.shared().remove_vector(&vector);
        }
        if let Some(line) = interrupts.line.take() {
            self.machine.shared().remove_line(line);
        }
    }

    /// Switches MSI-X off, and forgets its vectors. Nothing is asked of a function that never had it on.
    fn msix_off(&self, interrupts: &mut Interrupts, msix: &Msix) -> Result<()> {
        let control = msix.capability.saturating_add(msix::CONTROL);
        let now = self.config.read16(control)?;
        self.config.write16(control, now & !(msix::CONTROL_ENABLE | msix::CONTROL_MASK_ALL))?;
        for vector in interrupts.vectors.drain(..) {
            self.machine.shared().remove_vector(&vector);
        }
        Ok(())
    }

    fn msix_on(&self, interrupts: &mut Interrupts, msix: &Msix, count: u16) -> Result<Vec<EventFd>> {
        let control = msix.capability.saturating_add(msix::CONTROL);
        let now = self.config.read16(control)?;
        self.config.write16(control, now | msix::CONTROL_ENABLE | msix::CONTROL_MASK_ALL)?;
        for index in 0..count {
            interrupts.vectors.push(self.machine.shared().add_vector(self.machine.ram())?);
            msix.set(index, interrupts.vectors.last())?;
        }
        for index in count..msix.count {
            msix.set(index, None)?;
        }
        self.config.write16(control, now & !msix::CONTROL_MASK_ALL | msix::CONTROL_ENABLE)?;
        Ok(interrupts.vectors.iter().map(|vector| vector.event.clone()).collect())
    }
}

impl PciFunction for Function {
    fn address(&self) -> &str {
        &self.address
    }

    fn config(&self) -> &dyn RegisterSpace {
        &self.config
    }

    fn bar(&self, index: u8) -> Result<Option<Bar>> {
        Ok(self.bars.get(usize::from(index)).cloned().flatten())
    }

    fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, |msix| msix.count)
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>> {
        let Some(msix) = &self.msix else {
            return if count == 0 {
                Ok(Vec::new())
            } else {
                Err(Error::Unsupported { what: "the function has no MSI-X" })
            };
        };
        let mut interrupts = self.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        self.msix_off(&mut interrupts, msix)?;
        if count == 0 { Ok(Vec::new()) } else { self.msix_on(&mut interrupts, msix, count.min(msix.count)) }
    }

    fn enable_intx(&self) -> Result<EventFd> {
        self.machine.route()?;
        let (number, event) = self.machine.line()?;
        let mut interrupts = self.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = interrupts.line.replace(number) {
            self.machine.shared().remove_line(before);
        }
        Ok(event)
    }

    fn unmask_intx(&self) -> Result<()> {
        self.machine.shared().served();
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::clone(&self.dma)
    }

    fn ended(&self, deadline: Deadline) -> bool {
        self.machine.dead(deadline)
    }

    fn release(&self) {
        self.quiet();
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.quiet();
    }
}
