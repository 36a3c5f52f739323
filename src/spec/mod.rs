//! Numbers and layouts of VIRTIO 1.4, without state and without I/O.

pub mod byte_order;
pub mod layout;
pub mod mmio;
pub mod pci;

mod device_type;

pub use byte_order::ByteOrder;
pub use device_type::DeviceType;
