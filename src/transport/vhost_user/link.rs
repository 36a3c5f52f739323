//! One connection from its handshake on: what the back-end is, and what it was told.

use alloc::vec;
use alloc::vec::Vec;
use std::os::fd::AsFd;

use super::control::Control;
use super::memory::Table;
use super::wire::Wire;
use crate::event::{Deadline, EventFd};
use crate::features::Features;
use crate::spec::vhost_user::{
    ConfigHeader, MAX_CONFIG, NO_FD, ORDER, Request, VringAddr, VringState, encode_u64, feature, protocol,
};
use crate::spec::{DeviceType, Status, device};
use crate::transport::QueueSetup;
use crate::{Error, Result};

/// One ring that somebody asked for.
#[derive(Debug)]
pub(super) struct VringEnd {
    pub(super) index: u16,
    pub(super) kick: EventFd,
    /// Whether the back-end was told of it.
    pub(super) set: bool,
}

/// All that is kept behind the lock of the conversation.
#[derive(Debug)]
pub(super) struct Link {
    /// `None` before the first and after the end of a connection.
    pub(super) control: Option<Control>,
    /// Feature bits as they came.
    pub(super) offered: u64,
    /// What [`Request::GET_QUEUE_NUM`] gave.
    pub(super) queues: Option<u16>,
    pub(super) table: Table,
    /// Whether features, and with them the memory table, were told.
    pub(super) told: bool,
    pub(super) accepted: Features,
    pub(super) rings: Vec<VringEnd>,
    /// Events by interrupt vector.
    pub(super) calls: Vec<EventFd>,
    /// The configuration space as last read.
    pub(super) config: Vec<u8>,
    pub(super) generation: u32,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            control: None,
            offered: 0,
            queues: None,
            table: Table::new(),
            told: false,
            accepted: Features::EMPTY,
            rings: Vec::new(),
            calls: Vec::new(),
            config: Vec::new(),
            generation: 0,
        }
    }

    /// The conversation.
    pub(super) fn control(&mut self) -> Result<&mut Control> {
        self.control.as_mut().ok_or(super::GONE)
    }

    /// Whether this protocol feature is in use.
    pub(super) fn has(&self, feature: u64) -> bool {
        self.control.as_ref().is_some_and(|control| control.has(feature))
    }

    /// Gets to know the back-end at the other end of a new connection.
    pub(super) fn shake_hands(
        &mut self,
        mut control: Control,
        wire: &Wire,
        kind: DeviceType,
        stand_in: &[u8],
        deadline: Deadline,
    ) -> Result<()> {
        let offered = control.ask_number(Request::GET_FEATURES, deadline)?;
        let mut slots = None;
        let mut queues = None;
        if offered & (1 << feature::PROTOCOL_FEATURES) != 0 {
            // Fault V6: no others, whatever is offered.
            let wanted = control.ask_number(Request::GET_PROTOCOL_FEATURES, deadline)? & protocol::USED;
            control.tell_number(Request::SET_PROTOCOL_FEATURES, wanted, deadline)?;
            control.use_protocol(wanted);
            if control.has(protocol::MQ) {
                queues = Some(queue_count(control.ask_number(Request::GET_QUEUE_NUM, deadline)?)?);
            }
            if control.has(protocol::CONFIGURE_MEM_SLOTS) {
                slots = Some(slot_count(control.ask_number(Request::GET_MAX_MEM_SLOTS, deadline)?)?);
            }
        }
        control.tell(Request::SET_OWNER, &[], &[], deadline)?;
        if control.has(protocol::BACKEND_REQ) {
            let theirs = wire.backend_end()?;
            control.tell(Request::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()], deadline)?;
        }
        self.table.connected(slots)?;
        let config = if control.has(protocol::CONFIG) {
            first_config(&mut control, kind, offered, deadline)?
        } else {
            let mut config = vec![0; config_lengths(kind, offered).first().copied().unwrap_or(0)];
            config.iter_mut().zip(stand_in).for_each(|(byte, known)| *byte = *known);
            config
        };
        (self.offered, self.queues, self.config) = (offered, queues, config);
        (self.told, self.accepted, self.control) = (false, Features::EMPTY, Some(control));
        self.rings.clear();
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }

    /// Reads the configuration again, where the back-end has one to read.
    pub(super) fn refresh_config(&mut self, deadline: Deadline) -> Result<()> {
        if !self.has(protocol::CONFIG) || self.config.is_empty() {
            return self.control().map(drop);
        }
        let len = self.config.len();
        let read = read_config(self.control()?, len, deadline)?
            .ok_or_else(|| Error::protocol("the configuration, which could be read before, is refused"))?;
        if read != self.config {
            self.config = read;
            self.generation = self.generation.wrapping_add(1);
        }
        Ok(())
    }

    pub(super) fn write_config(&mut self, offset: u64, bytes: &[u8], deadline: Deadline) -> Result<()> {
        if !self.has(protocol::CONFIG) {
            return Err(Error::Unsupported { what: "the back-end's configuration cannot be written" });
        }
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let header = ConfigHeader { offset: u32::try_from(offset).unwrap_or(u32::MAX), size, flags: 0 };
        let mut payload = Vec::from(header.encode(ORDER));
        payload.extend_from_slice(bytes);
        let control = self.control()?;
        control.tell(Request::SET_CONFIG, &payload, &[], deadline)?;
        control.settle(deadline)
    }

    /// Tells which features are in use, and then of the memory that there is.
    pub(super) fn tell_features(&mut self, accepted: Features, deadline: Deadline) -> Result<()> {
        let [low, high, ..] = accepted.words();
        let bits = u64::from(low) | u64::from(high) << 32;
        let own = self.offered & (1 << feature::PROTOCOL_FEATURES);
        self.control()?.tell_number(Request::SET_FEATURES, bits | own, deadline)?;
        (self.told, self.accepted) = (true, accepted);
        let control = self.control.as_mut().ok_or(super::GONE)?;
        self.table.tell(control, deadline)
    }

    /// The event by which ring `index` is notified; made when it is asked for first.
    pub(super) fn kick(&mut self, index: u16) -> Result<EventFd> {
        if let Some(ring) = self.rings.iter().find(|ring| ring.index == index) {
            return Ok(ring.kick.clone());
        }
        let kick = EventFd::for_peer()?;
        self.rings.push(VringEnd { index, kick: kick.clone(), set: false });
        Ok(kick)
    }

    /// Sets a ring up and switches it on.
    pub(super) fn set_ring(&mut self, index: u16, setup: &QueueSetup, deadline: Deadline) -> Result<()> {
        let kick = self.kick(index)?;
        let call =
            match setup.vector {
                Some(vector) => self.calls.get(usize::from(vector)).cloned().ok_or(Error::Misuse {
                    what: "a queue's interrupt vector is one that was switched on",
                })?,
                // A back-end that rings must find an event: some end without one. Nobody waits for this one.
                None => EventFd::for_peer()?,
            };
        let switch = self.offered & (1 << feature::PROTOCOL_FEATURES) != 0;
        let ring = u32::from(index);
        let state = |num: u32| VringState { index: ring, num }.encode(ORDER);
        let addr = VringAddr {
            index: ring,
            flags: 0,
            descriptor: setup.descriptor_area,
            used: setup.device_area,
            avail: setup.driver_area,
            log: 0,
        };
        let control = self.control.as_mut().ok_or(super::GONE)?;
        // From the first message on the back-end may use the ring.
        self.rings.iter_mut().filter(|ring| ring.index == index).for_each(|ring| ring.set = true);
        control.tell(Request::SET_VRING_NUM, &state(setup.size.into()), &[], deadline)?;
        control.tell(Request::SET_VRING_BASE, &state(0), &[], deadline)?;
        control.tell(Request::SET_VRING_ADDR, &addr.encode(ORDER), &[], deadline)?;
        let name = encode_u64(u64::from(index) & (NO_FD - 1));
        control.tell(Request::SET_VRING_CALL, &name, &[call.as_fd()], deadline)?;
        control.tell(Request::SET_VRING_KICK, &name, &[kick.as_fd()], deadline)?;
        if switch {
            control.tell(Request::SET_VRING_ENABLE, &state(1), &[], deadline)?;
        }
        Ok(())
    }

    /// Stops one ring: the back-end takes no more of its chains.
    pub(super) fn stop_ring(&mut self, index: u16, deadline: Deadline) -> Result<()> {
        let control = self.control.as_mut().ok_or(super::GONE)?;
        let asked = VringState { index: index.into(), num: 0 }.encode(ORDER);
        let answer = control.ask(Request::GET_VRING_BASE, &asked, VringState::SIZE, deadline)?;
        let answer = answer.first_chunk().map(|bytes| VringState::decode(bytes, ORDER)).unwrap_or_default();
        if answer.index != u32::from(index) || answer.num > u32::from(u16::MAX) {
            return Err(Error::protocol(alloc::format!(
                "ring {index} was stopped, the answer tells of ring {} at {:#x}",
                answer.index,
                answer.num
            )));
        }
        self.rings.retain(|ring| ring.index != index);
        Ok(())
    }

    /// Stops all rings and resets the device, as far as the back-end knows how to.
    pub(super) fn stop_all(&mut self, deadline: Deadline) -> Result<()> {
        let set: Vec<u16> = self.rings.iter().filter(|ring| ring.set).map(|ring| ring.index).collect();
        for index in set {
            self.stop_ring(index, deadline)?;
        }
        self.rings.clear();
        let (reset, status) = (self.has(protocol::RESET_DEVICE), self.has(protocol::STATUS));
        let told = core::mem::take(&mut self.told);
        let control = self.control()?;
        if reset && told {
            control.tell(Request::RESET_DEVICE, &[], &[], deadline)?;
            control.settle(deadline)?;
        }
        if status && !self.write_status(Status::empty(), deadline)?.is_empty() {
            return Err(Error::protocol("the device status does not read 0 after a reset"));
        }
        Ok(())
    }

    /// Writes the device status and reads it back.
    pub(super) fn write_status(&mut self, status: Status, deadline: Deadline) -> Result<Status> {
        self.control()?.tell_number(Request::SET_STATUS, status.bits().into(), deadline)?;
        self.read_status(deadline)
    }

    pub(super) fn read_status(&mut self, deadline: Deadline) -> Result<Status> {
        let read = self.control()?.ask_number(Request::GET_STATUS, deadline)?;
        match u8::try_from(read) {
            Ok(bits) => Ok(Status::from_bits_retain(bits)),
            Err(_) => Err(Error::protocol(alloc::format!("device status {read:#x}"))),
        }
    }
}

