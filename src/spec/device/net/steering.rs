//! Data of the hash and RSS commands (VIRTIO 1.4 §5.1.9.5.6, §5.1.9.5.7).

use crate::spec::wire::wire_struct;

wire_struct! {
    /// Start of a hash configuration; the key follows (VIRTIO 1.4 §5.1.9.5.6).
    pub struct HashConfigHead {
        /// Mask of [`hash_type`](super::hash::hash_type).
        hash_types: u32,
        /// Reserved.
        reserved: [u8; 8],
        /// Length of the key in bytes.
        hash_key_length: u8,
    }

    /// Start of an RSS configuration; the indirection table, an [`RssConfigTail`] and the key follow
    /// (VIRTIO 1.4 §5.1.9.5.7).
    pub struct RssConfigHead {
        /// Mask of [`hash_type`](super::hash::hash_type).
        hash_types: u32,
        /// Length of the indirection table less one.
        indirection_table_mask: u16,
        /// Receive queue of packets without a hash, see [`receive_queue_id`].
        unclassified_queue: u16,
    }

    /// What follows the indirection table in an RSS configuration (VIRTIO 1.4 §5.1.9.5.7).
    pub struct RssConfigTail {
        /// Number of transmit queues.
        max_tx_vq: u16,
        /// Length of the key in bytes.
        hash_key_length: u8,
    }
}

/// Entry of the indirection table for a receive queue: its index without the lowest bit (VIRTIO 1.4 §5.1.9.5.7).
#[must_use]
pub const fn receive_queue_id(queue_index: u16) -> u16 {
    queue_index >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_1_9_5_6_hash_configuration_has_its_key_length_at_12() {
        let head = HashConfigHead { hash_types: 0x1ff, reserved: [0; 8], hash_key_length: 40 };
        assert_eq!(head.encode(Little), [0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40]);
        assert_eq!(HashConfigHead::decode(&head.encode(Big), Big), head);
    }

    #[test]
    fn s5_1_9_5_7_rss_configuration_puts_the_table_at_8() {
        let head = RssConfigHead {
            hash_types: 1,
            indirection_table_mask: 127,
            unclassified_queue: receive_queue_id(4),
        };
        assert_eq!(head.encode(Little), [1, 0, 0, 0, 127, 0, 2, 0]);
        assert_eq!(RssConfigHead::decode(&head.encode(Big), Big), head);
        assert_eq!(RssConfigTail { max_tx_vq: 2, hash_key_length: 40 }.encode(Little), [2, 0, 40]);
    }
}
