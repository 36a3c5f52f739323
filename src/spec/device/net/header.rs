//! Header before every packet (VIRTIO 1.4 §5.1.9).
//!
//! Its length depends on the negotiated features; a header longer than a part contains all the parts before it
//! (VIRTIO 1.4 §5.1.9.3.1). Through the legacy interface the numbers have the guest's byte order (§5.1.9.1).

use super::feature;
use crate::spec::wire::{wire_code, wire_struct};

/// Length up to `csum_offset`: a legacy device without MRG_RXBUF (VIRTIO 1.4 §5.1.9.1).
pub const SIZE_LEGACY: usize = 10;
/// Length up to `num_buffers` (VIRTIO 1.4 §5.1.9.3.1).
pub const SIZE: usize = 12;
/// Length with the hash (VIRTIO 1.4 §5.1.9.3.1).
pub const SIZE_HASH: usize = 20;
/// Length with the offsets of a UDP tunnel (VIRTIO 1.4 §5.1.9.3.1).
pub const SIZE_TUNNEL: usize = 24;
/// Length with the outer network header and the IPsec resource (VIRTIO 1.4 §5.1.9.3.1).
pub const SIZE_FULL: usize = 32;

/// Offset of `num_buffers`.
pub const NUM_BUFFERS: usize = 10;

/// Length of the header for the negotiated features, as a mask of bits 0 to 127 (VIRTIO 1.4 §5.1.9.1, §5.1.9.3.1).
///
/// `legacy` tells whether the device is driven through the legacy interface.
///
/// ```
/// use virtio::spec::device::net::{feature, header};
///
/// assert_eq!(header::size(0, false), 12);
/// assert_eq!(header::size(0, true), 10);
/// assert_eq!(header::size(1 << feature::HASH_REPORT, false), 20);
/// ```
#[must_use]
pub const fn size(features: u128, legacy: bool) -> usize {
    const FULL: u128 = 1 << feature::OUT_NET_HEADER | 1 << feature::IPSEC;
    const TUNNEL: u128 = 1 << feature::HOST_UDP_TUNNEL_GSO | 1 << feature::GUEST_UDP_TUNNEL_GSO;
    if legacy {
        // A legacy device has no feature beyond bit 31, so that only these two lengths exist.
        if features & (1 << feature::MRG_RXBUF) == 0 { SIZE_LEGACY } else { SIZE }
    } else if features & FULL != 0 {
        SIZE_FULL
    } else if features & TUNNEL != 0 {
        SIZE_TUNNEL
    } else if features & (1 << feature::HASH_REPORT) != 0 {
        SIZE_HASH
    } else {
        SIZE
    }
}

wire_struct! {
    /// The whole header (VIRTIO 1.4 §5.1.9); a shorter one is its first [`size`] bytes.
    ///
    /// ```
    /// use virtio::spec::{ByteOrder, device::net::header::{GsoType, Header, SIZE_FULL}};
    ///
    /// let mut bytes = [0; SIZE_FULL];
    /// bytes[..12].copy_from_slice(&[0, 1, 54, 0, 0xb4, 5, 0, 0, 0, 0, 1, 0]);
    /// let header = Header::decode(&bytes, ByteOrder::Little);
    /// assert_eq!((header.gso_type, header.gso_size, header.num_buffers), (GsoType::TCPV4, 1460, 1));
    /// ```
    pub struct Header {
        /// Mask of [`flags`].
        flags: u8,
        /// Kind of segmentation.
        gso_type: GsoType,
        /// Length of the headers to repeat, in bytes.
        hdr_len: u16,
        /// Largest payload of a segment, in bytes.
        gso_size: u16,
        /// Where the checksum begins, from the start of the packet. With RSC_INFO: coalesced segments.
        csum_start: u16,
        /// Where the checksum is put, from `csum_start`. With RSC_INFO: duplicated ACKs.
        csum_offset: u16,
        /// Number of receive buffers of this packet. Not in the shortest legacy header.
        num_buffers: u16,
        /// Hash of the packet; with HASH_REPORT.
        hash_value: u32,
        /// Kind of hash; with HASH_REPORT.
        hash_report: HashReport,
        /// Reserved.
        padding_reserved: u16,
        /// Outer transport header, from the start of the packet; with a feature `*_UDP_TUNNEL_GSO`.
        outer_th_offset: u16,
        /// Inner network header, from the start of the packet; with a feature `*_UDP_TUNNEL_GSO`.
        inner_nh_offset: u16,
        /// Outer network header, from the start of the packet, or 0; with OUT_NET_HEADER.
        outer_nh_offset: u16,
        /// IPsec resource; with IPSEC.
        ipsec_resource_id: u32,
        /// Type of that resource; with IPSEC.
        ipsec_resource_type: u16,
    }
}

/// Bits of [`Header::flags`] (VIRTIO 1.4 §5.1.9).
pub mod flags {
    /// `csum_start` and `csum_offset` tell of a checksum to complete.
    pub const NEEDS_CSUM: u8 = 1;
    /// The device has validated the checksum.
    pub const DATA_VALID: u8 = 2;
    /// `csum_start` and `csum_offset` tell of coalesced segments instead.
    pub const RSC_INFO: u8 = 4;
    /// The outer checksum of a UDP tunnel is partial, or validated.
    pub const UDP_TUNNEL_CSUM: u8 = 8;
    /// IPsec is, or was, applied.
    pub const SECURITY: u8 = 16;
    /// IPsec failed.
    pub const SECURITY_ERR: u8 = 32;
    /// A security association is about to expire.
    pub const SECURITY_SA_SOFT_EXPIRY_WARN: u8 = 64;
}

