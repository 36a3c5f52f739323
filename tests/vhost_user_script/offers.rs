//! What a back-end offers, and what it is without: features, protocol features, the place where it is met.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::fs::SealFlags;
use virtio::Error;
use virtio::drivers::{Block, BlockOptions, Entropy, Reconnect};
use virtio::spec::vhost_user::{Request, protocol};

use crate::daemon::Place;
use crate::script::{ALL, Daemon, Do, FEATURES, Offer, SIZE};
use crate::wire::answer;
use crate::{Step, alone, descriptors, life, small, timely};

const LONG: Duration = Duration::from_secs(10);

/// A configuration in which every field has a value that can be.
fn full_config() -> Vec<u8> {
    let mut config = Offer::default().config;
    let mut word = |at: usize, value: u32| config[at..at + 4].copy_from_slice(&value.to_le_bytes());
    word(8, 1 << 20);
    word(12, 126);
    word(20, 512);
    // num_queues, in the upper half.
    word(32, 1 << 16);
    for at in [36, 40, 44, 48, 52, 60, 64, 68] {
        word(at, 1);
    }
    config
}

#[test]
fn v5_memory_that_is_shared_cannot_be_shrunk_and_nothing_of_a_back_end_is_mapped() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer::default());
    let disk = Block::open(&daemon.address(), small(LONG)).unwrap();
    disk.device().pool(1, 8 << 20).unwrap();
    daemon.run(|peer| {
        assert!(peer.regions.told.len() > 1);
        for told in &peer.regions.told {
            // A page that went away would be a SIGBUS for whoever reads it.
            assert_eq!(told.file.set_len(0).unwrap_err().raw_os_error(), Some(1));
            let seals = rustix::fs::fcntl_get_seals(&*told.file).unwrap();
            assert!(seals.contains(SealFlags::SHRINK | SealFlags::SEAL), "{seals:?}");
            assert!(told.offset + told.len <= told.file.metadata().unwrap().len());
        }
    });
    disk.read(0, &mut [0; 512]).unwrap();
    // Messages whose answer has a descriptor are never sent: no wrong one can come (those that do: V4).
    const WITH_FDS: [u32; 5] = [28, 31, 41, 42, 44];
    assert!(daemon.heard().iter().all(|line| !WITH_FDS.contains(&line.request.0)));
}

#[test]
fn v6_bits_that_were_not_offered_or_are_not_known_are_not_used() {
    let _alone = alone();
    // All of them.
    let offer = Offer { features: u64::MAX, protocol: u64::MAX, config: full_config(), ..Offer::default() };
    let daemon = Daemon::honest(offer);
    let disk = Block::open(&daemon.address(), small(LONG)).unwrap();
    disk.close().unwrap();
    let protocol: Vec<_> = daemon.heard_of(Request::SET_PROTOCOL_FEATURES);
    assert_eq!(protocol[0].payload, ALL.to_ne_bytes());
    let features = &daemon.heard_of(Request::SET_FEATURES)[0].payload;
    let features = u64::from_ne_bytes(features[..].try_into().unwrap());
    // Logging, an IOMMU, SR-IOV, data in notifications, administration, what no version specifies.
    for bit in [26, 33, 37, 38, 39, 41, 44, 50, 63] {
        assert_eq!(features >> bit & 1, 0, "bit {bit} of {features:#x}");
    }
    for bit in [29, 30, 32] {
        assert_eq!(features >> bit & 1, 1, "bit {bit} of {features:#x}");
    }
    // The protocol's own bits are not shown to drivers, whatever they want.
    let device = virtio::open(&format!("{}?type=block", daemon.address())).unwrap();
    let shown = device.offered().unwrap();
    assert_eq!([26, 30, 29, 32].map(|bit| shown.has(bit)), [false, false, true, true], "{shown:?}");
    drop(device);
    // None but VERSION_1.
    let daemon = Daemon::honest(Offer { features: 1 << 32, protocol: u64::MAX, ..Offer::default() });
    let disk = Block::open(&format!("{}?size=1M", daemon.address()), small(LONG)).unwrap();
    disk.read(0, &mut [0; 512]).unwrap();
    disk.close().unwrap();
    assert!(daemon.heard_of(Request::GET_PROTOCOL_FEATURES).is_empty(), "there are none to ask for");
    assert!(daemon.heard_of(Request::SET_VRING_ENABLE).is_empty());
    assert_eq!(daemon.heard_of(Request::SET_FEATURES)[0].payload, (1u64 << 32).to_ne_bytes());
}

