//! The Python face: classes over the crate's types, and no protocol logic. The only code that names PyO3.
//!
//! Classes are frozen and their insides `Sync`: threads may share every object, with or without the GIL.
//! - What is short (add, publish, pop) stays attached to the interpreter; whatever may wait detaches.
//! - No Python code runs, and no Python object is dropped, while a lock of this crate is held; what the rings hold in
//!   flight are [`DmaBuf`](crate::mem::pool::DmaBuf)s, which know nothing of Python.
//! - Exceptions are made at one place: `error.rs`.
#![cfg(not(loom))]

mod aio;
mod batch;
mod block;
mod buffer;
mod device;
mod end;
mod entropy;
mod error;
mod features;
mod find;
mod inspect;
mod memory;
mod qemu;
mod queue;
mod testing;
mod used;
mod vhost_user;
mod wait;
mod whole;

use core::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::queue::Counters;

/// The compiled part of the package `virtio`, which re-exports what is of use.
#[pymodule(gil_used = false)]
mod _virtio {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::python::aio::AsyncBlock;
    #[pymodule_export]
    use crate::python::block::Block;
    #[pymodule_export]
    use crate::python::buffer::{Buffer, Pool, PoolIterator, Region};
    #[pymodule_export]
    use crate::python::device::{Device, open};
    #[pymodule_export]
    use crate::python::entropy::Entropy;
    #[pymodule_export]
    use crate::python::features::{Features, tables};
    #[pymodule_export]
    use crate::python::find::{DeviceInfo, Found, find};
    #[pymodule_export]
    use crate::python::qemu::PyQemu;
    #[pymodule_export]
    use crate::python::queue::Queue;
    #[pymodule_export]
    use crate::python::used::{Events, Used};

    #[pymodule_export]
    use crate::python::inspect::{_answers, _names, _queues, _transport};
    #[pymodule_export]
    use crate::python::testing::{_lies, _rules, PyLie, Report, RingEnd, SoftDevice};
    #[pymodule_export]
    use crate::python::vhost_user::PyVhostUserDevice;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::python::one_interpreter(module.py())?;
        crate::python::queue::install(module.py())?;
        crate::python::of_package(module.py(), "virtio.errors", "VirtioError")?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Refuses a second interpreter of the process (fault M14): classes and statics would be shared between the two. Newer
/// versions of Python refuse it by themselves.
fn one_interpreter(py: Python<'_>) -> PyResult<()> {
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    // Each interpreter has a module of its own, for as long as it lives.
    let own = py.import("builtins")?.as_ptr().addr();
    match FIRST.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Err(first) if first != own => {
            Err(PyImportError::new_err("virtio is for one interpreter of a process"))
        }
        _ => Ok(()),
    }
}

/// What a queue has counted, by name.
fn counted(py: Python<'_>, counted: Counters) -> PyResult<Bound<'_, PyDict>> {
    let counters = PyDict::new(py);
    for (name, value) in [
        ("added", counted.added),
        ("used", counted.used),
        ("kicks", counted.kicks),
        ("kicks_saved", counted.kicks_saved),
        ("clamped", counted.clamped),
        ("early", counted.early),
    ] {
        counters.set_item(name, value)?;
    }
    Ok(counters)
}

/// A name of one of the package's Python modules. What they hold is kept from the first time on: at the end of the
/// interpreter there is nothing to import any more, and errors have to be told still.
fn of_package<'py>(py: Python<'py>, module: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_init(py, || PyDict::new(py).unbind()).bind(py);
    if let Some(held) = modules.get_item(module)?
        && let Ok(found) = held.get_item(name)
    {
        return Ok(found);
    }
    let module_now = py.import(module)?;
    modules.set_item(module, module_now.dict().copy()?)?;
    module_now.getattr(name)
}