wire_code! {
    /// Kind of segmentation, with the bits below (VIRTIO 1.4 §5.1.9).
    pub struct GsoType(u8) {
        /// No segmentation.
        NONE = 0;
        /// TCP over IPv4.
        TCPV4 = 1;
        /// UDP fragments.
        UDP = 3;
        /// TCP over IPv6.
        TCPV6 = 4;
        /// UDP segments.
        UDP_L4 = 5;
    }

    /// Kind of hash in the header (VIRTIO 1.4 §5.1.9.4.5).
    pub struct HashReport(u16) {
        /// No hash.
        NONE = 0;
        /// IPv4 addresses.
        IPV4 = 1;
        /// IPv4 addresses and TCP ports.
        TCPV4 = 2;
        /// IPv4 addresses and UDP ports.
        UDPV4 = 3;
        /// IPv6 addresses.
        IPV6 = 4;
        /// IPv6 addresses and TCP ports.
        TCPV6 = 5;
        /// IPv6 addresses and UDP ports.
        UDPV6 = 6;
        /// IPv6 addresses of the extension headers.
        IPV6_EX = 7;
        /// The same and TCP ports.
        TCPV6_EX = 8;
        /// The same and UDP ports.
        UDPV6_EX = 9;
    }
}

impl GsoType {
    /// Bit: the packet is inside a UDP tunnel over IPv4 (VIRTIO 1.4 §5.1.9).
    pub const UDP_TUNNEL_IPV4: u8 = 0x20;
    /// Bit: the packet is inside a UDP tunnel over IPv6 (VIRTIO 1.4 §5.1.9).
    pub const UDP_TUNNEL_IPV6: u8 = 0x40;
    /// Bit: the TCP packet has ECN set (VIRTIO 1.4 §5.1.9).
    pub const ECN: u8 = 0x80;

    /// The kind without the bits beside it.
    #[must_use]
    pub const fn base(self) -> Self {
        Self(self.0 & !(Self::UDP_TUNNEL_IPV4 | Self::UDP_TUNNEL_IPV6 | Self::ECN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    const SAMPLE: Header = Header {
        flags: flags::NEEDS_CSUM,
        gso_type: GsoType(GsoType::ECN | 4),
        hdr_len: 0x0102,
        gso_size: 0x0304,
        csum_start: 0x0506,
        csum_offset: 0x0708,
        num_buffers: 0x090a,
        hash_value: 0x0b0c_0d0e,
        hash_report: HashReport(0x0f10),
        padding_reserved: 0,
        outer_th_offset: 0x1112,
        inner_nh_offset: 0x1314,
        outer_nh_offset: 0x1516,
        ipsec_resource_id: 0x1718_191a,
        ipsec_resource_type: 0x1b1c,
    };

    #[test]
    fn s5_1_9_3_1_header_length_follows_the_features() {
        assert_eq!(Header::SIZE, SIZE_FULL);
        let of = |bit: u8| size(1 << bit, false);
        assert_eq!(size(0, false), 12);
        assert_eq!(of(feature::MRG_RXBUF), 12);
        assert_eq!(of(feature::HASH_REPORT), 20);
        assert_eq!(of(feature::HOST_UDP_TUNNEL_GSO), 24);
        assert_eq!(of(feature::GUEST_UDP_TUNNEL_GSO), 24);
        assert_eq!(of(feature::OUT_NET_HEADER), 32);
        assert_eq!(of(feature::IPSEC), 32);
        assert_eq!(size(u128::MAX, false), 32);
    }

    #[test]
    fn s5_1_9_1_legacy_header_has_num_buffers_with_mrg_rxbuf_only() {
        assert_eq!(size(0, true), 10);
        assert_eq!(size(1 << feature::MRG_RXBUF, true), 12);
        assert_eq!(size(1 << feature::HASH_REPORT, true), 10);
    }

    #[test]
    fn s5_1_9_fields_lie_where_the_lengths_cut() {
        let bytes = SAMPLE.encode(Little);
        assert_eq!(bytes[..SIZE_LEGACY], [1, 0x84, 2, 1, 4, 3, 6, 5, 8, 7]);
        assert_eq!(bytes[NUM_BUFFERS..SIZE], [0xa, 9]);
        assert_eq!(bytes[SIZE..SIZE_HASH], [0xe, 0xd, 0xc, 0xb, 0x10, 0xf, 0, 0]);
        assert_eq!(bytes[SIZE_HASH..SIZE_TUNNEL], [0x12, 0x11, 0x14, 0x13]);
        assert_eq!(bytes[SIZE_TUNNEL..], [0x16, 0x15, 0x1a, 0x19, 0x18, 0x17, 0x1c, 0x1b]);
    }

    #[test]
    fn s5_1_9_header_survives_a_round_trip_in_both_orders() {
        for order in [Little, Big] {
            assert_eq!(Header::decode(&SAMPLE.encode(order), order), SAMPLE);
        }
        assert_eq!(SAMPLE.encode(Big)[2..4], [1, 2]);
        assert_eq!(SAMPLE.gso_type.base(), GsoType::TCPV6);
        assert_eq!(GsoType(2).name(), None);
    }
}
