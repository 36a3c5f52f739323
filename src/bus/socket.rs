//! Messages of the vhost-user protocol over a Unix socket, for both of its ends: every step has a deadline, and no
//! descriptor that was not asked for stays open.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg,
};

use crate::event::{Deadline, wait_readable};
use crate::spec::vhost_user::{Header, MAX_PAYLOAD, MAX_TABLE_REGIONS, ORDER, flags};
use crate::{Error, Result};

/// Descriptors that are taken from one message, to be closed: the kernel drops those beyond.
const MOST_FDS: usize = 32;

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// Descriptors that came with it: as many as its taker takes, at most.
    #[cfg_attr(
        any(loom, not(feature = "soft")),
        allow(dead_code, reason = "a front-end takes none, and looks at none")
    )]
    pub(crate) fds: Vec<OwnedFd>,
}

/// What of a message has come so far: kept between calls, since a deadline may pass in the midst of one.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; Header::SIZE],
    /// Bytes of the header that are there.
    have: usize,
    /// The payload, once the header was checked: bytes that are there, and all of them.
    payload: Option<(usize, Vec<u8>)>,
    /// Descriptors that came with it and are kept.
    fds: Vec<OwnedFd>,
    /// Whether more came than are taken. Those are closed already.
    beyond: bool,
}

/// One end of a connected socket, not blocking. Any error but a timeout that left no part of a message unsent is
/// its end: the caller sees to that.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: Arc<OwnedFd>,
    partial: Partial,
    /// Descriptors that one message may bring.
    takes: usize,
}

impl Socket {
    /// Over a socket that does not block by itself: each call says so. Messages bring no descriptors.
    pub(crate) fn new(fd: Arc<OwnedFd>) -> Self {
        Self { fd, partial: Partial::default(), takes: 0 }
    }

    /// As [`Socket::new`], but a message may bring so many descriptors.
    #[cfg(all(feature = "soft", not(loom)))]
    pub(crate) fn taking(fd: Arc<OwnedFd>, descriptors: usize) -> Self {
        Self { takes: descriptors.min(MAX_TABLE_REGIONS), ..Self::new(fd) }
    }

    /// Sends a message with its descriptors. A timeout is an error of which the caller must know whether a part
    /// went out: the second of the pair.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> core::result::Result<(), (Error, bool)> {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            // Descriptors go with the first byte (SCM_RIGHTS), once.
            let with = if sent == 0 { fds } else { &[] };
            match send_some(&self.fd, rest, with) {
                Ok(count) => sent = sent.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match writable(&self.fd, deadline) {
                    Ok(true) => {}
                    Ok(false) => return Err((deadline.timeout(ROOM), sent != 0)),
                    Err(error) => return Err((error, sent != 0)),
                },
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err((Error::Disconnected { partial: 0 }, true));
                }
                Err(errno) => return Err((Error::os("send a message", errno), sent != 0)),
            }
        }
        Ok(())
    }

    /// Ends the connection, for both ends.
    pub(crate) fn shut(&self) {
        if let Err(errno) = rustix::net::shutdown(&self.fd, Shutdown::Both) {
            log::debug!("a socket was not shut down: {errno}");
        }
    }

    /// Takes the next message; [`Error::Timeout`] at the deadline, when the part that has come is kept.
    pub(crate) fn receive(
        &mut self,
        deadline: Deadline,
        check: &dyn Fn(&Header) -> Result<()>,
    ) -> Result<Message> {
        loop {
            if let Some(message) = self.try_receive(check)? {
                return Ok(message);
            }
            if !wait_readable(&self.fd, deadline)? {
                return Err(deadline.timeout("an answer of the back-end"));
            }
        }
    }

    /// Takes what is there; a message once it is whole. Its header goes to `check` before anything is allocated.
    ///
    /// # Errors
    /// [`Error::Disconnected`] at the end of the stream (fault V2); [`Error::Protocol`] for a header that no
    /// message has (V3) and for more descriptors than are taken (V4).
    pub(crate) fn try_receive(&mut self, check: &dyn Fn(&Header) -> Result<()>) -> Result<Option<Message>> {
        loop {
            let partial = &mut self.partial;
            let (have, want): (&mut usize, &mut [u8]) = match &mut partial.payload {
                None => (&mut partial.have, &mut partial.header),
                Some((have, bytes)) => (have, bytes),
            };
            let rest = want.get_mut(*have..).unwrap_or_default();
            if !rest.is_empty() {
                match receive_some(&self.fd, rest, &mut partial.fds, self.takes) {
                    Ok((0, _)) => return Err(Error::Disconnected { partial: self.partial.bytes() }),
                    Ok((count, beyond)) => {
                        *have = have.saturating_add(count);
                        partial.beyond |= beyond;
                        continue;
                    }
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => return Ok(None),
                    Err(Errno::CONNRESET) => {
                        return Err(Error::Disconnected { partial: self.partial.bytes() });
                    }
                    Err(errno) => return Err(Error::os("receive a message", errno)),
                }
            }
            if let Some(message) = self.partial.step(check)? {
                return Ok(Some(message));
            }
        }
    }
}

