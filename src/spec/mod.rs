//! Numbers and layouts of VIRTIO 1.4, without state and without I/O.

pub mod layout;

mod device_type;

pub use device_type::DeviceType;
