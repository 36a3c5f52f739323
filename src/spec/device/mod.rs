//! What the specification says of each device type (VIRTIO 1.4 §5).
//!
//! Each module holds a [`DeviceSpec`] named `SPEC`: the feature bits with their dependencies and the configuration
//! space, padding left out. The modules `feature` and `config` inside name the bit numbers and the field offsets.

use super::DeviceType;
use super::layout::DeviceSpec;

pub mod balloon;
pub mod block;
pub mod can;
pub mod console;
pub mod crypto;
pub mod entropy;
pub mod fs;
pub mod gpio;
pub mod gpu;
pub mod i2c;
pub mod input;
pub mod iommu;
pub mod media;
pub mod mem;
pub mod net;
pub mod pmem;
pub mod rpmb;
pub mod rtc;
pub mod scmi;
pub mod scsi;
pub mod sound;
pub mod spi;
pub mod vsock;

/// The tables of a device type; `None` if VIRTIO 1.4 has no chapter on it.
///
/// ```
/// use virtio::spec::{DeviceType, device};
///
/// let block = device::spec(DeviceType::BLOCK).unwrap();
/// assert_eq!(block.config[0].name, "capacity");
/// assert!(device::spec(DeviceType::NINE_P).is_none());
/// ```
#[must_use]
pub fn spec(device_type: DeviceType) -> Option<&'static DeviceSpec> {
    all().iter().copied().find(|spec| spec.device_type == device_type)
}

/// The tables of every device type that VIRTIO 1.4 specifies, in the order of its chapters (§5.1 to §5.23).
#[must_use]
pub const fn all() -> &'static [&'static DeviceSpec] {
    &[
        &net::SPEC,
        &block::SPEC,
        &console::SPEC,
        &entropy::SPEC,
        &balloon::SPEC,
        &scsi::SPEC,
        &gpu::SPEC,
        &input::SPEC,
        &crypto::SPEC,
        &vsock::SPEC,
        &fs::SPEC,
        &rpmb::SPEC,
        &iommu::SPEC,
        &sound::SPEC,
        &mem::SPEC,
        &i2c::SPEC,
        &scmi::SPEC,
        &gpio::SPEC,
        &pmem::SPEC,
        &can::SPEC,
        &spi::SPEC,
        &media::SPEC,
        &rtc::SPEC,
    ]
}
