//! Answers that come in pieces, cut off, wrong, with descriptors, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use virtio::Error;
use virtio::drivers::Block;
use virtio::spec::vhost_user::{Request, flags, protocol};

use crate::script::{Daemon, Do, Line, Offer};
use crate::wire::{MOST_FDS, answer};
use crate::{LARGEST, SLACK, Step, alone, descriptors, life, small, stalled, timely};

const LONG: Duration = Duration::from_secs(10);

/// What is heard in one honest life.
fn whole(offer: &Offer) -> Vec<Line> {
    let daemon = Daemon::honest(offer.clone());
    life(&daemon.address(), LONG).unwrap();
    daemon.heard()
}

/// A message that is answered.
#[derive(Debug, Clone, Copy)]
struct Due {
    /// Its number in the connection.
    at: usize,
    request: Request,
    /// Bytes of the honest answer.
    len: usize,
    /// Whether it belongs to a reset: whatever ends the connection then, the device is gone.
    reset: bool,
}

impl Due {
    /// Whether a connection that ended in the midst of this message was told of as it has to be.
    fn ended(&self, error: &Error, told: impl Fn(&Error) -> bool) -> bool {
        if self.reset { matches!(error, Error::DeviceGone { .. }) } else { told(error) }
    }
}

/// The messages that are answered in one honest life.
fn answered(offer: &Offer) -> Vec<Due> {
    let (mut all, mut reset) = (Vec::new(), false);
    for (at, line) in whole(offer).into_iter().enumerate() {
        match line.request {
            Request::GET_VRING_BASE | Request::RESET_DEVICE => reset = true,
            Request::SET_STATUS => reset = line.payload == [0; 8],
            Request::GET_STATUS => {}
            _ => reset = false,
        }
        all.extend(line.answer.map(|len| Due { at, request: line.request, len, reset }));
    }
    all
}

/// One life in which the answer to message number `at` is what `lie` makes of it.
fn lied(
    offer: &Offer,
    at: usize,
    limit: Duration,
    lie: impl Fn(Vec<u8>) -> Vec<Do> + Send + 'static,
) -> Result<(), (Step, Error)> {
    let daemon = Daemon::start(offer.clone(), move |mut turn, _| match (turn.at == at, turn.honest.take()) {
        (true, Some(honest)) => lie(honest),
        (_, honest) => honest.into_iter().map(Do::Send).collect(),
    });
    life(&daemon.address(), limit)
}

/// Offers that differ in what is said with them.
fn offers() -> [Offer; 2] {
    let poor = protocol::MQ | protocol::CONFIG;
    [Offer::default(), Offer { protocol: poor, ..Offer::default() }]
}

#[test]
fn v1_answers_that_come_byte_by_byte_are_put_together() {
    let _alone = alone();
    for offer in offers() {
        let daemon = Daemon::start(offer.clone(), |turn, _| turn.honest.into_iter().map(Do::Drip).collect());
        life(&daemon.address(), LONG).unwrap();
        // Header and payload apart, as real daemons send them.
        let daemon = Daemon::start(offer, |turn, _| {
            let halves = turn.honest.into_iter().map(|bytes| (bytes[..12].to_vec(), bytes[12..].to_vec()));
            halves.flat_map(|(head, tail)| [Do::Send(head), Do::Send(tail)]).collect()
        });
        life(&daemon.address(), LONG).unwrap();
    }
}

#[test]
fn v2_an_answer_that_is_cut_at_any_byte_ends_the_connection() {
    let _alone = alone();
    let offer = Offer::default();
    for due in answered(&offer) {
        for cut in 0..due.len {
            let lie = move |honest: Vec<u8>| vec![Do::Send(honest[..cut].to_vec()), Do::Close];
            let (step, error) = lied(&offer, due.at, LONG, lie).unwrap_err();
            let told = due.ended(&error, |error| *error == Error::Disconnected { partial: cut as u32 });
            assert!(told, "{due:?}, cut at {cut}: {error} at {step:?}");
        }
    }
}

