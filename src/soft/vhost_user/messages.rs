//! What is known of each message, and those about memory, configuration and rings.

use alloc::format;
use alloc::vec::Vec;
use core::mem::size_of;
use std::os::fd::OwnedFd;

use super::session::{Session, Vring};
use super::watch::Woken;
use crate::event::EventFd;
use crate::spec::split::MAX_SIZE;
use crate::spec::vhost_user::{
    ConfigHeader, Header, MAX_CONFIG, MAX_TABLE_REGIONS, MemoryHeader, MemoryRegion, NO_FD, ORDER, Request,
    VringAddr, VringState, decode_u64, flags, protocol,
};
use crate::{Error, Result};

/// What a message has to be like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expect {
    /// Bytes of its payload, from and to.
    pub(super) sizes: (usize, usize),
    /// Descriptors that it may bring.
    pub(super) fds: usize,
    /// The protocol feature that it belongs to.
    pub(super) feature: u64,
}

const NUMBER: usize = size_of::<u64>();
const SINGLE: usize = MemoryRegion::SINGLE_PADDING.wrapping_add(MemoryRegion::SIZE);
const TABLE: usize = MemoryHeader::SIZE.wrapping_add(MemoryRegion::SIZE.wrapping_mul(MAX_TABLE_REGIONS));
const CONFIG: usize = ConfigHeader::SIZE.wrapping_add(MAX_CONFIG);

/// `None` for a message that is not known.
pub(super) fn expect(request: Request) -> Option<Expect> {
    let (size, fds, feature) = match request {
        Request::GET_FEATURES | Request::GET_PROTOCOL_FEATURES | Request::SET_OWNER => (0, 0, 0),
        Request::SET_FEATURES | Request::SET_PROTOCOL_FEATURES => (NUMBER, 0, 0),
        Request::SET_MEM_TABLE => {
            return Some(Expect { sizes: (MemoryHeader::SIZE, TABLE), fds: MAX_TABLE_REGIONS, feature: 0 });
        }
        Request::SET_VRING_NUM
        | Request::SET_VRING_BASE
        | Request::GET_VRING_BASE
        | Request::SET_VRING_ENABLE => (VringState::SIZE, 0, 0),
        Request::SET_VRING_ADDR => (VringAddr::SIZE, 0, 0),
        Request::SET_VRING_KICK | Request::SET_VRING_CALL | Request::SET_VRING_ERR => (NUMBER, 1, 0),
        Request::GET_QUEUE_NUM => (0, 0, protocol::MQ),
        Request::SET_BACKEND_REQ_FD => (0, 1, protocol::BACKEND_REQ),
        Request::GET_CONFIG | Request::SET_CONFIG => {
            return Some(Expect { sizes: (ConfigHeader::SIZE, CONFIG), fds: 0, feature: protocol::CONFIG });
        }
        Request::RESET_DEVICE => (0, 0, protocol::RESET_DEVICE),
        Request::GET_MAX_MEM_SLOTS => (0, 0, protocol::CONFIGURE_MEM_SLOTS),
        Request::ADD_MEM_REG => (SINGLE, 1, protocol::CONFIGURE_MEM_SLOTS),
        // Some front-ends send the descriptor once more.
        Request::REM_MEM_REG => (SINGLE, 1, protocol::CONFIGURE_MEM_SLOTS),
        Request::SET_STATUS => (NUMBER, 0, protocol::STATUS),
        Request::GET_STATUS => (0, 0, protocol::STATUS),
        _ => return None,
    };
    Some(Expect { sizes: (size, size), fds, feature })
}

/// Whether a message has an answer of its own, that is no acknowledgement.
pub(super) fn has_answer(request: Request) -> bool {
    matches!(
        request,
        Request::GET_FEATURES
            | Request::GET_PROTOCOL_FEATURES
            | Request::GET_QUEUE_NUM
            | Request::GET_MAX_MEM_SLOTS
            | Request::GET_CONFIG
            | Request::GET_STATUS
            | Request::GET_VRING_BASE
    )
}

