//! A device that lies about its split ring: one [`Lie`] for each way in which a device can break the rules of
//! the used ring, scribble over what is the driver's, or mislead about notifications.

use alloc::vec::Vec;

use super::ring::{DeviceChain, DeviceRing, DriverFault, Tables};
use crate::mem::cell::{Pairs64, RingMemory};
use crate::queue::suppress::NO_NOTIFY;
use crate::spec::split::DESC_SIZE;
use crate::sync::Ordering::{Relaxed, Release};

/// Something that a device does against the specification. The names in parentheses are those of the fault model
/// that the tests follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lie {
    /// `used.idx` runs ahead of the elements by this much (D1).
    UsedIdxAhead {
        /// How far.
        by: u16,
    },
    /// `used.idx` goes back by this much (D2).
    UsedIdxBack {
        /// How far.
        by: u16,
    },
    /// `used.idx` is first shown too high by this much, and right at the next look (D3).
    UsedIdxFlickers {
        /// How far.
        by: u16,
    },
    /// A used element with an id outside the ring (D4).
    UsedIdRange {
        /// The id, all 32 bits.
        id: u32,
    },
    /// A used element with an id inside the ring that heads no chain the device has (D5).
    UsedIdNotHead {
        /// The id.
        id: u32,
    },
    /// The element is there twice (D6).
    UsedTwice,
    /// More bytes written than the chain has room for (D9).
    UsedLenTooLarge {
        /// Bytes claimed.
        len: u32,
    },
    /// Bytes written into a chain without a device-writable buffer (D11).
    UsedLenOfReadOnly {
        /// Bytes claimed.
        len: u32,
    },
    /// Descriptor table and driver area are overwritten (D12).
    ScribbleRing {
        /// Start of the values' sequence.
        seed: u64,
    },
    /// The memory of the indirect tables is overwritten (D13).
    ScribbleTables {
        /// Start of the values' sequence.
        seed: u64,
    },
    /// `avail_event` is this, and stays so (D14).
    AvailEventStuck {
        /// The value.
        event: u16,
    },
    /// `avail_event` is the last entry before the wrap (D15: no lie, but where arithmetic goes wrong).
    AvailEventAtWrap,
    /// `used.flags` says that no notification is needed, and stays so (D16).
    NoNotifyStuck,
    /// All of the ring's memory reads as ones: the device is gone (D23).
    AllOnes,
    /// Elements that answer nothing, since nothing was made available (D24).
    UsedBeforeAvailable {
        /// How many.
        count: u16,
    },
    /// So many interrupts for every one (D25).
    InterruptStorm {
        /// How many.
        count: u32,
    },
    /// No interrupt, ever (D25).
    NoInterrupts,
}

/// A [`DeviceRing`] with a script of lies.
///
/// Lies about an element are told with the element, all others right after the batch that it is in was shown.
#[derive(Debug)]
pub struct LyingRing {
    ring: DeviceRing,
    tables: Option<RingMemory>,
    /// Each lie with the number of the used chain, from 0 on, that it goes with.
    script: Vec<(u64, Lie)>,
    pushed: u64,
    /// Lies to be told when the batch is shown.
    due: Vec<Lie>,
    flicker: bool,
    stuck_event: Option<u16>,
    stuck_flags: bool,
    interrupts: u32,
    /// Whether a lie was told after which the driver's memory, or what it does, says nothing about the driver.
    misled: bool,
}

impl LyingRing {
    /// An honest device, as long as it is told nothing else. `tables` is the memory of indirect tables.
    pub fn new(ring: DeviceRing, tables: Option<RingMemory>) -> Self {
        Self {
            ring,
            tables,
            script: Vec::new(),
            pushed: 0,
            due: Vec::new(),
            flicker: false,
            stuck_event: None,
            stuck_flags: false,
            interrupts: 1,
            misled: false,
        }
    }

    /// Adds a lie to the script: it goes with used chain number `chain`, counted from 0.
    #[must_use]
    pub fn with(mut self, chain: u64, lie: Lie) -> Self {
        self.script.push((chain, lie));
        self
    }

    /// Adds a lie to the script that goes with the next chain that is used.
    pub fn plan(&mut self, lie: Lie) {
        self.script.push((self.pushed, lie));
    }

    /// As [`DeviceRing::pop`].
    ///
    /// # Errors
    /// As there; also after the device scribbled over what it would have read.
    pub fn pop(&mut self) -> Result<Option<DeviceChain>, DriverFault> {
        match &self.tables {
            Some(tables) => self.ring.pop(tables),
            None => self.ring.pop(&()),
        }
    }

    /// As [`DeviceRing::pop_into`].
    ///
    /// # Errors
    /// As there.
    pub fn pop_into(&mut self, tables: &impl Tables, chain: &mut DeviceChain) -> Result<bool, DriverFault> {
        self.ring.pop_into(tables, chain)
    }

    /// As [`DeviceRing::push_used`], with the lies that go with this chain.
    pub fn push_used(&mut self, head: u16, len: u32) {
        let number = self.pushed;
        self.pushed = self.pushed.wrapping_add(1);
        let (mut id, mut len, mut times) = (u32::from(head), len, 1);
        for (_, lie) in self.script.iter().filter(|(at, _)| *at == number) {
            match *lie {
                Lie::UsedIdRange { id: lied } | Lie::UsedIdNotHead { id: lied } => id = lied,
                Lie::UsedLenTooLarge { len: lied } | Lie::UsedLenOfReadOnly { len: lied } => len = lied,
                Lie::UsedTwice => times = 2,
                other => self.due.push(other),
            }
        }
        self.misled |= id != u32::from(head) || times != 1;
        for _ in 0..times {
            self.ring.push_element(id, len);
        }
    }

