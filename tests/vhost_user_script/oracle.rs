//! Numbers, layouts and messages are those of the crate `vhost`, somebody else's reading of the protocol.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::message::{
    BackendReq, FrontendReq, VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfig,
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserLog, VhostUserMemory,
    VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
    VhostUserU64, VhostUserVringAddr, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Backend, BackendReqHandler, Error as VhostError, GpuBackend, Result as VhostResult,
    VhostUserBackendReqHandlerMut, VhostUserFrontendReqHandler, VhostUserProtocolFeatures as Protocol,
    VhostUserVirtioFeatures,
};
use virtio::Error;
use virtio::drivers::Block;
use virtio::spec::vhost_user::{
    BackendRequest, ConfigHeader, Header, MemoryHeader, MemoryRegion, NO_FD, ORDER, Request, VringAddr,
    VringState, encode_u64, feature, flags, protocol,
};
use vm_memory::ByteValued;

use crate::daemon::Place;
use crate::{alone, descriptors, small};

const LONG: Duration = Duration::from_secs(10);

#[test]
fn numbers_are_those_of_the_crate_vhost() {
    let requests = [
        (Request::GET_FEATURES, FrontendReq::GET_FEATURES),
        (Request::SET_FEATURES, FrontendReq::SET_FEATURES),
        (Request::SET_OWNER, FrontendReq::SET_OWNER),
        (Request::SET_MEM_TABLE, FrontendReq::SET_MEM_TABLE),
        (Request::SET_VRING_NUM, FrontendReq::SET_VRING_NUM),
        (Request::SET_VRING_ADDR, FrontendReq::SET_VRING_ADDR),
        (Request::SET_VRING_BASE, FrontendReq::SET_VRING_BASE),
        (Request::GET_VRING_BASE, FrontendReq::GET_VRING_BASE),
        (Request::SET_VRING_KICK, FrontendReq::SET_VRING_KICK),
        (Request::SET_VRING_CALL, FrontendReq::SET_VRING_CALL),
        (Request::SET_VRING_ERR, FrontendReq::SET_VRING_ERR),
        (Request::GET_PROTOCOL_FEATURES, FrontendReq::GET_PROTOCOL_FEATURES),
        (Request::SET_PROTOCOL_FEATURES, FrontendReq::SET_PROTOCOL_FEATURES),
        (Request::GET_QUEUE_NUM, FrontendReq::GET_QUEUE_NUM),
        (Request::SET_VRING_ENABLE, FrontendReq::SET_VRING_ENABLE),
        (Request::SET_BACKEND_REQ_FD, FrontendReq::SET_BACKEND_REQ_FD),
        (Request::GET_CONFIG, FrontendReq::GET_CONFIG),
        (Request::SET_CONFIG, FrontendReq::SET_CONFIG),
        (Request::RESET_DEVICE, FrontendReq::RESET_DEVICE),
        (Request::GET_MAX_MEM_SLOTS, FrontendReq::GET_MAX_MEM_SLOTS),
        (Request::ADD_MEM_REG, FrontendReq::ADD_MEM_REG),
        (Request::REM_MEM_REG, FrontendReq::REM_MEM_REG),
        (Request::SET_STATUS, FrontendReq::SET_STATUS),
        (Request::GET_STATUS, FrontendReq::GET_STATUS),
    ];
    // None that is ours is left out.
    assert_eq!((0..200).filter(|&number| Request(number).name().is_some()).count(), requests.len());
    for (ours, theirs) in requests {
        assert_eq!(ours.0, u32::from(theirs), "{ours:?}");
    }
    for (ours, theirs) in [
        (BackendRequest::CONFIG_CHANGE, BackendReq::CONFIG_CHANGE_MSG),
        (BackendRequest::VRING_CALL, BackendReq::VRING_CALL),
        (BackendRequest::VRING_ERR, BackendReq::VRING_ERR),
    ] {
        assert_eq!(ours.0, u32::from(theirs), "{ours:?}");
    }
    for (ours, theirs) in [
        (protocol::MQ, Protocol::MQ),
        (protocol::REPLY_ACK, Protocol::REPLY_ACK),
        (protocol::BACKEND_REQ, Protocol::BACKEND_REQ),
        (protocol::CONFIG, Protocol::CONFIG),
        (protocol::INFLIGHT_SHMFD, Protocol::INFLIGHT_SHMFD),
        (protocol::RESET_DEVICE, Protocol::RESET_DEVICE),
        (protocol::INBAND_NOTIFICATIONS, Protocol::INBAND_NOTIFICATIONS),
        (protocol::CONFIGURE_MEM_SLOTS, Protocol::CONFIGURE_MEM_SLOTS),
        (protocol::STATUS, Protocol::STATUS),
    ] {
        assert_eq!(ours, theirs.bits());
    }
    assert_eq!(flags::VERSION_MASK, VhostUserHeaderFlag::VERSION.bits());
    assert_eq!(flags::REPLY, VhostUserHeaderFlag::REPLY.bits());
    assert_eq!(flags::NEED_REPLY, VhostUserHeaderFlag::NEED_REPLY.bits());
    assert_eq!(1 << feature::PROTOCOL_FEATURES, VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits());
    assert_eq!(1 << feature::LOG_ALL, VhostUserVirtioFeatures::LOG_ALL.bits());
}

