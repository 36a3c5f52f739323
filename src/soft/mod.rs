//! The other side: devices in software, for tests, benchmarks and programs without hardware.

mod ring;

pub use ring::{Area, DeviceChain, DeviceDesc, DeviceRing, DriverFault, Tables};
