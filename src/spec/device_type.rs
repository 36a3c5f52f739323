//! Device types (VIRTIO 1.4 §5).

/// A device type by its id. Unknown ids survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceType(pub u32);
