//! One queue for any number of threads: the lock and the waiting that libvirtio's mutex and condition variable
//! gave, with deadlines and without a thundering reader.
//!
//! Whoever waits first becomes the *reaper*: it takes completions for all, wakes their owners, and sleeps on the
//! device's event while the others sleep on it. When it leaves, by its completion, its deadline or an error, it
//! hands the role on.
//!
//! Lock order: the queue's lock is the only one; it is never held while the device is notified, while anybody
//! sleeps, or while a caller's code runs.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::fmt;
use core::time::Duration;
use std::sync::PoisonError;

use super::used::Used;
use crate::event::Deadline;
use crate::queue::Token;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, mutant};
use crate::{Error, Result};

/// Longest sleep before a waiter looks around.
const SLICE: Duration = Duration::from_millis(50);

/// A queue that a [`Shared`] can drive. [`super::Queue`] is one.
pub trait Lane: Send {
    /// What it holds in flight.
    type Buf: Send;
    /// Its doorbell and its event.
    type Port: Port;

    /// The doorbell and the event, for use without the lock.
    fn port(&self) -> Arc<Self::Port>;
    /// Whether a chain of `parts` buffers would find room.
    fn has_room(&self, parts: u16) -> bool;
    /// Whether nothing is in flight, so that no room will come.
    fn is_idle(&self) -> bool;
    /// Whether the token's request is in flight.
    fn holds(&self, token: Token) -> bool;
    /// Adds a chain.
    fn add(
        &mut self,
        readable: impl Iterator<Item = Self::Buf>,
        writable: impl Iterator<Item = Self::Buf>,
    ) -> Result<Token>;
    /// Shows what was added to the device; answers whether to ring.
    fn publish(&mut self) -> Result<bool>;
    /// Whether to ring although the device did not ask for it.
    fn kick_again(&mut self) -> bool;
    /// Takes a used buffer.
    fn pop(&mut self) -> Result<Option<Used<Self::Buf>>>;
    /// Asks for an interrupt; answers whether there is something already.
    fn arm(&mut self) -> Result<bool>;
    /// Advises the device that no interrupts are needed.
    fn disarm(&mut self);
}

/// What of a queue can be used without its lock.
pub trait Port: Send + Sync {
    /// Notifies the device.
    fn ring(&self) -> Result<()>;
    /// Sleeps until the device or [`Port::wake`] signals, at most for `limit`.
    fn sleep(&self, limit: Duration) -> Result<()>;
    /// Ends a sleep.
    fn wake(&self);
    /// Asks the device how it is, after a wait that brought nothing.
    fn ask(&self);
}

/// The number of a completion, and the completion.
type Reaped<B> = (u64, Result<Used<B>>);

struct State<L: Lane> {
    lane: L,
    /// What was reaped and not fetched, each with its number in the order of coming.
    done: BTreeMap<Token, Reaped<L::Buf>>,
    reaped: u64,
    /// Tokens that somebody waits for.
    claimed: BTreeSet<Token>,
    /// Those in `done` that nobody waits for, by number.
    unclaimed: BTreeMap<u64, Token>,
    /// Whether somebody has the role of the reaper.
    reaping: bool,
    /// Those who wait for room, in order.
    line: VecDeque<u64>,
    next_ticket: u64,
    closed: bool,
}

impl<L: Lane> State<L> {
    fn store(&mut self, token: Token, result: Result<Used<L::Buf>>) {
        let number = self.reaped;
        self.reaped = number.wrapping_add(1);
        if !self.claimed.contains(&token) {
            self.unclaimed.insert(number, token);
        }
        self.done.insert(token, (number, result));
    }

    fn fetch(&mut self, token: Token) -> Option<Result<Used<L::Buf>>> {
        let (number, result) = self.done.remove(&token)?;
        self.unclaimed.remove(&number);
        Some(result)
    }

    /// Takes what the device has used; answers how many completions that were.
    fn drain(&mut self) -> Result<usize> {
        let mut found = 0usize;
        loop {
            match self.lane.pop() {
                Ok(Some(used)) => self.store(used.token, Ok(used)),
                Ok(None) => return Ok(found),
                Err(Error::Indeterminate { token }) => {
                    self.store(Token::from_raw(token), Err(Error::Indeterminate { token }));
                }
                // What came before it is told first; the error comes again.
                Err(_) if found != 0 => return Ok(found),
                Err(error) => return Err(error),
            }
            found = found.saturating_add(1);
        }
    }

    fn any(&mut self) -> Option<Result<Used<L::Buf>>> {
        let (_, &token) = self.unclaimed.first_key_value()?;
        self.fetch(token)
    }
}

/// One virtqueue, shared by any number of threads through `&self`.
///
/// A token that is waited for with [`Shared::wait`] is its waiter's; what nobody waits for comes from
/// [`Shared::get`]. A time-out frees nothing and loses nothing: the token stays good.
pub struct Shared<L: Lane> {
    port: Arc<L::Port>,
    state: Mutex<State<L>>,
    changed: Condvar,
    spin: Duration,
}

