//! Block devices.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView, PyTuple};

use super::buffer::{Buffer, Export, Pool, Region};
use super::features::Features;
use super::memory::{Flow, Pools};
use super::used::Events;
use super::whole::{Whole, whole};
use super::{end, error, of_package, wait};
use crate::device::Phase;
use crate::drivers::{self, Between, BlockOptions, Reconnect};
use crate::mem::pool::DmaBuf;
use crate::mem::process::Process;
use crate::{Error, Result};

std::thread_local! {
    /// The devices whose calls of this thread wait, and run signal handlers meanwhile.
    static BUSY: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A block device. Offsets and lengths are in bytes, and multiples of 512. Any thread may call; as many at a time as
/// there are queues.
#[pyclass(frozen, module = "virtio")]
pub(super) struct Block {
    disk: drivers::Block,
    pools: Arc<Pools>,
    owner: Process,
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.disk.device().phase() != Phase::Closed {
            end::forgotten(|| self.disk.close());
        }
    }
}

/// Whatever has bytes, as bytes: of `bytes` themselves, which nobody changes, no copy is made.
pub(super) enum Data<'py> {
    Fixed(Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

/// A view of any contiguous object's bytes.
pub(super) fn bytes_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<PyBuffer<u8>> {
    match PyBuffer::<u8>::get(data) {
        Ok(buffer) if buffer.dimensions() == 1 => Ok(buffer),
        Err(error) if !error.is_instance_of::<pyo3::exceptions::PyBufferError>(data.py()) => Err(error),
        _ => {
            let view = PyMemoryView::from(data)?;
            if view.getattr("format")?.extract::<String>()?.contains('O') {
                return Err(PyTypeError::new_err(
                    "an array of objects has no bytes that a device may read or write",
                ));
            }
            PyBuffer::get(&view.call_method1("cast", ("B",))?)
        }
    }
}

impl<'py> Data<'py> {
    pub(super) fn of(data: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(fixed) = data.cast::<PyBytes>() {
            return Ok(Self::Fixed(fixed.clone()));
        }
        Ok(Self::Copied(bytes_of(data)?.to_vec(data.py())?))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}

impl Block {
    /// Runs a call that may wait, detached from the interpreter.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&drivers::Block) -> Result<T> + Send,
    ) -> PyResult<T> {
        let located =
            |result: Result<T>| result.map_err(|error| error.at(self.disk.device().address()).into());
        if let Err(error) = self.owner.check("block device") {
            return located(Err(error));
        }
        let own = core::ptr::from_ref(self).addr();
        if BUSY.with_borrow(|busy| busy.contains(&own)) {
            return Err(PyRuntimeError::new_err(
                "a signal handler cannot use the block device that the interrupted call waits for",
            ));
        }
        BUSY.with_borrow_mut(|busy| busy.push(own));
        let result = py.detach(|| call(&self.disk));
        BUSY.with_borrow_mut(|busy| busy.pop());
        located(result)
    }

    fn make_pool(&self, py: Python<'_>, count: u32, stride: u32, region: Option<&Region>) -> PyResult<Pool> {
        let region = region.map(|region| &region.region);
        // The process behind a socket is told of new memory, and answers.
        let memory = py.detach(|| self.pools.make(self.disk.device(), count, stride, region))?;
        let first = memory.first();
        Pool::new(memory, first)
    }
}

/// What `reconnect=` says.
pub(super) fn policy(word: &str) -> PyResult<Reconnect> {
    match word {
        "fail" => Ok(Reconnect::Fail),
        "retry" => Ok(Reconnect::Retry),
        _ => Err(PyValueError::new_err("reconnect is \"fail\" or \"retry\"")),
    }
}

fn offsets_of(array: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let mut export = Export::new(array.py());
    let numbers = export.numbers(array, false)?;
    Ok(numbers.read().step_by(numbers.columns().max(1)).collect())
}

/// The first buffers of a pool, for their flight.
fn take_first(pool: &Pool, count: usize, flow: Flow) -> Result<Vec<DmaBuf>> {
    pool.memory.take_first(count, flow)
}

#[pymethods]
impl Block {
    /// Opens the block device at an address and sets it up. `timeout` limits the wait for each answer, in seconds;
    /// `control_timeout` that for a reset and the like. `reconnect` is what happens when the device's back-end goes
    /// away: with "fail" what was in flight ends as IndeterminateError, and the device is gone; with "retry" a back-end
    /// that comes back within `timeout` is used again, and reads and marked writes are sent to it.
    #[new]
    #[pyo3(
        signature = (address, *, queues=1, queue_size=None, timeout=Some(30.0), control_timeout=2.0, reconnect="fail"),
        text_signature = "(address, *, queues=1, queue_size=None, timeout=30.0, control_timeout=2.0, reconnect='fail')"
    )]
    fn new(
        py: Python<'_>,
        address: &str,
        #[pyo3(from_py_with = whole)] queues: u16,
        queue_size: Option<Whole<u16>>,
        timeout: Option<f64>,
        control_timeout: f64,
        reconnect: &str,
    ) -> PyResult<Self> {
        let reconnect = policy(reconnect)?;
        let control_timeout = wait::longest(Some(control_timeout))?;
        let timeout = wait::longest(timeout)?;
        let between = Between::new(wait::look_after_signals);
        let options = BlockOptions {
            queues,
            queue_size: queue_size.map(|size| size.0),
            timeout,
            control_timeout,
            between,
            reconnect,
            ..BlockOptions::default()
        };
        let made = py.detach(|| drivers::Block::open(address, options));
        Ok(Self { disk: made.map_err(error::opening)?, pools: Arc::default(), owner: Process::current() })
    }

    /// Reads `length` bytes from `offset` on.
    fn pread<'py>(
        &self,
        py: Python<'py>,
        length: Whole<usize>,
        offset: Whole<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (Whole(length), Whole(offset)) = (length, offset);
        if length as u64 > self.disk.size() {
            let size = self.disk.size();
            self.run::<()>(py, |_| Err(Error::OutOfBounds { offset, len: length as u64, size }))?;
        }
        PyBytes::new_with(py, length, |to| self.run(py, |disk| disk.read(offset, to)))
    }

    /// Reads from `offset` on into a buffer, as many bytes as it has. A Buffer of this device is filled without a
    /// copy. Answers the number of bytes.
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, offset: Whole<u64>) -> PyResult<usize> {
        let Whole(offset) = offset;
        if let Ok(own) = buffer.cast::<Buffer>() {
            let own = own.get();
            let buf = own.memory.take(own.index, Flow::Writable)?;
            return self.run(py, |disk| disk.read_into(offset, buf).map(|buf| buf.len() as usize));
        }
        let to = bytes_of(buffer)?;
        if to.readonly() {
            return Err(PyValueError::new_err("the buffer to read into is read-only"));
        }
        let mut bytes = alloc::vec![0; to.len_bytes()];
        self.run(py, |disk| disk.read(offset, &mut bytes))?;
        to.copy_from_slice(py, &bytes)?;
        Ok(bytes.len())
    }

    /// Writes any buffer's bytes at `offset`; a Buffer of this device without a copy. Answers the number of bytes. The
    /// data may be in the device's cache then: flush(). With `retry` the write may be made more than once: a device
    /// that was opened with reconnect="retry" sends it again where its back-end went away with it.
    #[pyo3(signature = (data, offset, *, retry=false))]
    fn pwrite(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        offset: Whole<u64>,
        retry: bool,
    ) -> PyResult<usize> {
        let Whole(offset) = offset;
        if let Ok(own) = data.cast::<Buffer>() {
            let own = own.get();
            let buf = own.memory.take(own.index, Flow::Readable)?;
            let write = if retry { drivers::Block::write_from_retry } else { drivers::Block::write_from };
            return self.run(py, |disk| write(disk, offset, buf).map(|buf| buf.len() as usize));
        }
        let data = Data::of(data)?;
        let bytes = data.bytes();
        let write = if retry { drivers::Block::write_retry } else { drivers::Block::write };
        self.run(py, |disk| write(disk, offset, bytes))?;
        Ok(bytes.len())
    }

    /// Reads many pieces, in flight together: the one at offsets[n] into buffer n of `out`, a pool of this device
    /// (without a copy), or into row n of any other buffer with as many equal rows. `offsets` is an array of integers.
    fn read_many(&self, py: Python<'_>, offsets: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let offsets = offsets_of(offsets)?;
        if let Ok(pool) = out.cast::<Pool>() {
            let bufs = take_first(pool.get(), offsets.len(), Flow::Writable)?;
            return self.run(py, |disk| disk.read_many_into(&offsets, bufs));
        }
        let to = bytes_of(out)?;
        if to.readonly() {
            return Err(PyValueError::new_err("the buffer to read into is read-only"));
        }
        let mut bytes = alloc::vec![0; to.len_bytes()];
        self.run(py, |disk| disk.read_many(&offsets, &mut bytes))?;
        to.copy_from_slice(py, &bytes)
    }

    /// The opposite of read_many(): what overlaps is written in no particular order.
    fn write_many(
        &self,
        py: Python<'_>,
        offsets: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let offsets = offsets_of(offsets)?;
        if let Ok(pool) = data.cast::<Pool>() {
            let bufs = take_first(pool.get(), offsets.len(), Flow::Readable)?;
            return self.run(py, |disk| disk.write_many_from(&offsets, bufs));
        }
        let data = Data::of(data)?;
        let bytes = data.bytes();
        self.run(py, |disk| disk.write_many(&offsets, bytes))
    }

    /// Makes all writes that were done before permanent. IndeterminateError, once, after a reconnection with writes
    /// that were done and not flushed: the back-end that went away may have lost them.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.run(py, drivers::Block::flush)
    }

    /// Tells the device that a range is not needed any more.
    fn discard(&self, py: Python<'_>, offset: Whole<u64>, length: Whole<u64>) -> PyResult<()> {
        self.run(py, |disk| disk.discard(offset.0, length.0))
    }

    /// Sets a range to zeroes; with `unmap` the device may deallocate it.
    #[pyo3(signature = (offset, length, *, unmap=false))]
    fn write_zeroes(
        &self,
        py: Python<'_>,
        offset: Whole<u64>,
        length: Whole<u64>,
        unmap: bool,
    ) -> PyResult<()> {
        self.run(py, |disk| disk.write_zeroes(offset.0, length.0, unmap))
    }

    /// The device's id string.
    fn get_id(&self, py: Python<'_>) -> PyResult<String> {
        self.run(py, drivers::Block::get_id)
    }

    /// Buffers that this device can reach, for reads and writes without a copy.
    #[pyo3(signature = (count, stride, *, region=None))]
    fn pool(
        &self,
        py: Python<'_>,
        count: Whole<u32>,
        stride: Whole<u32>,
        region: Option<Py<Region>>,
    ) -> PyResult<Pool> {
        self.make_pool(py, count.0, stride.0, region.as_ref().map(Py::get))
    }

    /// The device as an io.RawIOBase, for what wants a file: any offset and length.
    fn raw<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        of_package(slf.py(), "virtio.io", "BlockIO")?.call1((slf,))
    }

    /// Size in bytes, as last read.
    #[getter]
    fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Logical block size in bytes.
    #[getter]
    fn block_size(&self) -> u32 {
        self.disk.block_size()
    }

    /// Whether the device takes no writes.
    #[getter]
    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    /// Number of request queues in use.
    #[getter]
    fn queues(&self) -> usize {
        self.disk.queues()
    }

    /// What each of them has counted since it was set up, by name. Waits for a call that uses it.
    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let all: Vec<_> =
            py.detach(|| (0..self.disk.queues()).filter_map(|index| self.disk.counters(index)).collect());
        all.into_iter().map(|of_one| super::counted(py, of_one)).collect()
    }

    /// Where it is.
    #[getter]
    fn address(&self) -> &str {
        self.disk.device().address()
    }

    /// The features that the device offers.
    #[getter]
    fn offered(&self, py: Python<'_>) -> PyResult<Features> {
        let device = self.disk.device();
        Ok(Features::new(py.detach(|| device.offered())?, device.device_type()))
    }

    /// The features in use, and what became of all others.
    #[getter]
    fn features(&self, py: Python<'_>) -> Features {
        let device = self.disk.device();
        match py.detach(|| device.negotiated()) {
            Some(done) => Features::negotiated(&done),
            None => Features::new(self.disk.features(), device.device_type()),
        }
    }

    /// What has happened to the device since the last look.
    fn events(&self, py: Python<'_>) -> PyResult<Events> {
        Ok(self.run(py, drivers::Block::events)?.into())
    }

    /// Resets and closes the device: calls of other threads fail from then on. A second call does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.owner.is_current() {
            return Ok(());
        }
        end::closed(py, py.detach(|| self.disk.close()))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*exc))]
    fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        end::left(py, self.close(py), exc)
    }

    fn __repr__(&self) -> String {
        alloc::format!("Block({}, {} bytes, {} queues)", self.address(), self.size(), self.queues())
    }
}
