//! GPU device (VIRTIO 1.4 §5.7).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the GPU device (VIRTIO 1.4 §5.7.3, §5.7.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::GPU, features: FEATURES, config: CONFIG };

feature_bits! { "5.7.3"
    /// 3D commands of virgl.
    VIRGL = 0;
    /// EDID of the displays.
    EDID = 1;
    /// Resources can have a UUID for other devices.
    RESOURCE_UUID = 2;
    /// Blob resources.
    RESOURCE_BLOB = 3;
    /// Several kinds of contexts and of timelines.
    CONTEXT_INIT = 4 requires [VIRGL];
    /// `blob_alignment` is valid.
    BLOB_ALIGNMENT = 5 requires [RESOURCE_BLOB];
}

config_space! { "5.7.4"
    /// Pending events, see [`EVENT_DISPLAY`](super::EVENT_DISPLAY).
    EVENTS_READ "events_read" @ 0: u32;
    /// Ones clear the same bits of `events_read`.
    EVENTS_CLEAR "events_clear" @ 4: u32 => writable;
    /// Largest number of scanouts, 1 to 16.
    NUM_SCANOUTS "num_scanouts" @ 8: u32;
    /// Number of capability sets.
    NUM_CAPSETS "num_capsets" @ 12: u32;
    /// Alignment of blob resources in bytes.
    BLOB_ALIGNMENT "blob_alignment" @ 16: u32 when [BLOB_ALIGNMENT];
}

/// Bit of `events_read`: the displays changed (VIRTIO 1.4 §5.7.4).
pub const EVENT_DISPLAY: u32 = 1;
