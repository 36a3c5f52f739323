//! Ends of a connection with requests in flight, and what becomes of their memory. The daemon is of this process, so
//! that nothing proves its death: it may write what it was given as long as it likes (rule R9).

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use virtio::Error;
use virtio::drivers::{Block, Reconnect};
use virtio::mem::quarantine::kept;
use virtio::spec::vhost_user::Request;

use crate::ring::Regions;
use crate::script::{Daemon, Offer, Peer, Serve};
use crate::{Low, alone, descriptors, small, timely};

const LONG: Duration = Duration::from_secs(10);

/// A daemon that takes requests and keeps them.
fn taker() -> Daemon {
    let daemon = Daemon::honest(Offer::default());
    daemon.run(|peer| peer.serve = Serve::Take);
    daemon
}

/// Which files stand behind regions.
fn files(regions: &Regions) -> BTreeSet<u64> {
    regions.told.iter().map(|told| told.file.metadata().unwrap().ino()).collect()
}

#[test]
fn v12_a_lost_connection_ends_each_request_once_and_keeps_the_memory() {
    let _alone = alone();
    let before = descriptors();
    for how_many in [1, 7, 20] {
        let daemon = taker();
        let mut low = Low::open(&daemon.address(), LONG);
        let mut flying: BTreeSet<u64> = (0..how_many).map(|sector| low.read(sector).into_raw()).collect();
        low.queue.notify().unwrap();
        daemon.until(move |peer| peer.taken() == how_many as usize);
        // One is answered before the end, which is no reason not to have it.
        daemon.run(move |peer| peer.answer_taken(how_many as usize - 1));
        daemon.run(Peer::end);
        assert!(flying.remove(&low.get(LONG).unwrap().into_raw()), "the one that was answered");
        while !flying.is_empty() {
            match timely(Duration::from_millis(100), || low.get(LONG)).unwrap_err().kind() {
                Error::Indeterminate { token } => assert!(flying.remove(token), "{token} twice"),
                other => panic!("{other}"),
            }
        }
        for _ in 0..2 {
            let after = timely(Duration::ZERO, || low.get(LONG)).unwrap_err();
            assert!(matches!(after.kind(), Error::DeviceGone { .. }), "{after}");
        }
        let held = kept().bytes;
        let closed = timely(Duration::from_millis(100), || low.device.close()).unwrap_err();
        assert!(
            matches!(closed.kind(), Error::DeviceGone { .. }),
            "nothing proves that it is dead: {closed}"
        );
        drop(low);
        assert!(kept().bytes > held, "what the daemon may still write is kept");
        drop(daemon);
    }
    assert_eq!(descriptors(), before, "mappings are kept, descriptors are not");
}

#[test]
fn v12_a_read_in_a_driver_ends_when_the_connection_does() {
    let _alone = alone();
    let daemon = taker();
    let disk = Block::open(&daemon.address(), small(LONG)).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| timely(Duration::from_secs(2), || disk.read(0, &mut [0; 512])));
        daemon.until(|peer| peer.taken() == 1);
        daemon.run(Peer::end);
        let error = reader.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
    });
    let after = disk.read(0, &mut [0; 512]).unwrap_err();
    assert!(matches!(after.kind(), Error::DeviceGone { .. }), "{after}");
}

#[test]
fn v13_a_silent_back_end_is_given_up_and_its_memory_is_kept() {
    let _alone = alone();
    let limit = Duration::from_millis(200);
    let daemon = taker();
    let before = kept().bytes;
    let mut low = Low::open(&daemon.address(), limit);
    let token = low.read(0);
    low.queue.notify().unwrap();
    for _ in 0..3 {
        let late = low.get(limit).unwrap_err();
        assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    }
    // It answers messages, and the request never comes back: stopping the ring proves nothing for its memory.
    let late = timely(limit, || low.device.close()).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    assert!(!daemon.heard_of(Request::GET_VRING_BASE).is_empty());
    match low.get(limit).unwrap_err().kind() {
        Error::Indeterminate { token: ended } => assert_eq!(*ended, token.into_raw()),
        other => panic!("{other}"),
    }
    drop(low);
    assert!(kept().bytes > before);
    // Late, and into what nobody else has.
    daemon.until(|peer| !peer.older.is_empty());
    daemon.run(|peer| peer.older[0].overwrite(0xaa));
}

