//! A driver's ring and a device's ring over the same memory, and buffers that tell when they are dropped twice,
//! early or never.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use virtio::mem::barrier::Barrier;
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{DeviceStopped, Lease};
use virtio::queue::{Ring, RingConfig, SlotOrder, Token};
use virtio::soft::{DeviceChain, DeviceRing, LyingRing};
use virtio::spec::ByteOrder;

/// Memory of its own, freed with its last handle.
pub struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is only memory; who reaches it is `RingMemory`'s concern.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// The bytes at `at`, as they lie in memory.
    pub fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.layout.size());
        // SAFETY: in bounds, and nobody else reaches the memory at this moment: the test has one thread.
        (at..at + len).map(|at| unsafe { self.ptr.as_ptr().wrapping_add(at).read_volatile() }).collect()
    }

    /// Writes bytes as a device would that knows nothing of us.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.layout.size());
        for (at, byte) in (at..).zip(bytes) {
            // SAFETY: as in `bytes`.
            unsafe { self.ptr.as_ptr().wrapping_add(at).write_volatile(*byte) };
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `memory`, and nobody else frees it.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) };
    }
}

/// Zeroed memory for the device address `addr`, and something that tells whether it was freed.
pub fn memory_at(addr: u64, len: usize) -> (RingMemory, Weak<Block>) {
    let layout = Layout::from_size_align(len.max(1), 4096).unwrap();
    // SAFETY: the layout is not empty.
    let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
    let block = Arc::new(Block { ptr, layout });
    let alive = Arc::downgrade(&block);
    // SAFETY: fresh memory of that size that only handles of the result know, kept alive by the owner.
    (unsafe { RingMemory::from_raw(ptr, len, addr, Some(block)) }.unwrap(), alive)
}

/// Proof that the device of a test does nothing any more.
pub fn stopped() -> DeviceStopped {
    // SAFETY: the devices of these tests are stepped by the test itself.
    unsafe { DeviceStopped::assume() }
}

/// Where a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Alive,
    Dropped,
}

/// All buffers that were ever made.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Rc<RefCell<Vec<Fate>>>);

impl Ledger {
    pub fn buf(&self, addr: u64, len: u32) -> Buf {
        self.0.borrow_mut().push(Fate::Alive);
        Buf { addr, len, number: self.0.borrow().len() - 1, ledger: self.clone() }
    }

    pub fn alive(&self) -> usize {
        self.0.borrow().iter().filter(|fate| **fate == Fate::Alive).count()
    }
}

/// A buffer without memory: the devices of these tests touch no payload.
#[derive(Debug)]
pub struct Buf {
    pub addr: u64,
    pub len: u32,
    pub number: usize,
    ledger: Ledger,
}

// SAFETY: the addresses lead to no memory at all, and no device of these tests follows them.
unsafe impl Lease for Buf {
    fn device_addr(&self) -> u64 {
        self.addr
    }

    fn len(&self) -> u32 {
        self.len
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let fate = std::mem::replace(&mut self.ledger.0.borrow_mut()[self.number], Fate::Dropped);
        assert_eq!(fate, Fate::Alive, "buffer {} was dropped twice", self.number);
    }
}

/// What a test is run with.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub indirect: bool,
    pub event_idx: bool,
    pub size: u16,
    pub slots: SlotOrder,
    pub order: ByteOrder,
    pub strict: bool,
    pub large_tables: u16,
    pub direct_from: u16,
}

impl Case {
    pub fn new(indirect: bool, event_idx: bool) -> Self {
        Self {
            indirect,
            event_idx,
            size: 8,
            slots: SlotOrder::FreeList,
            order: ByteOrder::Little,
            strict: false,
            large_tables: 0,
            direct_from: u16::MAX,
        }
    }

    /// With every order of slots and of bytes.
    pub fn each(indirect: bool, event_idx: bool, mut test: impl FnMut(Case)) {
        for slots in [SlotOrder::FreeList, SlotOrder::Ring] {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                test(Case { slots, order, ..Case::new(indirect, event_idx) });
            }
        }
    }

    pub fn config(self) -> RingConfig {
        let mut config = RingConfig::new(3, self.size);
        config.order = self.order;
        config.barrier = Barrier::Cpu;
        config.event_idx = self.event_idx;
        config.indirect = self.indirect;
        config.large_tables = self.large_tables;
        config.direct_from = self.direct_from;
        config.slots = self.slots;
        config.strict = self.strict;
        config
    }
}

/// A chain as the test added it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub token: Token,
    /// Numbers of its buffers.
    pub bufs: Vec<usize>,
    /// What the device must find.
    pub descs: Vec<(u64, u32, bool)>,
}

pub const RING_ADDR: u64 = 0x10_0000;
pub const TABLE_ADDR: u64 = 0x4000_0000;

impl Drop for Rig {
    /// What is in flight at the end of a test would be a leak.
    fn drop(&mut self) {
        let _ = self.ring.reset(&stopped(), |_, _| {});
    }
}

/// Both ends of one ring.
pub struct Rig {
    pub case: Case,
    pub ring: Ring<Buf>,
    pub device: LyingRing,
    pub ledger: Ledger,
    pub memory: RingMemory,
    pub tables: Option<RingMemory>,
    /// Chains in flight, oldest first.
    pub added: Vec<Added>,
    next_addr: u64,
}

impl Rig {
    pub fn new(case: Case) -> Self {
        let config = case.config();
        let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        let tables = case.indirect.then(|| memory_at(TABLE_ADDR, config.table_bytes()).0);
        let ring = Ring::new(&memory, tables.as_ref(), &config).unwrap();
        let device = Self::device_for(&memory, tables.as_ref(), case);
        let (ledger, added) = (Ledger::default(), Vec::new());
        Self { case, ring, device, ledger, memory, tables, added, next_addr: 0x7_0000_0000 }
    }

