//! A daemon that does as a script says: an honest back-end in a thread, and a hook that decides what becomes of each
//! of its answers. It has the process of the test, so that nothing ever proves its death.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use virtio::spec::vhost_user::{NO_FD, Request, flags, protocol};
use virtio_queue::QueueT;

use crate::daemon::Place;
use crate::ring::{Regions, Ring, Told, ask_for_kicks};
use crate::wire::{Heard, answer, send};

/// Everything that this crate uses, once more: what is offered here is what must be asked for.
pub(crate) const ALL: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::BACKEND_REQ
    | protocol::CONFIG
    | protocol::RESET_DEVICE
    | protocol::CONFIGURE_MEM_SLOTS
    | protocol::STATUS;

/// VIRTIO_F_VERSION_1, EVENT_IDX, INDIRECT_DESC, VIRTIO_BLK_F_FLUSH, and the protocol's own bit.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 9;

/// Bytes of the disk.
pub(crate) const SIZE: usize = 1 << 20;

/// What the back-end says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    pub(crate) protocol: u64,
    pub(crate) queues: u64,
    pub(crate) slots: u64,
    pub(crate) config: Vec<u8>,
    /// The front-end waits at the path, and the daemon connects.
    pub(crate) connects: bool,
}

impl Default for Offer {
    fn default() -> Self {
        let mut config = vec![0; 256];
        config[..8].copy_from_slice(&(SIZE as u64 / 512).to_le_bytes());
        let offered = (FEATURES, ALL);
        let (features, protocol) = offered;
        Self { features, protocol, queues: 1, slots: 8, config, connects: false }
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Do {
    /// These bytes at once.
    Send(Vec<u8>),
    /// These, with so many descriptors.
    WithFds(Vec<u8>, usize),
    /// These, one by one.
    Drip(Vec<u8>),
    /// The end of the connection.
    Close,
    /// Nothing more comes; the back-end still reads.
    ShutWrite,
    /// Nothing more is read.
    ShutRead,
}

/// One message, before it is answered.
pub(crate) struct Turn<'a> {
    /// Number of the message in its connection, from 0.
    pub(crate) at: usize,
    pub(crate) heard: &'a Heard,
    /// What an honest back-end answers.
    pub(crate) honest: Option<Vec<u8>>,
}

impl Turn<'_> {
    pub(crate) fn request(&self) -> Request {
        Request(self.heard.header.request)
    }

    /// Goes on as an honest back-end.
    pub(crate) fn honestly(self) -> Vec<Do> {
        self.honest.into_iter().map(Do::Send).collect()
    }
}

type Hook = Box<dyn FnMut(Turn<'_>, &mut Peer) -> Vec<Do> + Send>;
type Task = Box<dyn FnOnce(&mut Peer) + Send>;

/// How the rings are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serve {
    /// Each chain is answered.
    All,
    /// Chains are taken, and kept.
    Take,
    /// Rings are not looked at.
    Nothing,
}

/// One line of what was heard.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) life: usize,
    pub(crate) request: Request,
    pub(crate) flags: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: usize,
    /// Bytes of the honest answer.
    pub(crate) answer: Option<usize>,
}

/// The back-end itself, in its thread.
pub(crate) struct Peer {
    pub(crate) offer: Offer,
    pub(crate) stream: Option<UnixStream>,
    pub(crate) backend: Option<UnixStream>,
    pub(crate) regions: Regions,
    /// Regions of connections that are over: a daemon that lives has them still.
    pub(crate) older: Vec<Regions>,
    pub(crate) rings: BTreeMap<u32, Ring>,
    pub(crate) serve: Serve,
    /// Without it completions are not announced.
    pub(crate) calls: bool,
    pub(crate) disk: Vec<u8>,
    features: u64,
    protocol: u64,
    status: u64,
    life: usize,
    at: usize,
    log: Arc<Mutex<Vec<Line>>>,
}

/// A handle on the daemon. A drop ends it.
pub(crate) struct Daemon {
    place: Place,
    wake: Arc<OwnedFd>,
    tasks: Option<Sender<Task>>,
    log: Arc<Mutex<Vec<Line>>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn honest(offer: Offer) -> Self {
        Self::start(offer, |turn, _| turn.honestly())
    }

