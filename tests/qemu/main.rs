//! Devices of QEMU machines: what other hands made, behind every register interface.
#![cfg(all(feature = "qtest", not(loom)))]

mod block;
mod cells;
mod common;
mod endian;
mod faults;
mod interrupts;
mod machines;
mod protocol;
mod random;
mod rings;
mod streams;
mod threads;