impl<L: Lane> Shared<L> {
    /// Shares a queue. `spin` is how long the reaper looks at the ring before it sleeps.
    pub fn new(lane: L, spin: Duration) -> Self {
        let state = State {
            lane,
            done: BTreeMap::new(),
            claimed: BTreeSet::new(),
            reaped: 0,
            unclaimed: BTreeMap::new(),
            reaping: false,
            line: VecDeque::new(),
            next_ticket: 0,
            closed: false,
        };
        Self { port: state.lane.port(), state: Mutex::new(state), changed: Condvar::new(), spin }
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
        let (readable, writable) = (readable.into_iter(), writable.into_iter());
        let parts = u16::try_from(readable.len().saturating_add(writable.len())).unwrap_or(u16::MAX);
        let mut bufs = Some((readable, writable));
        let ticket = {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::Closed { what: "queue" });
            }
            if state.line.is_empty()
                && (state.lane.has_room(parts) || state.lane.is_idle())
                && let Some((readable, writable)) = bufs.take()
            {
                return state.lane.add(readable, writable);
            }
            let ticket = state.next_ticket;
            state.next_ticket = ticket.wrapping_add(1);
            state.line.push_back(ticket);
            ticket
        };
        // What was added so far must reach the device, or there will never be room.
        let shown = if mutant!(FullUnpublished) { Ok(()) } else { self.notify() };
        let result = shown.and_then(|()| {
            self.until(deadline, "room in the queue", 0, |state| {
                let mine = state.line.front() == Some(&ticket);
                if !mine || !(state.lane.has_room(parts) || state.lane.is_idle()) {
                    return None;
                }
                let (readable, writable) = bufs.take()?;
                Some(state.lane.add(readable, writable))
            })
        });
        let mut state = self.lock();
        state.line.retain(|&waiting| waiting != ticket);
        if !state.line.is_empty() && !mutant!(NoWakeRoom) {
            // The next in line may find room too.
            self.tell(&state);
        }
        result
    }

    /// As [`Shared::add`], but [`Error::QueueFull`] where there is no room, or others wait for it.
    pub fn try_add<R, W>(&self, readable: R, writable: W) -> Result<Token>
    where
        R: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
        W: IntoIterator<Item = L::Buf, IntoIter: ExactSizeIterator>,
    {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed { what: "queue" });
        }
        let (readable, writable) = (readable.into_iter(), writable.into_iter());
        if !state.line.is_empty() {
            let need = u32::try_from(readable.len().saturating_add(writable.len())).unwrap_or(u32::MAX);
            return Err(Error::QueueFull { queue: 0, need, free: 0 });
        }
        state.lane.add(readable, writable)
    }

    /// Shows what was added, by any thread, to the device, and notifies it if it wants that.
    pub fn notify(&self) -> Result<()> {
        let ring = self.lock().lane.publish()?;
        if ring { self.port.ring() } else { Ok(()) }
    }

    /// Waits for the completion of one request, at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::StaleToken`] for a token that is not in flight, was fetched, or is waited for already;
    /// [`Error::Timeout`], after which the token is as good as before; [`Error::Closed`];
    /// [`Error::Indeterminate`] where the device's end took the request with it; what [`super::Queue::pop`] gives.
    pub fn wait(&self, token: Token, deadline: Deadline) -> Result<Used<L::Buf>> {
        {
            let mut state = self.lock();
            let known = state.done.contains_key(&token) || state.lane.holds(token);
            if !known || !state.claimed.insert(token) {
                return Err(Error::StaleToken { token: token.into_raw(), queue: token.queue() });
            }
        }
        let result = self.until(deadline, "a request", 1, |state| state.fetch(token));
        let mut state = self.lock();
        state.claimed.remove(&token);
        if let Some(&(number, _)) = state.done.get(&token) {
            // It came between the end of the wait and now: it is anybody's.
            state.unclaimed.insert(number, token);
            self.tell(&state);
        }
        result
    }

    /// Waits for any completion that nobody else waits for, at most until `deadline`. Errors as [`Shared::wait`].
    pub fn get(&self, deadline: Deadline) -> Result<Used<L::Buf>> {
        self.until(deadline, "a used buffer", 1, State::any)
    }

    /// Takes a completion that nobody waits for, if there is one.
    pub fn pop(&self) -> Result<Option<Used<L::Buf>>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed { what: "queue" });
        }
        if state.drain()? != 0 {
            self.tell(&state);
        }
        state.any().transpose()
    }

    /// Ends the use of the queue: everybody who waits gets [`Error::Closed`] at once, and so does every later
    /// call. The queue itself, and what is in flight, end when this value is dropped.
    pub fn close(&self) {
        if mutant!(CloseLate) {
            self.wake_all();
        }
        self.lock().closed = true;
        if !mutant!(CloseLate) {
            self.wake_all();
        }
    }

    /// Lets everybody look again: those who sleep on the reaper, and the reaper, if it sleeps on the device and is
    /// not the caller itself.
    fn tell(&self, state: &State<L>) {
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

    /// Number of callers that wait for room.
    pub fn in_line(&self) -> usize {
        self.lock().line.len()
    }

    /// Runs `look` on the queue, under its lock: for counters and the like. It must not wait.
    pub fn with<T>(&self, look: impl FnOnce(&mut L) -> T) -> T {
        look(&mut self.lock().lane)
    }

    /// Waits until `done` answers, reaping for all meanwhile if nobody else does. `takes` is how many completions
    /// an answer uses up.
    fn until<T>(
        &self,
        deadline: Deadline,
        what: &'static str,
        takes: usize,
        mut done: impl FnMut(&mut State<L>) -> Option<Result<T>>,
    ) -> Result<T> {
        let mut half = deadline.left().map(|left| Deadline::after(left.checked_div(2).unwrap_or(left)));
        let mut state = self.lock();
        // Completions that this call has reaped, and not told anybody of.
        let mut found = 0;
        let result = loop {
            let answer = done(&mut state);
            if found > if answer.is_some() { takes } else { 0 } && !mutant!(NoWakeOwner) {
                self.tell(&state);
            }
            if let Some(result) = answer {
                break result;
            }
            if state.closed && !mutant!(CloseUnseen) {
                break Err(Error::Closed { what: "queue" });
            }
            found = 0;
            let over = deadline.passed();
            if half.is_some_and(|half| half.passed()) {
                half = None;
                state = self.kick_again(state);
            } else if state.reaping && !over {
                state = self.sleep_on_reaper(state, deadline, half);
            } else {
                let (now, outcome) = self.reap(state, over, deadline, half);
                state = now;
                match outcome {
                    Ok(0) if over => break Err(deadline.timeout(what)),
                    Ok(reaped) => found = reaped,
                    Err(error) => break Err(error),
                }
            }
        };
        // Hand the role on: whoever wakes finds it free, and takes it unless its own wait is over.
        if !state.reaping && !mutant!(NoHandOver) {
            self.changed.notify_one();
        }
        result
    }

    /// Takes completions and answers how many; where there is none, sleeps on the device, unless the caller's
    /// time is `over`.
    fn reap<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<L>>,
        over: bool,
        deadline: Deadline,
        half: Option<Deadline>,
    ) -> (MutexGuard<'a, State<L>>, Result<usize>) {
        if over && !state.reaping {
            // A device that is gone, or wants a reset and could not say so, is not slow.
            self.port.ask();
        }
        let drained = state.drain();
        if over || !matches!(drained, Ok(0)) {
            return (state, drained);
        }
        state.reaping = true;
        let (mut state, mut outcome) = self.spin(state, deadline);
        if matches!(outcome, Ok(0)) {
            match state.lane.arm() {
                Ok(true) => {}
                Ok(false) => {
                    drop(state);
                    outcome = self.port.sleep(limit(deadline, half)).map(|()| 0);
                    state = self.lock();
                }
                Err(error) => outcome = Err(error),
            }
            state.lane.disarm();
        }
        state.reaping = false;
        (state, outcome)
    }

    /// Looks at the ring for a while, leaving the lock to others in between.
    #[cfg(not(loom))]
    fn spin<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<L>>,
        deadline: Deadline,
    ) -> (MutexGuard<'a, State<L>>, Result<usize>) {
        let budget = Deadline::after(deadline.left().map_or(self.spin, |left| left.min(self.spin)));
        while !budget.passed() && !state.closed {
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
        (state, Ok(0))
    }

    /// A model has no time to spin.
    #[cfg(loom)]
    fn spin<'a>(
        &'a self,
        state: MutexGuard<'a, State<L>>,
        _deadline: Deadline,
    ) -> (MutexGuard<'a, State<L>>, Result<usize>) {
        let _ = self.spin;
        (state, Ok(0))
    }

    /// Sleeps until the reaper has something to say.
    fn sleep_on_reaper<'a>(
        &'a self,
        state: MutexGuard<'a, State<L>>,
        deadline: Deadline,
        half: Option<Deadline>,
    ) -> MutexGuard<'a, State<L>> {
        if cfg!(loom) {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let timed = self.changed.wait_timeout(state, limit(deadline, half));
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

/// How long to sleep now.
fn limit(deadline: Deadline, half: Option<Deadline>) -> Duration {
    let left = [deadline.left(), half.and_then(|half| half.left())];
    left.into_iter().flatten().fold(SLICE, Duration::min)
}

impl<L: Lane> fmt::Debug for Shared<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (waiting, ready) = (state.claimed.len(), state.done.len());
        write!(f, "Shared({waiting} waited for, {ready} to be fetched, closed: {})", state.closed)
    }
}
