//! `find()`: what is on this machine, or in a QEMU machine.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{error, of_package};
use crate::find as rust;

/// A device that was found and not opened.
#[pyclass(frozen, module = "virtio", eq, hash)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DeviceInfo {
    /// Where it is, as open() takes it.
    #[pyo3(get)]
    address: String,
    /// What it is reached by.
    #[pyo3(get)]
    transport: &'static str,
    /// The kernel driver that has it, or None.
    #[pyo3(get)]
    driver: Option<String>,
    device_type: u32,
}

impl From<&rust::DeviceInfo> for DeviceInfo {
    fn from(info: &rust::DeviceInfo) -> Self {
        Self {
            address: info.address.to_string(),
            transport: info.transport,
            driver: info.driver.clone(),
            device_type: info.device_type.0,
        }
    }
}

#[pymethods]
impl DeviceInfo {
    /// Its type, a DeviceType.
    #[getter]
    fn r#type<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        of_package(py, "virtio.enums", "DeviceType")?.call1((self.device_type,))
    }

    fn __repr__(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("unbound");
        alloc::format!("DeviceInfo({}, {driver})", self.address)
    }
}

/// Devices that were found, one after the other. It can be left and taken up again.
#[pyclass(frozen, module = "virtio")]
#[derive(Debug)]
pub(super) struct Found {
    devices: Vec<DeviceInfo>,
    next: AtomicUsize,
}

#[pymethods]
impl Found {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<DeviceInfo> {
        self.devices.get(self.next.fetch_add(1, Ordering::Relaxed)).cloned()
    }
}

/// What devices of this machine, or of QEMU's, are reached by.
const TRANSPORTS: [&str; 2] = ["pci", "mmio"];

/// The devices that fit: by type, by transport ("pci" or "mmio"), by kernel driver. Without an address those of this
/// machine, which needs no privileges and opens nothing; with `qtest:SOCKET?ram=FILE` those of a
/// QEMU machine, on its PCI buses and in its MMIO slots; none is written to.
#[pyfunction]
#[pyo3(signature = (address=None, /, *, r#type=None, transport=None, driver=None))]
pub(super) fn find(
    py: Python<'_>,
    address: Option<&str>,
    r#type: Option<u32>,
    transport: Option<&str>,
    driver: Option<&str>,
) -> PyResult<Found> {
    if transport.is_some_and(|wanted| !TRANSPORTS.contains(&wanted)) {
        return Err(PyValueError::new_err("transport is \"pci\" or \"mmio\""));
    }
    let found = match address {
        None => py.detach(rust::find)?,
        Some(address) => {
            let found = py.detach(|| rust::find_in(address)?.collect::<crate::Result<Vec<_>>>());
            found.map_err(error::opening)?
        }
    };
    let fits = |info: &&rust::DeviceInfo| {
        r#type.is_none_or(|wanted| wanted == info.device_type.0)
            && transport.is_none_or(|wanted| wanted == info.transport)
            && driver.is_none_or(|wanted| info.driver.as_deref() == Some(wanted))
    };
    let devices = found.iter().filter(fits).map(DeviceInfo::from).collect();
    Ok(Found { devices, next: AtomicUsize::new(0) })
}
