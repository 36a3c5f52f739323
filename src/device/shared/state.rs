//! What is behind the lock of a shared queue.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::device::lane::Lane;
use crate::device::used::Used;
use crate::error::ChainFault;
use crate::queue::Token;
use crate::sync::mutant;
use crate::{Error, Result};

/// The number of a completion, and the completion.
type Reaped<B> = (u64, Result<Used<B>>);

pub(super) struct State<L: Lane> {
    pub(super) lane: L,
    /// What was reaped and not fetched, each with its number in the order of coming.
    done: BTreeMap<Token, Reaped<L::Buf>>,
    /// Number of the next completion.
    reaped: u64,
    /// Tokens that somebody waits for.
    claimed: BTreeSet<Token>,
    /// Those in `done` that nobody waits for, by number.
    unclaimed: BTreeMap<u64, Token>,
    /// Completions from this number on were not told to those who sleep.
    told: u64,
    /// How many of them are still in `done`.
    untold: usize,
    /// Whether those in line were not told that there may be room.
    untold_room: bool,
    /// Whether somebody has the role of the reaper.
    pub(super) reaping: bool,
    /// Those who wait for room, in order.
    pub(super) line: VecDeque<u64>,
    next_ticket: u64,
    pub(super) closed: bool,
}

impl<L: Lane> State<L> {
    pub(super) fn new(lane: L) -> Self {
        Self {
            lane,
            done: BTreeMap::new(),
            reaped: 0,
            claimed: BTreeSet::new(),
            unclaimed: BTreeMap::new(),
            told: 0,
            untold: 0,
            untold_room: false,
            reaping: false,
            line: VecDeque::new(),
            next_ticket: 0,
            closed: false,
        }
    }

    /// Ok until the queue was closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::Closed { what: "queue" }) } else { Ok(()) }
    }

    /// Whether completions can go straight to whoever asks: nobody waits for one, or for room, and none is kept.
    pub(super) fn is_alone(&self) -> bool {
        !self.closed
            && self.done.is_empty()
            && self.claimed.is_empty()
            && self.line.is_empty()
            && !self.reaping
    }

    /// Keeps a completion for whoever it is.
    pub(super) fn store(&mut self, token: Token, result: Result<Used<L::Buf>>) {
        let number = self.reaped;
        self.reaped = number.wrapping_add(1);
        if !self.claimed.contains(&token) {
            self.unclaimed.insert(number, token);
        }
        self.done.insert(token, (number, result));
        self.untold = self.untold.saturating_add(1);
        // Even where the completion goes to whoever reaped it, and nobody else needs to know.
        self.untold_room |= !self.line.is_empty() && !mutant!(RoomUntold);
    }

    /// Takes the completion of a token, if it has come.
    pub(super) fn fetch(&mut self, token: Token) -> Option<Result<Used<L::Buf>>> {
        let (number, result) = self.done.remove(&token)?;
        self.unclaimed.remove(&number);
        if number >= self.told {
            self.untold = self.untold.saturating_sub(1);
        }
        Some(result)
    }

    /// Takes the oldest completion that nobody waits for.
    pub(super) fn any(&mut self) -> Option<Result<Used<L::Buf>>> {
        let (_, &token) = self.unclaimed.first_key_value()?;
        self.fetch(token)
    }

    /// What was reaped and not fetched, at the end of the queue: nobody can ask for it any more.
    pub(super) fn take_kept(&mut self) -> impl Sized + use<L> {
        self.unclaimed.clear();
        (self.told, self.untold) = (self.reaped, 0);
        core::mem::take(&mut self.done)
    }

    /// Takes what the device has used; answers how many completions that were.
    pub(super) fn drain(&mut self) -> Result<usize> {
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

    /// Whether those who sleep should look again.
    pub(super) fn has_news(&self) -> bool {
        self.untold != 0 || self.untold_room
    }

    /// How many completions they were told of.
    #[cfg(not(loom))]
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// They were told.
    pub(super) fn all_told(&mut self) {
        (self.told, self.untold, self.untold_room) = (self.reaped, 0, false);
    }

    /// Reserves a token for one waiter, or takes its completion at once: what is claimed is no one else's.
    pub(super) fn claim(&mut self, token: Token) -> Result<Option<Used<L::Buf>>> {
        let stale = Error::StaleToken { token: token.into_raw(), queue: self.lane.index() };
        if self.claimed.contains(&token) {
            return Err(stale);
        }
        if !mutant!(ClaimLate)
            && let Some(result) = self.fetch(token)
        {
            return result.map(Some);
        }
        if !self.done.contains_key(&token) && !self.lane.holds(token) {
            return Err(stale);
        }
        self.claimed.insert(token);
        Ok(None)
    }

    /// The waiter has gone. What came between the end of its wait and now is anybody's; answers whether there is
    /// such.
    pub(super) fn disclaim(&mut self, token: Token) -> bool {
        self.claimed.remove(&token);
        let Some(&(number, _)) = self.done.get(&token) else { return false };
        self.unclaimed.insert(number, token);
        true
    }

    /// Refuses what no queue of this size can ever take.
    pub(super) fn check_parts(&self, parts: u16) -> Result<()> {
        if parts > self.lane.size() { Err(ChainFault::TooManyBuffers.into()) } else { Ok(()) }
    }

    /// Whether a chain of `parts` buffers should be tried now: it finds room, or waiting will not help it.
    pub(super) fn admits(&self, parts: u16) -> bool {
        self.lane.has_room(parts) || self.lane.is_idle()
    }

    /// Takes a place at the end of the line.
    pub(super) fn stand_in_line(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        self.line.push_back(ticket);
        ticket
    }

    /// Leaves the line; answers whether there are others.
    pub(super) fn leave_line(&mut self, ticket: u64) -> bool {
        self.line.retain(|&waiting| waiting != ticket);
        !self.line.is_empty()
    }

    pub(super) fn tally(&self) -> (usize, usize) {
        (self.claimed.len(), self.done.len())
    }
}
