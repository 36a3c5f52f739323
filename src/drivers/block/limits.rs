//! What the configuration space of a block device says, checked field by field (fault C15).

use super::split::SECTOR;
use crate::device::Config;
use crate::features::Features;
use crate::spec::device::block::{SECTOR_SIZE, SPEC, config as offset, feature};
use crate::{Error, Result};

/// Largest block size that is believed, in bytes.
const LARGEST_BLOCK: u32 = 1 << 20;

/// Limits of discard, write zeroes or secure erase (VIRTIO 1.4 §5.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EraseLimits {
    /// Most sectors of 512 bytes in a segment, at least 1.
    pub max_sectors: u32,
    /// Most segments of a request, at least 1.
    pub max_segments: u32,
    /// Alignment, in sectors of 512 bytes, at which the driver cuts; 1 where there is none.
    pub alignment: u32,
}

/// Topology of the storage, for performance only (VIRTIO 1.4 §5.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// Size of a physical block in bytes.
    pub physical_block_size: u32,
    /// Number of the first logical block that begins a physical one.
    pub alignment_offset: u8,
    /// Suggested smallest size of I/O in logical blocks.
    pub min_io_size: u16,
    /// Suggested largest size of I/O in logical blocks.
    pub opt_io_size: u32,
}

/// Geometry as the device tells it; nothing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors: u8,
}

/// What a block device can do, as its driver uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes: a power of two from 512 on.
    pub block_size: u32,
    /// Largest data segment in bytes, at least 512; `u32::MAX` where the device sets no limit.
    pub size_max: u32,
    /// Most data segments of a request, at least 1; `u32::MAX` where the device sets no limit.
    pub seg_max: u32,
    /// Number of request queues, at least 1.
    pub queues: u16,
    /// Whether completed writes are in a volatile cache until they are flushed.
    pub writeback: bool,
    /// Discard, where the device has it.
    pub discard: Option<EraseLimits>,
    /// Write zeroes, where the device has it.
    pub write_zeroes: Option<EraseLimits>,
    /// Whether a write-zeroes request may deallocate.
    pub write_zeroes_may_unmap: bool,
    /// Secure erase, where the device has it.
    pub secure_erase: Option<EraseLimits>,
    /// Topology, where the device tells it.
    pub topology: Option<Topology>,
    /// Geometry, where the device tells it.
    pub geometry: Option<Geometry>,
}

/// The fields as read; `None` for those that the device does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Raw {
    pub(super) capacity: u64,
    pub(super) size_max: Option<u32>,
    pub(super) seg_max: Option<u32>,
    pub(super) geometry: Option<(u16, u8, u8)>,
    pub(super) blk_size: Option<u32>,
    pub(super) topology: Option<(u8, u8, u16, u32)>,
    pub(super) writeback: Option<u8>,
    pub(super) num_queues: Option<u16>,
    /// Sectors, segments, alignment.
    pub(super) discard: Option<(u32, u32, u32)>,
    pub(super) write_zeroes: Option<(u32, u32, u8)>,
    pub(super) secure_erase: Option<(u32, u32, u32)>,
}

/// One attempt at reading the fields.
struct Reader<'a> {
    config: &'a Config,
    features: Features,
}

