//! Software devices behind a Unix socket: what `virtio.testing.vhost_user` stands on.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::path::PathBuf;
use std::sync::PoisonError;

use pyo3::prelude::*;

use super::testing::{PyLie, Report, device_type};
use crate::address::Address;
use crate::soft::VhostUserDevice;
use crate::spec::DeviceType;
use crate::sync::Mutex;
use crate::{Error, Result};

/// A software device behind a Unix socket, in a thread of this process.
#[pyclass(frozen, module = "virtio.testing", name = "_VhostUserDevice")]
pub(super) struct PyVhostUserDevice {
    /// None after close(). A call that is under way keeps it.
    device: Mutex<Option<Arc<VhostUserDevice>>>,
    device_type: DeviceType,
    address: String,
    /// What it had done and seen when it was closed.
    last: Mutex<Option<crate::soft::VhostUserReport>>,
}

impl PyVhostUserDevice {
    fn get(&self) -> Result<Arc<VhostUserDevice>> {
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner).clone();
        device.ok_or(Error::Closed { what: "vhost-user device" })
    }

    fn seen(&self) -> crate::soft::VhostUserReport {
        match self.get() {
            Ok(device) => device.report(),
            Err(_) => self.last.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default(),
        }
    }
}

#[pymethods]
impl PyVhostUserDevice {
    #[new]
    #[pyo3(signature = (address, path, *, null=false, checked=true, lies=Vec::new()))]
    fn new(
        py: Python<'_>,
        address: &str,
        path: PathBuf,
        null: bool,
        checked: bool,
        lies: Vec<PyRef<'_, PyLie>>,
    ) -> PyResult<Self> {
        let described: Address = address.parse()?;
        let lies: Vec<_> = lies.iter().map(|lie| lie.lie.clone()).collect();
        let device = py.detach(|| match null {
            true => VhostUserDevice::null(path, crate::open::null(&described)?),
            false => crate::open::behind_a_socket(&described)?.checked(checked).lies(lies).build(path),
        })?;
        let (address, device_type) = (device.address().to_string(), device_type(described.place()));
        Ok(Self { device: Mutex::new(Some(Arc::new(device))), device_type, address, last: Mutex::new(None) })
    }

    /// The address that opens it.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// What the device did and saw.
    fn report(&self, py: Python<'_>) -> Report {
        Report { report: py.detach(|| self.seen().device), device_type: self.device_type }
    }

    /// Whether a front-end is connected, and how many have been.
    fn connections(&self, py: Python<'_>) -> (bool, u64) {
        let seen = py.detach(|| self.seen());
        (seen.connected, seen.connections)
    }

    /// What ended the last connection that did not end in peace: an exception, or None.
    fn error(&self, py: Python<'_>) -> Option<PyErr> {
        py.detach(|| self.seen().error).map(PyErr::from)
    }

    /// Ends the connection that there is.
    fn hang_up(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.hang_up())?)
    }

    /// Tells a lie from now on.
    fn tell(&self, py: Python<'_>, lie: &PyLie) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.tell(lie.lie.clone()))?)
    }

    /// Tells no lie any more.
    fn be_honest(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.be_honest())?)
    }

    /// Changes the configuration space from `offset` on, with a message.
    fn change_config(&self, py: Python<'_>, offset: u16, bytes: &[u8]) -> PyResult<()> {
        Ok(py.detach(|| self.get()?.change_config(offset, bytes))?)
    }

    /// Hangs up, and stops serving.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            if let Ok(device) = self.get() {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(device.report());
            }
            let gone = self.device.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(gone);
        });
    }

    fn __repr__(&self) -> String {
        alloc::format!("_VhostUserDevice({})", self.address)
    }
}
