//! Numbers and layouts of VIRTIO 1.4, without state and without I/O.
//!
//! Rings ([`split`], [`packed`]), registers ([`pci`], [`mmio`]) and device types ([`device`]) are told as offsets,
//! widths and values: no structure is laid over memory that a device can write. Unknown device types, feature bits
//! and status codes survive a round trip.

pub mod byte_order;
pub mod device;
pub mod feature;
pub mod layout;
pub mod mmio;
pub mod packed;
pub mod pci;
pub mod split;
pub mod vhost_user;

mod device_type;
mod status;
mod wire;

pub use byte_order::ByteOrder;
pub use device_type::{
    DeviceType, PCI_DEVICE_ID_BASE, PCI_DEVICE_ID_LAST, PCI_TRANSITIONAL_ID_FIRST, PCI_VENDOR_ID,
    UnknownDeviceType,
};
pub use status::Status;
pub use wire::Reserved;
