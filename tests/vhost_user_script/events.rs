//! Kicks and calls: event descriptors that both ends hold.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use virtio::Error;
use virtio::drivers::Block;
use virtio::event::{Deadline, EventFd};
use virtio::spec::vhost_user::Request;

use crate::script::{Daemon, Offer, Peer, Serve};
use crate::{Low, alone, small, timely};

const LONG: Duration = Duration::from_secs(10);
/// What fills an event's counter.
const FULL: u64 = u64::MAX - 1;

fn add(event: &OwnedFd, value: u64) -> bool {
    rustix::io::write(event, &value.to_ne_bytes()).is_ok()
}

#[test]
fn v14_a_full_kick_counter_is_a_kick() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer::default());
    let mut low = Low::open(&daemon.address(), LONG);
    daemon.run(|peer| {
        peer.serve = Serve::Nothing;
        let (kick, _) = peer.events();
        rustix::io::read(&kick, &mut [0; 8]).ok();
        assert!(add(&kick, FULL));
    });
    for sector in 0..16 {
        low.read(sector);
        timely(Duration::ZERO, || low.queue.notify()).unwrap();
    }
    daemon.run(|peer| peer.serve = Serve::All);
    for _ in 0..16 {
        low.get(Duration::from_secs(1)).unwrap();
    }
    low.device.close().unwrap();
}

/// Does something with a copy of an event, over and over, until it is told to stop.
struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Storm {
    fn new(event: OwnedFd, step: impl Fn(&OwnedFd) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                step(&event);
                rounds += 1;
            }
            // Nobody is held up by what is left.
            fcntl_setfl(&event, OFlags::NONBLOCK | OFlags::RDWR).unwrap();
            let _ = rustix::io::read(&event, &mut [0; 8]);
            rounds
        });
        Self { stop, thread: Some(thread) }
    }

    /// How often it was done.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn v14_v18_a_storm_of_calls_answers_nothing_and_delays_nothing() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer::default());
    let mut low = Low::open(&daemon.address(), LONG);
    let (_, call) = daemon.run(|peer| peer.events());
    let storm = Storm::new(call, |call| assert!(add(call, 1)));
    for sector in 0..200 {
        low.read(sector);
        low.queue.notify().unwrap();
        low.get(Duration::from_secs(1)).unwrap();
    }
    daemon.run(|peer| peer.serve = Serve::Take);
    let token = low.read(0);
    low.queue.notify().unwrap();
    for limit in [0, 30, 200].map(Duration::from_millis) {
        let late = low.get(limit).unwrap_err();
        assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    }
    daemon.run(|peer| {
        peer.serve = Serve::All;
        peer.answer_taken(0);
    });
    assert_eq!(low.get(Duration::from_secs(1)).unwrap(), token);
    assert!(storm.end() > 1000);
    low.device.close().unwrap();
}

#[test]
fn v18_a_call_is_a_hint_and_the_ring_decides() {
    let _alone = alone();
    // A call as soon as there is an event for it, long before DRIVER_OK.
    let daemon = Daemon::start(Offer::default(), |turn, peer| {
        if turn.request() == Request::SET_VRING_CALL {
            peer.rings[&0].call();
        }
        turn.honestly()
    });
    let mut low = Low::open(&daemon.address(), LONG);
    let limit = Duration::from_millis(60);
    let late = low.get(limit).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    // Calls without a completion.
    daemon.run(|peer| peer.serve = Serve::Take);
    let token = low.read(5);
    low.queue.notify().unwrap();
    daemon.until(|peer| peer.taken() == 1);
    for _ in 0..5 {
        daemon.run(|peer| peer.rings[&0].call());
        let late = low.get(limit).unwrap_err();
        assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    }
    // A completion without a call.
    let (_, call) = daemon.run(|peer| peer.events());
    let quiet = |peer: &mut Peer| {
        let (_, call) = peer.events();
        let _ = rustix::io::read(&call, &mut [0; 8]);
    };
    daemon.run(move |peer| {
        peer.answer_taken(0);
        quiet(peer);
    });
    assert_eq!(low.get(limit).unwrap(), token);
    daemon.run(|peer| (peer.serve, peer.calls) = (Serve::All, false));
    for sector in 0..5 {
        low.read(sector);
        low.queue.notify().unwrap();
        timely(Duration::from_secs(1), || low.get(LONG)).unwrap();
    }
    assert!(rustix::io::read(&call, &mut [0; 8]).is_err(), "nobody called");
    low.device.close().unwrap();
}