#[test]
fn layouts_are_those_of_the_crate_vhost() {
    let state = VhostUserVringState::new(0x0102_0304, 0x0506_0708);
    assert_eq!(VringState { index: 0x0102_0304, num: 0x0506_0708 }.encode(ORDER), state.as_slice());
    let [table, used, avail, log] = [1u64 << 33 | 16, 2 << 33 | 4, 3 << 33 | 2, 4 << 33];
    let addr = VhostUserVringAddr::new(7, VhostUserVringAddrFlags::empty(), table, used, avail, log);
    let ours = VringAddr { index: 7, flags: 0, descriptor: table, used, avail, log };
    assert_eq!(ours.encode(ORDER), addr.as_slice());
    assert_eq!(MemoryHeader { regions: 5, padding: 0 }.encode(ORDER), VhostUserMemory::new(5).as_slice());
    let region = MemoryRegion { guest_addr: 1 << 40, size: 2 << 20, user_addr: 3 << 41, mmap_offset: 4096 };
    let theirs = VhostUserMemoryRegion::new(1 << 40, 2 << 20, 3 << 41, 4096);
    assert_eq!(region.encode(ORDER), theirs.as_slice());
    let single = VhostUserSingleMemoryRegion::new(1 << 40, 2 << 20, 3 << 41, 4096);
    let mut ours = vec![0; MemoryRegion::SINGLE_PADDING];
    ours.extend_from_slice(&region.encode(ORDER));
    assert_eq!(ours, single.as_slice());
    let config = VhostUserConfig::new(3, 60, VhostUserConfigFlags::WRITABLE);
    assert_eq!(ConfigHeader { offset: 3, size: 60, flags: 1 }.encode(ORDER), config.as_slice());
    assert_eq!(encode_u64(u64::MAX - 5), VhostUserU64::new(u64::MAX - 5).as_slice());
    assert_eq!(Header::SIZE, 12);
    assert_eq!(NO_FD, 0x100);
}

/// What the crate's back-end has parsed.
#[derive(Default)]
struct Parsed {
    calls: Vec<String>,
    requests: Option<Backend>,
    protocol: u64,
    config: Vec<u8>,
}

impl Parsed {
    fn note(&mut self, call: String) -> VhostResult<()> {
        self.calls.push(call);
        Ok(())
    }

