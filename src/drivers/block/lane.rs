//! One request queue: requests in flight, their headers, buffers and answers. Who they are for, and when they are
//! waited for, is the business of [`super::call`] and [`super::submit`].

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::job::{Flow, Job, Piece, What};
use super::rescue::{Rescue, Seat};
use super::split::Shape;
use super::stand::Standing;
use super::verdict::{UNWRITTEN, verdict};
use crate::device::{Device, Queue, Used};
use crate::drivers::Between;
use crate::mem::pool::{DmaBuf, DmaPool};
use crate::queue::Token;
use crate::spec::ByteOrder;
use crate::spec::device::block::request::{Header, STATUS_SIZE};
use crate::{Error, Result};

/// Bytes from one header, or status, to the next: side by side. The device writes the statuses of a batch, and the
/// driver reads them and writes them anew, for the price of one line; with a line to each, every request would move one
/// between the two three times.
const HEADER_STRIDE: u32 = Header::SIZE as u32;
const STATUS_STRIDE: u32 = STATUS_SIZE as u32;
/// Bytes of the buffers for small requests: many of those are in flight at a time.
const SMALL: u32 = 4096;
/// Most of them.
const MOST_SMALL: u32 = 256;
/// Bytes copied for the device between two notifications: it works on one part while the next is copied.
const SHOW_AFTER: u64 = 128 << 10;

/// Buffers of one size for the lane alone. A pool's own stack is for many threads; here a vector will do.
#[derive(Debug)]
struct Stock {
    free: Vec<DmaBuf>,
    /// Where buffers go whose request was refused, or that somebody else had, and come from again.
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

/// What a queue's requests are made of.
#[derive(Debug)]
struct Stocks {
    headers: Stock,
    statuses: Stock,
    /// Buffers for small requests, and for all.
    small: Option<Stock>,
    data: Stock,
}

impl Stocks {
    /// For a queue of so many descriptors: it holds no more requests.
    fn new(device: &Device, size: u32, make: &Make) -> Result<Self> {
        let Shape { segment, .. } = make.shape;
        let count = make.window.checked_div(segment).unwrap_or(0).clamp(1, 4096);
        let one = u32::from(make.shape.segments(make.shape.request));
        let small = size.min(MOST_SMALL).min(make.window.div_ceil(SMALL));
        Ok(Self {
            headers: Stock::new(device, size, HEADER_STRIDE)?,
            statuses: Stock::new(device, size, STATUS_STRIDE)?,
            small: (segment > SMALL && small > count)
                .then(|| Stock::new(device, small, SMALL))
                .transpose()?,
            data: Stock::new(device, count.max(one), segment)?,
        })
    }

    /// Where a buffer of `len` bytes comes from.
    fn of(&mut self, len: u32) -> &mut Stock {
        match &mut self.small {
            Some(small) if len <= SMALL && small.has(1) => small,
            _ => &mut self.data,
        }
    }

    fn has(&self, len: u32, count: usize) -> bool {
        count == 0
            || self.data.has(count)
            || len <= SMALL && self.small.as_ref().is_some_and(|s| s.has(count))
    }

    /// The one that a buffer came from.
    fn home(&mut self, buf: &DmaBuf) -> &mut Stock {
        match &mut self.small {
            Some(small) if buf.capacity() == SMALL => small,
            _ => &mut self.data,
        }
    }

    fn give(&mut self, buf: DmaBuf) {
        self.home(&buf).free.push(buf);
    }
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) token: Token,
    /// Number of the call that it belongs to.
    pub(super) call: u64,
    pub(super) what: What,
    /// Data buffers.
    pub(super) segments: u16,
    /// Whether they are a caller's.
    pub(super) own: bool,
}