/// Runs `call` in a thread; fails where it does not end, rather than to wait for it.
fn ends<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = channel();
    thread::spawn(move || drop(done.send(call())));
    outcome.recv_timeout(Duration::from_secs(20)).expect("it is held up by its peer")
}

/// Fills the counter, and has every write to it wait.
fn block_writes(event: &OwnedFd) {
    fcntl_setfl(event, OFlags::NONBLOCK | OFlags::RDWR).unwrap();
    add(event, FULL);
    fcntl_setfl(event, OFlags::RDWR).unwrap();
}

/// Has every read of the counter wait, and takes away what was there.
fn block_reads(event: &OwnedFd) {
    fcntl_setfl(event, OFlags::NONBLOCK | OFlags::RDWR).unwrap();
    let _ = rustix::io::read(event, &mut [0; 8]);
    fcntl_setfl(event, OFlags::RDWR).unwrap();
}

fn copy(event: &EventFd) -> OwnedFd {
    event.as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn v20_no_signal_waits_for_a_peer_that_fills_the_counter_and_has_writes_wait() {
    let _alone = alone();
    let event = EventFd::for_peer().unwrap();
    block_writes(&copy(&event));
    let signalled = event.clone();
    ends(move || (0..2000).try_for_each(|_| signalled.signal())).unwrap();
    assert!(event.drain().unwrap());
    assert!(!event.drain().unwrap());
    event.signal().unwrap();
    assert!(event.wait(Deadline::after(Duration::ZERO)).unwrap() && event.drain().unwrap());
    // While the peer is at it.
    let storm = Storm::new(copy(&event), |event| {
        block_writes(event);
        block_reads(event);
    });
    let (signalled, drained) = (event.clone(), event.clone());
    let end = Instant::now() + Duration::from_secs(1);
    let drains = thread::spawn(move || {
        ends(move || {
            while Instant::now() < end {
                drained.drain().unwrap();
            }
        });
    });
    let signals = ends(move || {
        let mut signals = 0;
        while Instant::now() < end {
            signalled.signal().unwrap();
            signals += 1;
        }
        signals
    });
    drains.join().unwrap();
    assert!(signals > 1000 && storm.end() > 1000, "{signals}");
}

#[test]
fn v20_a_device_whose_kicks_and_calls_were_made_to_wait_works_and_keeps_its_deadlines() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer::default());
    let disk = Arc::new(Block::open(&daemon.address(), small(Duration::from_millis(500))).unwrap());
    let (kick, call) = daemon.run(|peer| peer.events());
    let storms = [
        Storm::new(kick, |kick| {
            block_writes(kick);
            thread::yield_now();
        }),
        Storm::new(call, |call| {
            block_writes(call);
            block_reads(call);
        }),
    ];
    let (reader, reads) = (Arc::clone(&disk), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&reads);
    ends(move || {
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            // A call that the storm ate costs half of the time; no wait costs more than all of it.
            timely(Duration::from_millis(500), || reader.read(512, &mut [0; 512])).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(reads.load(Ordering::Relaxed) > 10);
    for storm in storms {
        storm.end();
    }
    // The end of the connection wakes whoever waits for the device, through the call among others.
    let (_, call) = daemon.run(|peer| {
        peer.serve = Serve::Take;
        peer.events()
    });
    let waiter = Arc::clone(&disk);
    let waits = thread::spawn(move || waiter.read(0, &mut [0; 512]));
    daemon.until(|peer| peer.taken() == 1);
    block_writes(&call);
    daemon.run(Peer::end);
    let ended = ends(move || waits.join().unwrap()).unwrap_err();
    assert!(matches!(ended.kind(), Error::Indeterminate { .. }), "{ended}");
    let closed = ends(move || disk.close()).unwrap_err();
    assert!(matches!(closed.kind(), Error::DeviceGone { .. }), "{closed}");
}
