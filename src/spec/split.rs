//! Layout of a split virtqueue (VIRTIO 1.4 §2.7).
//!
//! Sizes and offsets are in bytes; queue sizes are in descriptors. Fields are little-endian, or of the guest's
//! byte order on the legacy interface (VIRTIO 1.4 §2.7.3). The offset functions hold for every `u16`, and mean
//! something for queue sizes that [`is_valid_size`] takes.

/// Largest queue size.
pub const MAX_SIZE: u16 = 32768;

/// Alignment of the descriptor table.
pub const DESC_ALIGN: usize = 16;
/// Alignment of the available ring.
pub const AVAIL_ALIGN: usize = 2;
/// Alignment of the used ring.
pub const USED_ALIGN: usize = 4;

/// Length of a descriptor (VIRTIO 1.4 §2.7.5).
pub const DESC_SIZE: usize = 16;
/// Offset of the 64-bit `addr` in a descriptor.
pub const DESC_ADDR: usize = 0;
/// Offset of the 32-bit `len` in a descriptor.
pub const DESC_LEN: usize = 8;
/// Offset of the 16-bit `flags` in a descriptor.
pub const DESC_FLAGS: usize = 12;
/// Offset of the 16-bit `next` in a descriptor.
pub const DESC_NEXT: usize = 14;

/// Descriptor flag: the chain goes on at `next`.
pub const DESC_F_NEXT: u16 = 1;
/// Descriptor flag: the buffer is device-writable (otherwise device-readable).
pub const DESC_F_WRITE: u16 = 2;
/// Descriptor flag: the buffer holds a table of descriptors.
pub const DESC_F_INDIRECT: u16 = 4;

/// Offset of the 16-bit `flags` in the available ring (VIRTIO 1.4 §2.7.6).
pub const AVAIL_FLAGS: usize = 0;
/// Offset of the 16-bit `idx` in the available ring.
pub const AVAIL_IDX: usize = 2;
/// Offset of the first 16-bit element of the available ring.
pub const AVAIL_RING: usize = 4;
/// Length of an element of the available ring.
pub const AVAIL_ELEM_SIZE: usize = 2;
/// Flag of the available ring: no used buffer notifications, please (VIRTIO 1.4 §2.7.7).
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Offset of the 16-bit `flags` in the used ring (VIRTIO 1.4 §2.7.8).
pub const USED_FLAGS: usize = 0;
/// Offset of the 16-bit `idx` in the used ring.
pub const USED_IDX: usize = 2;
/// Offset of the first element of the used ring.
pub const USED_RING: usize = 4;
/// Length of an element of the used ring.
pub const USED_ELEM_SIZE: usize = 8;
/// Offset of the 32-bit `id` in an element of the used ring.
pub const USED_ELEM_ID: usize = 0;
/// Offset of the 32-bit `len` in an element of the used ring.
pub const USED_ELEM_LEN: usize = 4;
/// Flag of the used ring: no available buffer notifications, please (VIRTIO 1.4 §2.7.10).
pub const USED_F_NO_NOTIFY: u16 = 1;

// The longest part has 6 + 8 × 65535 bytes.
const _: () = assert!(usize::BITS >= 32);

/// Whether a split virtqueue can have this size: a power of two up to [`MAX_SIZE`] (VIRTIO 1.4 §2.7).
pub const fn is_valid_size(size: u16) -> bool {
    size.is_power_of_two()
}

/// Offset of descriptor `index` in the descriptor table.
pub const fn desc(index: u16) -> usize {
    index as usize * DESC_SIZE
}

/// Offset of element `slot` in the available ring.
pub const fn avail_elem(slot: u16) -> usize {
    AVAIL_RING + slot as usize * AVAIL_ELEM_SIZE
}

/// Offset of element `slot` in the used ring.
pub const fn used_elem(slot: u16) -> usize {
    USED_RING + slot as usize * USED_ELEM_SIZE
}

/// Offset of the 16-bit `used_event`, at the end of the available ring (VIRTIO 1.4 §2.7.6).
pub const fn used_event(size: u16) -> usize {
    avail_elem(size)
}

/// Offset of the 16-bit `avail_event`, at the end of the used ring (VIRTIO 1.4 §2.7.8).
pub const fn avail_event(size: u16) -> usize {
    used_elem(size)
}

/// Length of the descriptor table.
pub const fn desc_table_size(size: u16) -> usize {
    desc(size)
}

/// Length of the available ring, `used_event` included.
pub const fn avail_size(size: u16) -> usize {
    used_event(size) + 2
}

/// Length of the used ring, `avail_event` included.
pub const fn used_size(size: u16) -> usize {
    avail_event(size) + 2
}

/// Where the three parts lie in one piece of memory that is aligned to [`DESC_ALIGN`] (modern) or to the
/// queue alignment (legacy). The descriptor table comes first, at offset 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the available ring.
    pub avail: usize,
    /// Offset of the used ring.
    pub used: usize,
    /// Length of the whole.
    pub len: usize,
}

