//! Calls that are under way: which requests are whose, which wait for room, and which have ended.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use std::time::Instant;

use super::job::{Job, Piece};
use super::lane::{Call, Lane};
use super::rescue::{Rescue, Seat, kept_away};
use super::work::{Answer, Work};
use crate::device::{Device, Lane as _, Port as _, Used};
use crate::mem::pool::DmaBuf;
use crate::{Error, Result};

/// A call under way.
#[derive(Debug)]
pub(super) struct Entry<T> {
    call: Call,
    work: Work,
    /// Its next request.
    pending: Option<Piece>,
    /// What a flush makes permanent.
    flush: Option<u64>,
    tag: T,
}

impl<T> Entry<T> {
    pub(super) fn new(call: Call, mut work: Work, flush: Option<u64>, tag: T) -> Self {
        let pending = work.next();
        Self { call, work, pending, flush, tag }
    }

    /// A call that has begun, with its next request.
    pub(super) fn begun(call: Call, pending: Option<Piece>, work: Work, tag: T) -> Self {
        Self { call, work, pending, flush: None, tag }
    }

    fn is_over(&self) -> bool {
        self.call.is_over() && (self.call.failure.is_some() || self.pending.is_none())
    }
}

/// A place for a call; its number is made of where it is and how often that was used.
#[derive(Debug)]
struct Place<T> {
    generation: u32,
    entry: Option<Entry<T>>,
}

/// The books of calls that do not wait.
#[derive(Debug)]
pub(super) struct Desk<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    /// Calls with requests that were not sent.
    line: VecDeque<u64>,
    ended: Vec<(T, Result<Answer>)>,
    /// Whether requests were added that the device was not shown.
    hidden: bool,
    lost: bool,
    /// When anything was heard of the device, or it was first asked.
    heard: Instant,
    /// Since then it was notified once more.
    reminded: bool,
}

impl<T> Default for Desk<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            line: VecDeque::new(),
            ended: Vec::new(),
            hidden: false,
            lost: false,
            heard: Instant::now(),
            reminded: false,
        }
    }
}

/// The place in a number.
fn place(number: u64) -> usize {
    (number & u64::from(u32::MAX)) as usize
}

