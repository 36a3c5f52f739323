//! A block device for the tasks of an event loop.
//!
//! A request is a future of the loop's, made and completed here: no Python code runs for it but what awaits it. What
//! tasks submit in one turn of the loop is shown to the device at once, by a callback that the first of them asks for;
//! while answers keep coming, the queue is looked at once a turn, and the device tells nothing. Else it is asked to
//! signal, and the loop sleeps on the queue's descriptor.

mod waiter;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{OnceLock, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::waiter::{Waiter, Wants, tell_one};
use super::block::{Data, bytes_of, policy};
use super::buffer::{Buffer, Pool, Region};
use super::features::Features;
use super::memory::{Flow, Pools};
use super::used::Events;
use super::whole::Whole;
use super::{counted, end, error, wait};
use crate::device::QueuePort;
use crate::drivers::block::{Done, Progress, Submitter};
use crate::drivers::{self, BlockOptions};
use crate::mem::process::Process;
use crate::sync::Mutex;
use crate::{Error, Result};

/// What a request answers: a future of the loop's.
type Future<'py> = PyResult<Bound<'py, PyAny>>;

/// What the object has while it is open.
#[derive(Debug)]
struct Open {
    disk: Submitter<Waiter>,
    event_loop: Py<PyAny>,
    create_future: Py<PyAny>,
    call_soon: Py<PyAny>,
}

/// The part of virtio.aio.Block that is compiled.
#[pyclass(frozen, subclass, module = "virtio", name = "_AsyncBlock")]
pub(super) struct AsyncBlock {
    address: String,
    options: BlockOptions,
    open: OnceLock<Open>,
    pools: Arc<Pools>,
    owner: Process,
    /// The event that the loop watches.
    watched: Mutex<Option<Arc<QueuePort>>>,
    /// A turn is on the loop's list.
    due: AtomicBool,
    /// The device was asked to signal the next answer.
    armed: AtomicBool,
    /// The timer runs.
    timed: AtomicBool,
    timer: Mutex<Option<Py<PyAny>>>,
    closed: AtomicBool,
}

impl Drop for AsyncBlock {
    fn drop(&mut self) {
        if let Some(open) = self.open.get()
            && self.owner.is_current()
            && !self.closed.swap(true, Ordering::Relaxed)
        {
            end::forgotten(|| open.disk.close());
        }
    }
}

impl AsyncBlock {
    fn located<T>(&self, result: Result<T>) -> PyResult<T> {
        result.map_err(|error| error.at(&self.address).into())
    }

    #[inline]
    fn get(&self) -> PyResult<&Open> {
        if self.closed.load(Ordering::Relaxed) || !self.owner.is_current() {
            self.located(self.owner.check("block device"))?;
            return self.located(Err(Error::Closed { what: "block device" }));
        }
        self.open.get().ok_or_else(|| {
            PyRuntimeError::new_err("the block device is not open yet: use async with, or await its open()")
        })
    }

