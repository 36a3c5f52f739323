//! Devices of QEMU machines: what other hands made, behind every register interface.
#![cfg(feature = "qtest")]

mod block;
mod common;
mod random;
mod rings;
