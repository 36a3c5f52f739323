//! One virtqueue of a device: ring, doorbell, event and waiting.

mod end;
mod many;
mod port;
mod reach;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU32;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd};

use super::gauge::Gauge;
use super::health::{Condition, Health};
use super::interrupts::Wake;
use super::lane::Port;
use super::used::Used;
use crate::bus::Doorbell;
use crate::event::{Deadline, spin};
use crate::mem::lease::Lease;
use crate::queue::{Completion, Counters, Ring, Token};
use crate::{Error, Result};
pub(super) use end::Home;
pub use port::QueuePort;
use reach::{check_space, check_spaces};

mod sharing;

pub use sharing::SharedQueue;

/// How a wait spends its time before it sleeps.
pub const DEFAULT_SPIN: Duration = Duration::from_micros(50);
/// Longest sleep before signals and the like are looked after.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// What a queue is made of.
#[derive(Debug)]
pub(super) struct Parts<B: Lease> {
    pub(super) ring: Ring<B>,
    pub(super) doorbell: Doorbell,
    /// Lower half of the value that a notification carries.
    pub(super) id: u16,
    pub(super) wake: Wake,
    /// Whether interrupts announce used buffers.
    pub(super) interrupts: bool,
    pub(super) home: Home,
    pub(super) gauge: Option<Arc<Gauge>>,
}

/// One virtqueue of a device, owned by whoever drives it. `Send`; calls take `&mut self`, and
/// [`super::SharedQueue`] is for several threads.
///
/// It owns the buffers in flight: they come back by completion, or after a confirmed reset of the device, and by
/// nothing else. A time-out frees nothing. A queue that is closed ([`Queue::close`]) or dropped with the device still
/// running leaves what is in flight with the device's quarantine until that reset.
///
/// When the device is reset, lost or closed, completions that are there can still be taken; then each request in
/// flight ends once, as [`Error::Indeterminate`] with its token; from then on every call gives the error that
/// tells what became of the device.
pub struct Queue<B: Lease + Send + 'static> {
    /// `None` once the device is no more, or the use of the queue has ended.
    ring: Option<Ring<B>>,
    port: Arc<QueuePort>,
    index: u16,
    size: u16,
    spin: Duration,
    home: Home,
    /// Requests that ended with the device or the queue, to be told of.
    ended: VecDeque<Token>,
    counters: Counters,
    gauge: Option<Arc<Gauge>>,
    /// Whether what is in flight at the device's end waits for [`Queue::reclaim`].
    keeps: bool,
}

