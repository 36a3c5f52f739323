//! One request queue: requests in flight, their headers, buffers and answers.
//!
//! A lane serves one call at a time and keeps as many of its requests in flight as there is room for. Requests of
//! a call that ended with a time-out stay in flight; their late answers are taken by whichever call comes next,
//! and dropped.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::job::{Flow, Job, Piece, What};
use super::rescue::{Rescue, Seat};
use super::split::Shape;
use super::verdict::{UNWRITTEN, verdict};
use crate::device::{Device, Queue, Used};
use crate::drivers::Between;
use crate::event::Deadline;
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::queue::Token;
use crate::spec::ByteOrder;
use crate::spec::device::block::request::{Header, STATUS_SIZE};
use crate::{Error, Result};

/// Bytes from one header or status to the next: a cache line, since device and driver write at the same time.
const LINE: u32 = 64;
/// Bytes copied for the device between two notifications: it works on one part while the next is copied.
const SHOW_AFTER: u64 = 128 << 10;

/// Buffers of one size for the lane alone. A pool's own stack is for many threads; here a vector will do.
#[derive(Debug)]
struct Stock {
    free: Vec<DmaBuf>,
    /// Where buffers go whose request was refused, and come from again.
    pool: DmaPool,
}

impl Stock {
    fn new(device: &Device, count: u32, stride: u32) -> Result<Self> {
        let pool = device.pool(count, stride)?;
        let free = (0..count).map(|_| pool.take()).collect::<Result<_>>()?;
        Ok(Self { free, pool })
    }

    fn take(&mut self, len: u32) -> Result<DmaBuf> {
        let mut buf = match self.free.pop() {
            Some(buf) => buf,
            None => self.pool.take()?,
        };
        buf.set_len(len)?;
        Ok(buf)
    }

    fn has(&self, count: usize) -> bool {
        self.free.len() >= count || self.free.len().saturating_add(self.pool.free()) >= count
    }
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
struct Request {
    token: Token,
    /// Number of the call that it belongs to.
    call: u64,
    what: What,
    /// Data buffers.
    segments: u16,
    /// Whether they are a caller's.
    own: bool,
}

/// How the call that runs stands.
#[derive(Debug)]
struct Call {
    /// Its requests that are in flight.
    mine: u32,
    /// The first thing that went wrong: from then on nothing is sent.
    failure: Option<Error>,
    /// Requests to be sent again, on a new queue.
    again: Vec<Piece>,
}

/// How a lane is made.
#[derive(Debug, Clone)]
pub(super) struct Make {
    pub(super) shape: Shape,
    /// Bytes of data in flight.
    pub(super) window: u32,
    pub(super) timeout: Duration,
    pub(super) between: Between,
}

/// One request queue and all that belongs to it.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Queue<DmaBuf>,
    headers: Stock,
    statuses: Stock,
    data: Stock,
    /// By the descriptor that heads the chain.
    requests: Box<[Option<Request>]>,
    shape: Shape,
    timeout: Duration,
    between: Between,
    order: ByteOrder,
    legacy: bool,
    call: u64,
    make: Make,
    /// Life of the device that the queue belongs to.
    life: u64,
    /// Memory that the buffers lie in.
    space: u64,
}

impl Lane {
    pub(super) fn new(device: &Device, queue: Queue<DmaBuf>, make: &Make) -> Result<Self> {
        let size = u32::from(queue.size());
        let [headers, statuses, data] = stocks(device, size, make)?;
        Ok(Self {
            headers,
            statuses,
            data,
            requests: (0..size).map(|_| None).collect(),
            queue,
            make: make.clone(),
            life: 0,
            space: device.memory().id(),
            shape: make.shape,
            timeout: make.timeout,
            between: make.between.clone(),
            order: device.transport().byte_order(),
            legacy: device.transport().legacy(),
            call: 0,
        })
    }

