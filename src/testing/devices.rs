//! Which devices of a command line have registers, and where QEMU put them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::json::{Json, quote};
use super::qemu::Qemu;
use crate::{Error, Result};

/// What the registers of a device are reached by.
#[derive(Debug, Clone)]
pub(super) enum Registers {
    /// A PCI function, by its id, and the id of the bridge that it is behind.
    Function(String, Option<String>),
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
    let property =
        |name| text.split(',').skip(1).find_map(|word| word.strip_prefix(name)).map(ToOwned::to_owned);
    // The first buses of machines have names of their own.
    let bridge = property("bus=").filter(|bus| !["pci", "pci.0", "pcie.0"].contains(&bus.as_str()));
    match property("id=") {
        Some(id) => (text, Some(Registers::Function(id, bridge))),
        None => {
            let id = format!("device{number}");
            (format!("{text},id={id}"), Some(Registers::Function(id, bridge)))
        }
    }
}

impl Qemu {
    /// Where the virtio devices of the command line are, in its order: an address for each [`Builder::device`] that
    /// has registers of its own. Those that sit behind another, such as the ports of a console, have none.
    ///
    /// [`Error::NotFound`] for a function that was unplugged, or is behind a bridge that is itself behind one.
    ///
    /// [`Builder::device`]: super::Builder::device
    pub fn addresses(&self) -> Result<Vec<String>> {
        let mut slots = 0u64..;
        let mut bridges = None;
        let mut addresses = Vec::new();
        for registers in self.registers() {
            addresses.push(match registers {
                Registers::Slot => self.mmio(slots.next().unwrap_or_default())?,
                Registers::Function(id, None) => self.function(id, "")?,
                Registers::Function(id, Some(bridge)) => {
                    let known = match &mut bridges {
                        Some(known) => known,
                        None => bridges.insert(self.bridges()?),
                    };
                    let before = known.iter().position(|(_, id)| id == bridge);
                    let before = before.ok_or_else(|| not_there(bridge, "bridge of the first bus"))?;
                    self.function(id, &format!("{:02x}:", before.saturating_add(1)))?
                }
            });
        }
        Ok(addresses)
    }

    /// The address of a function, by its id; `bus` goes before its place.
    fn function(&self, id: &str, bus: &str) -> Result<String> {
        let wanted = format!("{{\"path\":{},\"property\":\"addr\"}}", quote(id));
        let place = self.qmp().execute("qom-get", &wanted).map_err(|error| match error {
            Error::Protocol { .. } => not_there(id, "PCI function"),
            error => error,
        })?;
        let place = place.number().ok_or_else(|| not_there(id, "PCI function"))?;
        let (device, function) = (place >> 3, place & 7);
        Ok(self.address().with("pci", format!("{bus}{device:02x}.{function:x}")).to_string())
    }

    /// The bridges of the first PCI bus by their places, with their ids: in the order in which the buses behind them are
    /// counted.
    fn bridges(&self) -> Result<Vec<((i64, i64), String)>> {
        let buses = self.qmp().execute("query-pci", "{}")?;
        let first = buses.list().first().and_then(|bus| bus.get("devices")).map(Json::list);
        let bridges = first.unwrap_or_default().iter().filter_map(|function| {
            function.get("pci_bridge")?;
            let place = (function.get("slot")?.number()?, function.get("function")?.number()?);
            Some((place, function.get("qdev_id")?.text()?.to_owned()))
        });
        let mut bridges: Vec<_> = bridges.collect();
        bridges.sort();
        Ok(bridges)
    }
}

fn not_there(id: &str, what: &str) -> Error {
    Error::NotFound { why: format!("the machine has no {what} with the id '{id}'").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_registers_are_told_from_those_behind_them() {
        let of = |text: &str, slots| {
            let (text, registers) = registers(text.into(), slots, 7);
            let id = registers.map(|registers| match registers {
                Registers::Function(id, bridge) => {
                    id + &bridge.map(|id| format!(" behind {id}")).unwrap_or_default()
                }
                Registers::Slot => "a slot".into(),
            });
            (text, id)
        };
        for (text, id, whole) in [
            ("virtio-blk-pci,drive=d", "device7", "virtio-blk-pci,drive=d,id=device7"),
            ("virtio-vga,id=screen,addr=3", "screen", "virtio-vga,id=screen,addr=3"),
            ("vhost-user-fs-pci,id=f", "f", "vhost-user-fs-pci,id=f"),
            ("virtio-rng-pci,id=r,bus=p", "r behind p", "virtio-rng-pci,id=r,bus=p"),
            ("virtio-rng-pci,bus=pcie.0,id=r", "r", "virtio-rng-pci,bus=pcie.0,id=r"),
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
