//! QEMU machines for tests: what `virtio.testing.qemu` stands on.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::PoisonError;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{error, wait};
use crate::event::Deadline;
use crate::sync::{Mutex, MutexGuard};
use crate::testing::json::Json;
use crate::testing::{Kind, Qemu};
use crate::{Error, Result};

/// A wait for an event looks after signals this often.
const SLICE: Duration = Duration::from_millis(100);

/// A QEMU machine whose processor is halted.
#[pyclass(frozen, module = "virtio.testing", name = "_Qemu")]
pub(super) struct PyQemu {
    /// None after close(). A call that is under way keeps it.
    machine: Mutex<Option<Arc<Qemu>>>,
    address: String,
    addresses: Vec<String>,
    dir: PathBuf,
    pid: u32,
}

impl PyQemu {
    fn lock(&self) -> MutexGuard<'_, Option<alloc::sync::Arc<Qemu>>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the machine, detached. Where its connection ended, the machine's own end tells more.
    fn with<T: Send>(&self, py: Python<'_>, act: impl FnOnce(&Qemu) -> Result<T> + Send) -> PyResult<T> {
        let done = py.detach(|| {
            let machine = self.lock().clone().ok_or(Error::Closed { what: "QEMU machine" })?;
            act(&machine).map_err(|error| match error {
                Error::Disconnected { .. } => machine.last_words(error),
                error => error,
            })
        });
        Ok(done?)
    }
}

#[pymethods]
impl PyQemu {
    #[new]
    #[pyo3(signature = (machine, *, devices, disks, args, memory, program=None))]
    fn new(
        py: Python<'_>,
        machine: &str,
        devices: Vec<String>,
        disks: Vec<(String, u64)>,
        args: Vec<String>,
        memory: u64,
        program: Option<String>,
    ) -> PyResult<Self> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == machine).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            let text = alloc::format!("no machine is '{machine}'; known are {}", known.join(", "));
            PyValueError::new_err(text)
        })?;
        if memory == 0 || !memory.is_multiple_of(1 << 20) {
            return Err(PyValueError::new_err("a machine's memory is a multiple of 1 MiB"));
        }
        let mut builder = Qemu::builder(kind).memory(memory >> 20);
        builder = disks.iter().fold(builder, |builder, (name, len)| builder.disk(name, *len)).args(args);
        builder = devices.into_iter().fold(builder, |builder, device| builder.device(device));
        if let Some(program) = program {
            builder = builder.program(program);
        }
        let started = py.detach(|| {
            let machine = builder.start()?;
            let addresses = machine.addresses()?;
            Ok((machine, addresses))
        });
        let (machine, addresses) = started.map_err(error::opening)?;
        Ok(Self {
            address: machine.address().to_string(),
            addresses,
            dir: machine.dir().into(),
            pid: machine.pid(),
            machine: Mutex::new(Some(machine.into())),
        })
    }

    /// The address of the machine, as find() takes it.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// The addresses of its devices.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// A directory of its own.
    #[getter]
    fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Its process number.
    #[getter]
    fn pid(&self) -> u32 {
        self.pid
    }

    /// What it wrote to its standard error; "" after close().
    fn stderr(&self, py: Python<'_>) -> String {
        py.detach(|| self.lock().clone().map(|machine| machine.stderr()).unwrap_or_default())
    }

    /// Raises with its exit status and its last words where it has ended.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Qemu::check)
    }

    /// Has a command of its control socket executed; arguments and answer are JSON.
    fn execute(&self, py: Python<'_>, command: &str, arguments: &str) -> PyResult<String> {
        self.with(py, |machine| machine.qmp().execute(command, arguments).map(|answer| answer.to_string()))
    }

    /// Has a line of the human monitor executed, and gives what it printed.
    fn monitor(&self, py: Python<'_>, line: &str) -> PyResult<String> {
        self.with(py, |machine| machine.qmp().monitor(line))
    }

    /// Waits for an event of this name, and gives its data as JSON.
    fn event(&self, py: Python<'_>, name: &str, timeout: Option<f64>) -> PyResult<String> {
        let deadline = wait::deadline(timeout)?;
        self.with(py, |machine| event(machine, name, deadline).map(|data| data.to_string()))
    }

    /// Kills it, by SIGKILL, and waits for its end.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Qemu::kill)
    }

    /// Stops it, by SIGSTOP.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Qemu::stop)
    }

    /// Lets it go on, by SIGCONT.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Qemu::resume)
    }

    /// Kills it, and removes its directory. A second call does nothing.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

fn event(machine: &Qemu, name: &str, deadline: Deadline) -> Result<Json> {
    loop {
        let slice = deadline.left().unwrap_or(SLICE).min(SLICE);
        match machine.qmp().event(name, slice) {
            Err(Error::Timeout { .. }) if !deadline.passed() => wait::look_after_signals()?,
            other => return other,
        }
    }
}
