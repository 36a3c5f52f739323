//! How a call is cut into requests: arithmetic alone.

use super::limits::EraseLimits;
use crate::spec::device::block::SECTOR_SIZE;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = SECTOR_SIZE as u64;
/// Data buffers of a chain: with header and status they fill a slot's indirect table.
const MOST_SEGMENTS: u32 = 6;

/// The shape of the largest read or write request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of a data buffer: a multiple of 512, at most `size_max`.
    pub(super) segment: u32,
    /// Bytes of a request: at most as many segments as the device and the queue take.
    pub(super) request: u32,
}

impl Shape {
    /// For requests of about `chunk` bytes.
    ///
    /// `size_max` is at least 512, `seg_max` and `places` (descriptors beyond header and status) at least 1.
    pub(super) fn new(chunk: u32, size_max: u32, seg_max: u32, places: u32, block_size: u32) -> Self {
        let chunk = floor(chunk.max(SECTOR_SIZE), SECTOR_SIZE);
        let segment = floor(chunk.min(size_max), SECTOR_SIZE).max(SECTOR_SIZE);
        let segments = seg_max.min(places).clamp(1, MOST_SEGMENTS);
        let most = segment.saturating_mul(segments).min(chunk);
        // Whole blocks where there is room for one, so that the device need not read to write.
        let request = if most >= block_size { floor(most, block_size) } else { most };
        Self { segment, request }
    }

    /// Data buffers that `len` bytes take.
    pub(super) fn segments(&self, len: u32) -> u16 {
        u16::try_from(len.div_ceil(self.segment.max(1))).unwrap_or(u16::MAX)
    }
}

fn floor(value: u32, unit: u32) -> u32 {
    value.saturating_sub(value.checked_rem(unit).unwrap_or(0))
}

/// Cuts `len` bytes (a multiple of 512) into requests of at most `most`: where each begins in the whole, and its
/// length.
#[derive(Debug, Clone)]
pub(super) struct Transfers {
    at: u64,
    len: u64,
    most: u32,
}

impl Transfers {
    pub(super) fn new(len: u64, shape: Shape) -> Self {
        Self { at: 0, len, most: shape.request.max(SECTOR_SIZE) }
    }
}

impl Iterator for Transfers {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        let left = self.len.checked_sub(self.at).filter(|&left| left != 0)?;
        let (at, len) = (self.at, u32::try_from(left).unwrap_or(u32::MAX).min(self.most));
        self.at = at.saturating_add(len.into());
        Some((at, len))
    }
}

/// Cuts a range of sectors into segments of a discard, write zeroes or secure erase, at the device's alignment
/// where its limit leaves room for that: first sector and number of sectors.
#[derive(Debug, Clone)]
pub(super) struct Ranges {
    sector: u64,
    end: u64,
    most: u64,
    alignment: u64,
}

impl Ranges {
    pub(super) fn new(sector: u64, count: u64, limits: &EraseLimits) -> Self {
        Self {
            sector,
            end: sector.saturating_add(count),
            most: u64::from(limits.max_sectors.max(1)),
            alignment: u64::from(limits.alignment.max(1)),
        }
    }
}

impl Iterator for Ranges {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        let left = self.end.checked_sub(self.sector).filter(|&left| left != 0)?;
        let mut count = left.min(self.most);
        if count < left {
            // All but the last one end at the alignment, if the step that leads there is long enough.
            let stop = self.sector.saturating_add(count);
            let over = stop.checked_rem(self.alignment).unwrap_or(0);
            count = if over < count { count.saturating_sub(over) } else { count };
        }
        let sector = self.sector;
        self.sector = sector.saturating_add(count);
        Some((sector, u32::try_from(count).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = (u32, u32, u32, u32, u32)> {
        let block = (9u32..21).prop_map(|log| 1 << log);
        (0u32..4 << 20, 512u32.., 1u32.., 1u32..40_000, block)
    }

    proptest! {
        #[test]
        fn s5_2_4_a_request_keeps_to_size_max_seg_max_and_the_queue(
            (chunk, size_max, seg_max, places, block) in shapes()
        ) {
            let shape = Shape::new(chunk, size_max, seg_max, places, block);
            prop_assert!(shape.segment <= size_max && shape.segment.is_multiple_of(512));
            prop_assert!(shape.request >= 512 && shape.request.is_multiple_of(512));
            prop_assert!(shape.request <= chunk.max(512));
            let segments = u32::from(shape.segments(shape.request));
            prop_assert!((1..=6).contains(&segments) && segments <= seg_max && segments <= places);
            prop_assert!(shape.request < block || shape.request.is_multiple_of(block));
        }

        #[test]
        fn s5_2_6_transfers_cover_every_byte_once_in_order(
            (chunk, size_max, seg_max, places, block) in shapes(), sectors in 0u64..4096
        ) {
            let shape = Shape::new(chunk, size_max, seg_max, places, block);
            let mut end = 0;
            for (at, len) in Transfers::new(sectors * 512, shape) {
                prop_assert_eq!(at, end);
                prop_assert!(len > 0 && len <= shape.request && len.is_multiple_of(512));
                end = at + u64::from(len);
            }
            prop_assert_eq!(end, sectors * 512);
        }

        #[test]
        fn s5_2_6_ranges_cover_every_sector_once_within_the_limit(
            sector in 0u64..1 << 40, count in 0u64..1 << 20, max_sectors in 1024u32.., alignment in 0u32..4096
        ) {
            let limits = EraseLimits { max_sectors, max_segments: 1, alignment };
            let mut end = sector;
            let ranges: Vec<_> = Ranges::new(sector, count, &limits).collect();
            for (index, &(at, len)) in ranges.iter().enumerate() {
                prop_assert_eq!(at, end);
                prop_assert!(len > 0 && len <= max_sectors);
                end = at + u64::from(len);
                let last = index + 1 == ranges.len();
                if !last && u64::from(alignment.max(1)) * 2 <= u64::from(max_sectors) {
                    prop_assert!(end.is_multiple_of(alignment.max(1).into()));
                }
            }
            prop_assert_eq!(end, sector + count);
        }
    }

    #[test]
    fn c15_an_alignment_beyond_the_limit_does_not_stop_the_cutting() {
        let limits = EraseLimits { max_sectors: 1, max_segments: 1, alignment: u32::MAX };
        assert_eq!(Ranges::new(7, 3, &limits).collect::<Vec<_>>(), [(7, 1), (8, 1), (9, 1)]);
        let none = EraseLimits { max_sectors: 0, max_segments: 0, alignment: 0 };
        assert_eq!(Ranges::new(7, 2, &none).count(), 2);
        assert_eq!(Ranges::new(u64::MAX, u64::MAX, &limits).count(), 0);
    }
}
