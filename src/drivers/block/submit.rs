//! Calls that do not wait: they are submitted, and their answers are picked up.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use std::sync::PoisonError;

use super::api::Block;
use super::desk::{Desk, Entry};
use super::job::{Ask, Flow, Job, Own, Read, Write};
use super::lane::{Call, Lane};
use super::limits::{EraseLimits, Limits};
use super::many::TOO_LONG;
use super::split::Transfers;
use super::work::{Answer, Work};
use crate::device::{Device, Events, Lane as _, Port as _, QueuePort};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::pool::DmaBuf;
use crate::queue::Counters;
use crate::spec::device::block::feature;
use crate::spec::device::block::request::{ID_SIZE, RequestType};
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Longest time between two looks at a device that has nothing to tell.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// The same for one that does not announce what it has done.
const LOOK_POLLED: Duration = Duration::from_millis(1);

/// A call that has ended.
#[derive(Debug)]
pub struct Done<T> {
    /// What was given with the call.
    pub tag: T,
    /// What became of it. [`Error::Timeout`] where the device gave no answer to anything for the queue's time: then its
    /// requests, and a caller's buffer, stay in flight, and their late answers are dropped.
    pub outcome: Result<Answer>,
}

/// How things stand after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Calls that have not ended.
    pub open: usize,
    /// The back-end went away, and [`Submitter::recover`] may bring it back: until then nothing goes on.
    pub lost: bool,
}

/// A block device on whose first queue any number of calls are under way, none of which waits: each is submitted with a
/// tag, and [`Submitter::poll`] gives that back with the outcome. For event loops.
///
/// A call is cut into requests as [`Block`]'s are. Requests for which there is no room yet are kept, in order. What was
/// submitted reaches the device with the next [`Submitter::poll`], so that several calls cost one notification.
/// Offsets and lengths that a call cannot have are refused when it is submitted; everything else is told with its
/// answer. Any thread may call; no call waits but [`Submitter::wait`], [`Submitter::recover`] and
/// [`Submitter::close`].
///
/// ```
/// use virtio::drivers::{Block, BlockOptions};
/// use virtio::event::Deadline;
///
/// # #[cfg(feature = "soft")] {
/// let disk = Block::open("soft:block?size=1M", BlockOptions::default())?.submitter();
/// disk.write(512, &[7; 512], false, "write")?;
/// disk.read(1024, 8192, "read")?;
/// let mut done = Vec::new();
/// while disk.wait(&mut done, Deadline::never())?.open != 0 {}
/// assert_eq!(done.len(), 2);
/// for call in done {
///     assert_eq!(call.outcome?.len(), if call.tag == "read" { 8192 } else { 0 });
/// }
/// # }
/// # Ok::<(), virtio::Error>(())
/// ```
pub struct Submitter<T> {
    block: Block,
    desk: Mutex<Desk<T>>,
}

impl Block {
    /// Makes it one whose calls do not wait. Only its first queue is used.
    pub fn submitter<T>(self) -> Submitter<T> {
        if self.rescue.retries()
            && let Some(lane) = self.lanes.get(0)
        {
            lane.lock().unwrap_or_else(PoisonError::into_inner).queue.keep_for_reclaim();
        }
        Submitter { block: self, desk: Mutex::new(Desk::default()) }
    }
}

