//! Byte order of what a device and a driver share: little-endian, but for legacy devices (VIRTIO 1.4 §2.5.3,
//! §2.7.3), which use the byte order of the machine that they belong to.

/// Order of the bytes of a number in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ByteOrder {
    /// Least significant byte first: every device that is not legacy.
    #[default]
    Little,
    /// Most significant byte first: legacy devices of big-endian machines.
    Big,
}

macro_rules! convert {
    ($($(#[$doc:meta])* $name:ident($t:ty);)*) => {
        impl ByteOrder {
            $(
                $(#[$doc])*
                #[inline(always)]
                pub const fn $name(self, value: $t) -> $t {
                    match self {
                        Self::Little => value.to_le(),
                        Self::Big => value.to_be(),
                    }
                }
            )*
        }
    };
}

convert! {
    /// Between a number and its bytes as they lie in memory, either way.
    u16(u16);
    /// Between a number and its bytes as they lie in memory, either way.
    u32(u32);
    /// Between a number and its bytes as they lie in memory, either way.
    u64(u64);
}