    /// Begins a call: its future, which the loop's next turn shows to the device.
    #[inline]
    fn begin<'py>(
        slf: &Bound<'py, Self>,
        wants: Wants,
        submit: impl FnOnce(&Submitter<Waiter>, Waiter) -> Result<()>,
    ) -> Future<'py> {
        let (py, this) = (slf.py(), slf.get());
        let open = this.get()?;
        let future = open.create_future.bind(py).call0()?;
        submit(&open.disk, Waiter { future: future.clone().unbind(), wants })?;
        this.soon(slf, open)?;
        Ok(future)
    }

    /// Puts a turn on the loop's list, unless one is there.
    fn soon(&self, slf: &Bound<'_, Self>, open: &Open) -> PyResult<()> {
        if !self.due.swap(true, Ordering::Relaxed) {
            let py = slf.py();
            open.call_soon.bind(py).call1((slf.getattr(intern!(py, "_turn"))?,))?;
        }
        Ok(())
    }

    /// Tells those whose calls have ended, and sees to it that the next answer is noticed.
    fn tell(slf: &Bound<'_, Self>, open: &Open, progress: Progress, done: Vec<Done<Waiter>>) -> PyResult<()> {
        let (py, this, heard) = (slf.py(), slf.get(), !done.is_empty());
        for call in done {
            tell_one(py, call);
        }
        if progress.lost {
            slf.call_method0(intern!(py, "_lost"))?;
        } else if progress.open == 0 {
            // What is asked for next is asked for with a signal.
        } else if heard {
            this.armed.store(false, Ordering::Relaxed);
            this.soon(slf, open)?;
        } else if !this.armed.load(Ordering::Relaxed) {
            match this.located(open.disk.arm())? {
                true => this.soon(slf, open)?,
                false => this.armed.store(true, Ordering::Relaxed),
            }
        }
        if progress.open != 0 && !this.timed.swap(true, Ordering::Relaxed) {
            this.later(slf, open, FIRST_LOOK)?;
        }
        Ok(())
    }

    fn later(&self, slf: &Bound<'_, Self>, open: &Open, pause: Duration) -> PyResult<()> {
        let py = slf.py();
        let arguments = (pause.as_secs_f64(), slf.getattr(intern!(py, "_look"))?);
        let timer = open.event_loop.bind(py).call_method1(intern!(py, "call_later"), arguments)?;
        let before = self.timer.lock().unwrap_or_else(PoisonError::into_inner).replace(timer.unbind());
        drop(before);
        Ok(())
    }

    /// Has the loop watch the queue's event, or nothing.
    fn watch(slf: &Bound<'_, Self>, open: &Open, port: Option<Arc<QueuePort>>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let event_loop = open.event_loop.bind(py);
        let before = this.watched.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            event_loop.call_method1(intern!(py, "remove_reader"), (number(&before),))?;
        }
        if let Some(port) = port {
            let woken = slf.getattr(intern!(py, "_woken"))?;
            event_loop.call_method1(intern!(py, "add_reader"), (number(&port), woken))?;
            *this.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
        }
        Ok(())
    }
}

/// When a device that was asked for something is looked at first.
const FIRST_LOOK: Duration = Duration::from_millis(1);

fn number(port: &QueuePort) -> RawFd {
    port.as_fd().as_raw_fd()
}

