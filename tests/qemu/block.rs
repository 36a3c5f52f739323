//! Block devices of QEMU through the driver.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;
use virtio::{Error, Result};

use crate::common::{Random, SOON, WAYS, Way};

const DISK: u64 = 64 << 20;

fn options() -> BlockOptions {
    let mut options = BlockOptions::default();
    options.timeout = SOON;
    options
}

/// 64 MiB written, flushed, read back, and compared with the file that QEMU stored them in.
fn whole_disk(way: Way) {
    let qemu = way.builder().disk("d", DISK).device(way.device("blk", 0, "drive=d")).start().unwrap();
    let disk = Block::open(&way.address(&qemu, 0), options()).unwrap();
    assert_eq!((disk.device().transport().kind(), disk.size()), (way.kind(), DISK));
    let legacy = way.kind().legacy();
    assert_eq!(disk.features().contains(Features::VERSION_1), !legacy);
    let mut data = Random(way as u64 + 1).bytes(4 << 20);
    for at in (0..DISK).step_by(data.len()) {
        data[..8].copy_from_slice(&at.to_le_bytes());
        disk.write(at, &data).unwrap();
    }
    disk.flush().unwrap();
    let stored = std::fs::read(qemu.dir().join("d")).unwrap();
    let mut back = vec![0; data.len()];
    for at in (0..DISK).step_by(data.len()) {
        data[..8].copy_from_slice(&at.to_le_bytes());
        disk.read(at, &mut back).unwrap();
        assert!(back == data, "read back at {at}");
        assert!(stored[at as usize..][..data.len()] == data, "the file at {at}");
    }
    disk.close().unwrap();
}

#[test]
fn s4_1_pci_modern_moves_64_mib_both_ways() {
    whole_disk(Way::Modern);
}

#[test]
fn s4_1_4_10_pci_legacy_moves_64_mib_both_ways() {
    whole_disk(Way::Legacy);
}

#[test]
fn both_sides_of_a_transitional_function_move_64_mib_both_ways() {
    whole_disk(Way::TransitionalModern);
    whole_disk(Way::TransitionalLegacy);
}

#[test]
fn s4_2_2_mmio_2_moves_64_mib_both_ways() {
    whole_disk(Way::Mmio);
}

#[test]
fn s4_2_4_mmio_1_moves_64_mib_both_ways() {
    whole_disk(Way::MmioLegacy);
}

/// Discard and write zeroes make zeroes in the file; the id is the serial number; a second device takes no writes.
#[test]
fn s5_2_6_every_request_type_over_every_interface() {
    for way in WAYS {
        let qemu = way
            .builder()
            .disk("d", 8 << 20)
            .file("r", 1 << 20)
            .args(["-blockdev", "file,node-name=ro,filename=@DIR/r,read-only=on"])
            .device(way.device("blk", 0, "drive=d,serial=number-17"))
            .device(way.device("blk", 1, "drive=ro"))
            .start()
            .unwrap();
        let disk = Block::open(&way.address(&qemu, 0), options()).unwrap();
        disk.write(0, &[0xAA; 1 << 20]).unwrap();
        disk.write_zeroes(4096, 65536, false).unwrap();
        disk.discard(512 << 10, 128 << 10).unwrap();
        disk.flush().unwrap();
        let stored = std::fs::read(qemu.dir().join("d")).unwrap();
        let zeroes = |at: usize, len: usize| stored[at..at + len].iter().all(|&byte| byte == 0);
        assert!(zeroes(4096, 65536) && zeroes(512 << 10, 128 << 10), "{way:?}");
        assert!(stored[..4096].iter().chain(&stored[4096 + 65536..512 << 10]).all(|&byte| byte == 0xAA));
        assert_eq!(disk.get_id().unwrap(), "number-17");

        // Two devices of one machine are open at once.
        let other = Block::open(&way.address(&qemu, 1), options()).unwrap();
        assert!(other.read_only() && !disk.read_only());
        assert_eq!(other.write(0, &[1; 512]).unwrap_err().kind(), &Error::ReadOnly);
        let mut sector = [1; 512];
        other.read(0, &mut sector).unwrap();
        assert_eq!(sector, [0; 512]);
        disk.read(0, &mut sector).unwrap();
        assert_eq!(sector, [0xAA; 512]);
        let again = Block::open(&way.address(&qemu, 1), options());
        assert!(matches!(again.unwrap_err().kind(), Error::DeviceBusy { .. }));
        other.close().unwrap();
        disk.close().unwrap();
    }
}

