//! Threads of the caller's, and the machine's own: what the thread sanitizer looks at.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use virtio::Error;
use virtio::drivers::{Block, BlockOptions, Entropy};

use crate::common::{Random, SOON, Way};

const FEW: [Way; 3] = [Way::Modern, Way::Legacy, Way::Mmio];

fn options() -> BlockOptions {
    let mut options = BlockOptions::default();
    options.timeout = SOON;
    options.chunk = 4096;
    options
}

/// Writes and reads so many times.
fn work(disk: &Block, seed: u64, rounds: u64) {
    let mut random = Random(seed);
    for _ in 0..rounds {
        let (at, data) = (random.below(200) * 512, random.bytes(16 << 10));
        disk.write(at, &data).unwrap();
        let mut back = vec![0; data.len()];
        disk.read(at, &mut back).unwrap();
        assert!(back == data);
    }
}

/// Three devices of one machine, one of them by the interrupt line, each with a thread; one thread tells all of them.
#[test]
fn each_device_of_one_machine_has_a_thread() {
    for way in FEW {
        let mut builder = way.builder();
        for n in 0..3u8 {
            let line = if way.is_pci() && n == 2 { ",vectors=0" } else { "" };
            builder = builder.disk(&format!("d{n}"), 1 << 20);
            builder = builder.device(way.device("blk", n, &format!("drive=d{n}{line}")));
        }
        let qemu = builder.start().unwrap();
        let threads = [0, 1, 2].map(|n| {
            let address = way.address(&qemu, n);
            thread::spawn(move || {
                // The first of them connects, all share the connection, the last one ends it.
                for round in 0..2 {
                    let disk = Block::open(&address, options()).unwrap();
                    work(&disk, u64::from(n) + 1 + round, 10);
                    disk.close().unwrap();
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Others come and go meanwhile: the machine's thread learns of vectors and lines, and forgets them, at work.
#[test]
fn devices_come_and_go_beside_one_in_use() {
    for way in FEW {
        let line = if way.is_pci() { ",vectors=0" } else { "" };
        let qemu = way
            .builder()
            .disk("d", 1 << 20)
            .args(["-object", "rng-builtin,id=r"])
            .device(way.device("blk", 0, "drive=d"))
            .device(way.device("rng", 1, "rng=r"))
            .device(way.device("rng", 2, &format!("rng=r{line}")))
            .start()
            .unwrap();
        let disk = Block::open(&way.address(&qemu, 0), options()).unwrap();
        let worker = thread::spawn(move || work(&disk, 9, 40));
        for n in 0..12 {
            let mut entropy = Entropy::open(&way.address(&qemu, 1 + n % 2), SOON).unwrap();
            entropy.fill(&mut [0; 256]).unwrap();
        }
        worker.join().unwrap();
    }
}

/// V12: killed while threads wait for it, each gets an error.
#[test]
fn v12_all_threads_that_wait_are_told_of_the_end() {
    for way in FEW {
        let node =
            "throttle,node-name=d,throttle-group=t,file.driver=null-co,file.read-zeroes=on,file.size=1048576";
        let qemu = way
            .builder()
            .args(["-object", "throttle-group,id=t,x-iops-total=20", "-blockdev", node])
            .device(way.device("blk", 0, "drive=d,num-queues=2"))
            .start()
            .unwrap();
        let mut options = options();
        options.queues = 2;
        let disk = Block::open(&way.address(&qemu, 0), options).unwrap();
        let (done, killed) = (AtomicU32::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let read = || loop {
                match disk.read(0, &mut [0; 512]) {
                    Ok(()) => done.fetch_add(1, Ordering::AcqRel),
                    Err(error) => break (error, killed.load(Ordering::Acquire)),
                };
            };
            let waiters: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            while done.load(Ordering::Acquire) < 4 && waiters.iter().all(|waiter| !waiter.is_finished()) {
                thread::yield_now();
            }
            killed.store(true, Ordering::Release);
            qemu.kill().unwrap();
            for waiter in waiters {
                let (error, after) = waiter.join().unwrap();
                let typed = matches!(error.kind(), Error::Indeterminate { .. } | Error::DeviceGone { .. });
                assert!(typed && after, "{way:?}: {error}");
            }
        });
        disk.close().unwrap();
    }
}