#[pymethods]
impl AsyncBlock {
    #[new]
    #[pyo3(
        signature = (address, *, queue_size=None, timeout=Some(30.0), control_timeout=2.0, reconnect="fail"),
        text_signature = "(address, *, queue_size=None, timeout=30.0, control_timeout=2.0, reconnect='fail')"
    )]
    fn new(
        address: String,
        queue_size: Option<Whole<u16>>,
        timeout: Option<f64>,
        control_timeout: f64,
        reconnect: &str,
    ) -> PyResult<Self> {
        let (timeout, control_timeout) = (wait::longest(timeout)?, wait::longest(Some(control_timeout))?);
        let reconnect = policy(reconnect)?;
        let defaults = BlockOptions::default();
        Ok(Self {
            address,
            options: BlockOptions {
                queue_size: queue_size.map(|size| size.0),
                timeout,
                control_timeout,
                reconnect,
                ..defaults
            },
            open: OnceLock::new(),
            pools: Arc::default(),
            owner: Process::current(),
            watched: Mutex::default(),
            due: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            timed: AtomicBool::new(false),
            timer: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Opens the device, for the tasks of a loop. May wait; for another thread.
    fn _open(&self, py: Python<'_>, event_loop: Bound<'_, PyAny>) -> PyResult<()> {
        let twice = || PyRuntimeError::new_err("the block device is open already");
        if self.open.get().is_some() {
            // A second look at the device would reset it.
            return Err(self.get().err().unwrap_or_else(twice));
        }
        let options = self.options.clone();
        let made = py.detach(|| drivers::Block::open(&self.address, options));
        let open = Open {
            disk: made.map_err(error::opening)?.submitter(),
            create_future: event_loop.getattr("create_future")?.unbind(),
            call_soon: event_loop.getattr("call_soon")?.unbind(),
            event_loop: event_loop.unbind(),
        };
        self.open.set(open).map_err(|_| twice())
    }

    /// Watches the queue's event, that of a new connection after a recovery.
    fn _watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let open = this.get()?;
        let port = this.located(open.disk.port())?;
        this.armed.store(false, Ordering::Relaxed);
        Self::watch(slf, open, Some(port))?;
        this.soon(slf, open)
    }

    /// One turn: shows what was submitted, tells of what was done.
    fn _turn(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        this.due.store(false, Ordering::Relaxed);
        let Some(open) = this.open.get() else { return Ok(()) };
        let mut done = Vec::new();
        let progress = this.located(open.disk.poll(&mut done))?;
        Self::tell(slf, open, progress, done)
    }

    /// The queue's event was signalled.
    fn _woken(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let port = this.watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(port) = port {
            this.located(port.clear())?;
        }
        this.armed.store(false, Ordering::Relaxed);
        Self::_turn(slf)
    }

    /// The timer: looks after a device that is silent.
    fn _look(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        this.timed.store(false, Ordering::Relaxed);
        let Some(open) = this.open.get() else { return Ok(()) };
        let mut done = Vec::new();
        let (progress, due) = this.located(open.disk.look(&mut done))?;
        if let Some(due) = due {
            this.timed.store(true, Ordering::Relaxed);
            this.later(slf, open, due)?;
        }
        Self::tell(slf, open, progress, done)
    }

    /// Waits for a back-end to come back; for another thread.
    fn _recover(&self, py: Python<'_>) -> PyResult<()> {
        let open = self.get()?;
        Ok(py.detach(|| open.disk.recover())?)
    }

    /// Resets and closes the device; for another thread. The loop's next turn ends what is under way.
    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.owner.is_current() || self.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let Some(open) = self.open.get() else { return Ok(()) };
        end::closed(py, py.detach(|| open.disk.close()))
    }

    /// After the close: tells those who wait, and lets go of the loop.
    fn _leave(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let Some(open) = this.open.get().filter(|_| this.owner.is_current()) else { return Ok(()) };
        Self::watch(slf, open, None)?;
        let timer = this.timer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(timer) = timer {
            timer.call_method0(slf.py(), intern!(slf.py(), "cancel"))?;
        }
        let mut done = Vec::new();
        this.located(open.disk.poll(&mut done))?;
        done.into_iter().for_each(|call| tell_one(slf.py(), call));
        Ok(())
    }

    /// Reads `length` bytes from `offset` on.
    fn pread<'py>(slf: &Bound<'py, Self>, length: Whole<usize>, offset: Whole<u64>) -> Future<'py> {
        Self::begin(slf, Wants::Bytes, |disk, waiter| disk.read(offset.0, length.0, waiter))
    }

    /// Reads from `offset` on into a buffer, as many bytes as it has; a Buffer of this device's pool() is filled without
    /// a copy. Gives the number of bytes. Another buffer is filled when the future is done, and not resized before.
    fn pread_into<'py>(
        slf: &Bound<'py, Self>,
        buffer: &Bound<'py, PyAny>,
        offset: Whole<u64>,
    ) -> Future<'py> {
        let Whole(offset) = offset;
        if let Ok(own) = buffer.cast::<Buffer>() {
            let own = own.get();
            let buf = own.memory.take(own.index, Flow::Writable)?;
            let wants = Wants::Count(buf.len() as usize);
            return Self::begin(slf, wants, |disk, waiter| disk.read_into(offset, buf, waiter));
        }
        let to = bytes_of(buffer)?;
        if to.readonly() {
            return Err(PyValueError::new_err("the buffer to read into is read-only"));
        }
        let length = to.len_bytes();
        Self::begin(slf, Wants::Into(to), |disk, waiter| disk.read(offset, length, waiter))
    }

    /// Writes any buffer's bytes at `offset`; a Buffer of this device's pool() without a copy, any other is copied by the
    /// call. Gives the number of bytes. The data may be in the device's cache then: flush(). With `retry` the write may
    /// be made more than once: a device that was opened with reconnect="retry" sends it again where its back-end went
    /// away with it.
    #[pyo3(signature = (data, offset, *, retry=false))]
    fn pwrite<'py>(
        slf: &Bound<'py, Self>,
        data: &Bound<'py, PyAny>,
        offset: Whole<u64>,
        retry: bool,
    ) -> Future<'py> {
        let Whole(offset) = offset;
        if let Ok(own) = data.cast::<Buffer>() {
            let own = own.get();
            let buf = own.memory.take(own.index, Flow::Readable)?;
            let wants = Wants::Count(buf.len() as usize);
            return Self::begin(slf, wants, |disk, waiter| disk.write_from(offset, buf, retry, waiter));
        }
        let data = Data::of(data)?;
        let bytes = data.bytes();
        Self::begin(slf, Wants::Count(bytes.len()), |disk, waiter| disk.write(offset, bytes, retry, waiter))
    }

    /// Makes all writes permanent whose futures were done before. IndeterminateError, once, after a reconnection with
    /// writes that were done and not flushed: the back-end that went away may have lost them.
    fn flush<'py>(slf: &Bound<'py, Self>) -> Future<'py> {
        Self::begin(slf, Wants::Nothing, |disk, waiter| disk.flush(waiter))
    }

    /// Tells the device that a range is not needed any more.
    fn discard<'py>(slf: &Bound<'py, Self>, offset: Whole<u64>, length: Whole<u64>) -> Future<'py> {
        Self::begin(slf, Wants::Nothing, |disk, waiter| disk.discard(offset.0, length.0, waiter))
    }

    /// Sets a range to zeroes; with `unmap` the device may deallocate it.
    #[pyo3(signature = (offset, length, *, unmap=false))]
    fn write_zeroes<'py>(
        slf: &Bound<'py, Self>,
        offset: Whole<u64>,
        length: Whole<u64>,
        unmap: bool,
    ) -> Future<'py> {
        Self::begin(slf, Wants::Nothing, |disk, waiter| disk.write_zeroes(offset.0, length.0, unmap, waiter))
    }

    /// The device's id string.
    fn get_id<'py>(slf: &Bound<'py, Self>) -> Future<'py> {
        Self::begin(slf, Wants::Text, |disk, waiter| disk.get_id(waiter))
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
        let region = region.as_ref().map(|region| &region.get().region);
        let device = self.get()?.disk.device();
        // The process behind a socket is told of new memory, and answers.
        let memory = py.detach(|| self.pools.make(device, count.0, stride.0, region))?;
        let first = memory.first();
        Pool::new(memory, first)
    }

    /// What has happened to the device since the last look; a changed configuration was read again.
    fn events(&self, py: Python<'_>) -> PyResult<Events> {
        let open = self.get()?;
        Ok(py.detach(|| open.disk.events())?.into())
    }

    /// Where it is.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Size in bytes, as last read.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.get()?.disk.size())
    }

    /// Logical block size in bytes.
    #[getter]
    fn block_size(&self) -> PyResult<u32> {
        Ok(self.get()?.disk.limits().block_size)
    }

    /// Whether the device takes no writes.
    #[getter]
    fn read_only(&self) -> PyResult<bool> {
        Ok(self.get()?.disk.read_only())
    }

    /// The features in use, and what became of all others.
    #[getter]
    fn features(&self) -> PyResult<Features> {
        let disk = &self.get()?.disk;
        Ok(match disk.device().negotiated() {
            Some(done) => Features::negotiated(&done),
            None => Features::new(disk.features(), disk.device().device_type()),
        })
    }

    /// What the queue has counted since it was set up, by name.
    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counted(py, self.get()?.disk.counters())
    }

    fn __repr__(&self) -> String {
        let state = match (self.closed.load(Ordering::Relaxed), self.open.get()) {
            (true, _) => "closed".to_string(),
            (false, None) => "not open".to_string(),
            (false, Some(open)) => alloc::format!("{} bytes", open.disk.size()),
        };
        alloc::format!("aio.Block({}, {state})", self.address)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> core::result::Result<(), PyTraverseError> {
        if let Ok(timer) = self.timer.try_lock()
            && let Some(timer) = &*timer
        {
            visit.call(timer)?;
        }
        let Some(open) = self.open.get() else { return Ok(()) };
        [&open.event_loop, &open.create_future, &open.call_soon]
            .into_iter()
            .try_for_each(|one| visit.call(one))?;
        let mut outcome = Ok(());
        open.disk.tags(|waiter| {
            if outcome.is_ok() {
                outcome = visit.call(&waiter.future);
            }
        });
        outcome
    }
}