    fn device_for(memory: &RingMemory, tables: Option<&RingMemory>, case: Case) -> LyingRing {
        let ring = DeviceRing::beside(memory, &case.config()).unwrap();
        LyingRing::new(ring, tables.cloned())
    }

    /// A device that starts anew, after a reset of the ring.
    pub fn new_device(&mut self) {
        self.device = Self::device_for(&self.memory, self.tables.as_ref(), self.case);
    }

    pub fn buf(&mut self, len: u32) -> Buf {
        // Above 32 bits, so that halves in the wrong order would show.
        self.next_addr += 0x1_0000_1000;
        self.ledger.buf(self.next_addr, len)
    }

    /// Adds a chain of so many readable and writable buffers of 64 bytes; not published.
    pub fn add(&mut self, readable: u16, writable: u16) -> Added {
        self.try_add(readable, writable, 64).unwrap()
    }

    pub fn try_add(&mut self, readable: u16, writable: u16, len: u32) -> virtio::Result<Added> {
        let all: Vec<Buf> = (0..readable + writable).map(|_| self.buf(len)).collect();
        let numbers = all.iter().map(|buf| buf.number).collect();
        let is_writable = |at: usize| at >= usize::from(readable);
        let descs = all.iter().enumerate().map(|(at, buf)| (buf.addr, buf.len, is_writable(at))).collect();
        let mut chain = self.ring.chain();
        for (at, buf) in all.into_iter().enumerate() {
            chain = if is_writable(at) { chain.writable(buf) } else { chain.readable(buf) };
        }
        let added = Added { token: chain.add()?, bufs: numbers, descs };
        self.added.push(added.clone());
        Ok(added)
    }

    /// Adds and publishes `count` chains of one readable and two writable buffers, which the device takes.
    pub fn give(&mut self, count: usize) -> Vec<DeviceChain> {
        for _ in 0..count {
            self.add(1, 2);
        }
        let _ = self.ring.publish();
        self.device_takes(count)
    }

    pub fn device_takes(&mut self, count: usize) -> Vec<DeviceChain> {
        (0..count).map(|_| self.device.pop().unwrap().expect("a chain")).collect()
    }

    /// Takes one completion and checks that it is a chain in flight with its own buffers in order. Gives the
    /// chain and the bytes written.
    pub fn take(&mut self) -> virtio::Result<Option<(Added, u32)>> {
        let Some(done) = self.ring.pop()? else { return Ok(None) };
        let (token, written) = (done.token(), done.written());
        assert!(written <= done.capacity());
        let bufs: Vec<usize> = done.map(|buf| buf.number).collect();
        let at = self.added.iter().position(|added| added.token == token).expect("a token in flight");
        let added = self.added.remove(at);
        assert_eq!(added.bufs, bufs, "buffers come back in order");
        assert!(!self.ring.holds(token), "a token is spent");
        Ok(Some((added, written)))
    }

    /// The ring is broken in this way, stays so, takes no chain and gives nothing back.
    pub fn expect_broken(&mut self, violation: virtio::error::Violation) {
        let alive = self.ledger.alive();
        let broken = Err(virtio::Error::Broken { queue: 3, violation });
        for _ in 0..2 {
            assert_eq!(self.ring.pop().map(|done| done.is_some()), broken.clone().map(|()| false));
            assert_eq!(self.ring.check(), broken);
            assert_eq!(self.ring.has_used(), broken.clone().map(|()| false));
            assert_eq!(self.ring.enable_interrupts(), broken.clone().map(|()| false));
        }
        let buf = self.buf(64);
        assert_eq!(self.ring.chain().readable(buf).add().map(|_| ()), broken);
        let buf = self.buf(64);
        let refused = self.ring.add([buf], []).map(|_| ()).map_err(|refused| refused.error);
        assert_eq!(refused, broken);
        assert_eq!(self.ledger.alive(), alive, "what is in flight stays the ring's");
        assert!(self.added.iter().all(|added| self.ring.holds(added.token)));
    }

    /// Resets the ring: every chain in flight comes back once, with its buffers, and the ring works again.
    pub fn reset(&mut self) {
        self.restart();
        self.round_trips(3);
    }

    /// The first half of it.
    pub fn restart(&mut self) {
        let mut ended = Vec::new();
        self.ring
            .reset(&stopped(), |token, bufs| ended.push((token, bufs.map(|b| b.number).collect::<Vec<_>>())))
            .unwrap();
        let wanted: Vec<_> = self.added.drain(..).map(|added| (added.token, added.bufs)).collect();
        assert_eq!(ended, wanted, "each token once, oldest first");
        for (token, _) in ended {
            assert!(self.ring.check_token(token).is_err(), "a token of before the reset is stale");
        }
        assert_eq!(self.ledger.alive(), 0, "no buffer is left behind");
        assert_eq!((self.ring.free(), self.ring.outstanding()), (u32::from(self.case.size), 0));
        self.new_device();
    }

    /// So many rounds with a full ring, by an honest device.
    pub fn round_trips(&mut self, rounds: usize) {
        let per_chain = if self.case.indirect { 1 } else { 3 };
        let count = usize::from(self.case.size) / per_chain;
        for _ in 0..rounds {
            for chain in self.give(count) {
                self.device.push_used(chain.head, 5);
            }
            self.device.publish_used();
            for _ in 0..count {
                let (_, written) = self.take().unwrap().expect("a completion");
                assert_eq!(written, 5);
            }
            assert!(self.take().unwrap().is_none());
        }
        assert_eq!(self.ring.free(), u32::from(self.case.size));
    }
}
