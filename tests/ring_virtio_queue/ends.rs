//! The two ends over one guest memory: the ring's structures and the payload.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{Lease, RawRange};
use virtio::queue::{Areas, Ring, RingConfig, Token};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Bytes of each place for a buffer.
const PLACE: u32 = 4096;
/// Most buffers of a chain.
const MOST: u64 = 12;
/// What a device-writable buffer holds before.
const BLANK: u8 = 0xA5;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) size: u16,
    pub(crate) indirect: bool,
    pub(crate) event_idx: bool,
}

/// xorshift.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { (self.next() >> 16) % bound }
    }
}

/// The payload that belongs to a number.
fn payload(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Places of the areas in guest memory; address 0 is left out, which the device end takes for "not set".
struct Places {
    ring: u64,
    tables: u64,
    buffers: u64,
    count: u64,
}

/// Both ends of a ring that was set up.
pub(crate) fn both(setup: Setup) -> (Driver, Device) {
    let mut config = RingConfig::new(0, setup.size);
    config.event_idx = setup.event_idx;
    config.indirect = setup.indirect;
    config.large_tables = if setup.indirect { 4 } else { 0 };
    let page = |bytes: usize| bytes.next_multiple_of(4096) as u64;
    let (ring, tables) = (page(config.ring_bytes().unwrap()), page(config.table_bytes()));
    let count = (u64::from(setup.size) * 4).max(MOST);
    let places = Places { ring: 4096, tables: 4096 + ring, buffers: 4096 + ring + tables, count };
    let len = places.buffers + count * u64::from(PLACE);
    let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), len as usize)]).unwrap());
    let driver = Driver::new(&memory, &places, &config);
    let device = Device::new(memory, &places, &config);
    (driver, device)
}

/// What a request is to be answered with.
struct Request {
    number: u64,
    readable: Vec<RawRange>,
    writable: Vec<RawRange>,
}

pub(crate) struct Driver {
    pub(crate) ring: Ring<RawRange>,
    memory: Arc<GuestMemoryMmap>,
    random: Random,
    free: Vec<u64>,
    flying: HashMap<Token, Request>,
    size: u16,
    pub(crate) added: u32,
    pub(crate) done: u32,
    full: bool,
}

impl Driver {
    fn new(memory: &Arc<GuestMemoryMmap>, places: &Places, config: &RingConfig) -> Self {
        let area = |addr: u64, len: usize| {
            let host = NonNull::new(memory.get_host_address(GuestAddress(addr)).unwrap()).unwrap();
            // SAFETY: mapped for as long as `memory`, which the owner keeps; whoever else reaches it does so by
            // the volatile and atomic accesses of `vm-memory`.
            unsafe { RingMemory::from_raw(host, len, addr, Some(memory.clone())) }.unwrap()
        };
        let ring = area(places.ring, config.ring_bytes().unwrap());
        let tables = config.indirect.then(|| area(places.tables, config.table_bytes()));
        Self {
            ring: Ring::new(&ring, tables.as_ref(), config).unwrap(),
            memory: memory.clone(),
            random: Random(0x5EED | u64::from(config.size) << 32),
            free: (0..places.count).map(|n| places.buffers + n * u64::from(PLACE)).collect(),
            flying: HashMap::new(),
            size: config.size,
            added: 0,
            done: 0,
            full: false,
        }
    }

    fn len(&mut self) -> u32 {
        // Mostly short, now and then all of it.
        let bound = if self.random.below(16) == 0 { PLACE } else { 200 };
        1 + self.random.below(bound.into()) as u32
    }

    /// Adds a chain of random buffers. Answers whether there was room.
    pub(crate) fn add(&mut self) -> bool {
        let most = MOST.min(self.size.into());
        let parts = if self.random.below(8) == 0 { most } else { most.min(3) };
        let parts = 1 + self.random.below(parts) as usize;
        self.full = !self.ring.has_room(parts as u16) || self.free.len() < parts;
        if self.full {
            return false;
        }
        let readable = self.random.below(parts as u64 + 1) as usize;
        let number = u64::from(self.added);
        let mut request = Request { number, readable: Vec::new(), writable: Vec::new() };
        for at in 0..parts {
            let (addr, len) = (self.free.pop().unwrap(), self.len());
            // SAFETY: the places are nobody's but this chain's until it comes back.
            let range = unsafe { RawRange::new(addr, len) };
            let list = if at < readable { &mut request.readable } else { &mut request.writable };
            list.push(range);
        }
        // The first bytes tell the number, as far as there is room for it.
        let total: u32 = request.readable.iter().map(Lease::len).sum();
        let mut bytes = payload(number, total as usize);
        for (byte, at) in bytes.iter_mut().zip(number.to_le_bytes()) {
            *byte = at;
        }
        scatter(&self.memory, &request.readable, &bytes);
        for range in &request.writable {
            scatter(&self.memory, &[*range], &vec![BLANK; range.len() as usize]);
        }
        let mut chain = self.ring.chain();
        for range in &request.readable {
            chain = chain.readable(*range);
        }
        for range in &request.writable {
            chain = chain.writable(*range);
        }
        let token = chain.add().unwrap();
        assert!(self.flying.insert(token, request).is_none(), "a token is one request's");
        self.added += 1;
        true
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.full
    }

