//! The model: what a ring must do, without a ring.

use std::collections::VecDeque;

use virtio::Error;
use virtio::error::Violation;
use virtio::queue::{SlotOrder, Token};
use virtio::soft::Lie;
use virtio::spec::ByteOrder;

use crate::ring_common::{Added, Case, Rig};

/// One step of either side.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Add { parts: u16, readable: u16, len: u32, direct: bool },
    AddArrays { shape: usize, len: u32 },
    RollBack { parts: u16 },
    Publish,
    DevicePop { count: usize },
    DeviceUse { which: usize, len: u32 },
    DevicePublish,
    Take { count: usize },
    EnableInterrupts,
    DisableInterrupts,
    EnableNotifications,
    DisableNotifications,
    Scribble { seed: u64 },
    Reset,
    Lie(Lied),
}

/// A lie, made to fit the state that it meets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lied {
    IdxAhead(u16),
    IdxBack(u16),
    IdRange(u32),
    NotHead(u16),
    Twice,
    AllOnes,
}

/// A chain and what it takes.
#[derive(Debug, Clone)]
struct Chain {
    added: Added,
    in_table: bool,
    descriptors: u32,
    extra: u32,
    large: u32,
    writable: u32,
}

/// The chain will be used with this length.
type Used = (Chain, u32);

/// What one side wishes to hear of: an entry's number, or everything and nothing.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Event(u16),
    Flag(bool),
    /// The other side overwrote it.
    Unknown,
}

impl Wish {
    /// Whether entries `old` up to before `new` are to be told of, by the definition: one by one.
    fn wants(self, old: u16, new: u16) -> Option<bool> {
        match self {
            Self::Event(event) => {
                let span = new.wrapping_sub(old);
                Some((0..span).any(|n| old.wrapping_add(n) == event))
            }
            Self::Flag(wanted) => Some(wanted),
            Self::Unknown => None,
        }
    }
}

pub(crate) struct Model {
    rig: Rig,
    case: Case,
    free: u32,
    extra: u32,
    large: u32,
    /// In ring order: descriptors of each chain, oldest first, and whether it came back.
    order: VecDeque<(Token, u32, bool)>,
    unpublished: VecDeque<Chain>,
    available: VecDeque<Chain>,
    device: Vec<Chain>,
    used: VecDeque<Used>,
    shown: VecDeque<Used>,
    /// Used elements that the driver saw at its last look.
    seen: usize,
    avail_idx: u16,
    used_idx: u16,
    taken_by_device: u16,
    taken_by_driver: u16,
    driver_wish: Wish,
    device_wish: Wish,
    /// The device overwrote `avail.idx`: until it is published again there is nothing to look at.
    scribbled: bool,
    started: bool,
    clamped: u64,
}

impl Model {
    pub(crate) fn new(case: Case) -> Self {
        let size = u32::from(case.size);
        let armed = if case.event_idx { Wish::Event(0) } else { Wish::Flag(true) };
        Self {
            rig: Rig::new(case),
            case,
            free: size,
            extra: if case.indirect { size * 3 } else { 0 },
            large: case.large_tables.into(),
            order: VecDeque::new(),
            unpublished: VecDeque::new(),
            available: VecDeque::new(),
            device: Vec::new(),
            used: VecDeque::new(),
            shown: VecDeque::new(),
            seen: 0,
            avail_idx: 0,
            used_idx: 0,
            taken_by_device: 0,
            taken_by_driver: 0,
            driver_wish: armed,
            device_wish: armed,
            scribbled: false,
            started: false,
            clamped: 0,
        }
    }

    pub(crate) fn run(&mut self, op: &Op) {
        match *op {
            Op::Add { parts, readable, len, direct } => self.add(parts, readable, len, direct),
            Op::AddArrays { shape, len } => self.add_arrays(shape, len),
            Op::RollBack { parts } => self.roll_back(parts),
            Op::Publish => self.publish(),
            Op::DevicePop { count } => (0..count).for_each(|_| self.device_pop()),
            Op::DeviceUse { which, len } => self.device_use(which, len),
            Op::DevicePublish => self.device_publish(),
            Op::Take { count } => (0..count).for_each(|_| self.take()),
            Op::EnableInterrupts => {
                let waiting = self.look() != 0;
                assert_eq!(self.rig.ring.enable_interrupts(), Ok(waiting));
                self.driver_wish = self.wish(self.taken_by_driver, true);
            }
            Op::DisableInterrupts => {
                self.rig.ring.disable_interrupts();
                self.driver_wish = self.wish(self.taken_by_driver, false);
            }
            Op::EnableNotifications if !self.scribbled => {
                let waiting = !self.available.is_empty();
                assert_eq!(self.rig.device.enable_notifications(), Ok(waiting));
                self.device_wish = self.wish(self.taken_by_device, true);
            }
            Op::EnableNotifications => {}
            Op::DisableNotifications => {
                self.rig.device.disable_notifications();
                self.device_wish = self.wish(self.taken_by_device, false);
            }
            Op::Scribble { seed } => self.scribble(seed),
            Op::Reset => self.reset(),
            Op::Lie(lie) => self.lie(lie),
        }
        self.check();
    }

