//! PMEM device (VIRTIO 1.4 §5.19).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the PMEM device (VIRTIO 1.4 §5.19.3, §5.19.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::PMEM, features: FEATURES, config: CONFIG };

feature_bits! { "5.19.3"
    /// The region is shared memory 0; `start` and `size` are not valid then.
    SHMEM_REGION = 0;
}

config_space! { "5.19.4"
    /// Physical address of the region, unless SHMEM_REGION is accepted.
    START "start" @ 0: u64;
    /// Size of the region in bytes, unless SHMEM_REGION is accepted.
    SIZE "size" @ 8: u64;
}