#[test]
fn v6_an_acknowledgement_that_was_not_agreed_on_is_refused() {
    let _alone = alone();
    let offer = Offer { protocol: ALL & !protocol::REPLY_ACK, ..Offer::default() };
    for at in [Request::SET_OWNER, Request::SET_FEATURES, Request::SET_VRING_NUM, Request::SET_VRING_ENABLE] {
        let daemon = Daemon::start(offer.clone(), move |turn, _| match turn.request() == at {
            true => vec![Do::Send(answer(at.0, &[0; 8]))],
            false => turn.honestly(),
        });
        let (step, error) = life(&daemon.address(), LONG).unwrap_err();
        assert!(step == Step::Open && matches!(error, Error::Protocol { .. }), "{at:?}: {error} at {step:?}");
    }
}

#[test]
fn v11_memory_for_requests_in_flight_is_never_asked_for() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer { protocol: ALL | protocol::INFLIGHT_SHMFD, ..Offer::default() });
    life(&daemon.address(), LONG).unwrap();
    // GET_INFLIGHT_FD and SET_INFLIGHT_FD: without them there are no sizes, offsets and counters to lie about.
    assert!(daemon.heard().iter().all(|line| !matches!(line.request.0, 31 | 32)));
    assert_eq!(daemon.heard_of(Request::SET_PROTOCOL_FEATURES)[0].payload, ALL.to_ne_bytes());
}

#[test]
fn v21_event_idx_is_agreed_on_wherever_it_is_offered() {
    let _alone = alone();
    for features in [FEATURES, FEATURES & !(1 << 29)] {
        let daemon = Daemon::honest(Offer { features, ..Offer::default() });
        life(&daemon.address(), LONG).unwrap();
        let taken = |daemon: &Daemon| {
            u64::from_ne_bytes(daemon.heard_of(Request::SET_FEATURES)[0].payload[..].try_into().unwrap())
        };
        assert_eq!(taken(&daemon) & 1 << 29, features & 1 << 29);
        let daemon = Daemon::honest(Offer { features, ..Offer::default() });
        let entropy = Entropy::open(&daemon.address(), LONG).unwrap();
        drop(entropy);
        assert_eq!(taken(&daemon) & 1 << 29, features & 1 << 29);
    }
}

#[test]
fn back_ends_with_any_of_the_protocol_features_and_without_the_others_are_used() {
    let _alone = alone();
    let bits: Vec<u64> = (0..64).map(|bit| 1 << bit).filter(|bit| ALL & bit != 0).collect();
    let before = descriptors();
    for chosen in 0..1u32 << bits.len() {
        let some = bits.iter().enumerate().filter(|(at, _)| chosen >> at & 1 != 0);
        let protocol = some.map(|(_, bit)| bit).sum();
        let daemon = Daemon::honest(Offer { protocol, ..Offer::default() });
        // What tells its configuration is believed, whatever the address says.
        let size = if protocol & protocol::CONFIG == 0 { "1M" } else { "7M" };
        life(&format!("{}?size={size}", daemon.address()), LONG).unwrap();
        let heard = |request: Request| !daemon.heard_of(request).is_empty();
        let has = |bit: u64| protocol & bit != 0;
        assert_eq!(heard(Request::GET_QUEUE_NUM), has(protocol::MQ));
        assert_eq!(heard(Request::GET_CONFIG), has(protocol::CONFIG));
        assert_eq!(heard(Request::SET_BACKEND_REQ_FD), has(protocol::BACKEND_REQ));
        assert_eq!(heard(Request::SET_STATUS), has(protocol::STATUS));
        assert_eq!(heard(Request::RESET_DEVICE), has(protocol::RESET_DEVICE));
        assert_eq!(heard(Request::ADD_MEM_REG), has(protocol::CONFIGURE_MEM_SLOTS));
        assert_eq!(heard(Request::SET_MEM_TABLE), !has(protocol::CONFIGURE_MEM_SLOTS));
        let acknowledged = daemon.heard().iter().filter(|line| line.flags & 8 != 0).count();
        assert_eq!(acknowledged != 0, has(protocol::REPLY_ACK));
        for line in daemon.heard() {
            let fds = match line.request {
                Request::SET_VRING_KICK | Request::SET_VRING_CALL => 1,
                Request::ADD_MEM_REG | Request::SET_BACKEND_REQ_FD => 1,
                Request::SET_MEM_TABLE => line.payload.len() / 32,
                _ => 0,
            };
            assert_eq!(line.fds, fds, "{line:?}");
        }
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn a_back_end_with_status_is_led_through_it() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer::default());
    life(&daemon.address(), LONG).unwrap();
    let told: Vec<u8> = daemon.heard_of(Request::SET_STATUS).iter().map(|line| line.payload[0]).collect();
    // ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK between two resets (VIRTIO 1.4 §3.1.1).
    assert_eq!(told, [0, 1, 3, 11, 15, 0]);
    // One that refuses the features.
    let daemon = Daemon::start(Offer::default(), |mut turn, _| {
        if let (Request::GET_STATUS, Some(honest)) = (turn.request(), &mut turn.honest) {
            honest[12] &= !8;
        }
        turn.honestly()
    });
    let (step, error) = life(&daemon.address(), LONG).unwrap_err();
    assert!(step == Step::Open && matches!(error, Error::FeaturesRejected { .. }), "{error} at {step:?}");
}