#[test]
fn v2_half_a_connection_is_none() {
    let _alone = alone();
    for end in [Do::ShutWrite, Do::ShutRead] {
        for due in answered(&Offer::default()) {
            let end = end.clone();
            let lie = move |honest: Vec<u8>| match end {
                Do::ShutRead => vec![end.clone(), Do::Send(honest)],
                _ => vec![end.clone()],
            };
            let limit = Duration::from_secs(1);
            match lied(&Offer::default(), due.at, limit, lie) {
                // A request that the back-end could have had.
                Err((Step::Read, Error::Indeterminate { .. })) => {}
                Err((_, error)) => {
                    let told = matches!(error, Error::Disconnected { .. } | Error::DeviceGone { .. });
                    assert!(told, "{due:?}: {error}");
                }
                // Who does not read any more may have heard the last word.
                Ok(()) => assert_eq!(due.request, Request::GET_STATUS, "{due:?}"),
            }
        }
    }
}

/// One way to spoil an answer.
type Spoil = fn(&mut Vec<u8>);

/// Headers that no answer has. Bytes 0 to 3 are the request, 4 to 7 the flags, 8 to 11 the length.
const HEADERS: [(&str, Spoil); 14] = [
    ("another request", |bytes| bytes[0] ^= 1),
    ("a request's upper bits", |bytes| bytes[3] = 0x80),
    ("version 0", |bytes| bytes[4] &= !3),
    ("version 2", |bytes| bytes[4] = bytes[4] & !3 | 2),
    ("version 3", |bytes| bytes[4] |= 3),
    ("not an answer", |bytes| bytes[4] &= !4),
    ("a length of 0", |bytes| bytes[8..12].fill(0)),
    ("one byte less", |bytes| bytes[8] -= 1),
    ("one byte more", |bytes| bytes[8] += 1),
    ("a page", |bytes| bytes[8..12].copy_from_slice(&4096u32.to_ne_bytes())),
    ("a page and a byte", |bytes| bytes[8..12].copy_from_slice(&4097u32.to_ne_bytes())),
    ("1 GiB", |bytes| bytes[8..12].copy_from_slice(&(1u32 << 30).to_ne_bytes())),
    ("2 GiB", |bytes| bytes[8..12].copy_from_slice(&(1u32 << 31).to_ne_bytes())),
    ("4 GiB", |bytes| bytes[8..12].fill(0xff)),
];

#[test]
fn v3_an_answer_with_a_wrong_header_is_refused_before_anything_is_allocated_for_it() {
    let _alone = alone();
    let offer = Offer::default();
    let dues = answered(&offer);
    LARGEST.store(0, Ordering::Relaxed);
    life(&Daemon::honest(offer.clone()).address(), LONG).unwrap();
    let usual = LARGEST.load(Ordering::Relaxed);
    assert!(usual < 32 << 20, "{usual}");
    for due in dues {
        for (name, spoil) in HEADERS {
            // A configuration of no bytes is a refusal, and asked for again with fewer.
            if due.request == Request::GET_CONFIG && name == "a length of 0" {
                continue;
            }
            let lie = move |mut honest: Vec<u8>| {
                spoil(&mut honest);
                vec![Do::Send(honest)]
            };
            // It is found by the header alone: nothing more has to come.
            let outcome = timely(LONG, || lied(&offer, due.at, LONG, lie));
            let (step, error) = outcome.unwrap_err();
            let told = due.ended(&error, |error| matches!(error, Error::Protocol { .. }));
            assert!(told, "{due:?}, {name}: {error} at {step:?}");
        }
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= usual, "{largest} bytes were allocated, {usual} in an honest life");
}

