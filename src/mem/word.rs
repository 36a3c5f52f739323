//! Single words of shared memory, of any width at any aligned place.
//!
//! The cells of a ring have one width each for life ([`super::cell`]). Elsewhere a device end reads as a word
//! what was copied in as bytes, and Rust leaves open what atomics of two widths do when they race on the same
//! bytes. So these accesses, like the bulk copies, are hidden from the compiler in assembly; where there is
//! none, and for the thread sanitizer, they are atomics.
#![expect(unsafe_code, reason = "shared memory is reached by raw pointer, in assembly")]

#[cfg(all(
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, tsan, miri))
))]
use core::arch::asm;

/// A whole number of 1, 2, 4 or 8 bytes that one access moves, in the machine's byte order.
///
/// Sealed: implemented for `u8`, `u16`, `u32` and `u64`.
pub trait Word: Copy + sealed::Sealed {
    #[doc(hidden)]
    /// Loads with acquire order.
    ///
    /// # Safety
    /// `p` is aligned to the word and leads to mapped shared memory of its size.
    unsafe fn load_at(p: *const u8) -> Self;
    #[doc(hidden)]
    /// Stores with release order.
    ///
    /// # Safety
    /// As for `load_at`.
    unsafe fn store_at(p: *mut u8, value: Self);
}

mod sealed {
    pub trait Sealed {}
}

/// One implementation: the x86-64 register class, register modifier and operand size; on aarch64 the suffix of
/// the instructions and the register modifier; the atomic for all others.
macro_rules! word {
    ($int:ident, $class:ident $x86:literal $size:literal, $suffix:literal $arm:literal, $atomic:ident) => {
        impl sealed::Sealed for $int {}

        #[cfg(all(
            target_pointer_width = "64",
            any(target_arch = "x86_64", target_arch = "aarch64"),
            not(any(loom, tsan, miri))
        ))]
        impl Word for $int {
            #[inline(always)]
            unsafe fn load_at(p: *const u8) -> Self {
                let value: $int;
                // SAFETY: reads the word at `p`, which the caller vouches for. Every load of x86-64 acquires.
                #[cfg(target_arch = "x86_64")]
                unsafe {
                    asm!(concat!("mov {v", $x86, "}, ", $size, " ptr [{p}]"),
                        p = in(reg) p, v = lateout($class) value, options(nostack, preserves_flags));
                }
                // SAFETY: reads the word at `p`, which the caller vouches for.
                #[cfg(target_arch = "aarch64")]
                unsafe {
                    asm!(concat!("ldar", $suffix, " {v:", $arm, "}, [{p}]"),
                        p = in(reg) p, v = lateout(reg) value, options(nostack, preserves_flags));
                }
                value
            }

            #[inline(always)]
            unsafe fn store_at(p: *mut u8, value: Self) {
                // SAFETY: writes the word at `p`, which the caller vouches for. Every store of x86-64 releases.
                #[cfg(target_arch = "x86_64")]
                unsafe {
                    asm!(concat!("mov ", $size, " ptr [{p}], {v", $x86, "}"),
                        p = in(reg) p, v = in($class) value, options(nostack, preserves_flags));
                }
                // SAFETY: writes the word at `p`, which the caller vouches for.
                #[cfg(target_arch = "aarch64")]
                unsafe {
                    asm!(concat!("stlr", $suffix, " {v:", $arm, "}, [{p}]"),
                        p = in(reg) p, v = in(reg) value, options(nostack, preserves_flags));
                }
            }
        }

        #[cfg(not(all(
            target_pointer_width = "64",
            any(target_arch = "x86_64", target_arch = "aarch64"),
            not(any(loom, tsan, miri))
        )))]
        impl Word for $int {
            #[inline(always)]
            unsafe fn load_at(p: *const u8) -> Self {
                use core::sync::atomic::{$atomic, Ordering};
                // SAFETY: the caller vouches for alignment and size.
                unsafe { $atomic::from_ptr(p.cast_mut().cast()) }.load(Ordering::Acquire)
            }

            #[inline(always)]
            unsafe fn store_at(p: *mut u8, value: Self) {
                use core::sync::atomic::{$atomic, Ordering};
                // SAFETY: the caller vouches for alignment and size.
                unsafe { $atomic::from_ptr(p.cast()) }.store(value, Ordering::Release);
            }
        }
    };
}

word!(u8, reg_byte "" "byte", "b" "w", AtomicU8);
word!(u16, reg ":x" "word", "h" "w", AtomicU16);
word!(u32, reg ":e" "dword", "" "w", AtomicU32);
word!(u64, reg ":r" "qword", "" "x", AtomicU64);
