//! Requests in the control queue of the SCSI host (VIRTIO 1.4 §5.6.6.2).

use super::request::ResponseCode;
use crate::spec::wire::{wire_code, wire_struct};

wire_struct! {
    /// Task management, the device-readable part; a [`ResponseCode`] is the device-writable part
    /// (VIRTIO 1.4 §5.6.6.2).
    pub struct TaskManagement {
        /// [`ControlType::TMF`].
        control_type: ControlType,
        /// What to do.
        subtype: TaskFunction,
        /// Target and logical unit.
        lun: [u8; 8],
        /// Number of the command it is about.
        id: u64,
    }

    /// Query of or subscription to asynchronous notifications, the device-readable part (VIRTIO 1.4 §5.6.6.2).
    pub struct AsyncNotification {
        /// [`ControlType::AN_QUERY`] or [`ControlType::AN_SUBSCRIBE`].
        control_type: ControlType,
        /// Target and logical unit.
        lun: [u8; 8],
        /// Mask of [`asynchronous`].
        event_requested: u32,
    }

    /// Answer to an [`AsyncNotification`] (VIRTIO 1.4 §5.6.6.2).
    pub struct AsyncNotificationResponse {
        /// Mask of [`asynchronous`].
        event_actual: u32,
        /// Outcome.
        response: ResponseCode,
    }
}

wire_code! {
    /// Type of a control request (VIRTIO 1.4 §5.6.6.2).
    pub struct ControlType(u32) {
        /// Task management.
        TMF = 0;
        /// Query of asynchronous notifications.
        AN_QUERY = 1;
        /// Subscription to asynchronous notifications.
        AN_SUBSCRIBE = 2;
    }

    /// Function of task management (VIRTIO 1.4 §5.6.6.2).
    pub struct TaskFunction(u32) {
        /// Abort a command.
        ABORT_TASK = 0;
        /// Abort the commands of this initiator.
        ABORT_TASK_SET = 1;
        /// Clear the auto contingent allegiance.
        CLEAR_ACA = 2;
        /// Abort every command of the unit.
        CLEAR_TASK_SET = 3;
        /// Reset the nexus.
        I_T_NEXUS_RESET = 4;
        /// Reset the unit.
        LOGICAL_UNIT_RESET = 5;
        /// Ask for a command.
        QUERY_TASK = 6;
        /// Ask for the commands of this initiator.
        QUERY_TASK_SET = 7;
    }
}

/// Bits of the asynchronous notifications (VIRTIO 1.4 §5.6.6.2).
pub mod asynchronous {
    /// Operational change.
    pub const OPERATIONAL_CHANGE: u32 = 2;
    /// Power management.
    pub const POWER_MGMT: u32 = 4;
    /// External request.
    pub const EXTERNAL_REQUEST: u32 = 8;
    /// Media change.
    pub const MEDIA_CHANGE: u32 = 16;
    /// Several hosts.
    pub const MULTI_HOST: u32 = 32;
    /// Device busy.
    pub const DEVICE_BUSY: u32 = 64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_6_6_2_task_management_has_24_bytes() {
        let request = TaskManagement {
            control_type: ControlType::TMF,
            subtype: TaskFunction::LOGICAL_UNIT_RESET,
            lun: [1, 2, 0x40, 3, 0, 0, 0, 0],
            id: 9,
        };
        let bytes = request.encode(Little);
        assert_eq!(bytes, [0, 0, 0, 0, 5, 0, 0, 0, 1, 2, 0x40, 3, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(TaskManagement::decode(&request.encode(Big), Big), request);
    }

    #[test]
    fn s5_6_6_2_asynchronous_notification_has_16_bytes_and_its_answer_5() {
        let request = AsyncNotification {
            control_type: ControlType::AN_SUBSCRIBE,
            lun: [1, 0, 0x40, 0, 0, 0, 0, 0],
            event_requested: asynchronous::MEDIA_CHANGE,
        };
        assert_eq!(request.encode(Little), [2, 0, 0, 0, 1, 0, 0x40, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
        assert_eq!(AsyncNotification::decode(&request.encode(Big), Big), request);
        let answer = AsyncNotificationResponse::decode(&[16, 0, 0, 0, 12], Little);
        assert_eq!(answer.response, ResponseCode::INCORRECT_LUN);
        assert_eq!(answer.encode(Big), [0, 0, 0, 16, 12]);
    }
}