    fn region(&self, region: &VhostUserMemoryRegion, file: &File) -> String {
        let (guest, user) = (region.guest_phys_addr, region.user_addr);
        let (size, offset) = (region.memory_size, region.mmap_offset);
        assert!(file.metadata().unwrap().len() >= offset + size && size >= 4096);
        assert_eq!(guest, user);
        format!("region {guest:#x}+{size:#x}")
    }
}

/// What this crate never sends.
fn none<T>() -> VhostResult<T> {
    Err(VhostError::InvalidMessage)
}

impl VhostUserBackendReqHandlerMut for Parsed {
    fn set_owner(&mut self) -> VhostResult<()> {
        self.note("owner".into())
    }

    fn reset_owner(&mut self) -> VhostResult<()> {
        none()
    }

    fn reset_device(&mut self) -> VhostResult<()> {
        self.note("reset".into())
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        // VERSION_1, the protocol's own, EVENT_IDX, CONFIG_WCE.
        Ok(1 << 32 | 1 << 30 | 1 << 29 | 1 << 11)
    }

    fn set_features(&mut self, features: u64) -> VhostResult<()> {
        self.note(format!("features {features:#x}"))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> VhostResult<Option<Vec<u64>>> {
        let told: Vec<_> =
            regions.iter().zip(&files).map(|(region, file)| self.region(region, file)).collect();
        self.note(format!("table {}", told.len()))?;
        told.into_iter().try_for_each(|told| self.note(told)).map(|()| None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        self.note(format!("ring {index} num {num}"))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> VhostResult<()> {
        assert!(flags.is_empty() && log == 0);
        assert!(descriptor.is_multiple_of(16) && used.is_multiple_of(4) && available.is_multiple_of(2));
        assert!(descriptor >= 1 << 32);
        self.note(format!("ring {index} addr"))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        self.note(format!("ring {index} base {base}"))
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        self.note(format!("ring {index} stop"))?;
        Ok(VhostUserVringState::new(index, 0))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.note(format!("ring {index} kick {}", fd.is_some()))
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.note(format!("ring {index} call {}", fd.is_some()))
    }

    fn set_vring_err(&mut self, _index: u8, _fd: Option<File>) -> VhostResult<()> {
        none()
    }

    fn get_protocol_features(&mut self) -> VhostResult<Protocol> {
        Ok(Protocol::from_bits_truncate(self.protocol))
    }

    fn set_protocol_features(&mut self, features: u64) -> VhostResult<()> {
        self.note(format!("protocol {features:#x}"))
    }

    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(1)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        self.note(format!("ring {index} enable {enable}"))
    }

    fn get_config(&mut self, offset: u32, size: u32, flags: VhostUserConfigFlags) -> VhostResult<Vec<u8>> {
        assert!(flags.is_empty());
        let range = offset as usize..(offset + size) as usize;
        self.config.get(range).map(<[u8]>::to_vec).ok_or(VhostError::InvalidParam)
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], flags: VhostUserConfigFlags) -> VhostResult<()> {
        assert!(flags.is_empty());
        self.config[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        self.note(format!("config {offset} {bytes:?}"))
    }

    fn set_backend_req_fd(&mut self, backend: Backend) {
        self.calls.push("requests".into());
        backend.set_reply_ack_flag(true);
        backend.set_shared_object_flag(true);
        self.requests = Some(backend);
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> VhostResult<()> {
        none()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostResult<File> {
        none()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> VhostResult<(VhostUserInflight, File)> {
        none()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> VhostResult<()> {
        none()
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        Ok(32)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> VhostResult<Option<u64>> {
        let told = self.region(region, &file);
        self.note(told).map(|()| None)
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        none()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> VhostResult<Option<File>> {
        none()
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        none()
    }

    fn get_shmem_config(&mut self) -> VhostResult<VhostUserShMemConfig> {
        none()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostResult<()> {
        none()
    }
}

/// Serves one connection by the crate's back-end half, to its end.
fn serve(listener: UnixListener, parsed: Arc<Mutex<Parsed>>) -> VhostError {
    let stream = listener.accept().unwrap().0;
    let mut handler = BackendReqHandler::from_stream(stream, parsed);
    loop {
        if let Err(error) = handler.handle_request() {
            return error;
        }
    }
}

/// A device's life before that back-end with these protocol features; answers what was parsed.
fn parsed(protocol: u64) -> Vec<String> {
    let place = Place::new();
    let path = place.path("vhost.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut config = vec![0; 60];
    config[..8].copy_from_slice(&2048u64.to_le_bytes());
    let parsed = Arc::new(Mutex::new(Parsed { protocol, config, ..Parsed::default() }));
    let served = thread::spawn({
        let parsed = Arc::clone(&parsed);
        move || serve(listener, parsed)
    });
    let disk = Block::open(&format!("vhost-user:{}?size=1M", path.display()), small(LONG)).unwrap();
    assert_eq!(disk.size(), 1 << 20);
    disk.device().pool(1, 8 << 20).unwrap();
    match disk.set_writeback(true) {
        Ok(()) => assert!(protocol & protocol::CONFIG != 0),
        Err(error) => assert!(matches!(error.kind(), Error::Unsupported { .. }), "{error}"),
    }
    let requests = parsed.lock().unwrap().requests.take();
    assert_eq!(requests.is_some(), protocol & protocol::BACKEND_REQ != 0);
    if let Some(requests) = requests {
        // Their request is parsed by us, and our refusal by them.
        let asked = thread::spawn(move || requests.shared_object_add(&VhostUserSharedMsg::default()));
        while !asked.is_finished() {
            disk.events().unwrap();
        }
        assert!(asked.join().unwrap().is_err());
    }
    disk.close().unwrap();
    drop(disk);
    let end = served.join().unwrap();
    assert!(matches!(end, VhostError::Disconnected), "{end:?}");
    std::mem::take(&mut parsed.lock().unwrap().calls)
}

#[test]
fn messages_are_what_the_back_end_of_the_crate_vhost_parses() {
    let _alone = alone();
    let before = descriptors();
    let bits = [
        protocol::MQ,
        protocol::BACKEND_REQ,
        protocol::CONFIG,
        protocol::RESET_DEVICE,
        protocol::CONFIGURE_MEM_SLOTS,
    ];
    for chosen in 0..1u32 << bits.len() {
        let some = bits.iter().enumerate().filter(|(at, _)| chosen >> at & 1 != 0);
        let protocol: u64 = some.map(|(_, bit)| bit).sum();
        let has = |bit: u64| protocol & bit != 0;
        let calls = parsed(protocol);
        let mut expected = vec![format!("protocol {:#x}", protocol | protocol::REPLY_ACK), "owner".into()];
        expected.extend(has(protocol::BACKEND_REQ).then(|| "requests".into()));
        let features = 1u64 << 32 | 1 << 30 | 1 << 29 | 1 << 11;
        expected.push(format!("features {features:#x}"));
        let slots = has(protocol::CONFIGURE_MEM_SLOTS);
        let regions: Vec<_> = calls.iter().filter(|call| call.starts_with("region")).cloned().collect();
        let (first, second) = (&regions[0], regions.last().unwrap());
        // Each region once, or the whole table whenever it grows.
        expected.extend((!slots).then(|| "table 1".into()));
        expected.push(first.clone());
        for step in ["num 16", "base 0", "addr", "call true", "kick true", "enable true"] {
            expected.push(format!("ring 0 {step}"));
        }
        expected.extend((!slots).then(|| "table 2".into()));
        expected.extend((!slots).then(|| first.clone()));
        expected.push(second.clone());
        expected.extend(has(protocol::CONFIG).then(|| "config 32 [1]".into()));
        expected.push("ring 0 stop".into());
        expected.extend(has(protocol::RESET_DEVICE).then(|| "reset".into()));
        assert_eq!(calls, expected, "protocol features {protocol:#x}");
    }
    assert_eq!(descriptors(), before);
}
