//! The other side: devices in software, for tests, benchmarks and programs without hardware.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]

mod lies;
mod ring;

pub use lies::{Lie, LyingRing};
pub use ring::{Area, DeviceChain, DeviceDesc, DeviceRing, DriverFault, Tables};
