//! The published crates, driven in the way that suits each best.

mod virtio_driver;
mod virtio_drivers;

pub use self::virtio_driver::VirtioDriver;
pub use self::virtio_drivers::VirtioDrivers;
