//! Commands of the network device's control queue (VIRTIO 1.4 §5.1.9.5).
//!
//! A command is device-readable: a [`Header`] and the command's data. One byte, the [`Ack`], and the data of the
//! reply are device-writable.

use crate::spec::wire::{wire_code, wire_struct};

/// Length of the acknowledgement in bytes (VIRTIO 1.4 §5.1.9.5).
pub const ACK_SIZE: usize = 1;

wire_struct! {
    /// Start of every command (VIRTIO 1.4 §5.1.9.5).
    pub struct Header {
        /// Class of the command.
        class: Class,
        /// Number within the class: a constant of [`rx`], [`mac`] and the other modules.
        command: u8,
    }

    /// Notification coalescing (VIRTIO 1.4 §5.1.9.5.10).
    pub struct Coalescing {
        /// Packets after which to notify.
        max_packets: u32,
        /// Microseconds after which to notify.
        max_usecs: u32,
    }

    /// Notification coalescing of one queue (VIRTIO 1.4 §5.1.9.5.10).
    pub struct QueueCoalescing {
        /// Queue index.
        vq_index: u16,
        /// Reserved.
        reserved: u16,
        /// Packets after which to notify.
        max_packets: u32,
        /// Microseconds after which to notify.
        max_usecs: u32,
    }

    /// Start of the reply to each entry of a statistics command (VIRTIO 1.4 §5.1.9.5.11).
    pub struct StatsReplyHeader {
        /// Number of the bit in [`stats::bits`].
        reply_type: u8,
        /// Reserved.
        reserved: u8,
        /// Queue index.
        vq_index: u16,
        /// Reserved.
        reserved1: u16,
        /// Length of the reply with this header, in bytes.
        size: u16,
    }

    /// What a statistics command asks of one queue (VIRTIO 1.4 §5.1.9.5.11).
    pub struct StatsQuery {
        /// Queue index.
        vq_index: u16,
        /// Reserved.
        reserved: [u8; 6],
        /// Mask of [`stats::bits`].
        types_bitmap: u64,
    }
}

wire_code! {
    /// Answer to a command, written by the device (VIRTIO 1.4 §5.1.9.5).
    pub struct Ack(u8) {
        /// Done.
        OK = 0;
        /// Failed.
        ERR = 1;
    }

    /// Class of a command (VIRTIO 1.4 §5.1.9.4.4, §5.1.9.5).
    pub struct Class(u8) {
        /// Receive modes.
        RX = 0;
        /// MAC addresses.
        MAC = 1;
        /// VLAN filters.
        VLAN = 2;
        /// Announcements.
        ANNOUNCE = 3;
        /// Number of queue pairs, RSS and hashes.
        MQ = 4;
        /// Offloads of received packets.
        GUEST_OFFLOADS = 5;
        /// Notification coalescing.
        NOTF_COAL = 6;
        /// Hashes of encapsulated packets.
        HASH_TUNNEL = 7;
        /// Statistics.
        STATS = 8;
        /// RSS contexts.
        RSS_CTX = 9;
    }
}

/// Commands of [`Class::RX`]; the data is one byte, 0 off or 1 on (VIRTIO 1.4 §5.1.9.5.1).
pub mod rx {
    /// Every packet.
    pub const PROMISC: u8 = 0;
    /// Every multicast packet.
    pub const ALLMULTI: u8 = 1;
    /// Every unicast packet.
    pub const ALLUNI: u8 = 2;
    /// No multicast packet.
    pub const NOMULTI: u8 = 3;
    /// No unicast packet.
    pub const NOUNI: u8 = 4;
    /// No broadcast packet.
    pub const NOBCAST: u8 = 5;
}

/// Commands of [`Class::MAC`] (VIRTIO 1.4 §5.1.9.5.2).
pub mod mac {
    /// Two tables, unicast then multicast: a `u32` count and that many addresses of 6 bytes.
    pub const TABLE_SET: u8 = 0;
    /// The device's own address of 6 bytes.
    pub const ADDR_SET: u8 = 1;
}

/// Commands of [`Class::VLAN`]; the data is the VLAN id as `u16` (VIRTIO 1.4 §5.1.9.5.3).
pub mod vlan {
    /// Let the VLAN pass.
    pub const ADD: u8 = 0;
    /// Stop the VLAN.
    pub const DEL: u8 = 1;
}

/// Command of [`Class::ANNOUNCE`], without data (VIRTIO 1.4 §5.1.9.5.4).
pub mod announce {
    /// The driver has seen the request to announce itself.
    pub const ACK: u8 = 0;
}

/// Commands of [`Class::MQ`] (VIRTIO 1.4 §5.1.9.5.5 to §5.1.9.5.7).
pub mod mq {
    /// Number of queue pairs as `u16`.
    pub const VQ_PAIRS_SET: u8 = 0;
    /// Receive steering by hash, see [`RssConfigHead`](crate::spec::device::net::steering::RssConfigHead).
    pub const RSS_CONFIG: u8 = 1;
    /// Hash reports, see [`HashConfigHead`](crate::spec::device::net::steering::HashConfigHead).
    pub const HASH_CONFIG: u8 = 2;
    /// Smallest number of queue pairs.
    pub const VQ_PAIRS_MIN: u16 = 1;
    /// Largest number of queue pairs.
    pub const VQ_PAIRS_MAX: u16 = 0x8000;
}

/// Command of [`Class::GUEST_OFFLOADS`]; the data is a `u64` mask (VIRTIO 1.4 §5.1.9.5.9).
pub mod offloads {
    /// Switch on the offloads of the mask and off the others.
    pub const SET: u8 = 0;

