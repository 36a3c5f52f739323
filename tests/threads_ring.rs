//! One ring between two threads, with payload in plain memory: what one end wrote before it moved an index, the
//! other reads after it saw the index moved (VIRTIO 1.4 §2.7.13.3, §2.7.8.2). Nothing else orders the two, so that
//! the thread sanitizer sees a store or a load that is not ordered as a race of the payload.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;
mod soak_common;

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ring_common::{Case, RING_ADDR, TABLE_ADDR, memory_at};
use soak_common::{Random, soak};
use virtio::event::{Deadline, EventFd};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::Lease;
use virtio::queue::{Ring, SlotOrder, Token};
use virtio::soft::{DeviceChain, DeviceRing};

const SIZE: u16 = 64;
/// Most words of a chain: one that the device reads, up to three that it writes.
const PARTS: usize = 4;
const WORDS_ADDR: u64 = 0x7_0000_0000;
/// Longest wait for the other end.
const SOON: Duration = Duration::from_secs(60);

/// Plain memory of both ends, and their bells.
struct Shared {
    words: Vec<UnsafeCell<u64>>,
    kick: EventFd,
    call: EventFd,
}

// SAFETY: a word belongs to the end that its chain is with, and the ring hands it over: that is what is tested.
unsafe impl Sync for Shared {}

impl Shared {
    fn read(&self, at: usize) -> u64 {
        // SAFETY: the caller's end has the word.
        unsafe { self.words[at].get().read() }
    }

    fn write(&self, at: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.words[at].get().write(value) };
    }
}

/// One of the words.
struct Word(usize);

// SAFETY: the address leads to no memory but the word, which outlives both ends.
unsafe impl Lease for Word {
    fn device_addr(&self) -> u64 {
        WORDS_ADDR + self.0 as u64 * 8
    }

    fn len(&self) -> u32 {
        8
    }
}

