//! Commands in the request queues of the SCSI host (VIRTIO 1.4 §5.6.6.1).
//!
//! Device-readable: a [`Header`], the CDB of `cdb_size` bytes, the outgoing data. Device-writable: a [`Response`],
//! sense data of `sense_size` bytes, the incoming data.
//!
//! With T10_PI a [`ProtectionLengths`] and the protection information precede the data. The section puts the lengths
//! after the CDB; devices and drivers in use put them before it.

use crate::spec::wire::{wire_code, wire_struct};

wire_struct! {
    /// Start of a command; the CDB follows (VIRTIO 1.4 §5.6.6.1).
    pub struct Header {
        /// Target and logical unit, see [`lun`].
        lun: [u8; 8],
        /// Number that names the command in task management.
        id: u64,
        /// Task attribute.
        task_attr: TaskAttribute,
        /// Priority.
        prio: u8,
        /// Command reference number.
        crn: u8,
    }

    /// Lengths of the protection information; only with T10_PI (VIRTIO 1.4 §5.6.6.1).
    pub struct ProtectionLengths {
        /// Bytes before the outgoing data.
        pi_bytesout: u32,
        /// Bytes before the incoming data.
        pi_bytesin: u32,
    }

    /// Answer to a command; sense data follow (VIRTIO 1.4 §5.6.6.1).
    pub struct Response {
        /// Bytes of sense data that were written.
        sense_len: u32,
        /// Bytes that were not transferred.
        residual: u32,
        /// Status qualifier of SAM.
        status_qualifier: u16,
        /// Status of SAM.
        status: u8,
        /// Outcome of the request.
        response: ResponseCode,
    }
}

wire_code! {
    /// Outcome of a command, of task management or of an asynchronous notification request
    /// (VIRTIO 1.4 §5.6.6.1, §5.6.6.2).
    pub struct ResponseCode(u8) {
        /// Done, and the status is filled in; of task management: done (`FUNCTION_COMPLETE`).
        OK = 0;
        /// More data than there is room for.
        OVERRUN = 1;
        /// Aborted by task management.
        ABORTED = 2;
        /// No such target.
        BAD_TARGET = 3;
        /// Cancelled by a reset.
        RESET = 4;
        /// Failed; the same path may work later.
        BUSY = 5;
        /// Connection to the target lost.
        TRANSPORT_FAILURE = 6;
        /// The target fails on every path.
        TARGET_FAILURE = 7;
        /// Failed; another path may work.
        NEXUS_FAILURE = 8;
        /// Another error.
        FAILURE = 9;
        /// Task management: succeeded.
        FUNCTION_SUCCEEDED = 10;
        /// Task management: rejected.
        FUNCTION_REJECTED = 11;
        /// No such logical unit.
        INCORRECT_LUN = 12;
    }

    /// Task attribute of a command (VIRTIO 1.4 §5.6.6.1).
    pub struct TaskAttribute(u8) {
        /// Simple.
        SIMPLE = 0;
        /// Ordered.
        ORDERED = 1;
        /// Head of queue.
        HEAD = 2;
        /// Auto contingent allegiance.
        ACA = 3;
    }
}

/// Address of the logical unit that lists the others (VIRTIO 1.4 §5.6.6.1).
pub const REPORT_LUNS: [u8; 8] = [0xc1, 1, 0, 0, 0, 0, 0, 0];

/// Address of a logical unit of a target; `None` beyond the 16384 units there can be (VIRTIO 1.4 §5.6.6.1).
#[must_use]
pub const fn lun(target: u8, unit: u16) -> Option<[u8; 8]> {
    if unit >= 0x4000 {
        return None;
    }
    // A single level structure of SAM: flat addressing is 0b01 in the upper bits.
    let [high, low] = (0x4000 | unit).to_be_bytes();
    Some([1, target, high, low, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_6_6_1_command_has_19_bytes_before_the_cdb() {
        let command =
            Header { lun: REPORT_LUNS, id: 0x0102, task_attr: TaskAttribute::HEAD, prio: 3, crn: 4 };
        let expected = [0xc1, 1, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 2, 3, 4];
        assert_eq!(command.encode(Little), expected);
        assert_eq!(Header::decode(&command.encode(Big), Big), command);
        let lengths = ProtectionLengths { pi_bytesout: 1, pi_bytesin: 2 };
        assert_eq!(lengths.encode(Little), [1, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn s5_6_6_1_response_has_12_bytes_before_the_sense_data() {
        let bytes = [18, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0xee];
        let response = Response::decode(&bytes, Little);
        assert_eq!((response.sense_len, response.residual, response.status), (18, 512, 2));
        assert_eq!((response.response, response.response.name()), (ResponseCode(0xee), None));
        assert_eq!(response.encode(Little), bytes);
        assert_eq!(Response::decode(&response.encode(Big), Big), response);
    }

    #[test]
    fn s5_6_6_1_lun_holds_target_and_unit() {
        assert_eq!(lun(7, 0x0123), Some([1, 7, 0x41, 0x23, 0, 0, 0, 0]));
        assert_eq!(lun(0, 0x3fff), Some([1, 0, 0x7f, 0xff, 0, 0, 0, 0]));
        assert_eq!(lun(0, 0x4000), None);
    }
}
