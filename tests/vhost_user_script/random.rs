//! Whatever a back-end says, at any point of a device's life: an error or none, in time, with nothing left open.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use virtio::drivers::Block;
use virtio::spec::vhost_user::flags;

use crate::script::{ALL, Daemon, Do, FEATURES, Offer, Peer, Serve};
use crate::wire::message;
use crate::{alone, descriptors, small, timely};

const LIMIT: Duration = Duration::from_millis(30);

/// One thing that a back-end does where an answer would be due.
#[derive(Debug, Clone)]
enum Act {
    Honest,
    Silent,
    /// Bytes without sense.
    Noise(Vec<u8>),
    /// A message that could be one, whatever was asked.
    Message {
        request: u32,
        flags: u32,
        payload: Vec<u8>,
        fds: usize,
    },
    /// The answer, with bytes of it changed.
    Spoilt(Vec<(usize, u8)>),
    /// The answer twice.
    Twice,
    /// A part of it, and the rest with what comes next.
    Late(usize),
    Close,
    ShutWrite,
    /// A request of its own, in front of the answer.
    Ask {
        request: u32,
        flags: u32,
        payload: Vec<u8>,
        fds: usize,
    },
    /// Bytes on the socket of its requests.
    AskNoise(Vec<u8>),
    /// All of the shared memory is written over.
    Scribble(u8),
    /// The rings are served in another way from now on.
    Serve(Serve),
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = |most: usize| proptest::collection::vec(any::<u8>(), 0..most);
    let parts = || {
        let known =
            (prop_oneof![0..45u32, any::<u32>()], prop_oneof![0..16u32, Just(flags::VERSION | flags::REPLY)]);
        (known, bytes(100), prop_oneof![8 => Just(0usize), 1 => 1..40usize])
    };
    let message =
        parts().prop_map(|((request, flags), payload, fds)| Act::Message { request, flags, payload, fds });
    let ask = parts().prop_map(|((request, flags), payload, fds)| Act::Ask { request, flags, payload, fds });
    prop_oneof![
        24 => Just(Act::Honest),
        1 => Just(Act::Silent),
        3 => bytes(200).prop_map(Act::Noise),
        3 => message,
        6 => proptest::collection::vec((0..40usize, any::<u8>()), 1..4).prop_map(Act::Spoilt),
        1 => Just(Act::Twice),
        2 => (0..20usize).prop_map(Act::Late),
        1 => Just(Act::Close),
        1 => Just(Act::ShutWrite),
        4 => ask,
        2 => bytes(100).prop_map(Act::AskNoise),
        1 => any::<u8>().prop_map(Act::Scribble),
        1 => prop_oneof![Just(Serve::Nothing), Just(Serve::Take)].prop_map(Act::Serve),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let protocol =
        prop_oneof![3 => Just(ALL), 2 => any::<u64>().prop_map(|bits| bits & ALL), 1 => any::<u64>()];
    let features = prop_oneof![4 => Just(FEATURES), 1 => any::<u64>().prop_map(|bits| bits | FEATURES)];
    let config = proptest::option::weighted(0.2, proptest::collection::vec(any::<u8>(), 256));
    (protocol, features, config, prop_oneof![Just(1u64), any::<u64>()], prop_oneof![Just(8u64), any::<u64>()])
        .prop_map(|(protocol, features, config, queues, slots)| {
            let config = config.unwrap_or_else(|| Offer::default().config);
            Offer { protocol, features, config, queues, slots, ..Offer::default() }
        })
}

/// What a message becomes. Bytes that were held back go first.
fn perform(act: &Act, honest: Option<Vec<u8>>, held: &mut Vec<u8>, peer: &mut Peer) -> Vec<Do> {
    let mut steps = Vec::new();
    let held = std::mem::take(held);
    steps.extend((!held.is_empty()).then_some(Do::Send(held)));
    let answer = honest.map(Do::Send);
    match act {
        Act::Silent => {}
        Act::Noise(bytes) => steps.push(Do::Send(bytes.clone())),
        Act::Message { request, flags, payload, fds } => {
            steps.push(Do::WithFds(message(*request, *flags, payload), *fds));
        }
        Act::Spoilt(changes) => {
            if let Some(Do::Send(mut bytes)) = answer {
                for &(at, byte) in changes {
                    let len = bytes.len();
                    bytes[at % len] = byte;
                }
                steps.push(Do::Send(bytes));
            }
        }
        Act::Twice => steps.extend(answer.clone().into_iter().chain(answer)),
        Act::Late(_) | Act::Honest => steps.extend(answer),
        Act::Close => steps.push(Do::Close),
        Act::ShutWrite => steps.push(Do::ShutWrite),
        Act::Ask { request, flags, payload, fds } => {
            if peer.backend.is_some() {
                peer.ask(&message(*request, *flags, payload), *fds);
            }
            steps.extend(answer);
        }
        Act::AskNoise(bytes) => {
            if peer.backend.is_some() {
                peer.ask(bytes, 0);
            }
            steps.extend(answer);
        }
        Act::Scribble(byte) => {
            if peer.regions.memory.is_some() {
                peer.regions.overwrite(*byte);
                // What it wrote over it cannot serve.
                peer.serve = Serve::Nothing;
            }
            steps.extend(answer);
        }
        Act::Serve(serve) => {
            peer.serve = *serve;
            steps.extend(answer);
        }
    }
    steps
}

/// A daemon that does one thing after the other, and then is honest.
fn daemon(offer: Offer, acts: Arc<Vec<Act>>) -> Daemon {
    let mut held = Vec::new();
    let mut turns = acts.iter().cloned().collect::<Vec<_>>().into_iter();
    Daemon::start(offer, move |turn, peer| {
        let act = turns.next().unwrap_or(Act::Honest);
        let mut steps = perform(&act, turn.honest, &mut held, peer);
        if let (Act::Late(part), Some(Do::Send(bytes))) = (&act, steps.last_mut()) {
            held = bytes.split_off((*part).min(bytes.len()));
        }
        steps
    })
}

/// A device's life in which no error is one too many. A step that fails ends neither the life nor the test.
fn live(address: &str) {
    // As long as the messages of an opening and of a closing, should each of them be late by a little less than its
    // limit.
    let all = LIMIT * 40;
    let Ok(disk) = timely(all, || Block::open(address, small(LIMIT))) else { return };
    for round in 0..3 {
        let _ = timely(all, || disk.device().config().read(0, 8));
        let _ = timely(all, || disk.device().pool(1, (4 << 20) << round));
        let _ = timely(all, || disk.read(512, &mut [0; 1024]));
        let _ = timely(all, || disk.write(512, &[7; 512]));
        let _ = timely(all, || disk.events());
    }
    let _ = timely(all, || disk.device().reset());
    let _ = timely(all, || disk.close());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn v3_v10_v13_whatever_a_back_end_says_nothing_panics_hangs_or_leaks(
        offer in offer(),
        acts in proptest::collection::vec(act(), 1..45),
        honest in 0..40usize,
    ) {
        let _alone = alone();
        let before = descriptors();
        let script: Vec<Act> = std::iter::repeat_n(Act::Honest, honest).chain(acts).collect();
        let daemon = daemon(offer, Arc::new(script));
        live(&format!("{}?size=1M", daemon.address()));
        drop(daemon);
        prop_assert_eq!(descriptors(), before);
    }
}
