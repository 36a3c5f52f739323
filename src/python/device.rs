//! Opening, and a device's life.

use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::PoisonError;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::buffer::{Buffer, Pool, Region};
use super::end::{self, Held};
use super::features::{Features, set};
use super::memory::{Memory, Pools};
use super::queue::{Inner, Queue};
use super::used::{Events, Results};
use super::whole::Whole;
use super::{error, of_package, wait};
use crate::Result;
use crate::address::Address;
use crate::device::{self, Options, QueueConfig, Wake};
use crate::mem::process::Process;
use crate::sync::Mutex;

/// Opens the device at an address: it is reset, and knows that there is a driver.
///
/// ValueError for an address that cannot be parsed, DeviceNotFoundError where nothing is behind it.
#[pyfunction]
#[pyo3(signature = (address, *, control_timeout=2.0, strict=false, interrupts=true))]
pub(super) fn open(
    py: Python<'_>,
    address: &str,
    control_timeout: f64,
    strict: bool,
    interrupts: bool,
) -> PyResult<Device> {
    let address: Address = address.parse()?;
    let control_timeout = wait::longest(Some(control_timeout))?;
    let options = Options { control_timeout, strict, interrupts, ..Options::default() };
    let device = py.detach(|| crate::open_with(&address, options)).map_err(error::opening)?;
    Ok(Device::new(device))
}

/// One virtio device. Leaving its `with` resets it and takes its memory away; buffers and views stay valid.
#[pyclass(frozen, module = "virtio")]
pub(super) struct Device {
    pub(super) inner: Arc<Held>,
    queues: Mutex<Vec<Weak<Inner>>>,
    pools: Arc<Pools>,
    owner: Process,
    /// What fileno() is of.
    wake: Mutex<Option<Wake>>,
}

impl Device {
    fn new(device: device::Device) -> Self {
        Self {
            inner: Arc::new(Held::new(device)),
            queues: Mutex::default(),
            pools: Arc::default(),
            owner: Process::current(),
            wake: Mutex::default(),
        }
    }

    fn located<T>(&self, result: Result<T>) -> PyResult<T> {
        result.map_err(|error| error.at(self.inner.address()).into())
    }

    fn check(&self) -> PyResult<()> {
        self.located(self.owner.check("device"))
    }

    /// The queues that are alive.
    fn live(&self) -> Vec<Arc<Inner>> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().filter_map(Weak::upgrade).collect()
    }

    fn make_pool(
        &self,
        py: Python<'_>,
        count: u32,
        stride: u32,
        region: Option<&Region>,
    ) -> PyResult<Arc<Memory>> {
        self.check()?;
        let region = region.map(|region| &region.region);
        // The process behind a socket is told of new memory, and answers.
        self.located(py.detach(|| self.pools.make(&self.inner, count, stride, region)))
    }
}

#[pymethods]
impl Device {
    /// Where it is.
    #[getter]
    fn address(&self) -> &str {
        self.inner.address()
    }

