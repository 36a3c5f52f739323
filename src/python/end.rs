//! The ends of devices: by a close, by a `with`, or because nobody refers to them any more.

use core::ops::Deref;

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::device::{Device, Phase};
use crate::{Error, Result};

/// A device, for the object of its own and those of its queues: the last of them that goes closes it.
pub(super) struct Held(Device);

impl Held {
    pub(super) fn new(device: Device) -> Self {
        Self(device)
    }
}

impl Deref for Held {
    type Target = Device;

    #[inline]
    fn deref(&self) -> &Device {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // That of a fork's child counts as closed.
        if self.0.phase() != Phase::Closed {
            forgotten(|| self.0.close());
        }
    }
}

/// What a close gave. Where the reset was not confirmed, what the device was given is kept for the life of the process:
/// a ResourceWarning says so, besides the error.
pub(super) fn closed(py: Python<'_>, result: Result<()>) -> PyResult<()> {
    let Err(error) = result else { return Ok(()) };
    warn(py, &error)?;
    Err(error.into())
}

/// The same at the end of a `with`: the exception that it is left by is the context of what the close raises.
pub(super) fn left(py: Python<'_>, closed: PyResult<()>, exc: &Bound<'_, PyTuple>) -> PyResult<()> {
    closed.inspect_err(|error| {
        if let Ok(raised) = exc.get_item(1)
            && !raised.is_none()
        {
            error.set_context(py, Some(PyErr::from_value(raised)));
        }
    })
}

/// Closes what nobody closed. The interpreter is free meanwhile; without one the crate's own types do it.
pub(super) fn forgotten(close: impl FnOnce() -> Result<()> + Send) {
    let _none_left = Python::try_attach(|py| {
        // Objects also go while an exception is on its way.
        let raised = PyErr::take(py);
        if let Err(error) = py.detach(close)
            && let Err(as_error) = warn(py, &error)
        {
            as_error.write_unraisable(py, None);
        }
        if let Some(raised) = raised {
            raised.restore(py);
        }
    });
}

fn warn(py: Python<'_>, error: &Error) -> PyResult<()> {
    let text = alloc::format!("memory is kept for the life of the process: {error}\0");
    let text = core::ffi::CStr::from_bytes_until_nul(text.as_bytes()).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyResourceWarning>(), text, 1)
}
