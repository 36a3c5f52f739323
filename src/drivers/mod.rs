//! Drivers, one a device type: they know no register, and take every wait, limit and number of the device as
//! something to be checked.
//!
//! A driver is made of a [`Device`] that was opened, or opened and negotiated by the caller; its `open` makes it of an
//! address. It starts the device, and gives it back on request, for a reset and another set-up.
#![cfg(not(loom))]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test may fail"
    )
)]

pub mod block;
pub mod entropy;

pub use block::{Block, BlockOptions, Reconnect};
pub use entropy::Entropy;

use crate::Result;
use crate::device::{Device, Phase};
use crate::features::{Features, Origin};

/// What every driver takes of the rings and of the platform where it is offered: events by index (some devices
/// were seen to lose some without), tables, and what a device behind an IOMMU needs (VIRTIO 1.4 §6.1).
const COMMON: Features = Features::EVENT_IDX
    .union(Features::INDIRECT_DESC)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::ORDER_PLATFORM);

/// Negotiates `wanted` and what every driver wants, unless the caller has negotiated already.
fn agree(device: &Device, wanted: Features) -> Result<Features> {
    if device.phase() == Phase::Negotiated {
        return Ok(device.features());
    }
    device.negotiate_as(Origin::Driver, wanted | COMMON, Features::EMPTY)
}
