//! Macros by which the tables and the request layouts of the device types are written down.

use super::ByteOrder;

/// A number or byte array inside a structure that driver and device exchange.
pub(crate) trait Field: Copy {
    /// Length in bytes.
    const SIZE: usize;

    /// Puts the value at the start of `out` and gives back what follows it.
    fn store(self, order: ByteOrder, out: &mut [u8]) -> &mut [u8];

    /// Takes a value from the start of `bytes` and gives back what follows it.
    fn load(order: ByteOrder, bytes: &[u8]) -> (Self, &[u8]);
}

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;

    #[inline]
    fn store(self, _: ByteOrder, out: &mut [u8]) -> &mut [u8] {
        // The macros below size `out` from the fields themselves, so that it is never too short.
        match out.split_first_chunk_mut() {
            Some((head, tail)) => {
                *head = self;
                tail
            }
            None => &mut [],
        }
    }

    #[inline]
    fn load(_: ByteOrder, bytes: &[u8]) -> (Self, &[u8]) {
        match bytes.split_first_chunk() {
            Some((head, tail)) => (*head, tail),
            None => ([0; N], &[]),
        }
    }
}

/// Bytes without a meaning: zero when sent, not looked at when received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved<const N: usize>(pub [u8; N]);

impl<const N: usize> Default for Reserved<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Field for Reserved<N> {
    const SIZE: usize = N;

    #[inline]
    fn store(self, order: ByteOrder, out: &mut [u8]) -> &mut [u8] {
        self.0.store(order, out)
    }

    #[inline]
    fn load(order: ByteOrder, bytes: &[u8]) -> (Self, &[u8]) {
        let (bytes, rest) = Field::load(order, bytes);
        (Self(bytes), rest)
    }
}

impl Field for u8 {
    const SIZE: usize = 1;

    #[inline]
    fn store(self, order: ByteOrder, out: &mut [u8]) -> &mut [u8] {
        [self].store(order, out)
    }

    #[inline]
    fn load(order: ByteOrder, bytes: &[u8]) -> (Self, &[u8]) {
        let ([byte], rest) = <[u8; 1]>::load(order, bytes);
        (byte, rest)
    }
}

macro_rules! number_fields {
    ($($int:ident $to:ident $from:ident;)*) => {$(
        impl Field for $int {
            const SIZE: usize = size_of::<$int>();

            #[inline]
            fn store(self, order: ByteOrder, out: &mut [u8]) -> &mut [u8] {
                order.$to(self).store(order, out)
            }

            #[inline]
            fn load(order: ByteOrder, bytes: &[u8]) -> (Self, &[u8]) {
                let (number, rest) = Field::load(order, bytes);
                (order.$from(number), rest)
            }
        }
    )*};
}

number_fields! {
    u16 u16_to_bytes u16_from_bytes;
    u32 u32_to_bytes u32_from_bytes;
    u64 u64_to_bytes u64_from_bytes;
}

impl Field for i32 {
    const SIZE: usize = 4;

    #[inline]
    fn store(self, order: ByteOrder, out: &mut [u8]) -> &mut [u8] {
        self.cast_unsigned().store(order, out)
    }

    #[inline]
    fn load(order: ByteOrder, bytes: &[u8]) -> (Self, &[u8]) {
        let (number, rest) = u32::load(order, bytes);
        (number.cast_signed(), rest)
    }
}

/// A structure that driver and device exchange: its fields in order, without gaps, with `encode` and `decode`.
macro_rules! wire_struct {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $ty:ty,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $name {
            /// Length in bytes.
            pub const SIZE: usize = 0 $(+ <$ty as $crate::spec::wire::Field>::SIZE)*;

            /// The bytes that driver and device exchange; `order` is little-endian unless the device is a legacy one.
            #[inline]
            #[must_use]
            pub fn encode(&self, order: $crate::spec::ByteOrder) -> [u8; Self::SIZE] {
                let mut bytes = [0; Self::SIZE];
                let rest: &mut [u8] = &mut bytes;
                $(let rest = $crate::spec::wire::Field::store(self.$field, order, rest);)*
                let _ = rest;
                bytes
            }

            /// The values in the bytes that driver and device exchange. Every pattern of bytes has a meaning.
            #[inline]
            #[must_use]
            pub fn decode(bytes: &[u8; Self::SIZE], order: $crate::spec::ByteOrder) -> Self {
                let rest: &[u8] = bytes;
                $(let ($field, rest) = $crate::spec::wire::Field::load(order, rest);)*
                let _ = rest;
                Self { $($field),* }
            }
        }
    )*};
}

