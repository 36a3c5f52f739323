//! What a call wants done: a series of requests and where their data is.

use super::split::{Ranges, SECTOR, Shape, Transfers};
use crate::mem::pool::DmaBuf;
use crate::spec::ByteOrder;
use crate::spec::device::block::request::{RequestType, SEGMENT_UNMAP, Segment};
use crate::{Error, Result};

/// Which way the data of a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// No data.
    None,
    /// The device reads it.
    ToDevice,
    /// The device writes it.
    FromDevice,
}

/// What one request is.
#[derive(Debug, Clone, Copy)]
pub(super) struct What {
    pub(super) request_type: RequestType,
    /// First sector, 0 where the type has no use for one (VIRTIO 1.4 §5.2.6.1).
    pub(super) sector: u64,
    pub(super) flow: Flow,
    /// Where its data begins in the job's.
    pub(super) at: u64,
    /// Bytes of data.
    pub(super) len: u32,
    /// Whether it may be sent again where nobody knows whether it was done.
    pub(super) repeats: bool,
}

impl What {
    /// Whether its data can be asked of the job a second time.
    pub(super) fn reloads(&self) -> bool {
        self.flow != Flow::ToDevice || self.request_type == RequestType::OUT
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) what: What,
    /// A caller's buffer to be used as it is; else the data goes through the lane's buffers.
    pub(super) own: Option<DmaBuf>,
}

impl Piece {
    /// A read, which may always be sent again, or a write that may be where it is `repeated`.
    fn transfer(sector: u64, flow: Flow, at: u64, len: u32, repeated: bool) -> Self {
        let request_type = if flow == Flow::ToDevice { RequestType::OUT } else { RequestType::IN };
        let repeats = repeated || flow == Flow::FromDevice;
        Self { what: What { request_type, sector, flow, at, len, repeats }, own: None }
    }
}

/// A call's requests, in order. The lane takes them one by one, has several in flight, and calls back in any
/// order.
pub(super) trait Job {
    /// The next request.
    fn next(&mut self) -> Option<Piece>;

    /// Copies data from `at` on to `buf`, as much as it has room for, for the device to read.
    fn load(&mut self, _at: u64, _buf: &DmaBuf) -> Result<()> {
        Ok(())
    }

    /// Takes data that a request read, for `at` on; gives the buffer back unless it keeps it.
    fn store(&mut self, _at: u64, buf: DmaBuf) -> Result<Option<DmaBuf>> {
        Ok(Some(buf))
    }

    /// Takes a caller's buffer back from a request that succeeded.
    fn give_back(&mut self, _buf: DmaBuf) {}
}

/// A job all of whose requests have buffers of the caller's own, one each.
pub(super) trait OwnJob: Job {
    /// Which way its data goes.
    fn flow(&self) -> Flow;

    /// Whether its requests may be sent again.
    fn repeats(&self) -> bool;

    /// The next request: first sector, and buffer.
    fn next_own(&mut self) -> Option<(u64, DmaBuf)>;

    /// The same as [`Job::next`] gives it.
    fn piece(&self, sector: u64, buf: DmaBuf) -> Piece {
        let piece = Piece::transfer(sector, self.flow(), 0, buf.len(), self.repeats());
        Piece { own: Some(buf), ..piece }
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn beyond(at: u64, len: u32, size: usize) -> Error {
    Error::OutOfBounds { offset: at, len: len.into(), size: size as u64 }
}

/// Reads into bytes.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) sector: u64,
    pub(super) pieces: Transfers,
    pub(super) to: T,
}

impl<T: AsMut<[u8]>> Job for Read<T> {
    fn next(&mut self) -> Option<Piece> {
        let (at, len) = self.pieces.next()?;
        let sector = self.sector.saturating_add(at.checked_div(SECTOR).unwrap_or(0));
        Some(Piece::transfer(sector, Flow::FromDevice, at, len, false))
    }

