//! One connection: what the front-end said, and the answers.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::os::fd::OwnedFd;

use super::engine::{Engine, RingPlace};
use super::messages::{self, Expect};
use super::table::Table;
use super::watch::{Watch, Woken};
use crate::bus::socket::{Message, Socket};
use crate::event::{Deadline, EventFd};
use crate::features::Features;
use crate::spec::Status;
use crate::spec::vhost_user::{
    BackendRequest, Header, MAX_TABLE_REGIONS, ORDER, Request, decode_u64, encode_u64, feature, flags,
    protocol,
};
use crate::{Error, Result};

/// Messages that are handled before the rings have a turn.
const MOST_AT_ONCE: usize = 16;
/// For the front-end to make room in its socket.
const PATIENCE: Duration = Duration::from_secs(1);

/// One ring, as far as the front-end has described it.
#[derive(Debug, Default)]
pub(super) struct Vring {
    pub(super) size: u16,
    pub(super) base: u16,
    /// Descriptor, driver and device area, as the front-end calls them.
    pub(super) areas: Option<[u64; 3]>,
    pub(super) kick: Option<EventFd>,
    /// The front-end sends no kicks: the ring is looked at all the time.
    pub(super) polled: bool,
    pub(super) err: Option<EventFd>,
    pub(super) enabled: bool,
    pub(super) running: bool,
}