#[test]
fn v3_after_a_broken_answer_the_connection_is_closed_and_not_used_again() {
    let _alone = alone();
    let lie = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&lie);
    let daemon = Daemon::start(Offer::default(), move |turn, _| match armed.load(Ordering::Relaxed) {
        true => vec![Do::Send(answer(99, &[0; 8]))],
        false => turn.honestly(),
    });
    let disk = Block::open(&daemon.address(), small(LONG)).unwrap();
    lie.store(true, Ordering::Relaxed);
    let broken = disk.device().config().read(0, 8).unwrap_err();
    assert!(matches!(broken.kind(), Error::Protocol { .. }), "{broken}");
    daemon.until(|peer| peer.stream.is_none());
    let heard = daemon.heard().len();
    let after = disk.device().config().read(0, 8).unwrap_err();
    assert_eq!(after.kind(), broken.kind(), "what ended it is told again");
    // Whoever comes first may have made its request available before it finds the end.
    let read = timely(Duration::ZERO, || disk.read(0, &mut [0; 512])).unwrap_err();
    assert!(matches!(read.kind(), Error::DeviceGone { .. } | Error::Indeterminate { .. }), "{read}");
    let read = timely(Duration::ZERO, || disk.read(0, &mut [0; 512])).unwrap_err();
    assert!(matches!(read.kind(), Error::DeviceGone { .. }), "{read}");
    assert_eq!(daemon.heard().len(), heard);
    let closed = timely(Duration::ZERO, || disk.close()).unwrap_err();
    assert!(matches!(closed.kind(), Error::DeviceGone { .. }), "{closed}");
}

#[test]
fn v4_descriptors_that_come_with_an_answer_are_closed_and_the_answer_is_refused() {
    let _alone = alone();
    let offer = Offer::default();
    let dues = answered(&offer);
    let before = descriptors();
    for due in dues {
        // 33 and more are cut off by the kernel, which says so.
        for fds in [1, 33, MOST_FDS] {
            for at in [0, 11, 12, due.len - 1] {
                let lie = move |honest: Vec<u8>| {
                    let (head, tail) = honest.split_at(at);
                    vec![Do::Send(head.to_vec()), Do::WithFds(tail.to_vec(), fds)]
                };
                let (step, error) = lied(&offer, due.at, LONG, lie).unwrap_err();
                let told = due.ended(&error, |error| matches!(error, Error::Protocol { .. }));
                assert!(told, "{due:?}, {fds} from byte {at} on: {error} at {step:?}");
            }
        }
        assert_eq!(descriptors(), before, "{due:?}");
    }
}

#[test]
fn v7_each_message_that_is_refused_names_itself_and_the_back_end_s_code() {
    let _alone = alone();
    let offer = Offer::default();
    let mut refused = Vec::new();
    for line in whole(&offer).into_iter().enumerate().filter(|(_, line)| line.flags & flags::NEED_REPLY != 0)
    {
        let (at, line) = line;
        for code in [1, u64::MAX] {
            let lie = move |mut honest: Vec<u8>| {
                honest[12..20].copy_from_slice(&code.to_ne_bytes());
                vec![Do::Send(honest)]
            };
            let (step, error) = lied(&offer, at, LONG, lie).unwrap_err();
            let request = line.request.name().unwrap();
            assert_eq!(error, Error::BackendRefused { request, code }, "message {at} at {step:?}");
        }
        refused.push(line.request);
    }
    for request in [
        Request::SET_OWNER,
        Request::SET_BACKEND_REQ_FD,
        Request::SET_FEATURES,
        Request::ADD_MEM_REG,
        Request::SET_VRING_NUM,
        Request::SET_VRING_BASE,
        Request::SET_VRING_ADDR,
        Request::SET_VRING_CALL,
        Request::SET_VRING_KICK,
        Request::SET_VRING_ENABLE,
        Request::SET_STATUS,
        Request::RESET_DEVICE,
    ] {
        assert!(refused.contains(&request), "{request:?} is acknowledged");
    }
}

