//! Which devices of a command line have registers, and where QEMU put them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::qemu::Qemu;
use crate::{Error, Result};

/// What the registers of a device are reached by.
#[derive(Debug, Clone)]
pub(super) enum Registers {
    /// A PCI function, by its id.
    Function(String),
    /// An MMIO slot.
    Slot,
}

/// Takes a `-device` argument, of a machine with `slots` or with PCI; `number` tells it from the others. Gives the
/// argument, with an id where one is needed to find the device again, and what it is reached by: nothing where it has no
/// registers of virtio's own.
pub(super) fn registers(text: String, slots: bool, number: usize) -> (String, Option<Registers>) {
    if !text.starts_with("virtio-") && !text.starts_with("vhost-") {
        return (text, None);
    }
    if slots {
        return (text, Some(Registers::Slot));
    }
    let named = text.split(',').skip(1).find_map(|word| word.strip_prefix("id=")).map(ToOwned::to_owned);
    match named {
        Some(id) => (text, Some(Registers::Function(id))),
        None => {
            let id = format!("device{number}");
            (format!("{text},id={id}"), Some(Registers::Function(id)))
        }
    }
}

impl Qemu {
    /// Where the virtio devices of the command line are, in its order: an address for each [`Builder::device`] that
    /// has registers of its own. Those that sit behind another, such as the ports of a console, have none.
    ///
    /// [`Error::NotFound`] for a function that was unplugged, or is behind a bridge.
    ///
    /// [`Builder::device`]: super::Builder::device
    pub fn addresses(&self) -> Result<Vec<String>> {
        let mut slots = 0u64..;
        let mut listing = None;
        let mut addresses = Vec::new();
        for registers in self.registers() {
            addresses.push(match registers {
                Registers::Slot => self.mmio(slots.next().unwrap_or_default())?,
                Registers::Function(id) => {
                    let listing = match &mut listing {
                        Some(listing) => listing,
                        None => listing.insert(self.functions()?),
                    };
                    let found = listing.iter().find(|(known, _)| known == id);
                    let (_, place) = found.ok_or_else(|| {
                        let why = format!("the machine has no PCI function '{id}' on its first bus");
                        Error::NotFound { why: why.into() }
                    })?;
                    self.address().with("pci", place).to_string()
                }
            });
        }
        Ok(addresses)
    }

    /// The ids of the functions of PCI bus 0, with their places.
    fn functions(&self) -> Result<Vec<(String, String)>> {
        let buses = self.qmp().execute("query-pci", "{}")?;
        let first = buses.list().first().and_then(|bus| bus.get("devices"));
        let functions =
            first.map(|devices| devices.list()).unwrap_or_default().iter().filter_map(|function| {
                let id = function.get("qdev_id")?.text()?;
                let (slot, number) = (function.get("slot")?.number()?, function.get("function")?.number()?);
                Some((id.to_owned(), format!("{slot:02x}.{number:x}")))
            });
        Ok(functions.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_registers_are_told_from_those_behind_them() {
        let of = |text: &str, slots| {
            let (text, registers) = registers(text.into(), slots, 7);
            let id = registers.map(|registers| match registers {
                Registers::Function(id) => id,
                Registers::Slot => "a slot".into(),
            });
            (text, id)
        };
        for (text, id, whole) in [
            ("virtio-blk-pci,drive=d", "device7", "virtio-blk-pci,drive=d,id=device7"),
            ("virtio-vga,id=screen,addr=3", "screen", "virtio-vga,id=screen,addr=3"),
            ("vhost-user-fs-pci,id=f", "f", "vhost-user-fs-pci,id=f"),
        ] {
            assert_eq!(of(text, false), (whole.into(), Some(id.into())));
        }
        let slot = "virtio-serial-device,max_ports=2";
        assert_eq!(of(slot, true), (slot.into(), Some("a slot".into())));
        for text in ["virtserialport,chardev=c", "scsi-hd,drive=d", "pcie-root-port,id=p", "virtconsole"] {
            assert_eq!(of(text, false), (text.into(), None));
        }
    }
}