impl<T> Desk<T> {
    /// A number for a call, which is to be entered next.
    pub(super) fn number(&mut self) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, entry: None });
            u32::try_from(self.places.len().saturating_sub(1)).unwrap_or(u32::MAX)
        });
        let generation = self.places.get(index as usize).map_or(0, |place| place.generation);
        u64::from(generation) << 32 | u64::from(index)
    }

    fn get(&mut self, number: u64) -> Option<&mut Entry<T>> {
        let entry = self.places.get_mut(place(number))?.entry.as_mut();
        entry.filter(|entry| entry.call.number == number)
    }

    /// Calls that have not ended.
    pub(super) fn open(&self) -> usize {
        self.places.len().saturating_sub(self.free.len())
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The device was closed: ends every call.
    pub(super) fn close(&mut self, lane: &mut Lane, rescue: &Rescue) {
        self.lost = false;
        self.turn(lane, rescue);
        self.end_all(&Error::Closed { what: "block device" }, rescue);
    }

    /// Whether calls wait for room, before which no other may send.
    pub(super) fn has_line(&self) -> bool {
        self.lost || !self.line.is_empty()
    }

    /// Begins a call.
    pub(super) fn enter(&mut self, mut entry: Entry<T>, lane: &mut Lane, rescue: &Rescue) {
        if !self.has_line() {
            let Entry { pending, work, call, .. } = &mut entry;
            self.fill(lane, rescue, pending, work, call);
        }
        self.go_on(entry, rescue);
    }

    /// Sends requests of a call while there is room.
    pub(super) fn fill(
        &mut self,
        lane: &mut Lane,
        rescue: &Rescue,
        pending: &mut Option<Piece>,
        job: &mut impl Job,
        call: &mut Call,
    ) {
        if call.failure.is_some() {
            return;
        }
        let (hidden, sent) = lane.fill(pending, job, call);
        self.hidden |= hidden;
        match sent {
            Ok(()) => {}
            Err(error) if rescue.can_help(&error) => self.lost = true,
            // What is in flight has to end all the same.
            Err(error) => call.failure = call.failure.take().or(Some(error)),
        }
    }

    /// Keeps a call that has begun: in its place, and in the line where it has requests left.
    pub(super) fn go_on(&mut self, entry: Entry<T>, rescue: &Rescue) {
        if self.open() == 1 {
            (self.heard, self.reminded) = (Instant::now(), false);
        }
        let number = entry.call.number;
        if entry.is_over() {
            self.end(entry, rescue);
            return;
        }
        if entry.call.failure.is_none() && (entry.pending.is_some() || !entry.call.again.is_empty()) {
            self.line.push_back(number);
        }
        if let Some(place) = self.places.get_mut(place(number)) {
            place.entry = Some(entry);
        }
    }

    /// A call, out of its place, has ended.
    fn end(&mut self, entry: Entry<T>, rescue: &Rescue) {
        let Entry { call, work, flush, tag, .. } = entry;
        if let Some(place) = self.places.get_mut(place(call.number)) {
            place.generation = place.generation.wrapping_add(1);
            self.free.push((call.number & u64::from(u32::MAX)) as u32);
        }
        let mut outcome = call.failure.map_or_else(|| Ok(work.answer()), Err);
        if let (Ok(_), Some(written)) = (&outcome, flush)
            && let Err(error) = rescue.end_flush(written)
        {
            outcome = Err(error);
        }
        self.ended.push((tag, outcome));
    }

    fn end_if_over(&mut self, number: u64, rescue: &Rescue) {
        let over = self
            .places
            .get_mut(place(number))
            .and_then(|place| place.entry.take_if(|entry| entry.call.number == number && entry.is_over()));
        if let Some(entry) = over {
            self.end(entry, rescue);
        }
    }

    /// Calls that have ended since the last look.
    pub(super) fn take_ended(&mut self) -> impl Iterator<Item = (T, Result<Answer>)> + '_ {
        self.ended.drain(..)
    }

    /// Shows the device what was added, takes what it has done, and sends what finds room then.
    pub(super) fn turn(&mut self, lane: &mut Lane, rescue: &Rescue) {
        if self.lost {
            return;
        }
        self.send_line(lane, rescue);
        let shown = self.show(lane);
        let taken = self.take_all(lane, rescue).and(shown);
        let shown = taken.and_then(|()| {
            self.send_line(lane, rescue);
            self.show(lane)
        });
        if let Err(error) = shown {
            self.give_up(&error, lane, rescue);
        }
    }

    fn show(&mut self, lane: &mut Lane) -> Result<()> {
        if core::mem::take(&mut self.hidden) { lane.queue.notify() } else { Ok(()) }
    }

    fn send_line(&mut self, lane: &mut Lane, rescue: &Rescue) {
        while !self.lost
            && let Some(&number) = self.line.front()
        {
            let entry = self
                .places
                .get_mut(place(number))
                .and_then(|place| place.entry.take_if(|entry| entry.call.number == number));
            let Some(mut entry) = entry else {
                self.line.pop_front();
                continue;
            };
            let Entry { pending, work, call, .. } = &mut entry;
            self.fill(lane, rescue, pending, work, call);
            let waits =
                entry.call.failure.is_none() && (entry.pending.is_some() || !entry.call.again.is_empty());
            if let Some(place) = self.places.get_mut(place(number)) {
                place.entry = Some(entry);
            }
            if waits {
                return;
            }
            self.line.pop_front();
            self.end_if_over(number, rescue);
        }
    }

    /// Takes all answers that are there.
    fn take_all(&mut self, lane: &mut Lane, rescue: &Rescue) -> Result<()> {
        let mut heard = false;
        let ended = loop {
            match lane.queue.pop() {
                Ok(Some(used)) => self.take(used, lane, rescue),
                Ok(None) => break Ok(()),
                Err(Error::Indeterminate { token }) => {
                    let Some((token, request)) = lane.forget(token) else { continue };
                    if let Some(entry) = self.get(request.call) {
                        entry.call.lose(token);
                        self.end_if_over(request.call, rescue);
                    }
                }
                Err(error) => break Err(error),
            }
            heard = true;
        };
        if heard {
            (self.heard, self.reminded) = (Instant::now(), false);
        }
        ended
    }

    fn take(&mut self, used: Used<DmaBuf>, lane: &mut Lane, rescue: &Rescue) {
        let Some(request) = lane.find(&used) else { return };
        let number = request.call;
        let entry = self.get(number);
        match entry {
            Some(entry) => {
                let outcome = lane.settle(request, used, Some(&mut entry.work), rescue);
                entry.call.mine = entry.call.mine.saturating_sub(1);
                let outcome = outcome.and_then(|outcome| outcome);
                let short = entry.work.kept().is_some_and(|buf| lane.runs_short(buf));
                let copied = if short { entry.work.copy_out() } else { Ok(None) };
                let error =
                    outcome.and(copied.map(|buf| buf.into_iter().for_each(|buf| lane.give(buf)))).err();
                entry.call.failure = entry.call.failure.take().or(error);
                self.end_if_over(number, rescue);
            }
            // Given up: its buffers go home, and nobody is told.
            None => {
                if let Err(error) = lane.settle(request, used, None::<&mut Work>, rescue) {
                    log::warn!("a late answer could not be taken: {error}");
                }
            }
        }
    }

    /// The queue is of no use any more: every call ends, unless another back-end may help.
    fn give_up(&mut self, error: &Error, lane: &mut Lane, rescue: &Rescue) {
        if rescue.can_help(error) {
            self.lost = true;
            return;
        }
        if rescue.retries() {
            self.end_with_device(false, None, lane);
        }
        self.end_all(error, rescue);
    }

    /// The device has ended: what it had is to be sent `again`, where it may be, or ends.
    fn end_with_device(&mut self, again: bool, away: Option<&Error>, lane: &mut Lane) {
        let reclaimed = lane.reclaim(again, |ended| {
            let (number, again) = (ended.call, ended.again.is_some());
            let Some(entry) = self.get(number) else { return };
            entry.call.end(ended, away);
            if again {
                self.line.push_back(number);
            }
        });
        if let Err(error) = reclaimed {
            log::debug!("nothing is reclaimed of a queue whose device is there: {error}");
        }
    }

    /// Ends every call. What is in flight stays so.
    fn end_all(&mut self, error: &Error, rescue: &Rescue) {
        self.line.clear();
        for index in 0..self.places.len() {
            let entry = self.places.get_mut(index).and_then(|place| place.entry.take());
            let Some(mut entry) = entry else { continue };
            entry.call.failure.get_or_insert_with(|| error.clone());
            self.end(entry, rescue);
        }
    }

    /// Goes on with another back-end, or ends every call.
    pub(super) fn take_seat(
        &mut self,
        seat: Result<Seat>,
        lane: &mut Lane,
        rescue: &Rescue,
        device: &Device,
    ) -> Result<()> {
        self.end_with_device(seat.is_ok(), kept_away(&seat), lane);
        self.lost = false;
        match seat.and_then(|seat| lane.sit_down(seat, device)) {
            Ok(()) => {
                (self.heard, self.reminded, self.hidden) = (Instant::now(), false, false);
                for index in 0..self.places.len() {
                    let number =
                        self.places.get(index).and_then(|place| Some(place.entry.as_ref()?.call.number));
                    number.into_iter().for_each(|number| self.end_if_over(number, rescue));
                }
                self.send_line(lane, rescue);
                self.turn(lane, rescue);
                Ok(())
            }
            Err(error) => {
                self.end_all(&error, rescue);
                Err(error)
            }
        }
    }

    /// How long the device may stay silent from now on.
    pub(super) fn left(&self, lane: &Lane) -> Duration {
        lane.make.timeout.saturating_sub(self.heard.elapsed()).max(Duration::from_micros(100))
    }

    /// Looks after a device that has been silent: asks it how it is, notifies it once more after half of its time
    /// (faults D14, D16), and ends every call after all of it.
    pub(super) fn watch(&mut self, lane: &mut Lane, rescue: &Rescue) {
        if self.open() == 0 || self.lost {
            return;
        }
        let (silent, limit) = (self.heard.elapsed(), lane.make.timeout);
        if silent >= limit {
            // A device that is gone, or wants a reset and could not say so, is not slow.
            lane.queue.port().ask();
            self.turn(lane, rescue);
            if self.open() != 0 && !self.lost && self.heard.elapsed() >= limit {
                self.end_all(&silence(silent), rescue);
            }
        } else if silent.saturating_mul(2) >= limit && !self.reminded {
            self.reminded = true;
            if lane.queue.kick_again()
                && let Err(error) = lane.queue.port().ring()
            {
                self.give_up(&error, lane, rescue);
            }
        } else if silent >= LOOK_AFTER {
            lane.queue.port().ask();
            self.turn(lane, rescue);
        }
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &T> {
        let under_way = self.places.iter().filter_map(|place| place.entry.as_ref()).map(|entry| &entry.tag);
        under_way.chain(self.ended.iter().map(|(tag, _)| tag))
    }
}

/// A device that is silent for so long is asked how it is.
const LOOK_AFTER: Duration = Duration::from_millis(40);

/// [`Error::Timeout`] of a wait that was so long.
fn silence(silent: Duration) -> Error {
    let after_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
    Error::Timeout { what: "a used buffer", after_ms }
}
