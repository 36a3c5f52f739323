//! SCSI host device (VIRTIO 1.4 §5.6).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

pub mod control;
pub mod event;
pub mod request;

/// Feature bits and configuration space of the SCSI host device (VIRTIO 1.4 §5.6.3, §5.6.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::SCSI, features: FEATURES, config: CONFIG };

feature_bits! { "5.6.3"
    /// A request may have both data in and data out.
    INOUT = 0;
    /// Events when targets and logical units come and go.
    HOTPLUG = 1;
    /// Events when parameters of a logical unit change.
    CHANGE = 2;
    /// Protection information in the requests.
    T10_PI = 3;
}

config_space! { "5.6.4"
    /// Number of request queues.
    NUM_QUEUES "num_queues" @ 0: u32;
    /// Largest number of segments of a command, for each direction.
    SEG_MAX "seg_max" @ 4: u32;
    /// Hint of the largest transfer, in sectors.
    MAX_SECTORS "max_sectors" @ 8: u32;
    /// Largest number of linked commands for a logical unit.
    CMD_PER_LUN "cmd_per_lun" @ 12: u32;
    /// Largest event in bytes.
    EVENT_INFO_SIZE "event_info_size" @ 16: u32;
    /// Largest sense data in bytes.
    SENSE_SIZE "sense_size" @ 20: u32 => writable;
    /// Largest CDB in bytes.
    CDB_SIZE "cdb_size" @ 24: u32 => writable;
    /// Last channel.
    MAX_CHANNEL "max_channel" @ 28: u16;
    /// Last target.
    MAX_TARGET "max_target" @ 30: u16;
    /// Last logical unit.
    MAX_LUN "max_lun" @ 32: u32;
}

/// `sense_size` after reset, in bytes (VIRTIO 1.4 §5.6.4.2).
pub const DEFAULT_SENSE_SIZE: u32 = 96;
/// `cdb_size` after reset, in bytes (VIRTIO 1.4 §5.6.4.2).
pub const DEFAULT_CDB_SIZE: u32 = 32;

/// Queues of the SCSI host (VIRTIO 1.4 §5.6.2).
pub mod queue {
    /// Control queue.
    pub const CONTROL: u16 = 0;
    /// Event queue.
    pub const EVENT: u16 = 1;
    /// First request queue.
    pub const REQUEST: u16 = 2;
}
