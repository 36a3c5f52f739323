//! Control messages of a console with several ports (VIRTIO 1.4 §5.3.6.2).

use crate::spec::wire::{wire_code, wire_struct};

wire_struct! {
    /// Control message (VIRTIO 1.4 §5.3.6.2). A size or a name may follow it in the same buffer.
    pub struct Control {
        /// Port number; unused in [`Event::DEVICE_READY`].
        id: u32,
        /// Kind of message.
        event: Event,
        /// Depends on the kind.
        value: u16,
    }

    /// What follows [`Event::RESIZE`] (VIRTIO 1.4 §5.3.6.2).
    pub struct Resize {
        /// Width in characters.
        cols: u16,
        /// Height in characters.
        rows: u16,
    }
}

wire_code! {
    /// Kind of a control message (VIRTIO 1.4 §5.3.6.2).
    pub struct Event(u16) {
        /// Driver: ready for control messages; value 1 is success, 0 failure.
        DEVICE_READY = 0;
        /// Device: a new port.
        DEVICE_ADD = 1;
        /// Device: a port is gone.
        DEVICE_REMOVE = 2;
        /// Driver: answers [`Self::DEVICE_ADD`]; value 1 is success, 0 failure.
        PORT_READY = 3;
        /// Device: the port is a console.
        CONSOLE_PORT = 4;
        /// Device: the size of a console changed; a [`Resize`] follows.
        RESIZE = 5;
        /// Both: value 1 is open, 0 closed.
        PORT_OPEN = 6;
        /// Device: a name in UTF-8 without NUL follows, up to the end of the buffer.
        PORT_NAME = 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::{Big, Little};

    #[test]
    fn s5_3_6_2_control_message_has_8_bytes_in_the_given_order() {
        let message = Control { id: 0x0102_0304, event: Event::PORT_NAME, value: 0x0506 };
        assert_eq!(message.encode(Little), [4, 3, 2, 1, 7, 0, 6, 5]);
        assert_eq!(message.encode(Big), [1, 2, 3, 4, 0, 7, 5, 6]);
        for order in [Little, Big] {
            assert_eq!(Control::decode(&message.encode(order), order), message);
        }
    }

    #[test]
    fn s5_3_6_2_resize_has_columns_first() {
        assert_eq!(Resize { cols: 80, rows: 25 }.encode(Little), [80, 0, 25, 0]);
    }

    #[test]
    fn s5_3_6_2_unknown_event_survives() {
        let message = Control::decode(&[0, 0, 0, 0, 0xff, 0xee, 0, 0], Little);
        assert_eq!(message.event, Event(0xeeff));
        assert_eq!(message.event.name(), None);
        assert_eq!(message.encode(Little), [0, 0, 0, 0, 0xff, 0xee, 0, 0]);
    }
}
