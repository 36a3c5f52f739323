//! Front-ends that break the protocol: the connection ends with a typed error, or the message is refused where an
//! acknowledgement was asked for, and the next front-end is served.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use virtio::Error;
use virtio::drivers::{Block, BlockOptions};
use virtio::event::EventFd;
use virtio::mem::region::DmaRegion;
use virtio::soft::{self, NullBlock, VhostUserDevice};
use virtio::spec::vhost_user::{
    ConfigHeader, Header, MemoryHeader, MemoryRegion, ORDER, Request, VringAddr, VringState, encode_u64,
    feature, flags, protocol,
};

use crate::Place;

const LONG: Duration = Duration::from_secs(10);

/// A front-end that says what it is told to.
struct Raw(UnixStream);

impl Raw {
    fn connect(device: &VhostUserDevice) -> Self {
        let stream = UnixStream::connect(device.path()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self(stream)
    }

    /// With all protocol features in use, and REPLY_ACK.
    fn ready(device: &VhostUserDevice) -> Self {
        let mut raw = Self::connect(device);
        raw.say(Request::GET_PROTOCOL_FEATURES, 0, &[], &[]);
        let offered = raw.answer();
        raw.say(Request::SET_PROTOCOL_FEATURES, 0, &offered, &[]);
        raw.tell(Request::SET_FEATURES, &encode_u64(1 << 32 | 1 << feature::PROTOCOL_FEATURES), &[]).unwrap();
        raw
    }

    fn bytes(request: Request, more: u32, payload: &[u8]) -> Vec<u8> {
        let header = Header { request: request.0, flags: flags::VERSION | more, size: payload.len() as u32 };
        [header.encode(ORDER).as_slice(), payload].concat()
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        // A connection that has ended already says so when it is read.
        let _ = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
    }

    fn say(&self, request: Request, more: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        self.send(&Self::bytes(request, more, payload), fds);
    }

    /// The payload of the next answer.
    fn answer(&mut self) -> Vec<u8> {
        let mut header = [0; Header::SIZE];
        self.0.read_exact(&mut header).unwrap();
        let header = Header::decode(&header, ORDER);
        assert_eq!(header.flags, flags::VERSION | flags::REPLY);
        let mut payload = vec![0; header.size as usize];
        self.0.read_exact(&mut payload).unwrap();
        payload
    }

    /// Says something that is acknowledged; `Err` where it is refused.
    fn tell(&mut self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Vec<u8>> {
        self.say(request, flags::NEED_REPLY, payload, fds);
        let answer = self.answer();
        if answer == encode_u64(0) { Ok(()) } else { Err(answer) }
    }

    /// Waits for the end of the connection.
    fn ended(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(104), "{error}"),
        }
    }
}

fn disk(place: &Place) -> VhostUserDevice {
    VhostUserDevice::builder(soft::Block::zeroes(64)).build(&place.0).unwrap()
}

/// A driver that keeps the rules is served after what has happened.
fn serves(device: &VhostUserDevice) {
    let disk = Block::open(&device.address(), BlockOptions::default()).unwrap();
    disk.write(0, &[5; 512]).unwrap();
    disk.close().unwrap();
}

/// The error of the last connection, when it has ended.
fn error(device: &VhostUserDevice) -> Error {
    let start = Instant::now();
    loop {
        let report = device.report();
        if let (false, Some(error)) = (report.connected, report.error) {
            return error;
        }
        assert!(start.elapsed() < LONG, "no error");
        std::thread::yield_now();
    }
}

#[test]
fn a_message_that_none_may_send_ends_the_connection_with_an_error_that_says_why() {
    let number = encode_u64(0);
    let header = |request: u32, flags: u32, size: u32| Header { request, flags, size }.encode(ORDER).to_vec();
    let cases = [
        (header(1, 2, 0), "version"),
        (header(1, flags::VERSION | flags::REPLY, 0), "an answer"),
        (header(1, flags::VERSION, u32::MAX), "bytes"),
        (header(2, flags::VERSION, 7), "7 bytes"),
        (header(1000, flags::VERSION, 0), "1000 is not known"),
        (Raw::bytes(Request::SET_FEATURES, 0, &encode_u64(1 << 60)), "not offered"),
        (
            Raw::bytes(Request::SET_PROTOCOL_FEATURES, 0, &encode_u64(protocol::INFLIGHT_SHMFD)),
            "not all offered",
        ),
        (Raw::bytes(Request::GET_CONFIG, 0, &[0; 12]), "protocol feature"),
        (Raw::bytes(Request::SET_VRING_NUM, 0, &VringState { index: 9, num: 8 }.encode(ORDER)), "ring 9"),
        // A bit that means something beside an event means nothing here.
        (Raw::bytes(Request::SET_VRING_NUM, 0, &VringState { index: 256, num: 8 }.encode(ORDER)), "ring 256"),
        (Raw::bytes(Request::SET_VRING_NUM, 0, &VringState { index: 0, num: 7 }.encode(ORDER)), "7 entries"),
        (Raw::bytes(Request::SET_VRING_NUM, 0, &VringState { index: 0, num: 0 }.encode(ORDER)), "0 entries"),
        (
            Raw::bytes(Request::SET_VRING_BASE, 0, &VringState { index: 0, num: 1 << 16 }.encode(ORDER)),
            "begins at",
        ),
        (Raw::bytes(Request::SET_VRING_KICK, 0, &number), "event"),
        (Raw::bytes(Request::SET_MEM_TABLE, 0, &[1, 0, 0, 0, 0, 0, 0, 0]), "1 regions"),
    ];
    let place = Place::new();
    let device = disk(&place);
    for (bytes, why) in cases {
        let mut raw = Raw::connect(&device);
        raw.send(&bytes, &[]);
        raw.ended();
        let error = error(&device);
        assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains(why), "{error}: {why}");
    }
    serves(&device);
}

