//! The back-end's side of a socket: messages with their descriptors, whole or in whatever pieces a test wants.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use virtio::spec::vhost_user::{Header, ORDER, flags};

/// Most descriptors that the kernel takes with one message.
pub(crate) const MOST_FDS: usize = 253;

/// A message from the front-end.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Heard {
    /// The next message; `None` at the end of the stream.
    pub(crate) fn read(stream: &UnixStream) -> io::Result<Option<Self>> {
        let (mut fds, mut header) = (Vec::new(), [0; Header::SIZE]);
        if !fill(stream, &mut header, &mut fds)? {
            return Ok(None);
        }
        let header = Header::decode(&header, ORDER);
        assert_eq!(header.flags & flags::VERSION_MASK, flags::VERSION, "{header:?}");
        assert!(header.size <= 4096, "{header:?}");
        let mut payload = vec![0; header.size as usize];
        if !payload.is_empty() && !fill(stream, &mut payload, &mut fds)? {
            return Ok(None);
        }
        Ok(Some(Self { header, payload, fds }))
    }

    /// The number that many messages carry.
    pub(crate) fn number(&self) -> u64 {
        u64::from_ne_bytes(self.payload[..8].try_into().unwrap())
    }

    /// A field of four bytes.
    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// A field of eight bytes.
    pub(crate) fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.payload[at..at + 8].try_into().unwrap())
    }
}

fn fill(stream: &UnixStream, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut have = 0;
    while have < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes[have..])];
        let got = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        let got = match got {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(false),
            other => other?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.bytes == 0 {
            return Ok(false);
        }
        have += got.bytes;
    }
    Ok(true)
}

/// A message to the front-end.
pub(crate) fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { request, flags, size: payload.len() as u32 };
    let mut bytes = Vec::from(header.encode(ORDER));
    bytes.extend_from_slice(payload);
    bytes
}

/// An answer as it has to be.
pub(crate) fn answer(request: u32, payload: &[u8]) -> Vec<u8> {
    message(request, flags::VERSION | flags::REPLY, payload)
}

/// Sends bytes, and so many descriptors with the first of them. A front-end that has gone is no error.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], fds: usize) {
    let nothing = File::open("/dev/null").unwrap();
    let fds: Vec<BorrowedFd<'_>> = vec![nothing.as_fd(); fds];
    let mut sent = 0;
    while sent < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let parts = [IoSlice::new(&bytes[sent..])];
        match sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