    /// Takes all completions and checks the answers.
    pub(crate) fn take_all(&mut self) {
        while let Some(done) = self.ring.pop().unwrap() {
            let (token, written, capacity) = (done.token(), done.written(), done.capacity());
            let request = self.flying.remove(&token).expect("a token in flight");
            let back: Vec<RawRange> = done.collect();
            assert_eq!(back, [&request.readable[..], &request.writable[..]].concat());
            assert_eq!(capacity, request.writable.iter().map(Lease::len).sum::<u32>());
            let bytes = gather(&self.memory, &request.writable);
            let (answer, rest) = bytes.split_at(written as usize);
            assert!(written == 0 || capacity != 0);
            // The device answers with the payload of what it was told, or of 0 where there was no room for it.
            let told: u32 = request.readable.iter().map(Lease::len).sum();
            let number = if told >= 8 { request.number } else { 0 };
            assert!(answer == payload(!number, answer.len()), "the answer to {number}");
            assert!(rest.iter().all(|byte| *byte == BLANK), "nothing beyond `written`");
            self.free.extend(back.iter().map(Lease::device_addr));
            self.done += 1;
            self.full = false;
        }
    }

    pub(crate) fn check_idle(&self, chains: u32) {
        assert!(self.flying.is_empty());
        assert_eq!(self.ring.free(), u32::from(self.size));
        let counters = self.ring.counters();
        assert_eq!((counters.added, counters.used), (chains.into(), chains.into()));
        assert_eq!((counters.clamped, counters.early), (0, 0));
    }
}

fn scatter(memory: &GuestMemoryMmap, ranges: &[RawRange], bytes: &[u8]) {
    let mut rest = bytes;
    for range in ranges {
        let (now, later) = rest.split_at(rest.len().min(range.len() as usize));
        memory.write_slice(now, GuestAddress(range.device_addr())).unwrap();
        rest = later;
    }
}

fn gather(memory: &GuestMemoryMmap, ranges: &[RawRange]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in ranges {
        let start = bytes.len();
        bytes.resize(start + range.len() as usize, 0);
        memory.read_slice(&mut bytes[start..], GuestAddress(range.device_addr())).unwrap();
    }
    bytes
}

/// A chain as `virtio-queue` found it.
struct Taken {
    head: u16,
    readable: Vec<RawRange>,
    writable: Vec<RawRange>,
}

pub(crate) struct Device {
    queue: Queue,
    memory: Arc<GuestMemoryMmap>,
    random: Random,
    taken: Vec<Taken>,
}

impl Device {
    fn new(memory: Arc<GuestMemoryMmap>, places: &Places, config: &RingConfig) -> Self {
        let mut queue = Queue::new(config.size).unwrap();
        let areas = Areas::new(config.layout, config.size).unwrap();
        let at = |offset: usize| GuestAddress(places.ring + offset as u64);
        queue.try_set_desc_table_address(at(areas.descriptor)).unwrap();
        queue.try_set_avail_ring_address(at(areas.driver)).unwrap();
        queue.try_set_used_ring_address(at(areas.device)).unwrap();
        queue.set_size(config.size);
        queue.set_event_idx(config.event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&*memory));
        Self { queue, memory, random: Random(0xDE71CE), taken: Vec::new() }
    }

    /// Takes all available chains.
    pub(crate) fn take(&mut self) {
        while let Some(chain) = self.queue.pop_descriptor_chain(&*self.memory) {
            let head = chain.head_index();
            let mut taken = Taken { head, readable: Vec::new(), writable: Vec::new() };
            for desc in chain {
                // SAFETY: only a list of where and how much; the device end reaches it through `vm-memory`.
                let range = unsafe { RawRange::new(desc.addr().0, desc.len()) };
                let list = if desc.is_write_only() { &mut taken.writable } else { &mut taken.readable };
                list.push(range);
            }
            self.taken.push(taken);
        }
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.len() as u32
    }

    /// Checks and answers any one of the chains that were taken.
    pub(crate) fn use_one(&mut self) {
        let which = self.random.below(self.taken.len() as u64) as usize;
        let chain = self.taken.swap_remove(which);
        let bytes = gather(&self.memory, &chain.readable);
        let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        if bytes.len() >= 8 {
            assert!(bytes[8..] == payload(number, bytes.len())[8..], "the payload of {number}");
        }
        let room: u64 = chain.writable.iter().map(|range| u64::from(range.len())).sum();
        let written = if room == 0 { 0 } else { self.random.below(room + 1) };
        scatter(&self.memory, &chain.writable, &payload(!number, written as usize));
        self.queue.add_used(&*self.memory, chain.head, written as u32).unwrap();
    }

    pub(crate) fn wants_interrupt(&mut self) -> bool {
        self.queue.needs_notification(&*self.memory).unwrap()
    }

    /// Answers whether something is there already.
    pub(crate) fn enable_notifications(&mut self) -> bool {
        self.queue.enable_notification(&*self.memory).unwrap()
    }

    pub(crate) fn disable_notifications(&mut self) {
        self.queue.disable_notification(&*self.memory).unwrap();
    }
}
