//! One virtqueue.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::batch;
use super::buffer::Buffer;
use super::memory::{Flow, Pools};
use super::used::Used;
use super::{counted, wait};
use crate::device::{self, SharedQueue};
use crate::event::Deadline;
use crate::mem::pool::DmaBuf;
use crate::mem::process::Process;
use crate::queue::Token;
use crate::{Error, Result};

/// How long the end of a `with` waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(1);

/// A queue, as its object and its device share it.
pub(super) struct Inner {
    // Before the device: a queue that is dropped after the reset finds its proof.
    pub(super) shared: SharedQueue,
    pub(super) device: Arc<device::Device>,
    pub(super) pools: Arc<Pools>,
    owner: Process,
    fd: RawFd,
    index: u16,
    size: u16,
}

impl Inner {
    pub(super) fn new(queue: device::Queue<DmaBuf>, device: Arc<device::Device>, pools: Arc<Pools>) -> Self {
        let (fd, index, size) = (queue.as_fd().as_raw_fd(), queue.index(), queue.size());
        Self { shared: queue.share(), device, pools, owner: Process::current(), fd, index, size }
    }

    /// Adds the address to an error.
    #[inline]
    pub(super) fn located<T>(&self, result: Result<T>) -> PyResult<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(error.at(self.device.address()).into()),
        }
    }

    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        self.owner.check("queue")
    }

    /// Everybody who waits, and every later call, gets `ClosedError`. What is in flight goes home, or into the
    /// device's quarantine.
    pub(super) fn close(&self) {
        if self.owner.is_current() {
            self.shared.close();
            self.shared.with(device::Queue::end_use);
        }
    }

    /// Waits for what is in flight, so that its buffers come home without a reset of the device.
    fn drain(&self, deadline: Deadline) -> Result<()> {
        self.check()?;
        while self.shared.with(|queue| queue.outstanding()) != 0 {
            match self.shared.get_with(deadline, wait::look_after_signals) {
                Ok(_) | Err(Error::Indeterminate { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One virtqueue of a device. Any thread may call; several may wait, each for its own token.
///
/// Leaving its `with` waits up to a second for what is in flight, and ends the use of the queue.
#[pyclass(frozen, module = "virtio")]
pub(super) struct Queue {
    pub(super) inner: Arc<Inner>,
}

/// Buffers of one side of a chain: up to four without an allocation.
#[derive(Default)]
struct Side {
    first: [Option<DmaBuf>; 4],
    count: usize,
    rest: Vec<DmaBuf>,
}

impl Side {
    fn push(&mut self, buf: DmaBuf) {
        match self.first.get_mut(self.count) {
            Some(place) => *place = Some(buf),
            None => self.rest.push(buf),
        }
        self.count = self.count.wrapping_add(1);
    }

    fn take(buffers: Option<&Bound<'_, PyAny>>, flow: Flow) -> PyResult<Self> {
        let mut side = Self::default();
        let Some(buffers) = buffers else { return Ok(side) };
        let mut add = |one: &Bound<'_, PyAny>| -> PyResult<()> {
            let buffer = one.cast::<Buffer>()?.get();
            side.push(buffer.memory.take(buffer.index, flow)?);
            Ok(())
        };
        if let Ok(list) = buffers.cast::<PyList>() {
            list.iter().try_for_each(|one| add(&one))?;
        } else if let Ok(tuple) = buffers.cast::<PyTuple>() {
            tuple.iter_borrowed().try_for_each(|one| add(&one))?;
        } else if buffers.cast::<Buffer>().is_ok() {
            add(buffers)?;
        } else {
            buffers.try_iter()?.try_for_each(|one| add(&one?))?;
        }
        Ok(side)
    }

    fn into_bufs(self) -> impl Iterator<Item = DmaBuf> {
        self.first.into_iter().flatten().chain(self.rest)
    }
}

/// Adds a chain; the usual ones without a detour.
#[inline]
fn add(queue: &mut device::Queue<DmaBuf>, mut readable: Side, mut writable: Side) -> Result<Token> {
    let empty = Error::Misuse { what: "a chain needs at least one buffer" };
    let one = |side: &mut Side| side.first[0].take().ok_or(empty.clone());
    match (readable.count, writable.count) {
        (1, 0) => queue.add([one(&mut readable)?], []),
        (0, 1) => queue.add([], [one(&mut writable)?]),
        (1, 1) => queue.add([one(&mut readable)?], [one(&mut writable)?]),
        _ => queue.add_chain(readable.into_bufs(), writable.into_bufs()),
    }
}

impl Inner {
    /// What a call gives back, unless a signal's handler raises now: the interpreter would drop what the call returned
    /// then, so it is kept for the next call, and the handler's exception given (fault M7). Everything that takes a
    /// completion ends with this.
    #[inline]
    pub(super) fn deliver(
        &self,
        py: Python<'_>,
        result: Result<device::Used<DmaBuf>>,
    ) -> PyResult<device::Used<DmaBuf>> {
        match py.check_signals() {
            Ok(()) => self.located(result),
            Err(raised) => {
                self.shared.put_back(result);
                Err(raised)
            }
        }
    }
}

impl Queue {
    /// Adds under the lock, if nobody is in line for room.
    #[inline]
    fn try_add(&self, readable: Side, writable: Side) -> Result<Token> {
        self.inner.shared.with_open(|queue| add(queue, readable, writable))
    }

    fn wait(&self, py: Python<'_>, token: Token, deadline: Deadline) -> PyResult<Used> {
        let inner = &*self.inner;
        let there = inner.shared.try_wait(token).transpose();
        let used = there.unwrap_or_else(|| {
            py.detach(|| inner.shared.wait_with(token, deadline, wait::look_after_signals))
        });
        Ok(Used::new(inner.deliver(py, used)?))
    }
}

#[pymethods]
impl Queue {
    /// Adds a chain of buffers: those that the device reads, then those that it writes. The device sees it with the
    /// next notify(). Answers the chain's token, a number.
    #[pyo3(signature = (readable=None, writable=None), text_signature = "($self, readable=(), writable=())")]
    fn add(&self, readable: Option<&Bound<'_, PyAny>>, writable: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        let readable = Side::take(readable, Flow::Readable)?;
        let writable = Side::take(writable, Flow::Writable)?;
        self.inner.located(self.try_add(readable, writable)).map(Token::into_raw)
    }

    /// Shows what was added to the device, and notifies it if it wants that.
    fn notify(&self) -> PyResult<()> {
        self.inner.located(self.inner.shared.notify())
    }

    /// Shows what was added to the device without notifying it; answers whether the device wants a notification,
    /// which is the caller's to send with kick().
    fn publish(&self) -> PyResult<bool> {
        self.inner.located(self.inner.shared.with_open(device::Queue::publish))
    }

    /// Notifies the device, whether it wants that or not.
    fn kick(&self) -> PyResult<()> {
        self.inner.located(self.inner.shared.kick())
    }

    /// Waits for a request that is done and that nobody else waits for: seconds, or None for ever.
    #[pyo3(signature = (timeout=None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Used> {
        let inner = &*self.inner;
        let used = match inner.shared.pop().transpose() {
            Some(there) => there,
            None => {
                let deadline = wait::deadline(timeout)?;
                py.detach(|| inner.shared.get_with(deadline, wait::look_after_signals))
            }
        };
        Ok(Used::new(inner.deliver(py, used)?))
    }

    /// A request that is done and that nobody waits for, or None.
    fn pop(&self, py: Python<'_>) -> PyResult<Option<Used>> {
        let Some(there) = self.inner.shared.pop().transpose() else { return Ok(None) };
        Ok(Some(Used::new(self.inner.deliver(py, there)?)))
    }

    /// Waits for the request of this token: seconds, or None for ever.
    #[pyo3(signature = (token, timeout=None), name = "wait")]
    fn py_wait(&self, py: Python<'_>, token: u64, timeout: Option<f64>) -> PyResult<Used> {
        let deadline = wait::deadline(timeout)?;
        self.wait(py, Token::from_raw(token), deadline)
    }

    /// Adds a chain, notifies the device and waits for the answer: add(), notify() and wait() in one. Answers how
    /// many bytes the device says it wrote.
    #[pyo3(
        signature = (readable=None, writable=None, timeout=None),
        text_signature = "($self, readable=(), writable=(), timeout=None)"
    )]
    fn transfer(
        &self,
        py: Python<'_>,
        readable: Option<&Bound<'_, PyAny>>,
        writable: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<u32> {
        let readable = Side::take(readable, Flow::Readable)?;
        let writable = Side::take(writable, Flow::Writable)?;
        let inner = &*self.inner;
        let sent = inner.shared.send(|queue| add(queue, readable, writable));
        let token = inner.located(sent)?;
        let used = match inner.shared.try_wait(token).transpose() {
            Some(there) => there,
            None => {
                let deadline = wait::deadline(timeout)?;
                py.detach(|| inner.shared.wait_with(token, deadline, wait::look_after_signals))
            }
        };
        let late = matches!(used, Err(Error::Timeout { .. }));
        match inner.deliver(py, used) {
            Ok(used) => Ok(used.written),
            Err(error) if late && error.is_instance_of::<PyTimeoutError>(py) => {
                error.value(py).setattr("token", token.into_raw())?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds many chains at once. `readable_slots` and `writable_slots` are arrays of buffers' numbers (Buffer.slot,
    /// Pool.first): one number for each chain, or as many as the array has columns; several arrays side by side are
    /// given as a tuple. `tokens`, an array of 8-byte integers, takes the chains' tokens. Answers how many were added:
    /// fewer than asked for where the queue is full, or where a chain further on is refused; the error is raised where
    /// it is the first one that is. The device sees them with the next notify().
    #[pyo3(signature = (readable_slots=None, writable_slots=None, tokens=None))]
    fn add_many(
        &self,
        readable_slots: Option<&Bound<'_, PyAny>>,
        writable_slots: Option<&Bound<'_, PyAny>>,
        tokens: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        batch::add_many(&self.inner, readable_slots, writable_slots, tokens)
    }

    /// Waits for requests that are done and that nobody else waits for, and takes all there are, at most as many as
    /// the arrays have room for: their tokens, and how many bytes the device says it wrote to each. Answers how many
    /// they are, one at least.
    #[pyo3(signature = (tokens, written=None, timeout=None))]
    fn get_many(
        &self,
        py: Python<'_>,
        tokens: &Bound<'_, PyAny>,
        written: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<usize> {
        batch::get_many(py, &self.inner, tokens, written, timeout)
    }

    /// Asks for an event with the next request that is done; answers whether one is done already, which must be taken
    /// before fileno() is waited for.
    fn enable_interrupts(&self) -> PyResult<bool> {
        self.inner.located(self.inner.shared.with_open(device::Queue::enable_interrupts))
    }

    /// Tells the device that no events are needed: the queue is polled.
    fn disable_interrupts(&self) -> PyResult<()> {
        let done = self.inner.shared.with_open(|queue| {
            queue.disable_interrupts();
            Ok(())
        });
        self.inner.located(done)
    }

    /// A descriptor that becomes readable when a request is done, after enable_interrupts() answered False.
    fn fileno(&self) -> RawFd {
        self.inner.fd
    }

    /// Index of the queue.
    #[getter]
    fn index(&self) -> u16 {
        self.inner.index
    }

    /// Number of descriptors.
    #[getter]
    fn size(&self) -> u16 {
        self.inner.size
    }

    /// Requests that the device has.
    #[getter]
    fn outstanding(&self) -> u16 {
        self.inner.shared.with(|queue| queue.outstanding())
    }

    /// What was counted since the queue was set up, by name.
    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counted(py, self.inner.shared.with(|queue| queue.counters()))
    }

    /// How long waits spin before they sleep, in seconds, at most 0.05 at a time; 0 for not at all.
    fn set_spin(&self, seconds: f64) -> PyResult<()> {
        let spin = wait::longest(Some(seconds))?;
        self.inner.shared.set_spin(spin);
        Ok(())
    }

    /// Ends the use of the queue: whoever waits gets ClosedError. What is in flight stays the device's until its
    /// reset.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type, _exc, _traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<&Bound<'_, PyAny>>,
        _exc: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // An exception is not kept waiting.
        let limit = if exc_type.is_none() { DRAIN } else { Duration::ZERO };
        let drained = py.detach(|| {
            let drained = self.inner.drain(Deadline::after(limit));
            self.inner.close();
            drained
        });
        match drained {
            // What did not come back stays with the device; what the device did was told by the calls before.
            Err(Error::Interrupted) => self.inner.located(drained),
            _ => Ok(()),
        }
    }

    fn __repr__(&self) -> String {
        let state = self.inner.shared.with(|queue| alloc::format!("{:?}", queue.condition()));
        let Inner { device, index, size, .. } = &*self.inner;
        alloc::format!("Queue({}, index {index}, size {size}, {state})", device.address())
    }
}
