//! IOMMU device (VIRTIO 1.4 §5.13).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the IOMMU device (VIRTIO 1.4 §5.13.3, §5.13.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::IOMMU, features: FEATURES, config: CONFIG };

feature_bits! { "5.13.3"
    /// `input_range` is valid.
    INPUT_RANGE = 0;
    /// `domain_range` is valid.
    DOMAIN_RANGE = 1;
    /// Map and unmap requests.
    MAP_UNMAP = 2;
    /// Endpoints without a domain bypass the device.
    BYPASS = 3;
    /// Probe requests; `probe_size` is valid.
    PROBE = 4;
    /// The MMIO flag of map requests.
    MMIO = 5;
    /// `bypass` is valid, and the bypass flag of attach requests.
    BYPASS_CONFIG = 6;
}

config_space! { "5.13.4"
    /// Mask of the page sizes.
    PAGE_SIZE_MASK "page_size_mask" @ 0: u64;
    /// First virtual address.
    INPUT_RANGE_START "input_range.start" @ 8: u64 when [INPUT_RANGE];
    /// Last virtual address.
    INPUT_RANGE_END "input_range.end" @ 16: u64 when [INPUT_RANGE];
    /// First domain.
    DOMAIN_RANGE_START "domain_range.start" @ 24: u32 when [DOMAIN_RANGE];
    /// Last domain.
    DOMAIN_RANGE_END "domain_range.end" @ 28: u32 when [DOMAIN_RANGE];
    /// Length of the properties in a probe request, in bytes.
    PROBE_SIZE "probe_size" @ 32: u32 when [PROBE];
    /// Whether endpoints without a domain bypass the device: 0 or 1.
    BYPASS "bypass" @ 36: u8 when [BYPASS_CONFIG] => writable;
}