#[test]
fn v8_numbers_that_no_device_has_are_refused() {
    let _alone = alone();
    for queues in [0, 1 << 16, u64::MAX] {
        let (step, error) =
            life(&Daemon::honest(Offer { queues, ..Offer::default() }).address(), LONG).unwrap_err();
        assert!(step == Step::Open && matches!(error, Error::Protocol { .. }), "{queues} queues: {error}");
    }
    let (step, error) =
        life(&Daemon::honest(Offer { slots: 0, ..Offer::default() }).address(), LONG).unwrap_err();
    assert!(step == Step::Open && matches!(error, Error::Protocol { .. }), "no slots: {error}");
    // Many are no fault, and nothing is made for them; one slot is enough for a life that needs one region.
    for (queues, slots) in [(65_535, u64::MAX), (257, 1 << 40)] {
        let daemon = Daemon::honest(Offer { queues, slots, ..Offer::default() });
        life(&daemon.address(), LONG).unwrap();
    }
    let daemon = Daemon::honest(Offer { slots: 1, ..Offer::default() });
    let (step, error) = life(&daemon.address(), LONG).unwrap_err();
    assert!(step == Step::Region && matches!(error, Error::MemoryLimit { .. }), "{error} at {step:?}");
}

#[test]
fn v8_where_a_ring_stopped_is_one_of_its_indices_and_the_ring_that_was_asked_for() {
    let _alone = alone();
    let offer = Offer::default();
    let stop = answered(&offer).into_iter().find(|due| due.request == Request::GET_VRING_BASE).unwrap();
    for (at, value) in [(16, 0x1_0000u32), (16, u32::MAX), (16, 0x8000_0000), (12, 1), (12, u32::MAX)] {
        let lie = move |mut honest: Vec<u8>| {
            honest[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            vec![Do::Send(honest)]
        };
        let (step, error) = lied(&offer, stop.at, LONG, lie).unwrap_err();
        assert!(step == Step::Close && matches!(error, Error::Protocol { .. }), "{error} at {step:?}");
    }
}

#[test]
fn v8_a_status_that_has_no_byte_or_stays_after_a_reset_is_refused() {
    let _alone = alone();
    let offer = Offer::default();
    for due in answered(&offer).into_iter().filter(|due| due.request == Request::GET_STATUS) {
        for value in [0x100u64, u64::MAX, 1 << 63] {
            let lie = move |mut honest: Vec<u8>| {
                honest[12..20].copy_from_slice(&value.to_ne_bytes());
                vec![Do::Send(honest)]
            };
            let (_, error) = lied(&offer, due.at, LONG, lie).unwrap_err();
            assert!(matches!(error, Error::Protocol { .. }), "{due:?}: {error}");
        }
        if due.reset {
            let lie = |mut honest: Vec<u8>| {
                honest[12] = 4;
                vec![Do::Send(honest)]
            };
            let (_, error) = lied(&offer, due.at, LONG, lie).unwrap_err();
            assert!(matches!(error, Error::Protocol { .. }), "{due:?}: {error}");
        }
    }
}

#[test]
fn v9_a_configuration_that_was_not_asked_for_is_refused() {
    let _alone = alone();
    let offer = Offer::default();
    for due in answered(&offer).into_iter().filter(|due| due.request == Request::GET_CONFIG) {
        for (name, spoil) in [
            ("another offset", (|bytes| bytes[12] = 1) as Spoil),
            ("another length inside", |bytes| bytes[16] -= 1),
            ("a length inside of 4 GiB", |bytes| bytes[16..20].fill(0xff)),
            ("eight bytes less", |bytes| {
                bytes.truncate(bytes.len() - 8);
                bytes[8] -= 8;
                bytes[16] -= 8;
            }),
        ] {
            let lie = move |mut honest: Vec<u8>| {
                spoil(&mut honest);
                vec![Do::Send(honest)]
            };
            let (step, error) = lied(&offer, due.at, LONG, lie).unwrap_err();
            assert!(matches!(error, Error::Protocol { .. }), "{due:?}, {name}: {error} at {step:?}");
        }
    }
    // A refusal is an answer without bytes, in one of two forms. Asked for less, it may have something.
    for refusal in [vec![], vec![0; 12]] {
        let said = refusal.clone();
        let daemon = Daemon::start(Offer::default(), move |turn, _| match turn.request() {
            Request::GET_CONFIG => vec![Do::Send(answer(24, &said))],
            _ => turn.honestly(),
        });
        let (step, error) = life(&daemon.address(), LONG).unwrap_err();
        assert!(step == Step::Open && matches!(error, Error::Protocol { .. }), "{error} at {step:?}");
        assert!(daemon.heard_of(Request::GET_CONFIG).len() < 20);
        let daemon = Daemon::start(Offer::default(), move |turn, _| match turn.request() {
            Request::GET_CONFIG if turn.heard.payload.len() > 40 => vec![Do::Send(answer(24, &refusal))],
            _ => turn.honestly(),
        });
        life(&daemon.address(), LONG).unwrap();
    }
}

#[test]
fn v13_p10_an_answer_that_never_comes_ends_at_the_deadline_wherever_it_is_due() {
    let _alone = alone();
    let offer = Offer::default();
    let before = descriptors();
    for due in answered(&offer) {
        for part in [0, 12, due.len - 1] {
            let limit = Duration::from_millis(40);
            let asked = Arc::new(OnceLock::new());
            let heard = Arc::clone(&asked);
            let daemon = Daemon::start(offer.clone(), move |turn, _| match turn.at {
                at if at < due.at => turn.honestly(),
                at if at > due.at => vec![],
                _ => {
                    heard.set(Instant::now()).unwrap();
                    vec![Do::Send(turn.honest.unwrap()[..part].to_vec())]
                }
            });
            let before = stalled();
            let (step, error) = life(&daemon.address(), limit).unwrap_err();
            // One limit for the answer, and one for closing what had been opened.
            let (took, most) = (
                asked.get().map_or(Duration::ZERO, Instant::elapsed),
                2 * limit + SLACK + (stalled() - before),
            );
            assert!(took <= most, "{due:?}, {part} bytes: {took:?}, {most:?} allowed");
            // Honest answers that a busy machine delays by more than a limit end a life as well.
            assert!(matches!(error, Error::Timeout { .. }), "{due:?}, {part} bytes: {error} at {step:?}");
        }
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn v13_answers_that_come_late_are_taken_for_the_questions_that_they_answer() {
    let _alone = alone();
    let late = Arc::new(AtomicBool::new(false));
    let (armed, mut held) = (Arc::clone(&late), Vec::new());
    let daemon = Daemon::start(Offer::default(), move |mut turn, peer| {
        if armed.load(Ordering::Relaxed) {
            held.extend(turn.honest.take().map(Do::Send));
            // What the device will say when it is asked again.
            peer.offer.config[8] += 1;
            return vec![];
        }
        held.drain(..).chain(turn.honestly()).collect()
    });
    let limit = Duration::from_millis(50);
    // On a busy machine an honest opening may take longer than that.
    let disk = (0..100).find_map(|_| Block::open(&daemon.address(), small(limit)).ok()).unwrap();
    late.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = timely(limit, || disk.device().transport().config_generation()).unwrap_err();
        assert!(matches!(error.kind(), Error::Timeout { .. }), "{error}");
    }
    late.store(false, Ordering::Relaxed);
    daemon.run(|peer| peer.offer.config[0] = 0x77);
    let now = disk.device().transport().read_config(0, 1).unwrap();
    assert_eq!(now, 0x77, "the last answer is the last question's");
}

#[test]
fn v13_a_back_end_that_owes_too_many_answers_is_given_up() {
    let _alone = alone();
    let silent = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&silent);
    let daemon = Daemon::start(Offer::default(), move |turn, _| match armed.load(Ordering::Relaxed) {
        true => vec![],
        false => turn.honestly(),
    });
    let limit = Duration::from_millis(40);
    // On a busy machine an honest opening may take longer than that.
    let disk = (0..100).find_map(|_| Block::open(&daemon.address(), small(limit)).ok()).unwrap();
    silent.store(true, Ordering::Relaxed);
    let mut late = 0;
    let end = loop {
        let error = timely(limit, || disk.device().config().read(0, 8)).unwrap_err();
        match error.kind() {
            Error::Timeout { .. } => late += 1,
            _ => break error,
        }
    };
    assert!(matches!(end.kind(), Error::Protocol { .. }) && late <= 32, "after {late}: {end}");
    daemon.until(|peer| peer.stream.is_none());
}
