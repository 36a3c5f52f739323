//! Bulk copies to, from and between memory that a device may change meanwhile.
//!
//! An ordinary copy of such memory is a data race: the compiler may read a byte twice and assume both reads
//! agree. Here it cannot see the accesses at all: an assembly block *calls* the C library's `memcpy`, which
//! costs what `memcpy` costs. Other architectures, the thread sanitizer, Miri and loom get relaxed atomics
//! instead, word by word.
//!
//! What the copies promise while somebody writes the memory: no undefined behaviour, and every byte that
//! arrives is one that stood there at some moment. They promise no order among bytes; the ring's index does
//! that (VIRTIO 1.4 §2.7.13).
#![expect(
    unsafe_code,
    reason = "shared memory is reached by raw pointer, and a copy has to call into assembly"
)]

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, tsan, miri))
))]
use opaque as imp;
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, tsan, miri))
)))]
use words as imp;

/// Copies of at most so many bytes go by atomics: a header, a status. A call costs more than they do.
const FEW: usize = 16;

/// Copies `dst.len()` bytes of shared memory from `src` on into private memory.
///
/// # Safety
/// `src` leads to `dst.len()` mapped, readable bytes that stay mapped during the call. Others may write them
/// meanwhile, as long as no reference to them exists and, within this process, only atomics, this module's
/// functions or system calls reach them.
#[inline]
pub unsafe fn copy_from_shared(dst: &mut [u8], src: *const u8) {
    if dst.len() <= FEW {
        // SAFETY: as below.
        return unsafe { words::read(dst.as_mut_ptr(), src, dst.len()) };
    }
    // SAFETY: `dst` is a live slice of that length; the caller vouches for `src`. They cannot overlap, since
    // no reference to shared memory exists.
    unsafe { imp::read(dst.as_mut_ptr(), src, dst.len()) }
}

/// Copies a private slice into shared memory from `dst` on.
///
/// # Safety
/// `dst` leads to `src.len()` mapped, writable bytes; for the rest see [`copy_from_shared`].
#[inline]
pub unsafe fn copy_to_shared(dst: *mut u8, src: &[u8]) {
    if src.len() <= FEW {
        // SAFETY: as below.
        return unsafe { words::write(dst, src.as_ptr(), src.len()) };
    }
    // SAFETY: `src` is a live slice of that length; the caller vouches for `dst`. They cannot overlap, since
    // no reference to shared memory exists.
    unsafe { imp::write(dst, src.as_ptr(), src.len()) }
}

/// Copies `len` bytes from shared memory to shared memory; the two may overlap.
///
/// # Safety
/// `src` leads to `len` mapped, readable bytes and `dst` to `len` mapped, writable ones; for the rest see
/// [`copy_from_shared`].
#[inline]
pub unsafe fn copy_shared(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller vouches for both ranges.
    unsafe { imp::copy(dst, src, len) }
}

/// Sets `len` bytes of shared memory from `dst` on to `value`.
///
/// # Safety
/// `dst` leads to `len` mapped, writable bytes; for the rest see [`copy_from_shared`].
#[inline]
pub unsafe fn fill_shared(dst: *mut u8, value: u8, len: usize) {
    // SAFETY: the caller vouches for the range.
    unsafe { imp::fill(dst, value, len) }
}

/// Calls into the C library from assembly, so that the compiler knows nothing about the accesses.
///
/// The blocks have no options: they may touch all memory, and without `nostack` the stack is aligned for a
/// call and no red zone is in use.
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    any(test, not(any(loom, tsan, miri)))
))]
mod opaque {
    use core::arch::asm;
    use core::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn memcpy(dst: *mut c_void, src: *const c_void, len: usize) -> *mut c_void;
        fn memmove(dst: *mut c_void, src: *const c_void, len: usize) -> *mut c_void;
        fn memset(dst: *mut c_void, value: c_int, len: usize) -> *mut c_void;
    }

    /// Calls the function at `$f` with three arguments in the registers of the platform's C ABI.
    macro_rules! call {
        ($f:expr, $a:expr, $b:expr, $c:expr) => {{
            #[cfg(target_arch = "x86_64")]
            asm!("call {f}", f = in(reg) $f, inout("rdi") $a => _, inout("rsi") $b => _,
                inout("rdx") $c => _, clobber_abi("C"));
            #[cfg(target_arch = "aarch64")]
            asm!("blr {f}", f = in(reg) $f, inout("x0") $a => _, inout("x1") $b => _,
                inout("x2") $c => _, clobber_abi("C"));
        }};
    }

    /// # Safety
    /// `src` leads to `len` readable bytes, `dst` to `len` writable ones, and they do not overlap.
    #[inline]
    pub(super) unsafe fn read(dst: *mut u8, src: *const u8, len: usize) {
        let f = memcpy as unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
        // SAFETY: memcpy's demands on its arguments are this function's, which the caller vouches for; it
        // keeps to the C ABI, whose registers are declared as clobbered.
        unsafe { call!(f, dst, src, len) }
    }

    /// # Safety
    /// As [`read`].
    #[inline]
    pub(super) unsafe fn write(dst: *mut u8, src: *const u8, len: usize) {
        // SAFETY: the same function with the same demands, vouched for by the caller.
        unsafe { read(dst, src, len) }
    }

    /// # Safety
    /// `src` leads to `len` readable bytes and `dst` to `len` writable ones.
    #[inline]
    pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
        let f = memmove as unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
        // SAFETY: as in `read`, and memmove allows an overlap.
        unsafe { call!(f, dst, src, len) }
    }

    /// # Safety
    /// `dst` leads to `len` writable bytes.
    #[inline]
    pub(super) unsafe fn fill(dst: *mut u8, value: u8, len: usize) {
        let f = memset as unsafe extern "C" fn(*mut c_void, c_int, usize) -> *mut c_void;
        // SAFETY: memset's demand on its arguments is this function's, which the caller vouches for.
        unsafe { call!(f, dst, c_int::from(value), len) }
    }
}

