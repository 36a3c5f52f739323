//! Devices of a QEMU machine, driven over its qtest socket.
//!
//! The machine's processor is halted; this process does what a driver in the machine would do. Registers go over the
//! socket, some tens of microseconds each. The machine's RAM is a file that both processes map: rings and buffers are
//! shared memory, and the address that a device knows is the offset in the file. Interrupts become events by a thread
//! of the machine's, the only one of this library that no device of its own needs.
//!
//! Such a machine is started by hand with
//!
//! ```text
//! qemu-system-x86_64 -M pc,memory-backend=m -object memory-backend-file,id=m,share=on,mem-path=RAM,size=64M
//!     -m 64 -accel tcg -bios HALT -qtest unix:SOCKET,server=on,wait=off -device …
//! ```
//!
//! where `HALT` is 64 KiB of firmware that halts the processor, or with the rig `virtio::testing`. Nobody else may
//! map the file to write it, and whoever shortens it ends both processes. All but the first MiB of the RAM, up to
//! 2 GiB, is for devices: nothing else may run in the machine.
//!
//! With the first device that is opened the machine is taken over: all its virtio devices are kept from reaching memory
//! until they are opened themselves.
//!
//! A machine serves one connection. Within a process all handles share it ([`Machine::connect`]); another process
//! finds the machine busy.
#![cfg(not(loom))]

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::registers::Slot;
use super::{MmioSlot, PciFunction};
use crate::spec::DeviceType;
use crate::{Error, Result};

mod bridges;
mod layout;
mod link;
mod machine;
mod mmio;
mod pci;
mod pump;
mod registers;
mod wire;

pub use machine::{DEFAULT_TIMEOUT, Machine, MachineOptions};

/// Where in its machine a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seat {
    /// A PCI function.
    Pci {
        /// 0, or that of a bus behind a bridge of bus 0, which are counted from 1 on in the order of the bridges.
        bus: u8,
        /// 0 to 31.
        device: u8,
        /// 0 to 7.
        function: u8,
    },
    /// An MMIO slot, by its physical address.
    Mmio(u64),
}

impl Seat {
    /// From `04.0` or `01:04.0`: bus where it is not 0, device and function, in hexadecimal digits.
    pub fn parse_pci(text: &str) -> Option<Self> {
        let (bus, text) = text.split_once(':').unwrap_or(("0", text));
        let bus = u8::from_str_radix(bus, 16).ok()?;
        let (device, function) = text.split_once('.')?;
        let device = u8::from_str_radix(device, 16).ok().filter(|device| *device < 32)?;
        let function = u8::from_str_radix(function, 16).ok().filter(|function| *function < 8)?;
        Some(Self::Pci { bus, device, function })
    }

    /// The parameter by which an address names it.
    pub fn param(self) -> (&'static str, String) {
        match self {
            Self::Pci { bus: 0, device, function } => ("pci", format!("{device:02x}.{function:x}")),
            Self::Pci { bus, device, function } => ("pci", format!("{bus:02x}:{device:02x}.{function:x}")),
            Self::Mmio(base) => ("mmio", format!("{base:#x}")),
        }
    }
}

impl Machine {
    /// The virtio devices of the machine, in the order of their places: PCI functions of bus 0 and of those behind its
    /// bridges, then MMIO slots. Nothing is written to them; bridges are opened.
    pub fn devices(self: &Arc<Self>) -> impl Iterator<Item = Result<(Seat, DeviceType)>> + use<> {
        let machine = Arc::clone(self);
        let (seats, mut fault) = match machine.seats() {
            Ok(seats) => (seats, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut seats = seats.into_iter();
        let mut more: Vec<Seat> = Vec::new();
        core::iter::from_fn(move || {
            if let Some(error) = fault.take() {
                return Some(Err(error));
            }
            loop {
                let seat = more.pop().or_else(|| seats.next())?;
                if let Seat::Pci { bus, device, function: 0 } = seat {
                    match machine.many_functions(bus, device) {
                        Ok(false) => {}
                        Ok(true) => {
                            more.extend((1..8).rev().map(|function| Seat::Pci { bus, device, function }))
                        }
                        Err(error) => return Some(Err(error)),
                    }
                }
                match machine.probe(seat) {
                    Ok(None) => {}
                    Ok(Some(device_type)) => return Some(Ok((seat, device_type))),
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// Where devices can be, but for functions above 0.
    fn seats(self: &Arc<Self>) -> Result<Vec<Seat>> {
        let layout = self.layout();
        let devices = if matches!(layout.config, layout::ConfigSpace::None) { 0 } else { 32 };
        let functions = (0..=self.number_buses()?)
            .flat_map(|bus| (0..devices).map(move |device| Seat::Pci { bus, device, function: 0 }));
        let slots = (0..layout.slots.count)
            .map(|k| Seat::Mmio(layout.slots.first.saturating_add(k.saturating_mul(layout.slots.stride))));
        Ok(functions.chain(slots).collect())
    }

    /// Keeps the device there, if there is one, from reaching memory.
    fn disarm(self: &Arc<Self>, seat: Seat) -> Result<()> {
        match seat {
            Seat::Pci { bus, device, function: 0 } => {
                let functions = if self.many_functions(bus, device)? { 8 } else { 1 };
                (0..functions).try_for_each(|function| self.disarm_function(Slot { bus, device, function }))
            }
            Seat::Pci { bus, device, function } => self.disarm_function(Slot { bus, device, function }),
            Seat::Mmio(base) => self.disarm_slot(base),
        }
    }

    fn probe(self: &Arc<Self>, seat: Seat) -> Result<Option<DeviceType>> {
        match seat {
            Seat::Pci { bus, device, function } => self.probe_function(Slot { bus, device, function }),
            Seat::Mmio(base) => self.probe_slot(base),
        }
    }

    /// Takes a PCI function: its base address registers are placed, and it is switched on. `address` is its name in
    /// errors.
    ///
    /// [`Error::NotFound`] where there is none, [`Error::DeviceBusy`] while this process has it already.
    pub fn pci(
        self: &Arc<Self>,
        bus: u8,
        device: u8,
        function: u8,
        address: &str,
    ) -> Result<Arc<dyn PciFunction>> {
        if device >= 32 || function >= 8 {
            return Err(Error::Misuse { what: "PCI devices are numbered 0 to 31, functions 0 to 7" });
        }
        Ok(Arc::new(self.function(Slot { bus, device, function }, address)?))
    }

    /// Takes the MMIO slot at a physical address; as [`Machine::pci`].
    pub fn mmio(self: &Arc<Self>, base: u64, address: &str) -> Result<Arc<dyn MmioSlot>> {
        Ok(Arc::new(self.slot(base, address)?))
    }
}
