//! Sound device (VIRTIO 1.4 §5.14).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the sound device (VIRTIO 1.4 §5.14.3, §5.14.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::SOUND, features: FEATURES, config: CONFIG };

feature_bits! { "5.14.3"
    /// Control elements; `controls` is valid.
    CTLS = 0;
}

config_space! { "5.14.4"
    /// Number of jacks.
    JACKS "jacks" @ 0: u32;
    /// Number of PCM streams.
    STREAMS "streams" @ 4: u32;
    /// Number of channel maps.
    CHMAPS "chmaps" @ 8: u32;
    /// Number of control elements.
    CONTROLS "controls" @ 12: u32 when [CTLS];
}
