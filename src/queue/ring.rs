//! One virtqueue.

use super::completion::Completion;
use super::indirect::{SMALL, Tables};
use super::inflight::InFlight;
use super::split::Split;
use super::{Chain, Counters, Notification, RingConfig, SlotOrder, Token};
use crate::error::Violation;
use crate::mem::cell::RingMemory;
use crate::mem::lease::{DeviceStopped, Lease};
use crate::spec::ByteOrder;
use crate::{Error, Result};
use alloc::boxed::Box;

/// A descriptor as it stands in the ring's own table: address and rest, encoded.
pub(super) type Written = (u64, u64);

/// What no descriptor is.
pub(super) const UNKNOWN: Written = (u64::MAX, u64::MAX);

/// One split virtqueue: the driver's end, without doorbell and without events.
///
/// `B` is what it holds in flight: an owned buffer, a kernel's own type, a raw range. A buffer in flight is the
/// ring's; it comes back by completion, or by [`Ring::reset`] with a proof that the device has stopped, and by
/// nothing else. A ring that is dropped with chains in flight never drops their buffers, nor its own memory.
///
/// No lock: calls take `&mut self`. No call waits, and none but [`Ring::new`] allocates.
///
/// ```
/// # #[cfg(not(loom))] {
/// use virtio::mem::{cell::RingMemory, lease::RawRange};
/// use virtio::queue::{Ring, RingConfig};
///
/// let config = RingConfig::new(0, 8);
/// let layout = std::alloc::Layout::from_size_align(config.ring_bytes()?, 4096).unwrap();
/// // SAFETY: the layout is not empty.
/// let memory = unsafe { std::alloc::alloc_zeroed(layout) };
/// let memory = std::ptr::NonNull::new(memory).unwrap();
/// // SAFETY: fresh memory of that size, which is never freed.
/// let memory = unsafe { RingMemory::from_raw(memory, layout.size(), 0x1000, None)? };
/// let mut ring = Ring::new(&memory, None, &config)?;
///
/// // SAFETY: no device is there to write to the range.
/// let request = unsafe { RawRange::new(0x8000, 16) };
/// let token = ring.chain().readable(request).add()?;
/// assert!(ring.publish().is_some()); // the device has not said that it needs no notification
/// assert!(ring.holds(token) && ring.pop()?.is_none());
/// # }
/// # Ok::<(), virtio::Error>(())
/// ```
#[derive(Debug)]
pub struct Ring<B: Lease> {
    pub(super) split: Split,
    pub(super) inflight: InFlight<B>,
    pub(super) tables: Option<Tables>,
    pub(super) counters: Counters,
    pub(super) queue: u16,
    pub(super) size: u16,
    pub(super) indirect: bool,
    /// With so many free descriptors a chain goes the short way into the ring's own table: without tables always; never
    /// where the ring is big-endian, which is rare, or remembers.
    pub(super) direct_from: i32,
    /// What the descriptors of the ring's own table hold, as far as that is known; empty where the ring does not
    /// remember.
    pub(super) written: Box<[Written]>,
    strict: bool,
    broken: Option<Violation>,
    /// Chains that ended by a reset.
    ended: u64,
    /// Whether anything was ever published since the ring was set up.
    used_before: bool,
    config: RingConfig,
    memory: RingMemory,
}

impl<B: Lease> Ring<B> {
    /// Sets a ring up in `memory`, which it zeroes; `tables` is the memory of indirect tables
    /// ([`RingConfig::table_bytes`]), needed exactly where the configuration has `indirect`.
    ///
    /// Both must be reachable for the device at the addresses they name. The device must not have been given
    /// the ring yet. [`Error::Misuse`] where sizes, alignment or configuration do not fit.
    pub fn new(memory: &RingMemory, tables: Option<&RingMemory>, config: &RingConfig) -> Result<Self> {
        let tables = match (config.indirect, tables) {
            (true, Some(memory)) => Some(Tables::new(memory, config)?),
            (false, None) => None,
            _ => {
                return Err(Error::Misuse {
                    what: "table memory goes with indirect descriptors, and only so",
                });
            }
        };
        let extra = if config.indirect { u32::from(config.size).saturating_mul(3) } else { 0 };
        Ok(Self {
            split: Split::new(memory, config)?,
            inflight: InFlight::new(config, extra),
            tables,
            counters: Counters::default(),
            queue: config.queue,
            size: config.size,
            indirect: config.indirect,
            direct_from: match (config.order, config.indirect) {
                (ByteOrder::Big, _) => i32::MAX,
                _ if config.remember || config.slots == SlotOrder::Ring => i32::MAX,
                (ByteOrder::Little, false) => 0,
                (ByteOrder::Little, true) => config.direct_from.into(),
            },
            written: (0..if config.remember { config.size } else { 0 }).map(|_| UNKNOWN).collect(),
            strict: config.strict,
            broken: None,
            ended: 0,
            used_before: false,
            config: config.clone(),
            memory: memory.clone(),
        })
    }

