//! The policy that takes the device up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use virtio::Error;
use virtio::drivers::{Between, Block, BlockOptions, Reconnect};
use virtio::event::Deadline;

use crate::daemon::{Daemon, Export, Place, image, over_file};
use crate::random::Random;
use crate::soak_common::soak;
use crate::{alone, holdings, timely};

const LIMIT: Duration = Duration::from_secs(20);

fn options(queues: u16) -> BlockOptions {
    let mut options = BlockOptions::default();
    options.queues = queues;
    // 32 requests in flight.
    (options.chunk, options.window, options.timeout) = (4096, 128 << 10, LIMIT);
    options.reconnect = Reconnect::Retry;
    options
}

fn start(place: &Place, size_of: &std::path::Path, queues: u16) -> Daemon {
    Daemon::start(place, &Export { blockdevs: &over_file(size_of), queues, writable: true })
}

/// One thread's share of the disk and of the work.
fn work(disk: &Block, base: u64, seed: u64, stop: &AtomicBool, flushes: &AtomicU32) -> Vec<u8> {
    let (mut random, mut model) = (Random(seed), vec![0u8; 2 << 20]);
    let pool = disk.device().pool(4, 4096).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let at = random.below(15) * (128 << 10);
        let data = random.bytes(128 << 10);
        timely(LIMIT, || disk.write_retry(base + at as u64, &data)).unwrap();
        model[at..at + data.len()].copy_from_slice(&data);
        let at = random.below(30) * (64 << 10);
        let mut back = vec![0; 128 << 10];
        timely(LIMIT, || disk.read(base + at as u64, &mut back)).unwrap();
        assert!(back == model[at..at + back.len()], "at {at}");
        // The caller's own buffers: the old daemon is dead, so that the same ones are used again.
        let buf = timely(LIMIT, || disk.read_into(base + at as u64, pool.take().unwrap())).unwrap();
        assert!(buf.to_vec().unwrap() == model[at..at + 4096]);
        drop(timely(LIMIT, || disk.write_from_retry(base + at as u64, buf)).unwrap());
        assert_eq!(pool.free(), 4);
        match timely(LIMIT, || disk.flush()) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), Error::Indeterminate { .. }) => {
                flushes.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }
    model
}

#[test]
fn e1_killed_at_any_moment_reads_and_marked_writes_go_on_with_the_next_daemon() {
    killed(200);
}

#[test]
#[ignore = "soak: a thousand daemons"]
fn soak_killed_at_any_moment_requests_go_on_with_the_next_daemon() {
    soak("storage daemon killed under load, requests go on", 1000, "daemons", killed);
}

fn killed(rounds: u64) {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 4 << 20);
    let mut daemon = start(&place, &file, 2);
    let disk = Block::open(&daemon.address(), options(2)).unwrap();
    let (stop, flushes) = (AtomicBool::new(false), AtomicU32::new(0));
    // Pools for the callers' own buffers, and the first reconnection, before the first count.
    let models = thread::scope(|scope| {
        let workers = [0u64, 1].map(|number| {
            let (disk, stop, flushes) = (&disk, &stop, &flushes);
            scope.spawn(move || work(disk, number * (2 << 20), number + 1, stop, flushes))
        });
        let (mut random, mut most) = (Random(5), None);
        for round in 0..rounds {
            thread::sleep(Duration::from_micros(random.below(20_000) as u64));
            daemon.kill();
            daemon = start(&place, &file, 2);
            if round % 20 == 19 {
                // At rest: a moment after a start at which both have a connection.
                thread::sleep(Duration::from_millis(100));
                let now = holdings();
                let first = *most.get_or_insert(now);
                assert_eq!((now.mappings, now.kept), (first.mappings, first.kept), "round {round}");
                assert!(now.descriptors <= first.descriptors + 4, "{now:?}, first {first:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        workers.map(|worker| worker.join().unwrap())
    });
    let written = std::fs::read(&file).unwrap();
    assert!(written == models.concat(), "the file holds what was written last");
    assert!(flushes.load(Ordering::Relaxed) > 0, "some flush had lost writes behind it");
    disk.close().unwrap();
}

#[test]
fn a_write_that_was_not_marked_is_not_sent_again_and_the_next_call_goes_on() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    // One request a second: the write is in flight when the daemon dies.
    let nodes = [
        format!("driver=file,node-name=f,filename={}", file.display()),
        "driver=throttle,node-name=d,throttle-group=g,file=f".to_owned(),
    ];
    let slow = Export { blockdevs: &nodes, queues: 1, writable: true };
    let mut daemon = Daemon::start_throttled(&place, &slow, 1);
    let disk = Block::open(&daemon.address(), options(1)).unwrap();
    disk.read(0, &mut [0; 512]).unwrap();
    let outcome = thread::scope(|scope| {
        let writer = scope.spawn(|| disk.write(0, &[5; 16 << 10]));
        thread::sleep(Duration::from_millis(200));
        daemon.kill();
        daemon = start(&place, &file, 1);
        writer.join().unwrap()
    });
    assert!(matches!(outcome.unwrap_err().kind(), Error::Indeterminate { .. }));
    disk.write(0, &[6; 512]).unwrap();
    let mut back = [0; 512];
    disk.read(0, &mut back).unwrap();
    assert_eq!(back, [6; 512]);
}

#[test]
fn the_first_flush_after_a_reconnection_tells_once_of_writes_that_may_be_lost() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let mut daemon = start(&place, &file, 1);
    let disk = Block::open(&daemon.address(), options(1)).unwrap();
    disk.write(0, &[1; 512]).unwrap();
    daemon.kill();
    daemon = start(&place, &file, 1);
    disk.read(0, &mut [0; 512]).unwrap();
    let error = disk.flush().unwrap_err();
    assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
    disk.flush().unwrap();
    // Nothing unflushed behind it: no flush is in doubt.
    disk.write(0, &[2; 512]).unwrap();
    disk.flush().unwrap();
    daemon.kill();
    daemon = start(&place, &file, 1);
    disk.read(0, &mut [0; 512]).unwrap();
    disk.flush().unwrap();
    drop(daemon);
}

