//! Long runs of whole devices: many threads on one queue, and a disk under random requests.
#![cfg(all(feature = "soft", not(loom)))]

#[path = "../driver_common/mod.rs"]
mod driver_common;
#[path = "../soak_common/mod.rs"]
mod soak_common;

mod disk;
mod threads;
