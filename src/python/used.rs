//! Small results.

use alloc::string::String;

use pyo3::prelude::*;

use crate::device::{self, Done};

/// A request that the device has done: its token, and how many bytes the device says it wrote.
#[pyclass(frozen, module = "virtio", eq, hash)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Used {
    /// The number that add() gave.
    #[pyo3(get)]
    token: u64,
    /// Bytes written into the chain's device-writable buffers, from the first on.
    #[pyo3(get)]
    written: u32,
}

impl Used {
    #[inline]
    pub(super) fn new(done: Done) -> Self {
        Self { token: done.token.into_raw(), written: done.written }
    }
}

#[pymethods]
impl Used {
    fn __repr__(&self) -> String {
        alloc::format!("Used(token={:#x}, written={})", self.token, self.written)
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
