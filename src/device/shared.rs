//! One queue for any number of threads: the lock and the waiting that libvirtio's mutex and condition variable
//! gave, with deadlines and without a thundering reader.
//!
//! Whoever waits first becomes the *reaper*: it takes completions for all, wakes their owners, and sleeps on the
//! device's event while the others sleep on it. When it leaves, by its completion, its deadline or an error, it
//! hands the role on.
//!
//! Lock order: the queue's lock is the only one; it is never held while the device is notified or asked, while
//! anybody sleeps, or while a caller's code runs, but for [`Shared::with`] and the iterators given to `add`.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::PoisonError;

use super::lane::{Lane, Port};
use super::used::Used;
use crate::event::Deadline;
use crate::queue::Token;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, mutant};
use crate::{Error, Result};

mod direct;
mod pace;
mod state;

use pace::{Pace, Step};
use state::State;

/// What a caller wants to look after while it waits.
type Between<'a> = Option<&'a mut dyn FnMut() -> Result<()>>;

/// One virtqueue, shared by any number of threads through `&self`.
///
/// A token that is waited for with [`Shared::wait`] is its waiter's; what nobody waits for comes from
/// [`Shared::get`]. A time-out frees nothing and loses nothing: the token stays good.
pub struct Shared<L: Lane> {
    port: Arc<L::Port>,
    state: Mutex<State<L>>,
    changed: Condvar,
    /// In nanoseconds.
    spin: AtomicU64,
}

impl<L: Lane> Shared<L> {
    /// Shares a queue. `spin` is how long the reaper looks at the ring before it sleeps.
    pub fn new(lane: L, spin: Duration) -> Self {
        let state = State::new(lane);
        let shared = Self {
            port: state.lane.port(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            spin: AtomicU64::new(0),
        };
        shared.set_spin(spin);
        shared
    }

    /// The queue, for a process that may use it (fault M6: its lock is not even looked at in a fork's child), while it
    /// is open.
    #[inline(always)]
    fn open(&self) -> Result<MutexGuard<'_, State<L>>> {
        self.port.usable()?;
        let state = self.lock();
        state.check_open()?;
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a chain, device-readable buffers first, waiting for room until `deadline` if there is none; those who
    /// wait are served in order. The device sees it with the next [`Shared::notify`].
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Closed`], and those of [`super::Queue::add`]; the buffers are dropped then.
    pub fn add<R, W>(&self, readable: R, writable: W, deadline: Deadline) -> Result<Token>
    where
        R: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
        W: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
    {
        self.add_or_ask(readable, writable, deadline, None)
    }

    /// The same, calling `between` while it waits, as [`Shared::wait_with`] does.
    pub fn add_with<R, W>(
        &self,
        readable: R,
        writable: W,
        deadline: Deadline,
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<Token>
    where
        R: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
        W: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
    {
        self.add_or_ask(readable, writable, deadline, Some(&mut between))
    }

    fn add_or_ask<R, W>(
        &self,
        readable: R,
        writable: W,
        deadline: Deadline,
        between: Between<'_>,
    ) -> Result<Token>
    where
        R: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
        W: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
    {
        let (readable, writable) = (readable.into_iter(), writable.into_iter());
        let parts = u16::try_from(readable.len().saturating_add(writable.len())).unwrap_or(u16::MAX);
        let ticket = {
            let mut state = self.open()?;
            state.check_parts(parts)?;
            if state.line.is_empty() && state.admits(parts) {
                return state.lane.add(readable, writable);
            }
            state.stand_in_line()
        };
        let place = Place { shared: self, ticket };
        // What was added so far must reach the device, or there will never be room.
        if !mutant!(FullUnpublished) {
            self.notify()?;
        }
        let mut bufs = Some((readable, writable));
        let result = self.until(deadline, "room in the queue", between, |state| {
            if state.line.front() != Some(&ticket) || !state.admits(parts) {
                return None;
            }
            let (readable, writable) = bufs.take()?;
            Some(state.lane.add(readable, writable))
        });
        drop(place);
        result
    }

    /// As [`Shared::add`], but [`Error::QueueFull`] where there is no room, or others wait for it.
    pub fn try_add<R, W>(&self, readable: R, writable: W) -> Result<Token>
    where
        R: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
        W: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
    {
        let (readable, writable) = (readable.into_iter(), writable.into_iter());
        let mut state = self.open()?;
        if !state.line.is_empty() {
            let need = u32::try_from(readable.len().saturating_add(writable.len())).unwrap_or(u32::MAX);
            return Err(Error::QueueFull { queue: state.lane.index(), need, free: 0 });
        }
        state.lane.add(readable, writable)
    }

    /// Shows what was added, by any thread, to the device, and notifies it if it wants that.
    pub fn notify(&self) -> Result<()> {
        let ring = self.open()?.lane.publish()?;
        if ring { self.port.ring() } else { Ok(()) }
    }

    /// Waits for the completion of one request, at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::StaleToken`] for a token that is not in flight, was fetched, or is waited for already;
    /// [`Error::Timeout`], after which the token is as good as before; [`Error::Closed`];
    /// [`Error::Indeterminate`] where the device's end took the request with it; what [`super::Queue::pop`] gives.
    pub fn wait(&self, token: Token, deadline: Deadline) -> Result<Used<L::Buf>> {
        self.wait_or_ask(token, deadline, None)
    }

