//! A real daemon that lives on after its connection, or its ring, has ended, and still writes what it was asked for
//! (rule R9): qemu-storage-daemon with a throttled disk.

use std::time::{Duration, Instant};

use virtio::Error;
use virtio::mem::pool::DmaPool;
use virtio::mem::quarantine::kept;

use crate::daemon::{Daemon, Export, Place, image};
use crate::{Low, alone, descriptors, timely};

const LONG: Duration = Duration::from_secs(10);
/// Requests in flight, and how many of them are served in a second.
const FLYING: usize = 8;
const RATE: u32 = 8;

/// A daemon over a disk whose every byte is 0xC3.
fn throttled(place: &Place) -> Daemon {
    let file = image(place, 1 << 20);
    std::fs::write(&file, vec![0xC3; 1 << 20]).unwrap();
    let nodes = [
        format!("driver=file,node-name=f,filename={}", file.display()),
        "driver=throttle,node-name=d,throttle-group=g,file=f".to_owned(),
    ];
    let daemon =
        Daemon::start_throttled(place, &Export { blockdevs: &nodes, queues: 1, writable: true }, RATE);
    let end = Instant::now() + LONG;
    while !place.path("vub.sock").exists() {
        assert!(Instant::now() < end, "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(1));
    }
    daemon
}

/// Device mappings of this process.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("virtio-dma")).count()
}

/// A device with requests in flight that the daemon has taken.
fn loaded(daemon: &Daemon, limit: Duration) -> Low {
    let mut low = Low::open(&daemon.address(), limit);
    for sector in 0..FLYING as u64 {
        low.read(sector);
    }
    low.queue.notify().unwrap();
    // The first is served at once; then it has seen the others.
    low.get(LONG).unwrap();
    low
}

/// Buffers that hold data of the disk.
fn written(data: &DmaPool) -> usize {
    let slot = |number: usize| {
        let mut bytes = [0; 512];
        data.read(number * data.stride() as usize, &mut bytes).unwrap();
        bytes == [0xC3; 512]
    };
    (0..data.count() as usize).filter(|&number| slot(number)).count()
}

/// Waits until the daemon has written to more buffers than `before`.
fn writes_on(data: &DmaPool, before: usize) {
    let end = Instant::now() + LONG;
    while written(data) <= before {
        assert!(Instant::now() < end, "{before} buffers were written, and no more");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn r9_a_daemon_that_writes_after_its_ring_was_stopped_writes_to_memory_that_is_kept() {
    let _alone = alone();
    let place = Place::new();
    let daemon = throttled(&place);
    let (before, kept_before, mapped) = (descriptors(), kept().bytes, mappings());
    let limit = Duration::from_millis(200);
    let low = loaded(&daemon, limit);
    let data = low.pools[1].clone();
    let late = timely(limit, || low.device.close()).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    let then = written(&data);
    assert!(then < FLYING, "{then} of {FLYING} were served before the end");
    drop(low);
    assert_eq!(data.free(), data.count() as usize - (FLYING - 1), "what is in flight does not come back");
    // All is closed and dropped; the memory is still that of the daemon alone.
    writes_on(&data, then);
    drop(data);
    assert!(kept().bytes > kept_before && mappings() > mapped);
    // It was let go as a connection: another device is served, in memory of its own.
    let next = Low::open(&daemon.address(), LONG);
    next.device.close().unwrap();
    drop(next);
    assert_eq!(descriptors(), before);
}

#[test]
fn r9_a_close_that_may_wait_waits_for_what_is_in_flight_and_keeps_nothing() {
    let _alone = alone();
    let place = Place::new();
    let daemon = throttled(&place);
    let (before, kept_before, mapped) = (descriptors(), kept().bytes, mappings());
    let low = loaded(&daemon, LONG);
    let data = low.pools[1].clone();
    low.device.close().unwrap();
    assert_eq!(written(&data), FLYING, "all were served before the close was over");
    drop((low, data));
    assert_eq!((descriptors(), kept().bytes, mappings()), (before, kept_before, mapped));
}

#[test]
fn r9_the_end_of_a_connection_proves_nothing_and_the_death_of_its_process_does() {
    let _alone = alone();
    let place = Place::new();
    let mut daemon = throttled(&place);
    let (kept_before, mapped) = (kept().bytes, mappings());
    let limit = Duration::from_millis(200);
    let mut low = loaded(&daemon, limit);
    let data = low.pools[1].clone();
    std::thread::scope(|scope| {
        // The daemon closes the connection, and answers when its requests are done.
        scope.spawn(|| daemon.qmp(r#"{"execute":"block-export-del","arguments":{"id":"e","mode":"hard"}}"#));
        let mut ended = 0;
        let gone = loop {
            match low.queue.get(Some(LONG)) {
                Ok(_) => {}
                Err(Error::Indeterminate { .. }) => ended += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(gone.kind(), Error::DeviceGone { .. }) && ended > 0, "{gone}, {ended} ended");
        let then = written(&data);
        let reset = timely(limit, || low.device.reset()).unwrap_err();
        assert!(matches!(reset.kind(), Error::DeviceGone { .. }), "it is no proof: {reset}");
        assert!(data.free() < data.count() as usize, "nothing came back");
        writes_on(&data, then);
    });
    // Nothing changes as long as it lives, whatever it has done meanwhile.
    let reset = timely(limit, || low.device.reset()).unwrap_err();
    assert!(matches!(reset.kind(), Error::DeviceGone { .. }), "{reset}");
    daemon.kill();
    // The handle on its process tells; nobody is there to go on with.
    let alone = timely(limit, || low.device.reset()).unwrap_err();
    assert_eq!(alone.errno(), 2, "its socket went with the connection: {alone}");
    timely(limit, || low.device.close()).unwrap();
    drop(low);
    assert_eq!(data.free(), data.count() as usize, "all buffers came back");
    drop(data);
    assert_eq!((kept().bytes, mappings()), (kept_before, mapped));
}

#[test]
fn r9_a_stopped_daemon_is_not_dead() {
    let _alone = alone();
    let place = Place::new();
    let daemon = throttled(&place);
    let kept_before = kept().bytes;
    let limit = Duration::from_millis(200);
    let low = loaded(&daemon, limit);
    let data = low.pools[1].clone();
    daemon.signal(rustix::process::Signal::STOP);
    let late = timely(limit, || low.device.close()).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    let then = written(&data);
    drop(low);
    assert!(kept().bytes > kept_before);
    daemon.signal(rustix::process::Signal::CONT);
    writes_on(&data, then);
}
