//! Faults of real devices: a ring that they cannot follow, and their removal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use virtio::Error;
use virtio::bus::qtest::{Machine, MachineOptions};
use virtio::device::{Device, Queue, QueueConfig};
use virtio::drivers::{Block, BlockOptions};
use virtio::event::Deadline;
use virtio::features::Features;
use virtio::mem::pool::DmaBuf;
use virtio::queue::Areas;
use virtio::testing::{Kind, Qemu};

use crate::common::{Random, SOON, WAYS};

fn machine(qemu: &Qemu) -> std::sync::Arc<Machine> {
    Machine::connect(&MachineOptions::new(qemu.dir().join("qtest"), qemu.dir().join("ram"))).unwrap()
}

fn set_up(device: &Device) -> Queue<DmaBuf> {
    device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
    let queue = device.take_queue(0, QueueConfig::size(256)).unwrap();
    device.start().unwrap();
    queue
}

fn one_request(device: &Device, queue: &mut Queue<DmaBuf>) {
    let token = queue.add([], [device.alloc(64).unwrap()]).unwrap();
    queue.notify().unwrap();
    assert_eq!(queue.get(Some(SOON)).unwrap().token, token);
}

/// C3: a head beyond the ring makes a modern device ask for a reset, and a legacy one silent; a reset recovers both.
#[test]
fn c3_a_head_out_of_range_ends_in_a_reset_that_recovers() {
    for way in WAYS {
        let qemu = crate::entropy(way, "");
        let device = virtio::open(&way.address(&qemu, 0)).unwrap();
        let mut queue = set_up(&device);
        let flight = queue.add([], [device.alloc(64).unwrap()]).unwrap();
        // The ring is the first that was allocated. The chain is not shown: its entry is another's.
        let areas = Areas::new(device.transport().ring_layout(), queue.size()).unwrap();
        let (region, _) = device.memory().regions().remove(0);
        region.store(areas.driver + 4, 9999u16).unwrap();
        region.store(areas.driver + 2, 1u16).unwrap();
        let id = device.transport().notification_id(0).unwrap();
        device.transport().doorbell(0).unwrap().ring(id.into()).unwrap();
        if way.kind().legacy() {
            let error = queue.get(Some(Duration::from_millis(300))).unwrap_err();
            assert!(matches!(error.kind(), Error::Timeout { .. }), "{way:?}: {error}");
        } else {
            let events = device.watch().unwrap().wait(Deadline::after(SOON)).unwrap();
            assert!(events.needs_reset, "{way:?}");
            let error = queue.get(Some(SOON)).unwrap_err();
            assert_eq!(error.kind(), &Error::DeviceNeedsReset, "{way:?}");
        }
        device.reset().unwrap();
        let error = queue.pop().unwrap_err();
        assert_eq!(error.kind(), &Error::Indeterminate { token: flight.into_raw() }, "{way:?}");
        assert!(matches!(queue.pop().unwrap_err().kind(), Error::Closed { .. }));
        let mut queue = set_up(&device);
        one_request(&device, &mut queue);
        device.close().unwrap();
        assert_eq!(device.memory().quarantine().tally().count, 0, "{way:?}");
    }
}

/// A PC's ejection register, as its firmware's tables tell it: bus 0, then the slot.
pub(crate) fn eject(machine: &Machine, slot: u8) {
    machine.command("outl 0xae10 0x0").unwrap();
    machine.command(&format!("outl 0xae08 {:#x}", 1u32 << slot)).unwrap();
}

const SIDES: [(&str, &str); 3] = [
    ("disable-legacy=on", ""),
    ("disable-modern=on,disable-legacy=off", ""),
    ("disable-legacy=off", "&interface=legacy"),
];

