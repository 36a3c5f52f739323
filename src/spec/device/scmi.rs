//! SCMI device (VIRTIO 1.4 §5.17).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::feature_bits;

/// Feature bits and configuration space of the SCMI device (VIRTIO 1.4 §5.17.3, §5.17.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::SCMI, features: FEATURES, config: &[] };

feature_bits! { "5.17.3"
    /// Notifications or delayed responses; the event queue exists.
    P2A_CHANNELS = 0;
    /// Statistics in shared memory.
    SHARED_MEMORY = 1;
}
