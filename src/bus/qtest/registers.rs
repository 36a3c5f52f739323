//! Registers over the socket: memory, ports and the configuration space of PCI.

use alloc::format;
use alloc::sync::Arc;

use super::layout::{ConfigSpace, IoSpace};
use super::link::value;
use super::machine::Machine;
use crate::bus::{Doorbell, RegisterSpace};
use crate::{Error, Result};

/// A PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// 0, or that of a bus behind a bridge.
    pub(super) bus: u8,
    /// 0 to 31.
    pub(super) device: u8,
    /// 0 to 7.
    pub(super) function: u8,
}

/// Where a block of registers is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// At this physical address.
    Memory(u64),
    /// From this I/O port on, wherever the machine has ports.
    Ports(u64),
    /// Configuration space of a function.
    Config(Slot),
}

/// Port of the address register of configuration space, and of its data register.
const CONFIG_ADDRESS: u64 = 0xCF8;
const CONFIG_DATA: u64 = 0xCFC;

/// Letter of a width in bytes.
fn letter(width: u8) -> char {
    match width {
        1 => 'b',
        2 => 'w',
        _ => 'l',
    }
}

/// What a register of the machine's own order reads as, turned into the number that its bytes stand for with the
/// lowest first.
fn little(value: u64, width: u8, big: bool) -> u64 {
    match (big, width) {
        (true, 2) => (value as u16).swap_bytes().into(),
        (true, 4) => (value as u32).swap_bytes().into(),
        _ => value,
    }
}

impl Machine {
    fn memory_command(&self, at: u64, width: u8, value: Option<u32>) -> alloc::string::String {
        let letter = letter(width);
        match value {
            None => format!("read{letter} {at:#x}"),
            Some(value) => {
                format!("write{letter} {at:#x} {:#x}", little(value.into(), width, self.big_endian()))
            }
        }
    }

    fn port_command(at: u64, width: u8, value: Option<u32>) -> alloc::string::String {
        let letter = letter(width);
        match value {
            None => format!("in{letter} {at:#x}"),
            Some(value) => format!("out{letter} {at:#x} {value:#x}"),
        }
    }

    /// One access of `width` bytes; a write where there is a `value`. The number is the register's: little-endian,
    /// as PCI's and virtio's are.
    pub(super) fn access(&self, place: Place, offset: u64, width: u8, new: Option<u32>) -> Result<u32> {
        let ports = matches!(self.layout().io, IoSpace::Ports);
        let (answer, swapped) = match (place, self.layout().io) {
            (Place::Ports(first), IoSpace::Ports) => {
                let command = Self::port_command(first.saturating_add(offset), width, new);
                (self.ask(&command)?, false)
            }
            (Place::Memory(first), _) => {
                (self.ask(&self.memory_command(first.saturating_add(offset), width, new))?, true)
            }
            (Place::Ports(first), IoSpace::Memory(base)) => {
                let at = base.saturating_add(first).saturating_add(offset);
                (self.ask(&self.memory_command(at, width, new))?, true)
            }
            (Place::Config(slot), _) => (self.config_access(slot, offset, width, new)?, !ports),
        };
        if new.is_some() {
            return Ok(0);
        }
        let number = value(&answer)?;
        let number = if swapped { little(number, width, self.big_endian()) } else { number };
        Ok(number as u32)
    }

    /// Address register and data register, with nobody's access between.
    fn config_access(
        &self,
        slot: Slot,
        offset: u64,
        width: u8,
        new: Option<u32>,
    ) -> Result<alloc::string::String> {
        let function =
            u32::from(slot.bus) << 16 | u32::from(slot.device) << 11 | u32::from(slot.function) << 8;
        let select = 0x8000_0000 | function | (offset as u32 & 0xFC);
        let lane = offset & 3;
        let (first, second) = match self.layout().config {
            ConfigSpace::Ports => (
                Self::port_command(CONFIG_ADDRESS, 4, Some(select)),
                Self::port_command(CONFIG_DATA.saturating_add(lane), width, new),
            ),
            ConfigSpace::Memory { address, data } => (
                self.memory_command(address, 4, Some(select)),
                self.memory_command(data.saturating_add(lane), width, new),
            ),
            ConfigSpace::None => return Err(Error::Unsupported { what: "this kind of machine has no PCI" }),
        };
        self.ask_two(&first, &second)
    }
}

/// A block of registers of one device.
#[derive(Debug, Clone)]
pub(super) struct Registers {
    pub(super) machine: Arc<Machine>,
    pub(super) place: Place,
    pub(super) size: u64,
}

impl Registers {
    fn check(&self, offset: u64, width: u8) -> Result<()> {
        let inside = offset.checked_add(width.into()).is_some_and(|end| end <= self.size);
        if inside && offset.is_multiple_of(width.into()) {
            return Ok(());
        }
        Err(Error::RegisterOutOfRange { offset, width: width.into(), len: self.size })
    }

    fn read(&self, offset: u64, width: u8) -> Result<u32> {
        self.check(offset, width)?;
        self.machine.access(self.place, offset, width, None)
    }

    fn write(&self, offset: u64, width: u8, value: u32) -> Result<()> {
        self.check(offset, width)?;
        self.machine.access(self.place, offset, width, Some(value)).map(drop)
    }
}

impl RegisterSpace for Registers {
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
        let registers = self.clone();
        Ok(Doorbell::Call(Arc::new(move |value| registers.write(offset, width, value))))
    }
}