    /// The same, calling `between` before it sleeps and every 50 ms at least, without the lock, for those who have
    /// to look after signals; its error ends the wait as a time-out does.
    pub fn wait_with(
        &self,
        token: Token,
        deadline: Deadline,
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<Used<L::Buf>> {
        self.wait_or_ask(token, deadline, Some(&mut between))
    }

    fn wait_or_ask(&self, token: Token, deadline: Deadline, between: Between<'_>) -> Result<Used<L::Buf>> {
        if let Some(used) = self.open()?.claim(token)? {
            return Ok(used);
        }
        let claim = Claim { shared: self, token };
        let result = self.until(deadline, "a request", between, |state| state.fetch(token));
        drop(claim);
        result
    }

    /// Waits for any completion that nobody else waits for, at most until `deadline`. Errors as [`Shared::wait`].
    pub fn get(&self, deadline: Deadline) -> Result<Used<L::Buf>> {
        drop(self.open()?);
        self.until(deadline, "a used buffer", None, State::any)
    }

    /// The same, calling `between` as [`Shared::wait_with`] does.
    pub fn get_with(
        &self,
        deadline: Deadline,
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<Used<L::Buf>> {
        drop(self.open()?);
        self.until(deadline, "a used buffer", Some(&mut between), State::any)
    }

    /// Takes a completion that nobody waits for, if there is one.
    pub fn pop(&self) -> Result<Option<Used<L::Buf>>> {
        let mut state = self.open()?;
        if state.is_alone() {
            return state.lane.pop();
        }
        if let Some(result) = state.any() {
            return result.map(Some);
        }
        state.drain()?;
        let result = state.any();
        if state.has_news() {
            self.tell(&mut state);
        }
        result.transpose()
    }

    /// Ends the use of the queue: everybody who waits gets [`Error::Closed`] at once, and so does every later
    /// call. The queue itself, and what is in flight, end when this value is dropped.
    pub fn close(&self) {
        if self.port.usable().is_err() {
            return;
        }
        if mutant!(CloseLate) {
            self.wake_all();
        }
        let kept = {
            let mut state = self.lock();
            state.closed = true;
            state.take_kept()
        };
        if !mutant!(CloseLate) {
            self.wake_all();
        }
        // Their buffers go home, which is not to happen under the lock.
        drop(kept);
    }

    /// How many wait for room.
    pub fn in_line(&self) -> usize {
        self.lock().line.len()
    }

    /// How many requests somebody waits for by their token.
    pub fn waited_for(&self) -> usize {
        self.lock().tally().0
    }

    /// Lets everybody look again: those who sleep on the reaper, and the reaper, if it sleeps on the device and is
    /// not the caller itself.
    fn tell(&self, state: &mut State<L>) {
        state.all_told();
        self.changed.notify_all();
        if state.reaping {
            self.port.wake();
        }
    }

    /// Wakes the reaper, which sleeps on the device, and those who sleep on the reaper.
    fn wake_all(&self) {
        self.changed.notify_all();
        if !mutant!(CloseNoWake) {
            self.port.wake();
        }
    }

    /// Runs `look` on the queue, under its lock: for counters and the like. It must not wait.
    pub fn with<T>(&self, look: impl FnOnce(&mut L) -> T) -> T {
        look(&mut self.lock().lane)
    }

    /// Waits until `done` answers, reaping for all meanwhile if nobody else does. `between` is called before each
    /// sleep.
    fn until<T>(
        &self,
        deadline: Deadline,
        what: &'static str,
        mut between: Between<'_>,
        mut done: impl FnMut(&mut State<L>) -> Option<Result<T>>,
    ) -> Result<T> {
        let mut pace = Pace::new(deadline);
        let mut state = self.lock();
        let result = loop {
            let answer = done(&mut state);
            if state.has_news() && !mutant!(NoWakeOwner) {
                self.tell(&mut state);
            }
            if let Some(result) = answer {
                break result;
            }
            if state.closed && !mutant!(CloseUnseen) {
                break Err(Error::Closed { what: "queue" });
            }
            let step = match pace.next() {
                Step::Over => Err(deadline.timeout(what)),
                step => {
                    let (now, outcome) = self.take_step(state, step, &pace, &mut between);
                    state = now;
                    outcome
                }
            };
            if let Err(error) = step {
                break Err(error);
            }
        };
        // Hand the role on: whoever wakes finds it free, and takes it unless its own wait is over.
        if !state.reaping && !mutant!(NoHandOver) {
            self.changed.notify_one();
        }
        result
    }

    /// What a wait does next, with the lock given back wherever that takes time.
    fn take_step<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<L>>,
        step: Step,
        pace: &Pace,
        between: &mut Between<'_>,
    ) -> (MutexGuard<'a, State<L>>, Result<()>) {
        match step {
            Step::Ask => match between {
                Some(between) => {
                    drop(state);
                    let outcome = between();
                    (self.lock(), outcome)
                }
                None => (state, Ok(())),
            },
            Step::Kick => (self.kick_again(state), Ok(())),
            Step::Wait if state.reaping => (self.sleep_on_reaper(state, pace.limit()), Ok(())),
            Step::Wait => self.reap(state, pace),
            Step::LastLook { waited } => {
                if waited {
                    drop(state);
                    // A device that is gone, or wants a reset and could not say so, is not slow.
                    self.port.ask();
                    state = self.lock();
                }
                let outcome = state.drain().map(drop);
                (state, outcome)
            }
            Step::Over => (state, Ok(())),
        }
    }

    /// Takes completions; where there is none, sleeps on the device.
    fn reap<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<L>>,
        pace: &Pace,
    ) -> (MutexGuard<'a, State<L>>, Result<()>) {
        let drained = state.drain();
        if !matches!(drained, Ok(0)) {
            return (state, drained.map(drop));
        }
        state.reaping = true;
        let (mut state, drained) = self.spin(state, pace.deadline);
        let mut outcome = drained.as_ref().map(drop).map_err(Error::clone);
        if matches!(drained, Ok(0)) {
            match state.lane.arm() {
                Ok(true) => {}
                Ok(false) => {
                    drop(state);
                    // One slice for both, after which whoever has something to look after is asked.
                    outcome = self.port.sleep(pace.limit().saturating_sub(self.spins()));
                    state = self.lock();
                }
                Err(error) => outcome = Err(error),
            }
            state.lane.disarm();
        }
        state.reaping = false;
        (state, outcome)
    }

