//! RTC device (VIRTIO 1.4 §5.23).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::feature_bits;

/// Feature bits and configuration space of the RTC device (VIRTIO 1.4 §5.23.3, §5.23.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::RTC, features: FEATURES, config: &[] };

feature_bits! { "5.23.3"
    /// Alarms; the alarm queue exists.
    ALARM = 0;
}
