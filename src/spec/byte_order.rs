//! Byte order of a ring and of the device configuration (VIRTIO 1.4 §2.6.3, §2.5.3).

/// Byte order: little for the interfaces of this specification, the guest's for legacy ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}
