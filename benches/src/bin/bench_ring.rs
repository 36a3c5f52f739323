//! Ours, the peers, the floor and a cache line's round trip, interleaved in one run.

use std::process::ExitCode;
use virtio::queue::RingConfig;
use virtio_benches::contender::{Bench, Contender, Mode};
use virtio_benches::cpu::{model, two_cores};
use virtio_benches::driver::Buffers;
use virtio_benches::floor::Floor;
use virtio_benches::heap::Counting;
use virtio_benches::ours::{Ours, Owned, Raw, hot_path_allocations, memory_beyond_the_ring};
use virtio_benches::peers::{VirtioDriver, VirtioDrivers};
use virtio_benches::ping_pong::round_trip;
use virtio_benches::report::{FLOOR, OURS, OURS_SAFE, Run, VIRTIO_DRIVER};

#[global_allocator]
static HEAP: Counting = Counting;

const QUEUE_SIZE: u16 = 256;
const SIZES: [u16; 9] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Chains of one figure: about a millisecond on one core, about ten on two.
const CHAINS: usize = 100_000;
const CHAINS_ACROSS: usize = 30_000;
const CHAINS_ACROSS_ALONE: usize = 8_000;

const ONE_THREAD: [Mode; 4] = [
    Mode::OneThread { parts: 1, batch: 1 },
    Mode::OneThread { parts: 1, batch: 32 },
    Mode::OneThread { parts: 3, batch: 1 },
    Mode::OneThread { parts: 3, batch: 32 },
];
const TWO_CORES: [Mode; 3] = [
    Mode::Across { parts: 3, batch: 1 },
    Mode::Across { parts: 3, batch: 32 },
    Mode::Stream { parts: 3, depth: 64 },
];

type Contenders = Vec<Box<dyn Contender>>;

/// Everybody who takes part, in the order of the tables. A new ring is one `RingDriver` and one line here.
fn contenders() -> Contenders {
    let buffers = Buffers::allocate;
    let driver = VirtioDriver::new(QUEUE_SIZE).expect("the null daemon answers");
    let shared = Buffers::allocate();
    let drivers = VirtioDrivers::new(shared, false).expect("a queue of 256");
    vec![
        Box::new(Bench::new(FLOOR, buffers(), Floor::<false>::new(QUEUE_SIZE))),
        Box::new(Bench::new("floor, indices once a batch", buffers(), Floor::<true>::new(QUEUE_SIZE))),
        Box::new(Bench::new(VIRTIO_DRIVER, buffers(), driver)),
        Box::new(Bench::new("virtio-drivers 0.13.0", shared, drivers)),
        Box::new(Bench::new(OURS, buffers(), ours(QUEUE_SIZE))),
        Box::new(Bench::new("virtio, shown once a batch", buffers(), whole_batches(QUEUE_SIZE))),
        Box::new(Bench::new(OURS_SAFE, buffers(), owned(QUEUE_SIZE))),
    ]
}

/// Those whose cost is taken for every queue size.
fn sized(size: u16) -> Contenders {
    vec![
        Box::new(Bench::new(FLOOR, Buffers::allocate(), Floor::<false>::new(size))),
        Box::new(Bench::new(OURS, Buffers::allocate(), ours(size))),
    ]
}

fn owned(size: u16) -> Ours<Owned> {
    let source = Owned::new().expect("memory for the buffers");
    Ours::new(&RingConfig::new(0, size), source).expect("a size that a split ring has")
}

fn ours(size: u16) -> Ours<Raw> {
    Ours::new(&RingConfig::new(0, size), Raw).expect("a size that a split ring has")
}

fn whole_batches(size: u16) -> Ours<Raw, false> {
    Ours::new(&RingConfig::new(0, size), Raw).expect("a size that a split ring has")
}

/// What is counted, not timed.
fn facts(run: &mut Run) {
    let bytes = memory_beyond_the_ring().expect("a queue of 256 with tables");
    run.record_fact("bytes beyond the ring, 256 requests of 3 parts in tables", bytes as f64, 65536.0);
    for (indirect, what) in [(false, "direct"), (true, "indirect")] {
        let count = hot_path_allocations(indirect).expect("a queue of 256");
        run.record_fact(&format!("allocations in 64,000 chains, {what}"), count as f64, 0.0);
    }
}

fn main() -> ExitCode {
    let (json, rounds) = match arguments() {
        Ok(asked) => asked,
        Err(complaint) => {
            eprintln!("{complaint}\nusage: bench_ring [--json] [--rounds N]");
            return ExitCode::from(2);
        }
    };
    let mut run = Run::default();
    facts(&mut run);
    let cores = two_cores();
    measure(&mut run, rounds, cores);
    let seats = match cores {
        Some((driver, device)) => format!("driver on core {driver}, device on core {device}"),
        None => "one core only: nothing across two".to_owned(),
    };
    let machine = format!("{}; {seats}; {rounds} rounds; queue of {QUEUE_SIZE}", model());
    let text = if json { run.json(&machine) + "\n" } else { run.text(&machine) };
    print!("{text}");
    ExitCode::SUCCESS
}

fn arguments() -> Result<(bool, usize), String> {
    let (mut json, mut rounds) = (false, 15);
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--rounds" => {
                let number = given.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                rounds = number.ok_or("--rounds wants a number above 0")?;
            }
            other => return Err(format!("{other}: unknown")),
        }
    }
    Ok((json, rounds))
}

fn measure(run: &mut Run, rounds: usize, cores: Option<(usize, usize)>) {
    let mut contenders = contenders();
    let mut sized: Vec<_> =
        SIZES.into_iter().flat_map(|size| sized(size).into_iter().map(move |c| (size, c))).collect();
    sized.sort_by(|(_, a), (_, b)| a.name().cmp(b.name()));
    let seats = cores.unwrap_or((0, 0));
    // Round 0 warms up and is not kept.
    for round in 0..=rounds {
        for mode in ONE_THREAD {
            for contender in &mut contenders {
                let figure = contender.run(mode, CHAINS, seats);
                if round > 0 {
                    run.record(contender.name(), mode, figure);
                }
            }
        }
        for (size, contender) in &mut sized {
            let figure = contender.run(Mode::OneThread { parts: 3, batch: 4 }, CHAINS, seats);
            if round > 0 {
                run.record_size(contender.name(), *size, figure);
            }
        }
        if let Some(cores) = cores {
            across(run, &mut contenders, cores, round > 0);
        }
    }
}

fn across(run: &mut Run, contenders: &mut Contenders, cores: (usize, usize), keep: bool) {
    for mode in TWO_CORES {
        let chains = match mode {
            Mode::Across { batch: 1, .. } => CHAINS_ACROSS_ALONE,
            _ => CHAINS_ACROSS,
        };
        let trip = round_trip(cores, CHAINS_ACROSS as u64);
        if keep {
            run.record_round_trip(mode, trip);
        }
        for contender in contenders.iter_mut() {
            let figure = contender.run(mode, chains, cores);
            if keep {
                run.record(contender.name(), mode, figure);
            }
        }
    }
}
