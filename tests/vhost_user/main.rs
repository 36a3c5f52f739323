//! Devices of other processes: qemu-storage-daemon, and a daemon that does as a script says.
#![cfg(feature = "vhost-user")]

#[expect(dead_code, reason = "other tests use more of it")]
mod daemon;
mod random;
#[path = "../soak_common/mod.rs"]
mod soak_common;
mod storage;
