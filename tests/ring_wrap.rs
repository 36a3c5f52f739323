//! Ring indices wrap at 65,536, whatever the queue size: more chains than that through every size up to 64.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use std::collections::VecDeque;

use ring_common::{Case, RING_ADDR, TABLE_ADDR, memory_at};
use virtio::mem::lease::{Lease, RawRange};
use virtio::queue::{Ring, SlotOrder, Token};
use virtio::soft::{DeviceChain, DeviceRing};

/// Once around and some more.
const CHAINS: u32 = 65_536 + 1_000;

fn range(addr: u64, len: u32) -> RawRange {
    // SAFETY: the device of these tests touches no payload.
    unsafe { RawRange::new(addr, len) }
}

/// How both sides take notifications.
#[derive(Clone, Copy, PartialEq)]
enum Hear {
    /// Of every batch: both sides ask for the next entry before they would sleep.
    Each,
    /// Of nothing: both sides poll.
    Nothing,
}

struct Run {
    case: Case,
    hear: Hear,
    ring: Ring<RawRange>,
    device: DeviceRing,
    tables: virtio::mem::cell::RingMemory,
    flying: VecDeque<(Token, u32)>,
    added: u32,
    taken: u32,
}

impl Run {
    fn new(case: Case, hear: Hear) -> Self {
        let config = case.config();
        let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        let (tables, _) = memory_at(TABLE_ADDR, config.table_bytes());
        let ring = Ring::new(&memory, case.indirect.then_some(&tables), &config).unwrap();
        let device = DeviceRing::beside(&memory, &config).unwrap();
        Self { case, hear, ring, device, tables, flying: VecDeque::new(), added: 0, taken: 0 }
    }

    /// One to three, as far as the size allows.
    fn parts(&self, number: u32) -> u32 {
        1 + number % u32::from(self.case.size.min(3))
    }

    /// Adds up to `count` chains of one to three parts; each names its number in its addresses.
    fn fill(&mut self, count: u32) {
        for _ in 0..count {
            let (number, parts) = (self.added, self.parts(self.added));
            if !self.ring.has_room(parts as u16) {
                return;
            }
            let mut chain = self.ring.chain();
            for part in 0..parts {
                let buf = range(u64::from(number) << 16 | u64::from(part), number % 1_000 + 1);
                chain = if part == 0 { chain.readable(buf) } else { chain.writable(buf) };
            }
            self.flying.push_back((chain.add().unwrap(), number));
            self.added += 1;
        }
    }

    /// The device takes all that was published and uses it, the last of each two first.
    fn serve(&mut self) {
        let mut chains = Vec::new();
        while let Some(chain) = self.device.pop(&self.tables).unwrap() {
            chains.push(chain);
        }
        let published = self.flying.len() - chains.len();
        for (chain, (token, number)) in chains.iter().zip(self.flying.iter().skip(published)) {
            assert_eq!(chain.head, token.slot());
            assert_eq!(chain.descs.len(), self.parts(*number) as usize);
            for (part, desc) in (0..).zip(&chain.descs) {
                assert_eq!(desc.addr, u64::from(*number) << 16 | part);
                assert_eq!((desc.len, desc.writable), (number % 1_000 + 1, part != 0));
            }
        }
        for pair in chains.chunks(2) {
            pair.iter().rev().for_each(|chain| self.use_chain(chain));
        }
    }

    fn use_chain(&mut self, chain: &DeviceChain) {
        self.device.push_used(chain.head, chain.writable_len() as u32);
    }

    fn drain(&mut self) {
        let most = u32::from(self.case.size.min(3));
        while let Some(done) = self.ring.pop().unwrap() {
            let token = done.token();
            let at = self.flying.iter().position(|(flying, _)| *flying == token).expect("in flight");
            let (_, number) = self.flying.remove(at).unwrap();
            let parts = 1 + number % most;
            assert_eq!(done.written(), (parts - 1) * (number % 1_000 + 1));
            let bufs: Vec<u64> = done.map(|buf| buf.device_addr()).collect();
            let wanted: Vec<u64> = (0..parts).map(|part| u64::from(number) << 16 | u64::from(part)).collect();
            assert_eq!(bufs, wanted);
            self.taken += 1;
        }
    }

