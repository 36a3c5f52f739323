//! Devices: life cycle, configuration space, interrupts and queues (VIRTIO 1.4 §2, §3).
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::arithmetic_side_effects)]
#![allow(dead_code, reason = "queues are wired in with the next change")]

mod config;
mod health;
mod interrupts;
mod life;

pub use config::{Config, FieldValue};
pub use health::{Condition, Health};
pub use interrupts::Wake;
pub use life::{Device, Options, Phase};