    pub(crate) fn start(
        offer: Offer,
        hook: impl FnMut(Turn<'_>, &mut Peer) -> Vec<Do> + Send + 'static,
    ) -> Self {
        let place = Place::new();
        let path = place.path("script.sock");
        let listener = (!offer.connects).then(|| UnixListener::bind(&path).unwrap());
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let (tasks, todo) = channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let peer = Peer::new(offer, Arc::clone(&log));
        let (woken, hook) = (Arc::clone(&wake), Box::new(hook));
        let thread =
            std::thread::spawn(move || Thread { peer, listener, path, wake: woken, todo, hook }.run());
        Self { place, wake, tasks: Some(tasks), log, thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.path("script.sock")
    }

    pub(crate) fn address(&self) -> String {
        format!("vhost-user:{}", self.path().display())
    }

    /// What was heard so far.
    pub(crate) fn heard(&self) -> Vec<Line> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn heard_of(&self, request: Request) -> Vec<Line> {
        self.heard().into_iter().filter(|line| line.request == request).collect()
    }

    /// Has the daemon do something, and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, task: impl FnOnce(&mut Peer) -> T + Send + 'static) -> T {
        let (done, outcome) = channel();
        let task: Task = Box::new(move |peer| done.send(task(peer)).unwrap());
        self.tasks.as_ref().unwrap().send(task).unwrap();
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).unwrap();
        outcome.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Waits until the daemon finds `what`.
    pub(crate) fn until(&self, what: impl Fn(&mut Peer) -> bool + Send + Clone + 'static) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.run(what.clone()) {
            assert!(Instant::now() < end, "the daemon waits for ever");
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.tasks = None;
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.expect("the daemon's thread");
        }
    }
}

struct Thread {
    peer: Peer,
    listener: Option<UnixListener>,
    path: PathBuf,
    wake: Arc<OwnedFd>,
    todo: Receiver<Task>,
    hook: Hook,
}

/// What a poll found.
struct Found {
    tasks: bool,
    stream: bool,
    kicks: Vec<u32>,
}

impl Thread {
    fn run(mut self) {
        loop {
            if self.peer.stream.is_none() && self.listener.is_none() {
                self.peer.stream = UnixStream::connect(&self.path).ok();
            }
            let found = self.poll();
            if found.tasks {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                loop {
                    match self.todo.try_recv() {
                        Ok(task) => task(&mut self.peer),
                        Err(std::sync::mpsc::TryRecvError::Empty) => break,
                        Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    }
                }
                // The task may have closed what was found.
                continue;
            }
            if found.stream {
                match &self.peer.stream {
                    None => self.peer.stream = Some(self.listener.as_ref().unwrap().accept().unwrap().0),
                    Some(_) => self.message(),
                }
            }
            for index in found.kicks {
                self.peer.kicked(index);
            }
        }
    }

    fn poll(&self) -> Found {
        let mut polled = vec![PollFd::new(&self.wake, PollFlags::IN)];
        match (&self.peer.stream, &self.listener) {
            (Some(stream), _) => polled.push(PollFd::new(stream, PollFlags::IN)),
            (None, Some(listener)) => polled.push(PollFd::new(listener, PollFlags::IN)),
            // The front-end does not wait at the path yet.
            (None, None) => {}
        }
        let fixed = polled.len();
        let mut indices = Vec::new();
        let served = self.peer.serve != Serve::Nothing;
        for (&index, ring) in self.peer.rings.iter().filter(|(_, ring)| served && ring.enabled) {
            if let Some(kick) = &ring.kick {
                indices.push(index);
                polled.push(PollFd::new(kick, PollFlags::IN));
            }
        }
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let limit = (fixed == 1).then_some(&limit);
        while poll(&mut polled, limit) == Err(rustix::io::Errno::INTR) {}
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let kicks = indices.into_iter().zip(&ready[fixed..]).filter(|(_, ready)| **ready);
        Found {
            tasks: ready[0],
            stream: fixed == 2 && ready[1],
            kicks: kicks.map(|(index, _)| index).collect(),
        }
    }

