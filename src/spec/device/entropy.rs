//! Entropy device (VIRTIO 1.4 §5.4): no feature bits, no configuration space, and buffers without a header.

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;

/// Feature bits and configuration space of the entropy device: none (VIRTIO 1.4 §5.4.3, §5.4.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::ENTROPY, features: &[], config: &[] };
