//! Questions and answers on the front-end's socket, each with a deadline (faults V1 to V9, V13, P10).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::bus::socket::Socket;
use crate::event::Deadline;
use crate::spec::vhost_user::{
    ConfigHeader, Header, ORDER, Request, decode_u64, encode_u64, flags, protocol,
};
use crate::{Error, Result};

/// What a number, or an acknowledgement, takes.
const NUMBER: usize = size_of::<u64>();

/// An answer that is to come.
#[derive(Debug, Clone, Copy)]
struct Want {
    request: Request,
    /// Bytes of its payload.
    size: usize,
    /// Whether an answer without the bytes that were asked for is a refusal (the configuration).
    refusable: bool,
}

impl Want {
    fn check(self, header: &Header) -> Result<()> {
        let name = self.request.name().unwrap_or_default();
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        let detail = if header.request != self.request.0 {
            alloc::format!("an answer to message {} where one to {name} was due", header.request)
        } else if header.flags & flags::REPLY == 0 {
            alloc::format!("the answer to {name} is not marked as one (flags {:#x})", header.flags)
        } else if size != self.size && !(self.refusable && (size == 0 || size == ConfigHeader::SIZE)) {
            alloc::format!("the answer to {name} has {size} bytes, {} were asked for", self.size)
        } else {
            return Ok(());
        };
        Err(Error::protocol(detail))
    }
}

/// The front-end's socket.
#[derive(Debug)]
pub(super) struct Control {
    socket: Socket,
    /// Answers that did not come in time: they are taken and dropped when they come.
    owed: VecDeque<Want>,
    /// Protocol features in use.
    protocol: u64,
    /// What ended the conversation: it cannot be taken up again.
    failure: Option<Error>,
}

/// More owed answers than that, and the back-end is asked nothing more.
const MOST_OWED: usize = 32;

impl Control {
    pub(super) fn new(fd: Arc<OwnedFd>) -> Self {
        Self { socket: Socket::new(fd), owed: VecDeque::new(), protocol: 0, failure: None }
    }

    /// Whether the conversation was ended at this end: the back-end may well be alive.
    pub(super) fn given_up(&self) -> bool {
        !matches!(self.failure, None | Some(Error::Disconnected { .. }))
    }

    pub(super) fn has(&self, feature: u64) -> bool {
        self.protocol & feature != 0
    }

    /// From now on these protocol features are in use.
    pub(super) fn use_protocol(&mut self, features: u64) {
        self.protocol = features;
    }

    /// Sends a message without an answer of its own, and waits for the acknowledgement where there are such.
    pub(super) fn tell(
        &mut self,
        request: Request,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<()> {
        if !self.has(protocol::REPLY_ACK) {
            return self.send(request, 0, payload, fds, deadline);
        }
        let want = Want { request, size: NUMBER, refusable: false };
        let answer = self.converse(want, flags::NEED_REPLY, payload, fds, deadline)?;
        match number(&answer) {
            Some(0) => Ok(()),
            code => Err(Error::BackendRefused {
                request: request.name().unwrap_or_default(),
                code: code.unwrap_or(1),
            }),
        }
    }

    /// The same for a message whose payload is a number.
    pub(super) fn tell_number(&mut self, request: Request, value: u64, deadline: Deadline) -> Result<()> {
        self.tell(request, &encode_u64(value), &[], deadline)
    }

    /// Asks for a number.
    pub(super) fn ask_number(&mut self, request: Request, deadline: Deadline) -> Result<u64> {
        let answer = self.ask(request, &[], NUMBER, deadline)?;
        number(&answer).ok_or_else(|| Error::protocol("no number"))
    }

    /// Asks for an answer of `size` bytes.
    pub(super) fn ask(
        &mut self,
        request: Request,
        payload: &[u8],
        size: usize,
        deadline: Deadline,
    ) -> Result<Vec<u8>> {
        let refusable = request == Request::GET_CONFIG;
        self.converse(Want { request, size, refusable }, 0, payload, &[], deadline)
    }

    /// Waits until the back-end has handled all that was told so far (fault V19): an acknowledged message did
    /// that; else a question does.
    pub(super) fn settle(&mut self, deadline: Deadline) -> Result<()> {
        if self.has(protocol::REPLY_ACK) {
            return Ok(());
        }
        self.ask_number(Request::GET_FEATURES, deadline).map(drop)
    }

    fn converse(
        &mut self,
        want: Want,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<Vec<u8>> {
        self.send(want.request, flags, payload, fds, deadline)?;
        self.owed.push_back(want);
        loop {
            let Some(due) = self.owed.front().copied() else {
                return Err(Error::protocol("no answer is due"));
            };
            match self.socket.receive(deadline, &|header| due.check(header)) {
                Ok(message) => {
                    self.owed.pop_front();
                    if self.owed.is_empty() {
                        return Ok(message.payload);
                    }
                }
                Err(error @ Error::Timeout { .. }) => return Err(error),
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    fn send(
        &mut self,
        request: Request,
        more: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.owed.len() >= MOST_OWED {
            return Err(self.fail(Error::protocol("the back-end owes too many answers")));
        }
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header { request: request.0, flags: flags::VERSION | more, size };
        let mut bytes = Vec::with_capacity(Header::SIZE.saturating_add(payload.len()));
        bytes.extend_from_slice(&header.encode(ORDER));
        bytes.extend_from_slice(payload);
        match self.socket.send(&bytes, fds, deadline) {
            Ok(()) => Ok(()),
            // Nothing of it went out: the back-end is slow, no more.
            Err((error @ Error::Timeout { .. }, false)) => Err(error),
            Err((error, _)) => Err(self.fail(error)),
        }
    }

    /// The conversation is over.
    fn fail(&mut self, error: Error) -> Error {
        // Whoever sleeps on the connection wakes up, and finds that it has ended.
        self.socket.shut();
        self.failure = Some(error.clone());
        error
    }
}

fn number(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| decode_u64(*bytes))
}
