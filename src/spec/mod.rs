//! Numbers and layouts of VIRTIO 1.4, without state and without I/O.

pub mod byte_order;
pub mod device;
pub mod layout;
pub mod split;

mod device_type;
mod wire;

pub use byte_order::ByteOrder;
pub use device_type::DeviceType;
pub use wire::Reserved;
