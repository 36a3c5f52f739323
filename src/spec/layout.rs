//! How the tables of this module describe feature bits and configuration fields.

use super::DeviceType;

/// A feature bit (VIRTIO 1.4 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureBit {
    /// Bit number, 0 to 127.
    pub bit: u8,
    /// Name as in the specification, without the `VIRTIO_F_` or `VIRTIO_<TYPE>_F_` prefix.
    pub name: &'static str,
    /// Bits of which each must be accepted too.
    pub requires: &'static [u8],
    /// Bits of which at least one must be accepted too (empty: no such rule).
    pub requires_any: &'static [u8],
    /// Whether only the legacy interface has it.
    pub legacy: bool,
}

/// A field of a device type's configuration space (VIRTIO 1.4 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigField {
    /// Name as in the specification; a field of a nested structure is written `outer.inner`.
    pub name: &'static str,
    /// Offset in bytes from the start of the configuration space.
    pub offset: u16,
    /// Width of one element in bytes: 1, 2, 4 or 8. It is also the width of the access (8: two accesses of 4).
    pub width: u8,
    /// Number of elements: 1, or the length of an array.
    pub count: u16,
    /// Feature bits of which any one makes the field valid (empty: always valid).
    pub valid_if: &'static [u8],
    /// Whether the driver may write it.
    pub writable: bool,
}

/// What the specification says of one device type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The type.
    pub device_type: DeviceType,
    /// Its feature bits, in order of number.
    pub features: &'static [FeatureBit],
    /// Its configuration space, in order of offset.
    pub config: &'static [ConfigField],
}

impl ConfigField {
    /// Offset of the first byte after the field.
    pub const fn end(&self) -> u32 {
        self.offset as u32 + self.width as u32 * self.count as u32
    }
}
