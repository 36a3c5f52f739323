//! The other side: devices in software, for tests, benchmarks and programs without hardware.
//!
//! A [`SoftDevice`] puts a [`DeviceModel`] (a [`Block`], an [`Entropy`], a [`Console`], a [`Net`], a [`Blank`], or one's own) behind
//! the registers of an [`Interface`], so that a driver reaches it through the transports that hardware meets. It is
//! [`Run`] by a thread, step by step, or inside the driver's notification. On demand it lies ([`DeviceLie`], [`Lie`]),
//! and checks its driver against the specification ([`RULES`], [`Report::broken`]).
//!
//! [`DeviceRing`] is a split ring seen from the device, and [`LyingRing`] the same with a script of lies: for tests and
//! benchmarks of rings alone.
//!
//! A model of one's own:
//!
//! ```
//! use virtio::device::{Device, Options, QueueConfig};
//! use virtio::features::Features;
//! use virtio::soft::{DeviceModel, Reply, Request, Run, SoftDevice};
//! use virtio::spec::{ByteOrder, DeviceType};
//! use virtio::transport::{PciInterface, open_pci};
//!
//! /// An entropy device that is out of entropy.
//! #[derive(Debug)]
//! struct Sevens;
//!
//! impl DeviceModel for Sevens {
//!     fn device_type(&self) -> DeviceType {
//!         DeviceType::ENTROPY
//!     }
//!     fn queues(&self) -> u16 {
//!         1
//!     }
//!     fn handle(&mut self, request: &mut Request<'_>) -> virtio::Result<Reply> {
//!         request.write(0, &[7; 4])?;
//!         Ok(Reply::Used(4))
//!     }
//! }
//!
//! # fn main() -> virtio::Result {
//! let soft = SoftDevice::builder(Sevens).run(Run::Stepped).checked(true).build()?;
//! let transport = open_pci(soft.pci()?, PciInterface::Any, ByteOrder::Little)?;
//! let device = Device::open(transport, Options::default())?;
//! device.negotiate(Features::EMPTY, Features::VERSION_1)?;
//! let mut queue = device.take_queue(0, QueueConfig::size(8))?;
//! device.start()?;
//!
//! queue.add([], [device.alloc(16)?])?;
//! queue.notify()?;
//! assert!(queue.pop()?.is_none()); // nobody has stepped the device yet
//! assert_eq!(soft.settle()?, 1); // one chain
//! let used = queue.pop()?.unwrap();
//! assert_eq!(used.written, 4);
//! assert_eq!(soft.report().broken, None); // the driver kept the rules
//! # Ok(()) }
//! ```
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
mod blank;
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
mod named;
#[cfg(not(loom))]
mod net;
#[cfg(all(feature = "vhost-user", not(loom)))]
mod null;
#[cfg(not(loom))]
mod pci;
#[cfg(not(loom))]
mod pci_config;
#[cfg(not(loom))]
mod plan;
#[cfg(not(loom))]
mod registers;
#[cfg(not(loom))]
mod request;
mod ring;
#[cfg(not(loom))]
mod script;
#[cfg(not(loom))]
mod space;
#[cfg(all(feature = "vhost-user", not(loom)))]
mod vhost_user;

#[cfg(not(loom))]
pub use blank::Blank;
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
pub use named::Published;
#[cfg(not(loom))]
pub(crate) use named::published;
#[cfg(not(loom))]
pub use net::Net;
#[cfg(all(feature = "vhost-user", not(loom)))]
pub use null::NullBlock;
#[cfg(not(loom))]
pub use request::Request;
pub use ring::{Area, DeviceChain, DeviceDesc, DeviceRing, DriverFault, Tables};
#[cfg(not(loom))]
pub use script::DeviceLie;
#[cfg(all(feature = "vhost-user", not(loom)))]
pub use vhost_user::{VhostUserDevice, VhostUserDeviceBuilder, VhostUserReport};
