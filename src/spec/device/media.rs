//! Media device (VIRTIO 1.4 §5.22).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::config_space;

/// Feature bits and configuration space of the media device (VIRTIO 1.4 §5.22.3, §5.22.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::MEDIA, features: &[], config: CONFIG };

config_space! { "5.22.4"
    /// Capabilities as in V4L2.
    DEVICE_CAPS "device_caps" @ 0: u32;
    /// Kind of V4L2 device.
    DEVICE_TYPE "device_type" @ 4: u32;
    /// Name in UTF-8, with NUL if shorter.
    CARD "card" @ 8: u8[32];
}
