//! A request queue for one thread alone: what is left of a call when nothing is shared, copied or waited for.

mod books;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::sync::PoisonError;

use super::api::Block;
use super::many::TOO_LONG;
use super::split::SECTOR;
use super::stand::Standing;
use super::verdict::UNWRITTEN;
use crate::device::{Device, Queue};
use crate::event::Deadline;
use crate::features::Features;
use crate::mem::pool::DmaBuf;
use crate::queue::{Counters, Token};
use crate::spec::ByteOrder;
use crate::spec::device::block::feature;
use crate::spec::device::block::request::{Header, RequestType};
use crate::{Error, Result};
use books::{Books, Entry, Frame};

/// Requests between two times that the device is shown what was added: it begins while more is added, and neither end
/// waits for the other's batch to be complete.
pub(super) const SHOW_EVERY: u32 = 8;
/// Batches between two looks at the clock, for one at the configuration.
const LOOK_EVERY: u32 = 64;

/// Looks at the queue, of some nanoseconds each, before a wait reads the clock.
pub(super) const LOOKS: u32 = 256;

/// A request that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was given with the request.
    pub tag: u64,
    /// The buffer, where there was one and the request succeeded; else it went back to its pool.
    ///
    /// [`Error::Request`], [`Error::ShortReply`] as the device answered; [`Error::Indeterminate`] where it ended without
    /// an answer.
    pub outcome: Result<Option<DmaBuf>>,
}

/// One request queue of a block device, for one thread: any number of requests under way, each with a buffer of the
/// device's own memory ([`Device::pool`]), without a lock, a copy or an allocation. The fastest way to a device:
/// [`Block::into_pipes`] makes one for each queue.
///
/// A request is added ([`Pipe::read`], [`Pipe::write`], [`Pipe::flush`]) with a number of the caller's, sent to the
/// device with all that were added before it ([`Pipe::send`]; the device may begin earlier), and taken when it has ended ([`Pipe::take`], or
/// [`Pipe::wait`]). A refused request's buffer goes back to its pool. Requests end in any order. A pipe that is dropped
/// ends the use of its queue: what is in flight stays the device's until its next reset.
///
/// ```
/// use virtio::drivers::{Block, BlockOptions};
/// use virtio::event::Deadline;
///
/// # #[cfg(feature = "soft")] {
/// let disk = Block::open("soft:block?size=1M", BlockOptions::default())?;
/// let mut pipe = disk.into_pipes()?.remove(0);
/// let pool = pipe.device().pool(8, 4096)?;
/// for number in 0..8 {
///     pipe.read(number * 4096, pool.take()?, number)?;
/// }
/// pipe.send()?;
/// while pipe.under_way() != 0 {
///     let done = pipe.wait(Deadline::never())?;
///     assert_eq!(done.outcome?.map(|buf| buf.len()), Some(4096));
/// }
/// # }
/// # Ok::<(), virtio::Error>(())
/// ```
pub struct Pipe {
    // Before the device: what is in flight then goes to its quarantine, which its reset empties.
    queue: Queue<DmaBuf>,
    books: Books,
    /// Requests since the device was last asked whether it wants to be notified.
    hidden: u32,
    /// Batches since the last look at the clock.
    batches: u32,
    /// Size of the device as last seen, in bytes.
    size: u64,
    /// Memory that the device reaches.
    space: u64,
    order: ByteOrder,
    block: Arc<Block>,
}

impl Block {
    /// Makes it one pipe for each of its queues: a thread each is the fastest way to use a device.
    ///
    /// # Errors
    /// [`Error::Misuse`] for one that was opened to be retried: a pipe tells of the back-end's end, and does not
    /// bring it back.
    pub fn into_pipes(mut self) -> Result<Vec<Pipe>> {
        if self.rescue.retries() {
            let what =
                "a device that is taken up again by itself has no pipes: open it without `Reconnect::Retry`";
            return Err(Error::Misuse { what });
        }
        let lanes = self.lanes.take();
        let block = Arc::new(self);
        let pipe = |lane: crate::sync::Mutex<super::lane::Lane>| {
            let lane = lane.into_inner().unwrap_or_else(PoisonError::into_inner);
            Pipe::new(lane.take_apart(), Arc::clone(&block))
        };
        Ok(lanes.into_iter().map(pipe).collect())
    }
}

impl Pipe {
    fn new(
        (mut queue, standing, headers, statuses): (Queue<DmaBuf>, Standing, Vec<DmaBuf>, Vec<DmaBuf>),
        block: Arc<Block>,
    ) -> Self {
        queue.disable_interrupts();
        let frame = |(header, status)| Frame { header, status };
        let books = Books {
            standing,
            frames: headers.into_iter().zip(statuses).map(frame).collect(),
            entries: (0..queue.size()).map(|_| None).collect(),
            under_way: 0,
            legacy: block.device().transport().legacy(),
        };
        Self {
            queue,
            books,
            hidden: 0,
            batches: 0,
            size: block.size(),
            space: block.device().memory().id(),
            order: block.device().transport().byte_order(),
            block,
        }
    }

