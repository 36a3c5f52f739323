//! Entropy devices.

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, TryLockError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::whole::Whole;
use super::{end, error, wait};
use crate::drivers::{self, Between};
use crate::mem::process::Process;
use crate::sync::Mutex;
use crate::{Error, Result};

const CLOSED: Error = Error::Closed { what: "entropy device" };

/// Random bytes from an entropy device.
#[pyclass(frozen, module = "virtio")]
pub(super) struct Entropy {
    source: Mutex<Option<drivers::Entropy>>,
    /// Set by a close, and looked at by whoever waits: a read ends then, and gives the lock. Relaxed, as nothing but the flag
    /// is told by it.
    closing: Arc<AtomicBool>,
    address: String,
    owner: Process,
}

impl Entropy {
    fn shut(&self) -> Result<()> {
        self.closing.store(true, Relaxed);
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
        let closing = Arc::new(AtomicBool::new(false));
        let closes = Arc::clone(&closing);
        let look = move || if closes.load(Relaxed) { Err(CLOSED) } else { wait::look_after_signals() };
        let source = Mutex::new(Some(made.with_between(Between::new(look))));
        Ok(Self { source, closing, address: address.into(), owner: Process::current() })
    }

    /// `length` random bytes. One thread at a time: RuntimeError where another one reads.
    fn read<'py>(&self, py: Python<'py>, length: Whole<usize>) -> PyResult<Bound<'py, PyBytes>> {
        self.owner.check("entropy device")?;
        if isize::try_from(length.0).is_err() {
            return Err(PyValueError::new_err("no object has so many bytes"));
        }
        PyBytes::new_with(py, length.0, |to| {
            let filled = py.detach(|| match self.source.try_lock() {
                Err(TryLockError::WouldBlock) if !self.closing.load(Relaxed) => None,
                Ok(mut source) => Some(source.as_mut().ok_or(CLOSED).and_then(|source| source.fill(to))),
                Err(_) => Some(Err(CLOSED)),
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
