//! What the specification says of each device type (VIRTIO 1.4 §5).

use super::DeviceType;
use super::layout::DeviceSpec;

/// The tables of a device type, where the specification defines one.
pub fn spec(_device: DeviceType) -> Option<&'static DeviceSpec> {
    None
}