    /// Does all requests of `job`, and gives the first error that one of them met, when none is in flight any
    /// more. [`Error::Timeout`] where no answer came for the lane's time; then some are in flight still.
    pub(super) fn run(&mut self, job: &mut impl Job, rescue: &Rescue) -> Result<()> {
        self.call = self.call.wrapping_add(1);
        let mut call = Call { mine: 0, failure: None, again: Vec::new() };
        if rescue.retries() {
            self.queue.keep_for_reclaim();
            if rescue.life() != self.life {
                self.take_seat(&mut call, rescue)?;
            }
        }
        let mut pending = job.next();
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
            if call.mine == 0 && (call.failure.is_some() || pending.is_none() && call.again.is_empty()) {
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
    fn rescued(&mut self, error: &Error, call: &mut Call, rescue: &Rescue) -> bool {
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
        let deadline = Deadline::after(self.timeout);
        let seat = rescue.recover(self.life, self.queue.index(), deadline, &self.between);
        if matches!(seat, Err(Error::Interrupted)) {
            call.failure = Some(Error::Interrupted);
        }
        self.end_all(call, seat.is_ok())?;
        let Seat { queue, life } = seat?;
        let device = rescue.device();
        if device.memory().id() != self.space {
            let [headers, statuses, data] = stocks(device, u32::from(queue.size()), &self.make)?;
            (self.headers, self.statuses, self.data) = (headers, statuses, data);
            self.space = device.memory().id();
        }
        (self.queue, self.life) = (queue, life);
        self.queue.keep_for_reclaim();
        Ok(())
    }

    /// The device has ended: settles what it had in flight.
    fn end_all(&mut self, call: &mut Call, again: bool) -> Result<()> {
        let Self { queue, requests, headers, statuses, data, call: number, .. } = self;
        queue.reclaim(|token, bufs| {
            let request = requests.get_mut(usize::from(token.slot())).and_then(Option::take);
            let Some(request) = request.filter(|request| request.token == token) else { return };
            let mine = request.call == *number;
            let stopped = !bufs.is_empty();
            let (last, mut own) = (bufs.len().saturating_sub(1), None);
            for (index, buf) in bufs.into_iter().enumerate() {
                match index {
                    0 => headers.free.push(buf),
                    _ if index == last => statuses.free.push(buf),
                    _ if request.own => own = Some(buf),
                    _ => data.free.push(buf),
                }
            }
            if !mine {
                return;
            }
            call.mine = call.mine.saturating_sub(1);
            if again && request.what.repeats && (stopped || !request.own) {
                call.again.push(Piece { what: request.what, own });
            } else if !matches!(call.failure, Some(Error::Indeterminate { .. } | Error::Interrupted)) {
                call.failure = Some(Error::Indeterminate { token: token.into_raw() });
            }
        })
    }

    /// Adds requests while there is room, and shows them to the device.
    fn send(&mut self, pending: &mut Option<Piece>, job: &mut impl Job, call: &mut Call) -> Result<()> {
        let (mut hidden, mut copied) = (false, 0u64);
        let mut sent = Ok(());
        loop {
            let again = call.again.pop_if(|piece| self.has_room(piece));
            let first = again.is_some();
            let next = again.or_else(|| match call.again.is_empty() {
                true => pending.take_if(|piece| self.has_room(piece)),
                false => None,
            });
            let Some(piece) = next else { break };
            let (what, own) = (piece.what, piece.own.is_some());
            if let Err(error) = self.queue.check() {
                // Kept whole, with its buffer, for another queue.
                call.again.push(piece);
                if !first {
                    *pending = job.next();
                }
                sent = Err(error);
                break;
            }
            copied = copied.saturating_add(if what.flow == Flow::ToDevice { what.len.into() } else { 0 });
            sent = self.add(piece, job);
            if let Err(error) = &sent {
                // It never was in flight, and can be sent on another queue, unless its data is gone.
                match what.reloads() && !own {
                    true => call.again.push(Piece { what, own: None }),
                    false => call.failure = Some(error.clone()),
                }
                if !first {
                    *pending = job.next();
                }
                break;
            }
            (hidden, call.mine) = (true, call.mine.saturating_add(1));
            if !first {
                *pending = job.next();
            }
            if copied >= SHOW_AFTER {
                (hidden, copied) = (false, 0);
                self.queue.notify()?;
            }
        }
        // What was added is shown whatever happened after it.
        if hidden { self.queue.notify().and(sent) } else { sent }
    }

    /// Data buffers that a request takes.
    fn segments(&self, piece: &Piece) -> u16 {
        match (piece.what.flow, &piece.own) {
            (Flow::None, _) => 0,
            (_, Some(_)) => 1,
            (_, None) => self.shape.segments(piece.what.len),
        }
    }

    fn has_room(&self, piece: &Piece) -> bool {
        let segments = self.segments(piece);
        let bounce = if piece.own.is_some() { 0 } else { usize::from(segments) };
        self.queue.has_room(segments.saturating_add(2))
            && self.headers.has(1)
            && self.statuses.has(1)
            && self.data.has(bounce)
    }

    fn add(&mut self, piece: Piece, job: &mut impl Job) -> Result<()> {
        let segments = self.segments(&piece);
        let Piece { what, own } = piece;
        let What { request_type, sector, flow, at, len, .. } = what;
        let header = self.headers.take(Header::SIZE as u32)?;
        header.write(0, &Header { request_type, reserved: 0, sector }.encode(self.order))?;
        let status = self.statuses.take(STATUS_SIZE as u32)?;
        status.write(0, &[UNWRITTEN])?;
        let is_own = own.is_some();
        let token = match (flow, own, segments) {
            (Flow::None, ..) => self.queue.add([header], [status])?,
            (Flow::ToDevice, Some(data), _) => self.queue.add([header, data], [status])?,
            (Flow::FromDevice, Some(data), _) => self.queue.add([header], [data, status])?,
            (Flow::ToDevice, None, 1) => {
                let data = self.loaded(job, flow, at, len)?;
                self.queue.add([header, data], [status])?
            }
            (Flow::FromDevice, None, 1) => {
                let data = self.loaded(job, flow, at, len)?;
                self.queue.add([header], [data, status])?
            }
            (_, None, _) => self.add_many(job, flow, at, len, [header, status])?,
        };
        let request = Request { token, call: self.call, what, segments, own: is_own };
        if let Some(place) = self.requests.get_mut(usize::from(token.slot())) {
            *place = Some(request);
        }
        Ok(())
    }

    /// A data buffer for `len` bytes at `at`, with what the device is to read.
    fn loaded(&mut self, job: &mut impl Job, flow: Flow, at: u64, len: u32) -> Result<DmaBuf> {
        let buf = self.data.take(len)?;
        match flow {
            Flow::ToDevice => job.load(at, &buf)?,
            // Where the used length says nothing, nothing may be left of an earlier request (D10).
            _ if self.legacy => buf.fill(0)?,
            _ => {}
        }
        Ok(buf)
    }

    /// A request of several data buffers: the device limits their size. The only one for which memory is
    /// allocated.
    #[cold]
    fn add_many(
        &mut self,
        job: &mut impl Job,
        flow: Flow,
        at: u64,
        len: u32,
        [header, status]: [DmaBuf; 2],
    ) -> Result<Token> {
        let (mut bufs, mut done) = (Vec::new(), 0u32);
        while done < len {
            let part = len.saturating_sub(done).min(self.shape.segment);
            bufs.push(self.loaded(job, flow, at.saturating_add(done.into()), part)?);
            done = done.saturating_add(part);
        }
        let (read, written) = if flow == Flow::ToDevice { (bufs, Vec::new()) } else { (Vec::new(), bufs) };
        self.queue.add_chain([header].into_iter().chain(read), written.into_iter().chain([status]))
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
        let answer = self.queue.get_with(Deadline::after(self.timeout), || self.between.look());
        self.sort_out(answer.map(Some), call)
    }

    /// A request that ended with the device is told of once: here, where it is this call's.
    fn sort_out(
        &mut self,
        answer: Result<Option<Used<DmaBuf>>>,
        call: &mut Call,
    ) -> Result<Option<Used<DmaBuf>>> {
        let Err(Error::Indeterminate { token }) = answer else { return answer };
        let slot = usize::from(Token::from_raw(token).slot());
        let request = self.requests.get_mut(slot).and_then(Option::take);
        if request.is_some_and(|request| request.call == self.call) {
            call.mine = call.mine.saturating_sub(1);
            // It says more than that the queue is closed, or that another request failed.
            if !matches!(call.failure, Some(Error::Indeterminate { .. })) {
                call.failure = Some(Error::Indeterminate { token });
            }
        }
        Ok(None)
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
            if let Some(outcome) = self.take(used, job, rescue)? {
                call.mine = call.mine.saturating_sub(1);
                if let Err(error) = outcome {
                    call.failure.get_or_insert(error);
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

    /// Takes an answer apart; `None` where it was another call's.
    fn take(
        &mut self,
        mut used: Used<DmaBuf>,
        job: &mut impl Job,
        rescue: &Rescue,
    ) -> Result<Option<Result<()>>> {
        let slot = usize::from(used.token.slot());
        let request = self.requests.get_mut(slot).and_then(Option::take);
        let Some(request) = request.filter(|request| request.token == used.token) else { return Ok(None) };
        let segments = usize::from(request.segments);
        // From the end: taking one out moves those behind it.
        let Some(status) = used.buffer(segments.saturating_add(1)) else { return Ok(None) };
        let mut byte = [UNWRITTEN; STATUS_SIZE];
        status.read(0, &mut byte)?;
        self.statuses.free.push(status);
        let [byte] = byte;
        let outcome = verdict(self.legacy, byte, used.written, used.capacity);
        let mine = request.call == self.call;
        if outcome.is_ok() && request.what.flow == Flow::ToDevice {
            rescue.wrote(self.life);
        }
        for index in (0..segments).rev() {
            let Some(buf) = used.buffer(index.saturating_add(1)) else { continue };
            if request.own {
                if mine && outcome.is_ok() {
                    job.give_back(buf);
                }
                continue;
            }
            if mine && outcome.is_ok() && request.what.flow == Flow::FromDevice {
                let offset = u64::from(self.shape.segment).saturating_mul(index as u64);
                job.store(request.what.at.saturating_add(offset), &buf)?;
            }
            self.data.free.push(buf);
        }
        if let Some(header) = used.buffer(0) {
            self.headers.free.push(header);
        }
        Ok(mine.then_some(outcome))
    }

    /// The queue, for looking at it.
    pub(super) fn queue(&self) -> &Queue<DmaBuf> {
        &self.queue
    }
}

/// Headers, status bytes and data buffers of one lane. A queue holds no more requests than it has descriptors.
fn stocks(device: &Device, size: u32, make: &Make) -> Result<[Stock; 3]> {
    let count = make.window.checked_div(make.shape.segment).unwrap_or(0).clamp(1, 4096);
    let one = u32::from(make.shape.segments(make.shape.request));
    Ok([
        Stock::new(device, size, LINE)?,
        Stock::new(device, size, LINE)?,
        Stock::new(device, count.max(one), make.shape.segment)?,
    ])
}