    /// Bit of the mask for an offload, by its feature bit; `None` if it cannot be switched.
    ///
    /// The UDP tunnel features lie beyond bit 63 and have numbers of their own here.
    #[must_use]
    pub const fn bit(feature: u8) -> Option<u8> {
        use crate::spec::device::net::feature::*;
        match feature {
            GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO | GUEST_USO4 | GUEST_USO6 => {
                Some(feature)
            }
            GUEST_UDP_TUNNEL_GSO => Some(46),
            GUEST_UDP_TUNNEL_GSO_CSUM => Some(47),
            _ => None,
        }
    }
}

/// Commands of [`Class::NOTF_COAL`] (VIRTIO 1.4 §5.1.9.5.10).
pub mod coalescing {
    /// [`Coalescing`](super::Coalescing) of every transmit queue.
    pub const TX_SET: u8 = 0;
    /// [`Coalescing`](super::Coalescing) of every receive queue.
    pub const RX_SET: u8 = 1;
    /// [`QueueCoalescing`](super::QueueCoalescing) of one queue.
    pub const VQ_SET: u8 = 2;
    /// Read the [`QueueCoalescing`](super::QueueCoalescing) of one queue.
    pub const VQ_GET: u8 = 3;
}

/// Command of [`Class::HASH_TUNNEL`]; the data is a `u32` mask (VIRTIO 1.4 §5.1.9.4.4).
pub mod hash_tunnel {
    /// Enable these tunnel types.
    pub const SET: u8 = 0;
}

/// Commands of [`Class::STATS`] (VIRTIO 1.4 §5.1.9.5.11).
pub mod stats {
    /// Read a `u64` mask of the supported [`bits`].
    pub const QUERY: u8 = 0;
    /// [`StatsQuery`](super::StatsQuery) entries; each is answered with [`StatsReplyHeader`](super::StatsReplyHeader).
    pub const GET: u8 = 1;

    /// Bit numbers of the kinds of statistics; also the reply types (VIRTIO 1.4 §5.1.9.5.11).
    pub mod bits {
        /// Receive queue: packets, bytes, drops.
        pub const RX_BASIC: u8 = 0;
        /// Receive queue: checksums.
        pub const RX_CSUM: u8 = 1;
        /// Receive queue: segmentation.
        pub const RX_GSO: u8 = 2;
        /// Receive queue: speed limits.
        pub const RX_SPEED: u8 = 3;
        /// Transmit queue: packets, bytes, drops.
        pub const TX_BASIC: u8 = 16;
        /// Transmit queue: checksums.
        pub const TX_CSUM: u8 = 17;
        /// Transmit queue: segmentation.
        pub const TX_GSO: u8 = 18;
        /// Transmit queue: speed limits.
        pub const TX_SPEED: u8 = 19;
        /// Control queue.
        pub const CVQ: u8 = 32;
    }
}

/// Commands of [`Class::RSS_CTX`] (VIRTIO 1.4 §5.1.9.5.8).
pub mod rss_context {
    /// Read the largest number of contexts as `u16`.
    pub const CAP_GET: u8 = 0;
    /// Add a context: `u16` id, 6 reserved bytes, an RSS configuration.
    pub const ADD: u8 = 1;
    /// Change a context, likewise.
    pub const MOD: u8 = 2;
    /// Delete the context with this `u16` id.
    pub const DEL: u8 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};
    use crate::spec::device::net::feature;

    #[test]
    fn s5_1_9_5_command_header_has_class_then_command() {
        let header = Header { class: Class::MQ, command: mq::RSS_CONFIG };
        assert_eq!(header.encode(Little), [4, 1]);
        assert_eq!(Header::decode(&[77, 9], Big), Header { class: Class(77), command: 9 });
        assert_eq!(Class(77).name(), None);
    }

    #[test]
    fn s5_1_9_5_10_queue_coalescing_holds_the_queue_before_the_limits() {
        let one = QueueCoalescing { vq_index: 3, reserved: 0, max_packets: 0x0102, max_usecs: 5 };
        assert_eq!(one.encode(Little), [3, 0, 0, 0, 2, 1, 0, 0, 5, 0, 0, 0]);
        assert_eq!(QueueCoalescing::decode(&one.encode(Big), Big), one);
        let all = Coalescing { max_packets: 0x0102, max_usecs: 5 };
        assert_eq!(all.encode(Little), one.encode(Little)[4..]);
    }

    #[test]
    fn s5_1_9_5_11_statistics_survive_a_round_trip() {
        let reply = StatsReplyHeader {
            reply_type: stats::bits::CVQ,
            reserved: 0,
            vq_index: 2,
            reserved1: 0,
            size: 24,
        };
        assert_eq!(reply.encode(Little), [32, 0, 2, 0, 0, 0, 24, 0]);
        assert_eq!(StatsReplyHeader::decode(&reply.encode(Big), Big), reply);
        let query = StatsQuery { vq_index: 1, reserved: [0; 6], types_bitmap: 1 << stats::bits::CVQ };
        assert_eq!(query.encode(Little), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(StatsQuery::decode(&query.encode(Big), Big), query);
    }

    #[test]
    fn s5_1_9_5_9_tunnel_offloads_have_their_own_bits() {
        assert_eq!(offloads::bit(feature::GUEST_TSO4), Some(7));
        assert_eq!(offloads::bit(feature::GUEST_UDP_TUNNEL_GSO), Some(46));
        assert_eq!(offloads::bit(feature::GUEST_UDP_TUNNEL_GSO_CSUM), Some(47));
        assert_eq!(offloads::bit(feature::CSUM), None);
    }
}
