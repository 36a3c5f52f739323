//! File system device (VIRTIO 1.4 §5.11).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

pub mod request;

/// Feature bits and configuration space of the file system device (VIRTIO 1.4 §5.11.3, §5.11.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::FILE_SYSTEM, features: FEATURES, config: CONFIG };

feature_bits! { "5.11.3"
    /// Notify messages of FUSE; the notification queue exists and `notify_buf_size` is valid.
    NOTIFICATION = 0;
}

config_space! { "5.11.4"
    /// Name of the file system in UTF-8, padded with NUL; perhaps without any NUL.
    TAG "tag" @ 0: u8[36];
    /// Number of request queues.
    NUM_REQUEST_QUEUES "num_request_queues" @ 36: u32;
    /// Smallest buffer of the notification queue in bytes.
    NOTIFY_BUF_SIZE "notify_buf_size" @ 40: u32 when [NOTIFICATION];
}

/// Id of the shared memory region that is the DAX window, if there is one (VIRTIO 1.4 §5.11.6.4).
pub const DAX_WINDOW: u8 = 0;

/// Queues of the file system device (VIRTIO 1.4 §5.11.2).
pub mod queue {
    /// Queue of interrupts and forgets.
    pub const HIPRIO: u16 = 0;
    /// Notification queue; only with NOTIFICATION.
    pub const NOTIFICATION: u16 = 1;

    /// First request queue.
    ///
    /// The section numbers it 2 and says that queue 1 exists only with NOTIFICATION; devices without that feature
    /// leave no gap.
    #[must_use]
    pub const fn first_request(notification: bool) -> u16 {
        if notification { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::queue;

    #[test]
    fn s5_11_2_request_queues_follow_the_notification_queue_if_there_is_one() {
        assert_eq!(queue::first_request(false), queue::NOTIFICATION);
        assert_eq!(queue::first_request(true), 2);
    }
}
