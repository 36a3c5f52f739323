//! Zones of a zoned block device (VIRTIO 1.4 §5.2.6).

use crate::spec::Reserved;
use crate::spec::wire::{wire_code, wire_struct};

/// Length of the sector number that a zone append returns before the status (VIRTIO 1.4 §5.2.6).
pub const APPEND_SECTOR_SIZE: usize = 8;

wire_struct! {
    /// Start of the data of a zone report; descriptors follow it (VIRTIO 1.4 §5.2.6).
    pub struct ReportHeader {
        /// Number of descriptors that were transferred whole.
        nr_zones: u64,
        /// Reserved.
        reserved: Reserved<56>,
    }

    /// One zone in a zone report (VIRTIO 1.4 §5.2.6).
    pub struct Descriptor {
        /// Sectors that can be written while the zone is empty.
        z_cap: u64,
        /// First sector.
        z_start: u64,
        /// Sector of the next write; undefined for conventional, read-only, full and offline zones.
        z_wp: u64,
        /// Type.
        z_type: ZoneType,
        /// State.
        z_state: ZoneState,
        /// Reserved.
        reserved: Reserved<38>,
    }
}

wire_code! {
    /// Type of a zone (VIRTIO 1.4 §5.2.6).
    pub struct ZoneType(u8) {
        /// Conventional.
        CONV = 1;
        /// Sequential write required.
        SWR = 2;
        /// Sequential write preferred.
        SWP = 3;
    }

    /// State of a zone (VIRTIO 1.4 §5.2.6).
    pub struct ZoneState(u8) {
        /// Conventional: no write pointer.
        NOT_WP = 0;
        /// Empty.
        EMPTY = 1;
        /// Opened by a write.
        IOPEN = 2;
        /// Opened by request.
        EOPEN = 3;
        /// Closed.
        CLOSED = 4;
        /// Read-only.
        RDONLY = 13;
        /// Full.
        FULL = 14;
        /// Offline.
        OFFLINE = 15;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::Little;

    #[test]
    fn s5_2_6_zone_descriptor_and_report_header_have_64_bytes() {
        assert_eq!((ReportHeader::SIZE, Descriptor::SIZE), (64, 64));
        let mut bytes = [0; 64];
        bytes[16..26].copy_from_slice(&[9, 0, 0, 0, 0, 0, 0, 1, 2, 14]);
        let zone = Descriptor::decode(&bytes, Little);
        assert_eq!((zone.z_wp, zone.z_type, zone.z_state), (1 << 56 | 9, ZoneType::SWR, ZoneState::FULL));
        assert_eq!(zone.encode(Little), bytes);
    }
}
