//! I2C adapter device (VIRTIO 1.4 §5.16).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::feature_bits;

/// Feature bits and configuration space of the I2C adapter device (VIRTIO 1.4 §5.16.3, §5.16.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::I2C, features: FEATURES, config: &[] };

feature_bits! { "5.16.3"
    /// Requests without data and the read flag. A driver gives up without this bit.
    ZERO_LENGTH_REQUEST = 0;
}
