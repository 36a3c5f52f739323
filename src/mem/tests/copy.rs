//! The two ways of copying agree with the ordinary copy, and with each other.

use alloc::vec;
use alloc::vec::Vec;

use super::words;

type Move = unsafe fn(*mut u8, *const u8, usize);
type Fill = unsafe fn(*mut u8, u8, usize);

const MOVES: &[(&str, Move, Move, Move, Fill)] = &[
    #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    ("opaque", super::opaque::read, super::opaque::write, super::opaque::copy, super::opaque::fill),
    ("words", words::read, words::write, words::copy, words::fill),
];

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8).collect()
}

/// Copies between offsets in canary-filled buffers; everything outside the range must stay.
fn check_move(name: &str, f: Move, from: usize, to: usize, len: usize) {
    let source = pattern(from + len + 16);
    let mut target = vec![0xEEu8; to + len + 16];
    let mut expected = target.clone();
    expected[to..to + len].copy_from_slice(&source[from..from + len]);
    // SAFETY: both ranges lie in live vectors of this test, which nobody else reaches.
    unsafe { f(target.as_mut_ptr().wrapping_add(to), source.as_ptr().wrapping_add(from), len) };
    assert!(target == expected, "{name}: {len} bytes from +{from} to +{to}");
}

#[test]
fn every_small_length_and_offset_copies_exactly_its_bytes() {
    for (name, read, write, copy, _) in MOVES.iter().copied() {
        for len in 0..=80 {
            for offset in 0..=80 {
                check_move(name, read, offset, 3, len);
                check_move(name, write, 5, offset, len);
                check_move(name, copy, offset, offset / 2 + 1, len);
            }
        }
    }
}

#[test]
fn large_copies_are_exact_at_any_alignment() {
    for (name, read, write, copy, _) in MOVES.iter().copied() {
        for len in [255, 256, 257, 511, 4096, 65_536, 1 << 20, (1 << 20) + 13] {
            for (from, to) in [(0, 0), (1, 0), (0, 7), (3, 5), (64, 32)] {
                check_move(name, read, from, to, len);
                check_move(name, write, from, to, len);
                check_move(name, copy, from, to, len);
            }
        }
    }
}

#[test]
fn overlapping_copies_within_shared_memory_move_the_old_bytes() {
    for (name, _, _, copy, _) in MOVES.iter().copied() {
        for len in [1, 7, 8, 9, 80, 255, 256, 257, 700] {
            for (from, to) in [(0, 1), (1, 0), (0, 8), (8, 0), (0, 255), (256, 3), (0, 300), (5, 5)] {
                let mut memory = pattern(1100);
                let mut expected = memory.clone();
                expected.copy_within(from..from + len, to);
                let base = memory.as_mut_ptr();
                // SAFETY: both ranges lie in the one live vector of this test.
                unsafe { copy(base.wrapping_add(to), base.wrapping_add(from), len) };
                assert!(memory == expected, "{name}: {len} bytes from +{from} to +{to}");
            }
        }
    }
}

#[test]
fn fill_sets_exactly_its_bytes() {
    for (name, _, _, _, fill) in MOVES.iter().copied() {
        for len in (0..=80).chain([4096, 70_001]) {
            for offset in 0..=16 {
                let mut memory = vec![0x11u8; offset + len + 16];
                let mut expected = memory.clone();
                expected[offset..offset + len].fill(0xA7);
                // SAFETY: the range lies in the live vector of this test.
                unsafe { fill(memory.as_mut_ptr().wrapping_add(offset), 0xA7, len) };
                assert!(memory == expected, "{name}: {len} bytes at +{offset}");
            }
        }
    }
}
