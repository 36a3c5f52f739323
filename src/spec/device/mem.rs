//! Memory device (VIRTIO 1.4 §5.15).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the memory device (VIRTIO 1.4 §5.15.3, §5.15.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::MEMORY, features: FEATURES, config: CONFIG };

feature_bits! { "5.15.3"
    /// `node_id` is valid.
    ACPI_PXM = 0;
    /// Unplugged memory is out of bounds.
    UNPLUGGED_INACCESSIBLE = 1;
    /// Memory stays plugged while the guest is suspended.
    PERSISTENT_SUSPEND = 2;
}

config_space! { "5.15.4"
    /// Size and alignment of a block in bytes.
    BLOCK_SIZE "block_size" @ 0: u64;
    /// Proximity domain.
    NODE_ID "node_id" @ 8: u16 when [ACPI_PXM];
    /// Physical address of the region.
    ADDR "addr" @ 16: u64;
    /// Size of the region in bytes.
    REGION_SIZE "region_size" @ 24: u64;
    /// Size of the part that can be used, in bytes.
    USABLE_REGION_SIZE "usable_region_size" @ 32: u64;
    /// Bytes that are plugged.
    PLUGGED_SIZE "plugged_size" @ 40: u64;
    /// Bytes that the device asks to be plugged.
    REQUESTED_SIZE "requested_size" @ 48: u64;
}