/// Four queues, four threads.
#[test]
fn s5_2_5_several_queues_are_used_at_once() {
    for way in [Way::Modern, Way::Legacy, Way::Mmio] {
        let qemu = way
            .builder()
            .disk("d", 16 << 20)
            .device(way.device("blk", 0, "drive=d,num-queues=4"))
            .start()
            .unwrap();
        let mut options = options();
        options.queues = 4;
        let disk = Block::open(&way.address(&qemu, 0), options).unwrap();
        assert_eq!(disk.queues(), 4);
        std::thread::scope(|scope| {
            for n in 0..4u64 {
                let disk = &disk;
                scope.spawn(move || {
                    let data = Random(n + 1).bytes(256 << 10);
                    for round in 0..8 {
                        let at = n * (4 << 20) + round * data.len() as u64;
                        disk.write(at, &data).unwrap();
                        let mut back = vec![0; data.len()];
                        disk.read(at, &mut back).unwrap();
                        assert!(back == data);
                    }
                });
            }
        });
        let used = (0..4).filter(|&n| disk.counters(n).unwrap().used > 0).count();
        assert!(used > 1, "{used} queues were used");
    }
}

/// What blkdebug injects comes back as a status; the device works on.
#[test]
fn e12_injected_errors_are_request_errors() {
    for way in WAYS {
        let node = "blkdebug,node-name=d,image.driver=file,image.filename=@DIR/image,\
                    inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.errno=5,inject-error.0.sector=8,\
                    inject-error.1.event=none,inject-error.1.iotype=write,inject-error.1.errno=5,inject-error.1.sector=16,\
                    inject-error.2.event=none,inject-error.2.iotype=flush,inject-error.2.errno=5,inject-error.2.once=on";
        let qemu = way
            .builder()
            .file("image", 1 << 20)
            .args(["-blockdev", node])
            .device(way.device("blk", 0, "drive=d"))
            .start()
            .unwrap();
        let disk = Block::open(&way.address(&qemu, 0), options()).unwrap();
        let failed = |result: Result<()>| {
            assert_eq!(result.unwrap_err().kind(), &Error::Request { status: 1 }, "{way:?}");
        };
        let mut sector = [0; 512];
        failed(disk.read(8 * 512, &mut sector));
        failed(disk.write(16 * 512, &sector));
        failed(disk.flush());
        disk.read(9 * 512, &mut sector).unwrap();
        disk.write(17 * 512, &sector).unwrap();
        disk.flush().unwrap();
    }
}

/// Ends a worker, also where the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The size changes under running I/O: an event tells, the new size is read, and no request is lost.
#[test]
fn c16_a_resize_under_load_is_an_event_and_the_new_size() {
    for way in WAYS {
        let qemu = way.builder().disk("d", 8 << 20).device(way.device("blk", 0, "drive=d")).start().unwrap();
        let disk = Block::open(&way.address(&qemu, 0), options()).unwrap();
        let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut random = Random(9);
                while !stop.load(Ordering::Relaxed) {
                    let data = random.bytes(8192);
                    disk.write(4096, &data).unwrap();
                    let mut back = vec![0; data.len()];
                    disk.read(4096, &mut back).unwrap();
                    assert!(back == data);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
            let end = End(&stop);
            for mebibytes in [16u64, 4, 32] {
                let size = mebibytes << 20;
                let before = rounds.load(Ordering::Relaxed);
                while rounds.load(Ordering::Relaxed) == before && !worker.is_finished() {
                    std::thread::yield_now();
                }
                let args = format!("{{\"node-name\":\"d\",\"size\":{size}}}");
                qemu.qmp().execute("block_resize", &args).unwrap();
                let asked = Instant::now();
                while !disk.events().unwrap().config_changed || disk.size() != size {
                    assert!(asked.elapsed() < SOON, "{way:?}: no event, or size {} for {size}", disk.size());
                    std::thread::yield_now();
                }
            }
            drop(end);
            worker.join().unwrap();
        });
        assert!(disk.write((32 << 20) - 512, &[1; 512]).is_ok());
        assert!(matches!(disk.read(32 << 20, &mut [0; 512]).unwrap_err().kind(), Error::OutOfBounds { .. }));
    }
}
