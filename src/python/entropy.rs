//! Entropy devices.

use alloc::string::String;
use std::sync::PoisonError;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::whole::Whole;
use super::{end, error, wait};
use crate::drivers::{self, Between};
use crate::mem::process::Process;
use crate::sync::Mutex;
use crate::{Error, Result};

/// Random bytes from an entropy device.
#[pyclass(frozen, module = "virtio")]
pub(super) struct Entropy {
    source: Mutex<Option<drivers::Entropy>>,
    address: String,
    owner: Process,
}

impl Entropy {
    fn shut(&self) -> Result<()> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        source.map_or(Ok(()), |source| source.into_device().close())
    }
}

impl Drop for Entropy {
    fn drop(&mut self) {
        if self.owner.is_current() {
            end::forgotten(|| self.shut());
        }
    }
}

#[pymethods]
impl Entropy {
    /// Opens the entropy device at an address and sets it up. `timeout` limits the wait for each answer, in seconds.
    #[new]
    #[pyo3(signature = (address, *, timeout=Some(30.0)), text_signature = "(address, *, timeout=30.0)")]
    fn new(py: Python<'_>, address: &str, timeout: Option<f64>) -> PyResult<Self> {
        let timeout = wait::longest(timeout)?;
        let made = py.detach(|| drivers::Entropy::open(address, timeout)).map_err(error::opening)?;
        let source = made.with_between(Between::new(wait::look_after_signals));
        Ok(Self { source: Mutex::new(Some(source)), address: address.into(), owner: Process::current() })
    }

    /// `length` random bytes.
    fn read<'py>(&self, py: Python<'py>, length: Whole<usize>) -> PyResult<Bound<'py, PyBytes>> {
        self.owner.check("entropy device")?;
        PyBytes::new_with(py, length.0, |to| {
            let filled = py.detach(|| match self.source.try_lock() {
                Ok(mut source) => {
                    let source = source.as_mut().ok_or(Error::Closed { what: "entropy device" });
                    Some(source.and_then(|source| source.fill(to)))
                }
                Err(_) => None,
            });
            match filled {
                Some(filled) => filled.map_err(|error| error.at(&self.address).into()),
                None => Err(PyRuntimeError::new_err("another call is reading: use a device for each thread")),
            }
        })
    }

    /// Resets and closes the device. A second call does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.owner.is_current() {
            return Ok(());
        }
        end::closed(py, py.detach(|| self.shut()))
    }

    /// Where it is.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*exc))]
    fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        end::left(py, self.close(py), exc)
    }

    fn __repr__(&self) -> String {
        alloc::format!("Entropy({})", self.address)
    }
}