/// Relaxed atomics on the shared side, a word at a time where the address allows it.
///
/// Rust's documentation leaves overlapping atomic accesses of different sizes open when they race. Code
/// generation and hardware settle each byte by itself, and nothing here or above decides on such a byte.
#[allow(dead_code, reason = "where the C library copies, short copies alone go this way")]
mod words {
    use core::sync::atomic::Ordering::Relaxed;
    use core::sync::atomic::{AtomicU8, AtomicUsize};

    const WORD: usize = size_of::<usize>();
    /// Bytes that a copy within shared memory carries at a time.
    const BOUNCE: usize = 256;

    /// The word or byte at `p`, as an atomic.
    macro_rules! cell {
        ($atomic:ident, $p:expr) => {{
            let p = $p;
            // SAFETY: the caller of the function vouches that the range is mapped and reached by atomics
            // alone; words are only asked for at aligned addresses with a whole word left.
            unsafe { $atomic::from_ptr(p.cast()) }
        }};
    }

    /// `p` moved by `n` bytes.
    macro_rules! at {
        ($p:expr, $n:expr) => {{
            let (p, n) = ($p, $n);
            // SAFETY: `n` is at most the length of the range that the function's caller vouches for.
            unsafe { p.add(n) }
        }};
    }

    fn whole_word(shared: *const u8, done: usize, len: usize) -> bool {
        len - done >= WORD && shared.addr().wrapping_add(done).is_multiple_of(WORD)
    }

    /// # Safety
    /// `src` leads to `len` readable bytes of shared memory, `dst` to `len` writable private ones.
    #[inline]
    pub(super) unsafe fn read(dst: *mut u8, src: *const u8, len: usize) {
        let (shared, mut done) = (src.cast_mut(), 0);
        while done < len {
            let to = at!(dst, done);
            if whole_word(shared, done, len) {
                let word = cell!(AtomicUsize, at!(shared, done)).load(Relaxed);
                // SAFETY: a whole word is left in `dst`, which is private and writable.
                unsafe { to.cast::<usize>().write_unaligned(word) };
                done += WORD;
            } else {
                let byte = cell!(AtomicU8, at!(shared, done)).load(Relaxed);
                // SAFETY: a byte is left in `dst`, which is private and writable.
                unsafe { to.write(byte) };
                done += 1;
            }
        }
    }

    /// # Safety
    /// `dst` leads to `len` writable bytes of shared memory, `src` to `len` readable private ones.
    #[inline]
    pub(super) unsafe fn write(dst: *mut u8, src: *const u8, len: usize) {
        let mut done = 0;
        while done < len {
            let from = at!(src, done);
            if whole_word(dst, done, len) {
                // SAFETY: a whole word is left in `src`, which is private and readable.
                let word = unsafe { from.cast::<usize>().read_unaligned() };
                cell!(AtomicUsize, at!(dst, done)).store(word, Relaxed);
                done += WORD;
            } else {
                // SAFETY: a byte is left in `src`, which is private and readable.
                let byte = unsafe { from.read() };
                cell!(AtomicU8, at!(dst, done)).store(byte, Relaxed);
                done += 1;
            }
        }
    }

    /// # Safety
    /// `src` leads to `len` readable bytes and `dst` to `len` writable ones, both of shared memory.
    #[inline]
    pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
        let mut bounce = [0u8; BOUNCE];
        // Towards the higher address the last piece goes first, so that an overlap is read before it is
        // written.
        let backward = dst.addr() > src.addr();
        let mut done = 0;
        while done < len {
            let piece = BOUNCE.min(len - done);
            let start = if backward { len - done - piece } else { done };
            let (to, from) = (at!(dst, start), at!(src, start));
            // SAFETY: `start + piece` is at most `len`, and `bounce` holds at least `piece` bytes.
            unsafe { read(bounce.as_mut_ptr(), from, piece) };
            // SAFETY: as above.
            unsafe { write(to, bounce.as_ptr(), piece) };
            done += piece;
        }
    }

    /// # Safety
    /// `dst` leads to `len` writable bytes of shared memory.
    #[inline]
    pub(super) unsafe fn fill(dst: *mut u8, value: u8, len: usize) {
        let word = usize::from_ne_bytes([value; WORD]);
        let mut done = 0;
        while done < len {
            if whole_word(dst, done, len) {
                cell!(AtomicUsize, at!(dst, done)).store(word, Relaxed);
                done += WORD;
            } else {
                cell!(AtomicU8, at!(dst, done)).store(value, Relaxed);
                done += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/copy.rs"]
mod tests;