#[test]
fn a_message_cut_at_every_byte_is_the_end_of_the_connection_and_of_nothing_else() {
    let place = Place::new();
    let device = disk(&place);
    let bytes = Raw::bytes(Request::SET_FEATURES, 0, &encode_u64(1 << 32));
    for cut in 1..bytes.len() {
        let raw = Raw::connect(&device);
        (&raw.0).write_all(&bytes[..cut]).unwrap();
        drop(raw);
        let start = Instant::now();
        let wanted = Some(Error::Disconnected { partial: cut as u32 });
        while device.report().error != wanted {
            assert!(start.elapsed() < LONG, "{:?}", device.report());
            std::thread::yield_now();
        }
    }
    // One byte at a time it is a message like any other.
    let mut raw = Raw::connect(&device);
    for byte in Raw::bytes(Request::GET_FEATURES, 0, &[]) {
        raw.0.write_all(&[byte]).unwrap();
    }
    assert_eq!(raw.answer().len(), 8);
    drop(raw);
    serves(&device);
}

#[test]
fn a_configuration_that_is_not_there_is_an_answer_of_no_bytes_and_no_write() {
    let place = Place::new();
    let device = disk(&place);
    let mut raw = Raw::ready(&device);
    for (offset, size, sent) in [(90, 16, 16), (0, 8, 7), (0, 7, 8), (u32::MAX, 1, 1), (0, u32::MAX, 0)] {
        let header = ConfigHeader { offset, size, flags: 0 }.encode(ORDER);
        let payload = [header.as_slice(), &vec![0; sent]].concat();
        raw.say(Request::GET_CONFIG, 0, &payload, &[]);
        assert!(raw.answer().is_empty());
        raw.tell(Request::SET_CONFIG, &payload, &[]).unwrap_err();
    }
    // No bytes are there wherever there is a configuration, and nowhere else.
    let none = |offset| ConfigHeader { offset, size: 0, flags: 0 }.encode(ORDER);
    raw.say(Request::GET_CONFIG, 0, &none(8), &[]);
    assert_eq!(raw.answer(), none(8));
    raw.say(Request::GET_CONFIG, 0, &none(u32::MAX), &[]);
    assert!(raw.answer().is_empty());
    drop(raw);
    serves(&device);
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let place = Place::new();
    let device = disk(&place);
    let mut raw = Raw::ready(&device);
    let region = DmaRegion::new(64 << 10).unwrap();
    let fd = region.fd().unwrap();
    let event = EventFd::new().unwrap();
    let good = MemoryRegion { guest_addr: 1 << 32, size: 64 << 10, user_addr: 1 << 40, mmap_offset: 0 };
    let mut add = |described: MemoryRegion, fds: &[BorrowedFd<'_>]| {
        let payload = [[0; 8].as_slice(), &described.encode(ORDER)].concat();
        raw.tell(Request::ADD_MEM_REG, &payload, fds)
    };
    for wrong in [
        MemoryRegion { size: 0, ..good },
        MemoryRegion { size: 65 << 10, ..good },
        MemoryRegion { size: u64::MAX, ..good },
        MemoryRegion { mmap_offset: 4096, ..good },
        MemoryRegion { mmap_offset: u64::MAX, ..good },
        MemoryRegion { mmap_offset: 100, size: 4096, ..good },
        MemoryRegion { guest_addr: u64::MAX - 4096, ..good },
        MemoryRegion { user_addr: u64::MAX - 4096, ..good },
    ] {
        add(wrong, &[fd.as_fd()]).unwrap_err();
    }
    add(good, &[]).unwrap_err();
    add(good, &[event.as_fd()]).unwrap_err();
    add(good, &[fd.as_fd(), fd.as_fd()]).unwrap_err();
    add(good, &[fd.as_fd()]).unwrap();
    // The same bytes a second time, and other bytes at the same address.
    add(MemoryRegion { guest_addr: 1 << 33, ..good }, &[fd.as_fd()]).unwrap_err();
    let other = DmaRegion::new(64 << 10).unwrap();
    add(MemoryRegion { guest_addr: (1 << 32) + 4096, ..good }, &[other.fd().unwrap().as_fd()]).unwrap_err();
    let table =
        [MemoryHeader { regions: 2, padding: 0 }.encode(ORDER).as_slice(), &good.encode(ORDER)].concat();
    raw.tell(Request::SET_MEM_TABLE, &table, &[fd.as_fd()]).unwrap_err();
    drop(raw);
    serves(&device);
}

