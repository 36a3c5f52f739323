//! V12, E1: QEMU ends with requests in flight. Every call ends in time with a typed error, what was acknowledged is in
//! the file, and nothing is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use virtio::Error;
use virtio::device::QueueConfig;
use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;

use crate::common::{Random, SOON, WAYS, Way};
use crate::soak_common::soak;
use crate::{Holdings, alone};

const DISK: u64 = 4 << 20;
const THREADS: u64 = 2;
/// Sectors that one thread writes to: its own part of the disk.
const SECTORS: u64 = DISK / 512 / THREADS;

/// What a call of a machine that ends may give.
fn typed(error: &Error) -> bool {
    matches!(error.kind(), Error::DeviceGone { .. } | Error::Indeterminate { .. } | Error::Closed { .. })
}

/// Writes until an error comes. Gives what each sector last had acknowledged, and the write that was not.
fn write_on(disk: &Block, thread: u64, seed: u64) -> (Vec<(u64, u64)>, u64, Error) {
    let mut random = Random(seed);
    let mut done = Vec::new();
    for number in 1.. {
        let sector = thread * SECTORS + random.below(SECTORS - 16);
        let mut data = vec![0; 512 * 16];
        for (n, part) in data.chunks_mut(512).enumerate() {
            part[..8].copy_from_slice(&(sector + n as u64).to_le_bytes());
            part[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        }
        match disk.write(sector * 512, &data) {
            Ok(()) => done.push((sector, number as u64)),
            Err(error) => return (done, sector, error),
        }
    }
    unreachable!()
}

fn word(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// One machine, killed after `after` of load. Gives the number of acknowledged writes.
fn kill_under_load(way: Way, after: Duration, seed: u64) -> usize {
    let qemu =
        way.builder().disk("d", DISK).device(way.device("blk", 0, "drive=d,num-queues=2")).start().unwrap();
    let mut options = BlockOptions::default();
    options.timeout = SOON;
    options.queues = THREADS as u16;
    options.chunk = 2048;
    let disk = Block::open(&way.address(&qemu, 0), options).unwrap();
    let image = std::fs::File::open(qemu.dir().join("d")).unwrap();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let disk = &disk;
        let workers: Vec<_> =
            (0..THREADS).map(|n| scope.spawn(move || write_on(disk, n, seed * THREADS + n + 1))).collect();
        std::thread::sleep(after);
        qemu.kill().unwrap();
        let killed = Instant::now();
        let outcomes = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert!(killed.elapsed() < SOON / 2, "{way:?}: it took {:?}", killed.elapsed());
        outcomes
    });
    let mut file = Vec::new();
    std::io::Read::read_to_end(&mut &image, &mut file).unwrap();
    let mut acknowledged = 0;
    for (done, unsure, error) in &outcomes {
        assert!(typed(error), "{way:?}: {error}");
        acknowledged += done.len();
        let mut last = std::collections::BTreeMap::new();
        for &(sector, number) in done {
            last.extend((0..16).map(|n| (sector + n, number)));
        }
        for (sector, number) in last {
            let at = sector as usize * 512;
            let found = (word(&file, at), word(&file, at + 8));
            let newer = (*unsure..*unsure + 16).contains(&sector) && found.1 == done.len() as u64 + 1;
            assert!(
                found == (sector, number) || newer,
                "{way:?}: sector {sector} has {found:?}, not {number}"
            );
        }
    }
    for _ in 0..2 {
        assert!(typed(&disk.read(0, &mut [0; 512]).unwrap_err()));
    }
    // The process is dead, which the kernel told: nothing has to be kept.
    disk.close().unwrap();
    assert_eq!(disk.device().memory().quarantine().tally().count, 0);
    acknowledged
}

fn runs(count: u64) -> usize {
    // Whatever is made once is there.
    kill_under_load(Way::Modern, Duration::from_millis(5), 99);
    let before = Holdings::now();
    let mut random = Random(42);
    let mut acknowledged = 0;
    for run in 0..count {
        let way = WAYS[run as usize % WAYS.len()];
        let after = Duration::from_micros(random.below(20_000));
        acknowledged += kill_under_load(way, after, run);
    }
    assert_eq!(Holdings::now(), before);
    acknowledged
}

#[test]
fn v12_e1_a_hundred_machines_killed_at_random_moments() {
    let _alone = alone();
    assert!(runs(100) > 100, "hardly a write was acknowledged before its machine's end");
}

#[test]
#[ignore = "soak: five hundred machines"]
fn soak_machines_killed_at_random_moments() {
    let _alone = alone();
    soak("QEMU killed under load", 500, "machines", |count| {
        runs(count);
    });
}

/// By hand: requests that a device holds end once each, and their buffers come home.
#[test]
fn v12_requests_in_flight_end_once_and_their_buffers_come_home() {
    let _alone = alone();
    for way in WAYS {
        let node = "throttle,node-name=d,throttle-group=t,file.driver=file,file.filename=@DIR/image";
        let qemu = way
            .builder()
            .file("image", 1 << 20)
            .args(["-object", "throttle-group,id=t,x-iops-total=1", "-blockdev", node])
            .device(way.device("blk", 0, "drive=d"))
            .start()
            .unwrap();
        let device = virtio::open(&way.address(&qemu, 0)).unwrap();
        device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
        let mut queue = device.take_queue(0, QueueConfig::size(64)).unwrap();
        device.start().unwrap();
        let pool = device.pool(32, 1024).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..8 {
            let (mut header, mut data, mut status) =
                (pool.take().unwrap(), pool.take().unwrap(), pool.take().unwrap());
            header.fill(0).unwrap();
            header.set_len(16).unwrap();
            data.set_len(512).unwrap();
            status.set_len(1).unwrap();
            tokens.push(queue.add([header], [data, status]).unwrap());
        }
        queue.notify().unwrap();
        assert_eq!(pool.free(), 8);
        let waiting = AtomicBool::new(false);
        let mut ended = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                waiting.store(true, Ordering::Release);
                let (mut done, mut ended) = (0, Vec::new());
                loop {
                    match queue.get(Some(SOON)).map_err(|error| error.kind().clone()) {
                        Ok(_) => done += 1,
                        Err(Error::Indeterminate { token }) => ended.push(token),
                        Err(Error::DeviceGone { .. }) => break,
                        Err(other) => panic!("{way:?}: {other}"),
                    }
                }
                assert_eq!(done + ended.len(), 8);
                ended
            });
            while !waiting.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            qemu.kill().unwrap();
            waiter.join().unwrap()
        });
        ended.sort_unstable();
        ended.dedup();
        assert!(ended.len() >= 6 && ended.iter().all(|raw| tokens.iter().any(|t| t.into_raw() == *raw)));
        // Their memory waits for the proof, which closing finds.
        device.close().unwrap();
        assert_eq!(pool.free(), 32, "{way:?}");
    }
}
