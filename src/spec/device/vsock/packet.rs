//! Packets and events of the socket device (VIRTIO 1.4 §5.10.6).

use crate::spec::wire::{wire_code, wire_struct};

wire_struct! {
    /// Start of every packet; the payload follows (VIRTIO 1.4 §5.10.6).
    pub struct Header {
        /// Context id of the sender; the upper 32 bits are zero.
        src_cid: u64,
        /// Context id of the receiver; the upper 32 bits are zero.
        dst_cid: u64,
        /// Port of the sender.
        src_port: u32,
        /// Port of the receiver.
        dst_port: u32,
        /// Length of the payload in bytes.
        len: u32,
        /// Kind of socket.
        socket_type: SocketType,
        /// What the packet does.
        op: Op,
        /// Mask of [`shutdown`] or [`seqpacket`].
        flags: u32,
        /// Receive buffer of the sender's socket in bytes.
        buf_alloc: u32,
        /// Bytes that the sender's socket has taken so far; it wraps.
        fwd_cnt: u32,
    }

    /// An event, written by the device (VIRTIO 1.4 §5.10.6.7).
    pub struct Event {
        /// Kind.
        id: EventId,
    }
}

wire_code! {
    /// Kind of socket (VIRTIO 1.4 §5.10.6.2).
    pub struct SocketType(u16) {
        /// Stream.
        STREAM = 1;
        /// Messages in order.
        SEQPACKET = 2;
    }

    /// What a packet does (VIRTIO 1.4 §5.10.6).
    pub struct Op(u16) {
        /// Nothing valid.
        INVALID = 0;
        /// Ask for a connection.
        REQUEST = 1;
        /// Accept it.
        RESPONSE = 2;
        /// Refuse or end it.
        RST = 3;
        /// Nothing more in the directions of the flags.
        SHUTDOWN = 4;
        /// Payload.
        RW = 5;
        /// Tell the buffer space.
        CREDIT_UPDATE = 6;
        /// Ask for the buffer space.
        CREDIT_REQUEST = 7;
    }

    /// Kind of an event (VIRTIO 1.4 §5.10.6.7).
    pub struct EventId(u32) {
        /// Connections are gone and the context id may have changed.
        TRANSPORT_RESET = 0;
    }
}

/// Bits of [`Header::flags`] with [`Op::SHUTDOWN`] (VIRTIO 1.4 §5.10.6.5).
pub mod shutdown {
    /// The sender will not receive any more.
    pub const RECEIVE: u32 = 1 << 0;
    /// The sender will not send any more.
    pub const SEND: u32 = 1 << 1;
}

/// Bits of [`Header::flags`] with [`Op::RW`] of [`SocketType::SEQPACKET`] (VIRTIO 1.4 §5.10.6.6.1).
pub mod seqpacket {
    /// End of a message.
    pub const EOM: u32 = 1 << 0;
    /// End of a record.
    pub const EOR: u32 = 1 << 1;
}

/// Bytes that may be sent to the peer, from its `buf_alloc` and `fwd_cnt` and the bytes sent to it so far
/// (VIRTIO 1.4 §5.10.6.3).
///
/// A peer that claims to have taken more than was sent, or less buffer than is full, gets nothing.
#[must_use]
pub const fn peer_free(buf_alloc: u32, fwd_cnt: u32, tx_cnt: u32) -> u32 {
    buf_alloc.saturating_sub(tx_cnt.wrapping_sub(fwd_cnt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::Little;

    #[test]
    fn s5_10_6_header_has_44_bytes() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 5,
            len: 6,
            socket_type: SocketType::SEQPACKET,
            op: Op::RW,
            flags: seqpacket::EOR,
            buf_alloc: 7,
            fwd_cnt: 8,
        };
        let bytes = header.encode(Little);
        assert_eq!(bytes[..16], [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..32], [4, 3, 2, 1, 5, 0, 0, 0, 6, 0, 0, 0, 2, 0, 5, 0]);
        assert_eq!(bytes[32..], [2, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(Header::decode(&bytes, Little), header);
    }

    #[test]
    fn s5_10_6_unknown_codes_survive() {
        let mut bytes = Header::default().encode(Little);
        bytes[28..32].copy_from_slice(&[0x34, 0x12, 0xff, 0xff]);
        let header = Header::decode(&bytes, Little);
        assert_eq!((header.socket_type, header.op), (SocketType(0x1234), Op(0xffff)));
        assert_eq!(header.op.name(), None);
        assert_eq!(header.encode(Little), bytes);
        assert_eq!(Event::decode(&[9, 0, 0, 0], Little).id, EventId(9));
    }

    #[test]
    fn s5_10_6_3_free_space_of_the_peer_wraps_and_never_underflows() {
        assert_eq!(peer_free(100, 0, 30), 70);
        assert_eq!(peer_free(100, u32::MAX, 29), 70);
        assert_eq!(peer_free(100, 0, 200), 0);
        assert_eq!(peer_free(100, 31, 30), 0);
    }
}
