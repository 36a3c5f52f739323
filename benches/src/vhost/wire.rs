//! Messages of the vhost-user protocol, as the null device takes them: header, payload, descriptors.

use std::io::{Error, ErrorKind, IoSliceMut, Read, Result, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Message numbers.
pub mod request {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
}

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const HEADER: usize = 12;
/// Longest payload that is taken.
const MOST: usize = 4096;

/// One message of the driver's.
#[derive(Debug)]
pub struct Message {
    /// What it asks.
    pub request: u32,
    /// Whether an acknowledgement is wanted.
    pub wants_reply: bool,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The 8 bytes at `at` as a number.
    ///
    /// # Errors
    /// There are no such bytes.
    pub fn u64(&self, at: usize) -> Result<u64> {
        let bytes = self.payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_ne_bytes).ok_or_else(|| bad("a payload is too short"))
    }

    /// The 4 bytes at `at` as a number.
    ///
    /// # Errors
    /// There are no such bytes.
    pub fn u32(&self, at: usize) -> Result<u32> {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or_else(|| bad("a payload is too short"))
    }
}

/// An error of the other end's making.
#[must_use]
pub fn bad(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// Takes the next message; `None` at the end of the connection.
///
/// # Errors
/// The socket's, or a message that is none.
pub fn receive(stream: &mut UnixStream) -> Result<Option<Message>> {
    let mut header = [0u8; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(&*stream, &mut [IoSliceMut::new(&mut header)], &mut control, flags)?.bytes;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = rights.flatten().collect();
    if got == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[got..])?;
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let size = word(8) as usize;
    if size > MOST {
        return Err(bad("a payload is too long"));
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload)?;
    Ok(Some(Message { request: word(0), wants_reply: word(4) & NEED_REPLY != 0, payload, fds }))
}

/// Answers a message.
///
/// # Errors
/// The socket's.
pub fn reply(stream: &mut UnixStream, request: u32, payload: &[u8]) -> Result<()> {
    let size = u32::try_from(payload.len()).map_err(Error::other)?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    for part in [request, VERSION | REPLY, size] {
        bytes.extend_from_slice(&part.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    stream.write_all(&bytes)
}