    fn run(mut self) {
        if self.hear == Hear::Nothing {
            self.device.disable_notifications();
            self.ring.disable_interrupts();
        }
        let told = self.hear == Hear::Each;
        let mut batch = 0;
        while self.taken < CHAINS {
            if told {
                assert!(!self.device.enable_notifications().unwrap());
                assert!(!self.ring.enable_interrupts().unwrap());
            }
            batch = batch % u32::from(self.case.size) + 1;
            let before = self.added;
            self.fill(batch);
            assert_ne!(self.added, before, "a ring that was drained has room for a chain");
            let kick = self.ring.publish();
            assert_eq!(kick.is_some(), told, "a kick around entry {before}");
            assert!(kick.is_none_or(|kick| kick.next == self.added as u16));
            self.serve();
            assert_eq!(self.device.publish_used(), told, "an interrupt around entry {before}");
            self.drain();
            assert_eq!(self.ring.outstanding(), 0);
        }
        assert!(self.flying.is_empty());
        assert_eq!(self.ring.free(), u32::from(self.case.size));
        let counters = self.ring.counters();
        assert_eq!((counters.added, counters.used), (self.added.into(), self.added.into()));
    }
}

fn around(size: u16) {
    for indirect in [false, true] {
        for event_idx in [false, true] {
            for slots in [SlotOrder::FreeList, SlotOrder::Ring] {
                for hear in [Hear::Each, Hear::Nothing] {
                    Run::new(Case { size, slots, ..Case::new(indirect, event_idx) }, hear).run();
                }
            }
        }
    }
}

macro_rules! sizes {
    ($($name:ident $size:literal)*) => {$(
        #[test]
        fn $name() {
            around($size);
        }
    )*};
}

sizes! {
    a_ring_of_1_goes_around 1
    a_ring_of_2_goes_around 2
    a_ring_of_4_goes_around 4
    a_ring_of_8_goes_around 8
    a_ring_of_16_goes_around 16
    a_ring_of_32_goes_around 32
    a_ring_of_64_goes_around 64
}

/// The largest size that there is, full each time: the index wraps with half of all its values outstanding.
#[test]
fn the_largest_ring_goes_around_full_and_takes_one_chain_of_all_its_descriptors() {
    const SIZE: u16 = 32_768;
    for event_idx in [false, true] {
        let case = Case { size: SIZE, ..Case::new(false, event_idx) };
        let config = case.config();
        let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        let mut ring = Ring::new(&memory, None, &config).unwrap();
        let mut device = DeviceRing::beside(&memory, &config).unwrap();
        for _ in 0..5 {
            let tokens: Vec<Token> =
                (0..SIZE).map(|at| ring.add([range(at.into(), 1)], []).unwrap()).collect();
            let full = ring.add([range(0, 1)], []).map_err(virtio::Error::from);
            assert!(matches!(full, Err(virtio::Error::QueueFull { .. })), "{full:?}");
            assert!(ring.publish().is_some());
            for token in &tokens {
                let chain = device.pop(&()).unwrap().expect("it was published");
                assert_eq!(chain.head, token.slot());
                device.push_used(chain.head, 0);
            }
            assert!(!device.enable_notifications().unwrap());
            let _ = device.publish_used();
            assert_eq!(ring.outstanding(), SIZE);
            for token in tokens {
                assert_eq!(ring.pop().unwrap().map(|done| done.token()), Some(token));
            }
            assert!(ring.pop().unwrap().is_none());
        }
        let chain =
            (1..SIZE).fold(ring.chain().readable(range(7, 3)), |chain, _| chain.writable(range(8, 2)));
        let token = chain.add().unwrap();
        let _ = ring.publish();
        let chain = device.pop(&()).unwrap().expect("it was published");
        assert_eq!((chain.descs.len(), chain.writable_len()), (SIZE.into(), 2 * (u64::from(SIZE) - 1)));
        device.push_used(chain.head, 5);
        let _ = device.publish_used();
        let done = ring.pop().unwrap().expect("it was completed");
        assert_eq!((done.token(), done.written(), done.len()), (token, 5, SIZE.into()));
        drop(done);
        assert_eq!(ring.free(), SIZE.into());
    }
}