impl Reader<'_> {
    /// The field at `at`, where its feature was accepted and the configuration space is long enough for it.
    fn field(&self, at: u16) -> Result<Option<u64>> {
        let Some(field) = SPEC.config.iter().find(|field| field.offset == at) else { return Ok(None) };
        let accepted = field.valid_if.is_empty() || field.valid_if.iter().any(|&bit| self.features.has(bit));
        if !accepted || u64::from(field.end()) > self.config.len() {
            return Ok(None);
        }
        self.config.read_field(field).map(|values| values.first().copied())
    }

    /// The same; the field's width tells that it fits.
    fn narrow<T: TryFrom<u64>>(&self, at: u16) -> Result<Option<T>> {
        Ok(self.field(at)?.and_then(|value| T::try_from(value).ok()))
    }

    fn erase(&self, sectors: u16, segments: u16, alignment: u16) -> Result<Option<(u32, u32, u32)>> {
        let both = self.narrow(sectors)?.zip(self.narrow(segments)?);
        let alignment = self.narrow(alignment)?.unwrap_or(0);
        Ok(both.map(|(sectors, segments)| (sectors, segments, alignment)))
    }

    fn all(&self) -> Result<Raw> {
        let end = u64::from(offset::CAPACITY).saturating_add(8);
        if self.config.len() < end {
            let len = self.config.len();
            return Err(Error::ConfigOutOfRange { offset: offset::CAPACITY.into(), width: 8, len });
        }
        let cylinders: Option<u16> = self.narrow(offset::GEOMETRY_CYLINDERS)?;
        let (heads, sectors) = (self.narrow(offset::GEOMETRY_HEADS)?, self.narrow(offset::GEOMETRY_SECTORS)?);
        let exp: Option<u8> = self.narrow(offset::TOPOLOGY_PHYSICAL_BLOCK_EXP)?;
        let first: Option<u8> = self.narrow(offset::TOPOLOGY_ALIGNMENT_OFFSET)?;
        let min = self.narrow(offset::TOPOLOGY_MIN_IO_SIZE)?;
        let opt = self.narrow(offset::TOPOLOGY_OPT_IO_SIZE)?;
        let zero_sectors: Option<u32> = self.narrow(offset::MAX_WRITE_ZEROES_SECTORS)?;
        let zero_segments = self.narrow(offset::MAX_WRITE_ZEROES_SEG)?;
        let may_unmap = self.narrow(offset::WRITE_ZEROES_MAY_UNMAP)?.unwrap_or(0);
        Ok(Raw {
            capacity: self.field(offset::CAPACITY)?.unwrap_or(0),
            size_max: self.narrow(offset::SIZE_MAX)?,
            seg_max: self.narrow(offset::SEG_MAX)?,
            geometry: cylinders.zip(heads).zip(sectors).map(|((c, h), s)| (c, h, s)),
            blk_size: self.narrow(offset::BLK_SIZE)?,
            topology: exp.zip(first).zip(min.zip(opt)).map(|((e, f), (min, opt))| (e, f, min, opt)),
            writeback: self.narrow(offset::WRITEBACK)?,
            num_queues: self.narrow(offset::NUM_QUEUES)?,
            discard: self.erase(
                offset::MAX_DISCARD_SECTORS,
                offset::MAX_DISCARD_SEG,
                offset::DISCARD_SECTOR_ALIGNMENT,
            )?,
            write_zeroes: zero_sectors
                .zip(zero_segments)
                .map(|(count, segments)| (count, segments, may_unmap)),
            secure_erase: self.erase(
                offset::MAX_SECURE_ERASE_SECTORS,
                offset::MAX_SECURE_ERASE_SEG,
                offset::SECURE_ERASE_SECTOR_ALIGNMENT,
            )?,
        })
    }
}

impl Limits {
    /// Reads the configuration, all fields of one generation.
    pub(super) fn read(config: &Config, features: Features) -> Result<Self> {
        let raw = config.consistent(|config| Reader { config, features }.all())?;
        Self::check(&raw, features)
    }

    /// Believes what can be true: a field that cannot be used is refused, or taken as if it were not there where
    /// the device can be used without it.
    pub(super) fn check(raw: &Raw, features: Features) -> Result<Self> {
        // 0 says nothing: QEMU's storage daemon offers the field and leaves it so.
        let size_max = raw.size_max.filter(|&max| max != 0).unwrap_or(u32::MAX);
        if size_max < SECTOR_SIZE {
            return Err(Error::BadConfig {
                field: "size_max",
                value: size_max.into(),
                why: "leaves no room for a sector of 512 bytes",
            });
        }
        let block_size = raw.blk_size.filter(|&b| usable_block(b)).unwrap_or(SECTOR_SIZE);
        let flush = features.has(feature::FLUSH);
        Ok(Self {
            size: size(raw.capacity)?,
            block_size,
            size_max,
            // A request with data has a segment, whatever the device says.
            seg_max: raw.seg_max.unwrap_or(u32::MAX).max(1),
            queues: raw.num_queues.unwrap_or(1).max(1),
            writeback: raw.writeback.map_or(flush, |mode| mode != 0),
            discard: raw.discard.and_then(erase_limits),
            write_zeroes: raw
                .write_zeroes
                .and_then(|(count, segments, _)| erase_limits((count, segments, 1))),
            write_zeroes_may_unmap: raw.write_zeroes.is_some_and(|(_, _, may)| may != 0),
            secure_erase: raw.secure_erase.and_then(erase_limits),
            topology: raw.topology.and_then(|fields| topology(block_size, fields)),
            geometry: raw.geometry.map(|(cylinders, heads, sectors)| Geometry { cylinders, heads, sectors }),
        })
    }
}

/// Bytes of so many sectors.
fn size(capacity: u64) -> Result<u64> {
    capacity.checked_mul(SECTOR).ok_or(Error::BadConfig {
        field: "capacity",
        value: capacity,
        why: "is beyond 2^64 bytes",
    })
}

fn usable_block(size: u32) -> bool {
    let usable = size.is_power_of_two() && (SECTOR_SIZE..=LARGEST_BLOCK).contains(&size);
    if !usable {
        log::warn!("blk_size is {size}, which is no block size: 512 is used");
    }
    usable
}

/// A device that takes no sector or no segment does not take such requests.
fn erase_limits((max_sectors, max_segments, alignment): (u32, u32, u32)) -> Option<EraseLimits> {
    (max_sectors != 0 && max_segments != 0).then(|| EraseLimits {
        max_sectors,
        max_segments,
        alignment: alignment.max(1),
    })
}