/// How a call stands.
#[derive(Debug)]
pub(super) struct Call {
    /// By which its requests are known.
    pub(super) number: u64,
    /// Its requests that are in flight.
    pub(super) mine: u32,
    /// The first thing that went wrong: from then on nothing is sent.
    pub(super) failure: Option<Error>,
    /// Requests to be sent again, on a new queue.
    pub(super) again: Vec<Piece>,
}

impl Call {
    pub(super) fn new(number: u64) -> Self {
        Self { number, mine: 0, failure: None, again: Vec::new() }
    }

    /// A request of it has ended, and nobody knows whether it was done. That says more than that the queue is closed,
    /// or that another request failed.
    pub(super) fn lose(&mut self, token: Token) {
        self.mine = self.mine.saturating_sub(1);
        if !matches!(self.failure, Some(Error::Indeterminate { .. } | Error::Interrupted)) {
            self.failure = Some(Error::Indeterminate { token: token.into_raw() });
        }
    }

    /// A request of it has ended with its device: it is to be sent again, or nobody knows whether it was done. A read
    /// for which there is no back-end to be sent to changed nothing, and ends as what kept that away.
    pub(super) fn end(&mut self, ended: Ended, away: Option<&Error>) {
        match (ended.again, away) {
            (Some(piece), _) => {
                self.mine = self.mine.saturating_sub(1);
                self.again.push(piece);
            }
            (None, Some(error)) if ended.reads => {
                self.mine = self.mine.saturating_sub(1);
                self.failure.get_or_insert_with(|| error.clone());
            }
            (None, _) => self.lose(ended.token),
        }
    }

    /// Whether nothing is left to be done, once the job has no request more.
    pub(super) fn is_over(&self) -> bool {
        self.mine == 0 && (self.failure.is_some() || self.again.is_empty())
    }
}

/// A request that ended with the device.
#[derive(Debug)]
pub(super) struct Ended {
    token: Token,
    pub(super) call: u64,
    /// The same once more, where it may be sent again.
    pub(super) again: Option<Piece>,
    /// Whether it changes nothing.
    reads: bool,
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
    pub(super) queue: Queue<DmaBuf>,
    stocks: Stocks,
    /// Chains of the queue that stand with a header and a status.
    pub(super) standing: Standing,
    /// By the descriptor that heads the chain.
    pub(super) requests: Box<[Option<Request>]>,
    shape: Shape,
    pub(super) order: ByteOrder,
    pub(super) legacy: bool,
    /// Number of the last call that waited.
    pub(super) call: u64,
    pub(super) make: Make,
    /// Life of the device that the queue belongs to.
    pub(super) life: u64,
    /// Memory that the buffers lie in.
    space: u64,
}

impl Lane {
    pub(super) fn new(device: &Device, queue: Queue<DmaBuf>, make: &Make) -> Result<Self> {
        let size = u32::from(queue.size());
        Ok(Self {
            stocks: Stocks::new(device, size, make)?,
            standing: Standing::new(queue.size()),
            requests: (0..size).map(|_| None).collect(),
            queue,
            make: make.clone(),
            life: 0,
            space: device.memory().id(),
            shape: make.shape,
            order: device.transport().byte_order(),
            legacy: device.transport().legacy(),
            call: 0,
        })
    }

    /// The queue, the chains that stand in it, and the headers and statuses that are in no chain.
    pub(super) fn take_apart(self) -> (Queue<DmaBuf>, Standing, Vec<DmaBuf>, Vec<DmaBuf>) {
        let Stocks { headers, statuses, .. } = self.stocks;
        (self.queue, self.standing, headers.free, statuses.free)
    }

    /// Life of the device that the queue belongs to.
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// Goes on with a queue of another life, and new buffers where the device has other memory.
    pub(super) fn sit_down(&mut self, seat: Seat, device: &Device) -> Result<()> {
        let Seat { queue, life } = seat;
        if device.memory().id() != self.space {
            self.stocks = Stocks::new(device, u32::from(queue.size()), &self.make)?;
            self.space = device.memory().id();
        }
        (self.queue, self.life) = (queue, life);
        self.standing.clear();
        self.queue.keep_for_reclaim();
        Ok(())
    }