    fn message(&mut self) {
        let stream = self.peer.stream.take().unwrap();
        let Ok(Some(mut heard)) = Heard::read(&stream) else {
            drop(stream);
            return self.peer.end();
        };
        self.peer.stream = Some(stream);
        let fds = heard.fds.len();
        let honest = self.peer.handle(&mut heard);
        self.peer.log.lock().unwrap().push(Line {
            life: self.peer.life,
            request: Request(heard.header.request),
            flags: heard.header.flags,
            payload: heard.payload.clone(),
            fds,
            answer: honest.as_ref().map(Vec::len),
        });
        let turn = Turn { at: self.peer.at, heard: &heard, honest };
        self.peer.at += 1;
        for step in (self.hook)(turn, &mut self.peer) {
            self.peer.act(step);
        }
    }
}

impl Peer {
    fn new(offer: Offer, log: Arc<Mutex<Vec<Line>>>) -> Self {
        Self {
            offer,
            stream: None,
            backend: None,
            regions: Regions::default(),
            older: Vec::new(),
            rings: BTreeMap::new(),
            serve: Serve::All,
            calls: true,
            disk: (0..SIZE).map(|at| (at / 512) as u8).collect(),
            features: 0,
            protocol: 0,
            status: 0,
            life: 0,
            at: 0,
            log,
        }
    }

    /// The end of a connection; what was mapped stays so.
    pub(crate) fn end(&mut self) {
        (self.stream, self.backend) = (None, None);
        self.older.push(std::mem::take(&mut self.regions));
        self.rings.clear();
        (self.features, self.protocol, self.status, self.at) = (0, 0, 0, 0);
        self.life += 1;
    }

    pub(crate) fn act(&mut self, step: Do) {
        let Some(stream) = &self.stream else { return };
        match step {
            Do::Send(bytes) => send(stream, &bytes, 0),
            Do::WithFds(bytes, fds) => send(stream, &bytes, fds),
            Do::Drip(bytes) => bytes.iter().for_each(|byte| send(stream, &[*byte], 0)),
            Do::Close => self.end(),
            Do::ShutWrite => stream.shutdown(Shutdown::Write).unwrap(),
            Do::ShutRead => stream.shutdown(Shutdown::Read).unwrap(),
        }
    }

    /// Does what a message asks; answers what is answered.
    fn handle(&mut self, heard: &mut Heard) -> Option<Vec<u8>> {
        let request = Request(heard.header.request);
        let number = |value: u64| Some(answer(request.0, &value.to_ne_bytes()));
        match request {
            Request::GET_FEATURES => return number(self.offer.features),
            Request::GET_PROTOCOL_FEATURES => return number(self.offer.protocol),
            Request::GET_QUEUE_NUM => return number(self.offer.queues),
            Request::GET_MAX_MEM_SLOTS => return number(self.offer.slots),
            Request::GET_STATUS => return number(self.status),
            Request::GET_CONFIG => {
                let (offset, size) = (heard.word(0) as usize, heard.word(4) as usize);
                let mut payload = heard.payload[..12].to_vec();
                payload.extend_from_slice(&self.offer.config[offset..offset + size]);
                return Some(answer(request.0, &payload));
            }
            Request::GET_VRING_BASE => {
                let (index, mut payload) = (heard.word(0), heard.payload.clone());
                let ring = self.rings.remove(&index);
                let base = ring.map_or(0, |ring| u32::from(ring.queue.next_avail()));
                payload[4..8].copy_from_slice(&base.to_ne_bytes());
                return Some(answer(request.0, &payload));
            }
            _ => self.set(request, heard),
        }
        (heard.header.flags & flags::NEED_REPLY != 0).then(|| answer(request.0, &0u64.to_ne_bytes()))
    }

