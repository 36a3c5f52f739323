//! Devices: life cycle, configuration space, interrupts and queues (VIRTIO 1.4 §2, §3).
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]

mod config;
mod events;
mod health;
mod interrupts;
mod life;
mod queue;
mod setup;
mod used;

pub use config::{Config, FieldValue};
pub use events::{Events, Watch};
pub use health::{Condition, Health};
pub use interrupts::Wake;
pub use life::{Device, Options, Phase};
pub use queue::{DEFAULT_SPIN, Queue};
pub use setup::QueueConfig;
pub use used::Used;
