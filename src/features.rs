//! Sets of feature bits, and their negotiation (VIRTIO 1.4 §2.2).

use core::fmt;
use core::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, Sub, SubAssign};

use crate::spec::DeviceType;
use crate::spec::feature;

mod negotiation;

pub use negotiation::{Answer, Negotiated, Negotiation, Origin, Outcome, Reason};

/// A set of the 128 feature bits that VIRTIO 1.4 allots; bit *n* of the number is feature bit *n*.
///
/// Bits without a meaning survive. The constants are the bits of VIRTIO 1.4 §6; those of the device types
/// are numbers in the modules `feature` of [`crate::spec::device`], from which [`Features::from_bit`] makes a
/// set. What such a bit means depends on the device type: see [`Features::names`].
///
/// ```
/// use virtio::features::Features;
/// use virtio::spec::{DeviceType, device::block};
///
/// let features = Features::VERSION_1 | Features::from_bit(block::feature::RO);
/// assert!(features.contains(Features::VERSION_1));
/// assert_eq!(features.names(DeviceType::BLOCK).to_string(), "RO|VERSION_1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u128);

macro_rules! reserved {
    ($($name:ident)*) => {
        $(#[doc = concat!("[`", stringify!($name), "`](feature::", stringify!($name), ") alone.")]
        pub const $name: Self = Self::from_bit(feature::$name);)*
    };
}

impl Features {
    reserved! {
        NOTIFY_ON_EMPTY ANY_LAYOUT INDIRECT_DESC EVENT_IDX VERSION_1 ACCESS_PLATFORM RING_PACKED IN_ORDER
        ORDER_PLATFORM SR_IOV NOTIFICATION_DATA NOTIF_CONFIG_DATA RING_RESET ADMIN_VQ SUSPEND
    }

    /// No bit.
    pub const EMPTY: Self = Self(0);

    /// The bits that the legacy interface reaches: 0 to 31 (VIRTIO 1.4 §4.1.4.10).
    pub const LEGACY_MASK: Self = Self(0xffff_ffff);

    /// One bit, for constants and for numbers out of this crate's tables.
    ///
    /// # Panics
    /// Where `bit` is above 127, which in a constant is an error of the compiler. For numbers from elsewhere
    /// there is [`Features::try_from_bit`].
    #[track_caller]
    pub const fn from_bit(bit: u8) -> Self {
        assert!(bit < feature::COUNT, "feature bits are numbered 0 to 127");
        Self(1 << bit)
    }

    /// One bit, or `None` where `bit` is above 127.
    pub const fn try_from_bit(bit: u8) -> Option<Self> {
        if bit < feature::COUNT { Some(Self(1 << bit)) } else { None }
    }

    /// The set from four words of 32 bits, bits 0 to 31 first, as the registers of a transport hold them.
    pub const fn from_words(words: [u32; 4]) -> Self {
        let [a, b, c, d] = words;
        Self(a as u128 | (b as u128) << 32 | (c as u128) << 64 | (d as u128) << 96)
    }

    /// The set as four words of 32 bits, bits 0 to 31 first.
    pub const fn words(self) -> [u32; 4] {
        let bits = self.0;
        [bits as u32, (bits >> 32) as u32, (bits >> 64) as u32, (bits >> 96) as u32]
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of bits in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the bit of this number is set; none above 127 is.
    pub const fn has(self, bit: u8) -> bool {
        match Self::try_from_bit(bit) {
            Some(one) => self.contains(one),
            None => false,
        }
    }

    /// Whether any bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of either set; also `|`.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of both sets; also `&`.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits of this set that are not in the other; also `-`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Sets every bit of `other`.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears every bit of `other`.
    pub const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// The numbers of the bits that are set, lowest first.
    pub const fn iter(self) -> Bits {
        Bits(self.0)
    }

    /// The names of the bits for a device of this type, lowest bit first, joined by `|`. A bit that has no
    /// name is written `bit 77`, and the empty set `none`.
    pub const fn names(self, device_type: DeviceType) -> Names {
        Names { features: self, device_type }
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        self.insert(other);
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.intersection(other)
    }
}

impl BitAndAssign for Features {
    fn bitand_assign(&mut self, other: Self) {
        *self = self.intersection(other);
    }
}

impl Sub for Features {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.difference(other)
    }
}

impl SubAssign for Features {
    fn sub_assign(&mut self, other: Self) {
        self.remove(other);
    }
}

impl FromIterator<Features> for Features {
    fn from_iter<I: IntoIterator<Item = Features>>(sets: I) -> Self {
        sets.into_iter().fold(Self::EMPTY, Self::union)
    }
}

impl IntoIterator for Features {
    type Item = u8;
    type IntoIter = Bits;

    fn into_iter(self) -> Bits {
        self.iter()
    }
}

/// The numbers of the bits of a set, lowest first. Made by [`Features::iter`].
#[derive(Debug, Clone)]
pub struct Bits(u128);

impl Iterator for Bits {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.0 == 0 {
            return None;
        }
        let lowest = self.0.trailing_zeros();
        // Clears the lowest bit that is set; there is one.
        self.0 &= self.0.wrapping_sub(1);
        u8::try_from(lowest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.count_ones() as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Bits {}

/// The names of a set for one device type. Made by [`Features::names`].
#[derive(Debug, Clone, Copy)]
pub struct Names {
    features: Features,
    device_type: DeviceType,
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.features.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for bit in self.features {
            write!(f, "{separator}{}", BitName(self.device_type, bit))?;
            separator = "|";
        }
        Ok(())
    }
}

/// The name of one bit, or `bit 77` where it has none.
struct BitName(DeviceType, u8);

impl fmt::Display for BitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match feature::lookup(self.0, self.1) {
            Some(known) => f.write_str(known.name),
            None => write!(f, "bit {}", self.1),
        }
    }
}

#[cfg(test)]
mod tests;
