//! Requests of the back-end (fault V10): answered or refused, so many at a time, and never waited for.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio::drivers::Block;
use virtio::event::{Deadline, wait_readable};
use virtio::spec::vhost_user::{BackendRequest, Header, ORDER, flags};

use crate::script::{Daemon, Offer, Peer, SIZE};
use crate::wire::{MOST_FDS, message, send};
use crate::{alone, descriptors, small, timely};

const LONG: Duration = Duration::from_secs(10);
const ASK: u32 = flags::VERSION | flags::NEED_REPLY;

fn open() -> (Daemon, Block) {
    let daemon = Daemon::honest(Offer::default());
    let disk = Block::open(&daemon.address(), small(LONG)).unwrap();
    (daemon, disk)
}

fn works(disk: &Block) {
    let mut data = [0; 512];
    timely(Duration::from_secs(1), || disk.read(3 * 512, &mut data)).unwrap();
    assert_eq!(data, [3; 512]);
}

/// The next answer on the back-end's socket, as request and code.
fn answered(peer: &mut Peer) -> (u32, u64) {
    let stream = peer.backend.as_mut().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut bytes = [0; 20];
    stream.read_exact(&mut bytes).unwrap();
    let header = Header::decode(bytes[..12].try_into().unwrap(), ORDER);
    assert_eq!((header.flags, header.size), (flags::VERSION | flags::REPLY, 8));
    (header.request, u64::from_ne_bytes(bytes[12..].try_into().unwrap()))
}

/// Whether the front-end has closed its end.
fn closed(peer: &mut Peer) -> bool {
    let stream = peer.backend.as_mut().unwrap();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut polled, Some(&now)).unwrap();
    polled[0].revents().contains(PollFlags::RDHUP)
}

/// Whether the device's channel wakes whoever waits for it.
fn wakes(disk: &Block) -> bool {
    let channel = disk.device().transport().channel().unwrap();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&channel, PollFlags::IN)], Some(&now)).unwrap() > 0
}

#[test]
fn v10_a_changed_configuration_is_told_read_and_acknowledged() {
    let _alone = alone();
    let (daemon, disk) = open();
    for (round, drip) in [(1u64, false), (2, true)] {
        daemon.run(move |peer| {
            peer.offer.config[..8].copy_from_slice(&(SIZE as u64 / 512 * round / 2).to_le_bytes());
            let bytes = message(BackendRequest::CONFIG_CHANGE.0, ASK, &[]);
            match drip {
                true => bytes.iter().for_each(|byte| peer.ask(&[*byte], 0)),
                false => peer.ask(&bytes, 0),
            }
        });
        let channel = disk.device().transport().channel().unwrap();
        let end = Deadline::after(LONG);
        while !disk.events().unwrap().config_changed {
            assert!(wait_readable(&*channel, end).unwrap(), "a request wakes whoever watches");
        }
        assert_eq!(daemon.run(answered), (2, 0));
        assert_eq!(disk.size(), SIZE as u64 * round / 2);
    }
    works(&disk);
}

#[test]
fn v10_what_is_not_known_is_refused_in_its_turn_and_in_portions() {
    let _alone = alone();
    let (daemon, disk) = open();
    // Shared memory, calls and errors without an event, what is not specified: none of it was agreed on.
    let asked: Vec<u32> = [1, 3, 4, 5, 6, 7, 8, 9, 10, 99, 0, u32::MAX].repeat(4);
    let sent = asked.clone();
    daemon.run(move |peer| {
        for request in sent {
            peer.ask(&message(request, flags::VERSION, &[7; 64]), 0);
            peer.ask(&message(request, ASK, &[7; 40]), 0);
        }
    });
    let transport = disk.device().transport();
    assert!(!transport.attend().unwrap(), "none of it changes the configuration");
    for request in &asked[..8] {
        assert_eq!(daemon.run(answered), (*request, 1));
    }
    let more = daemon.run(|peer| {
        let stream = peer.backend.as_mut().unwrap();
        stream.set_nonblocking(true).unwrap();
        let more = stream.read(&mut [0; 1]).is_ok();
        stream.set_nonblocking(false).unwrap();
        more
    });
    assert!(!more, "16 requests are served at a time");
    for request in &asked[8..] {
        let _ = transport.attend().unwrap();
        assert_eq!(daemon.run(answered), (*request, 1));
    }
    works(&disk);
    assert!(!daemon.run(closed));
}