    /// Its type, a DeviceType.
    #[getter]
    fn r#type<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        of_package(py, "virtio.enums", "DeviceType")?.call1((self.inner.device_type().0,))
    }

    /// Its status register, a Status.
    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.check()?;
        let status = py.detach(|| self.inner.status())?.bits();
        of_package(py, "virtio.enums", "Status")?.call1((status,))
    }

    /// Where it stands: "reset", "negotiated", "running", "failed" or "closed".
    #[getter]
    fn phase(&self, py: Python<'_>) -> &'static str {
        // Another thread's reset is waited for.
        match py.detach(|| self.inner.phase()) {
            device::Phase::Reset => "reset",
            device::Phase::Negotiated => "negotiated",
            device::Phase::Running => "running",
            device::Phase::Failed => "failed",
            device::Phase::Closed => "closed",
        }
    }

    /// The features that the device offers.
    #[getter]
    fn offered(&self, py: Python<'_>) -> PyResult<Features> {
        self.check()?;
        Ok(Features::new(py.detach(|| self.inner.offered())?, self.inner.device_type()))
    }

    /// The features in use, and what became of all others: none before negotiate().
    #[getter]
    fn features(&self, py: Python<'_>) -> Features {
        match py.detach(|| self.inner.negotiated()) {
            Some(done) => Features::negotiated(&done),
            None => Features::new(crate::features::Features::EMPTY, self.inner.device_type()),
        }
    }

    /// Agrees on features with the device: all of `require`, and what it offers of `want`. FeatureError where that
    /// cannot be.
    #[pyo3(signature = (want=None, require=None), text_signature = "($self, want=0, require=0)")]
    fn negotiate(
        &self,
        py: Python<'_>,
        want: Option<&Bound<'_, PyAny>>,
        require: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Features> {
        self.check()?;
        let (want, require) = (set(want)?, set(require)?);
        py.detach(|| self.inner.negotiate(want, require))?;
        Ok(self.features(py))
    }

    /// Sets a queue up, between negotiate() and start(). `size` is a wish: Queue.size tells what it became.
    #[pyo3(signature = (index, size=None, *, indirect=true, interrupts=true))]
    fn queue(
        &self,
        py: Python<'_>,
        index: Whole<u16>,
        size: Option<Whole<u16>>,
        indirect: bool,
        interrupts: bool,
    ) -> PyResult<Queue> {
        self.check()?;
        let config =
            QueueConfig { size: size.map(|size| size.0), indirect, interrupts, ..QueueConfig::default() };
        // First, as it may fail, and run Python code, which may want the queues.
        let results = Results::new(py)?;
        let queue = py.detach(|| self.inner.take_queue(index.0, config))?;
        let inner = Arc::new(Inner::new(queue, Arc::clone(&self.inner), Arc::clone(&self.pools)));
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|known| known.strong_count() != 0);
        queues.push(Arc::downgrade(&inner));
        Ok(Queue::new(inner, results))
    }

    /// Sets the device going: from now on its queues may be notified.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        self.check()?;
        Ok(py.detach(|| self.inner.start())?)
    }

    /// Resets the device, for another negotiate(). What was in flight ends once as IndeterminateError.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        self.check()?;
        py.detach(|| {
            let reset = self.inner.reset();
            self.live().iter().for_each(|queue| queue.shared.settle());
            reset
        })?;
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }

    /// Resets the device, takes its memory away and ends its use: whoever waits on a queue gets ClosedError. A second
    /// call does nothing, nor does one in the child of a fork. Where the reset is not confirmed, what the device was
    /// given is kept for the life of the process: a ResourceWarning says so, and the error is raised.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.owner.is_current() {
            return Ok(());
        }
        let closed = py.detach(|| {
            let queues = self.live();
            queues.iter().for_each(|queue| queue.shared.close());
            let closed = self.inner.close();
            queues.iter().for_each(|queue| queue.close());
            self.wake.lock().unwrap_or_else(PoisonError::into_inner).take();
            closed
        });
        end::closed(py, closed)
    }

    /// One buffer of `length` bytes, all zero. Its memory is the device's again when nobody refers to it any more: no
    /// object, no view, no request in flight.
    fn alloc(&self, py: Python<'_>, length: Whole<u32>) -> PyResult<Buffer> {
        let memory = self.make_pool(py, 1, length.0, None)?;
        let first = memory.first();
        Ok(Buffer::new(memory, 0, first))
    }

    /// `count` buffers of `stride` bytes in one piece of memory: new and all zero, or the beginning of a region. It
    /// goes when nobody refers to any of it any more, as alloc()'s does; their numbers alone keep nothing.
    #[pyo3(signature = (count, stride, *, region=None))]
    fn pool(
        &self,
        py: Python<'_>,
        count: Whole<u32>,
        stride: Whole<u32>,
        region: Option<Py<Region>>,
    ) -> PyResult<Pool> {
        let memory = self.make_pool(py, count.0, stride.0, region.as_ref().map(Py::get))?;
        let first = memory.first();
        Pool::new(memory, first)
    }

    /// The number in `width` bytes (1, 2, 4 or 8) of configuration space.
    fn read_config(&self, py: Python<'_>, offset: Whole<u64>, width: Whole<u8>) -> PyResult<u64> {
        self.check()?;
        self.located(py.detach(|| self.inner.config().read(offset.0, width.0)))
    }

    /// Writes `width` bytes of configuration space.
    fn write_config(
        &self,
        py: Python<'_>,
        offset: Whole<u64>,
        width: Whole<u8>,
        value: Whole<u64>,
    ) -> PyResult<()> {
        self.check()?;
        self.located(py.detach(|| self.inner.config().write(offset.0, width.0, value.0)))
    }

    /// The fields of configuration space by name, read at once: those that the features in use make valid.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check()?;
        let fields = self.located(py.detach(|| self.inner.config().snapshot(self.inner.features())))?;
        let config = PyDict::new(py);
        for read in fields {
            let value = match (read.field.count, read.values.first()) {
                (1, Some(one)) => one.into_bound_py_any(py)?,
                _ => read.values.into_bound_py_any(py)?,
            };
            config.set_item(read.field.name, value)?;
        }
        Ok(config)
    }

    /// Reads the cause of a line interrupt, which clears it: 1 a queue, 2 the configuration. For devices without
    /// interrupts of the library's own.
    fn isr(&self, py: Python<'_>) -> PyResult<u8> {
        self.located(self.inner.check_open())?;
        let cause = self.located(py.detach(|| self.inner.transport().isr()))?;
        Ok(u8::from(cause.queue) | u8::from(cause.config) << 1)
    }

    /// What has happened since the last look: a changed configuration, a wish for a reset, the device's removal.
    fn events(&self, py: Python<'_>) -> PyResult<Events> {
        self.located(self.inner.check_open())?;
        let events = py.detach(|| {
            if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
                wake.clear()?;
            }
            self.inner.events()
        });
        Ok(self.located(events)?.into())
    }

    /// A descriptor that becomes readable when events() may have something to tell, from the set-up of the queues to
    /// the next reset.
    fn fileno(&self) -> PyResult<RawFd> {
        self.located(self.inner.check_open())?;
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        if wake.is_none() {
            *wake = Some(self.located(self.inner.wake())?);
        }
        Ok(wake.as_ref().map_or(-1, |wake| wake.as_fd().as_raw_fd()))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*exc))]
    fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        end::left(py, self.close(py), exc)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let (address, kind) = (self.inner.address(), self.inner.device_type().to_string());
        alloc::format!("Device({address}, {kind}, {})", self.phase(py))
    }
}