    fn store(&mut self, at: u64, buf: DmaBuf) -> Result<Option<DmaBuf>> {
        let to = self.to.as_mut();
        let (start, size) = (place(at), to.len());
        let to = to.get_mut(start..start.saturating_add(buf.len() as usize));
        buf.read(0, to.ok_or_else(|| beyond(at, buf.len(), size))?)?;
        Ok(Some(buf))
    }
}

/// Writes from bytes.
#[derive(Debug)]
pub(super) struct Write<F> {
    pub(super) sector: u64,
    pub(super) pieces: Transfers,
    pub(super) from: F,
    /// Whether its requests may be sent again.
    pub(super) repeats: bool,
}

impl<F: AsRef<[u8]>> Job for Write<F> {
    fn next(&mut self) -> Option<Piece> {
        let (at, len) = self.pieces.next()?;
        let sector = self.sector.saturating_add(at.checked_div(SECTOR).unwrap_or(0));
        Some(Piece::transfer(sector, Flow::ToDevice, at, len, self.repeats))
    }

    fn load(&mut self, at: u64, buf: &DmaBuf) -> Result<()> {
        let (start, from) = (place(at), self.from.as_ref());
        let part = from.get(start..start.saturating_add(buf.len() as usize));
        buf.write(0, part.ok_or_else(|| beyond(at, buf.len(), from.len()))?)
    }
}

/// Reads or writes pieces of one length that lie anywhere: the one at `sectors[n]` is number n of the data.
pub(super) struct Scatter<'a> {
    pub(super) sectors: &'a [u64],
    /// Bytes of each piece.
    pub(super) each: u64,
    pub(super) shape: Shape,
    pub(super) flow: Flow,
    pub(super) data: Scattered<'a>,
    /// Number of the piece that comes next, and what is left of the one before.
    pub(super) next: usize,
    pub(super) rest: Transfers,
}

/// Where the data of a [`Scatter`] is.
pub(super) enum Scattered<'a> {
    To(&'a mut [u8]),
    From(&'a [u8]),
    /// Buffers of the caller's, each for one piece.
    Own(alloc::vec::IntoIter<DmaBuf>),
}

impl Job for Scatter<'_> {
    fn next(&mut self) -> Option<Piece> {
        if matches!(self.data, Scattered::Own(..)) {
            let (sector, buf) = self.next_own()?;
            return Some(self.piece(sector, buf));
        }
        let (at, len) = match self.rest.next() {
            Some(part) => part,
            None => {
                self.sectors.get(self.next)?;
                self.next = self.next.saturating_add(1);
                self.rest = Transfers::new(self.each, self.shape);
                self.rest.next()?
            }
        };
        let number = self.next.saturating_sub(1);
        let first = *self.sectors.get(number)?;
        let sector = first.saturating_add(at.checked_div(SECTOR).unwrap_or(0));
        let at = at.saturating_add(self.each.saturating_mul(number as u64));
        Some(Piece::transfer(sector, self.flow, at, len, false))
    }

    fn load(&mut self, at: u64, buf: &DmaBuf) -> Result<()> {
        let Scattered::From(from) = &self.data else { return Ok(()) };
        let start = place(at);
        let part = from.get(start..start.saturating_add(buf.len() as usize));
        buf.write(0, part.ok_or_else(|| beyond(at, buf.len(), from.len()))?)
    }

    fn store(&mut self, at: u64, buf: DmaBuf) -> Result<Option<DmaBuf>> {
        let Scattered::To(to) = &mut self.data else { return Ok(Some(buf)) };
        let (start, size) = (place(at), to.len());
        let part = to.get_mut(start..start.saturating_add(buf.len() as usize));
        buf.read(0, part.ok_or_else(|| beyond(at, buf.len(), size))?)?;
        Ok(Some(buf))
    }
}

impl OwnJob for Scatter<'_> {
    fn flow(&self) -> Flow {
        self.flow
    }

    fn repeats(&self) -> bool {
        self.flow == Flow::FromDevice
    }

    #[inline(always)]
    fn next_own(&mut self) -> Option<(u64, DmaBuf)> {
        let Scattered::Own(bufs) = &mut self.data else { return None };
        let next = (*self.sectors.get(self.next)?, bufs.next()?);
        self.next = self.next.wrapping_add(1);
        Some(next)
    }
}

