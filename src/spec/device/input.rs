//! Input device (VIRTIO 1.4 §5.8).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, wire_code, wire_struct};

/// Feature bits and configuration space of the input device (VIRTIO 1.4 §5.8.3, §5.8.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::INPUT, features: &[], config: CONFIG };

config_space! { "5.8.4"
    /// What to read, see [`Select`](super::Select).
    SELECT "select" @ 0: u8 => writable;
    /// Which one of it.
    SUBSEL "subsel" @ 1: u8 => writable;
    /// Length of the answer in bytes; 0: there is none.
    SIZE "size" @ 2: u8;
    /// The answer: text, bits, [`AbsInfo`](super::AbsInfo) or [`DevIds`](super::DevIds).
    U "u" @ 8: u8[128];
}

wire_code! {
    /// What the configuration space of an input device shows (VIRTIO 1.4 §5.8.4).
    pub struct Select(u8) {
        /// Nothing.
        UNSET = 0x00;
        /// Name as text.
        ID_NAME = 0x01;
        /// Serial number as text.
        ID_SERIAL = 0x02;
        /// Identity as [`DevIds`].
        ID_DEVIDS = 0x03;
        /// Properties as bits.
        PROP_BITS = 0x10;
        /// Codes of the event type `subsel` as bits.
        EV_BITS = 0x11;
        /// Axis `subsel` as [`AbsInfo`].
        ABS_INFO = 0x12;
    }
}

wire_struct! {
    /// An absolute axis (VIRTIO 1.4 §5.8.4).
    pub struct AbsInfo {
        /// Smallest value.
        min: u32,
        /// Largest value.
        max: u32,
        /// Fuzz.
        fuzz: u32,
        /// Flat range around the centre.
        flat: u32,
        /// Resolution.
        res: u32,
    }

    /// Identity of an input device (VIRTIO 1.4 §5.8.4).
    pub struct DevIds {
        /// Bus type.
        bustype: u16,
        /// Vendor.
        vendor: u16,
        /// Product.
        product: u16,
        /// Version.
        version: u16,
    }

    /// An event, in both queues (VIRTIO 1.4 §5.8.6).
    pub struct Event {
        /// Event type of evdev.
        event_type: u16,
        /// Event code of evdev.
        code: u16,
        /// Value.
        value: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteOrder::Little;

    #[test]
    fn s5_8_layouts_survive_a_round_trip() {
        let event = Event { event_type: 1, code: 30, value: 1 };
        assert_eq!(event.encode(Little), [1, 0, 30, 0, 1, 0, 0, 0]);
        assert_eq!(Event::decode(&event.encode(Little), Little), event);
        let axis = AbsInfo { min: 1, max: 2, fuzz: 3, flat: 4, res: 5 };
        assert_eq!(AbsInfo::SIZE, 20);
        assert_eq!(AbsInfo::decode(&axis.encode(Little), Little), axis);
        let ids = DevIds { bustype: 6, vendor: 0x627, product: 1, version: 2 };
        assert_eq!(ids.encode(Little), [6, 0, 0x27, 6, 1, 0, 2, 0]);
        assert_eq!(Select(0x13).name(), None);
    }
}