/// A number with names for some of its values; the others survive.
macro_rules! wire_code {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident($int:ident) {
            $($(#[$code_meta:meta])* $code:ident = $value:literal;)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$code_meta])* pub const $code: Self = Self($value);)*

            /// The name in the specification, without its prefix; `None` for a value it does not define.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($code)),)*
                    _ => None,
                }
            }
        }

        impl $crate::spec::wire::Field for $name {
            const SIZE: usize = <$int as $crate::spec::wire::Field>::SIZE;

            #[inline]
            fn store(self, order: $crate::spec::ByteOrder, out: &mut [u8]) -> &mut [u8] {
                $crate::spec::wire::Field::store(self.0, order, out)
            }

            #[inline]
            fn load(order: $crate::spec::ByteOrder, bytes: &[u8]) -> (Self, &[u8]) {
                let (code, rest) = $crate::spec::wire::Field::load(order, bytes);
                (Self(code), rest)
            }
        }
    )*};
}

/// The feature bits of a device type: a constant for each in `feature`, and the table `FEATURES`.
///
/// `requires [A, B]`: each of them; `any [A, B]`: at least one of them; `=> legacy`: of the legacy interface only.
macro_rules! feature_bits {
    ($section:literal $($(#[$meta:meta])* $name:ident = $bit:literal
        $(requires [$($all:ident),+])? $(any [$($any:ident),+])? $(=> $legacy:ident)?;)*) => {
        #[doc = concat!("Numbers of the feature bits (VIRTIO 1.4 §", $section, ").")]
        pub mod feature {
            $($(#[$meta])* pub const $name: u8 = $bit;)*
        }

        const FEATURES: &[$crate::spec::layout::FeatureBit] = &[
            $($crate::spec::layout::FeatureBit {
                bit: feature::$name,
                name: stringify!($name),
                requires: &[$($(feature::$all),+)?],
                requires_any: &[$($(feature::$any),+)?],
                legacy: $crate::spec::wire::flag!($($legacy)?),
            },)*
        ];
    };
}

/// The configuration space of a device type: an offset for each field in `config`, and the table `CONFIG`.
///
/// `when [A, B]`: valid if any of these features is; `=> writable`: by the driver. Padding is left out.
macro_rules! config_space {
    ($section:literal $($(#[$meta:meta])* $name:ident $spelt:literal @ $offset:literal: $int:ident $([$count:literal])?
        $(when [$($feature:ident),+])? $(=> $writable:ident)?;)*) => {
        #[doc = concat!("Offsets in the configuration space, in bytes (VIRTIO 1.4 §", $section, ").")]
        pub mod config {
            $($(#[$meta])* pub const $name: u16 = $offset;)*
        }

        const CONFIG: &[$crate::spec::layout::ConfigField] = &[
            $($crate::spec::layout::ConfigField {
                name: $spelt,
                offset: config::$name,
                width: size_of::<$int>() as u8,
                count: $crate::spec::wire::count!($($count)?),
                valid_if: &[$($(feature::$feature),+)?],
                writable: $crate::spec::wire::flag!($($writable)?),
            },)*
        ];
    };
}

/// Whether a marker word stands in a table row.
macro_rules! flag {
    () => {
        false
    };
    (legacy) => {
        true
    };
    (writable) => {
        true
    };
}

/// Number of elements of a configuration field.
macro_rules! count {
    () => {
        1
    };
    ($count:literal) => {
        $count
    };
}

pub(crate) use {config_space, count, feature_bits, flag, wire_code, wire_struct};