impl<B: Lease + Send + 'static> Queue<B> {
    pub(super) fn new(parts: Parts<B>) -> Self {
        let Parts { mut ring, doorbell, id, wake, interrupts, home, gauge } = parts;
        // Until somebody sleeps, events are for nobody, and cost the device a system call each.
        ring.disable_interrupts();
        let health = Arc::clone(&home.health);
        health.add_waker(wake.own());
        Self {
            index: ring.queue(),
            size: ring.size(),
            spin: DEFAULT_SPIN,
            ended: VecDeque::new(),
            counters: Counters::default(),
            ring: Some(ring),
            port: Arc::new(QueuePort { doorbell, id, wake, interrupts, idle: AtomicU32::new(0), health }),
            home,
            gauge,
            keeps: false,
        }
    }

    /// Index of the queue.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How long waits spin before they sleep; zero for not at all.
    pub fn set_spin(&mut self, budget: Duration) {
        self.spin = budget;
    }

    /// Whether waits spin before they sleep.
    pub(crate) fn spins(&self) -> bool {
        !self.spin.is_zero()
    }

    /// What was counted since the queue was set up.
    pub fn counters(&self) -> Counters {
        self.ring.as_ref().map_or(self.counters, Ring::counters)
    }

    /// Chains that the device has.
    pub fn outstanding(&self) -> u16 {
        self.ring.as_ref().map_or(0, Ring::outstanding)
    }

    /// Whether a chain of `parts` buffers would find room.
    pub fn has_room(&self, parts: u16) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.has_room(parts))
    }

    /// Whether the token's request is in flight.
    pub fn holds(&self, token: Token) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.holds(token))
    }

    /// In which condition the device is, as far as the queue knows.
    pub fn condition(&self) -> Condition {
        self.home.health.condition()
    }

    /// Ok while the device runs or is about to; else what became of it.
    #[inline]
    pub fn check(&self) -> Result<()> {
        self.home.health.check()
    }

    #[inline]
    fn alive(&mut self) -> Result<&mut Ring<B>> {
        self.home.health.check()?;
        // Not by `ok_or`, whose error is made and dropped each time.
        match &mut self.ring {
            Some(ring) => Ok(ring),
            None => Err(Error::Closed { what: "queue" }),
        }
    }

    /// Adds a chain, device-readable buffers first: visible to the device with the next [`Queue::notify`].
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::BadChain`], [`Error::Broken`]; [`Error::NotMapped`] for a buffer of another
    /// device's memory (fault M11). The buffers are dropped then; ask [`Queue::has_room`] where that matters.
    #[inline]
    pub fn add<const R: usize, const W: usize>(
        &mut self,
        readable: [B; R],
        writable: [B; W],
    ) -> Result<Token> {
        check_spaces(&self.home.space, &readable, &writable)?;
        Ok(self.alive()?.add(readable, writable)?)
    }

    /// The same for any number of buffers.
    pub fn add_chain(
        &mut self,
        readable: impl IntoIterator<Item = B>,
        writable: impl IntoIterator<Item = B>,
    ) -> Result<Token> {
        let space = self.home.space.clone();
        let mut chain = self.alive()?.chain();
        for buf in readable {
            check_space(&space, &buf)?;
            chain = chain.readable(buf);
        }
        for buf in writable {
            check_space(&space, &buf)?;
            chain = chain.writable(buf);
        }
        chain.add()
    }

    /// Shows what was added to the device, and notifies it if it wants that.
    ///
    /// [`Error::Misuse`] before the device was started (§3.1.1: no notification before DRIVER_OK, fault M15).
    #[inline]
    pub fn notify(&mut self) -> Result<()> {
        if self.publish()? { self.port.ring() } else { Ok(()) }
    }

    /// Shows what was added to the device; answers whether it wants to be notified, for whoever sends that himself
    /// (fault M15 as with [`Queue::notify`]).
    #[inline]
    pub fn publish(&mut self) -> Result<bool> {
        Ok(self.shown()?.publish().is_some())
    }

    /// Shows what was added to the device, which begins if it is awake. A [`Queue::notify`] has to follow.
    #[inline]
    pub fn show(&mut self) -> Result<()> {
        self.shown()?.show();
        Ok(())
    }

    /// Ok where chains may be shown to the device.
    #[inline]
    pub(crate) fn check_started(&self) -> Result<()> {
        match self.home.health.condition() {
            Condition::Running => Ok(()),
            Condition::Ready => {
                let what = "a queue is notified after the device was started, not before";
                Err(Error::Misuse { what })
            }
            other => self.home.health.judge(other),
        }
    }

    /// The ring, whose chains are about to be shown.
    #[inline]
    fn shown(&mut self) -> Result<&mut Ring<B>> {
        self.check_started()?;
        let Some(ring) = &mut self.ring else { return Err(Error::Closed { what: "queue" }) };
        if let Some(gauge) = &self.gauge {
            gauge.show(ring.next_index());
        }
        Ok(ring)
    }

    /// Takes the next used buffer, if there is one.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::DeviceNeedsReset`]; after the device's end [`Error::Indeterminate`] once for
    /// each request that was in flight, and then what became of the device.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used<B>>> {
        self.pop_with(Used::take)
    }

    /// The same, giving it to `take` as the ring has it: no buffer is moved that `take` does not move.
    #[inline]
    pub fn pop_with<T>(&mut self, take: impl FnOnce(Completion<'_, B>) -> T) -> Result<Option<T>> {
        let mut over = self.is_at_end()?;
        if let Some(ring) = &mut self.ring {
            match ring.pop() {
                Ok(Some(completion)) => return Ok(Some(take(completion))),
                Ok(None) => {}
                Err(error) if !over && is_there(&self.port, &self.home.health) => return Err(error),
                Err(_) => over = true,
            }
        }
        if over || self.ring.is_none() { Err(self.end()) } else { Ok(None) }
    }

    /// Whether nothing comes any more but what the ring has; the error of a device that needs a reset.
    #[inline]
    fn is_at_end(&self) -> Result<bool> {
        match self.home.health.condition() {
            Condition::Running => Ok(false),
            unusual @ (Condition::NeedsReset | Condition::Forked) => {
                self.home.health.judge(unusual).map(|()| false)
            }
            other => Ok(is_over(other)),
        }
    }

    /// Whether there is a used buffer to be taken, by [`Queue::pop_seen`] or otherwise; errors as [`Queue::pop`].
    #[inline(always)]
    pub(crate) fn look_for_used(&mut self) -> Result<bool> {
        let mut over = self.is_at_end()?;
        if let Some(ring) = &mut self.ring {
            match ring.has_used() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if !over && is_there(&self.port, &self.home.health) => return Err(error),
                Err(_) => over = true,
            }
        }
        if over || self.ring.is_none() { Err(self.end()) } else { Ok(false) }
    }

    /// Takes the next used buffer of those that [`Queue::look_for_used`] has seen. What is wrong with the ring is told
    /// by the next look.
    #[inline(always)]
    pub(crate) fn pop_seen(&mut self) -> Option<Completion<'_, B>> {
        self.ring.as_mut()?.pop_seen().ok()?
    }

    /// [`Ring::resend`]; errors as [`Queue::add`].
    #[inline(always)]
    pub(crate) fn resend(
        &mut self,
        slot: u16,
        buf: B,
        writable: bool,
        prepare: impl FnOnce(&B, &B) -> Result<()>,
    ) -> Result<Token> {
        check_space(&self.home.space, &buf)?;
        self.alive()?.resend(slot, buf, writable, prepare)
    }

    /// [`Ring::dismiss`].
    pub(crate) fn dismiss(&mut self, slot: u16) -> Option<[B; 2]> {
        self.ring.as_mut()?.dismiss(slot)
    }

    /// The device, or the queue, is no more: tells of one request that was in flight, or of the end.
    #[cold]
    fn end(&mut self) -> Error {
        if self.keeps {
            return self.home.health.check().err().unwrap_or(Error::Closed { what: "queue" });
        }
        if let Some(ring) = self.ring.take() {
            self.counters = ring.counters();
            self.ended.extend(ring.tokens());
            self.home.put_away(ring, false);
        }
        match self.ended.pop_front() {
            Some(token) => Error::Indeterminate { token: token.into_raw() },
            None => self.home.health.check().err().unwrap_or(Error::Closed { what: "queue" }),
        }
    }

    /// Leaves what is in flight when the device ends to [`Queue::reclaim`]: the queue's calls then tell of the end
    /// alone, and of no request.
    pub fn keep_for_reclaim(&mut self) {
        self.keeps = true;
    }

    /// Ends the queue, whose device has ended, and gives each request that was in flight once: its token, and its
    /// buffers where the device is proven to have stopped. Else they are kept with the device's quarantine, and
    /// there are none here.
    ///
    /// [`Error::Misuse`] while the device runs; completions that are there should have been taken before.
    pub fn reclaim(&mut self, mut ended: impl FnMut(Token, Vec<B>)) -> Result<()> {
        if self.home.health.check().is_ok() {
            return Err(Error::Misuse {
                what: "requests are reclaimed after the end of their device, not before",
            });
        }
        let Some(mut ring) = self.ring.take() else { return Ok(()) };
        self.counters = ring.counters();
        match self.home.health.proof() {
            Some(proof) => ring.reset(&proof.for_rings(), |token, bufs| ended(token, bufs.collect())),
            None => {
                ring.tokens().for_each(|token| ended(token, Vec::new()));
                self.home.put_away(ring, false);
                Ok(())
            }
        }
    }

    /// Waits for a used buffer, at most for `timeout`; `None` is for ever.
    ///
    /// Spins for the queue's budget, then asks for an interrupt and sleeps. At half the time the device is
    /// notified once more, wanted or not (faults D14, D16), and the ring is looked at once more before
    /// [`Error::Timeout`] (D25). Errors as [`Queue::pop`].
    pub fn get(&mut self, timeout: Option<Duration>) -> Result<Used<B>> {
        self.get_with(timeout.map_or_else(Deadline::never, Deadline::after), || Ok(()))
    }

    /// The same, calling `between` after the spin and every 50 ms at least, for those who have to look after
    /// signals; its error ends the wait.
    pub fn get_with(
        &mut self,
        deadline: Deadline,
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<Used<B>> {
        if let Some(used) = self.pop()? {
            return Ok(used);
        }
        let budget = deadline.left().map_or(self.spin, |left| left.min(self.spin)).min(SLICE);
        spin(budget, || self.ready())?;
        let half = deadline.left().map(|left| Deadline::after(left.checked_div(2).unwrap_or(left)));
        let mut kicked = false;
        loop {
            between()?;
            if let Some(used) = self.look()? {
                return Ok(used);
            }
            if deadline.passed() {
                return self.out_of_time(deadline);
            }
            if !kicked && half.is_some_and(|half| half.passed()) {
                kicked = true;
                self.kick_again()?;
            }
            self.sleep(deadline, if kicked { None } else { half })?;
        }
    }

    /// Whether a call of [`Queue::pop`] would not answer `None`.
    fn ready(&mut self) -> Result<bool> {
        if !matches!(self.home.health.condition(), Condition::Ready | Condition::Running) {
            return Ok(true);
        }
        self.ring.as_mut().map_or(Ok(true), Ring::has_used)
    }

    /// Asks for an interrupt, and takes what is there all the same.
    fn look(&mut self) -> Result<Option<Used<B>>> {
        if self.ready()? || self.enable_interrupts()? {
            self.disable_interrupts();
            return self.pop();
        }
        Ok(None)
    }

    fn sleep(&mut self, deadline: Deadline, half: Option<Deadline>) -> Result<()> {
        let left = [deadline.left(), half.and_then(|half| half.left())];
        self.port.sleep(left.into_iter().flatten().fold(SLICE, Duration::min))
    }

    fn kick_again(&mut self) -> Result<()> {
        match self.ring.as_mut().and_then(Ring::kick_again) {
            Some(_) => self.port.ring(),
            None => Ok(()),
        }
    }

    fn out_of_time(&mut self, deadline: Deadline) -> Result<Used<B>> {
        // A device that is gone, or wants a reset and could not say so, is not slow.
        self.port.ask();
        self.pop()?.ok_or_else(|| deadline.timeout("a used buffer"))
    }

    /// Asks for a notification of the next used buffer; answers whether there is one already, which must be taken
    /// before [`Queue::as_fd`]'s descriptor is waited for.
    pub fn enable_interrupts(&mut self) -> Result<bool> {
        self.port.usable()?;
        // Signals from before say nothing about what comes from now on.
        self.port.wake.clear()?;
        self.ask_for_interrupts()
    }

    fn ask_for_interrupts(&mut self) -> Result<bool> {
        let found = match &mut self.ring {
            Some(ring) => ring.enable_interrupts()?,
            None => true,
        };
        Ok(found || self.ready()?)
    }

    /// Advises the device that no notifications are needed: the queue is polled.
    pub fn disable_interrupts(&mut self) {
        if self.home.health.is_ours()
            && let Some(ring) = &mut self.ring
        {
            ring.disable_interrupts();
        }
    }
}

/// Whether no completion will come any more.
fn is_over(condition: Condition) -> bool {
    matches!(condition, Condition::Gone | Condition::Stopped | Condition::Closed)
}

/// Whether a ring was broken by a device that is there, or has none behind it any more (fault D23).
#[cold]
fn is_there(port: &QueuePort, health: &Health) -> bool {
    port.ask();
    !is_over(health.condition())
}

impl<B: Lease + Send + 'static> AsFd for Queue<B> {
    /// Readable when used buffers, or the device's end, may be there, after [`Queue::enable_interrupts`] answered
    /// that nothing is there yet.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.wake.as_fd()
    }
}

impl<B: Lease + Send + 'static> fmt::Debug for Queue<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({}, size {}, {:?})", self.index, self.size, self.home.health.condition())
    }
}