/// A request, of a length that it can have.
pub(super) fn check(header: &Header) -> Result<()> {
    if header.flags & flags::REPLY != 0 {
        return Err(Error::protocol(format!("an answer to request {}, which nobody made", header.request)));
    }
    let request = Request(header.request);
    let size = usize::try_from(header.size).unwrap_or(usize::MAX);
    match expect(request) {
        Some(Expect { sizes: (least, most), .. }) if size < least || size > most => {
            let name = request.name().unwrap_or_default();
            Err(Error::protocol(format!("{name} of {size} bytes, {least} to {most} are known")))
        }
        // What it is may be told by its length, which is not known.
        _ => Ok(()),
    }
}

impl Session<'_> {
    pub(super) fn set_table(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<()> {
        let header =
            payload.first_chunk().map(|bytes| MemoryHeader::decode(bytes, ORDER)).unwrap_or_default();
        let rest = payload.get(MemoryHeader::SIZE..).unwrap_or_default();
        let regions: Vec<MemoryRegion> = rest
            .chunks(MemoryRegion::SIZE)
            .filter_map(|bytes| bytes.first_chunk().map(|bytes| MemoryRegion::decode(bytes, ORDER)))
            .collect();
        let told = usize::try_from(header.regions).unwrap_or(usize::MAX);
        // Some front-ends send room for eight, whatever the number.
        if regions.len() < told || fds.len() != told {
            return Err(Error::protocol(format!(
                "a table of {told} regions with {} descriptions and {} descriptors",
                regions.len(),
                fds.len()
            )));
        }
        self.table.clear();
        let mut pairs = regions.into_iter().zip(fds);
        pairs.try_for_each(|(region, fd)| self.table.add(region, fd)).inspect_err(|_| self.table.clear())
    }

    pub(super) fn add_region(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<()> {
        let fd =
            fds.into_iter().next().ok_or_else(|| Error::protocol("a memory region without a descriptor"))?;
        self.table.add(single(payload), fd)
    }

    pub(super) fn remove_region(&mut self, payload: &[u8]) -> Result<()> {
        self.table.remove(&single(payload))
    }

    /// The bytes that were asked for, with their header; nothing where there are not so many.
    ///
    /// The protocol has an answer of the length that was asked for, or of no payload, which is an error. Some back-ends
    /// send the header alone for an error, with a length of 0 in it. That is no choice: it is the right answer to whoever
    /// asks for no bytes. The front-end of the crate `vhost` 0.18 reads as many bytes as it has asked for, whatever the
    /// answer's length is, so that either kind of error leaves it waiting until the connection ends, also with that
    /// crate's own back-end.
    pub(super) fn read_config(&self, mut payload: Vec<u8>) -> Vec<u8> {
        let config = self.engine.config();
        let found = config_range(&payload).and_then(|range| config.get(range));
        match (found, payload.get_mut(ConfigHeader::SIZE..)) {
            (Some(found), Some(room)) if found.len() == room.len() => {
                room.copy_from_slice(found);
                payload
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn write_config(&mut self, payload: &[u8]) -> Result<()> {
        let bytes = payload.get(ConfigHeader::SIZE..).unwrap_or_default();
        let len = self.engine.config().len();
        match config_range(payload).filter(|range| range.len() == bytes.len() && range.end <= len) {
            Some(range) => {
                self.engine.write_config(range.start as u64, bytes);
                Ok(())
            }
            None => Err(Error::protocol(format!("a write outside the {len} bytes of configuration"))),
        }
    }

    /// Stops a ring: answers with where.
    pub(super) fn stop_ring(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        let state = state(payload);
        let index = self.index(state.index.into())?;
        let stopped = self.engine.stop(index);
        self.engine.set_call(index, None);
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(Vec::new()) };
        if let Some(kick) = ring.kick.take() {
            self.watch.remove(&kick)?;
        }
        let num = stopped.unwrap_or(ring.base).into();
        *ring = Vring { size: ring.size, ..Vring::default() };
        Ok(VringState { index: state.index, num }.encode(ORDER).into())
    }

    /// What is told of one ring.
    pub(super) fn set_ring(&mut self, request: Request, payload: &[u8], fds: Vec<OwnedFd>) -> Result<()> {
        match request {
            Request::SET_VRING_KICK | Request::SET_VRING_CALL | Request::SET_VRING_ERR => {
                return self.set_event(request, payload, fds);
            }
            _ => {}
        }
        let state = state(payload);
        let index = self.index(state.index.into())?;
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        if ring.running && request != Request::SET_VRING_ENABLE {
            let name = request.name().unwrap_or_default();
            return Err(Error::protocol(format!("{name} for ring {index}, which runs")));
        }
        match request {
            Request::SET_VRING_NUM => ring.size = size(state.num)?,
            Request::SET_VRING_BASE => {
                ring.base = u16::try_from(state.num)
                    .map_err(|_| Error::protocol(format!("ring {index} begins at {:#x}", state.num)))?;
            }
            Request::SET_VRING_ADDR => {
                let addr =
                    payload.first_chunk().map(|bytes| VringAddr::decode(bytes, ORDER)).unwrap_or_default();
                if addr.flags != 0 {
                    return Err(Error::protocol("a log of used elements, which is not offered"));
                }
                ring.areas = Some([addr.descriptor, addr.avail, addr.used]);
            }
            Request::SET_VRING_ENABLE => ring.enabled = state.num != 0,
            _ => {}
        }
        self.update(index)
    }

    fn set_event(&mut self, request: Request, payload: &[u8], fds: Vec<OwnedFd>) -> Result<()> {
        let number = payload.first_chunk().map(|bytes| decode_u64(*bytes)).unwrap_or_default();
        let index = self.index(number & !NO_FD)?;
        let none = number & NO_FD != 0;
        let event = fds.into_iter().next().map(EventFd::of_peer).transpose()?;
        if none == event.is_some() {
            return Err(Error::protocol(format!("an event of ring {index} that is there or not, as told")));
        }
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        match request {
            Request::SET_VRING_CALL => self.engine.set_call(index, event),
            Request::SET_VRING_ERR => ring.err = event,
            _ => {
                if let Some(old) = ring.kick.take() {
                    self.watch.remove(&old)?;
                }
                if let Some(kick) = &event {
                    self.watch.add(kick, Woken::Ring(index))?;
                }
                (ring.kick, ring.polled) = (event, none);
                self.update(index)?;
                // What was made available before is not announced again.
                self.engine.kicked(index)?;
            }
        }
        Ok(())
    }
}

fn state(payload: &[u8]) -> VringState {
    payload.first_chunk().map(|bytes| VringState::decode(bytes, ORDER)).unwrap_or_default()
}

fn single(payload: &[u8]) -> MemoryRegion {
    let described = payload.get(MemoryRegion::SINGLE_PADDING..).and_then(<[u8]>::first_chunk);
    described.map(|bytes| MemoryRegion::decode(bytes, ORDER)).unwrap_or_default()
}

fn size(num: u32) -> Result<u16> {
    let size = u16::try_from(num).ok().filter(|size| size.is_power_of_two() && *size <= MAX_SIZE);
    size.ok_or_else(|| Error::protocol(format!("a ring of {num} entries")))
}

/// Which bytes of the configuration space a message is about.
fn config_range(payload: &[u8]) -> Option<core::ops::Range<usize>> {
    let header = payload.first_chunk().map(|bytes| ConfigHeader::decode(bytes, ORDER))?;
    let start = usize::try_from(header.offset).ok()?;
    Some(start..start.checked_add(usize::try_from(header.size).ok()?)?)
}
