//! RPMB device (VIRTIO 1.4 §5.12).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::config_space;

/// Feature bits and configuration space of the RPMB device (VIRTIO 1.4 §5.12.3, §5.12.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::RPMB, features: &[], config: CONFIG };

config_space! { "5.12.4"
    /// Size in units of 128 KiB, up to 128.
    CAPACITY "capacity" @ 0: u8;
    /// Most blocks of 256 bytes in a write; 0: no limit.
    MAX_WR_CNT "max_wr_cnt" @ 1: u8;
    /// Most blocks of 256 bytes in a read; 0: no limit.
    MAX_RD_CNT "max_rd_cnt" @ 2: u8;
}