#[test]
fn v10_a_storm_of_requests_holds_nothing_up() {
    let _alone = alone();
    for flags in [flags::VERSION, ASK] {
        let (daemon, disk) = open();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let stream: UnixStream = daemon.run(|peer| peer.backend.as_ref().unwrap().try_clone().unwrap());
        let (over, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let storm = thread::spawn(move || {
            let bytes = message(BackendRequest::CONFIG_CHANGE.0, flags, &[]);
            stream.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
            while !over.load(Ordering::Relaxed) {
                // The answers are not taken.
                send(&stream, &bytes, 0);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let end = Instant::now() + Duration::from_millis(700);
        while Instant::now() < end {
            works(&disk);
            timely(Duration::from_millis(100), || disk.events()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        assert!(sent.load(Ordering::Relaxed) > 100);
        disk.close().unwrap();
    }
}

#[test]
fn v10_a_request_that_is_none_ends_the_requests_and_not_the_device() {
    let _alone = alone();
    let before = descriptors();
    let good = message(BackendRequest::CONFIG_CHANGE.0, ASK, &[]);
    let spoilt = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        (spoilt(4, 0), 0),
        (spoilt(4, 2), 0),
        // An answer to nothing.
        (spoilt(4, 5), 0),
        (spoilt(11, 0xff), 0),
        (spoilt(9, 0x11), 0),
        (good.clone(), 1),
        (good.clone(), MOST_FDS),
        // A region to be mapped, with its descriptor.
        (message(9, ASK, &[0; 32]), 1),
    ];
    for (bytes, fds) in cases {
        let (daemon, disk) = open();
        let held = descriptors();
        let said = bytes.clone();
        daemon.run(move |peer| peer.ask(&said, fds));
        daemon.until({
            let transport = Arc::clone(disk.device().transport());
            move |peer| {
                assert!(!transport.attend().unwrap(), "nothing changed");
                closed(peer)
            }
        });
        assert!(!wakes(&disk), "what has ended wakes nobody");
        assert!(descriptors() < held, "{bytes:?} with {fds}");
        works(&disk);
        disk.close().unwrap();
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn v10_a_request_cut_at_any_byte_and_the_end_of_requests_leave_the_device_as_it_is() {
    let _alone = alone();
    let (daemon, disk) = open();
    let bytes = message(BackendRequest::CONFIG_CHANGE.0, ASK, &[5; 20]);
    for cut in 0..bytes.len() {
        let part = bytes[..cut].to_vec();
        // A channel for each: the device goes on without the one before.
        let (daemon, disk) = open();
        daemon.run(move |peer| {
            peer.ask(&part, 0);
            assert_eq!(poll_none(peer), 0, "nothing is answered yet");
        });
        timely(Duration::ZERO, || disk.events()).unwrap();
        works(&disk);
        daemon.run(|peer| peer.backend = None);
        timely(Duration::ZERO, || disk.events()).unwrap();
        assert!(!wakes(&disk), "cut at {cut}");
        works(&disk);
    }
    drop(disk);
    drop(daemon);
}

/// Bytes that wait on the back-end's socket.
fn poll_none(peer: &mut Peer) -> usize {
    let stream = peer.backend.as_mut().unwrap();
    stream.set_nonblocking(true).unwrap();
    let found = stream.read(&mut [0; 64]).unwrap_or(0);
    stream.set_nonblocking(false).unwrap();
    found
}