    /// Requests that were added and not taken.
    pub fn under_way(&self) -> u32 {
        self.books.under_way
    }

    /// Whether another request would find room now.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.books.standing.is_empty() || !self.books.frames.is_empty() && self.queue.has_room(3)
    }

    /// Adds a read into `buf`, as many bytes as it is long, from `offset` on.
    ///
    /// # Errors
    /// [`Error::QueueFull`] until requests are taken; else as [`Block::read_into`].
    #[inline]
    pub fn read(&mut self, offset: u64, buf: DmaBuf, tag: u64) -> Result<()> {
        let sector = self.check(offset, &buf)?;
        self.transfer(RequestType::IN, sector, buf, tag)
    }

    /// Adds a write of `buf` to `offset`. [`Error::ReadOnly`] for a read-only device; else as [`Pipe::read`].
    #[inline]
    pub fn write(&mut self, offset: u64, buf: DmaBuf, tag: u64) -> Result<()> {
        if self.block.read_only() {
            return self.block.located(Err(Error::ReadOnly));
        }
        let sector = self.check(offset, &buf)?;
        self.transfer(RequestType::OUT, sector, buf, tag)
    }

    /// Adds a flush: makes all writes that were taken before permanent. [`Error::Unsupported`] without FLUSH, where
    /// there is nothing to be flushed as far as is known ([`Block::flush`]).
    pub fn flush(&mut self, tag: u64) -> Result<()> {
        if !self.block.features.has(feature::FLUSH) {
            return self.block.located(Err(Error::Unsupported { what: "the device knows no flush" }));
        }
        if self.books.frames.is_empty() || !self.queue.has_room(2) {
            self.make_room();
        }
        let token = self.add(RequestType::FLUSH, 0, None)?;
        self.enter(token, tag);
        Ok(())
    }

    /// First sector of an access that lies on the device, by a buffer that it reaches.
    #[inline]
    fn check(&mut self, offset: u64, buf: &DmaBuf) -> Result<u64> {
        let len = u64::from(buf.len());
        let whole = (offset | len).is_multiple_of(SECTOR) && len != 0;
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size);
        if !whole || !inside || buf.len() > self.block.size_max || buf.space_id() != self.space {
            return self.check_again(offset, buf);
        }
        Ok(offset.checked_div(SECTOR).unwrap_or(0))
    }

    /// The same with a look at the device, which may have grown, and what is wrong.
    #[cold]
    fn check_again(&mut self, offset: u64, buf: &DmaBuf) -> Result<u64> {
        let len = u64::from(buf.len());
        let checked = match buf.len() {
            0 => Err(Error::Misuse { what: "a buffer for a block device is not empty" }),
            len if len > self.block.size_max => Err(TOO_LONG),
            _ if buf.space_id() != self.space => Err(Error::NotMapped { addr: buf.device_addr(), len }),
            _ => self.block.check(offset, len),
        };
        self.size = self.block.size();
        self.block.located(checked)
    }

    /// Adds a request with data.
    #[inline]
    fn transfer(&mut self, request_type: RequestType, sector: u64, data: DmaBuf, tag: u64) -> Result<()> {
        let Some(slot) = self.books.standing.take(&data) else {
            let token = self.add(request_type, sector, Some(data))?;
            self.enter(token, tag);
            return Ok(());
        };
        let header = Header { request_type, reserved: 0, sector }.encode(self.order);
        let reads = request_type == RequestType::IN;
        let sent = self.queue.resend(slot, data, reads, |to, status| {
            to.write(0, &header)?;
            status.write(0, &[UNWRITTEN])
        });
        match sent {
            Ok(token) => self.enter(token, tag),
            Err(error) => {
                self.books.standing.put(slot, None);
                return self.block.located(Err(error));
            }
        }
        Ok(())
    }

    /// Adds a request in a chain of its own.
    #[inline(never)]
    fn add(&mut self, request_type: RequestType, sector: u64, data: Option<DmaBuf>) -> Result<Token> {
        let parts = if data.is_some() { 3 } else { 2 };
        let Some(frame) = self.books.frames.pop_if(|_| self.queue.has_room(parts)) else {
            return self.no_room();
        };
        let Frame { header, status } = frame;
        header.write(0, &Header { request_type, reserved: 0, sector }.encode(self.order))?;
        status.write(0, &[UNWRITTEN])?;
        let added = match data {
            Some(data) if request_type == RequestType::IN => self.queue.add([header], [data, status]),
            Some(data) => self.queue.add([header, data], [status]),
            None => self.queue.add([header], [status]),
        };
        self.block.located(added)
    }

    /// Ends a chain that stands, for one of another shape.
    #[cold]
    fn make_room(&mut self) {
        let bufs = self.books.standing.pop().and_then(|slot| self.queue.dismiss(slot));
        self.books.frames.extend(bufs.map(|[header, status]| Frame { header, status }));
    }

    /// A request was added.
    #[inline(always)]
    fn enter(&mut self, token: Token, tag: u64) {
        if let Some(entry) = self.books.entries.get_mut(usize::from(token.slot())) {
            *entry = Some(Entry { token, tag });
        }
        self.books.under_way = self.books.under_way.wrapping_add(1);
        self.hidden = self.hidden.wrapping_add(1);
        if self.hidden.is_multiple_of(SHOW_EVERY) {
            // What is wrong with the device is told by the next call: this request is under way.
            let _ = self.queue.show();
        }
    }

    #[cold]
    fn no_room<T>(&self) -> Result<T> {
        // What became of the device says more.
        let free = self.books.frames.len().try_into().unwrap_or(u32::MAX);
        let full = Error::QueueFull { queue: self.queue.index(), need: 3, free };
        self.block.located(self.queue.check().and_then(|()| Err(full)))
    }

    /// Shows the device all that was added, and notifies it if it wants that.
    #[inline]
    pub fn send(&mut self) -> Result<()> {
        if self.hidden == 0 {
            return Ok(());
        }
        self.hidden = 0;
        if let Err(error) = self.queue.notify() {
            return self.block.located(Err(error));
        }
        self.batches = self.batches.wrapping_add(1);
        if self.batches.is_multiple_of(LOOK_EVERY) { self.look() } else { Ok(()) }
    }

    #[cold]
    fn look(&mut self) -> Result<()> {
        self.block.located(self.block.look())?;
        self.size = self.block.size();
        Ok(())
    }

    /// Takes a request that has ended, if there is one.
    ///
    /// # Errors
    /// What became of the device, after each of its requests has ended: as [`Queue::pop`].
    #[inline]
    pub fn take(&mut self) -> Result<Option<Finished>> {
        loop {
            while let Some(used) = self.queue.pop_seen() {
                if let Some(finished) = self.books.take(used) {
                    return Ok(Some(finished));
                }
            }
            match self.queue.look_for_used() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    if let Some(finished) = self.ended(error)? {
                        return Ok(Some(finished));
                    }
                }
            }
        }
    }

    /// Takes all requests that one look at the queue finds ended, and gives each to `each`; answers how many. Faster than
    /// [`Pipe::take`] for each; errors as there, where there was no request.
    #[inline(always)]
    pub fn take_each(&mut self, mut each: impl FnMut(Finished)) -> Result<u32> {
        loop {
            match self.queue.look_for_used() {
                Ok(false) => return Ok(0),
                Ok(true) => break,
                Err(error) => {
                    if let Some(finished) = self.ended(error)? {
                        each(finished);
                        return Ok(1);
                    }
                }
            }
        }
        let mut count: u32 = 0;
        while let Some(used) = self.queue.pop_seen() {
            if let Some(finished) = self.books.take(used) {
                each(finished);
                count = count.wrapping_add(1);
            }
        }
        Ok(count)
    }

    /// A request that ended with the device is told of once.
    #[cold]
    fn ended(&mut self, error: Error) -> Result<Option<Finished>> {
        let Error::Indeterminate { token } = error else { return self.block.located(Err(error)) };
        let Some(Entry { tag, .. }) = self.books.close(Token::from_raw(token)) else { return Ok(None) };
        Ok(Some(Finished { tag, outcome: self.block.located(Err(error)) }))
    }

    /// Shows the device what was added, and waits until a request has ended: spinning, then asleep.
    ///
    /// # Errors
    /// [`Error::Timeout`] at the deadline: the requests stay in flight. [`Error::Misuse`] where none is under way.
    /// Else as [`Pipe::take`].
    pub fn wait(&mut self, deadline: Deadline) -> Result<Finished> {
        if let Err(error) = self.send() {
            // What became of the requests comes before what became of the device.
            return self.take()?.ok_or(error);
        }
        // What comes at once is waited for without a look at the clock.
        for _ in 0..if self.queue.spins() { LOOKS } else { 0 } {
            if let Some(finished) = self.take()? {
                return Ok(finished);
            }
        }
        loop {
            if let Some(finished) = self.take()? {
                return Ok(finished);
            }
            if self.books.under_way == 0 {
                return Err(Error::Misuse { what: "no request is under way that could be waited for" });
            }
            let finished = match self.queue.get_with(deadline, || Ok(())) {
                Ok(mut used) => {
                    let bufs = match used.buffers().count() {
                        3 => [0, 1, 2].map(|index| used.buffer(index)),
                        _ => [used.buffer(0), None, used.buffer(1)],
                    };
                    self.books.finish(used.token, bufs, used.written, used.capacity)
                }
                Err(error) => self.ended(error)?,
            };
            if let Some(finished) = finished {
                return Ok(finished);
            }
        }
    }

    /// The device behind it; its events are to be taken through [`Pipe::block`].
    pub fn device(&self) -> &Device {
        self.block.device()
    }

    /// The block device, for what it can tell of itself. It has no queue any more: calls that need one are refused.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Features in use.
    pub fn features(&self) -> Features {
        self.block.features()
    }

    /// What the queue has counted.
    pub fn counters(&self) -> Counters {
        self.queue.counters()
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipe({:?}, queue {}, {} under way)", self.block, self.queue.index(), self.under_way())
    }
}
