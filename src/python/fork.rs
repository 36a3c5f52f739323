//! Handles do not survive a fork: those of the parent's are closed to the child (fault M6).

use core::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::{Error, Result};

/// Number of forks between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Has every fork that Python makes counted, in the child.
pub(super) fn watch(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let counter = pyo3::wrap_pyfunction!(count_fork, module)?;
    let hooks = pyo3::types::PyDict::new(module.py());
    hooks.set_item("after_in_child", counter)?;
    module.py().import("os")?.call_method("register_at_fork", (), Some(&hooks)).map(drop)
}

/// Called in the child of a fork.
#[pyfunction(name = "_count_fork")]
fn count_fork() {
    // Relaxed: the child has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// In which process a handle was made. A system call for each look would cost more than all else that a call does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Born(u32);

impl Born {
    pub(super) fn now() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this is the process that made the handle.
    #[inline]
    pub(super) fn here(self) -> bool {
        self.0 == GENERATION.load(Ordering::Relaxed)
    }

    /// [`Error::ForkedProcess`] in a fork's child.
    #[inline]
    pub(super) fn check(self, what: &'static str) -> Result<()> {
        if self.here() { Ok(()) } else { Err(Error::ForkedProcess { what }) }
    }
}