impl Layout {
    /// The parts packed as closely as their alignments allow (VIRTIO 1.4 §2.7).
    ///
    /// ```
    /// use virtio::spec::split::Layout;
    ///
    /// assert_eq!(Layout::modern(256), Layout { avail: 4096, used: 4616, len: 6670 });
    /// ```
    pub const fn modern(size: u16) -> Self {
        let avail = desc_table_size(size);
        let used = (avail + avail_size(size)).next_multiple_of(USED_ALIGN);
        Self { avail, used, len: used + used_size(size) }
    }

    /// The one arrangement of the legacy interface: the used ring starts at the next multiple of the queue
    /// alignment, and the whole is a multiple of it (VIRTIO 1.4 §2.7.2).
    ///
    /// `None` where `align` is not a power of two, is less than the used ring needs, or is so large that the
    /// queue does not fit the address space.
    ///
    /// ```
    /// use virtio::spec::split::Layout;
    ///
    /// assert_eq!(Layout::legacy(256, 4096), Some(Layout { avail: 4096, used: 8192, len: 12288 }));
    /// assert_eq!(Layout::legacy(256, 3000), None);
    /// ```
    pub const fn legacy(size: u16, align: usize) -> Option<Self> {
        if !align.is_power_of_two() || align < USED_ALIGN {
            return None;
        }
        let avail = desc_table_size(size);
        let Some(used) = (avail + avail_size(size)).checked_next_multiple_of(align) else {
            return None;
        };
        let Some(device_area) = used_size(size).checked_next_multiple_of(align) else {
            return None;
        };
        match used.checked_add(device_area) {
            Some(len) => Some(Self { avail, used, len }),
            None => None,
        }
    }
}

/// How the memory of a split ring has to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RingLayout {
    /// Three areas that may lie anywhere (VIRTIO 1.4 §2.7).
    #[default]
    Modern,
    /// One contiguous piece that starts at a multiple of `align`, with the used ring at the next multiple of
    /// `align` after the available ring (VIRTIO 1.4 §2.7.2).
    Legacy {
        /// Alignment in bytes, a power of two; also the unit in which the device is told the address.
        align: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> impl Iterator<Item = u16> {
        1..=MAX_SIZE
    }

    #[test]
    fn valid_sizes_are_the_powers_of_two_up_to_32768() {
        let valid: std::vec::Vec<u16> = (0..=u16::MAX).filter(|size| is_valid_size(*size)).collect();
        let expected: std::vec::Vec<u16> = (0..=15).map(|shift| 1 << shift).collect();
        assert_eq!(valid, expected);
        assert_eq!(valid.last(), Some(&MAX_SIZE));
    }

    #[test]
    fn part_sizes_follow_the_table_of_2_7_for_every_size() {
        for size in sizes() {
            let n = usize::from(size);
            assert_eq!(desc_table_size(size), 16 * n);
            assert_eq!(avail_size(size), 6 + 2 * n);
            assert_eq!(used_size(size), 6 + 8 * n);
        }
    }

    #[test]
    fn event_fields_follow_the_last_element_for_every_size() {
        for size in sizes() {
            assert_eq!(used_event(size), avail_elem(size - 1) + 2);
            assert_eq!(avail_event(size), used_elem(size - 1) + 8);
            assert_eq!(desc_table_size(size), desc(size - 1) + 16);
        }
    }

    #[test]
    fn modern_parts_are_aligned_and_do_not_overlap_for_every_size() {
        for size in sizes() {
            let at = Layout::modern(size);
            assert!(at.avail.is_multiple_of(2) && at.avail >= desc_table_size(size));
            assert!(at.used.is_multiple_of(4) && at.used >= at.avail + avail_size(size));
            assert!(at.used < at.avail + avail_size(size) + 4, "at most 3 bytes are lost");
            assert_eq!(at.len, at.used + used_size(size));
        }
    }

    #[test]
    fn legacy_parts_follow_2_7_2_for_every_size() {
        for size in sizes() {
            for align in [4, 64, 4096, 65536] {
                let at = Layout::legacy(size, align).expect("a valid alignment");
                let end = at.avail + avail_size(size);
                assert_eq!(at.avail, desc_table_size(size));
                assert_eq!(at.used % align, 0);
                assert!(at.used >= end && at.used - end < align, "the next multiple, no later one");
                assert_eq!(at.len % align, 0);
                let used_end = at.used + used_size(size);
                assert!(at.len >= used_end && at.len - used_end < align);
            }
        }
    }

    #[test]
    fn legacy_takes_no_alignment_that_cannot_work() {
        for align in [0, 1, 2, 3, 6, 4095, 4097, usize::MAX, 1 << (usize::BITS - 1)] {
            assert_eq!(Layout::legacy(256, align), None, "{align}");
        }
    }
}