    /// The device has ended: gives each request that it had, which is to be sent `again`, where it may be, or ends.
    /// Buffers that a stopped device had go home.
    pub(super) fn reclaim(&mut self, again: bool, mut ended: impl FnMut(Ended)) -> Result<()> {
        let Self { queue, requests, stocks, .. } = self;
        queue.reclaim(|token, bufs| {
            let request = requests.get_mut(usize::from(token.slot())).and_then(Option::take);
            let Some(request) = request.filter(|request| request.token == token) else { return };
            let stopped = !bufs.is_empty();
            let (last, mut own) = (bufs.len().saturating_sub(1), None);
            for (index, buf) in bufs.into_iter().enumerate() {
                match index {
                    0 => stocks.headers.free.push(buf),
                    _ if index == last => stocks.statuses.free.push(buf),
                    _ if request.own => own = Some(buf),
                    _ => stocks.give(buf),
                }
            }
            let repeats = again && request.what.repeats && (stopped || !request.own);
            let again = repeats.then_some(Piece { what: request.what, own });
            let reads = request.what.flow == Flow::FromDevice;
            ended(Ended { token, call: request.call, again, reads });
        })
    }

    /// The request of this token, which ended without an answer.
    pub(super) fn forget(&mut self, token: u64) -> Option<(Token, Request)> {
        let token = Token::from_raw(token);
        let request = self.requests.get_mut(usize::from(token.slot())).and_then(Option::take);
        request.map(|request| (token, request))
    }

    /// Adds requests while there is room. Answers whether some are not shown to the device yet; they are to be shown
    /// whatever happened after them.
    pub(super) fn fill(
        &mut self,
        pending: &mut Option<Piece>,
        job: &mut impl Job,
        call: &mut Call,
    ) -> (bool, Result<()>) {
        let (mut hidden, mut copied) = (false, 0u64);
        loop {
            if let Some(piece) = call.again.last().or(pending.as_ref()) {
                self.make_room(piece);
            }
            let again = call.again.pop_if(|piece| self.has_room(piece));
            let first = again.is_some();
            let next = again.or_else(|| match call.again.is_empty() {
                true => pending.take_if(|piece| self.has_room(piece)),
                false => None,
            });
            let Some(piece) = next else { return (hidden, Ok(())) };
            let (what, own) = (piece.what, piece.own.is_some());
            let (checked, mut kept) = (self.queue.check(), None);
            let sent = match checked {
                Ok(()) => self.add(call.number, piece, job),
                // Kept whole, with its buffer, for another queue.
                Err(error) => {
                    kept = Some(piece);
                    Err(error)
                }
            };
            if !first {
                *pending = job.next();
            }
            if let Err(error) = sent {
                // It never was in flight, and can be sent on another queue, unless its data is gone.
                match kept.or_else(|| (what.reloads() && !own).then_some(Piece { what, own: None })) {
                    Some(piece) => call.again.push(piece),
                    None => call.failure = Some(error.clone()),
                }
                return (hidden, Err(error));
            }
            (hidden, call.mine) = (true, call.mine.saturating_add(1));
            copied = copied.saturating_add(if what.flow == Flow::ToDevice { what.len.into() } else { 0 });
            if copied >= SHOW_AFTER {
                (hidden, copied) = (false, 0);
                if let Err(error) = self.queue.notify() {
                    return (hidden, Err(error));
                }
            }
        }
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
            && self.has_frame()
            && self.stocks.has(piece.what.len, bounce)
    }

    /// Whether there are a header and a status that are in no chain.
    #[inline]
    pub(super) fn has_frame(&self) -> bool {
        self.stocks.headers.has(1) && self.stocks.statuses.has(1)
    }

