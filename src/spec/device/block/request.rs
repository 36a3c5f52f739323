//! Requests of the block device (VIRTIO 1.4 §5.2.6).
//!
//! A request is a device-readable [`Header`], then data, then one device-writable byte, the [`Status`]. Through the
//! legacy interface the numbers have the guest's byte order (VIRTIO 1.4 §5.2.6.3).

use crate::spec::wire::{wire_code, wire_struct};

/// Length of the status in bytes (VIRTIO 1.4 §5.2.6).
pub const STATUS_SIZE: usize = 1;

/// Length of the data of [`RequestType::GET_ID`]: ASCII padded with NUL, perhaps without any NUL (VIRTIO 1.4 §5.2.6).
pub const ID_SIZE: usize = 20;

/// Bit of [`Segment::flags`]: the device may deallocate the range; only for write zeroes (VIRTIO 1.4 §5.2.6).
pub const SEGMENT_UNMAP: u32 = 1;

/// Bit in the type of a request to a legacy device with BARRIER: keep the order around it (VIRTIO 1.4 §5.2.6.3).
pub const LEGACY_BARRIER: u32 = 1 << 31;

wire_struct! {
    /// Start of every request (VIRTIO 1.4 §5.2.6).
    pub struct Header {
        /// What to do.
        request_type: RequestType,
        /// Zero; `ioprio` in the legacy interface.
        reserved: u32,
        /// First sector of 512 bytes; zero where the type has no use for it.
        sector: u64,
    }

    /// Data of discard, write zeroes and secure erase: one or more of these (VIRTIO 1.4 §5.2.6).
    pub struct Segment {
        /// First sector of 512 bytes.
        sector: u64,
        /// Number of sectors.
        num_sectors: u32,
        /// [`SEGMENT_UNMAP`]; the other bits are zero.
        flags: u32,
    }

    /// Data of [`RequestType::GET_LIFETIME`] (VIRTIO 1.4 §5.2.6).
    pub struct Lifetime {
        /// Share of the reserved blocks that is used up.
        pre_eol_info: PreEolInfo,
        /// Wear of SLC cells in steps of 10 %: 0 undefined, 11 beyond the estimate.
        device_lifetime_est_typ_a: u16,
        /// Wear of MLC cells, likewise.
        device_lifetime_est_typ_b: u16,
    }
}

wire_code! {
    /// Type of a request (VIRTIO 1.4 §5.2.6).
    pub struct RequestType(u32) {
        /// Read.
        IN = 0;
        /// Write.
        OUT = 1;
        /// SCSI packet command of a legacy device (VIRTIO 1.4 §5.2.6.3).
        SCSI_CMD = 2;
        /// Same as [`Self::SCSI_CMD`].
        SCSI_CMD_OUT = 3;
        /// Flush the cache.
        FLUSH = 4;
        /// Legacy synonym of [`Self::FLUSH`] (VIRTIO 1.4 §5.2.6.3).
        FLUSH_OUT = 5;
        /// Read the device's id string.
        GET_ID = 8;
        /// Read the wear of the storage.
        GET_LIFETIME = 10;
        /// Discard ranges.
        DISCARD = 11;
        /// Write zeroes to ranges.
        WRITE_ZEROES = 13;
        /// Erase ranges securely.
        SECURE_ERASE = 14;
        /// Write at a zone's write pointer.
        ZONE_APPEND = 15;
        /// Read zone descriptors.
        ZONE_REPORT = 16;
        /// Open a zone.
        ZONE_OPEN = 18;
        /// Close a zone.
        ZONE_CLOSE = 20;
        /// Make a zone full.
        ZONE_FINISH = 22;
        /// Make a zone empty.
        ZONE_RESET = 24;
        /// Make every sequential zone empty.
        ZONE_RESET_ALL = 26;
    }

    /// Last byte of a request, written by the device (VIRTIO 1.4 §5.2.6).
    pub struct Status(u8) {
        /// Success.
        OK = 0;
        /// Error of the device or of the driver.
        IOERR = 1;
        /// The device does not support the request.
        UNSUPP = 2;
        /// The zone, its state or the request does not allow it.
        ZONE_INVALID_CMD = 3;
        /// Not at the zone's write pointer, or not a multiple of the write granularity.
        ZONE_UNALIGNED_WP = 4;
        /// Too many open zones.
        ZONE_OPEN_RESOURCE = 5;
        /// Too many active zones.
        ZONE_ACTIVE_RESOURCE = 6;
    }

    /// Share of the reserved blocks that is used up (VIRTIO 1.4 §5.2.6).
    pub struct PreEolInfo(u16) {
        /// Not available.
        UNDEFINED = 0;
        /// Less than 80 %.
        NORMAL = 1;
        /// 80 %.
        WARNING = 2;
        /// 90 %.
        URGENT = 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_2_6_header_has_16_bytes_in_the_given_order() {
        let header =
            Header { request_type: RequestType::DISCARD, reserved: 0x0a0b, sector: 0x0102_0304_0506_0708 };
        assert_eq!(header.encode(Little), [11, 0, 0, 0, 0xb, 0xa, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(header.encode(Big), [0, 0, 0, 11, 0, 0, 0xa, 0xb, 1, 2, 3, 4, 5, 6, 7, 8]);
        for order in [Little, Big] {
            assert_eq!(Header::decode(&header.encode(order), order), header);
        }
    }

    #[test]
    fn s5_2_6_segment_has_16_bytes_and_the_unmap_flag_last() {
        let segment = Segment { sector: 3, num_sectors: 4, flags: SEGMENT_UNMAP };
        assert_eq!(segment.encode(Little), [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(Segment::decode(&segment.encode(Big), Big), segment);
    }

    #[test]
    fn s5_2_6_lifetime_has_three_numbers() {
        let lifetime = Lifetime::decode(&[3, 0, 11, 0, 0x34, 0x12], Little);
        assert_eq!(lifetime.pre_eol_info, PreEolInfo::URGENT);
        assert_eq!((lifetime.device_lifetime_est_typ_a, lifetime.device_lifetime_est_typ_b), (11, 0x1234));
        assert_eq!(lifetime.encode(Little), [3, 0, 11, 0, 0x34, 0x12]);
    }

    #[test]
    fn s5_2_6_unknown_codes_survive() {
        let bytes = [0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        let header = Header::decode(&bytes, Little);
        assert_eq!(header.request_type, RequestType(0xdead_beef));
        assert_eq!(header.encode(Little), bytes);
        assert_eq!(Status(200).name(), None);
        assert_eq!(Status::ZONE_UNALIGNED_WP.name(), Some("ZONE_UNALIGNED_WP"));
    }
}
