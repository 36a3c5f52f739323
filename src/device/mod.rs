//! Devices: life cycle, configuration space, interrupts and queues (VIRTIO 1.4 §2, §3).
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]

#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod events;
#[cfg(not(loom))]
mod health;
#[cfg(not(loom))]
mod interrupts;
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
#[cfg(not(loom))]
pub use life::{Device, Options, Phase};
#[cfg(not(loom))]
pub use queue::{DEFAULT_SPIN, Queue, QueuePort, SharedQueue};
#[cfg(not(loom))]
pub use setup::QueueConfig;
pub use shared::{Lane, Port, Shared};
pub use used::Used;