    /// Ends chains that stand where a request would find no room beside them.
    fn make_room(&mut self, piece: &Piece) {
        while !self.standing.is_empty() && !self.has_room(piece) {
            let bufs = self.standing.pop().and_then(|slot| self.queue.dismiss(slot));
            let Some([header, status]) = bufs else { return };
            self.stocks.headers.free.push(header);
            self.stocks.statuses.free.push(status);
        }
    }

    pub(super) fn add(&mut self, call: u64, piece: Piece, job: &mut impl Job) -> Result<()> {
        let segments = self.segments(&piece);
        let Piece { what, own } = piece;
        let What { request_type, sector, flow, at, len, .. } = what;
        let header = self.stocks.headers.take(Header::SIZE as u32)?;
        header.write(0, &Header { request_type, reserved: 0, sector }.encode(self.order))?;
        let status = self.stocks.statuses.take(STATUS_SIZE as u32)?;
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
        let request = Request { token, call, what, segments, own: is_own };
        if let Some(place) = self.requests.get_mut(usize::from(token.slot())) {
            *place = Some(request);
        }
        Ok(())
    }

    /// A data buffer for `len` bytes at `at`, with what the device is to read.
    fn loaded(&mut self, job: &mut impl Job, flow: Flow, at: u64, len: u32) -> Result<DmaBuf> {
        let buf = self.stocks.of(len).take(len)?;
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

    /// Whether so many of the buffers like this one are with callers that the others would have to wait.
    pub(super) fn runs_short(&mut self, buf: &DmaBuf) -> bool {
        let stock = self.stocks.home(buf);
        stock.free.len().saturating_add(stock.pool.free()) < stock.pool.count() as usize / 2
    }

    /// Takes a data buffer back.
    pub(super) fn give(&mut self, buf: DmaBuf) {
        self.stocks.give(buf);
    }

    /// The request that a used buffer answers; `None` where there is none of its token.
    pub(super) fn find(&mut self, used: &Used<DmaBuf>) -> Option<Request> {
        let request = self.requests.get_mut(usize::from(used.token.slot())).and_then(Option::take);
        request.filter(|request| request.token == used.token)
    }

    /// Takes the answer to a request apart, for its job, if anybody waits for that still: what the device said about
    /// it.
    pub(super) fn settle(
        &mut self,
        request: Request,
        mut used: Used<DmaBuf>,
        mut job: Option<&mut impl Job>,
        rescue: &Rescue,
    ) -> Result<Result<()>> {
        let segments = usize::from(request.segments);
        // From the end: taking one out moves those behind it.
        let gone = Error::Misuse { what: "a request to a block device has a status buffer" };
        let status = used.buffer(segments.saturating_add(1)).ok_or(gone)?;
        let mut byte = [UNWRITTEN; STATUS_SIZE];
        status.read(0, &mut byte)?;
        self.stocks.statuses.free.push(status);
        let [byte] = byte;
        let outcome = verdict(self.legacy, byte, used.written, used.capacity);
        if outcome.is_ok() && request.what.flow == Flow::ToDevice {
            rescue.wrote(self.life);
        }
        for index in (0..segments).rev() {
            let Some(buf) = used.buffer(index.saturating_add(1)) else { continue };
            let job = job.as_mut().filter(|_| outcome.is_ok());
            match (request.own, job) {
                (true, Some(job)) => job.give_back(buf),
                (true, None) => {}
                (false, Some(job)) if request.what.flow == Flow::FromDevice => {
                    let offset = u64::from(self.shape.segment).saturating_mul(index as u64);
                    let left = job.store(request.what.at.saturating_add(offset), buf)?;
                    left.into_iter().for_each(|buf| self.stocks.give(buf));
                }
                (false, _) => self.stocks.give(buf),
            }
        }
        if let Some(header) = used.buffer(0) {
            self.stocks.headers.free.push(header);
        }
        Ok(outcome)
    }
}
