//! The quick way of a call that waits: requests of one buffer each, which is the caller's own. Chains stand from one
//! request to the next, the clock is not looked at, and nothing is copied. Whatever is out of the ordinary is left to
//! the usual way, which goes on from wherever this one ends.

use super::job::{Flow, Job, OwnJob, What};
use super::lane::{Call, Lane, Request};
use super::pipe::{LOOKS, SHOW_EVERY};
use super::rescue::Rescue;
use super::verdict::{UNWRITTEN, judge};
use crate::device::Used;
use crate::mem::pool::DmaBuf;
use crate::spec::device::block::request::{Header, RequestType};
use crate::{Error, Result};

/// Of [`LOOKS`] at the queue that find nothing, so many before the usual way waits.
const PATIENCE: u32 = 8 * LOOKS;

impl Lane {
    /// As [`Lane::run`], for a job all of whose requests have buffers of their own.
    pub(super) fn run_own(&mut self, job: &mut impl OwnJob, rescue: &Rescue) -> Result<()> {
        let mut call = self.begin(rescue)?;
        let mut next = job.next_own();
        let went = self.quick(&mut next, job, &mut call, rescue);
        let pending = next.map(|(sector, buf)| job.piece(sector, buf));
        if let Err(error) = went
            && !self.rescued(&error, &mut call, rescue)
        {
            call.failure.get_or_insert(error);
        }
        if pending.is_none() && call.mine == 0 && call.again.is_empty() && call.failure.is_none() {
            return Ok(());
        }
        self.go_on(pending, job, call, rescue)
    }

    /// Sends and takes requests as long as that goes smoothly.
    fn quick(
        &mut self,
        next: &mut Option<(u64, DmaBuf)>,
        job: &mut impl OwnJob,
        call: &mut Call,
        rescue: &Rescue,
    ) -> Result<()> {
        let mut looks: u32 = 0;
        let patience = if self.queue.spins() { PATIENCE } else { 1 };
        while looks < patience {
            if self.send_own(next, job, call)? || self.take_own(job, call, rescue)? {
                looks = 0;
            }
            if call.mine == 0 && (next.is_none() || call.failure.is_some()) {
                return Ok(());
            }
            looks = looks.wrapping_add(1);
        }
        Ok(())
    }

    /// Adds requests while there is room, and shows them to the device; answers whether there were any.
    #[inline(always)]
    fn send_own(
        &mut self,
        next: &mut Option<(u64, DmaBuf)>,
        job: &mut impl OwnJob,
        call: &mut Call,
    ) -> Result<bool> {
        if next.is_none() || call.failure.is_some() || !self.has_place() {
            return Ok(false);
        }
        // What is not the device's yet stays, for another queue.
        self.queue.check()?;
        let mut added: u32 = 0;
        while let Some((sector, buf)) = next.take() {
            if !self.has_place() {
                *next = Some((sector, buf));
                break;
            }
            if let Err(error) = self.add_own(sector, buf, job, call.number) {
                call.failure = Some(error);
                break;
            }
            added = added.wrapping_add(1);
            *next = job.next_own();
            if added.is_multiple_of(SHOW_EVERY) {
                // What is wrong with the device is told by what follows.
                let _ = self.queue.show();
            }
        }
        call.mine = call.mine.wrapping_add(added);
        self.queue.notify()?;
        Ok(true)
    }

    /// Whether a request of one buffer finds room.
    #[inline(always)]
    fn has_place(&self) -> bool {
        !self.standing.is_empty() || self.has_frame() && self.queue.has_room(3)
    }

    #[inline(always)]
    fn add_own(&mut self, sector: u64, data: DmaBuf, job: &mut impl OwnJob, call: u64) -> Result<()> {
        let Some(slot) = self.standing.take(&data) else {
            let piece = job.piece(sector, data);
            return self.add(call, piece, job);
        };
        let (reads, len) = (job.flow() == Flow::FromDevice, data.len());
        let request_type = if reads { RequestType::IN } else { RequestType::OUT };
        let header = Header { request_type, reserved: 0, sector }.encode(self.order);
        let sent = self.queue.resend(slot, data, reads, |to, status| {
            to.write(0, &header)?;
            status.write(0, &[UNWRITTEN])
        });
        let token = sent.inspect_err(|_| self.standing.put(slot, None))?;
        if let Some(place) = self.requests.get_mut(usize::from(token.slot())) {
            let repeats = job.repeats();
            let what = What { request_type, sector, flow: job.flow(), at: 0, len, repeats };
            *place = Some(Request { token, call, what, segments: 1, own: true });
        }
        Ok(())
    }

    /// Takes what one look at the queue finds; answers whether there was anything.
    #[inline]
    fn take_own(&mut self, job: &mut impl Job, call: &mut Call, rescue: &Rescue) -> Result<bool> {
        match self.queue.look_for_used() {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(Error::Indeterminate { token }) => {
                self.lost(token, call);
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        while let Some(left) = self.take_next(job, call, rescue) {
            if let Some(used) = left {
                self.take_usual(used, job, call, rescue)?;
            }
        }
        Ok(true)
    }

    /// Takes the next used buffer of those that were seen, if there is one, and gives back what is not of this call or
    /// not of one buffer.
    #[inline(always)]
    fn take_next(
        &mut self,
        job: &mut impl Job,
        call: &mut Call,
        rescue: &Rescue,
    ) -> Option<Option<Used<DmaBuf>>> {
        let used = self.queue.pop_seen()?;
        let token = used.token();
        let place = self.requests.get_mut(usize::from(token.slot())).filter(|place| {
            let mine = |request: &Request| request.token == token && request.call == call.number;
            place.as_ref().is_some_and(|request| request.own && mine(request))
        });
        let (Some(place), Some(status)) = (place, used.last_of_three()) else {
            return Some(Some(Used::take(used)));
        };
        let judged = judge(status, &used, self.legacy);
        let writes = place.take().is_some_and(|request| request.what.flow == Flow::ToDevice);
        let data = used.stand();
        self.standing.put(token.slot(), data.as_ref());
        call.mine = call.mine.saturating_sub(1);
        match judged {
            Ok(()) => {
                if writes {
                    rescue.wrote(self.life);
                }
                data.into_iter().for_each(|data| job.give_back(data));
            }
            Err(error) => call.failure = call.failure.take().or(Some(error)),
        }
        Some(None)
    }

    /// Takes what [`Lane::take_next`] left.
    #[cold]
    fn take_usual(
        &mut self,
        used: Used<DmaBuf>,
        job: &mut impl Job,
        call: &mut Call,
        rescue: &Rescue,
    ) -> Result<()> {
        let Some(request) = self.find(&used) else { return Ok(()) };
        let mine = request.call == call.number;
        let outcome = self.settle(request, used, mine.then_some(job), rescue)?;
        if mine {
            call.mine = call.mine.saturating_sub(1);
            call.failure = call.failure.take().or(outcome.err());
        }
        Ok(())
    }
}