    /// As [`DeviceRing::publish_used`], with the lies that are due. Answers how many interrupts to send.
    pub fn publish_used(&mut self) -> u32 {
        let wanted = self.ring.publish_used();
        for lie in core::mem::take(&mut self.due) {
            self.tell(lie);
        }
        if wanted { self.interrupts } else { 0 }
    }

    /// Between two looks of the driver: an index that flickered is right again.
    pub fn settle(&mut self) {
        if core::mem::take(&mut self.flicker) {
            self.store_idx(self.ring.next_used());
        }
    }

    /// Tells a lie now. One about an element adds the element and shows it.
    pub fn tell(&mut self, lie: Lie) {
        let next = self.ring.next_used();
        self.misled |= !matches!(lie, Lie::InterruptStorm { .. } | Lie::NoInterrupts);
        match lie {
            Lie::UsedIdxAhead { by } => self.store_idx(next.wrapping_add(by)),
            Lie::UsedIdxBack { by } => self.store_idx(next.wrapping_sub(by)),
            Lie::UsedIdxFlickers { by } => {
                self.flicker = true;
                self.store_idx(next.wrapping_add(by));
            }
            Lie::UsedIdRange { id } | Lie::UsedIdNotHead { id } => self.add_element(id, 0),
            Lie::UsedLenTooLarge { len } | Lie::UsedLenOfReadOnly { len } => self.add_element(0, len),
            Lie::UsedTwice => {
                let (id, len) = self.ring.last_element();
                self.add_element(id, len);
            }
            Lie::ScribbleRing { seed } => self.ring.scribble(&mut Sequence(seed)),
            Lie::ScribbleTables { seed } => self.scribble_tables(&mut Sequence(seed)),
            Lie::AvailEventStuck { event } => self.stick_event(event),
            Lie::AvailEventAtWrap => self.stick_event(u16::MAX),
            Lie::NoNotifyStuck => {
                self.stuck_flags = true;
                self.stick();
            }
            Lie::AllOnes => self.ring.all_ones(),
            Lie::UsedBeforeAvailable { count } => (0..count).for_each(|_| self.add_element(0, 0)),
            Lie::InterruptStorm { count } => self.interrupts = count,
            Lie::NoInterrupts => self.interrupts = 0,
        }
    }

    /// As [`DeviceRing::enable_notifications`]; what is stuck stays.
    ///
    /// # Errors
    /// As there.
    pub fn enable_notifications(&mut self) -> Result<bool, DriverFault> {
        let waiting = self.ring.enable_notifications();
        self.stick();
        waiting
    }

    /// As [`DeviceRing::disable_notifications`]; what is stuck stays.
    pub fn disable_notifications(&mut self) {
        self.ring.disable_notifications();
        self.stick();
    }

    #[cfg(not(loom))]
    /// Whether the driver can still be judged by this ring.
    pub(super) fn misled(&self) -> bool {
        self.misled
    }

    /// The device's end itself, past all lies.
    #[cfg(not(loom))]
    pub(super) fn ring_mut(&mut self) -> &mut DeviceRing {
        &mut self.ring
    }

    /// The device's end itself.
    pub fn ring(&self) -> &DeviceRing {
        &self.ring
    }

    fn add_element(&mut self, id: u32, len: u32) {
        self.ring.push_element(id, len);
        self.ring.publish_used();
    }

    fn store_idx(&self, idx: u16) {
        self.ring.used_idx.store(0, self.ring.order().u16(idx), Release);
    }

    fn stick_event(&mut self, event: u16) {
        self.stuck_event = Some(event);
        self.stick();
    }

    fn stick(&self) {
        let order = self.ring.order();
        if let Some(event) = self.stuck_event {
            self.ring.avail_event.store(0, order.u16(event), Relaxed);
        }
        if self.stuck_flags {
            self.ring.used_flags.store(0, order.u16(NO_NOTIFY), Relaxed);
        }
    }

    fn scribble_tables(&self, values: &mut Sequence) {
        let Some(memory) = &self.tables else { return };
        for at in (0..memory.len()).step_by(DESC_SIZE) {
            // Whatever lies in memory that is no whole descriptor stays.
            if let Ok(cell) = Pairs64::new(memory, at, 1) {
                cell.store(0, (values.next(), values.next()), Relaxed);
            }
        }
    }
}

/// Values that look random: xorshift.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

impl DeviceRing {
    fn last_element(&self) -> (u32, u32) {
        let (id, len) = self.used_ring.load(usize::from(self.next_used().wrapping_sub(1)), Relaxed);
        (self.order().u32(id), self.order().u32(len))
    }

    fn scribble(&self, values: &mut Sequence) {
        for at in 0..self.table.len() {
            self.table.store(at, (values.next(), values.next()), Relaxed);
            self.avail_ring.store(at, values.next() as u16, Relaxed);
        }
        for cell in [&self.avail_flags, &self.avail_idx, &self.used_event] {
            cell.store(0, values.next() as u16, Relaxed);
        }
    }

    fn all_ones(&self) {
        for at in 0..self.table.len() {
            self.table.store(at, (u64::MAX, u64::MAX), Relaxed);
            self.avail_ring.store(at, u16::MAX, Relaxed);
            self.used_ring.store(at, (u32::MAX, u32::MAX), Relaxed);
        }
        let driver = [&self.avail_flags, &self.avail_idx, &self.used_event];
        for cell in driver.into_iter().chain([&self.used_flags, &self.avail_event]) {
            cell.store(0, u16::MAX, Relaxed);
        }
        // Last, and with release: whoever sees the index sees the rest.
        self.used_idx.store(0, u16::MAX, Release);
    }
}
