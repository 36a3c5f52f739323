//! A call that waits: its requests are sent as there is room for them, and it ends with the last answer.
//!
//! A lane serves one such call at a time. Requests of a call that ended with a time-out stay in flight; their late
//! answers are taken by whichever call comes next, and dropped.

use super::job::{Job, Piece};
use super::lane::{Call, Lane};
use super::rescue::{Rescue, kept_away};
use crate::device::Used;
use crate::event::Deadline;
use crate::mem::pool::DmaBuf;
use crate::{Error, Result};

impl Lane {
    /// Does all requests of `job`, and gives the first error that one of them met, when none is in flight any
    /// more. [`Error::Timeout`] where no answer came for the lane's time; then some are in flight still.
    pub(super) fn run(&mut self, job: &mut impl Job, rescue: &Rescue) -> Result<()> {
        let call = self.begin(rescue)?;
        self.go_on(job.next(), job, call, rescue)
    }

    /// Begins a call, on the device's present life.
    pub(super) fn begin(&mut self, rescue: &Rescue) -> Result<Call> {
        self.call = self.call.wrapping_add(1);
        let mut call = Call::new(self.call);
        if rescue.retries() {
            self.queue.keep_for_reclaim();
            if rescue.life() != self.life() {
                self.take_seat(&mut call, rescue)?;
            }
        }
        Ok(call)
    }

    /// Does what is left to be done of a call.
    pub(super) fn go_on(
        &mut self,
        mut pending: Option<Piece>,
        job: &mut impl Job,
        mut call: Call,
        rescue: &Rescue,
    ) -> Result<()> {
        loop {
            if call.failure.is_none()
                && let Err(error) = self.send(&mut pending, job, &mut call)
            {
                if self.rescued(&error, &mut call, rescue) {
                    continue;
                }
                // What is in flight has to end all the same.
                call.failure = Some(error);
            }
            if call.is_over() && (call.failure.is_some() || pending.is_none()) {
                return call.failure.map_or(Ok(()), Err);
            }
            match self.next_used(&mut call) {
                Ok(Some(used)) => self.drain(used, job, &mut call, rescue)?,
                Ok(None) => {}
                Err(error) if self.rescued(&error, &mut call, rescue) => {}
                Err(error) => return Err(call.failure.unwrap_or(error)),
            }
        }
    }

    /// Whether what `error` means for the call is settled: the lane has a queue of a new life, or the call has failed
    /// with all its requests told of.
    pub(super) fn rescued(&mut self, error: &Error, call: &mut Call, rescue: &Rescue) -> bool {
        if !rescue.can_help(error) {
            return false;
        }
        if let Err(error) = self.take_seat(call, rescue) {
            call.failure.get_or_insert(error);
        }
        true
    }

    /// Takes a queue of the device's present life, or sees to it that there is one. What was in flight on the old
    /// one is to be sent again, or ends.
    fn take_seat(&mut self, call: &mut Call, rescue: &Rescue) -> Result<()> {
        let deadline = Deadline::after(self.make.timeout);
        let seat = rescue.recover(self.life(), self.queue.index(), deadline, &self.make.between);
        if matches!(seat, Err(Error::Interrupted)) {
            call.failure = Some(Error::Interrupted);
        }
        self.reclaim(seat.is_ok(), |ended| {
            if ended.call == call.number {
                call.end(ended, kept_away(&seat));
            }
        })?;
        self.sit_down(seat?, rescue.device())
    }

    /// Adds requests while there is room, and shows them to the device.
    fn send(&mut self, pending: &mut Option<Piece>, job: &mut impl Job, call: &mut Call) -> Result<()> {
        let (hidden, sent) = self.fill(pending, job, call);
        // What was added is shown whatever happened after it.
        if hidden { self.queue.notify().and(sent) } else { sent }
    }

    /// Waits for the next answer; `None` where a request ended without one.
    fn next_used(&mut self, call: &mut Call) -> Result<Option<Used<DmaBuf>>> {
        let answer = self.queue.pop();
        if let Some(used) = self.sort_out(answer, call)? {
            return Ok(Some(used));
        }
        if call.mine == 0 && call.failure.is_some() {
            return Ok(None);
        }
        let answer = self.queue.get_with(Deadline::after(self.make.timeout), || self.make.between.look());
        self.sort_out(answer.map(Some), call)
    }

    /// A request that ended with the device is told of once: here, where it is this call's.
    fn sort_out(
        &mut self,
        answer: Result<Option<Used<DmaBuf>>>,
        call: &mut Call,
    ) -> Result<Option<Used<DmaBuf>>> {
        let Err(Error::Indeterminate { token }) = answer else { return answer };
        self.lost(token, call);
        Ok(None)
    }

    /// A request ended with the device.
    #[cold]
    pub(super) fn lost(&mut self, token: u64, call: &mut Call) {
        if let Some((token, request)) = self.forget(token)
            && request.call == call.number
        {
            call.lose(token);
        }
    }

    /// Takes this answer and all others that are there.
    fn drain(
        &mut self,
        first: Used<DmaBuf>,
        job: &mut impl Job,
        call: &mut Call,
        rescue: &Rescue,
    ) -> Result<()> {
        let mut next = Some(first);
        while let Some(used) = next {
            if let Some(request) = self.find(&used) {
                let mine = request.call == call.number;
                let outcome = self.settle(request, used, mine.then_some(&mut *job), rescue)?;
                if mine {
                    call.mine = call.mine.saturating_sub(1);
                    call.failure = call.failure.take().or(outcome.err());
                }
            }
            let answer = self.queue.pop();
            next = match self.sort_out(answer, call) {
                Err(error) if self.rescued(&error, call, rescue) => None,
                answer => answer?,
            };
        }
        Ok(())
    }
}
