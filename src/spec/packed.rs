//! Layout of a packed virtqueue (VIRTIO 1.4 §2.8).
//!
//! Sizes and offsets are in bytes; queue sizes are in descriptors. Fields are little-endian: the legacy
//! interface has no packed virtqueues.

/// Largest queue size.
pub const MAX_SIZE: u16 = 32768;

/// Alignment of the descriptor ring (VIRTIO 1.4 §2.8.10.1).
pub const DESC_ALIGN: usize = 16;
/// Alignment of each event suppression structure.
pub const EVENT_ALIGN: usize = 4;

/// Length of a descriptor (VIRTIO 1.4 §2.8.13).
pub const DESC_SIZE: usize = 16;
/// Offset of the 64-bit `addr` in a descriptor.
pub const DESC_ADDR: usize = 0;
/// Offset of the 32-bit `len` in a descriptor.
pub const DESC_LEN: usize = 8;
/// Offset of the 16-bit buffer `id` in a descriptor.
pub const DESC_ID: usize = 12;
/// Offset of the 16-bit `flags` in a descriptor.
pub const DESC_FLAGS: usize = 14;

/// Descriptor flag: the list goes on at the next descriptor (VIRTIO 1.4 §2.8.6).
pub const DESC_F_NEXT: u16 = 1;
/// Descriptor flag: available, the element is device-writable; used, the device wrote something
/// (VIRTIO 1.4 §2.8.3).
pub const DESC_F_WRITE: u16 = 2;
/// Descriptor flag: the element holds a table of descriptors (VIRTIO 1.4 §2.8.7).
pub const DESC_F_INDIRECT: u16 = 4;
/// Descriptor flag: equals the driver's wrap counter in an available descriptor (VIRTIO 1.4 §2.8.1).
pub const DESC_F_AVAIL: u16 = 1 << 7;
/// Descriptor flag: equals the device's wrap counter in a used descriptor, and the inverse of
/// [`DESC_F_AVAIL`] in an available one (VIRTIO 1.4 §2.8.1).
pub const DESC_F_USED: u16 = 1 << 15;

/// Length of an event suppression structure (VIRTIO 1.4 §2.8.14).
pub const EVENT_SIZE: usize = 4;
/// Offset of the 16-bit `desc`: offset of a descriptor, and wrap counter.
pub const EVENT_DESC: usize = 0;
/// Offset of the 16-bit `flags`.
pub const EVENT_FLAGS: usize = 2;
/// Bits of `desc` that hold the offset in the descriptor ring, in descriptors.
pub const EVENT_DESC_OFFSET: u16 = 0x7fff;
/// Bit of `desc` that holds the wrap counter.
pub const EVENT_DESC_WRAP: u16 = 1 << 15;
/// Bits of `flags` that are not reserved.
pub const EVENT_FLAGS_MASK: u16 = 3;
/// Value of `flags`: notify (VIRTIO 1.4 §2.8.10).
pub const EVENT_FLAGS_ENABLE: u16 = 0;
/// Value of `flags`: do not notify.
pub const EVENT_FLAGS_DISABLE: u16 = 1;
/// Value of `flags`: notify at the descriptor that `desc` names; needs EVENT_IDX.
pub const EVENT_FLAGS_DESC: u16 = 2;

// The longest descriptor ring has 16 × 65535 bytes.
const _: () = assert!(usize::BITS >= 32);

/// Whether a packed virtqueue can have this size: 1 to [`MAX_SIZE`], not only powers of two
/// (VIRTIO 1.4 §2.8.10.1).
pub const fn is_valid_size(size: u16) -> bool {
    size != 0 && size <= MAX_SIZE
}

/// Offset of descriptor `index` in the descriptor ring.
pub const fn desc(index: u16) -> usize {
    index as usize * DESC_SIZE
}

/// Length of the descriptor ring.
pub const fn desc_ring_size(size: u16) -> usize {
    desc(size)
}

/// Where the three parts lie in one piece of memory that is aligned to [`DESC_ALIGN`]. The descriptor ring
/// comes first, at offset 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the driver event suppression structure (driver area).
    pub driver_event: usize,
    /// Offset of the device event suppression structure (device area).
    pub device_event: usize,
    /// Length of the whole.
    pub len: usize,
}

impl Layout {
    /// The parts one after the other (VIRTIO 1.4 §2.8.10.1).
    ///
    /// ```
    /// use virtio::spec::packed::Layout;
    ///
    /// assert_eq!(Layout::new(5), Layout { driver_event: 80, device_event: 84, len: 88 });
    /// ```
    pub const fn new(size: u16) -> Self {
        let driver_event = desc_ring_size(size);
        let device_event = driver_event + EVENT_SIZE;
        Self { driver_event, device_event, len: device_event + EVENT_SIZE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_sizes_are_1_to_32768() {
        let valid: std::vec::Vec<u16> = (0..=u16::MAX).filter(|size| is_valid_size(*size)).collect();
        assert_eq!(valid, (1..=32768).collect::<std::vec::Vec<u16>>());
    }

    #[test]
    fn parts_are_aligned_and_do_not_overlap_for_every_size() {
        for size in 1..=MAX_SIZE {
            let at = Layout::new(size);
            assert_eq!(desc_ring_size(size), 16 * usize::from(size));
            assert!(at.driver_event.is_multiple_of(4) && at.driver_event >= desc(size - 1) + 16);
            assert!(at.device_event.is_multiple_of(4) && at.device_event >= at.driver_event + 4);
            assert_eq!(at.len, at.device_event + 4);
        }
    }

    #[test]
    fn flags_do_not_overlap() {
        let flags = [DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT, DESC_F_AVAIL, DESC_F_USED];
        assert_eq!(flags.iter().fold(0, |all, flag| all | flag).count_ones(), 5);
        assert_eq!(EVENT_DESC_OFFSET ^ EVENT_DESC_WRAP, u16::MAX);
        assert_eq!([EVENT_FLAGS_ENABLE, EVENT_FLAGS_DISABLE, EVENT_FLAGS_DESC], [0, 1, 2]);
    }
}
