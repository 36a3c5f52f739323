//! Devices of QEMU machines: what other hands made, behind every register interface.
#![cfg(feature = "qtest")]

mod block;
mod common;
mod endian;
mod faults;
mod interrupts;
mod machines;
mod protocol;
mod random;
mod rings;
mod streams;
mod table;
