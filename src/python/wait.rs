//! Time limits as Python says them, and signals that arrive while a call waits.

use core::cell::RefCell;
use core::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::event::Deadline;
use crate::{Error, Result};

std::thread_local! {
    /// What a signal's handler raised during this thread's wait.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Runs the handlers of signals that have arrived. [`Error::Interrupted`] where one raised; [`raised`] has the
/// exception. For threads that are detached, and hold no lock that a handler could want.
pub(super) fn look_after_signals() -> Result<()> {
    // No interpreter any more: nobody is there to be told.
    let Some(outcome) = Python::try_attach(|py| py.check_signals()) else { return Ok(()) };
    outcome.map_err(|raised| {
        RAISED.with(|place| place.replace(Some(raised)));
        Error::Interrupted
    })
}

/// The exception that ended this thread's last wait.
pub(super) fn raised() -> Option<PyErr> {
    RAISED.with(RefCell::take)
}

/// Refuses what is no time limit: calls that add a chain do that before (fault M10).
#[inline]
pub(super) fn check(timeout: Option<f64>) -> PyResult<()> {
    if timeout.is_none_or(|seconds| seconds >= 0.0) { Ok(()) } else { Err(no_limit()) }
}

#[cold]
fn no_limit() -> PyErr {
    PyValueError::new_err("a timeout is a number of seconds from 0 on, or None for ever")
}

/// Seconds, or `None` for ever, as a length of time.
pub(super) fn limit(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    check(timeout)?;
    let Some(seconds) = timeout else { return Ok(None) };
    // What no clock reaches is for ever.
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// The same as a point in time.
pub(super) fn deadline(timeout: Option<f64>) -> PyResult<Deadline> {
    Ok(limit(timeout)?.map_or_else(Deadline::never, Deadline::after))
}

/// A length of time for options that know no "for ever".
pub(super) fn longest(timeout: Option<f64>) -> PyResult<Duration> {
    Ok(limit(timeout)?.unwrap_or(Duration::MAX))
}