/// What the device answers in its word number `part`.
fn answer(request: u64, part: u64) -> u64 {
    (request ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn wait(bell: &EventFd, what: &str) {
    assert!(bell.wait(Deadline::after(SOON)).unwrap(), "{what} sleeps for ever");
    bell.drain().unwrap();
}

/// The device's end: takes what is there, and gives some of it back, in any order.
struct Device {
    ring: DeviceRing,
    tables: Option<RingMemory>,
    shared: Arc<Shared>,
    random: Random,
}

impl Device {
    fn serve(mut self, chains: u64) {
        let (mut held, mut left) = (Vec::new(), chains);
        while left > 0 {
            while let Some(chain) = self.pop() {
                held.push(chain);
            }
            if held.is_empty() {
                if !self.ring.enable_notifications().unwrap() {
                    wait(&self.shared.kick, "the device");
                }
                self.ring.disable_notifications();
                continue;
            }
            for _ in 0..=self.random.below(held.len() as u64) {
                let chain = held.swap_remove(self.random.below(held.len() as u64) as usize);
                let written = self.answer(&chain);
                self.ring.push_used(chain.head, written);
                left -= 1;
            }
            if self.ring.publish_used() {
                self.shared.call.signal().unwrap();
            }
        }
    }

    fn pop(&mut self) -> Option<DeviceChain> {
        match &self.tables {
            Some(tables) => self.ring.pop(tables).unwrap(),
            None => self.ring.pop(&()).unwrap(),
        }
    }

    fn answer(&self, chain: &DeviceChain) -> u32 {
        let at = |addr: u64| ((addr - WORDS_ADDR) / 8) as usize;
        let (first, rest) = chain.descs.split_first().unwrap();
        assert!(!first.writable && rest.iter().all(|desc| desc.writable));
        let request = self.shared.read(at(first.addr));
        for (part, desc) in (0..).zip(rest) {
            self.shared.write(at(desc.addr), answer(request, part));
        }
        rest.iter().map(|desc| desc.len).sum()
    }
}

/// The driver's end.
struct Driver {
    ring: Ring<Word>,
    shared: Arc<Shared>,
    random: Random,
    free: Vec<usize>,
    /// Requests in flight, with the words of their answers.
    asked: BTreeMap<Token, (u64, Vec<usize>)>,
}

impl Driver {
    fn drive(&mut self, chains: u64) {
        let (mut added, mut done) = (0, 0);
        while done < chains {
            for _ in 0..=self.random.below(u64::from(SIZE)) {
                let parts = 2 + self.random.below(PARTS as u64 - 1) as usize;
                if added == chains || !self.ring.has_room(parts as u16) {
                    break;
                }
                self.ask(parts);
                added += 1;
            }
            if self.ring.publish().is_some() {
                self.shared.kick.signal().unwrap();
            }
            let taken = self.take();
            done += taken;
            let full = added == chains || !self.ring.has_room(PARTS as u16);
            if taken == 0 && full && done < chains {
                if !self.ring.enable_interrupts().unwrap() {
                    wait(&self.shared.call, "the driver");
                }
                self.ring.disable_interrupts();
            }
        }
        assert!(self.asked.is_empty());
        assert_eq!(self.ring.free(), u32::from(SIZE));
    }

    fn ask(&mut self, parts: usize) {
        let request = self.random.next();
        let words = self.free.split_off(self.free.len() - parts);
        self.shared.write(words[0], request);
        let mut chain = self.ring.chain().readable(Word(words[0]));
        for word in &words[1..] {
            chain = chain.writable(Word(*word));
        }
        self.asked.insert(chain.add().unwrap(), (request, words[1..].to_vec()));
    }

    fn take(&mut self) -> u64 {
        let mut taken = 0;
        while let Some(used) = self.ring.pop().unwrap() {
            let (request, words) = self.asked.remove(&used.token()).expect("a token in flight, once");
            assert_eq!(used.written(), words.len() as u32 * 8);
            self.free.extend(used.map(|word| word.0));
            for (part, word) in (0..).zip(words) {
                assert_eq!(self.shared.read(word), answer(request, part));
            }
            taken += 1;
        }
        taken
    }
}

fn run(case: Case, chains: u64) {
    let config = Case { size: SIZE, ..case }.config();
    let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
    let tables = case.indirect.then(|| memory_at(TABLE_ADDR, config.table_bytes()).0);
    let ring = Ring::new(&memory, tables.as_ref(), &config).unwrap();
    let words = usize::from(SIZE) * PARTS;
    let shared = Arc::new(Shared {
        words: (0..words).map(|_| UnsafeCell::new(0)).collect(),
        kick: EventFd::new().unwrap(),
        call: EventFd::new().unwrap(),
    });
    let device = Device {
        ring: DeviceRing::beside(&memory, &config).unwrap(),
        tables,
        shared: Arc::clone(&shared),
        random: Random::new(1),
    };
    let device = thread::spawn(move || device.serve(chains));
    let free = (0..words).collect();
    let mut driver = Driver { ring, shared, random: Random::new(2), free, asked: BTreeMap::new() };
    driver.drive(chains);
    device.join().unwrap();
}

const CASES: [(bool, bool, &str); 4] = [
    (false, false, "direct, flags"),
    (false, true, "direct, EVENT_IDX"),
    (true, false, "indirect, flags"),
    (true, true, "indirect, EVENT_IDX"),
];

#[test]
fn payload_goes_from_thread_to_thread_behind_the_indices() {
    for (indirect, event_idx, _) in CASES {
        Case::each(indirect, event_idx, |case| run(case, 20_000));
    }
}

#[test]
#[ignore = "soak: 40 million chains"]
fn soak_payload_goes_from_thread_to_thread_behind_the_indices() {
    for (indirect, event_idx, name) in CASES {
        let slots = if event_idx { SlotOrder::Ring } else { SlotOrder::FreeList };
        let case = Case { slots, ..Case::new(indirect, event_idx) };
        soak(&format!("ring, two threads: {name}"), 10_000_000, "chains", |chains| run(case, chains));
    }
}
