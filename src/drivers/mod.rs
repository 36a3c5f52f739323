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

use alloc::sync::Arc;
use core::fmt;

use crate::Result;
use crate::device::{Device, Phase};
use crate::features::{Features, Origin};

/// What a driver calls while it waits: before it sleeps, and every 50 ms at least, for those who have to look after
/// signals. Its error ends the call as a time-out does, with requests in flight. It must not use the driver, whose
/// lock the waiting call holds.
#[derive(Clone, Default)]
pub struct Between(Option<Arc<dyn Fn() -> Result<()> + Send + Sync>>);

impl Between {
    /// Calls `look`.
    pub fn new(look: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(look)))
    }

    fn look(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |look| look())
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Between({})", if self.0.is_some() { "set" } else { "not set" })
    }
}

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
