//! The descriptors of one connection: what can be looked at while somebody else waits for an answer on it.

use alloc::sync::Arc;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::TryLockError;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::bus::peer::Peer;
use crate::bus::socket::{Message, Socket, ended};
use crate::event::{Deadline, wait_readable};
use crate::spec::vhost_user::{BackendRequest, Header, ORDER, encode_u64, flags};
use crate::sync::Mutex;
use crate::{Error, Result};

/// Requests of the back-end that are served between two looks at the rings (fault V10).
const MOST_AT_ONCE: usize = 16;

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Arc<OwnedFd>,
    peer: Option<Peer>,
    /// Readable when the back-end has asked for something, or the connection has ended.
    watch: Arc<OwnedFd>,
    /// The socket of the back-end's requests; none without, and after its end.
    backend: Mutex<Option<Socket>>,
}

impl Wire {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Result<Self> {
        let peer = Peer::of(&socket);
        let watch = epoll::create(CreateFlags::CLOEXEC).map_err(|e| Error::os("epoll_create", e))?;
        // Only its end: answers are for whoever asked.
        epoll::add(&watch, &socket, EventData::new_u64(0), EventFlags::RDHUP)
            .map_err(|e| Error::os("epoll_ctl", e))?;
        Ok(Self { socket, peer, watch: Arc::new(watch), backend: Mutex::new(None) })
    }

    /// Makes the socket for the back-end's requests, and gives its end of it.
    pub(super) fn backend_end(&self) -> Result<OwnedFd> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|e| Error::os("make a pair of sockets", e))?;
        epoll::add(&self.watch, &ours, EventData::new_u64(1), EventFlags::IN | EventFlags::RDHUP)
            .map_err(|e| Error::os("epoll_ctl", e))?;
        *super::lock(&self.backend) = Some(Socket::new(Arc::new(ours)));
        Ok(theirs)
    }

    pub(super) fn watch(&self) -> &Arc<OwnedFd> {
        &self.watch
    }

    /// Whether the connection has ended, as far as the kernel knows.
    pub(super) fn ended(&self) -> Result<bool> {
        ended(&self.socket)
    }

    /// Waits for the death of the process at the other end. `false` at the deadline, and at once where no process
    /// is known.
    pub(super) fn peer_is_dead(&self, deadline: Deadline) -> Result<bool> {
        self.peer.as_ref().map_or(Ok(false), |peer| peer.wait_dead(deadline))
    }

    /// Serves the back-end's requests; answers whether one told of a changed configuration.
    pub(super) fn serve(&self) -> Result<bool> {
        if !wait_readable(&self.watch, Deadline::after(core::time::Duration::ZERO))? {
            return Ok(false);
        }
        let mut backend = match self.backend.try_lock() {
            Ok(backend) => backend,
            Err(TryLockError::Poisoned(backend)) => backend.into_inner(),
            // Somebody else is at it.
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        let Some(socket) = backend.as_mut() else { return Ok(false) };
        match serve_some(socket) {
            Ok(changed) => Ok(changed),
            Err(error) => {
                // The device itself is not concerned. Closed, it does not wake anybody any more.
                log::warn!("the back-end's requests are not served any more: {error}");
                *backend = None;
                Ok(false)
            }
        }
    }
}

fn serve_some(socket: &mut Socket) -> Result<bool> {
    let mut changed = false;
    for _ in 0..MOST_AT_ONCE {
        let Some(Message { header, .. }) = socket.try_receive(&|header| check(header))? else { break };
        let known = BackendRequest(header.request) == BackendRequest::CONFIG_CHANGE;
        changed |= known;
        if header.flags & flags::NEED_REPLY != 0 {
            answer(socket, header, u64::from(!known))?;
        }
    }
    Ok(changed)
}

/// A request, not an answer.
fn check(header: &Header) -> Result<()> {
    if header.flags & flags::REPLY != 0 {
        return Err(Error::protocol(alloc::format!("an answer to request {} of nobody", header.request)));
    }
    Ok(())
}

/// Answers a request, without waiting: who does not take its answers gets none.
fn answer(socket: &Socket, request: Header, code: u64) -> Result<()> {
    let header = Header { flags: flags::VERSION | flags::REPLY, size: 8, ..request };
    let mut bytes = alloc::vec::Vec::from(header.encode(ORDER));
    bytes.extend_from_slice(&encode_u64(code));
    let now = Deadline::after(core::time::Duration::ZERO);
    socket.send(&bytes, &[], now).map_err(|(error, _)| error)
}

impl AsFd for Wire {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