    /// How long a wait spins at a time.
    fn spins(&self) -> Duration {
        Duration::from_nanos(self.spin.load(Ordering::Relaxed)).min(pace::SLICE)
    }

    /// Looks at the ring for a while, leaving the lock to others in between; 0 where that brought nothing.
    #[cfg(not(loom))]
    fn spin<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<L>>,
        deadline: Deadline,
    ) -> (MutexGuard<'a, State<L>>, Result<usize>) {
        let spin = self.spins();
        let budget = Deadline::after(deadline.left().map_or(spin, |left| left.min(spin)));
        let told = state.told();
        // What others reaped and told of may be what this waiter waits for.
        while !budget.passed() && !state.closed && state.told() == told {
            drop(state);
            for _ in 0..64 {
                core::hint::spin_loop();
            }
            state = self.lock();
            let drained = state.drain();
            if !matches!(drained, Ok(0)) {
                return (state, drained);
            }
        }
        let look_again = state.closed || state.told() != told;
        (state, Ok(usize::from(look_again)))
    }

    /// A model has no time to spin.
    #[cfg(loom)]
    fn spin<'a>(
        &'a self,
        state: MutexGuard<'a, State<L>>,
        _deadline: Deadline,
    ) -> (MutexGuard<'a, State<L>>, Result<usize>) {
        (state, Ok(0))
    }

    /// Sleeps until the reaper has something to say.
    fn sleep_on_reaper<'a>(
        &'a self,
        state: MutexGuard<'a, State<L>>,
        limit: Duration,
    ) -> MutexGuard<'a, State<L>> {
        if cfg!(loom) {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let timed = self.changed.wait_timeout(state, limit);
        timed.unwrap_or_else(PoisonError::into_inner).0
    }

    /// D14, D16: at half the time the device is notified once more. An error shows in the wait itself.
    fn kick_again<'a>(&'a self, mut state: MutexGuard<'a, State<L>>) -> MutexGuard<'a, State<L>> {
        if !state.lane.kick_again() {
            return state;
        }
        drop(state);
        if let Err(error) = self.port.ring() {
            log::debug!("a second notification failed: {error}");
        }
        self.lock()
    }
}

/// Whether a model has failed, whose threads loom unwinds: its locks are gone.
fn is_unwound_by_loom() -> bool {
    cfg!(loom) && std::thread::panicking()
}

/// A place in the line for room, left even where the wait ends by a panic of the caller's code.
struct Place<'a, L: Lane> {
    shared: &'a Shared<L>,
    ticket: u64,
}

impl<L: Lane> Drop for Place<'_, L> {
    fn drop(&mut self) {
        if is_unwound_by_loom() {
            return;
        }
        let mut state = self.shared.lock();
        if state.leave_line(self.ticket) && !mutant!(NoWakeRoom) {
            // The next in line may find room too.
            self.shared.tell(&mut state);
        }
    }
}

/// A token that is waited for, given up likewise.
struct Claim<'a, L: Lane> {
    shared: &'a Shared<L>,
    token: Token,
}

impl<L: Lane> Drop for Claim<'_, L> {
    fn drop(&mut self) {
        if is_unwound_by_loom() {
            return;
        }
        let mut state = self.shared.lock();
        if state.disclaim(self.token) {
            self.shared.tell(&mut state);
        }
    }
}

impl<L: Lane> fmt::Debug for Shared<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (waiting, ready) = state.tally();
        write!(f, "Shared({waiting} waited for, {ready} to be fetched, closed: {})", state.closed)
    }
}
