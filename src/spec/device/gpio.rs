//! GPIO device (VIRTIO 1.4 §5.18).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the GPIO device (VIRTIO 1.4 §5.18.3, §5.18.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::GPIO, features: FEATURES, config: CONFIG };

feature_bits! { "5.18.3"
    /// Interrupts on lines; the event queue exists.
    IRQ = 0;
}

config_space! { "5.18.4"
    /// Number of lines.
    NGPIO "ngpio" @ 0: u16;
    /// Length of the names of the lines in bytes; 0: no names.
    GPIO_NAMES_SIZE "gpio_names_size" @ 4: u32;
}