    /// As if `index` chains had come and gone already: models cannot afford so many before a wrap. For a ring that
    /// is new; its device end starts at the same index.
    #[cfg(loom)]
    pub fn start_at(&mut self, index: u16) {
        self.split.start_at(index);
    }

    /// Starts a chain: in a table of its own where indirect descriptors were negotiated and it has more than
    /// one buffer, else in the ring's own table.
    #[inline(always)]
    pub fn chain(&mut self) -> Chain<'_, B> {
        let indirect = self.indirect;
        Chain::new(self, indirect)
    }

    /// Starts a chain in the ring's own table, one descriptor a buffer.
    #[inline(always)]
    pub fn direct_chain(&mut self) -> Chain<'_, B> {
        Chain::new(self, false)
    }

    /// Descriptor `at` of the ring's own table is written by a way that does not remember.
    #[inline(always)]
    pub(super) fn forget(&mut self, at: u32) {
        if let Some(written) = self.written.get_mut(at as usize) {
            *written = UNKNOWN;
        }
    }

    /// Makes a chain that lies in the table one in flight, and an entry of the available ring.
    #[inline(always)]
    pub(super) fn make_available(
        &mut self,
        order: ByteOrder,
        head: u32,
        tail: u32,
        parts: u16,
        writable: u32,
    ) -> Token {
        let entry = self.split.push(order, head);
        self.inflight.start(head, tail, parts, writable, entry)
    }

    /// Whether a chain of `parts` buffers, started by [`Ring::chain`], would find room now.
    #[inline(always)]
    pub fn has_room(&self, parts: u16) -> bool {
        if self.indirect && parts > 1 {
            let table = parts <= SMALL || self.tables.as_ref().is_some_and(Tables::has_large);
            table
                && parts <= self.size
                && self.inflight.free() >= 1
                && self.inflight.free_extra() >= u32::from(parts).wrapping_sub(1)
        } else {
            self.inflight.free() >= u32::from(parts)
        }
    }

    /// Shows all chains that were added since the last call to the device at once, and tells the notification
    /// to send, if the device wants one (VIRTIO 1.4 §2.7.13.3, §2.7.13.4).
    #[inline(always)]
    pub fn publish(&mut self) -> Option<Notification> {
        if !self.split.owes_question() {
            return None;
        }
        self.count_shown();
        let kick = self.split.publish();
        let counter = if kick { &mut self.counters.kicks } else { &mut self.counters.kicks_saved };
        *counter = counter.wrapping_add(1);
        kick.then(|| self.notification())
    }

    /// Shows all chains that were added to the device, without a look at whether it wants to be notified: one that is
    /// awake begins while more are added. A [`Ring::publish`] has to follow, and speaks for these chains as well.
    #[inline(always)]
    pub fn show(&mut self) {
        if self.split.unpublished() != 0 {
            self.count_shown();
            self.split.show();
        }
    }

    /// Before chains are shown.
    #[inline(always)]
    fn count_shown(&mut self) {
        let count = self.split.unpublished();
        if !self.used_before {
            self.first_publish();
        }
        self.counters.added = self.counters.added.wrapping_add(u64::from(count));
    }

    /// The available index as the next [`Ring::publish`] will show it.
    #[inline(always)]
    pub fn next_index(&self) -> u16 {
        self.split.published().wrapping_add(self.split.unpublished())
    }

    /// D24: used elements that were there before the device had a chain are nobody's. They are skipped and
    /// counted; from now on such a thing breaks the ring.
    #[cold]
    fn first_publish(&mut self) {
        self.used_before = true;
        let early = self.split.look();
        if early != 0 {
            self.counters.early = self.counters.early.wrapping_add(u64::from(early));
            self.split.skip_to(early);
        }
    }

    /// A notification to send although the device did not ask for one: for waits that have lasted long and
    /// for devices that never update their event index (D14, D16). `None` while the device has nothing.
    pub fn kick_again(&mut self) -> Option<Notification> {
        if self.outstanding() == 0 {
            return None;
        }
        self.counters.kicks = self.counters.kicks.wrapping_add(1);
        Some(self.notification())
    }

    #[inline(always)]
    fn notification(&self) -> Notification {
        Notification { queue: self.queue, next: self.split.published() }
    }

    /// Takes the next used buffer, or `None` where there is none. Reads `used.idx` only when everything seen
    /// before was taken.
    ///
    /// # Errors
    /// [`Error::Broken`]: the device broke the specification, now or earlier. What is in flight stays so until
    /// [`Ring::reset`].
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Completion<'_, B>>> {
        if self.split.seen() == 0 && self.look()? == 0 {
            return Ok(None);
        }
        let (id, len) = self.split.used();
        let Some((live, token)) = self.inflight.chain_mut(id) else {
            return Err(self.break_off(self.bad_id(id)));
        };
        let head = live.was;
        // A chain that was added and not published is not the device's to give back.
        let unpublished = self.split.unpublished();
        if unpublished != 0 && head.entry.wrapping_sub(self.split.published()) < unpublished {
            return Err(self.break_off(Violation::UsedIdNotHead { id }));
        }
        let (written, (straight, before)) =
            if len > head.writable { self.too_long(id, len, head.writable)? } else { (len, live.end()) };
        self.split.advance();
        Ok(Some(Completion {
            token,
            written,
            capacity: head.writable,
            head: id,
            parts: head.parts,
            straight,
            before,
            at: id,
            left: head.parts,
            inflight: &mut self.inflight,
            tables: &mut self.tables,
        }))
    }

    /// Looks at `used.idx`: number of used buffers that wait to be taken.
    #[inline]
    fn look(&mut self) -> Result<u16> {
        self.check()?;
        if !self.used_before {
            return Ok(0);
        }
        let span = self.split.look();
        self.accept(span)
    }

    /// Believes the device's index where it can be true.
    #[inline]
    fn accept(&mut self, span: u16) -> Result<u16> {
        let outstanding = self.outstanding();
        if span > outstanding {
            return Err(self.break_off(Violation::UsedIdxJump { span, outstanding }));
        }
        self.split.trust(span);
        Ok(span)
    }

    #[cold]
    fn bad_id(&self, id: u32) -> Violation {
        let size = u32::from(self.size);
        if id >= size { Violation::UsedIdRange { id, size } } else { Violation::UsedIdNotHead { id } }
    }

    /// D9, D11: more bytes than chain `id` had room for. Ends the chain, as [`InFlight::end`], if the ring can live with
    /// that.
    #[cold]
    fn too_long(&mut self, id: u32, written: u32, capacity: u32) -> Result<(u32, (bool, u32))> {
        // A chain without a device-writable byte has nothing that could be believed wrongly.
        if self.strict && capacity != 0 {
            return Err(self.break_off(Violation::UsedLenTooLarge { written, capacity }));
        }
        self.counters.clamped = self.counters.clamped.wrapping_add(1);
        Ok((capacity, self.inflight.end(id)))
    }

    #[cold]
    fn break_off(&mut self, violation: Violation) -> Error {
        // The first cause stands.
        let violation = *self.broken.get_or_insert(violation);
        self.split.forget_seen();
        self.inflight.close();
        Error::Broken { queue: self.queue, violation }
    }

    #[inline(always)]
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// [`Error::Broken`] if the device broke the specification since the ring was set up.
    #[inline]
    pub fn check(&self) -> Result {
        match self.broken {
            Some(violation) => Err(Error::Broken { queue: self.queue, violation }),
            None => Ok(()),
        }
    }

    /// Whether used buffers wait to be taken. [`Error::Broken`] as for [`Ring::pop`].
    pub fn has_used(&mut self) -> Result<bool> {
        Ok(self.split.seen() != 0 || self.look()? != 0)
    }

    /// Asks the device for a notification of the next used buffer and answers whether there is one already: if
    /// so no notification may come for it, and the caller takes it before waiting (VIRTIO 1.4 §2.7.14).
    ///
    /// # Errors
    /// [`Error::Broken`] as for [`Ring::pop`].
    pub fn enable_interrupts(&mut self) -> Result<bool> {
        self.check()?;
        let span = self.split.arm();
        if self.split.seen() != 0 {
            return Ok(true);
        }
        if !self.used_before {
            return Ok(false);
        }
        Ok(self.accept(span)? != 0)
    }

    /// Advises the device that no used buffer notifications are needed (§2.7.7). It may send some all the same.
    pub fn disable_interrupts(&mut self) {
        self.split.disarm();
    }

    /// Whether the token's chain is in flight: added, published or not, and not taken.
    pub fn holds(&self, token: Token) -> bool {
        self.inflight.holds(token)
    }

    /// Ok where [`Ring::holds`]; else [`Error::StaleToken`].
    pub fn check_token(&self, token: Token) -> Result {
        if self.holds(token) {
            return Ok(());
        }
        Err(Error::StaleToken { token: token.into_raw(), queue: self.queue })
    }

    /// After the device was reset: hands out every chain that was in flight, once, in `ended`, and sets the
    /// ring up anew, as [`Ring::new`] left it, for a device that is initialised again. Counters go on; tokens
    /// from before are stale.
    pub fn reset(
        &mut self,
        _proof: &DeviceStopped,
        mut ended: impl FnMut(Token, &mut dyn Iterator<Item = B>),
    ) -> Result {
        self.ended = self.ended.wrapping_add(u64::from(self.outstanding()));
        self.end_all(&mut ended);
        self.inflight.dismiss_all();
        self.inflight.open();
        let config = self.config.clone();
        self.split = Split::new(&self.memory, &config)?;
        self.written.fill(UNKNOWN);
        self.broken = None;
        self.used_before = false;
        Ok(())
    }

    fn end_all(&mut self, ended: &mut dyn FnMut(Token, &mut dyn Iterator<Item = B>)) {
        let mut live: alloc::vec::Vec<u32> = self.inflight.live().collect();
        // In the order of the available ring, so that slots in ring order go back oldest first.
        let next = self.split.published().wrapping_add(self.split.unpublished());
        let age = |at: u32| self.inflight.chain(at).map_or(0, |(head, _)| next.wrapping_sub(head.entry));
        live.sort_by_key(|&at| core::cmp::Reverse(age(at)));
        for at in live {
            let Some((head, token)) = self.inflight.chain(at) else { continue };
            let (straight, before) = self.inflight.end(at);
            let mut chain = Completion {
                token,
                written: 0,
                capacity: head.writable,
                head: at,
                parts: head.parts,
                straight,
                before,
                at,
                left: head.parts,
                inflight: &mut self.inflight,
                tables: &mut self.tables,
            };
            ended(token, &mut chain);
        }
    }

    /// Tokens of all chains in flight, in no order.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.inflight.live().filter_map(|at| self.inflight.chain(at)).map(|(_, token)| token)
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Index of the queue at its device.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Chains that the device has: published, and not taken back.
    pub fn outstanding(&self) -> u16 {
        self.split.outstanding()
    }

    /// Descriptors that are free.
    pub fn free(&self) -> u32 {
        self.inflight.free()
    }

    /// What has been counted since the ring was made.
    pub fn counters(&self) -> Counters {
        // `used` is counted by what is left, so that the hot path need not count.
        let used = self.counters.added.wrapping_sub(u64::from(self.outstanding())).wrapping_sub(self.ended);
        Counters { used, ..self.counters }
    }

    /// Its configuration.
    pub fn config(&self) -> &RingConfig {
        &self.config
    }

    /// The memory that it was built over.
    pub fn memory(&self) -> &RingMemory {
        &self.memory
    }

    /// Bytes of private memory: the in-flight table. The ring's own memory and its tables come on top.
    pub fn private_bytes(&self) -> usize {
        self.inflight.bytes()
    }
}

impl<B: Lease> Drop for Ring<B> {
    fn drop(&mut self) {
        // Chains added and never published included: their buffers are lost too, which is safe and rare.
        if self.inflight.live().next().is_some() {
            self.inflight.forget();
            core::mem::forget(self.memory.clone());
            // A device that reads its tables from memory that became something else would write through
            // whatever it finds there.
            core::mem::forget(self.tables.take());
        }
    }
}
