//! The device status field (VIRTIO 1.4 §2.1).

use core::fmt;

bitflags::bitflags! {
    /// Device status (VIRTIO 1.4 §2.1). Bits that the specification does not name survive.
    ///
    /// ```
    /// use virtio::spec::Status;
    ///
    /// let status = Status::ACKNOWLEDGE | Status::DRIVER;
    /// assert_eq!(status.to_string(), "ACKNOWLEDGE|DRIVER");
    /// assert_eq!(Status::from_bits_retain(0x21).to_string(), "ACKNOWLEDGE|0x20");
    /// assert_eq!(Status::empty().to_string(), "0");
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
    pub struct Status: u8 {
        /// The driver has found the device and taken it for a VirtIO device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive the device.
        const DRIVER = 2;
        /// The driver is set up: the device may use its queues.
        const DRIVER_OK = 4;
        /// The driver has accepted its features; reads back as set only if the device agrees.
        const FEATURES_OK = 8;
        /// The driver has suspended the device; needs the feature SUSPEND.
        const SUSPEND = 16;
        /// The device is in an error state that only a reset ends.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up on the device.
        const FAILED = 128;

        // Every bit counts as known, so that no operation of the flags type drops one.
        const _ = !0;
    }
}

impl fmt::Display for Status {
    /// The names of the bits that are set, lowest first, joined by `|`; unnamed bits together as one
    /// hexadecimal number; `0` where no bit is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("0");
        }
        let mut names = self.iter_names();
        let mut separator = "";
        for (name, _) in names.by_ref() {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        match names.remaining() {
            rest if rest.is_empty() => Ok(()),
            rest => write!(f, "{separator}{:#04x}", rest.bits()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_status_byte_survives_every_operation() {
        for bits in 0..=u8::MAX {
            let status = Status::from_bits_retain(bits);
            assert_eq!(status.bits(), bits);
            assert_eq!(Status::from_bits(bits), Some(status));
            assert_eq!(Status::from_bits_truncate(bits), status);
            assert_eq!((!status).bits(), !bits);
            assert_eq!((status | Status::FAILED).bits(), bits | 128);
            assert_eq!((status - Status::FAILED).bits(), bits & !128);
        }
    }

    #[test]
    fn every_status_byte_prints_all_its_bits() {
        for bits in 0..=u8::MAX {
            let text = Status::from_bits_retain(bits).to_string();
            let read = text.split('|').fold(0_u8, |sum, word| {
                let named = Status::from_name(word).map(|named| named.bits());
                let bits = named.unwrap_or_else(|| match word.strip_prefix("0x") {
                    Some(digits) => u8::from_str_radix(digits, 16).expect("hexadecimal"),
                    None => word.parse().expect("0"),
                });
                assert_eq!(sum & bits, 0, "{text} names a bit twice");
                sum | bits
            });
            assert_eq!(read, bits, "{text}");
        }
    }

    #[test]
    fn status_prints_names_lowest_first_then_the_rest() {
        assert_eq!(
            Status::from_bits_retain(0xff).to_string(),
            "ACKNOWLEDGE|DRIVER|DRIVER_OK|FEATURES_OK|SUSPEND|DEVICE_NEEDS_RESET|FAILED|0x20"
        );
        assert_eq!(Status::from_bits_retain(0x20).to_string(), "0x20");
    }
}
