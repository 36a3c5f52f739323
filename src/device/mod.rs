//! Devices: life cycle, configuration space, interrupts and queues (VIRTIO 1.4 §2, §3).
//!
//! A [`Device`] goes through its phases ([`Phase`]) by [`Device::negotiate`], [`Device::take_queue`] and
//! [`Device::start`], and back to the first by [`Device::reset`]. A [`Queue`] is an object of its own, owned by who
//! drives it: it has a ring, the doorbell, an event, and the waiting. [`Queue::share`] makes it a [`SharedQueue`] for
//! any number of threads.
//!
//! ```
//! # #[cfg(feature = "soft")] {
//! use std::time::Duration;
//! use virtio::device::QueueConfig;
//! use virtio::event::Deadline;
//! use virtio::features::Features;
//!
//! let device = virtio::open("soft:entropy")?;
//! device.negotiate(Features::EVENT_IDX, Features::VERSION_1)?;
//! let queue = device.take_queue(0, QueueConfig::default())?.share();
//! device.start()?;
//! let pool = device.pool(8, 64)?;
//! let ask = || -> virtio::Result {
//!     let soon = Deadline::after(Duration::from_secs(5));
//!     let token = queue.add([], [pool.take()?], soon)?; // waits for room
//!     queue.notify()?;
//!     let used = queue.wait(token, soon)?; // one of the waiters takes completions for all
//!     assert!(used.written > 0);
//!     Ok(())
//! };
//! std::thread::scope(|scope| {
//!     let threads = [(); 4].map(|()| scope.spawn(ask));
//!     threads.map(|thread| thread.join().unwrap()).into_iter().collect::<virtio::Result>()
//! })?;
//! # }
//! # Ok::<(), virtio::Error>(())
//! ```
//!
//! When a device is reset, lost or closed, its queues learn of it at once: what was completed can still be taken,
//! then each request in flight ends once as [`crate::Error::Indeterminate`].
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]

#[cfg(not(loom))]
mod access;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod events;
#[cfg(not(loom))]
mod gauge;
#[cfg(not(loom))]
mod health;
#[cfg(not(loom))]
mod interrupts;
mod lane;
#[cfg(not(loom))]
mod life;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod setup;
mod shared;
mod used;

#[cfg(not(loom))]
pub use config::{Config, FieldValue};
#[cfg(not(loom))]
pub use events::{Events, Watch};
#[cfg(not(loom))]
pub use health::{Condition, Health};
#[cfg(not(loom))]
pub use interrupts::Wake;
pub use lane::{Lane, Port};
#[cfg(not(loom))]
pub use life::{Device, Options, Phase};
#[cfg(not(loom))]
pub use queue::{DEFAULT_SPIN, Queue, QueuePort, SharedQueue};
#[cfg(not(loom))]
pub use setup::QueueConfig;
pub use shared::Shared;
pub use used::{Done, Used};
