//! Socket device (VIRTIO 1.4 §5.10).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

pub mod packet;

/// Feature bits and configuration space of the socket device (VIRTIO 1.4 §5.10.3, §5.10.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::SOCKET, features: FEATURES, config: CONFIG };

feature_bits! { "5.10.3"
    /// Stream sockets. Without any bit both sides act as if it were accepted (VIRTIO 1.4 §5.10.3.1).
    STREAM = 0;
    /// Sockets with messages in order.
    SEQPACKET = 1;
    /// Stream sockets are not implied by SEQPACKET.
    NO_IMPLIED_STREAM = 2;
}

config_space! { "5.10.4"
    /// Context id of the guest; the upper 32 bits are zero.
    GUEST_CID "guest_cid" @ 0: u64;
}

/// Context id of the host (VIRTIO 1.4 §5.10.4).
pub const CID_HOST: u64 = 2;

/// Whether no guest may have a context id (VIRTIO 1.4 §5.10.4).
#[must_use]
pub const fn is_reserved_cid(cid: u64) -> bool {
    matches!(cid, 0..=2 | 0xffff_ffff | u64::MAX)
}

/// Queues of the socket device (VIRTIO 1.4 §5.10.2).
pub mod queue {
    /// Receive queue.
    pub const RX: u16 = 0;
    /// Transmit queue.
    pub const TX: u16 = 1;
    /// Event queue.
    pub const EVENT: u16 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_10_4_reserved_context_ids_are_known() {
        assert!([0, 1, CID_HOST, 0xffff_ffff, u64::MAX].into_iter().all(is_reserved_cid));
        assert!(![3, 0xffff_fffe, 0x1_0000_0000].into_iter().any(is_reserved_cid));
    }
}