fn waiting(limit: Duration) -> BlockOptions {
    let mut options = small(LONG);
    options.control_timeout = limit;
    options
}

#[test]
fn a_back_end_that_connects_is_waited_for_at_the_path() {
    let _alone = alone();
    let before = descriptors();
    for _ in 0..3 {
        let daemon = Daemon::honest(Offer { connects: true, ..Offer::default() });
        life(&format!("{}?server=on", daemon.address()), LONG).unwrap();
        assert!(!daemon.path().exists(), "the path goes with the device");
    }
    // Nobody comes.
    let place = Place::new();
    let path = place.path("wait.sock");
    let address = format!("vhost-user:{}?server=on", path.display());
    let limit = Duration::from_millis(100);
    let late = timely(limit, || Block::open(&address, waiting(limit))).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    assert!(!path.exists());
    // Somebody comes and says nothing.
    let silent = std::thread::spawn({
        let path = path.clone();
        move || {
            loop {
                match UnixStream::connect(&path) {
                    Ok(stream) => break stream,
                    Err(_) => std::thread::yield_now(),
                }
            }
        }
    });
    let late = timely(limit, || Block::open(&address, waiting(limit))).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    drop(silent.join().unwrap());
    assert_eq!(descriptors(), before);
}

#[test]
fn e3_a_path_is_taken_over_from_a_socket_at_which_nobody_waits_and_from_no_other() {
    let _alone = alone();
    let place = Place::new();
    let path = place.path("script.sock");
    let address = format!("vhost-user:{}?server=on", path.display());
    let limit = Duration::from_millis(50);
    let other = UnixListener::bind(&path).unwrap();
    let taken = Block::open(&address, waiting(limit)).unwrap_err();
    assert_eq!(taken.errno(), 98, "{taken}");
    assert!(path.exists());
    drop(other);
    let late = Block::open(&address, waiting(limit)).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "it waited there: {late}");
    assert!(!path.exists());
    std::fs::write(&path, b"a file").unwrap();
    let taken = Block::open(&address, waiting(limit)).unwrap_err();
    assert_eq!(taken.errno(), 98, "{taken}");
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[test]
fn a_back_end_that_connects_again_is_taken_up_again() {
    let _alone = alone();
    let daemon = Daemon::honest(Offer { connects: true, ..Offer::default() });
    let mut options = small(LONG);
    options.reconnect = Reconnect::Retry;
    let disk = Block::open(&format!("{}?server=on", daemon.address()), options).unwrap();
    assert_eq!(disk.size(), SIZE as u64);
    for round in 1..4u8 {
        disk.write_retry(0, &[round; 512]).unwrap();
        daemon.run(|peer| peer.end());
        let mut back = [0; 512];
        timely(LONG, || disk.read(0, &mut back)).unwrap();
        assert_eq!(back, [round; 512]);
    }
    assert!(daemon.heard_of(Request::SET_OWNER).len() >= 4);
}

#[test]
fn v19_a_kick_never_precedes_the_handling_of_the_last_enable() {
    let _alone = alone();
    for protocol in [ALL, ALL & !protocol::REPLY_ACK, protocol::CONFIG, protocol::STATUS | protocol::CONFIG] {
        for _ in 0..10 {
            // Slow, and swallows what was kicked before.
            let daemon = Daemon::start(Offer { protocol, ..Offer::default() }, |turn, peer| {
                if turn.request() == Request::SET_VRING_ENABLE {
                    std::thread::sleep(Duration::from_millis(5));
                    let (kick, _) = peer.events();
                    let swallowed = rustix::io::read(kick.as_fd(), &mut [0; 8]);
                    assert!(swallowed.is_err(), "a kick came before");
                }
                turn.honestly()
            });
            let disk = Block::open(&daemon.address(), small(LONG)).unwrap();
            // A lost kick is sent again after half of the ten seconds.
            timely(Duration::from_secs(1), || disk.read(0, &mut [0; 512])).unwrap();
            let heard = daemon.heard();
            let last = heard.iter().rposition(|line| line.request == Request::SET_VRING_ENABLE).unwrap();
            assert!(heard[last..].iter().any(|line| line.answer.is_some()), "a round trip follows");
            disk.close().unwrap();
        }
    }
}