/// The end is known before the flush is called, and the flush is what brings the next daemon up: it never was in
/// flight, and is done by a daemon that knows nothing of what the old one may have lost.
#[test]
fn a_flush_that_reconnects_is_the_first_one_after_the_reconnection() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let mut daemon = start(&place, &file, 1);
    let disk = Block::open(&daemon.address(), options(1)).unwrap();
    let lost = |outcome: virtio::Result<()>| {
        let error = outcome.expect_err("a completed write may be lost");
        assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
    };
    disk.write(0, &[1; 512]).unwrap();
    daemon.kill();
    assert!(disk.events().unwrap().gone);
    daemon = start(&place, &file, 1);
    lost(disk.flush());
    disk.flush().unwrap();

    let disk = disk.submitter();
    let end = |tag: &'static str| {
        let mut done = Vec::new();
        while done.is_empty() {
            if disk.wait(&mut done, Deadline::after(Duration::from_secs(10))).unwrap().lost {
                disk.recover().unwrap();
            }
        }
        let call = done.pop().unwrap();
        assert_eq!(call.tag, tag);
        call.outcome.map(drop)
    };
    disk.write(0, &[2; 512], false, "write").unwrap();
    end("write").unwrap();
    daemon.kill();
    assert!(disk.events().unwrap().gone);
    daemon = start(&place, &file, 1);
    disk.flush("flush").unwrap();
    lost(end("flush"));
    disk.flush("flush").unwrap();
    end("flush").unwrap();
    drop(daemon);
}

#[test]
fn e2_a_daemon_that_comes_back_with_less_is_refused() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 2 << 20);
    let mut daemon = start(&place, &file, 2);
    let disk = Block::open(&daemon.address(), options(2)).unwrap();
    disk.read(0, &mut [0; 512]).unwrap();
    daemon.kill();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    daemon = start(&place, &file, 2);
    let smaller = disk.read(0, &mut [0; 512]).unwrap_err();
    assert!(matches!(smaller.kind(), Error::Incompatible { what: "a capacity of", .. }), "{smaller}");
    daemon.kill();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(2 << 20).unwrap();
    daemon = start(&place, &file, 1);
    let fewer = disk.read(0, &mut [0; 512]).unwrap_err();
    assert!(matches!(fewer.kind(), Error::Incompatible { .. }), "{fewer}");
    daemon.kill();
    daemon = Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 2, writable: false });
    let read_only = disk.read(0, &mut [0; 512]).unwrap_err();
    assert!(matches!(read_only.kind(), Error::Incompatible { .. }), "{read_only}");
    daemon.kill();
    daemon = start(&place, &file, 2);
    disk.read(0, &mut [0; 512]).unwrap();
    drop(daemon);
}

#[test]
fn without_a_daemon_to_come_back_the_call_ends_at_its_deadline() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let mut daemon = start(&place, &file, 1);
    let mut options = options(1);
    (options.timeout, options.control_timeout) = (Duration::from_millis(500), Duration::from_millis(200));
    // Dies while the call waits: then its request is in flight, since a stopped daemon answers none.
    let (pid, armed) = (daemon.pid(), AtomicBool::new(true));
    options.between = Between::new(move || {
        if armed.swap(false, Ordering::Relaxed) {
            kill_process(pid, Signal::KILL).unwrap();
        }
        Ok(())
    });
    let disk = Block::open(&daemon.address(), options.clone()).unwrap();
    daemon.signal(Signal::STOP);
    let limit = Duration::from_millis(700);
    let first = timely(limit, || disk.read(0, &mut [0; 512])).unwrap_err();
    assert_eq!(first.errno(), 111, "it was in flight, and changed nothing: {first}");
    daemon.kill();
    let next = timely(limit, || disk.read(0, &mut [0; 512])).unwrap_err();
    assert_eq!(next.errno(), 111, "refused: {next}");
    timely(limit, || drop(disk));
    // A write may have been made, marked or not.
    for marked in [true, false] {
        let daemon = start(&place, &file, 1);
        let armed = Arc::new(AtomicBool::new(true));
        let (pid, due) = (daemon.pid(), Arc::clone(&armed));
        options.between = Between::new(move || {
            if due.swap(false, Ordering::Relaxed) {
                kill_process(pid, Signal::KILL).unwrap();
            }
            Ok(())
        });
        let disk = Block::open(&daemon.address(), options.clone()).unwrap();
        daemon.signal(Signal::STOP);
        let write = || if marked { disk.write_retry(0, &[1; 512]) } else { disk.write(0, &[1; 512]) };
        let told = timely(limit, write).unwrap_err();
        assert!(!armed.load(Ordering::Relaxed), "it waited");
        assert!(matches!(told.kind(), Error::Indeterminate { .. }), "marked: {marked}, {told}");
    }
}
