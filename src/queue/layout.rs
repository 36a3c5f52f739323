//! Where the parts of a split virtqueue lie in its memory (VIRTIO 1.4 §2.7, §2.7.2).

use crate::spec::split::{self, Layout, RingLayout};
use crate::{Error, Result};

/// Distance that keeps the driver's and the device's areas out of each other's cache lines.
const LINE: usize = 64;

/// Offsets of the areas of a ring from the start of its memory, in bytes.
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

impl Areas {
    /// The areas of a ring of `size` descriptors. The modern layout leaves the distance of a cache line between
    /// what the driver and what the device writes.
    ///
    /// [`Error::Misuse`] unless `size` is a power of two from 1 to 32,768 and a legacy alignment one from 4 up.
    pub fn new(layout: RingLayout, size: u16) -> Result<Self> {
        if !split::is_valid_size(size) {
            return Err(Error::Misuse { what: "the size of a split ring is a power of two from 1 to 32768" });
        }
        let Layout { avail, used, len } = match layout {
            RingLayout::Modern => spread(size),
            RingLayout::Legacy { align } => Layout::legacy(size, align as usize)
                .ok_or(Error::Misuse { what: "the queue alignment is a power of two from 4 up" })?,
        };
        Ok(Self { descriptor: 0, driver: avail, device: used, total: len })
    }
}

/// The modern parts on cache lines of their own.
fn spread(size: u16) -> Layout {
    let avail = split::desc_table_size(size).next_multiple_of(LINE);
    let used = avail.saturating_add(split::avail_size(size)).next_multiple_of(LINE);
    let len = used.saturating_add(split::used_size(size)).next_multiple_of(LINE);
    Layout { avail, used, len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_those_of_the_specification() {
        for size in (0..=15).map(|shift| 1u16 << shift) {
            let areas = Areas::new(RingLayout::Legacy { align: 4096 }, size).unwrap();
            let wanted = Layout::legacy(size, 4096).unwrap();
            assert_eq!((areas.driver, areas.device, areas.total), (wanted.avail, wanted.used, wanted.len));
        }
    }

    #[test]
    fn modern_areas_share_no_cache_line() {
        for size in (0..=15).map(|shift| 1u16 << shift) {
            let areas = Areas::new(RingLayout::Modern, size).unwrap();
            assert!(areas.driver >= split::desc_table_size(size));
            assert!(areas.device >= areas.driver + split::avail_size(size));
            assert!(areas.total >= areas.device + split::used_size(size));
            assert_eq!((areas.driver % LINE, areas.device % LINE, areas.total % LINE), (0, 0, 0));
        }
    }

    #[test]
    fn sizes_that_are_no_power_of_two_are_refused() {
        for size in [0, 3, 6, 255, 32_769, u16::MAX] {
            assert!(Areas::new(RingLayout::Modern, size).is_err(), "{size}");
        }
        assert!(Areas::new(RingLayout::Legacy { align: 3 }, 8).is_err());
    }
}