/// A connection, and what is behind the socket.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) socket: Socket,
    pub(super) watch: Watch,
    pub(super) engine: &'a mut Box<dyn Engine>,
    pub(super) table: Table,
    pub(super) rings: Vec<Vring>,
    /// The socket of requests to the front-end.
    pub(super) requests: Option<Socket>,
    /// Protocol features that are offered, and those in use.
    pub(super) offered: u64,
    pub(super) protocol: u64,
    /// Feature bits as the front-end set them.
    pub(super) features: Option<u64>,
    /// Kicks taken.
    pub(super) kicks: u64,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        fd: OwnedFd,
        engine: &'a mut Box<dyn Engine>,
        table: Table,
        offered: u64,
        watch: Watch,
    ) -> Result<Self> {
        let fd = Arc::new(fd);
        watch.add(&*fd, Woken::Message)?;
        let rings = core::iter::repeat_with(Vring::default).take(engine.queues().into()).collect();
        Ok(Self {
            socket: Socket::taking(fd, MAX_TABLE_REGIONS),
            watch,
            engine,
            table,
            rings,
            requests: None,
            offered,
            protocol: 0,
            features: None,
            kicks: 0,
        })
    }

    pub(super) fn uses(&self, feature: u64) -> bool {
        self.protocol & feature != 0
    }

    /// Serves the rings for a moment. Answers whether there is more to do at once.
    pub(super) fn work(&mut self) -> Result<bool> {
        let mut polled = false;
        for (index, ring) in (0..).zip(&self.rings) {
            if ring.polled && ring.running {
                self.engine.kicked(index)?;
                polled = true;
            }
        }
        Ok(self.engine.work() | polled)
    }

    /// The front-end notified ring `index`.
    pub(super) fn kicked(&mut self, index: u16) -> Result<()> {
        if let Some(kick) = self.rings.get(usize::from(index)).and_then(|ring| ring.kick.as_ref()) {
            kick.drain()?;
            self.kicks = self.kicks.wrapping_add(1);
            self.engine.kicked(index)?;
        }
        Ok(())
    }

    /// The configuration changed, or the device asks for a reset.
    pub(super) fn changed(&mut self) -> Result<()> {
        let status = Status::from_bits_retain(self.engine.status());
        if status.contains(Status::DEVICE_NEEDS_RESET) {
            for err in self.rings.iter().filter_map(|ring| ring.err.as_ref()) {
                err.signal()?;
            }
        }
        let Some(requests) = self.requests.as_ref().filter(|_| self.uses(protocol::CONFIG)) else {
            return Ok(());
        };
        let header =
            Header { request: BackendRequest::CONFIG_CHANGE.0, flags: flags::VERSION, size: 0 }.encode(ORDER);
        // A front-end that does not take its messages is told no more.
        if let Err((error, _)) = requests.send(&header, &[], Deadline::after(Duration::ZERO)) {
            log::debug!("a front-end is told of no more changes: {error}");
            self.requests = None;
        }
        Ok(())
    }

    /// Handles what the front-end has sent.
    pub(super) fn receive(&mut self) -> Result<()> {
        for _ in 0..MOST_AT_ONCE {
            let Some(message) = self.socket.try_receive(&messages::check)? else { return Ok(()) };
            let header = message.header;
            let own_answer = messages::has_answer(Request(header.request));
            let acknowledge = header.flags & flags::NEED_REPLY != 0 && self.uses(protocol::REPLY_ACK);
            match self.handle(message) {
                Ok(Some(payload)) => self.answer(&header, &payload)?,
                Ok(None) if acknowledge => self.answer(&header, &encode_u64(0))?,
                Ok(None) => {}
                Err(error) if acknowledge && !own_answer => {
                    log::warn!("message {} is refused: {error}", header.request);
                    self.answer(&header, &encode_u64(1))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn answer(&self, header: &Header, payload: &[u8]) -> Result<()> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header { request: header.request, flags: flags::VERSION | flags::REPLY, size };
        let mut bytes = Vec::from(header.encode(ORDER));
        bytes.extend_from_slice(payload);
        self.socket.send(&bytes, &[], Deadline::after(PATIENCE)).map_err(|(error, _)| error)
    }

    /// Does what a message asks; gives the payload of its answer where it has one.
    fn handle(&mut self, message: Message) -> Result<Option<Vec<u8>>> {
        let Message { header, payload, fds } = message;
        let request = Request(header.request);
        let Some(Expect { feature, fds: most_fds, .. }) = messages::expect(request) else {
            return Err(Error::protocol(format!("message {} is not known", header.request)));
        };
        if feature != 0 && !self.uses(feature) {
            let name = request.name().unwrap_or_default();
            return Err(Error::protocol(format!("{name} without its protocol feature {feature:#x}")));
        }
        if fds.len() > most_fds {
            let name = request.name().unwrap_or_default();
            return Err(Error::protocol(format!("{name} came with {} descriptors", fds.len())));
        }
        let number = || payload.first_chunk().map(|bytes| decode_u64(*bytes)).unwrap_or_default();
        match request {
            Request::GET_FEATURES => return Ok(Some(encode_u64(self.all_features()).into())),
            Request::SET_FEATURES => self.set_features(number())?,
            Request::SET_OWNER => {}
            Request::GET_PROTOCOL_FEATURES => return Ok(Some(encode_u64(self.offered).into())),
            Request::SET_PROTOCOL_FEATURES => self.set_protocol(number())?,
            Request::GET_QUEUE_NUM => {
                return Ok(Some(encode_u64(self.engine.queues().into()).into()));
            }
            Request::GET_MAX_MEM_SLOTS => return Ok(Some(encode_u64(MAX_TABLE_REGIONS as u64).into())),
            Request::SET_MEM_TABLE => self.set_table(&payload, fds)?,
            Request::ADD_MEM_REG => self.add_region(&payload, fds)?,
            Request::REM_MEM_REG => self.remove_region(&payload)?,
            Request::GET_CONFIG => return Ok(Some(self.read_config(payload))),
            Request::SET_CONFIG => self.write_config(&payload)?,
            Request::GET_STATUS => return Ok(Some(encode_u64(self.engine.status().into()).into())),
            Request::SET_STATUS => self.set_status(number())?,
            Request::RESET_DEVICE => self.reset()?,
            Request::SET_BACKEND_REQ_FD => {
                let fd = fds.into_iter().next().ok_or_else(|| Error::protocol("no socket came"))?;
                self.requests = Some(Socket::new(Arc::new(fd)));
            }
            Request::GET_VRING_BASE => return self.stop_ring(&payload).map(Some),
            _ => self.set_ring(request, &payload, fds)?,
        }
        Ok(None)
    }

    fn all_features(&self) -> u64 {
        let [low, high, ..] = self.engine.features().words();
        let own = if self.offered == 0 { 0 } else { 1 << feature::PROTOCOL_FEATURES };
        u64::from(low) | u64::from(high) << 32 | own
    }

    fn set_features(&mut self, bits: u64) -> Result<()> {
        let beyond = bits & !self.all_features();
        if beyond != 0 {
            return Err(Error::protocol(format!("features {beyond:#x} were set, which are not offered")));
        }
        if self.rings.iter().any(|ring| ring.running) && self.features != Some(bits) {
            return Err(Error::protocol("features were set while a ring runs"));
        }
        self.features = Some(bits);
        let device = bits & !(1 << feature::PROTOCOL_FEATURES);
        self.engine.set_features(Features::from_words([device as u32, (device >> 32) as u32, 0, 0]));
        Ok(())
    }

    fn set_protocol(&mut self, bits: u64) -> Result<()> {
        if bits & !self.offered != 0 {
            return Err(Error::protocol(format!("protocol features {bits:#x} were set, not all offered")));
        }
        self.protocol = bits;
        Ok(())
    }

    fn set_status(&mut self, value: u64) -> Result<()> {
        let status = u8::try_from(value).map_err(|_| Error::protocol(format!("device status {value:#x}")))?;
        if status == 0 { self.reset() } else { self.engine.set_status(status) }
    }

    /// The device as it was before anything but the memory was told.
    fn reset(&mut self) -> Result<()> {
        for ring in &mut self.rings {
            if let Some(kick) = ring.kick.take() {
                self.watch.remove(&kick)?;
            }
            *ring = Vring::default();
        }
        self.features = None;
        for index in 0..self.engine.queues() {
            self.engine.set_call(index, None);
        }
        self.engine.set_status(0)
    }

    /// Starts or pauses a ring, as what is known of it asks for.
    pub(super) fn update(&mut self, index: u16) -> Result<()> {
        let switched = self.features.is_some_and(|bits| bits & 1 << feature::PROTOCOL_FEATURES != 0);
        let own_status = self.uses(protocol::STATUS);
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        let known = ring.size != 0 && (ring.kick.is_some() || ring.polled);
        let wanted = (ring.enabled || !switched) && known;
        match (wanted, ring.running, ring.areas) {
            (true, false, Some(areas)) => {
                let mut places = [0; 3];
                for (place, user) in places.iter_mut().zip(areas) {
                    *place = self.table.guest_addr(user).ok_or(Error::NotMapped { addr: user, len: 1 })?;
                }
                if !own_status {
                    self.engine.set_status(STARTED.bits())?;
                }
                self.engine.start(index, &RingPlace { size: ring.size, base: ring.base, areas: places })?;
                ring.running = true;
            }
            (false, true, _) => {
                self.engine.pause(index);
                ring.running = false;
            }
            _ => {}
        }
        Ok(())
    }

    /// The ring of that number.
    pub(super) fn index(&self, word: u64) -> Result<u16> {
        let index = u16::try_from(word).ok();
        index
            .filter(|index| usize::from(*index) < self.rings.len())
            .ok_or_else(|| Error::protocol(format!("ring {word} is not one of {}", self.rings.len())))
    }
}

/// What a driver's status is that has none.
const STARTED: Status =
    Status::ACKNOWLEDGE.union(Status::DRIVER).union(Status::FEATURES_OK).union(Status::DRIVER_OK);
