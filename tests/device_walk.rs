//! Random walks through the life of a device that lies: no panic, no hang, no leak, no token lost or doubled.
#![cfg(all(feature = "soft", not(loom)))]

mod driver_common;

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::time::Duration;

use driver_common::{Way, checked, kept_the_rules, ways};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use virtio::device::{Device, Options, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::mem::quarantine::kept;
use virtio::queue::Token;
use virtio::soft::{Console, DeviceLie, Lie, Run, SoftDevice};
use virtio::transport::{open_mmio, open_pci};
use virtio::{Error, Result};

/// Longest time that all walks together may take.
const TOO_LONG: Duration = Duration::from_secs(300);
const BUFFERS: u32 = 32;

#[derive(Debug, Clone)]
enum Step {
    Open,
    Negotiate(bool),
    Take(u16),
    Start,
    Add(usize),
    Notify(usize),
    Pop(usize),
    Get(usize),
    Events,
    DropQueue(usize),
    Reset,
    Close,
    Tell(DeviceLie),
    Honest,
}

fn ring_lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        (1u16..).prop_map(|by| Lie::UsedIdxAhead { by }),
        (1u16..).prop_map(|by| Lie::UsedIdxBack { by }),
        any::<u32>().prop_map(|id| Lie::UsedIdRange { id }),
        (0u32..256).prop_map(|id| Lie::UsedIdNotHead { id }),
        any::<u32>().prop_map(|len| Lie::UsedLenTooLarge { len }),
        any::<u64>().prop_map(|seed| Lie::ScribbleRing { seed }),
        any::<u16>().prop_map(|event| Lie::AvailEventStuck { event }),
        (1u16..300).prop_map(|count| Lie::UsedBeforeAvailable { count }),
        Just(Lie::UsedTwice),
        Just(Lie::NoNotifyStuck),
        Just(Lie::AllOnes),
        Just(Lie::NoInterrupts),
    ]
}

fn lie() -> impl Strategy<Value = DeviceLie> {
    prop_oneof![
        3 => (0u16..2, 0u64..4, ring_lie())
            .prop_map(|(queue, chain, lie)| DeviceLie::Ring { queue, chain, lie }),
        1 => prop_oneof![
            Just(DeviceLie::StatusNeverResets),
            Just(DeviceLie::StatusAllOnes),
            Just(DeviceLie::FeaturesOkNotSticky),
            Just(DeviceLie::NoVersion1),
            Just(DeviceLie::QueueEnableReads0),
            Just(DeviceLie::PageNumberReads(77)),
            Just(DeviceLie::Stalls),
            Just(DeviceLie::Removed),
            Just(DeviceLie::AllOnes),
            Just(DeviceLie::EarlyInterrupt),
            Just(DeviceLie::GenerationChanges),
            Just(DeviceLie::IsrLosesConfig),
            Just(DeviceLie::NotifyOff(u16::MAX)),
            (0u64..6).prop_map(|after| DeviceLie::NeedsReset { after }),
            any::<u32>().prop_map(DeviceLie::UsedLen),
            (0u16..2, any::<u16>()).prop_map(|(queue, size)| DeviceLie::QueueSize { queue, size }),
        ],
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        4 => any::<bool>().prop_map(Step::Negotiate),
        5 => (0u16..3).prop_map(Step::Take),
        4 => Just(Step::Start),
        8 => (0usize..3).prop_map(Step::Add),
        6 => (0usize..3).prop_map(Step::Notify),
        6 => (0usize..3).prop_map(Step::Pop),
        2 => (0usize..3).prop_map(Step::Get),
        1 => Just(Step::Events),
        1 => (0usize..3).prop_map(Step::DropQueue),
        2 => Just(Step::Reset),
        1 => Just(Step::Close),
        2 => lie().prop_map(Step::Tell),
        2 => Just(Step::Honest),
    ]
}

/// A queue and the tokens that it owes an answer for.
struct Owing {
    queue: Queue<DmaBuf>,
    owed: BTreeSet<Token>,
}

impl Owing {
    /// Books what a wait or a look gave: each token once, and none that was not given out.
    fn book(&mut self, result: Result<Option<Token>>) -> Option<Error> {
        match result {
            Ok(Some(token)) => assert!(self.owed.remove(&token), "{token:?} was not owed"),
            Ok(None) => {}
            Err(error) => {
                if let Error::Indeterminate { token } = error.kind() {
                    assert!(self.owed.remove(&Token::from_raw(*token)), "{token:#x} was not owed");
                }
                return Some(error);
            }
        }
        None
    }
}

struct Walk {
    way: Way,
    soft: SoftDevice,
    device: Option<Device>,
    pool: Option<DmaPool>,
    queues: Vec<Owing>,
    lied: bool,
}

impl Walk {
    fn new(way: Way) -> Self {
        let builder = SoftDevice::builder(Console::new(80, 25)).interface(way.interface);
        let soft = checked(builder.byte_order(way.order).run(Run::Inline));
        Self { way, soft, device: None, pool: None, queues: Vec::new(), lied: false }
    }

