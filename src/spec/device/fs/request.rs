//! Requests of the file system device (VIRTIO 1.4 §5.11.6.1).
//!
//! Device-readable: an [`InHeader`] and data. Device-writable: an [`OutHeader`] and data. Both headers are those of
//! FUSE; the driver chooses their byte order with its first request, FUSE_INIT.

use crate::spec::wire::{wire_code, wire_struct};

wire_struct! {
    /// FUSE header before the data of a request (VIRTIO 1.4 §5.11.6.1).
    pub struct InHeader {
        /// Length of header and data in bytes.
        len: u32,
        /// What to do.
        opcode: Opcode,
        /// Number that names the request in its answer and in interrupts.
        unique: u64,
        /// Inode.
        nodeid: u64,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Process.
        pid: u32,
        /// Length of extensions after the data, in units of 8 bytes.
        total_extlen: u16,
        /// Reserved.
        padding: u16,
    }

    /// FUSE header before the data of an answer or of a notify message (VIRTIO 1.4 §5.11.6.1, §5.11.6.3).
    pub struct OutHeader {
        /// Length of header and data in bytes.
        len: u32,
        /// Zero or a negative error number; in a notify message its kind.
        error: i32,
        /// Number of the request; zero in a notify message.
        unique: u64,
    }
}

wire_code! {
    /// Requests of FUSE that VIRTIO has rules for (VIRTIO 1.4 §5.11.5, §5.11.6).
    pub struct Opcode(u32) {
        /// Inodes that the driver forgets; only in the high priority queue; no answer.
        FORGET = 2;
        /// Starts the session.
        INIT = 26;
        /// Interrupts a request; only in the high priority queue.
        INTERRUPT = 36;
        /// Several inodes that the driver forgets; only in the high priority queue; no answer.
        BATCH_FORGET = 42;
        /// Maps a range of a file into the DAX window.
        SETUPMAPPING = 48;
        /// Takes it out of the DAX window.
        REMOVEMAPPING = 49;
    }
}

impl Opcode {
    /// Whether the request goes into the high priority queue, and no other one does (VIRTIO 1.4 §5.11.6.2.2).
    #[must_use]
    pub const fn is_high_priority(self) -> bool {
        matches!(self, Self::FORGET | Self::INTERRUPT | Self::BATCH_FORGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_11_6_1_headers_have_40_and_16_bytes_in_the_order_of_the_session() {
        let request =
            InHeader { len: 104, opcode: Opcode::INIT, unique: 7, nodeid: 1, ..InHeader::default() };
        let bytes = request.encode(Little);
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[..8], [104, 0, 0, 0, 26, 0, 0, 0]);
        assert_eq!(request.encode(Big)[4..8], [0, 0, 0, 26]);
        assert_eq!(InHeader::decode(&request.encode(Big), Big), request);
        let answer = OutHeader { len: 16, error: -5, unique: 7 };
        assert_eq!(answer.encode(Little)[4..8], [0xfb, 0xff, 0xff, 0xff]);
        assert_eq!(OutHeader::decode(&answer.encode(Big), Big), answer);
    }

    #[test]
    fn s5_11_6_2_2_only_interrupts_and_forgets_have_high_priority() {
        assert!(Opcode::FORGET.is_high_priority() && Opcode::BATCH_FORGET.is_high_priority());
        assert!(Opcode::INTERRUPT.is_high_priority());
        assert!(!Opcode::INIT.is_high_priority() && !Opcode(15).is_high_priority());
    }
}
