//! Where the parts of a split virtqueue lie in its memory (VIRTIO 1.4 §2.7, §2.7.2).

use crate::{Error, Result};

/// Largest queue size of a split virtqueue (§2.7).
pub const MAX_SIZE: u16 = 32_768;

/// Distance that keeps the driver's and the device's areas out of each other's cache lines.
const LINE: usize = 64;

/// How the areas of a ring are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RingLayout {
    /// Three areas, each with an address of its own.
    #[default]
    Modern,
    /// One contiguous block, the device area on the next multiple of `align` bytes (§2.7.2).
    Legacy {
        /// Queue Align, a power of two; 4,096 for legacy PCI.
        align: u32,
    },
}

/// Offsets of the areas from the start of the ring's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// Descriptor area: the descriptor table.
    pub descriptor: usize,
    /// Driver area: the available ring.
    pub driver: usize,
    /// Device area: the used ring.
    pub device: usize,
    /// Length of all of it.
    pub total: usize,
}

impl RingLayout {
    /// The areas of a ring of `size` descriptors. [`Error::Misuse`] unless `size` is a power of two from 1 to
    /// 32,768 and the alignment one from 4 up.
    pub fn areas(self, size: u16) -> Result<Areas> {
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(Error::Misuse { what: "the size of a split ring is a power of two from 1 to 32768" });
        }
        let n = usize::from(size);
        // Descriptors of 16 bytes; flags, idx, n × u16, used_event; flags, idx, n × 8 bytes, avail_event.
        let (table, avail, used) = (n.saturating_mul(16), n.saturating_mul(2), n.saturating_mul(8));
        let (avail, used) = (avail.saturating_add(6), used.saturating_add(6));
        let (driver, align) = match self {
            Self::Modern => (table.next_multiple_of(LINE), LINE),
            Self::Legacy { align } if align.is_power_of_two() && align >= 4 => (table, align as usize),
            Self::Legacy { .. } => {
                return Err(Error::Misuse { what: "the queue alignment is a power of two from 4 up" });
            }
        };
        let device = driver.saturating_add(avail).next_multiple_of(align);
        let total = device.saturating_add(used).next_multiple_of(align);
        Ok(Areas { descriptor: 0, driver, device, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_layout_is_that_of_the_formula() {
        // §2.7.2: ALIGN(16 n + 2 (3 + n)) + ALIGN(2 × 3 + 8 n)
        for shift in 0..=15 {
            let n = 1usize << shift;
            let areas = RingLayout::Legacy { align: 4096 }.areas(n as u16).unwrap();
            let align = |x: usize| x.div_ceil(4096) * 4096;
            assert_eq!(areas.driver, 16 * n);
            assert_eq!(areas.device, align(16 * n + 2 * (3 + n)));
            assert_eq!(areas.total, areas.device + align(2 * 3 + 8 * n));
        }
    }

    #[test]
    fn modern_areas_do_not_overlap_and_are_aligned() {
        for shift in 0..=15 {
            let n = 1usize << shift;
            let areas = RingLayout::Modern.areas(n as u16).unwrap();
            assert!(areas.driver >= 16 * n && areas.device >= areas.driver + 6 + 2 * n);
            assert!(areas.total >= areas.device + 6 + 8 * n);
            assert_eq!((areas.driver % LINE, areas.device % LINE), (0, 0));
        }
    }

    #[test]
    fn sizes_that_are_no_power_of_two_are_refused() {
        for size in [0, 3, 6, 255, 32_769, u16::MAX] {
            assert!(RingLayout::Modern.areas(size).is_err(), "{size}");
        }
        assert!(RingLayout::Legacy { align: 3 }.areas(8).is_err());
    }
}