#[test]
fn v15_r9_what_a_lost_back_end_writes_reaches_nothing_that_is_in_use() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer::default());
    let mut options = small(LONG);
    options.reconnect = Reconnect::Retry;
    let disk = Block::open(&daemon.address(), options).unwrap();
    disk.read(0, &mut [0; 512]).unwrap();
    daemon.run(Peer::end);
    disk.read(0, &mut [0; 512]).unwrap();
    // The old connection's memory, all of it, again and again, while the new one works.
    let stop = Arc::new(AtomicBool::new(false));
    let older = daemon.run(|peer| std::mem::take(&mut peer.older));
    let (first, second) = (files(&older[0]), daemon.run(|peer| files(&peer.regions)));
    assert!(!first.is_empty() && !second.is_empty() && first.is_disjoint(&second), "{first:?} {second:?}");
    let over = Arc::clone(&stop);
    let scribbler = thread::spawn(move || {
        let mut byte = 0;
        while !over.load(Ordering::Relaxed) {
            older.iter().for_each(|regions| regions.overwrite(byte));
            byte = byte.wrapping_add(0x55);
        }
    });
    for round in 0..300u64 {
        let (at, fill) = (round % 64 * 4096, round as u8);
        disk.write(at, &[fill; 4096]).unwrap();
        let mut back = [0; 4096];
        disk.read(at, &mut back).unwrap();
        assert!(back.iter().all(|&byte| byte == fill), "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
    disk.close().unwrap();
}

#[test]
fn r9_a_caller_s_own_buffer_is_not_used_again_while_the_old_back_end_may_live() {
    let _alone = alone();
    let daemon = taker();
    let mut options = small(LONG);
    options.reconnect = Reconnect::Retry;
    let disk = Block::open(&daemon.address(), options).unwrap();
    let pool = disk.device().pool(1, 4096).unwrap();
    let buf = pool.take().unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| timely(LONG, || disk.read_into(0, buf)));
        daemon.until(|peer| peer.taken() == 1);
        daemon.run(|peer| {
            peer.end();
            peer.serve = Serve::All;
        });
        // A read is sent again, but not into memory that somebody else may write.
        let error = reader.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
    });
    assert_eq!(pool.free(), 0, "it does not come back");
    let mut back = [0; 512];
    disk.read(512, &mut back).unwrap();
    assert_eq!(back, [1; 512]);
}

/// Also where no write is behind it: nobody knows what else the lost back-end has.
#[test]
fn a_flush_that_was_in_flight_is_never_sent_again() {
    let _alone = alone();
    let daemon = taker();
    let mut options = small(LONG);
    options.reconnect = Reconnect::Retry;
    let disk = Block::open(&daemon.address(), options).unwrap();
    thread::scope(|scope| {
        let flusher = scope.spawn(|| timely(LONG, || disk.flush()));
        daemon.until(|peer| peer.taken() == 1);
        daemon.run(|peer| {
            peer.end();
            peer.serve = Serve::All;
        });
        let error = flusher.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
    });
    disk.flush().unwrap();
}

#[test]
fn e2_a_daemon_that_comes_back_with_fewer_features_is_refused() {
    let _alone = alone();
    // VIRTIO_BLK_F_FLUSH, and one of the rings: EVENT_IDX.
    for bit in [9, 29] {
        let daemon = Daemon::honest(Offer::default());
        let mut options = small(LONG);
        options.reconnect = Reconnect::Retry;
        let disk = Block::open(&daemon.address(), options).unwrap();
        disk.read(0, &mut [0; 512]).unwrap();
        daemon.run(move |peer| {
            peer.offer.features &= !(1 << bit);
            peer.end();
        });
        let less = timely(LONG, || disk.read(0, &mut [0; 512])).unwrap_err();
        assert!(matches!(less.kind(), Error::Incompatible { what: "features", .. }), "{less}");
        daemon.run(move |peer| peer.offer.features |= 1 << bit);
        disk.read(0, &mut [0; 512]).unwrap();
    }
}

/// Cloud Hypervisor went on at the available index of the old connection, and so past what had been taken and not
/// finished; then traffic stood still.
#[test]
fn p12_requests_that_were_taken_and_not_finished_are_not_skipped() {
    let _alone = alone();
    for policy in [Reconnect::Retry, Reconnect::Fail] {
        let daemon = taker();
        let mut options = small(LONG);
        options.reconnect = policy;
        // Sixteen requests of a sector each.
        (options.chunk, options.window, options.queue_size) = (512, 8192, Some(64));
        let disk = Block::open(&daemon.address(), options).unwrap();
        let outcome = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut data = vec![0; 8192];
                timely(LONG, || disk.read(0, &mut data)).map(|()| data)
            });
            daemon.until(|peer| peer.taken() == 16);
            // Some are finished, the others are lost with the connection.
            daemon.run(|peer| {
                peer.answer_taken(11);
                peer.end();
                peer.serve = Serve::All;
            });
            reader.join().unwrap()
        });
        if policy == Reconnect::Fail {
            let error = outcome.unwrap_err();
            assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
            continue;
        }
        let data = outcome.unwrap();
        assert!(data.chunks(512).zip(0..).all(|(sector, at)| sector.iter().all(|&byte| byte == at)));
        // Both rings started at 0.
        let bases = daemon.heard_of(Request::SET_VRING_BASE);
        assert_eq!(bases.len(), 2);
        assert!(bases.iter().all(|line| line.payload[4..] == [0; 4]));
        let lives: Vec<usize> = bases.iter().map(|line| line.life).collect();
        assert_eq!(lives, [0, 1]);
        // And it goes on.
        for round in 0..100 {
            let mut data = vec![0; 8192];
            timely(Duration::from_secs(2), || disk.read(0, &mut data)).unwrap();
            assert_eq!(data[8191], 15, "round {round}");
        }
        disk.close().unwrap();
    }
}
