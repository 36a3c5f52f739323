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

use virtio::testing::Qemu;

use crate::common::Way;

/// A machine with an entropy device as number 0, which has these properties besides, each behind a comma.
fn entropy(way: Way, properties: &str) -> Qemu {
    let builder = way.builder().args(["-object", "rng-builtin,id=r"]);
    builder.device(way.device("rng", 0, &format!("rng=r{properties}"))).start().unwrap()
}
