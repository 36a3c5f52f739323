//! Which devices are there: on this machine, by a listing of sysfs, which needs no privileges and opens no device; in
//! a QEMU machine, by a look at its configuration space and slots.
#![cfg(not(loom))]

use alloc::borrow::ToOwned;
use alloc::string::String;
#[cfg(feature = "qtest")]
use alloc::string::ToString;
use alloc::vec::Vec;
#[cfg(feature = "qtest")]
use core::time::Duration;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::address::{Address, Scheme};
#[cfg(feature = "qtest")]
use crate::bus::qtest::{Machine, MachineOptions, Seat};
use crate::error::{Error, errno};
use crate::spec::DeviceType;

/// A device that was found. Nothing of it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Where it is, as [`crate::open()`] takes it.
    pub address: Address,
    /// Its type.
    pub device_type: DeviceType,
    /// What it is reached by: `pci`, `mmio`.
    pub transport: &'static str,
    /// The kernel driver that has it, if any: as long as that is so, it is not to be opened.
    pub driver: Option<String>,
}

/// The devices of this machine, in the order of their addresses: PCI functions with virtio's ids (VIRTIO 1.4 §4.1.2).
///
/// [`Error::Os`] where sysfs cannot be read. Devices that come or go meanwhile are left out.
pub fn find() -> Result<Vec<DeviceInfo>> {
    find_below(Path::new("/sys"))
}

/// The same below another directory than `/sys`: for tests, and for listings that were copied from elsewhere.
pub fn find_below(sysfs: &Path) -> Result<Vec<DeviceInfo>> {
    let entries = match fs::read_dir(sysfs.join("bus/pci/devices")) {
        Ok(entries) => entries,
        // A machine without PCI.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(errno::EIO);
            return Err(Error::Os { doing: "list the PCI functions in sysfs", errno });
        }
    };
    let mut found: Vec<DeviceInfo> = entries.flatten().filter_map(|entry| pci(&entry.path())).collect();
    found.sort_by(|a, b| a.address.place().cmp(b.address.place()));
    Ok(found)
}

/// The device behind a PCI function, if it is one.
fn pci(function: &Path) -> Option<DeviceInfo> {
    let id = |name| {
        let text = fs::read_to_string(function.join(name)).ok()?;
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let device_type = DeviceType::from_pci_ids(id("vendor")?, id("device")?, id("subsystem_device")?)?;
    let driver = fs::read_link(function.join("driver")).ok();
    let driver = driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    let place = function.file_name()?.to_str()?.to_owned();
    Some(DeviceInfo { address: Address::new(Scheme::Pci, place), device_type, transport: "pci", driver })
}

/// How the machine that a `qtest:` address names is reached; [`Error::BadAddress`] where that is not said.
#[cfg(feature = "qtest")]
pub(crate) fn machine_options(address: &Address) -> Result<MachineOptions> {
    let ram = address
        .get("ram")
        .ok_or_else(|| address.bad("ram= is needed: the file that is the machine's RAM"))?;
    let mut options = MachineOptions::new(address.place(), ram);
    options.kind = address.get("machine").map(ToOwned::to_owned);
    if let Some(timeout) = address.number("timeout")? {
        options.timeout = Duration::from_millis(timeout);
    }
    Ok(options)
}

/// The devices of a QEMU machine, `qtest:SOCKET?ram=FILE`, one after the other: functions of its PCI bus 0 and of
/// those behind its bridges, then its MMIO slots. The address of each is the machine's with its place. Nothing is written to a device; one may be opened
/// while the rest is still to come.
///
/// [`Error::BadAddress`] for an address of another kind; else as
/// [`Machine::connect`](crate::bus::qtest::Machine::connect).
#[cfg(feature = "qtest")]
pub fn find_in(address: &str) -> Result<impl Iterator<Item = Result<DeviceInfo>> + use<>> {
    let address: Address = address.parse()?;
    let found = devices(&address).map_err(|error| error.at(&address.to_string()))?;
    Ok(found.map(move |found| {
        let (seat, device_type) = found.map_err(|error| error.at(&address.to_string()))?;
        let (key, value) = seat.param();
        let transport = if key == "pci" { "pci" } else { "mmio" };
        Ok(DeviceInfo { address: address.clone().with(key, value), device_type, transport, driver: None })
    }))
}

#[cfg(feature = "qtest")]
fn devices(address: &Address) -> Result<impl Iterator<Item = Result<(Seat, DeviceType)>> + use<>> {
    if address.scheme() != Scheme::Qtest {
        return Err(address.bad("only in machines at qtest: addresses there is something to find"));
    }
    address.check_keys(&["ram", "machine", "timeout"])?;
    Ok(Machine::connect(&machine_options(address)?)?.devices())
}
