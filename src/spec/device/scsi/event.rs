//! Events of the SCSI host (VIRTIO 1.4 §5.6.6.3).

use crate::spec::wire::{wire_code, wire_struct};

/// Bit of [`Event::event`]: events were lost for want of buffers (VIRTIO 1.4 §5.6.6.3).
pub const EVENTS_MISSED: u32 = 1 << 31;

wire_struct! {
    /// An event, written by the device (VIRTIO 1.4 §5.6.6.3).
    pub struct Event {
        /// Kind, with the bit [`EVENTS_MISSED`].
        event: EventType,
        /// Target and logical unit.
        lun: [u8; 8],
        /// Depends on the kind: for [`EventType::TRANSPORT_RESET`] a [`ResetReason`].
        reason: u32,
    }
}

wire_code! {
    /// Kind of an event (VIRTIO 1.4 §5.6.6.3).
    pub struct EventType(u32) {
        /// Nothing.
        NO_EVENT = 0;
        /// A logical unit was reset, came or went.
        TRANSPORT_RESET = 1;
        /// An asynchronous notification; the reason is the mask of them.
        ASYNC_NOTIFY = 2;
        /// Parameters changed; the reason has the sense code in its lowest byte and the qualifier above it.
        PARAM_CHANGE = 3;
    }

    /// Reason of [`EventType::TRANSPORT_RESET`] (VIRTIO 1.4 §5.6.6.3).
    pub struct ResetReason(u32) {
        /// The unit was reset and is still there.
        HARD = 0;
        /// A target or unit came.
        RESCAN = 1;
        /// A target or unit went.
        REMOVED = 2;
    }
}

impl EventType {
    /// The kind without the bit [`EVENTS_MISSED`].
    #[must_use]
    pub const fn kind(self) -> Self {
        Self(self.0 & !EVENTS_MISSED)
    }

    /// Whether events were lost.
    #[must_use]
    pub const fn missed(self) -> bool {
        self.0 & EVENTS_MISSED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_6_6_3_event_has_16_bytes_and_a_bit_for_lost_ones() {
        let bytes = [1, 0, 0, 0x80, 1, 7, 0x40, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        let event = Event::decode(&bytes, Little);
        assert!(event.event.missed());
        assert_eq!((event.event.kind(), event.lun[1]), (EventType::TRANSPORT_RESET, 7));
        assert_eq!(ResetReason(event.reason), ResetReason::REMOVED);
        assert_eq!(event.encode(Little), bytes);
        assert_eq!(Event::decode(&event.encode(Big), Big), event);
        assert!(!EventType::PARAM_CHANGE.missed());
    }
}