    fn open(&mut self) -> Result<()> {
        if self.device.is_some() {
            return Ok(());
        }
        let transport = if self.way.interface.is_pci() {
            open_pci(self.soft.pci()?, self.way.choice, self.way.order)?
        } else {
            open_mmio(self.soft.mmio()?, self.way.order)?
        };
        let mut options = Options::default();
        options.control_timeout = Duration::from_millis(2);
        self.device = Some(Device::open(transport, options)?);
        self.pool = Some(self.device.as_ref().unwrap().pool(BUFFERS, 64)?);
        Ok(())
    }

    fn add(&mut self, at: usize) -> Result<()> {
        let (Some(owing), Some(pool)) = (self.queues.get_mut(at), &self.pool) else { return Ok(()) };
        let Ok(buf) = pool.take() else { return Ok(()) };
        let token = if owing.queue.index() == 0 {
            owing.queue.add_chain([], [buf])?
        } else {
            owing.queue.add_chain([buf], [])?
        };
        assert!(owing.owed.insert(token), "{token:?} was given out twice");
        Ok(())
    }

    fn take(&mut self, index: u16) -> Result<()> {
        if let Some(device) = &self.device {
            let queue = device.take_queue(index, QueueConfig::size(16))?;
            self.queues.push(Owing { queue, owed: BTreeSet::new() });
        }
        Ok(())
    }

    /// Ends the device's life, with an honest reset: everything is answered and comes home.
    fn close(&mut self) {
        self.soft.be_honest().unwrap();
        let Some(device) = self.device.take() else { return };
        device.close().unwrap();
        for mut owing in self.queues.drain(..) {
            for _ in 0..=1000 {
                let result = owing.queue.pop().map(|used| used.map(|used| used.token));
                if let Some(error) = owing.book(result)
                    && !matches!(error.kind(), Error::Indeterminate { .. })
                {
                    assert!(
                        matches!(error.kind(), Error::Closed { .. } | Error::DeviceGone { .. }),
                        "{error}"
                    );
                    break;
                }
            }
            assert!(owing.owed.is_empty(), "never answered: {:?}", owing.owed);
        }
        assert_eq!(device.memory().quarantine().tally().count, 0);
        if let Some(pool) = self.pool.take() {
            assert_eq!(pool.free(), BUFFERS as usize);
        }
    }

    /// Errors are what lies and wrong orders of calls give: only panics and what is booked count.
    fn take_step(&mut self, step: &Step) -> Result<()> {
        let device = self.device.as_ref();
        match step {
            Step::Open => self.open()?,
            Step::Negotiate(event) => {
                let wanted = if *event { Features::EVENT_IDX } else { Features::INDIRECT_DESC };
                device.map_or(Ok(Features::EMPTY), |device| device.negotiate(wanted, Features::EMPTY))?;
            }
            Step::Take(index) => self.take(*index)?,
            Step::Start => device.map_or(Ok(()), Device::start)?,
            Step::Add(at) => self.add(*at)?,
            Step::Notify(at) => self.queues.get_mut(*at).map_or(Ok(()), |owing| owing.queue.notify())?,
            Step::Pop(at) | Step::Get(at) => {
                let Some(owing) = self.queues.get_mut(*at) else { return Ok(()) };
                let result = if matches!(step, Step::Pop(_)) {
                    owing.queue.pop().map(|used| used.map(|used| used.token))
                } else {
                    owing.queue.get(Some(Duration::from_millis(1))).map(|used| Some(used.token))
                };
                owing.book(result);
            }
            Step::Events => {
                device.map_or(Ok(()), |device| device.events().map(drop))?;
            }
            Step::DropQueue(at) if *at < self.queues.len() => drop(self.queues.remove(*at)),
            Step::DropQueue(_) => {}
            Step::Reset => device.map_or(Ok(()), Device::reset)?,
            Step::Close => self.close(),
            Step::Tell(lie) => {
                self.lied = true;
                self.soft.tell(lie.clone())?;
            }
            Step::Honest => self.soft.be_honest()?,
        }
        Ok(())
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn walk(way: Way, steps: &[Step]) {
    let before = (descriptors(), kept());
    let mut walk = Walk::new(way);
    for step in steps {
        let _ = walk.take_step(step);
    }
    walk.close();
    if !walk.lied {
        kept_the_rules(&walk.soft);
    }
    drop(walk);
    assert_eq!((descriptors(), kept()), before, "something was left");
}

#[test]
fn r2_r3_r5_r8_any_walk_with_any_lies_ends_with_every_token_answered_and_nothing_left() {
    let (done, ended) = channel();
    let walks = std::thread::spawn(move || {
        let mut runner =
            TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
        // Most walks begin as a driver does, so that they get far.
        let opening = [Step::Open, Step::Negotiate(true), Step::Take(0), Step::Take(1), Step::Start];
        let strategy =
            (prop::sample::select(ways()), 0..=opening.len(), prop::collection::vec(step(), 1..60));
        let result = runner.run(&strategy, |(way, head, steps)| {
            let steps: Vec<_> = opening[..head].iter().cloned().chain(steps).collect();
            walk(way, &steps);
            Ok(())
        });
        let _ = done.send(result.map_err(|error| error.to_string()));
    });
    match ended.recv_timeout(TOO_LONG) {
        Ok(result) => result.unwrap(),
        Err(error) => panic!("the walks hang or died: {error}"),
    }
    walks.join().unwrap();
}