/// One request with a caller's own buffer.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) sector: u64,
    pub(super) flow: Flow,
    /// Before the request and, if it succeeds, after it.
    pub(super) buf: Option<DmaBuf>,
    pub(super) asked: bool,
    /// Whether the request may be sent again.
    pub(super) repeats: bool,
}

impl Job for Own {
    fn next(&mut self) -> Option<Piece> {
        let (sector, buf) = self.next_own()?;
        Some(self.piece(sector, buf))
    }

    fn give_back(&mut self, buf: DmaBuf) {
        self.buf = Some(buf);
    }
}

impl OwnJob for Own {
    fn flow(&self) -> Flow {
        self.flow
    }

    fn repeats(&self) -> bool {
        self.repeats || self.flow == Flow::FromDevice
    }

    #[inline(always)]
    fn next_own(&mut self) -> Option<(u64, DmaBuf)> {
        if core::mem::replace(&mut self.asked, true) {
            return None;
        }
        Some((self.sector, self.buf.take()?))
    }
}

/// One request with an answer of fixed length, or with none: flush, get id, get lifetime.
#[derive(Debug)]
pub(super) struct Ask<A> {
    pub(super) request_type: RequestType,
    pub(super) answer: A,
    pub(super) asked: bool,
}

impl<A: AsMut<[u8]>> Job for Ask<A> {
    fn next(&mut self) -> Option<Piece> {
        if core::mem::replace(&mut self.asked, true) {
            return None;
        }
        let answer = self.answer.as_mut();
        let what = What {
            request_type: self.request_type,
            sector: 0,
            flow: if answer.is_empty() { Flow::None } else { Flow::FromDevice },
            at: 0,
            len: u32::try_from(answer.len()).unwrap_or(u32::MAX),
            // What is asked, but for a flush, is told as well by another back-end.
            repeats: !answer.is_empty(),
        };
        Some(Piece { what, own: None })
    }

    fn store(&mut self, at: u64, buf: DmaBuf) -> Result<Option<DmaBuf>> {
        let to = self.answer.as_mut();
        let (start, size) = (place(at), to.len());
        let to = to.get_mut(start..start.saturating_add(buf.len() as usize));
        buf.read(0, to.ok_or_else(|| beyond(at, buf.len(), size))?)?;
        Ok(Some(buf))
    }
}

/// Discards, writes zeroes or erases ranges: several segments to a request.
#[derive(Debug)]
pub(super) struct Erase {
    pub(super) request_type: RequestType,
    pub(super) ranges: Ranges,
    /// Segments to a request, at least 1.
    pub(super) most: u32,
    pub(super) unmap: bool,
    pub(super) order: ByteOrder,
    /// The segments of the request that comes next.
    pub(super) loaded: Ranges,
}

impl Erase {
    fn encode(&self, (sector, num_sectors): (u64, u32)) -> [u8; Segment::SIZE] {
        let flags = if self.unmap { SEGMENT_UNMAP } else { 0 };
        Segment { sector, num_sectors, flags }.encode(self.order)
    }
}

impl Job for Erase {
    fn next(&mut self) -> Option<Piece> {
        self.loaded = self.ranges.clone();
        let count = self.ranges.by_ref().take(self.most as usize).count();
        if count == 0 {
            return None;
        }
        let len = u32::try_from(count.saturating_mul(Segment::SIZE)).unwrap_or(u32::MAX);
        let what = What {
            request_type: self.request_type,
            sector: 0,
            flow: Flow::ToDevice,
            at: 0,
            len,
            repeats: false,
        };
        Some(Piece { what, own: None })
    }

    /// The lane loads a request before it asks for the next one, from the first byte on.
    fn load(&mut self, _at: u64, buf: &DmaBuf) -> Result<()> {
        let count = (buf.len() as usize).checked_div(Segment::SIZE).unwrap_or(0);
        for index in 0..count {
            let Some(range) = self.loaded.next() else { break };
            buf.write(index.saturating_mul(Segment::SIZE), &self.encode(range))?;
        }
        Ok(())
    }
}
