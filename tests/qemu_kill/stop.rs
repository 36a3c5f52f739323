//! V13: QEMU is stopped by SIGSTOP: nothing answers, and nothing tells. Only deadlines help, and nothing is freed.

use std::time::{Duration, Instant};

use virtio::Error;
use virtio::drivers::{Block, BlockOptions};

use crate::alone;
use crate::common::{Random, SOON, WAYS, Way};

const DISK: u64 = 2 << 20;
const LIMIT: Duration = Duration::from_millis(300);

fn open(way: Way, address: &str) -> Block {
    let mut options = BlockOptions::default();
    options.timeout = LIMIT;
    options.chunk = 4096;
    let disk = Block::open(&format!("{address}&timeout=200"), options).unwrap();
    assert_eq!(disk.device().transport().kind(), way.kind());
    disk
}

/// Stopped in the middle, it goes on later: what timed out is one of the two contents, all else is what it should be.
#[test]
fn v13_a_machine_that_is_stopped_under_load_goes_on() {
    let _alone = alone();
    let mut random = Random(77);
    for way in WAYS {
        let qemu = way.builder().disk("d", DISK).device(way.device("blk", 0, "drive=d")).start().unwrap();
        let disk = open(way, &way.address(&qemu, 0));
        let mut timeouts = 0;
        for round in 1..4u8 {
            std::thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    let (mut late, mut number) = (0, 0u64);
                    let started = Instant::now();
                    while started.elapsed() < LIMIT * 3 {
                        number += 1;
                        let start = Instant::now();
                        match disk.write(number % 64 * 8192, &[round; 8192]) {
                            Ok(()) => {}
                            Err(error) => {
                                assert!(matches!(error.kind(), Error::Timeout { .. }), "{way:?}: {error}");
                                late += 1;
                            }
                        }
                        assert!(start.elapsed() < SOON / 4, "{way:?}: a call took {:?}", start.elapsed());
                    }
                    late
                });
                std::thread::sleep(Duration::from_micros(random.below(30_000)));
                qemu.stop().unwrap();
                // Longer than a call waits, and than the question by which it ends.
                std::thread::sleep(LIMIT * 2 + Duration::from_millis(random.below(200)));
                qemu.resume().unwrap();
                timeouts += worker.join().unwrap();
            });
            // It answers again, and nothing of before is taken for an answer of now.
            let start = Instant::now();
            while disk.read(0, &mut [0; 512]).is_err() {
                assert!(start.elapsed() < SOON, "{way:?}: it does not come back");
            }
            let data = random.bytes(65536);
            disk.write(1 << 20, &data).unwrap();
            let mut back = vec![0; data.len()];
            disk.read(1 << 20, &mut back).unwrap();
            assert!(back == data, "{way:?}");
            disk.flush().unwrap();
        }
        assert!(timeouts > 0, "{way:?}: nobody noticed");
        disk.close().unwrap();
    }
}

/// Given up while it is stopped: closing ends in time, the memory is kept, and is nobody else's afterwards.
#[test]
fn v13_given_up_while_stopped_the_memory_is_kept() {
    let _alone = alone();
    for way in [Way::Modern, Way::Legacy, Way::Mmio] {
        let qemu = way.builder().disk("d", DISK).device(way.device("blk", 0, "drive=d")).start().unwrap();
        let before = virtio::mem::quarantine::kept();
        let disk = open(way, &way.address(&qemu, 0));
        disk.write(0, &[1; 4096]).unwrap();
        qemu.stop().unwrap();
        assert!(matches!(disk.write(0, &[2; 65536]).unwrap_err().kind(), Error::Timeout { .. }));
        let start = Instant::now();
        let error = disk.close().unwrap_err();
        assert!(matches!(error.kind(), Error::Timeout { .. } | Error::ResetTimeout { .. }), "{error}");
        assert!(start.elapsed() < SOON / 2);
        drop(disk);
        assert!(virtio::mem::quarantine::kept().bytes > before.bytes, "{way:?}");
        qemu.resume().unwrap();
        // Another handle gets other memory, and resets the device first.
        let disk = open(way, &way.address(&qemu, 0));
        disk.write(8192, &[3; 65536]).unwrap();
        let mut back = [0; 65536];
        disk.read(8192, &mut back).unwrap();
        assert_eq!(back, [3; 65536]);
        disk.close().unwrap();
    }
}
