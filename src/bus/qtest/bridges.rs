//! Buses behind PCI bridges, which firmware would have numbered.

use alloc::sync::Arc;

use super::layout::Bridges;
use super::machine::Machine;
use super::registers::{Registers, Slot};
use crate::bus::RegisterSpace;
use crate::spec::pci::config;
use crate::{Error, Result};

/// Registers of a bridge (header type 1).
mod bridge {
    pub(super) const PRIMARY: u64 = 0x18;
    pub(super) const SECONDARY: u64 = 0x19;
    pub(super) const SUBORDINATE: u64 = 0x1A;
    pub(super) const IO_BASE: u64 = 0x1C;
    pub(super) const IO_LIMIT: u64 = 0x1D;
    pub(super) const MEMORY_BASE: u64 = 0x20;
    pub(super) const MEMORY_LIMIT: u64 = 0x22;
    pub(super) const PREFETCHABLE_BASE: u64 = 0x24;
    pub(super) const PREFETCHABLE_LIMIT: u64 = 0x26;
    pub(super) const IO_BASE_UPPER: u64 = 0x30;
    /// I/O space, memory space, bus master.
    pub(super) const ON: u16 = 0x7;
}

impl Machine {
    /// Gives the buses behind the bridges of bus 0 their numbers and windows, in the order of the bridges: the same
    /// each time. Answers the number of the last bus. Bridges behind bridges lead nowhere.
    pub(super) fn number_buses(self: &Arc<Self>) -> Result<u8> {
        let Some(bridges) = &self.layout().bridges else { return Ok(0) };
        if let Some(last) = self.buses() {
            return Ok(last);
        }
        let mut last = 0;
        for device in 0..32 {
            let functions = if self.many_functions(0, device)? { 8 } else { 1 };
            for function in 0..functions {
                let space = self.config(Slot { bus: 0, device, function });
                if last < bridges.count && is_bridge(&space)? {
                    last = last.saturating_add(1);
                    open(&space, last, bridges)?;
                }
            }
        }
        self.set_buses(last);
        Ok(last)
    }
}

fn is_bridge(space: &Registers) -> Result<bool> {
    Ok(space.read16(config::VENDOR_ID)? != u16::MAX && space.read8(config::HEADER_TYPE)? & 0x7F == 1)
}

/// Opens the bridge to bus `number`: memory and I/O, without a window of its own for what may be prefetched.
fn open(space: &Registers, number: u8, bridges: &Bridges) -> Result<()> {
    let misplaced = Error::Misuse { what: "the window of a bus is below 4 GiB" };
    let (memory, io) = (bridges.memory(number), bridges.io(number));
    let granule = |address: u64| u16::try_from(address >> 16).map_err(|_| misplaced.clone());
    space.write8(bridge::PRIMARY, 0)?;
    space.write8(bridge::SECONDARY, number)?;
    space.write8(bridge::SUBORDINATE, number)?;
    space.write16(bridge::MEMORY_BASE, granule(memory.0)? & 0xFFF0)?;
    space.write16(bridge::MEMORY_LIMIT, granule(memory.1)? & 0xFFF0)?;
    // A base above its limit is no window.
    space.write16(bridge::PREFETCHABLE_BASE, 0xFFF0)?;
    space.write16(bridge::PREFETCHABLE_LIMIT, 0)?;
    space.write8(bridge::IO_BASE, (io.0 >> 8) as u8 & 0xF0)?;
    space.write8(bridge::IO_LIMIT, (io.1 >> 8) as u8 & 0xF0)?;
    space.write32(bridge::IO_BASE_UPPER, 0)?;
    let before = space.read16(config::COMMAND)?;
    space.write16(config::COMMAND, before | bridge::ON)
}
