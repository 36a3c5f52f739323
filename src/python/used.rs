//! Small results.

use alloc::string::String;
use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use pyo3::prelude::*;

use super::queue::{LOCKED, held_once};
use crate::device::{self, Done};

/// A request that the device has done: its token, and how many bytes the device says it wrote.
#[pyclass(frozen, module = "virtio", eq, hash)]
#[derive(Debug)]
pub(super) struct Used {
    // Atomic, since [`Results`] sets them anew; relaxed, because nobody else has the object then.
    token: AtomicU64,
    written: AtomicU32,
}

impl Used {
    fn new(done: Done) -> Self {
        Self { token: AtomicU64::new(done.token.into_raw()), written: AtomicU32::new(done.written) }
    }

    #[inline]
    fn set(&self, done: Done) {
        self.token.store(done.token.into_raw(), Relaxed);
        self.written.store(done.written, Relaxed);
    }
}

impl PartialEq for Used {
    fn eq(&self, other: &Self) -> bool {
        (self.token(), self.written()) == (other.token(), other.written())
    }
}

impl Hash for Used {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.token(), self.written()).hash(state);
    }
}

#[pymethods]
impl Used {
    /// The number that add() gave.
    #[getter]
    fn token(&self) -> u64 {
        self.token.load(Relaxed)
    }

    /// Bytes written into the chain's device-writable buffers, from the first on.
    #[getter]
    fn written(&self) -> u32 {
        self.written.load(Relaxed)
    }

    fn __repr__(&self) -> String {
        alloc::format!("Used(token={:#x}, written={})", self.token(), self.written())
    }
}

/// What a queue's calls answer: objects that the caller has let go of are given again, as CPython does with the tuples of
/// `zip`. To make and to free one takes as long as all that the ring does for a request.
///
/// Two, because a loop lets go of the last one only when it has the next.
#[derive(Debug)]
pub(super) struct Results(Option<[Py<Used>; 2]>);

impl Results {
    /// Of no use without a global lock, where others may look at an object at any moment. Python code may run in this.
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let zero = || Used { token: AtomicU64::new(0), written: AtomicU32::new(0) };
        Ok(Self(if LOCKED { Some([Py::new(py, zero())?, Py::new(py, zero())?]) } else { None }))
    }

    #[inline]
    pub(super) fn give(&self, py: Python<'_>, done: Done) -> PyResult<Py<Used>> {
        for kept in self.0.iter().flatten() {
            // Ours is the only reference: nobody sees it change, and nobody comes by another.
            if held_once(py, kept) {
                kept.get().set(done);
                return Ok(kept.clone_ref(py));
            }
        }
        Py::new(py, Used::new(done))
    }
}

/// What has happened to a device since the last look.
#[pyclass(frozen, module = "virtio", eq)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events {
    /// The configuration may have changed: read it again.
    #[pyo3(get)]
    config_changed: bool,
    /// The device asks for a reset.
    #[pyo3(get)]
    needs_reset: bool,
    /// The device is gone.
    #[pyo3(get)]
    gone: bool,
}

impl From<device::Events> for Events {
    fn from(events: device::Events) -> Self {
        let device::Events { config_changed, needs_reset, gone } = events;
        Self { config_changed, needs_reset, gone }
    }
}

#[pymethods]
impl Events {
    fn __bool__(&self) -> bool {
        self.config_changed || self.needs_reset || self.gone
    }

    fn __repr__(&self) -> String {
        let word = |flag| if flag { "True" } else { "False" };
        alloc::format!(
            "Events(config_changed={}, needs_reset={}, gone={})",
            word(self.config_changed),
            word(self.needs_reset),
            word(self.gone)
        )
    }
}