    fn check(&self) {
        let ring = &self.rig.ring;
        assert_eq!(ring.free(), self.free);
        assert_eq!(usize::from(ring.outstanding()), self.outstanding());
        assert_eq!(ring.counters().clamped, self.clamped);
        let parts: usize = self.rig.added.iter().map(|added| added.bufs.len()).sum();
        assert_eq!(self.rig.ledger.alive(), parts, "buffers of chains in flight, and no others");
    }

    fn outstanding(&self) -> usize {
        self.available.len() + self.device.len() + self.used.len() + self.shown.len()
    }

    fn wish(&self, next: u16, wanted: bool) -> Wish {
        match (self.case.event_idx, wanted) {
            (true, true) => Wish::Event(next),
            (true, false) => Wish::Event(next.wrapping_sub(1)),
            (false, _) => Wish::Flag(wanted),
        }
    }

    /// What the chain takes; `None` where there is no room for it.
    fn room(&self, parts: u16, direct: bool) -> Option<(bool, u32, u32, u32)> {
        let in_table = self.case.indirect && !direct && parts > 1;
        let count = u32::from(parts);
        let needs = if in_table { (1, count - 1, u32::from(parts > 8)) } else { (count, 0, 0) };
        let fits = needs.0 <= self.free && needs.1 <= self.extra && needs.2 <= self.large;
        (fits && parts <= self.case.size).then_some((in_table, needs.0, needs.1, needs.2))
    }

    fn add(&mut self, parts: u16, readable: u16, len: u32, direct: bool) {
        let room = self.room(parts, direct);
        if !direct {
            assert_eq!(self.rig.ring.has_room(parts), room.is_some());
        }
        let is_writable = |at: u16| at >= readable;
        let bufs: Vec<_> = (0..parts).map(|at| self.rig.buf(len + u32::from(at))).collect();
        let (mut numbers, mut descs) = (Vec::new(), Vec::new());
        for (at, buf) in (0..).zip(&bufs) {
            numbers.push(buf.number);
            descs.push((buf.addr, buf.len, is_writable(at)));
        }
        let ring = &mut self.rig.ring;
        let mut chain = if direct { ring.direct_chain() } else { ring.chain() };
        for (at, buf) in (0..).zip(bufs) {
            chain = if is_writable(at) { chain.writable(buf) } else { chain.readable(buf) };
        }
        match (chain.add(), room) {
            (Ok(token), Some(room)) => self.added(Added { token, bufs: numbers, descs }, room),
            (Err(Error::QueueFull { .. } | Error::BadChain(_)), None) => {}
            (result, room) => panic!("{result:?} where the model has {room:?}"),
        }
    }

    fn added(&mut self, added: Added, (in_table, descriptors, extra, large): (bool, u32, u32, u32)) {
        let writable = added.descs.iter().filter(|desc| desc.2).map(|desc| desc.1).sum();
        self.free -= descriptors;
        self.extra -= extra;
        self.large -= large;
        self.order.push_back((added.token, descriptors, false));
        self.rig.added.push(added.clone());
        self.unpublished.push_back(Chain { added, in_table, descriptors, extra, large, writable });
    }

    fn add_arrays(&mut self, shape: usize, len: u32) {
        match shape {
            0 => self.add_array::<1, 0>(len),
            1 => self.add_array::<0, 1>(len),
            2 => self.add_array::<1, 1>(len),
            3 => self.add_array::<1, 2>(len),
            4 => self.add_array::<3, 1>(len),
            5 => self.add_array::<4, 4>(len),
            _ => self.add_array::<0, 0>(len),
        }
    }

