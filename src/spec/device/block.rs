//! Block device (VIRTIO 1.4 §5.2).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits, wire_code};

pub mod request;
pub mod zone;

/// Feature bits and configuration space of the block device (VIRTIO 1.4 §5.2.3, §5.2.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::BLOCK, features: FEATURES, config: CONFIG };

/// Bytes of the unit in which sectors are counted, whatever `blk_size` is (VIRTIO 1.4 §5.2.5).
pub const SECTOR_SIZE: u32 = 512;

feature_bits! { "5.2.3"
    /// Request barriers.
    BARRIER = 0 => legacy;
    /// `size_max` limits the size of a segment.
    SIZE_MAX = 1;
    /// `seg_max` limits the number of segments of a request.
    SEG_MAX = 2;
    /// `geometry` is valid.
    GEOMETRY = 4;
    /// The device is read-only.
    RO = 5;
    /// `blk_size` is valid.
    BLK_SIZE = 6;
    /// SCSI packet commands.
    SCSI = 7 => legacy;
    /// Flush requests. The legacy interface also calls it `WCE`.
    FLUSH = 9;
    /// `topology` is valid.
    TOPOLOGY = 10;
    /// `writeback` shows and sets the cache mode.
    CONFIG_WCE = 11;
    /// Several request queues; `num_queues` is valid.
    MQ = 12;
    /// Discard requests.
    DISCARD = 13;
    /// Write-zeroes requests.
    WRITE_ZEROES = 14;
    /// Lifetime requests.
    LIFETIME = 15;
    /// Secure-erase requests.
    SECURE_ERASE = 16;
    /// Zoned device; `zoned` is valid.
    ZONED = 17;
}

config_space! { "5.2.4"
    /// Size of the device in sectors of 512 bytes.
    CAPACITY "capacity" @ 0: u64;
    /// Largest segment of a request, in bytes.
    SIZE_MAX "size_max" @ 8: u32 when [SIZE_MAX];
    /// Largest number of segments of a request.
    SEG_MAX "seg_max" @ 12: u32 when [SEG_MAX];
    /// Cylinders.
    GEOMETRY_CYLINDERS "geometry.cylinders" @ 16: u16 when [GEOMETRY];
    /// Heads.
    GEOMETRY_HEADS "geometry.heads" @ 18: u8 when [GEOMETRY];
    /// Sectors of a track.
    GEOMETRY_SECTORS "geometry.sectors" @ 19: u8 when [GEOMETRY];
    /// Best block size in bytes.
    BLK_SIZE "blk_size" @ 20: u32 when [BLK_SIZE];
    /// Logical blocks of a physical block, as a power of two.
    TOPOLOGY_PHYSICAL_BLOCK_EXP "topology.physical_block_exp" @ 24: u8 when [TOPOLOGY];
    /// First aligned logical block.
    TOPOLOGY_ALIGNMENT_OFFSET "topology.alignment_offset" @ 25: u8 when [TOPOLOGY];
    /// Suggested smallest size of I/O in blocks.
    TOPOLOGY_MIN_IO_SIZE "topology.min_io_size" @ 26: u16 when [TOPOLOGY];
    /// Suggested largest size of I/O in blocks.
    TOPOLOGY_OPT_IO_SIZE "topology.opt_io_size" @ 28: u32 when [TOPOLOGY];
    /// Cache mode: 0 writethrough, 1 writeback.
    WRITEBACK "writeback" @ 32: u8 when [CONFIG_WCE] => writable;
    /// Number of request queues.
    NUM_QUEUES "num_queues" @ 34: u16 when [MQ];
    /// Most sectors of a discard segment.
    MAX_DISCARD_SECTORS "max_discard_sectors" @ 36: u32 when [DISCARD];
    /// Most segments of a discard request.
    MAX_DISCARD_SEG "max_discard_seg" @ 40: u32 when [DISCARD];
    /// Alignment at which to split a discard, in sectors.
    DISCARD_SECTOR_ALIGNMENT "discard_sector_alignment" @ 44: u32 when [DISCARD];
    /// Most sectors of a write-zeroes segment.
    MAX_WRITE_ZEROES_SECTORS "max_write_zeroes_sectors" @ 48: u32 when [WRITE_ZEROES];
    /// Most segments of a write-zeroes request.
    MAX_WRITE_ZEROES_SEG "max_write_zeroes_seg" @ 52: u32 when [WRITE_ZEROES];
    /// Whether a write-zeroes request may deallocate: 0 never, 1 perhaps.
    WRITE_ZEROES_MAY_UNMAP "write_zeroes_may_unmap" @ 56: u8 when [WRITE_ZEROES];
    /// Most sectors of a secure-erase segment.
    MAX_SECURE_ERASE_SECTORS "max_secure_erase_sectors" @ 60: u32 when [SECURE_ERASE];
    /// Most segments of a secure-erase request.
    MAX_SECURE_ERASE_SEG "max_secure_erase_seg" @ 64: u32 when [SECURE_ERASE];
    /// Alignment at which to split a secure erase, in sectors.
    SECURE_ERASE_SECTOR_ALIGNMENT "secure_erase_sector_alignment" @ 68: u32 when [SECURE_ERASE];
    /// Size of a zone in sectors.
    ZONED_ZONE_SECTORS "zoned.zone_sectors" @ 72: u32 when [ZONED];
    /// Most open zones; 0 is no limit.
    ZONED_MAX_OPEN_ZONES "zoned.max_open_zones" @ 76: u32 when [ZONED];
    /// Most active zones; 0 is no limit.
    ZONED_MAX_ACTIVE_ZONES "zoned.max_active_zones" @ 80: u32 when [ZONED];
    /// Largest zone append in sectors.
    ZONED_MAX_APPEND_SECTORS "zoned.max_append_sectors" @ 84: u32 when [ZONED];
    /// Alignment of writes to a sequential zone, in bytes.
    ZONED_WRITE_GRANULARITY "zoned.write_granularity" @ 88: u32 when [ZONED];
    /// Zone model, see [`Model`](super::Model).
    ZONED_MODEL "zoned.model" @ 92: u8 when [ZONED];
}

wire_code! {
    /// Zone model of the configuration field `zoned.model` (VIRTIO 1.4 §5.2.4).
    pub struct Model(u8) {
        /// Not zoned, or managed by the device alone.
        NONE = 0;
        /// Host-managed.
        HM = 1;
        /// Host-aware.
        HA = 2;
    }
}