fn topology(block_size: u32, (exp, alignment_offset, min, opt): (u8, u8, u16, u32)) -> Option<Topology> {
    let physical = 1u32.checked_shl(exp.into()).and_then(|blocks| block_size.checked_mul(blocks))?;
    Some(Topology { physical_block_size: physical, alignment_offset, min_io_size: min, opt_io_size: opt })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain() -> Raw {
        Raw { capacity: 100, ..Raw::default() }
    }

    fn check(raw: Raw) -> Result<Limits> {
        Limits::check(&raw, Features::EMPTY)
    }

    #[test]
    fn c15_capacity_beyond_2_64_bytes_is_refused() {
        assert_eq!(check(plain()).unwrap().size, 51_200);
        assert_eq!(check(Raw { capacity: 0, ..plain() }).unwrap().size, 0);
        assert!(check(Raw { capacity: u64::MAX >> 9, ..plain() }).is_ok());
        for capacity in [(u64::MAX >> 9) + 1, u64::MAX - 1, u64::MAX] {
            let error = check(Raw { capacity, ..plain() }).unwrap_err();
            assert!(matches!(error, Error::BadConfig { field: "capacity", value, .. } if value == capacity));
        }
    }

    #[test]
    fn c15_a_block_size_that_is_none_is_ignored() {
        for (blk_size, used) in
            [(0, 512), (3, 512), (256, 512), (513, 512), (4096, 4096), (1 << 20, 1 << 20), (1 << 21, 512)]
        {
            assert_eq!(check(Raw { blk_size: Some(blk_size), ..plain() }).unwrap().block_size, used);
        }
    }

    #[test]
    fn c15_size_max_below_a_sector_is_refused_and_0_is_none_and_seg_max_0_is_1() {
        let none = check(Raw { size_max: Some(0), ..plain() }).unwrap();
        assert_eq!(none.size_max, u32::MAX);
        for size_max in [1, 511] {
            let error = check(Raw { size_max: Some(size_max), ..plain() }).unwrap_err();
            assert!(matches!(error, Error::BadConfig { field: "size_max", .. }));
        }
        let limits = check(Raw { size_max: Some(512), seg_max: Some(0), ..plain() }).unwrap();
        assert_eq!((limits.size_max, limits.seg_max), (512, 1));
        assert_eq!(check(plain()).unwrap().seg_max, u32::MAX);
    }

    #[test]
    fn c15_erase_limits_of_0_switch_the_request_off() {
        for (fields, on) in [((0, 1, 1), false), ((1, 0, 1), false), ((0, 0, 0), false), ((1, 1, 0), true)] {
            let limits = check(Raw {
                discard: Some(fields),
                write_zeroes: Some((fields.0, fields.1, 9)),
                secure_erase: Some(fields),
                ..plain()
            })
            .unwrap();
            assert_eq!(limits.discard.is_some(), on, "{fields:?}");
            assert_eq!((limits.write_zeroes.is_some(), limits.secure_erase.is_some()), (on, on));
        }
    }

    #[test]
    fn c15_no_queue_is_one_and_a_physical_block_beyond_32_bits_is_no_topology() {
        assert_eq!(check(Raw { num_queues: Some(0), ..plain() }).unwrap().queues, 1);
        for exp in [23, 31, 32, 63, 255] {
            assert_eq!(check(Raw { topology: Some((exp, 0, 0, 0)), ..plain() }).unwrap().topology, None);
        }
        let limits = check(Raw { topology: Some((3, 1, 8, 0)), ..plain() }).unwrap();
        assert_eq!(limits.topology.unwrap().physical_block_size, 4096);
    }

    #[test]
    fn s5_2_5_without_config_wce_flush_tells_of_a_writeback_cache() {
        let flush = Features::from_bit(feature::FLUSH);
        assert!(!Limits::check(&plain(), Features::EMPTY).unwrap().writeback);
        assert!(Limits::check(&plain(), flush).unwrap().writeback);
        let through = Raw { writeback: Some(0), ..plain() };
        assert!(!Limits::check(&through, flush).unwrap().writeback);
    }

    proptest! {
        #[test]
        fn c15_no_configuration_gives_a_limit_of_0(
            capacity: u64, size_max: u32, seg_max: u32, blk_size: u32, num_queues: u16,
            discard: (u32, u32, u32), zero: (u32, u32, u8), topology: (u8, u8, u16, u32),
        ) {
            let raw = Raw {
                capacity, size_max: Some(size_max), seg_max: Some(seg_max), blk_size: Some(blk_size),
                num_queues: Some(num_queues), discard: Some(discard), write_zeroes: Some(zero),
                secure_erase: Some(discard), topology: Some(topology), geometry: Some((0, 0, 0)),
                writeback: Some(7),
            };
            if let Ok(limits) = check(raw) {
                prop_assert!(limits.size_max >= 512 && limits.seg_max >= 1 && limits.queues >= 1);
                prop_assert!(limits.block_size.is_power_of_two() && limits.block_size >= 512);
                for erase in [limits.discard, limits.write_zeroes, limits.secure_erase].into_iter().flatten() {
                    prop_assert!(erase.max_sectors >= 1 && erase.max_segments >= 1 && erase.alignment >= 1);
                }
            }
        }
    }
}
