//! Numbers that callers give.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;

/// A number from 0 on. One that does not fit is a ValueError, as all misuse is, where Python's own conversion raises
/// OverflowError.
pub(super) struct Whole<T>(pub(super) T);

impl<'a, 'py, T: FromPyObject<'a, 'py>> FromPyObject<'a, 'py> for Whole<T> {
    type Error = PyErr;

    #[inline]
    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        given.extract().map(Self).map_err(|error: T::Error| refused(error.into(), given))
    }
}

/// The same for a parameter with a default, which its signature shows.
pub(super) fn whole<'a, 'py, T: FromPyObject<'a, 'py>>(given: &'a Bound<'py, PyAny>) -> PyResult<T> {
    given.extract().map(|Whole(number)| number)
}

#[cold]
fn refused(error: PyErr, given: Borrowed<'_, '_, PyAny>) -> PyErr {
    if !error.is_instance_of::<PyOverflowError>(given.py()) {
        return error;
    }
    PyValueError::new_err(alloc::format!("{} is below 0, or larger than can be meant", &*given))
}

/// The descriptor that an object is, or has.
pub(super) fn descriptor(of: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let number = match of.cast::<PyInt>() {
        Ok(number) => number.as_any().clone(),
        Err(_) if of.hasattr("fileno")? => of.call_method0("fileno")?,
        Err(_) => {
            return Err(PyTypeError::new_err("a region is made of a descriptor, or of what has a fileno()"));
        }
    };
    match number.extract::<RawFd>() {
        Ok(raw) if raw >= 0 => Ok(raw),
        Err(error) if !error.is_instance_of::<PyOverflowError>(of.py()) => Err(error),
        _ => Err(PyValueError::new_err("a descriptor is a number from 0 on")),
    }
}
