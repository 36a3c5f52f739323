//! Split virtqueue layout (VIRTIO 1.4 §2.7).

/// The buffer continues in descriptor `next` (§2.7.5).
pub const DESC_F_NEXT: u16 = 1;
/// The buffer is device-writable (§2.7.5).
pub const DESC_F_WRITE: u16 = 2;
/// The buffer holds a table of descriptors (§2.7.5.3).
pub const DESC_F_INDIRECT: u16 = 4;