/// C2, C30: unplugged with requests in flight, plugged in again. QEMU completes what it has within the ejection, and
/// then nothing answers any more.
#[test]
fn c2_c30_unplugged_with_requests_in_flight_and_plugged_in_again() {
    for (sides, interface) in SIDES {
        let node = "throttle,node-name=d,throttle-group=t,file.driver=file,file.filename=@DIR/image";
        let qemu = Qemu::builder(Kind::Pc)
            .file("image", 4 << 20)
            .args(["-object", "throttle-group,id=t,x-iops-total=5", "-blockdev", node])
            .device(format!("virtio-blk-pci,id=one,drive=d,addr=4,{sides}"))
            .start()
            .unwrap();
        let address = qemu.pci(4) + interface;
        let mut options = BlockOptions::default();
        options.timeout = SOON;
        let disk = Block::open(&address, options.clone()).unwrap();
        let machine = machine(&qemu);
        let stop = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut random = Random(5);
                loop {
                    let at = random.below(1000) * 512;
                    if let Err(error) = disk.write(at, &random.bytes(64 << 10)) {
                        break error;
                    }
                    assert!(!stop.load(Ordering::Relaxed), "it answers after its removal");
                }
            });
            std::thread::sleep(Duration::from_millis(300));
            qemu.qmp().execute("device_del", "{\"id\":\"one\"}").unwrap();
            eject(&machine, 4);
            qemu.qmp().event("DEVICE_DELETED", SOON).unwrap();
            let removed = Instant::now();
            let error = loop {
                if worker.is_finished() {
                    break worker.join().unwrap();
                }
                if removed.elapsed() > Duration::from_secs(5) {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::yield_now();
            };
            assert!(removed.elapsed() < SOON, "{error}");
            error
        });
        assert!(
            matches!(ended.kind(), Error::DeviceGone { .. } | Error::Indeterminate { .. }),
            "{sides}: {ended}"
        );
        let gone = disk.read(0, &mut [0; 512]).unwrap_err();
        assert!(matches!(gone.kind(), Error::DeviceGone { .. }), "{sides}: {gone}");
        assert!(disk.events().unwrap().gone);
        assert!(matches!(disk.close().unwrap_err().kind(), Error::DeviceGone { .. }));
        let again = Block::open(&address, options.clone()).map(drop).unwrap_err();
        assert!(matches!(again.kind(), Error::NotFound { .. }), "{again}");
        let added = qemu.qmp().monitor(&format!("device_add virtio-blk-pci,id=two,drive=d,addr=4,{sides}"));
        assert_eq!(added.unwrap(), "");
        let disk = Block::open(&address, options).unwrap();
        disk.write(512, &[0x5A; 512]).unwrap();
        assert_eq!(std::fs::read(qemu.dir().join("image")).unwrap()[512..1024], [0x5A; 512]);
        disk.close().unwrap();
    }
}

/// C30: without a driver that waits, the removal is found by whoever asks.
#[test]
fn c30_a_removed_device_is_gone_and_no_reset_is_believed() {
    for (sides, interface) in SIDES {
        let qemu = Qemu::builder(Kind::Pc)
            .args(["-object", "rng-builtin,id=r"])
            .device(format!("virtio-rng-pci,id=one,rng=r,addr=4,{sides}"))
            .start()
            .unwrap();
        let device = virtio::open(&(qemu.pci(4) + interface)).unwrap();
        let mut queue = set_up(&device);
        one_request(&device, &mut queue);
        qemu.qmp().execute("device_del", "{\"id\":\"one\"}").unwrap();
        eject(&machine(&qemu), 4);
        let token = queue.add([], [device.alloc(64).unwrap()]).unwrap();
        let _ = queue.notify();
        let error = queue.get(Some(SOON)).unwrap_err();
        assert_eq!(error.kind(), &Error::Indeterminate { token: token.into_raw() }, "{sides}");
        assert!(matches!(queue.pop().unwrap_err().kind(), Error::DeviceGone { .. }));
        for _ in 0..2 {
            assert!(matches!(device.status().unwrap_err().kind(), Error::DeviceGone { .. }), "{sides}");
            assert!(matches!(device.reset().unwrap_err().kind(), Error::DeviceGone { .. }), "{sides}");
        }
    }
}

/// V17, as far as Debian's QEMU shows it: while a machine is paused its clock stands still, and with it a device that
/// waits for its time. The wait has a limit, and what was in flight is answered when time goes on.
#[test]
fn v17_a_device_whose_clock_stands_still_is_late_and_loses_nothing() {
    for way in WAYS {
        let qemu = crate::entropy(way, ",max-bytes=64,period=50");
        let device = virtio::open(&way.address(&qemu, 0)).unwrap();
        let mut queue = set_up(&device);
        one_request(&device, &mut queue);
        qemu.qmp().execute("stop", "{}").unwrap();
        let (late, start) = (Duration::from_millis(100), Instant::now());
        let token = loop {
            let token = queue.add([], [device.alloc(64).unwrap()]).unwrap();
            queue.notify().unwrap();
            match queue.get(Some(late)) {
                Ok(used) => assert_eq!(used.token, token, "{way:?}"),
                Err(error) => {
                    assert!(matches!(error.kind(), Error::Timeout { .. }), "{way:?}: {error}");
                    break token;
                }
            }
            assert!(start.elapsed() < SOON, "{way:?}: it has more than its share");
        };
        qemu.qmp().execute("cont", "{}").unwrap();
        assert_eq!(queue.get(Some(SOON)).unwrap().token, token, "{way:?}");
        device.close().unwrap();
    }
}
