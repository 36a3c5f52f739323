//! Block devices behind vhost-user: ours beside its peers, on the same devices, interleaved in one run.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::process::ExitCode;
use std::time::Duration;

use virtio_benches::cpu::{model, pin, two_cores};
use virtio_benches::vhost::measure::{Client, QUEUE, rate};
use virtio_benches::vhost::ours::{Batches, Calls, Driven, Piped, Submitted};
use virtio_benches::vhost::peer::VirtioDriver;
use virtio_benches::vhost::python::Worker;
use virtio_benches::vhost::rows::{On, Series, Who, json, series, text};
use virtio_benches::vhost::storage::{Scratch, null, qemu};

const USAGE: &str =
    "usage: bench_vhost_user [--json] [--quick] [--rounds N] [--only TEXT]... [--python PROGRAM]";

/// What was asked for.
struct Asked {
    json: bool,
    rounds: usize,
    /// For one figure.
    time: Duration,
    python: String,
    /// Only series with one of these in their names are measured, where there are any.
    only: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--null-device", path, core] => {
            let core = core.parse().map_err(Error::other);
            core.and_then(|core| virtio_benches::vhost::null::serve(path, core))
        }
        _ => match arguments_of(arguments) {
            Ok(asked) => run(&asked),
            Err(complaint) => {
                eprintln!("{complaint}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_vhost_user: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments_of(given: Vec<String>) -> std::result::Result<Asked, String> {
    let time = Duration::from_millis(200);
    let mut asked = Asked { json: false, rounds: 9, time, python: "python3".to_owned(), only: Vec::new() };
    let mut given = given.into_iter();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--json" => asked.json = true,
            "--quick" => (asked.rounds, asked.time) = (3, Duration::from_millis(60)),
            "--rounds" => {
                let number = given.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                asked.rounds = number.ok_or("--rounds wants a number above 0")?;
            }
            "--only" => asked.only.push(given.next().ok_or("--only wants a part of a client's name")?),
            "--python" => asked.python = given.next().ok_or("--python wants a program")?,
            other => return Err(format!("{other}: unknown")),
        }
    }
    Ok(asked)
}

fn run(asked: &Asked) -> Result<()> {
    let (driver, device) =
        two_cores().ok_or_else(|| Error::other("this benchmark wants two cores: driver and device spin"))?;
    let scratch = Scratch::new()?;
    let null_path = scratch.path("null.sock");
    let _null = null(&null_path, device)?;
    let qemu = qemu(&scratch, device)?;
    pin(driver);
    let mut series = series();
    series.retain(|s| asked.only.is_empty() || asked.only.iter().any(|part| s.label().contains(part)));
    for s in series.iter_mut().filter(|s| s.on == On::Qemu && qemu.is_none()) {
        s.missing = Some("there is no qemu-storage-daemon: install qemu-system-common".to_owned());
    }
    let mut workers = workers(&mut series, &asked.python, driver);
    // Round 0 warms up and is not kept.
    for round in 0..=asked.rounds {
        for s in series.iter_mut().filter(|s| s.missing.is_none()) {
            let nbd = matches!(s.who, Who::Python("nbd" | "nbd-aio"));
            let path = match s.on {
                On::Null => null_path.clone(),
                On::Qemu => scratch.path(if nbd { "nbd.sock" } else { "qemu.sock" }),
            };
            match figure(s, &path, asked.time, &mut workers) {
                Ok(rate) if round > 0 => s.rates.push(rate),
                Ok(_) => {}
                Err(error) => s.missing = Some(error.to_string()),
            }
        }
    }
    let (rounds, time) = (asked.rounds, asked.time.as_millis());
    let machine = format!(
        "{}; clients on core {driver}, devices on core {device}; {rounds} rounds of {time} ms; Rust queues of {QUEUE}",
        model()
    );
    println!("{}", if asked.json { json(&machine, &series) } else { text(&machine, &series) });
    Ok(())
}

type Workers = HashMap<&'static str, Worker>;

/// A process for each client in Python; those that lack something say what.
fn workers(series: &mut [Series], python: &str, core: usize) -> Workers {
    let mut workers = Workers::new();
    for s in series {
        let Who::Python(client) = s.who else { continue };
        if !workers.contains_key(client) {
            match Worker::start(python, client, core) {
                Ok(worker) => drop(workers.insert(client, worker)),
                Err(error) => s.missing = Some(error.to_string()),
            }
        }
    }
    workers
}

fn figure(s: &Series, path: &str, time: Duration, workers: &mut Workers) -> Result<f64> {
    fn of<C: Client, E: std::error::Error + Send + Sync + 'static>(
        client: std::result::Result<C, E>,
        time: Duration,
    ) -> Result<f64> {
        Ok(rate(&mut client.map_err(Error::other)?, time))
    }
    match s.who {
        Who::VirtioDriver => of(VirtioDriver::open(path, s.depth), time),
        Who::OursPiped => of(Piped::open(path, s.depth, false), time),
        Who::OursBatched => of(Piped::open(path, s.depth, true), time),
        Who::OursSubmitted => of(Submitted::open(path, s.depth), time),
        Who::OursMany => of(Batches::open(path, s.depth), time),
        Who::OursInto => of(Calls::open(path, false), time),
        Who::OursRead => of(Calls::open(path, true), time),
        Who::OursQueue => of(Driven::open(path, s.depth), time),
        Who::Python(client) => {
            let worker = workers.get_mut(client).ok_or_else(|| Error::other("its worker has ended"))?;
            worker.rate(path, s.depth, time)
        }
    }
}
