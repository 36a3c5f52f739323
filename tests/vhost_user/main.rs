//! Devices of other processes: qemu-storage-daemon, and a daemon that does as a script says.
#![cfg(feature = "vhost-user")]

mod daemon;
mod random;
mod storage;
