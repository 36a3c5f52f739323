//! Who waits for a request, and how he is told.

use alloc::string::String;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::asyncio::InvalidStateError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{IntoPyObjectExt, intern};

use crate::drivers::block::{Answer, Done};

/// Who waits for a call, and what he wants of its answer.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) future: Py<PyAny>,
    pub(super) wants: Wants,
}

#[derive(Debug)]
pub(super) enum Wants {
    Nothing,
    Bytes,
    /// The number of bytes that were asked for.
    Count(usize),
    /// The bytes, in a buffer of the caller's that the device cannot reach.
    Into(PyBuffer<u8>),
    Text,
}

impl Wants {
    fn value(self, py: Python<'_>, answer: Answer) -> PyResult<Py<PyAny>> {
        match self {
            Self::Nothing => Ok(py.None()),
            Self::Bytes => {
                Ok(PyBytes::new_with(py, answer.len(), |to| Ok(answer.read(to)?))?.into_any().unbind())
            }
            Self::Count(count) => count.into_py_any(py),
            Self::Into(buffer) => {
                let bytes = answer.into_bytes()?;
                buffer.copy_from_slice(py, &bytes)?;
                bytes.len().into_py_any(py)
            }
            Self::Text => {
                let bytes = answer.into_bytes()?;
                let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_py_any(py)
            }
        }
    }
}

/// Completes a call's future. One that is done already, as it was cancelled or its caller gave it a result, wants nothing.
pub(super) fn tell_one(py: Python<'_>, call: Done<Waiter>) {
    let Waiter { future, wants } = call.tag;
    let future = future.bind(py);
    let value = call.outcome.map_err(PyErr::from).and_then(|answer| wants.value(py, answer));
    let told = match value {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,)),
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),)),
    };
    if let Err(error) = told
        && !error.is_instance_of::<InvalidStateError>(py)
    {
        error.write_unraisable(py, Some(future));
    }
}
