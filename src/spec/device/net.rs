//! Network device (VIRTIO 1.4 §5.1).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

pub mod control;
pub mod hash;
pub mod header;
pub mod steering;

/// Feature bits and configuration space of the network device (VIRTIO 1.4 §5.1.3, §5.1.4).
///
/// Through the legacy interface the driver may write `mac` (VIRTIO 1.4 §5.1.4.3); the table gives the non-legacy rule.
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::NET, features: FEATURES, config: CONFIG };

feature_bits! { "5.1.3"
    /// The device completes partial checksums.
    CSUM = 0;
    /// The driver takes packets with partial checksums.
    GUEST_CSUM = 1;
    /// Offloads can be switched through the control queue.
    CTRL_GUEST_OFFLOADS = 2;
    /// `mtu` is valid.
    MTU = 3;
    /// `mac` is valid.
    MAC = 5;
    /// The device takes packets of any segmentation type.
    GSO = 6 => legacy;
    /// The driver takes segmented TCP over IPv4.
    GUEST_TSO4 = 7 requires [GUEST_CSUM];
    /// The driver takes segmented TCP over IPv6.
    GUEST_TSO6 = 8 requires [GUEST_CSUM];
    /// The driver takes segmented TCP with ECN.
    GUEST_ECN = 9 any [GUEST_TSO4, GUEST_TSO6];
    /// The driver takes fragmented UDP.
    GUEST_UFO = 10 requires [GUEST_CSUM];
    /// The device takes segmented TCP over IPv4.
    HOST_TSO4 = 11 requires [CSUM];
    /// The device takes segmented TCP over IPv6.
    HOST_TSO6 = 12 requires [CSUM];
    /// The device takes segmented TCP with ECN.
    HOST_ECN = 13 any [HOST_TSO4, HOST_TSO6];
    /// The device takes fragmented UDP.
    HOST_UFO = 14 requires [CSUM];
    /// The driver merges receive buffers.
    MRG_RXBUF = 15;
    /// `status` is valid.
    STATUS = 16;
    /// The control queue exists.
    CTRL_VQ = 17;
    /// Receive modes through the control queue.
    CTRL_RX = 18 requires [CTRL_VQ];
    /// VLAN filters through the control queue.
    CTRL_VLAN = 19 requires [CTRL_VQ];
    /// More receive modes. Only a SHOULD ties it to the control queue (VIRTIO 1.4 §5.1.4.2).
    CTRL_RX_EXTRA = 20;
    /// The driver can send gratuitous packets.
    GUEST_ANNOUNCE = 21 requires [CTRL_VQ];
    /// Several queue pairs with automatic receive steering.
    MQ = 22 requires [CTRL_VQ];
    /// The MAC address can be set through the control queue.
    CTRL_MAC_ADDR = 23 requires [CTRL_VQ];
    /// The device coalesces TCP over IPv4.
    GUEST_RSC4 = 41 => legacy;
    /// The device coalesces TCP over IPv6.
    GUEST_RSC6 = 42 => legacy;
    /// Statistics through the control queue.
    DEVICE_STATS = 50;
    /// Hashes over the inner header of encapsulated packets.
    HASH_TUNNEL = 51 requires [CTRL_VQ] any [RSS, HASH_REPORT];
    /// Notification coalescing for each queue.
    VQ_NOTF_COAL = 52 requires [CTRL_VQ];
    /// Notification coalescing.
    NOTF_COAL = 53 requires [CTRL_VQ];
    /// The driver takes segmented UDP over IPv4.
    GUEST_USO4 = 54 requires [GUEST_CSUM];
    /// The driver takes segmented UDP over IPv6.
    GUEST_USO6 = 55 requires [GUEST_CSUM];
    /// The device takes segmented UDP.
    HOST_USO = 56 requires [CSUM];
    /// The device reports hashes with the packets. Only a SHOULD ties it to the control queue (VIRTIO 1.4 §5.1.4.2).
    HASH_REPORT = 57;
    /// The driver gives the exact length of the headers.
    GUEST_HDRLEN = 59;
    /// Receive steering by hash.
    RSS = 60 requires [CTRL_VQ];
    /// The device reports coalesced segments and duplicated ACKs.
    RSC_EXT = 61 any [HOST_TSO4, HOST_TSO6];
    /// The device may stand by for another one with the same MAC address.
    STANDBY = 62;
    /// `speed` and `duplex` are valid.
    SPEED_DUPLEX = 63;
    /// Several RSS contexts.
    RSS_CONTEXT = 64 requires [CTRL_VQ, RSS];
    /// The driver takes segmented packets inside a UDP tunnel.
    GUEST_UDP_TUNNEL_GSO = 65 requires [GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6];
    /// The driver takes such packets with a partial outer checksum.
    GUEST_UDP_TUNNEL_GSO_CSUM = 66 requires [GUEST_UDP_TUNNEL_GSO];
    /// The device takes segmented packets inside a UDP tunnel.
    HOST_UDP_TUNNEL_GSO = 67 requires [HOST_TSO4, HOST_TSO6, HOST_USO];
    /// The device takes such packets with a partial outer checksum.
    HOST_UDP_TUNNEL_GSO_CSUM = 68 requires [HOST_UDP_TUNNEL_GSO];
    /// The header tells where the outer network header begins.
    OUT_NET_HEADER = 69;
    /// IPsec inside the device.
    IPSEC = 70;
}

config_space! { "5.1.4"
    /// MAC address; there even when not valid.
    MAC "mac" @ 0: u8[6] when [MAC];
    /// See [`status`](super::status).
    STATUS "status" @ 6: u16 when [STATUS];
    /// Largest number of queue pairs.
    MAX_VIRTQUEUE_PAIRS "max_virtqueue_pairs" @ 8: u16 when [MQ, RSS];
    /// Largest MTU in bytes.
    MTU "mtu" @ 10: u16 when [MTU];
    /// Speed in units of 1 Mbit/s; above 0x7fff_ffff: unknown.
    SPEED "speed" @ 12: u32 when [SPEED_DUPLEX];
    /// Duplex mode: 1 full, 0 half, others unknown. The section contradicts itself; its field text is followed here.
    DUPLEX "duplex" @ 16: u8 when [SPEED_DUPLEX];
    /// Longest RSS key in bytes.
    RSS_MAX_KEY_SIZE "rss_max_key_size" @ 17: u8 when [RSS, HASH_REPORT];
    /// Largest number of entries of the RSS indirection table.
    RSS_MAX_INDIRECTION_TABLE_LENGTH "rss_max_indirection_table_length" @ 18: u16 when [RSS];
    /// Mask of [`hash_type`](super::hash::hash_type).
    SUPPORTED_HASH_TYPES "supported_hash_types" @ 20: u32 when [RSS, HASH_REPORT];
    /// Mask of [`tunnel_type`](super::hash::tunnel_type).
    SUPPORTED_TUNNEL_TYPES "supported_tunnel_types" @ 24: u32 when [HASH_TUNNEL];
}

/// Bits of the configuration field `status` (VIRTIO 1.4 §5.1.4).
pub mod status {
    /// The link is up.
    pub const LINK_UP: u16 = 1;
    /// The device asks the driver to announce itself.
    pub const ANNOUNCE: u16 = 2;
}