    fn add_array<const R: usize, const W: usize>(&mut self, len: u32) {
        let room = if R + W == 0 { None } else { self.room_for_array((R + W) as u16) };
        let readable: [_; R] = std::array::from_fn(|_| self.rig.buf(len));
        let writable: [_; W] = std::array::from_fn(|_| self.rig.buf(len));
        let numbers: Vec<_> = readable.iter().chain(&writable).map(|buf| buf.number).collect();
        let first = readable.iter().map(|buf| (buf.addr, buf.len, false));
        let descs: Vec<_> = first.chain(writable.iter().map(|buf| (buf.addr, buf.len, true))).collect();
        match (self.rig.ring.add(readable, writable), room) {
            (Ok(token), Some(room)) => self.added(Added { token, bufs: numbers, descs }, room),
            (Err(refused), None) => {
                let back = refused.readable.iter().chain(&refused.writable);
                assert_eq!(back.map(|buf| buf.number).collect::<Vec<_>>(), numbers);
            }
            (result, room) => panic!("{result:?} where the model has {room:?}"),
        }
    }

    /// What a chain that is added in one call takes: no table where `direct_from` descriptors are free, and it fits.
    fn room_for_array(&self, parts: u16) -> Option<(bool, u32, u32, u32)> {
        let by_table = self.room(parts, false);
        let (free, from, count) = (self.free, u32::from(self.case.direct_from), u32::from(parts));
        // Where so many are free even after it, nobody asks whether there would be a table.
        let short_way = self.case.order == ByteOrder::Little
            && self.case.slots == SlotOrder::FreeList
            && free >= from + count;
        if short_way || by_table.is_some() && free >= from.max(count) {
            self.room(parts, true)
        } else {
            by_table
        }
    }

    fn roll_back(&mut self, parts: u16) {
        let bufs: Vec<_> = (0..parts).map(|_| self.rig.buf(1)).collect();
        let mut chain = self.rig.ring.chain();
        for buf in bufs {
            chain = chain.writable(buf);
        }
        drop(chain);
    }

    fn publish(&mut self) {
        let old = self.avail_idx;
        self.avail_idx = old.wrapping_add(self.unpublished.len() as u16);
        let kick = self.rig.ring.publish();
        if self.unpublished.is_empty() {
            assert!(kick.is_none());
            return;
        }
        if let Some(wanted) = self.device_wish.wants(old, self.avail_idx) {
            assert_eq!(kick.is_some(), wanted, "{:?} from {old} to {}", self.device_wish, self.avail_idx);
        }
        assert!(kick.is_none_or(|kick| (kick.queue, kick.next) == (3, self.avail_idx)));
        self.available.append(&mut self.unpublished);
        (self.scribbled, self.started) = (false, true);
    }

    fn device_pop(&mut self) {
        if self.scribbled {
            return;
        }
        let found = self.rig.device.pop().unwrap();
        let wanted = self.available.pop_front();
        assert_eq!(found.is_some(), wanted.is_some());
        let (Some(found), Some(wanted)) = (found, wanted) else { return };
        assert_eq!(found.head, wanted.added.token.slot());
        assert_eq!(found.indirect, wanted.in_table);
        let descs: Vec<_> = found.descs.iter().map(|desc| (desc.addr, desc.len, desc.writable)).collect();
        assert_eq!(descs, wanted.added.descs);
        self.taken_by_device = self.taken_by_device.wrapping_add(1);
        self.device.push(wanted);
    }

    /// In any order, with any length that the chain has room for; a longer one where that does not break.
    fn device_use(&mut self, which: usize, len: u32) {
        if self.device.is_empty() {
            return;
        }
        let chain = self.device.remove(which % self.device.len());
        let too_long = len > chain.writable && self.case.strict && chain.writable != 0;
        let len = if too_long { chain.writable } else { len };
        self.rig.device.push_used(chain.added.token.slot(), len);
        self.used.push_back((chain, len));
    }

    fn device_publish(&mut self) {
        let old = self.used_idx;
        self.used_idx = old.wrapping_add(self.used.len() as u16);
        let interrupt = self.rig.device.publish_used() != 0;
        let wanted =
            if self.used.is_empty() { Some(false) } else { self.driver_wish.wants(old, self.used_idx) };
        if let Some(wanted) = wanted {
            assert_eq!(interrupt, wanted, "{:?} from {old} to {}", self.driver_wish, self.used_idx);
        }
        self.shown.append(&mut self.used);
    }

    /// The driver looks only when everything seen before was taken.
    fn look(&mut self) -> usize {
        if self.seen == 0 && self.started {
            self.seen = self.shown.len();
        }
        self.seen
    }