/// Fault V8.
fn queue_count(count: u64) -> Result<u16> {
    u16::try_from(count)
        .ok()
        .filter(|&count| count != 0)
        .ok_or_else(|| Error::protocol(alloc::format!("the back-end says that it has {count} queues")))
}

/// Fault V8.
fn slot_count(count: u64) -> Result<usize> {
    if count == 0 {
        return Err(Error::protocol("the back-end says that it has no memory slots"));
    }
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Lengths that the configuration space may have, the likeliest first: up to the last field that is valid with what
/// is offered, then up to fields before it.
fn config_lengths(kind: DeviceType, offered: u64) -> Vec<usize> {
    let Some(spec) = device::spec(kind) else { return vec![MAX_CONFIG, 128, 64, 32, 16, 8] };
    let has = |bits: &[u8]| {
        let offers = |bit: &u8| offered.checked_shr((*bit).into()).is_some_and(|word| word & 1 != 0);
        bits.is_empty() || bits.iter().any(offers)
    };
    let valid = spec.config.iter().filter(|field| has(field.valid_if));
    let mut ends: Vec<usize> = valid.map(|field| (field.end() as usize).min(MAX_CONFIG)).collect();
    ends.sort_unstable_by(|a, b| b.cmp(a));
    ends.dedup();
    ends
}

fn first_config(
    control: &mut Control,
    kind: DeviceType,
    offered: u64,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let lengths = config_lengths(kind, offered);
    for &len in &lengths {
        if let Some(config) = read_config(control, len, deadline)? {
            return Ok(config);
        }
    }
    if lengths.is_empty() {
        return Ok(Vec::new());
    }
    Err(Error::protocol("the back-end offers a configuration and refuses to have it read"))
}

/// The first `len` bytes; `None` where the back-end refuses (fault V9).
fn read_config(control: &mut Control, len: usize, deadline: Deadline) -> Result<Option<Vec<u8>>> {
    let size = u32::try_from(len).unwrap_or(u32::MAX);
    let header = ConfigHeader { offset: 0, size, flags: 0 };
    let mut payload = Vec::from(header.encode(ORDER));
    payload.resize(ConfigHeader::SIZE.saturating_add(len), 0);
    let mut answer = control.ask(Request::GET_CONFIG, &payload, payload.len(), deadline)?;
    if answer.len() != payload.len() {
        return Ok(None);
    }
    let found = answer.first_chunk().map(|bytes| ConfigHeader::decode(bytes, ORDER)).unwrap_or_default();
    if (found.offset, found.size) != (0, size) {
        return Err(Error::protocol(alloc::format!(
            "configuration bytes {}..+{} where 0..+{size} were asked for",
            found.offset,
            found.size
        )));
    }
    Ok(Some(answer.split_off(ConfigHeader::SIZE)))
}
