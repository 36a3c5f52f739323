//! Byte order of the fields that driver and device exchange (VIRTIO 1.4 §1.4).
//!
//! Everything is little-endian, except through the legacy interface: there the order is the guest's own
//! (VIRTIO 1.4 §2.5.3, §2.7.3 and the legacy notes of each device type).

/// The order in which the bytes of a number lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ByteOrder {
    /// Least significant byte first: every non-legacy device.
    #[default]
    Little,
    /// Most significant byte first: a legacy device of a big-endian guest.
    Big,
}

macro_rules! conversions {
    ($($int:ident, $len:literal, $to:ident, $from:ident, $swap:ident;)*) => {$(
        #[doc = concat!("Bytes of a `", stringify!($int), "` in this order.")]
        #[inline]
        #[must_use]
        pub const fn $to(self, value: $int) -> [u8; $len] {
            match self {
                Self::Little => value.to_le_bytes(),
                Self::Big => value.to_be_bytes(),
            }
        }

        #[doc = concat!("The `", stringify!($int), "` whose bytes lie in this order.")]
        #[inline]
        #[must_use]
        pub const fn $from(self, bytes: [u8; $len]) -> $int {
            match self {
                Self::Little => $int::from_le_bytes(bytes),
                Self::Big => $int::from_be_bytes(bytes),
            }
        }

        #[doc = concat!("Between a `", stringify!($int), "` and the same as it lies in memory in this order, ")]
        #[doc = "either way."]
        #[inline(always)]
        #[must_use]
        pub const fn $swap(self, value: $int) -> $int {
            match self {
                Self::Little => value.to_le(),
                Self::Big => value.to_be(),
            }
        }
    )*};
}

impl ByteOrder {
    /// The order of the machine that runs this code: that of a legacy device of its own.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    conversions! {
        u16, 2, u16_to_bytes, u16_from_bytes, u16;
        u32, 4, u32_to_bytes, u32_from_bytes, u32;
        u64, 8, u64_to_bytes, u64_from_bytes, u64;
    }
}

#[cfg(test)]
mod tests {
    use super::ByteOrder;

    #[test]
    fn orders_place_the_bytes_from_their_end() {
        assert_eq!(ByteOrder::Little.u16_to_bytes(0x0102), [2, 1]);
        assert_eq!(ByteOrder::Big.u16_to_bytes(0x0102), [1, 2]);
        assert_eq!(ByteOrder::Little.u32_to_bytes(0x0102_0304), [4, 3, 2, 1]);
        assert_eq!(ByteOrder::Big.u32_to_bytes(0x0102_0304), [1, 2, 3, 4]);
        assert_eq!(ByteOrder::Little.u64_to_bytes(1), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ByteOrder::Big.u64_to_bytes(1), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(ByteOrder::NATIVE.u32_to_bytes(7), 7u32.to_ne_bytes());
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            assert_eq!(order.u16_from_bytes(order.u16_to_bytes(0xfedc)), 0xfedc);
            assert_eq!(order.u32_from_bytes(order.u32_to_bytes(0xfedc_ba98)), 0xfedc_ba98);
            let long = 0xfedc_ba98_7654_3210;
            assert_eq!(order.u64_from_bytes(order.u64_to_bytes(long)), long);
        }
    }
}