impl<T> Submitter<T> {
    /// The books and the queue, which are locked in this order.
    fn lock(&self) -> Result<(MutexGuard<'_, Desk<T>>, MutexGuard<'_, Lane>)> {
        self.block.device().check_process()?;
        let lane = self.block.lanes.get(0).ok_or(Error::Closed { what: "block device" })?;
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((desk, lane.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn submit(&self, work: Result<Work>, flush: Option<u64>, tag: T) -> Result<()> {
        let begun = work.and_then(|work| {
            let (mut desk, mut lane) = self.lock()?;
            let entry = Entry::new(Call::new(desk.number()), work, flush, tag);
            desk.enter(entry, &mut lane, &self.block.rescue);
            Ok(())
        });
        self.block.located(begun)
    }

    /// Reads `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: usize, tag: T) -> Result<()> {
        let len64 = len as u64;
        let work = self.block.check(offset, len64).map(|sector| {
            let (shape, pieces) = (self.block.shape, Transfers::new(len64, self.block.shape));
            // One buffer of one request: the data stays in it.
            match len64 <= shape.segment.min(shape.request).into() && len != 0 {
                true => Work::Fetch { read: Read { sector, pieces, to: [] }, buf: None },
                false => Work::Read(Read { sector, pieces, to: vec![0; len] }),
            }
        });
        self.submit(work, None, tag)
    }

    /// Writes `from` at `offset`; where the call `repeats`, it may be made more than once ([`Block::write_retry`]).
    /// [`Error::ReadOnly`] for a read-only device.
    pub fn write(&self, offset: u64, from: &[u8], repeats: bool, tag: T) -> Result<()> {
        let begun = self.block.check_write(offset, from.len() as u64).and_then(|sector| {
            let pieces = Transfers::new(from.len() as u64, self.block.shape);
            let mut job = Write { sector, pieces, from, repeats };
            let (mut desk, mut lane) = self.lock()?;
            let mut call = Call::new(desk.number());
            let mut pending = job.next();
            // What finds room is copied from where it is.
            if !desk.has_line() && !repeats {
                desk.fill(&mut lane, &self.block.rescue, &mut pending, &mut job, &mut call);
            }
            let work = match pending.is_none() && call.again.is_empty() {
                true => Work::Sent,
                false => {
                    let Write { sector, pieces, from, repeats } = job;
                    Work::Write(Write { sector, pieces, from: from.to_vec(), repeats })
                }
            };
            desk.go_on(Entry::begun(call, pending, work, tag), &self.block.rescue);
            Ok(())
        });
        self.block.located(begun)
    }

    fn own(&self, sector: Result<u64>, flow: Flow, buf: DmaBuf, repeats: bool, tag: T) -> Result<()> {
        let work = sector.and_then(|sector| match buf.len() {
            len if len > self.block.size_max => Err(TOO_LONG),
            0 => Err(Error::Misuse { what: "a buffer for a block device is not empty" }),
            _ => Ok(Work::Own(Own::new(sector, flow, buf, repeats))),
        });
        self.submit(work, None, tag)
    }

    /// Reads into a buffer of the device's own memory, without a copy: as many bytes as it is long, in one request. It
    /// is in the answer. Refused as by [`Block::read_into`]; the buffer goes back to its pool then.
    pub fn read_into(&self, offset: u64, buf: DmaBuf, tag: T) -> Result<()> {
        let sector = self.block.check(offset, buf.len().into());
        self.own(sector, Flow::FromDevice, buf, true, tag)
    }

    /// Writes a buffer of the device's own memory, without a copy, in one request. It is in the answer.
    pub fn write_from(&self, offset: u64, buf: DmaBuf, repeats: bool, tag: T) -> Result<()> {
        let sector = self.block.check_write(offset, buf.len().into());
        self.own(sector, Flow::ToDevice, buf, repeats, tag)
    }

    /// As [`Block::flush`]: makes all writes that ended before the call permanent.
    pub fn flush(&self, tag: T) -> Result<()> {
        if !self.block.features.has(feature::FLUSH) {
            return self.submit(Ok(Work::Sent), None, tag);
        }
        match self.block.rescue.begin_flush() {
            Ok(written) => self.submit(Ok(ask(RequestType::FLUSH, 0)), Some(written), tag),
            Err(error) => self.submit(Err(error), None, tag),
        }
    }

    /// The device's id string: its bytes up to the first 0 are the answer's.
    pub fn get_id(&self, tag: T) -> Result<()> {
        self.submit(Ok(ask(RequestType::GET_ID, ID_SIZE)), None, tag)
    }

    /// As [`Block::discard`].
    pub fn discard(&self, offset: u64, len: u64, tag: T) -> Result<()> {
        self.erase(RequestType::DISCARD, self.limits().discard, offset, (len, false), tag)
    }

    /// As [`Block::write_zeroes`].
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool, tag: T) -> Result<()> {
        self.erase(RequestType::WRITE_ZEROES, self.limits().write_zeroes, offset, (len, unmap), tag)
    }

    fn erase(
        &self,
        request_type: RequestType,
        limits: Option<EraseLimits>,
        offset: u64,
        (len, unmap): (u64, bool),
        tag: T,
    ) -> Result<()> {
        let job = self.block.erase_job(request_type, limits, offset, len, unmap);
        self.submit(job.map(|job| Work::Erase(Box::new(job))), None, tag)
    }

    /// Shows the device what was submitted, and adds the calls that have ended to `done`.
    ///
    /// [`Error::ForkedProcess`] in a fork's child; everything else is told with the calls.
    pub fn poll(&self, done: &mut Vec<Done<T>>) -> Result<Progress> {
        let (mut desk, mut lane) = self.lock()?;
        desk.turn(&mut lane, &self.block.rescue);
        Ok(self.report(&mut desk, done))
    }

    fn report(&self, desk: &mut Desk<T>, done: &mut Vec<Done<T>>) -> Progress {
        done.extend(
            desk.take_ended().map(|(tag, outcome)| Done { tag, outcome: self.block.located(outcome) }),
        );
        Progress { open: desk.open(), lost: desk.is_lost() }
    }

    /// Asks for [`Submitter::port`]'s signal with the next answer; answers whether there is one already, which is to be
    /// polled for before anybody sleeps.
    pub fn arm(&self) -> Result<bool> {
        let (_desk, mut lane) = self.lock()?;
        // What is over is told by a poll.
        lane.queue.enable_interrupts().or(Ok(true))
    }

    /// The queue's event: readable when there may be something to poll for, after [`Submitter::arm`] answered that
    /// there is nothing yet. Another one after [`Submitter::recover`].
    pub fn port(&self) -> Result<Arc<QueuePort>> {
        let (_desk, lane) = self.lock()?;
        Ok(lane.queue.port())
    }

    /// Polls, and sees to it that a device which does not answer is noticed: it is asked how it is, notified once more
    /// after half of the queue's time, and given up after all of it. Answers when the next look is due, where any call
    /// is under way. For timers; sleeping on the event alone would trust the device.
    pub fn look(&self, done: &mut Vec<Done<T>>) -> Result<(Progress, Option<Duration>)> {
        let (mut desk, mut lane) = self.lock()?;
        desk.turn(&mut lane, &self.block.rescue);
        desk.watch(&mut lane, &self.block.rescue);
        let progress = self.report(&mut desk, done);
        let pause = if lane.queue.port().announces() { LOOK } else { LOOK_POLLED };
        Ok((progress, (progress.open != 0 && !progress.lost).then(|| desk.left(&lane).min(pause))))
    }

    /// Waits until a call has ended or the back-end is lost, at most until `deadline`.
    pub fn wait(&self, done: &mut Vec<Done<T>>, deadline: Deadline) -> Result<Progress> {
        loop {
            let before = done.len();
            let (progress, due) = self.look(done)?;
            let Some(due) = due.filter(|_| done.len() == before && !deadline.passed()) else {
                return Ok(progress);
            };
            if !self.arm()? {
                let due = deadline.left().map_or(due, |left| left.min(due));
                self.port()?.sleep(due)?;
            }
        }
    }

    /// Brings a lost back-end back, within the queue's time, where that was opened to be retried: reads, and writes
    /// that repeat, are sent again; everything else that was in flight ends as [`Error::Indeterminate`]. Where it
    /// does not come back, all calls end. May be called while others submit and poll.
    pub fn recover(&self) -> Result<()> {
        let (life, index, make) = {
            let (desk, lane) = self.lock()?;
            if !desk.is_lost() {
                return Ok(());
            }
            (lane.life(), lane.queue.index(), lane.make.clone())
        };
        let rescue = &self.block.rescue;
        let seat = rescue.recover(life, index, Deadline::after(make.timeout), &make.between);
        let (mut desk, mut lane) = self.lock()?;
        let found = desk.take_seat(seat, &mut lane, rescue, self.block.device());
        self.block.located(found)
    }

    /// As [`Block::close`]. What was in flight ends as [`Error::Indeterminate`] or, where the device did not confirm its
    /// reset, with everything else as [`Error::Closed`]: the next poll tells.
    pub fn close(&self) -> Result<()> {
        let closed = self.block.close();
        if let Ok((mut desk, mut lane)) = self.lock() {
            desk.close(&mut lane, &self.block.rescue);
        }
        closed
    }

    /// The device behind it; see [`Block::device`].
    pub fn device(&self) -> &Device {
        self.block.device()
    }

    /// As [`Block::events`].
    pub fn events(&self) -> Result<Events> {
        self.block.events()
    }

    /// As [`Block::size`].
    pub fn size(&self) -> u64 {
        self.block.size()
    }

    /// As [`Block::limits`].
    pub fn limits(&self) -> Limits {
        self.block.limits()
    }

    /// As [`Block::features`].
    pub fn features(&self) -> Features {
        self.block.features()
    }

    /// As [`Block::read_only`].
    pub fn read_only(&self) -> bool {
        self.block.read_only()
    }

    /// What the queue has counted.
    pub fn counters(&self) -> Counters {
        self.block.counters(0).unwrap_or_default()
    }

    /// Shows each tag of a call under way to `visit`, unless another call holds the books.
    pub fn tags(&self, visit: impl FnMut(&T)) {
        if let Ok(desk) = self.desk.try_lock() {
            desk.tags().for_each(visit);
        }
    }
}

/// A request whose answer has so many bytes.
fn ask(request_type: RequestType, len: usize) -> Work {
    Work::Ask(Ask { request_type, answer: vec![0; len], asked: false })
}

impl<T> fmt::Debug for Submitter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submitter({:?})", self.block)
    }
}
