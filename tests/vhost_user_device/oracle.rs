//! The front-end of the crate `vhost`, somebody else's reading of the protocol, drives the device end: every message, and
//! requests through a ring made by hand, in memory that has another address for buffers than for rings.

use std::os::fd::AsRawFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio::mem::region::DmaRegion;
use virtio::soft::{self, NullBlock, VhostUserDevice};
use virtio::spec::vhost_user::feature;
use vmm_sys_util::eventfd::EventFd;

use crate::Place;

/// What descriptors call the memory, and what messages about rings call it.
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_1234_0000;
const LEN: usize = 64 << 10;
/// Offsets of the areas of the ring, and of a request's header, data and status.
const TABLE: usize = 0;
const AVAIL: usize = 0x1000;
const USED: usize = 0x2000;
const HEADER: usize = 0x3000;
const DATA: usize = 0x4000;
const STATUS: usize = 0x6000;
const SIZE: u16 = 8;
const LONG: Duration = Duration::from_secs(10);

/// A front-end with one ring.
struct Rig {
    frontend: Frontend,
    region: Arc<DmaRegion>,
    kick: EventFd,
    call: EventFd,
    made: u16,
}

impl Rig {
    /// Tells everything that there is to tell; the memory at once, or by slots.
    fn new(device: &VhostUserDevice, slots: bool, base: u16) -> Self {
        let region = DmaRegion::new(LEN).unwrap();
        let mut frontend = Frontend::connect(device.path(), 2).unwrap();
        let offered = frontend.get_features().unwrap();
        let own = 1 << feature::PROTOCOL_FEATURES;
        let version_1 = 1 << 32;
        assert_eq!(offered & (version_1 | own), version_1 | own);
        frontend.set_owner().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let used = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        assert!(protocol.contains(used | VhostUserProtocolFeatures::STATUS));
        frontend.set_protocol_features(used).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(version_1 | own).unwrap();
        let fd = region.fd().unwrap();
        let described = VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST,
            memory_size: LEN as u64,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: fd.as_raw_fd(),
        };
        if slots {
            assert_eq!(frontend.get_max_mem_slots().unwrap(), 8);
            frontend.add_mem_region(&described).unwrap();
            frontend.remove_mem_region(&described).unwrap();
            frontend.remove_mem_region(&described).unwrap_err();
            frontend.add_mem_region(&described).unwrap();
        } else {
            frontend.set_mem_table(&[described]).unwrap();
        }
        let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let ring = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: USER + TABLE as u64,
            used_ring_addr: USER + USED as u64,
            avail_ring_addr: USER + AVAIL as u64,
            log_addr: None,
        };
        region.store(AVAIL + 2, base).unwrap();
        region.store(USED + 2, base).unwrap();
        frontend.set_vring_num(0, SIZE).unwrap();
        frontend.set_vring_base(0, base).unwrap();
        frontend.set_vring_addr(0, &ring).unwrap();
        frontend.set_vring_call(0, &call).unwrap();
        frontend.set_vring_err(0, &call).unwrap();
        frontend.set_vring_kick(0, &kick).unwrap();
        frontend.set_vring_enable(0, true).unwrap();
        Self { frontend, region, kick, call, made: base }
    }

    fn descriptor(&self, index: usize, offset: usize, len: u32, flags: u16) {
        let at = TABLE + index * 16;
        self.region.store(at, GUEST + offset as u64).unwrap();
        self.region.store(at + 8, len).unwrap();
        self.region.store(at + 12, flags).unwrap();
        self.region.store(at + 14, index as u16 + 1).unwrap();
    }

    /// Reads (0) or writes (1) one sector; answers the status and the length of the used element.
    fn request(&mut self, request_type: u32, sector: u64) -> (u8, u32) {
        let region = &self.region;
        region.store(HEADER, request_type).unwrap();
        region.store(HEADER + 8, sector).unwrap();
        region.store(STATUS, 0xffu8).unwrap();
        let write = if request_type == 0 { 2 } else { 0 };
        self.descriptor(0, HEADER, 16, 1);
        self.descriptor(1, DATA, 512, 1 | write);
        self.descriptor(2, STATUS, 1, 2);
        let slot = usize::from(self.made % SIZE);
        region.store(AVAIL + 4 + slot * 2, 0u16).unwrap();
        self.made = self.made.wrapping_add(1);
        region.store(AVAIL + 2, self.made).unwrap();
        self.kick.write(1).unwrap();
        let (told, heard) = mpsc::channel();
        let call = self.call.try_clone().unwrap();
        thread::spawn(move || told.send(call.read().unwrap()));
        heard.recv_timeout(LONG).unwrap();
        assert_eq!(region.load::<u16>(USED + 2).unwrap(), self.made);
        (region.load(STATUS).unwrap(), region.load(USED + 4 + slot * 8 + 4).unwrap())
    }
}