    fn take(&mut self) {
        let seen = self.look();
        let Some((added, written)) = self.rig.take().unwrap() else {
            assert_eq!(seen, 0);
            return;
        };
        let (chain, len) = self.shown.pop_front().expect("a chain that was used");
        assert_eq!(added, chain.added);
        assert_eq!(written, len.min(chain.writable));
        self.clamped += u64::from(len > chain.writable);
        self.seen = seen - 1;
        self.taken_by_driver = self.taken_by_driver.wrapping_add(1);
        self.extra += chain.extra;
        self.large += chain.large;
        if self.case.slots == virtio::queue::SlotOrder::FreeList {
            self.free += chain.descriptors;
            return;
        }
        // In ring order descriptors go back oldest first.
        let token = added.token;
        self.order.iter_mut().find(|(at, ..)| *at == token).expect("in order").2 = true;
        while let Some((_, descriptors, true)) = self.order.front() {
            self.free += descriptors;
            self.order.pop_front();
        }
    }

    /// Only what the driver does not write again would matter to an honest device: it takes all that is there
    /// first.
    fn scribble(&mut self, seed: u64) {
        if !self.unpublished.is_empty() || self.scribbled {
            return;
        }
        while !self.available.is_empty() {
            self.device_pop();
        }
        self.rig.device.tell(Lie::ScribbleRing { seed });
        self.rig.device.tell(Lie::ScribbleTables { seed });
        (self.scribbled, self.driver_wish) = (true, Wish::Unknown);
    }

    fn reset(&mut self) {
        self.rig.restart();
        let (case, clamped) = (self.case, self.clamped);
        let rig = std::mem::replace(&mut self.rig, Rig::new(case));
        *self = Self { rig, clamped, ..Self::new(case) };
    }

    /// The honest part is over: what was used is shown and taken. Then the lie is told and met.
    fn lie(&mut self, lie: Lied) {
        self.device_publish();
        while !self.shown.is_empty() {
            self.take();
        }
        let outstanding = self.outstanding() as u16;
        let nothing = Violation::UsedIdxJump { span: 1, outstanding: 0 };
        let of_element = |violation| if outstanding == 0 { nothing } else { violation };
        let (lie, violation) = match lie {
            _ if !self.started => return,
            Lied::IdxAhead(by) => {
                let by = by.max(outstanding.saturating_add(1));
                (Lie::UsedIdxAhead { by }, Violation::UsedIdxJump { span: by, outstanding })
            }
            Lied::IdxBack(by) => {
                (Lie::UsedIdxBack { by }, Violation::UsedIdxJump { span: 0u16.wrapping_sub(by), outstanding })
            }
            Lied::IdRange(id) => {
                let (id, size) = (id.max(self.case.size.into()), self.case.size.into());
                (Lie::UsedIdRange { id }, of_element(Violation::UsedIdRange { id, size }))
            }
            Lied::NotHead(id) => {
                let id = id % self.case.size;
                if self.available.iter().chain(&self.device).any(|chain| chain.added.token.slot() == id) {
                    return;
                }
                let id = id.into();
                (Lie::UsedIdNotHead { id }, of_element(Violation::UsedIdNotHead { id }))
            }
            Lied::Twice => return self.twice(outstanding),
            Lied::AllOnes => {
                let span = u16::MAX.wrapping_sub(self.used_idx);
                (Lie::AllOnes, Violation::UsedIdxJump { span, outstanding })
            }
        };
        self.rig.device.tell(lie);
        self.rig.expect_broken(violation);
        self.reset();
    }

    /// The last chain once more: nothing that the device has now.
    fn twice(&mut self, outstanding: u16) {
        if self.device.is_empty() {
            return;
        }
        let id = u32::from(self.device[0].added.token.slot());
        self.device_use(0, 0);
        self.device_publish();
        self.take();
        self.rig.device.tell(Lie::UsedTwice);
        self.rig.expect_broken(if outstanding == 1 {
            Violation::UsedIdxJump { span: 1, outstanding: 0 }
        } else {
            Violation::UsedIdNotHead { id }
        });
        self.reset();
    }

    /// Everything is published, used and taken: the ring is as it was.
    pub(crate) fn drain(&mut self) {
        self.publish();
        while !self.available.is_empty() {
            self.device_pop();
        }
        while !self.device.is_empty() {
            self.device_use(0, 0);
        }
        self.device_publish();
        while !self.shown.is_empty() {
            self.take();
        }
        self.check();
        assert_eq!(self.free, u32::from(self.case.size));
        assert_eq!(self.rig.ledger.alive(), 0);
        let counters = self.rig.ring.counters();
        assert_eq!(counters.early, 0);
        assert!(counters.used <= counters.added);
    }
}
