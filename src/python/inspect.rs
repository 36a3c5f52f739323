//! What the command `virtio` shows of a device.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use pyo3::prelude::*;

use super::device::Device;
use crate::Error;
use crate::features::{Features, Outcome};
use crate::spec::DeviceType;

/// Queues that are looked at where the transport does not count them.
const MOST_QUEUES: u16 = 256;

/// One feature bit after the negotiation: number, name, offered, accepted, why not.
type Row = (u8, Option<&'static str>, bool, bool, String);

/// What became of each feature bit that was offered or asked for. Empty before the negotiation.
#[pyfunction]
pub(super) fn _answers(device: &Device) -> Vec<Row> {
    let Some(done) = device.inner.negotiated() else { return Vec::new() };
    let rows = done.answers().map(|answer| {
        let accepted = answer.outcome == Outcome::Accepted;
        let text = answer.to_string();
        let why = text.split_once("): ").or_else(|| text.split_once(": ")).map_or("", |(_, why)| why);
        let why = if accepted { "" } else { why };
        (answer.bit, answer.name(), done.offered().has(answer.bit), accepted, why.into())
    });
    rows.collect()
}

/// Index and largest size of each queue of a device.
#[pyfunction]
pub(super) fn _queues(device: &Device) -> PyResult<Vec<(u16, u16)>> {
    let transport = device.inner.transport();
    let count = transport.queue_count()?.unwrap_or(MOST_QUEUES);
    let mut queues = Vec::new();
    for index in 0..count {
        match transport.queue_max_size(index) {
            Ok(0) | Err(Error::QueueUnavailable { .. }) => break,
            Ok(size) => queues.push((index, size)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(queues)
}

/// How a device is reached: name of the register interface, whether it is a legacy one, bytes of configuration.
#[pyfunction]
pub(super) fn _transport(device: &Device) -> (&'static str, bool, u64) {
    let transport = device.inner.transport();
    (transport.kind().name(), transport.legacy(), transport.config_len())
}

/// The names of the bits of a number, as features of a device type; lowest bit first.
#[pyfunction]
pub(super) fn _names(bits: u128, device_type: u32) -> Vec<String> {
    let set = Features(bits);
    let names = set.names(DeviceType(device_type)).to_string();
    if set.is_empty() { Vec::new() } else { names.split('|').map(String::from).collect() }
}
