//! The library's copies of shared memory beside memcpy, 64 B to 64 KiB, interleaved in one run.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;
use virtio::mem::copy::{copy_from_shared, copy_shared, copy_to_shared, fill_shared};
use virtio_benches::cpu::{model, pin, two_cores};
use virtio_benches::raw::leak_pages;
use virtio_benches::stats::lower_quartile;

const SIZES: [usize; 6] = [64, 256, 512, 4096, 16_384, 65_536];
/// Bytes that one figure moves: about a millisecond.
const BYTES: usize = 32 << 20;
const MAX_CALLS: usize = 200_000;
/// Must be within this factor of memcpy.
const LIMIT: f64 = 1.3;

/// Measures one of the copies between private and shared memory, in ns a call.
type Work = fn(&mut [u8], *mut u8) -> f64;

/// Name, the copy, and what it is held against: the C library's function in the same direction (an index into
/// this table), since the two areas' addresses can make one direction dearer than the other.
const WORKS: [(&str, Work, Option<usize>); 7] = [
    ("memcpy", |p, s| measure(plain_copy, p, s), None),
    ("memcpy, other way", |p, s| measure(plain_copy_back, p, s), None),
    ("memset", |p, s| measure(plain_fill, p, s), None),
    ("from shared", |p, s| measure(from_shared, p, s), Some(0)),
    ("to shared", |p, s| measure(to_shared, p, s), Some(1)),
    ("shared to shared", |p, s| measure(within_shared, p, s), Some(0)),
    ("fill shared", |p, s| measure(fill, p, s), Some(2)),
];

#[inline(always)]
fn plain_copy(private: &mut [u8], shared: *mut u8) {
    // SAFETY: `measure` passes two different areas of that many bytes each.
    unsafe { std::ptr::copy_nonoverlapping(shared.cast_const(), private.as_mut_ptr(), private.len()) }
}

#[inline(always)]
fn plain_copy_back(private: &mut [u8], shared: *mut u8) {
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(private.as_ptr(), shared, private.len()) }
}

#[inline(always)]
fn plain_fill(private: &mut [u8], _: *mut u8) {
    private.fill(black_box(7));
}

#[inline(always)]
fn from_shared(private: &mut [u8], shared: *mut u8) {
    // SAFETY: `measure` passes that many bytes of leaked memory to which there is no reference.
    unsafe { copy_from_shared(private, shared) }
}

#[inline(always)]
fn to_shared(private: &mut [u8], shared: *mut u8) {
    // SAFETY: as above.
    unsafe { copy_to_shared(shared, private) }
}

#[inline(always)]
fn within_shared(private: &mut [u8], shared: *mut u8) {
    // SAFETY: as above; the target is `private`'s own memory, which nobody else looks at meanwhile.
    unsafe { copy_shared(private.as_mut_ptr(), shared, private.len()) }
}

#[inline(always)]
fn fill(private: &mut [u8], shared: *mut u8) {
    // SAFETY: as above.
    unsafe { fill_shared(shared, black_box(7), private.len()) }
}

/// The copy is inlined into the loop, as into a caller's code: a function around it would cost one of them a
/// return and the other none.
#[inline(never)]
fn measure(work: impl Fn(&mut [u8], *mut u8), private: &mut [u8], shared: *mut u8) -> f64 {
    let calls = (BYTES / private.len()).min(MAX_CALLS);
    let start = Instant::now();
    for _ in 0..calls {
        work(black_box(&mut *private), black_box(shared));
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// Lower quartiles in ns: by size, then by work.
fn run(rounds: usize) -> Vec<[f64; WORKS.len()]> {
    let largest = SIZES[SIZES.len() - 1];
    let private = leak_pages(largest);
    // Half a page on: two areas at the same offset in their pages would look alike to the processor.
    let shared = leak_pages(largest + 4096)[2048..].as_mut_ptr();
    let mut figures = vec![vec![Vec::with_capacity(rounds); WORKS.len()]; SIZES.len()];
    // Round 0 warms up and is not kept.
    for round in 0..=rounds {
        for (of_size, size) in figures.iter_mut().zip(SIZES) {
            for (series, (_, work, _)) in of_size.iter_mut().zip(WORKS) {
                let figure = work(&mut private[..size], shared);
                if round > 0 {
                    series.push(figure);
                }
            }
        }
    }
    let quartiles = |of_size: &Vec<Vec<f64>>| std::array::from_fn(|at| lower_quartile(&of_size[at]));
    figures.iter().map(quartiles).collect()
}

fn main() -> ExitCode {
    let mut rounds = 15;
    let given: Vec<String> = std::env::args().skip(1).collect();
    match given.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--rounds", number] if number.parse().is_ok_and(|n: usize| n > 0) => {
            rounds = number.parse().unwrap_or(rounds);
        }
        _ => {
            eprintln!("usage: bench_copy [--rounds N]");
            return ExitCode::from(2);
        }
    }
    if let Some((core, _)) = two_cores() {
        pin(core);
    }
    println!("{}; {rounds} rounds; hot; ns, lower quartile; in brackets x memcpy or memset", model());
    print!("{:>8}", "bytes");
    WORKS.iter().for_each(|(name, ..)| print!("{name:>20}"));
    println!();
    let mut worst = 0f64;
    for (size, figures) in SIZES.into_iter().zip(run(rounds)) {
        print!("{size:>8}");
        for (ns, (.., against)) in figures.into_iter().zip(WORKS) {
            let Some(unit) = against else {
                print!("{:>20}", format!("{ns:.1}"));
                continue;
            };
            let ratio = ns / figures[unit];
            worst = worst.max(ratio);
            print!("{:>20}", format!("{ns:.1} ({ratio:.2})"));
        }
        println!();
    }
    let verdict = if worst <= LIMIT { "reached" } else { "MISSED" };
    println!("worst {worst:.2}, must be within {LIMIT}: {verdict}");
    ExitCode::SUCCESS
}