#[test]
fn a_front_end_of_somebody_else_s_making_reads_and_writes() {
    for slots in [false, true] {
        let place = Place::new();
        let device =
            VhostUserDevice::builder(soft::Block::zeroes(64).with_queues(2)).build(&place.0).unwrap();
        let mut rig = Rig::new(&device, slots, 0);
        assert_eq!(rig.frontend.get_queue_num().unwrap(), 2);
        rig.region.write(DATA, &[7; 512]).unwrap();
        assert_eq!(rig.request(1, 3), (0, 1));
        rig.region.fill(DATA, 512, 0).unwrap();
        assert_eq!(rig.request(0, 3), (0, 513));
        let mut data = [0; 512];
        rig.region.read(DATA, &mut data).unwrap();
        assert_eq!(data, [7; 512]);
        assert_eq!(rig.request(0, 1 << 40).0, 1, "beyond the end");
        assert_eq!(rig.frontend.get_vring_base(0).unwrap(), 3);
        assert_eq!(device.report().error, None);
    }
}

#[test]
fn a_ring_goes_on_where_an_earlier_one_was_stopped() {
    let place = Place::new();
    let device = VhostUserDevice::builder(soft::Block::zeroes(64)).build(&place.0).unwrap();
    // Across the wrap of the indices.
    let mut rig = Rig::new(&device, false, u16::MAX - 1);
    for _ in 0..4 {
        assert_eq!(rig.request(0, 0), (0, 513));
    }
    assert_eq!(rig.frontend.get_vring_base(0).unwrap(), 2);
}

#[test]
fn a_null_device_writes_the_status_and_nothing_else() {
    for spin in [false, true] {
        let place = Place::new();
        let device = VhostUserDevice::null(&place.0, NullBlock::new(64).spin(spin)).unwrap();
        let mut rig = Rig::new(&device, spin, 0);
        rig.region.write(DATA, &[7; 513]).unwrap();
        assert_eq!(rig.request(0, 3), (0, 513));
        assert_eq!(rig.request(1, 3), (0, 1));
        let mut data = [0; 513];
        rig.region.read(DATA, &mut data).unwrap();
        assert_eq!(data, [7; 513]);
        // The wish for notifications: one that does not spin has none while it works, and says so anew before it sleeps.
        let deadline = Instant::now() + Duration::from_secs(5);
        while rig.region.load::<u16>(USED).unwrap() != u16::from(spin) {
            assert!(Instant::now() < deadline, "spin: {spin}");
            thread::yield_now();
        }
        assert_eq!(rig.frontend.get_vring_base(0).unwrap(), 2);
    }
}

#[test]
fn the_configuration_is_read_and_written_in_parts() {
    let place = Place::new();
    let device = VhostUserDevice::builder(soft::Block::zeroes(64)).build(&place.0).unwrap();
    let mut rig = Rig::new(&device, false, 0);
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, capacity) = rig.frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
    assert_eq!(capacity, 64u64.to_le_bytes());
    rig.frontend.set_config(32, flags, &[0]).unwrap();
    let (_, mode) = rig.frontend.get_config(32, 1, flags, &[0]).unwrap();
    assert_eq!(mode, [0], "the cache is written through");
}

#[test]
fn a_reset_leaves_the_memory_and_takes_everything_else() {
    let place = Place::new();
    let device = VhostUserDevice::builder(soft::Block::zeroes(64)).build(&place.0).unwrap();
    let mut rig = Rig::new(&device, false, 0);
    rig.request(0, 0);
    rig.frontend.reset_device().unwrap();
    // The ring is not served, and the next one can be described.
    assert_eq!(rig.frontend.get_vring_base(0).unwrap(), 0);
    rig.frontend.set_vring_num(0, SIZE).unwrap();
    assert_eq!(device.report().error, None);
}
