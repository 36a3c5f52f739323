//! Bulk copies of device memory against the ordinary copy: `virtio::mem::copy` may cost at most 1.3 times
//! `ptr::copy_nonoverlapping` from 64 B to 64 KiB. Fails (exit code 1) where it costs more.
//!
//! Both sides copy between the same two hot buffers, in interleaved rounds; the lower quartile counts.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use virtio::mem::copy;
use virtio::mem::region::DmaRegion;

const SIZES: [usize; 7] = [64, 128, 512, 1024, 4096, 16_384, 65_536];
const ROUNDS: usize = 41;
const LIMIT: f64 = 1.3;

/// Nanoseconds of one call of `f`, over about 64 MiB or a million calls.
fn time(size: usize, mut f: impl FnMut()) -> f64 {
    let calls = ((16 << 20) / size).clamp(200, 200_000);
    let start = Instant::now();
    for _ in 0..calls {
        f();
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn lower_quartile(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 4]
}

/// What one size costs: the ordinary copy, then from, to and within shared memory, then both fills.
fn measure(size: usize, shared: *mut u8, private: &mut [u8]) -> [f64; 6] {
    let mut times: [Vec<f64>; 6] = Default::default();
    let other = shared.wrapping_add(1 << 20);
    for _ in 0..ROUNDS {
        let ordinary = time(size, || {
            // SAFETY: the region has 2 MiB and nobody else uses it; the slice is at least `size` long.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    black_box(shared),
                    black_box(private.as_mut_ptr()),
                    black_box(size),
                )
            };
        });
        let from = time(size, || {
            // SAFETY: as above.
            unsafe { copy::copy_from_shared(black_box(&mut private[..size]), black_box(shared)) };
        });
        let to = time(size, || {
            // SAFETY: as above.
            unsafe { copy::copy_to_shared(black_box(shared), black_box(&private[..size])) };
        });
        let within = time(size, || {
            // SAFETY: as above; `other` is the region's second half.
            unsafe { copy::copy_shared(black_box(other), black_box(shared), black_box(size)) };
        });
        let set = time(size, || {
            // SAFETY: as above.
            unsafe { core::ptr::write_bytes(black_box(shared), black_box(1), black_box(size)) };
        });
        let fill = time(size, || {
            // SAFETY: as above.
            unsafe { copy::fill_shared(black_box(shared), black_box(1), black_box(size)) };
        });
        for (times, new) in times.iter_mut().zip([ordinary, from, to, within, set, fill]) {
            times.push(new);
        }
    }
    times.map(lower_quartile)
}

fn main() -> ExitCode {
    let region = DmaRegion::new(2 << 20).expect("2 MiB of shared memory");
    region.fill(0, 2 << 20, 1).expect("in range");
    let mut private = vec![1u8; 65_536];
    println!(
        "{:>7} {:>9} {:>14} {:>14} {:>14} {:>9} {:>14}",
        "bytes", "memcpy", "from", "to", "within", "memset", "fill"
    );
    let mut good = true;
    for size in SIZES {
        let [base, from, to, within, set, fill] = measure(size, region.as_ptr(), &mut private);
        let cell = |ns: f64, base: f64| format!("{ns:.1} ({:.2}x)", ns / base);
        let (a, b, c, d) = (cell(from, base), cell(to, base), cell(within, base), cell(fill, set));
        println!("{size:>7} {base:>6.1} ns {a:>14} {b:>14} {c:>14} {set:>6.1} ns {d:>14}");
        good &= from <= LIMIT * base && to <= LIMIT * base;
    }
    if good {
        println!("copies from and to device memory are within {LIMIT} x memcpy");
        return ExitCode::SUCCESS;
    }
    println!("FAILED: a copy costs more than {LIMIT} x memcpy");
    ExitCode::FAILURE
}