    fn set(&mut self, request: Request, heard: &mut Heard) {
        match request {
            Request::SET_FEATURES => self.features = heard.number(),
            Request::SET_PROTOCOL_FEATURES => self.protocol = heard.number(),
            Request::SET_STATUS => self.status = heard.number(),
            Request::SET_BACKEND_REQ_FD => self.backend = heard.fds.pop().map(UnixStream::from),
            Request::SET_MEM_TABLE => {
                self.regions = Regions::default();
                for (number, file) in heard.fds.drain(..).collect::<Vec<_>>().into_iter().enumerate() {
                    self.regions.add(told(heard, 8 + number * 32, file));
                }
            }
            Request::ADD_MEM_REG => {
                let file = heard.fds.pop().expect("a region's file");
                self.regions.add(told(heard, 8, file));
            }
            Request::SET_OWNER | Request::RESET_DEVICE | Request::SET_CONFIG => {}
            _ => self.set_ring(request, heard),
        }
    }

    fn set_ring(&mut self, request: Request, heard: &mut Heard) {
        let index = match request {
            Request::SET_VRING_KICK | Request::SET_VRING_CALL => (heard.number() & (NO_FD - 1)) as u32,
            _ => heard.word(0),
        };
        let events = self.features >> 29 & 1 != 0;
        let ring = self.rings.entry(index).or_insert_with(Ring::new);
        match request {
            Request::SET_VRING_NUM => ring.queue.set_size(heard.word(4) as u16),
            Request::SET_VRING_BASE => ring.queue.set_next_avail(heard.word(4) as u16),
            Request::SET_VRING_ADDR => {
                ring.set_addresses(&self.regions, [heard.long(8), heard.long(16), heard.long(24)]);
                ring.queue.set_event_idx(events);
                ring.queue.set_ready(true);
            }
            Request::SET_VRING_CALL => ring.call = heard.fds.pop(),
            Request::SET_VRING_KICK => ring.kick = heard.fds.pop(),
            Request::SET_VRING_ENABLE => ring.enabled = heard.word(4) == 1,
            other => panic!("message {other:?}, which this crate does not send"),
        }
        if self.features >> 30 & 1 == 0 && request == Request::SET_VRING_KICK {
            ring.enabled = true;
        }
    }

    fn kicked(&mut self, index: u32) {
        let Some(kick) = self.rings.get(&index).and_then(|ring| ring.kick.as_ref()) else { return };
        let _ = rustix::io::read(kick, &mut [0; 8]);
        self.work(index);
    }

    /// Looks at a ring, and serves it in the way that is set.
    pub(crate) fn work(&mut self, index: u32) {
        let Some(memory) = self.regions.memory.clone() else { return };
        let Some(ring) = self.rings.get_mut(&index).filter(|ring| ring.queue.ready()) else { return };
        loop {
            ring.take(&memory);
            if self.serve == Serve::All {
                ring.answer(&memory, &mut self.disk, 0);
                if self.calls && ring.call_wanted(&memory) {
                    ring.call();
                }
            }
            if !ask_for_kicks(ring, &memory) {
                return;
            }
        }
    }

    /// Answers what was taken of ring 0, but for `keep`, and announces it.
    pub(crate) fn answer_taken(&mut self, keep: usize) {
        let memory = self.regions.memory.clone().unwrap();
        let ring = self.rings.get_mut(&0).unwrap();
        ring.answer(&memory, &mut self.disk, keep);
        ring.call();
    }

    /// Chains of ring 0 that were taken and not answered.
    pub(crate) fn taken(&self) -> usize {
        self.rings.get(&0).map_or(0, |ring| ring.taken.len())
    }

    /// Sends a request of the back-end's own.
    pub(crate) fn ask(&self, bytes: &[u8], fds: usize) {
        send(self.backend.as_ref().expect("a socket for requests"), bytes, fds);
    }

    /// The kick and the call of ring 0.
    pub(crate) fn events(&self) -> (OwnedFd, OwnedFd) {
        let ring = &self.rings[&0];
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
        (copy(&ring.kick), copy(&ring.call))
    }
}

fn told(heard: &Heard, at: usize, file: OwnedFd) -> Told {
    Told {
        guest: heard.long(at),
        len: heard.long(at + 8),
        user: heard.long(at + 16),
        offset: heard.long(at + 24),
        file: Arc::new(File::from(file)),
    }
}
