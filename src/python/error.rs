//! The one place where the crate's error becomes a Python exception.

use alloc::string::{String, ToString};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyAnyMethods;

use super::{of_package, wait};
use crate::Error;

/// What kind of exception an error is.
enum Class {
    /// The caller's mistake.
    Value,
    /// What the operating system said: Python picks the class by errno.
    Os,
    /// A class of `virtio.errors`.
    Named(&'static str),
}

fn class(error: &Error) -> Class {
    use Class::{Named, Os, Value};
    match error {
        Error::BadAddress { .. }
        | Error::BadChain(_)
        | Error::Misuse { .. }
        | Error::NotMapped { .. }
        | Error::OutOfBounds { .. }
        | Error::ConfigOutOfRange { .. }
        | Error::RegisterOutOfRange { .. } => Value,
        Error::Os { .. } => Os,
        Error::QueueFull { .. } => Named("QueueFullError"),
        Error::Broken { .. }
        | Error::BadConfig { .. }
        | Error::BadCapability { .. }
        | Error::BadMagic { .. }
        | Error::BadVersion { .. }
        | Error::ShortReply { .. }
        | Error::ConfigUnstable { .. }
        | Error::VectorRefused { .. }
        | Error::BackendRefused { .. }
        | Error::Protocol { .. } => Named("ProtocolError"),
        Error::StaleToken { .. } => Named("StaleTokenError"),
        Error::Closed { .. } | Error::ForkedProcess { .. } => Named("ClosedError"),
        Error::Timeout { .. } | Error::ResetTimeout { .. } => Named("VirtioTimeoutError"),
        Error::DeviceGone { .. } | Error::Disconnected { .. } => Named("DisconnectedError"),
        Error::DeviceNeedsReset => Named("DeviceNeedsResetError"),
        Error::FeaturesRejected { .. } | Error::MissingFeatures { .. } | Error::Incompatible { .. } => {
            Named("FeatureError")
        }
        Error::NotFound { .. } | Error::NoDevice => Named("DeviceNotFoundError"),
        Error::DeviceBusy { .. } => Named("DeviceBusyError"),
        Error::Indeterminate { .. } => Named("IndeterminateError"),
        Error::MemoryLimit { .. } => Named("MemoryLimitError"),
        Error::Request { .. } => Named("RequestError"),
        Error::QueueUnavailable { .. } | Error::Unsupported { .. } | Error::ReadOnly | Error::Interrupted => {
            Named("VirtioError")
        }
        Error::At { source, .. } => class(source),
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        if matches!(error.kind(), Error::Interrupted)
            && let Some(raised) = wait::raised()
        {
            return raised;
        }
        let kind = class(&error);
        Python::attach(|py| exception(py, &error, kind).unwrap_or_else(|failed| failed))
    }
}

/// The same for a failure to open: all that is not the address's form is an `OSError`.
pub(super) fn opening(error: Error) -> PyErr {
    match (error.kind(), class(&error)) {
        (Error::BadAddress { .. }, _) | (_, Class::Os | Class::Named(_)) => error.into(),
        _ => Python::attach(|py| {
            exception(py, &error, Class::Named("VirtioError")).unwrap_or_else(|failed| failed)
        }),
    }
}

fn exception(py: Python<'_>, error: &Error, class: Class) -> PyResult<PyErr> {
    let (kind, address) = (error.kind(), error.address());
    let text = kind.to_string();
    let made = match class {
        Class::Value => return Ok(PyValueError::new_err(error.to_string())),
        Class::Os => {
            let Error::Os { doing, errno } = kind else { return Ok(PyOSError::new_err(text)) };
            let says: String = of_package(py, "os", "strerror")?.call1((*errno,))?.extract()?;
            let text = alloc::format!("{doing}: {says}");
            py.get_type::<PyOSError>().call1((*errno, text, address))?
        }
        Class::Named(name) => {
            let class = of_package(py, "virtio.errors", name)?;
            match address {
                Some(address) => class.call1((error.errno(), text, address))?,
                None => class.call1((error.errno(), text))?,
            }
        }
    };
    details(&made, kind)?;
    Ok(PyErr::from_value(made))
}

/// What a program may want to know besides the text.
fn details(made: &Bound<'_, PyAny>, kind: &Error) -> PyResult<()> {
    match kind {
        Error::Broken { violation, .. } => {
            made.setattr("clause", violation.clause())?;
            made.setattr("detail", violation.to_string())
        }
        Error::Request { status } => made.setattr("status", status),
        Error::MemoryLimit { needed, have, .. } => {
            made.setattr("needed", needed)?;
            made.setattr("have", have)
        }
        Error::MissingFeatures { missing, required, offered } => {
            made.setattr("missing", missing.as_ref())?;
            made.setattr("required", required.as_ref())?;
            made.setattr("offered", offered.as_ref())
        }
        Error::FeaturesRejected { accepted } => made.setattr("required", accepted.as_ref()),
        Error::Indeterminate { token } | Error::StaleToken { token, .. } => made.setattr("token", token),
        Error::DeviceBusy { holder } => made.setattr("holder", holder.as_ref()),
        _ if made.hasattr("detail")? => made.setattr("detail", kind.to_string()),
        _ => Ok(()),
    }
}