/// Describes ring 0 with these offsets of its areas in a region of 64 KiB; answers whether it was taken.
fn ring(raw: &mut Raw, region: &DmaRegion, size: u32, areas: [u64; 3]) -> bool {
    let described = MemoryRegion { guest_addr: 1 << 32, size: 64 << 10, user_addr: 1 << 40, mmap_offset: 0 };
    let table =
        [MemoryHeader { regions: 1, padding: 0 }.encode(ORDER).as_slice(), &described.encode(ORDER)].concat();
    raw.tell(Request::SET_MEM_TABLE, &table, &[region.fd().unwrap().as_fd()]).unwrap();
    let state = |num: u32| VringState { index: 0, num }.encode(ORDER);
    raw.tell(Request::SET_VRING_NUM, &state(size), &[]).unwrap();
    let [descriptor, avail, used] = areas.map(|at| (1u64 << 40).wrapping_add(at));
    let addr = VringAddr { index: 0, flags: 0, descriptor, used, avail, log: 0 };
    raw.tell(Request::SET_VRING_ADDR, &addr.encode(ORDER), &[]).unwrap();
    let kick = EventFd::new().unwrap();
    raw.tell(Request::SET_VRING_KICK, &encode_u64(0), &[kick.as_fd()]).unwrap();
    let taken = raw.tell(Request::SET_VRING_ENABLE, &state(1), &[]).is_ok();
    kick.signal().unwrap();
    taken
}

#[test]
fn a_ring_outside_the_memory_misaligned_or_on_top_of_itself_is_refused() {
    for null in [false, true] {
        let place = Place::new();
        let device = match null {
            true => VhostUserDevice::null(&place.0, NullBlock::new(64)).unwrap(),
            false => disk(&place),
        };
        let region = DmaRegion::new(64 << 10).unwrap();
        for areas in [
            [u64::MAX - 15, 0x1000, 0x2000],
            [0xfff0, 0x1000, 0x2000],
            [0, 0xfff0, 0x2000],
            [8, 0x1000, 0x2000],
            [0, 0x1001, 0x2000],
            [0, 0x1000, 0x2002],
            [0, 0x10, 0x2000],
            [0, 0x1000, 0x1004],
        ] {
            let mut raw = Raw::ready(&device);
            assert!(!ring(&mut raw, &region, 8, areas), "{areas:x?}");
        }
        let mut raw = Raw::ready(&device);
        assert!(ring(&mut raw, &region, 8, [0, 0x1000, 0x2000]));
        drop(raw);
        serves(&device);
    }
}

#[test]
fn whatever_lies_in_the_rings_a_device_asks_for_a_reset_at_worst() {
    // Indices, heads, descriptors and tables at random.
    let mut state = 1u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for null in [false, true] {
        let place = Place::new();
        let device = match null {
            true => VhostUserDevice::null(&place.0, NullBlock::new(64).spin(true)).unwrap(),
            false => disk(&place),
        };
        for _ in 0..50 {
            let region = DmaRegion::new(64 << 10).unwrap();
            for at in (0..0x3000).step_by(8) {
                // Half of the words are small numbers and addresses that are there.
                let word = match next() % 4 {
                    0 => next(),
                    1 => (1 << 32) + next() % 0x11000,
                    2 => (next() % 4096) | ((next() % 8) << 32) | ((next() % 10) << 48),
                    _ => next() % 8,
                };
                region.store(at as usize, word).unwrap();
            }
            region.store(0x1000, ((next() % 9) << 16) as u32).unwrap();
            let mut raw = Raw::ready(&device);
            assert!(ring(&mut raw, &region, 8, [0, 0x1000, 0x2000]));
            raw.tell(Request::SET_STATUS, &encode_u64(15), &[]).unwrap();
            raw.say(Request::GET_STATUS, 0, &[], &[]);
            raw.answer();
        }
        serves(&device);
    }
}
