//! What a ring holds in flight.
#![expect(
    unsafe_code,
    reason = "the trait promises memory that outlives the value, which no compiler can check"
)]

use core::num::NonZeroU32;

/// A piece of memory that the device may use while a ring holds the value.
///
/// # Safety
/// For implementors: the device addresses `device_addr()..device_addr() + len()` lead, for this ring's device,
/// to memory that nobody frees, unmaps or gives to another purpose before the value is dropped (a value that
/// is forgotten keeps its memory for ever), and both answers stay the same for the life of the value.
///
/// For callers: the memory may be written by the device while the value is in flight; no reference to it may
/// be made.
pub unsafe trait Lease {
    /// Address of the first byte as the device knows it.
    fn device_addr(&self) -> u64;
    /// Length in bytes.
    fn len(&self) -> u32;
    /// Whether it has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Number of the memory space that the address belongs to (`DmaSpace::id`), where the value knows one: it is
    /// another device's if that differs.
    fn space(&self) -> Option<u64> {
        None
    }
}

/// A raw range of device memory: for drivers that manage memory themselves (kernels, benchmarks).
///
/// Twelve bytes, aligned to four: with a link a place of the in-flight table has the sixteen of a descriptor, so that
/// one index finds both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct RawRange {
    addr: u64,
    /// The length's complement: never 0, so that an empty place of the in-flight table needs no flag.
    not_len: NonZeroU32,
}

impl RawRange {
    /// A range by device address and length in bytes. A length of 2^32 − 1 is taken as 0, and refused as such by
    /// a chain, which has room for less.
    ///
    /// # Safety
    /// The caller keeps the memory behind the range alive, and unused for anything that a device's write could
    /// harm, from the moment the range is given to a ring until the ring gives it back or the device was reset.
    pub const unsafe fn new(addr: u64, len: u32) -> Self {
        let not_len = match NonZeroU32::new(!len) {
            Some(not_len) => not_len,
            None => NonZeroU32::MAX,
        };
        Self { addr, not_len }
    }
}

// SAFETY: both fields are immutable; that the memory stays is the promise made at `RawRange::new`.
unsafe impl Lease for RawRange {
    #[inline(always)]
    fn device_addr(&self) -> u64 {
        self.addr
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        !self.not_len.get()
    }
}

/// Proof that the device has stopped: it was reset and the reset was confirmed, its mappings are gone, or the
/// process behind it is dead. Whoever holds one may take back what the device had.
///
/// A queue reset, a closed socket or a time-out is no proof.
#[derive(Debug)]
pub struct DeviceStopped(());

impl DeviceStopped {
    /// For drivers that bring their own device handling.
    ///
    /// # Safety
    /// From now on the device writes no memory that it was given before.
    pub const unsafe fn assume() -> Self {
        Self(())
    }
}
