//! One virtqueue.

mod fast;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::batch;
use super::buffer::Buffer;
use super::end::Held;
use super::memory::{Flow, Pools};
use super::used::{Results, Used};
use super::whole::Whole;
use super::{counted, wait};
use crate::device::{self, Done, SharedQueue};
use crate::event::Deadline;
use crate::mem::pool::DmaBuf;
use crate::mem::process::Process;
use crate::queue::Token;
use crate::{Error, Result};
pub(super) use fast::{LOCKED, held_once, install};

/// How long the end of a `with` waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(1);

/// A queue, as its object and its device share it.
pub(super) struct Inner {
    // Before the device: a queue that is dropped after the reset finds its proof.
    pub(super) shared: SharedQueue,
    pub(super) device: Arc<Held>,
    pub(super) pools: Arc<Pools>,
    owner: Process,
    fd: RawFd,
    index: u16,
    size: u16,
}

impl Inner {
    pub(super) fn new(queue: device::Queue<DmaBuf>, device: Arc<Held>, pools: Arc<Pools>) -> Self {
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

    /// What a call gives back, unless a signal's handler raises now: the interpreter would drop what the call returned
    /// then, so it is kept for the next call, and the handler's exception given (fault M7). Everything that takes a
    /// completion ends with this.
    pub(super) fn deliver(&self, py: Python<'_>, result: Result<Done>) -> PyResult<Done> {
        match py.check_signals() {
            Ok(()) => self.located(result),
            Err(raised) => {
                self.shared.put_back(result.map(Into::into));
                Err(raised)
            }
        }
    }

    /// The same for a completion that was there at once.
    #[inline(always)]
    fn hand_over(&self, py: Python<'_>, done: Done) -> PyResult<Done> {
        if let Err(raised) = py.check_signals() {
            self.shared.put_back(Ok(done.into()));
            return Err(raised);
        }
        Ok(done)
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
    results: Results,
}

/// Takes a buffer for its flight.
#[inline(always)]
fn take(buffer: &Buffer, flow: Flow) -> Result<DmaBuf> {
    buffer.memory.take(buffer.index, flow)
}

/// The only buffer of a side of a chain, taken, where it has just one.
#[inline(always)]
fn take_only(side: Option<&Bound<'_, PyAny>>, flow: Flow) -> PyResult<Option<DmaBuf>> {
    let Some(side) = side else { return Ok(None) };
    // Not by `map_err`: what Python makes of an error is made where nothing of its is borrowed any more.
    match fast::take_only(side, flow) {
        Ok(taken) => Ok(taken),
        Err(error) => Err(error.into()),
    }
}

/// One side of a chain, and its only buffer, if that was taken.
type Taken<'a, 'py> = (Option<&'a Bound<'py, PyAny>>, Option<DmaBuf>);

/// Takes the buffers of one side of a chain.
fn take_side((given, taken): Taken<'_, '_>, flow: Flow) -> PyResult<Vec<DmaBuf>> {
    let Some(given) = given else { return Ok(Vec::new()) };
    if let Some(buf) = taken.map_or_else(|| take_only(Some(given), flow), |buf| Ok(Some(buf)))? {
        return Ok(alloc::vec![buf]);
    }
    let mut bufs = Vec::with_capacity(given.len().unwrap_or(0));
    for one in given.try_iter()? {
        bufs.push(take(one?.cast::<Buffer>()?.get(), flow)?);
    }
    Ok(bufs)
}

impl Queue {
    pub(super) fn new(inner: Arc<Inner>, results: Results) -> Self {
        Self { inner, results }
    }

    /// Adds a chain, the usual ones without a detour; with `SEND` notifies the device of it.
    #[inline(always)]
    fn submit<const SEND: bool>(
        &self,
        readable: Option<&Bound<'_, PyAny>>,
        writable: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Token> {
        let first = take_only(readable, Flow::Readable)?;
        // What is not as simple may be Python code that fills the buffers of the other side.
        if first.is_none() && readable.is_some() {
            return self.submit_other::<SEND>((readable, None), (writable, None));
        }
        let second = take_only(writable, Flow::Writable)?;
        match (first, second) {
            (None, Some(to)) => self.put(|queue| queue.submit::<SEND, _, _>([], [to])),
            (Some(from), Some(to)) => self.put(|queue| queue.submit::<SEND, _, _>([from], [to])),
            (Some(from), None) if writable.is_none() => {
                self.put(|queue| queue.submit::<SEND, _, _>([from], []))
            }
            (first, None) => self.submit_other::<SEND>((readable, first), (writable, None)),
        }
    }

    /// The same for sides of any number of buffers, of which one may be taken already.
    #[inline(never)]
    fn submit_other<const SEND: bool>(
        &self,
        readable: Taken<'_, '_>,
        writable: Taken<'_, '_>,
    ) -> PyResult<Token> {
        let readable = take_side(readable, Flow::Readable)?;
        let writable = take_side(writable, Flow::Writable)?;
        self.put(|queue| {
            if SEND {
                queue.check_started()?;
            }
            let token = queue.add_chain(readable, writable)?;
            Ok((token, SEND && queue.publish()?))
        })
    }

    #[inline(always)]
    fn put(&self, add: impl FnOnce(&mut device::Queue<DmaBuf>) -> Result<(Token, bool)>) -> PyResult<Token> {
        match self.inner.shared.send(add) {
            Ok(token) => Ok(token),
            error => self.inner.located(error),
        }
    }

    /// See `transfer`.
    #[inline]
    fn transfer_in(
        &self,
        py: Python<'_>,
        readable: Option<&Bound<'_, PyAny>>,
        writable: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<u32> {
        wait::check(timeout)?;
        let inner = &*self.inner;
        let token = self.submit::<true>(readable, writable)?;
        let there = match inner.shared.try_wait(token) {
            Ok(Some(done)) => return inner.hand_over(py, done).map(|done| done.written),
            there => there,
        };
        Ok(self.outcome(py, token, there, timeout)?.written)
    }

    /// See `get`.
    #[inline]
    fn get_in(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Used>> {
        wait::check(timeout)?;
        match self.inner.shared.pop_done() {
            Ok(Some(done)) => self.results.give(py, self.inner.hand_over(py, done)?),
            there => self.next(py, there, timeout),
        }
    }

    /// What became of a request that is waited for, once a look gave `there`: out of line, as most answers are there at
    /// once.
    #[cold]
    fn outcome(
        &self,
        py: Python<'_>,
        token: Token,
        there: Result<Option<Done>>,
        timeout: Option<f64>,
    ) -> PyResult<Done> {
        let inner = &*self.inner;
        let done = match there.transpose() {
            Some(there) => there,
            None => {
                let deadline = wait::deadline(timeout)?;
                let look = wait::look_after_signals;
                py.detach(|| inner.shared.wait_with(token, deadline, look)).map(Done::from)
            }
        };
        let late = matches!(done, Err(Error::Timeout { .. }));
        let done = inner.deliver(py, done);
        if let Err(error) = &done
            && late
            && error.is_instance_of::<PyTimeoutError>(py)
        {
            error.value(py).setattr("token", token.into_raw())?;
        }
        done
    }

    /// The same for the next request that nobody waits for.
    #[cold]
    fn next(&self, py: Python<'_>, there: Result<Option<Done>>, timeout: Option<f64>) -> PyResult<Py<Used>> {
        let inner = &*self.inner;
        let done = match there.transpose() {
            Some(there) => there,
            None => {
                let deadline = wait::deadline(timeout)?;
                py.detach(|| inner.shared.get_with(deadline, wait::look_after_signals)).map(Done::from)
            }
        };
        self.results.give(py, inner.deliver(py, done)?)
    }
}

#[pymethods]
impl Queue {
    /// Adds a chain of buffers: those that the device reads, then those that it writes. The device sees it with the
    /// next notify(). Answers the chain's token, a number.
    #[pyo3(signature = (readable=None, writable=None), text_signature = "($self, readable=(), writable=())")]
    fn add(&self, readable: Option<&Bound<'_, PyAny>>, writable: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        self.submit::<false>(readable, writable).map(Token::into_raw)
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
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Used>> {
        self.get_in(py, timeout)
    }

    /// A request that is done and that nobody waits for, or None.
    fn pop(&self, py: Python<'_>) -> PyResult<Option<Py<Used>>> {
        let Some(there) = self.inner.shared.pop_done().transpose() else { return Ok(None) };
        self.results.give(py, self.inner.deliver(py, there)?).map(Some)
    }

    /// Waits for the request of this token: seconds, or None for ever.
    #[pyo3(signature = (token, timeout=None), name = "wait")]
    fn py_wait(&self, py: Python<'_>, token: Whole<u64>, timeout: Option<f64>) -> PyResult<Py<Used>> {
        wait::check(timeout)?;
        let token = Token::from_raw(token.0);
        let there = self.inner.shared.try_wait(token);
        self.results.give(py, self.outcome(py, token, there, timeout)?)
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
        self.transfer_in(py, readable, writable, timeout)
    }

    /// Adds many chains at once. `readable_slots` and `writable_slots` are arrays of buffers' numbers (Buffer.slot,
    /// Pool.first): one number for each chain, or as many as the array has columns; several arrays side by side are
    /// given as a tuple. `tokens`, an array of 8-byte integers, takes the chains' tokens. Answers how many were added:
    /// fewer than asked for where the queue is full, or where a chain further on is refused; the error is raised where
    /// it is the first one that is. The device sees them with the next notify().
    #[pyo3(signature = (readable_slots=None, writable_slots=None, tokens=None))]
    fn add_many<'py>(
        &self,
        py: Python<'py>,
        readable_slots: Option<&Bound<'py, PyAny>>,
        writable_slots: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<usize> {
        batch::add_many(py, &self.inner, readable_slots, writable_slots, tokens)
    }

    /// Waits for requests that are done and that nobody else waits for, and takes all there are, at most as many as
    /// the arrays have room for: their tokens, and how many bytes the device says it wrote to each. Answers how many
    /// they are, one at least.
    #[pyo3(signature = (tokens, written=None, timeout=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'py, PyAny>,
        written: Option<&Bound<'py, PyAny>>,
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
        let nonsense = |_| PyValueError::new_err("a spin is a number of seconds from 0 on");
        let spin = wait::longest(Some(seconds)).map_err(nonsense)?;
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
