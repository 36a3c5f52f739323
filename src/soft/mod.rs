//! The other side: devices in software, for tests, benchmarks and programs without hardware.
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

#[cfg(not(loom))]
mod block;
#[cfg(not(loom))]
mod check;
#[cfg(not(loom))]
mod console;
#[cfg(not(loom))]
mod core;
#[cfg(not(loom))]
mod device;
#[cfg(not(loom))]
mod engine;
#[cfg(not(loom))]
mod entropy;
#[cfg(not(loom))]
mod interrupts;
mod lies;
#[cfg(not(loom))]
mod machine;
#[cfg(not(loom))]
mod mmio;
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
mod net;
#[cfg(not(loom))]
mod pci;
#[cfg(not(loom))]
mod pci_config;
#[cfg(not(loom))]
mod registers;
#[cfg(not(loom))]
mod request;
mod ring;
#[cfg(not(loom))]
mod script;
#[cfg(not(loom))]
mod space;

#[cfg(not(loom))]
pub use block::{Block, BlockFailure, BlockLimits};
#[cfg(not(loom))]
pub use check::{BrokenMust, RULES};
#[cfg(not(loom))]
pub use console::Console;
#[cfg(not(loom))]
pub use device::{Interface, Report, SoftDevice, SoftDeviceBuilder};
#[cfg(not(loom))]
pub use entropy::Entropy;
pub use lies::{Lie, LyingRing};
#[cfg(not(loom))]
pub use machine::Run;
#[cfg(not(loom))]
pub use model::{DeviceModel, Reply, SharedRegion};
#[cfg(not(loom))]
pub use net::Net;
#[cfg(not(loom))]
pub use request::Request;
pub use ring::{Area, DeviceChain, DeviceDesc, DeviceRing, DriverFault, Tables};
#[cfg(not(loom))]
pub use script::DeviceLie;
