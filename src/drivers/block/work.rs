//! What a call that does not wait wants done: jobs that own their data.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::job::{Ask, Erase, Flow, Job, Own, Piece, Read, Write};
use crate::Result;
use crate::mem::pool::DmaBuf;

/// What a call brought that succeeded.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// Nothing but that it succeeded.
    Nothing,
    /// What was read.
    Bytes(Vec<u8>),
    /// The same, in a buffer: the caller's own, which it gets back of a write as well, or one of the queue's. Of those
    /// callers get the lesser half.
    Buffer(DmaBuf),
}

impl Answer {
    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Buffer(buf) => buf.len() as usize,
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies its first bytes. [`Error::OutOfBounds`](crate::Error::OutOfBounds) where there are fewer.
    pub fn read(&self, to: &mut [u8]) -> Result<()> {
        let bytes = match self {
            Self::Buffer(buf) => return buf.read(0, to),
            Self::Bytes(bytes) => bytes,
            Self::Nothing => &[][..],
        };
        let beyond = crate::Error::OutOfBounds { offset: 0, len: to.len() as u64, size: bytes.len() as u64 };
        to.copy_from_slice(bytes.get(..to.len()).ok_or(beyond)?);
        Ok(())
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Result<Vec<u8>> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Bytes(bytes) => Ok(bytes),
            Self::Buffer(buf) => buf.to_vec(),
        }
    }
}

/// A job that owns its data.
#[derive(Debug)]
pub(super) enum Work {
    /// One request of one data buffer, which is the answer.
    Fetch {
        read: Read<[u8; 0]>,
        buf: Option<DmaBuf>,
    },
    Read(Read<Vec<u8>>),
    Write(Write<Vec<u8>>),
    /// A write whose data the lane has, all of it.
    Sent,
    Own(Own),
    Ask(Ask<Vec<u8>>),
    Erase(Box<Erase>),
}

impl Work {
    /// Keeps what was read by itself, and answers the buffer that it was in.
    pub(super) fn copy_out(&mut self) -> Result<Option<DmaBuf>> {
        let Self::Fetch { read, buf } = self else { return Ok(None) };
        let Some(buf) = buf.take() else { return Ok(None) };
        let (sector, pieces) = (read.sector, read.pieces.clone());
        *self = Self::Read(Read { sector, pieces, to: buf.to_vec()? });
        Ok(Some(buf))
    }

    /// The buffer of the queue's that it would give away.
    pub(super) fn kept(&self) -> Option<&DmaBuf> {
        if let Self::Fetch { buf, .. } = self { buf.as_ref() } else { None }
    }

    /// What it brought.
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Fetch { buf, .. } => buf.map_or(Answer::Nothing, Answer::Buffer),
            Self::Read(read) => Answer::Bytes(read.to),
            Self::Own(own) => own.buf.map_or(Answer::Nothing, Answer::Buffer),
            Self::Ask(ask) if !ask.answer.is_empty() => Answer::Bytes(ask.answer),
            Self::Ask(_) | Self::Write(_) | Self::Sent | Self::Erase(_) => Answer::Nothing,
        }
    }
}

impl Job for Work {
    fn next(&mut self) -> Option<Piece> {
        match self {
            Self::Fetch { read, .. } => read.next(),
            Self::Read(read) => read.next(),
            Self::Write(write) => write.next(),
            Self::Own(own) => own.next(),
            Self::Ask(ask) => ask.next(),
            Self::Erase(erase) => erase.next(),
            Self::Sent => None,
        }
    }

    fn load(&mut self, at: u64, buf: &DmaBuf) -> Result<()> {
        match self {
            Self::Write(write) => write.load(at, buf),
            Self::Erase(erase) => erase.load(at, buf),
            Self::Fetch { .. } | Self::Read(_) | Self::Own(_) | Self::Ask(_) | Self::Sent => Ok(()),
        }
    }

    fn store(&mut self, at: u64, buf: DmaBuf) -> Result<Option<DmaBuf>> {
        match self {
            Self::Fetch { buf: place, .. } => Ok(place.replace(buf)),
            Self::Read(read) => read.store(at, buf),
            Self::Ask(ask) => ask.store(at, buf),
            Self::Write(_) | Self::Own(_) | Self::Erase(_) | Self::Sent => Ok(Some(buf)),
        }
    }

    fn give_back(&mut self, buf: DmaBuf) {
        if let Self::Own(own) = self {
            own.give_back(buf);
        }
    }
}

impl Own {
    pub(super) fn new(sector: u64, flow: Flow, buf: DmaBuf, repeats: bool) -> Self {
        Self { sector, flow, buf: Some(buf), asked: false, repeats }
    }
}
