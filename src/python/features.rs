//! Sets of feature bits, and the tables that the package's enumerations are checked against.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};

use crate::features;
use crate::spec::{self, DeviceType, Status};

/// A set of up to 128 feature bits of one device type. Prints names; `in` takes a bit's flag
/// (`virtio.Feature.EVENT_IDX`) or its name.
#[pyclass(frozen, module = "virtio", eq, hash)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Features {
    bits: u128,
    device_type: u32,
    /// A line for each bit that was offered or asked for.
    answers: Vec<String>,
}

impl Features {
    pub(super) fn new(set: features::Features, of: DeviceType) -> Self {
        Self { bits: set.0, device_type: of.0, answers: Vec::new() }
    }

    pub(super) fn negotiated(done: &features::Negotiated) -> Self {
        let answers = done.answers().map(|answer| answer.to_string()).collect();
        Self { answers, ..Self::new(done.accepted(), done.device_type()) }
    }

    fn names(&self) -> String {
        features::Features(self.bits).names(DeviceType(self.device_type)).to_string()
    }
}

/// A set as Python code says it: flags or'ed together, a `Features`, a number, or several of them.
pub(super) fn set(given: Option<&Bound<'_, PyAny>>) -> PyResult<features::Features> {
    let Some(given) = given else { return Ok(features::Features::EMPTY) };
    if let Some(one) = one(given)? {
        return Ok(one);
    }
    let wrong = || PyTypeError::new_err("features are flags such as Feature.EVENT_IDX, or several of them");
    let several = given.try_iter().map_err(|_| wrong())?;
    several.map(|each| one(&each?)?.ok_or_else(wrong)).collect()
}

/// The same without "several": else a string would be several strings, without end.
fn one(given: &Bound<'_, PyAny>) -> PyResult<Option<features::Features>> {
    if let Ok(own) = given.cast::<Features>() {
        return Ok(Some(features::Features(own.get().bits)));
    }
    if !given.is_instance_of::<PyInt>() {
        return Ok(None);
    }
    let bits = given.extract::<u128>().map(features::Features).map(Some);
    bits.map_err(|_| {
        PyValueError::new_err("feature bits are a number of 128 bits: flags such as Feature.EVENT_IDX")
    })
}

#[pymethods]
impl Features {
    fn __contains__(&self, feature: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Ok(name) = feature.extract::<String>() {
            return Ok(self.names().split('|').any(|known| known == name));
        }
        let wanted = set(Some(feature))?;
        Ok(!wanted.is_empty() && features::Features(self.bits).contains(wanted))
    }

    fn __int__(&self) -> u128 {
        self.bits
    }

    fn __index__(&self) -> u128 {
        self.bits
    }

    fn __bool__(&self) -> bool {
        self.bits != 0
    }

    fn __len__(&self) -> usize {
        self.bits.count_ones() as usize
    }

    /// The numbers of the bits that are set, lowest first.
    fn bit_numbers(&self) -> Vec<u8> {
        features::Features(self.bits).iter().collect()
    }

    /// The names of the bits that are set; `bit 77` for one without a name.
    #[getter(names)]
    fn py_names(&self) -> Vec<String> {
        if self.bits == 0 { Vec::new() } else { self.names().split('|').map(String::from).collect() }
    }

    /// A line for each bit that was offered or asked for: what became of it, who asked, and why not. Empty before
    /// the negotiation.
    fn explain(&self) -> Vec<String> {
        self.answers.clone()
    }

    fn __str__(&self) -> String {
        self.names()
    }

    fn __repr__(&self) -> String {
        alloc::format!("Features({})", self.names())
    }
}

/// What the crate knows by number: tests compare the package's enumerations with it.
#[pyfunction(name = "_tables")]
pub(super) fn tables(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let types: Vec<(&str, u32)> =
        DeviceType::NAMED.iter().filter_map(|named| Some((named.name()?, named.0))).collect();
    let reserved: Vec<(&str, u8)> =
        spec::feature::RESERVED.iter().map(|known| (known.name, known.bit)).collect();
    let block: Vec<(&str, u8)> =
        spec::device::block::SPEC.features.iter().map(|known| (known.name, known.bit)).collect();
    let status: Vec<(&str, u8)> =
        Status::all().iter_names().map(|(name, status)| (name, status.bits())).collect();
    let tables = PyDict::new(py);
    for (name, table) in [
        ("DeviceType", types.into_bound_py_any(py)?),
        ("Feature", reserved.into_bound_py_any(py)?),
        ("block.Feature", block.into_bound_py_any(py)?),
        ("Status", status.into_bound_py_any(py)?),
    ] {
        tables.set_item(name, table)?;
    }
    Ok(tables)
}
