//! Ways past the books of a shared queue, for as long as one thread has it for itself: what nobody waits for needs no
//! entry anywhere.

use core::sync::atomic::Ordering;
use core::time::Duration;

use super::Shared;
use super::state::State;
use crate::device::lane::{Lane, Port};
use crate::device::used::{Done, Used};
use crate::queue::Token;
use crate::sync::MutexGuard;
use crate::{Error, Result};

impl<L: Lane> Shared<L> {
    /// Takes a completion that nobody waits for, if there is one, and lets its buffers go.
    #[inline]
    pub fn pop_done(&self) -> Result<Option<Done>> {
        let mut state = self.open()?;
        if state.is_alone() {
            return state.lane.pop_with(Done::take);
        }
        drop(state);
        Ok(self.pop()?.map(Done::from))
    }

    /// Gives up to `most` completions that nobody waits for to `take`, and answers how many there were; their buffers
    /// go. `take` runs under the lock, and must not wait. An error is given where it is what comes first; else it comes
    /// again.
    pub fn pop_many(&self, most: usize, mut take: impl FnMut(Done)) -> Result<usize> {
        let mut state = self.open()?;
        let alone = state.is_alone();
        if alone {
            let count = state.lane.pop_each(most, &mut take);
            if count != 0 {
                return Ok(count);
            }
        }
        let drained = if alone { Ok(0) } else { state.drain() };
        let mut count = 0usize;
        while count < most {
            let next = match alone {
                true => state.lane.pop_with(Done::take),
                false => state.any().transpose().map(|used| used.map(Done::from)),
            };
            match next {
                Ok(Some(done)) => take(done),
                Ok(None) => break,
                // It was told now, or comes again: what ended with the device is told once, and by itself.
                Err(error) if count == 0 => return Err(error),
                Err(Error::Indeterminate { token }) => {
                    state.store(Token::from_raw(token), Err(Error::Indeterminate { token }));
                    break;
                }
                Err(_) => break,
            }
            count = count.saturating_add(1);
        }
        if state.has_news() {
            self.tell(&mut state);
        }
        if count == 0 { drained.map(|_| 0) } else { Ok(count) }
    }

    /// Gives up to `most` completions to `take`, where nobody waits for any; answers how many there were, and leaves it to
    /// [`Shared::pop_many`] to tell why not more. Their buffers go. `take` runs under the lock, and must not wait.
    #[cfg(feature = "python")]
    #[inline]
    pub(crate) fn pop_at_hand(&self, most: usize, take: impl FnMut(Done)) -> Result<usize> {
        let mut state = self.open()?;
        Ok(if state.is_alone() { state.lane.pop_each(most, take) } else { 0 })
    }

    /// Takes the completion of one request, if it has come, and lets its buffers go; what comes before it is kept for
    /// its owners. Errors as [`Shared::wait`].
    #[inline]
    pub fn try_wait(&self, token: Token) -> Result<Option<Done>> {
        let mut state = self.open()?;
        if state.is_alone() {
            let mut other = None;
            let popped = state.lane.pop_with(|completion| {
                if completion.token() == token {
                    return Some(completion.written());
                }
                other = Some(Used::take(completion));
                None
            });
            match popped {
                Ok(Some(Some(written))) => return Ok(Some(Done { token, written })),
                Ok(_) => {}
                // It ended with the device, as one of several: each is told to who asks for it.
                Err(Error::Indeterminate { token: ended }) if ended != token.into_raw() => {
                    state.store(Token::from_raw(ended), Err(Error::Indeterminate { token: ended }));
                }
                Err(error) => return Err(error),
            }
            if let Some(other) = other {
                state.store(other.token, Ok(other));
            }
        }
        self.look_for(state, token)
    }

    /// [`Shared::try_wait`] by the books.
    #[cold]
    fn look_for(&self, mut state: MutexGuard<'_, State<L>>, token: Token) -> Result<Option<Done>> {
        if let Some(used) = state.claim(token)? {
            return Ok(Some(used.into()));
        }
        let drained = state.drain();
        let result = state.fetch(token);
        state.disclaim(token);
        if state.has_news() {
            self.tell(&mut state);
        }
        match result {
            Some(result) => result.map(|used| Some(used.into())),
            None => drained.map(|_| None),
        }
    }

    /// Keeps what a call gave for whoever asks next, as if nobody had asked: for a caller that cannot pass it on.
    /// Nothing is kept by a queue that was closed.
    #[cold]
    pub fn put_back(&self, result: Result<Used<L::Buf>>) {
        let token = match &result {
            Ok(used) => used.token,
            Err(Error::Indeterminate { token }) => Token::from_raw(*token),
            // It comes again.
            Err(_) => return,
        };
        let mut state = self.lock();
        if !state.closed {
            state.store(token, result);
            self.tell(&mut state);
        }
    }

    /// Looks after the device's end: what was in flight goes home, and its owners are told, without anybody asking.
    /// Completions that are there are kept, as every wait keeps them.
    pub fn settle(&self) {
        let mut state = self.lock();
        // What went wrong is for the next call to tell.
        let _ = state.drain();
        self.tell(&mut state);
    }

    /// Runs `work` on the queue, under its lock, if it is open and nobody waits for room: for adding in ways that
    /// [`Shared::try_add`] does not know. It must not wait, nor take completions.
    ///
    /// [`Error::Closed`]; [`Error::QueueFull`] where others wait for room.
    #[inline]
    pub fn with_open<T>(&self, work: impl FnOnce(&mut L) -> Result<T>) -> Result<T> {
        let mut state = self.open()?;
        if !state.line.is_empty() {
            return Err(Error::QueueFull { queue: state.lane.index(), need: 0, free: 0 });
        }
        work(&mut state.lane)
    }

    /// As [`Shared::with_open`]; notifies the device after it where `work` says that it wants that, as
    /// [`crate::device::Queue::publish`] answers. What else `work` answers is lost where the notification fails.
    #[inline]
    pub fn send<T>(&self, work: impl FnOnce(&mut L) -> Result<(T, bool)>) -> Result<T> {
        let (done, ring) = self.with_open(work)?;
        if ring {
            self.port.ring()?;
        }
        Ok(done)
    }

    /// Notifies the device, whether it wants that or not; not before it was started (fault M15).
    pub fn kick(&self) -> Result<()> {
        self.open()?.lane.may_ring()?;
        self.port.ring()
    }

    /// How long the reaper looks at the ring before it sleeps, from the next wait on.
    pub fn set_spin(&self, spin: Duration) {
        let nanos = u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX);
        self.spin.store(nanos, Ordering::Relaxed);
    }
}