impl Partial {
    fn bytes(&self) -> u32 {
        let payload = self.payload.as_ref().map_or(0, |(have, _)| *have);
        u32::try_from(self.have.saturating_add(payload)).unwrap_or(u32::MAX)
    }

    /// The part that was waited for is whole: goes on to the payload, or gives the message.
    fn step(&mut self, check: &dyn Fn(&Header) -> Result<()>) -> Result<Option<Message>> {
        let header = Header::decode(&self.header, ORDER);
        let Some((_, payload)) = self.payload.take() else {
            let size = usize::try_from(header.size).unwrap_or(usize::MAX);
            if header.flags & flags::VERSION_MASK != flags::VERSION {
                return Err(Error::protocol(alloc::format!("message version in flags {:#x}", header.flags)));
            }
            if size > MAX_PAYLOAD {
                return Err(Error::protocol(alloc::format!("a message of {size} bytes")));
            }
            check(&header)?;
            self.payload = Some((0, vec![0; size]));
            return Ok(None);
        };
        let Self { fds, beyond, .. } = core::mem::take(self);
        if beyond {
            return Err(Error::protocol(alloc::format!(
                "message {} came with descriptors that it does not take",
                header.request
            )));
        }
        Ok(Some(Message { header, payload, fds }))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const ROOM: &str = "room in the other end's socket";

fn send_some(fd: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_TABLE_REGIONS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    sendmsg(fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Bytes that were received, and whether descriptors came with them beyond the `most` that go to `kept`: those are
/// closed here (fault V4).
fn receive_some(
    fd: &OwnedFd,
    bytes: &mut [u8],
    kept: &mut Vec<OwnedFd>,
    most: usize,
) -> rustix::io::Result<(usize, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(fd, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut beyond = received.flags.contains(ReturnFlags::CTRUNC);
    for message in control.drain() {
        let RecvAncillaryMessage::ScmRights(received) = message else { continue };
        for descriptor in received {
            if kept.len() < most {
                kept.push(descriptor);
            } else {
                beyond = true;
            }
        }
    }
    Ok((received.bytes, beyond))
}

/// Waits until `fd` takes bytes, at most until `deadline`; `false` then.
fn writable(fd: &OwnedFd, deadline: Deadline) -> Result<bool> {
    loop {
        let left = deadline.left().unwrap_or(core::time::Duration::from_secs(3600));
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(fd, PollFlags::OUT)], Some(&limit)) {
            Ok(0) if deadline.passed() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(Error::os("wait for room in a socket", errno)),
        }
    }
}

/// Whether the other end has closed the connection, or its half of it (which can answer nothing any more).
pub(crate) fn ended(fd: &impl AsFd) -> Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(fd, PollFlags::RDHUP)];
    match poll(&mut polled, Some(&now)) {
        Ok(_) => {
            let [found] = polled;
            Ok(found.revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
        }
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Error::os("look at a socket", errno)),
    }
}
