//! CAN device (VIRTIO 1.4 §5.20).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the CAN device (VIRTIO 1.4 §5.20.3, §5.20.4).
///
/// At least one of CAN_CLASSIC and CAN_FD is to be accepted (VIRTIO 1.4 §5.20.3.1); the table cannot say that.
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::CAN, features: FEATURES, config: CONFIG };

feature_bits! { "5.20.3"
    /// Classic frames of up to 8 bytes.
    CAN_CLASSIC = 0;
    /// CAN FD frames of up to 64 bytes.
    CAN_FD = 1;
    /// Remote transmission requests.
    RTR_FRAMES = 2 requires [CAN_CLASSIC];
    /// A transmission is used only when it has been on the bus.
    LATE_TX_ACK = 3;
}

config_space! { "5.20.4"
    /// Bit 0: stopped, since the bus is off.
    STATUS "status" @ 0: u16;
}

/// Bit of `status`: stopped, since the bus is off (VIRTIO 1.4 §5.20.4).
pub const S_CTRL_BUSOFF: u16 = 1;
