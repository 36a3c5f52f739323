//! Block behind every interface.

use std::sync::{Arc, Mutex};

use virtio::features::Features;
use virtio::soft::{Block, BlockFailure, BlockLimits, Interface, Run, SoftDevice};
use virtio::spec::ByteOrder;
use virtio::spec::device::block::feature;
use virtio::spec::device::block::request::{Header, RequestType, SEGMENT_UNMAP, Segment, Status};
use virtio::transport::PciInterface;

use super::{Rig, Way, ways};

const ALL: Features = Features(
    1 << feature::RO
        | 1 << feature::SEG_MAX
        | 1 << feature::SIZE_MAX
        | 1 << feature::FLUSH
        | 1 << feature::MQ
        | 1 << feature::DISCARD
        | 1 << feature::WRITE_ZEROES
        | 1 << feature::LIFETIME
        | 1 << feature::SECURE_ERASE,
);

const MODERN: Way =
    Way { interface: Interface::PciModern, choice: PciInterface::Any, order: ByteOrder::Little };

fn header(rig: &Rig, request_type: RequestType, sector: u64) -> [u8; 16] {
    Header { request_type, reserved: 0, sector }.encode(rig.device.transport().byte_order())
}

fn status_of(reply: &(u32, Vec<u8>)) -> Status {
    Status(*reply.1.last().unwrap())
}

#[test]
fn s5_2_6_what_was_written_is_read_behind_every_interface() {
    for way in ways() {
        for run in [Run::Stepped, Run::Inline, Run::Thread] {
            let image = Arc::new(Mutex::new(vec![0; 64 * 512]));
            let mut rig = Rig::new(way, SoftDevice::builder(Block::memory(Arc::clone(&image))), run, 1, ALL);
            assert_eq!(rig.device.config().read(0, 8).unwrap(), 64, "{way:?}");
            let data: Vec<u8> = (0..1024).map(|n| (n % 251) as u8).collect();
            let reply = rig.ask(0, &[&header(&rig, RequestType::OUT, 3), &data], &[1]);
            assert_eq!((reply.0, status_of(&reply)), (1, Status::OK), "{way:?} {run:?}");
            assert_eq!(image.lock().unwrap()[3 * 512..5 * 512], data);
            let reply = rig.ask(0, &[&header(&rig, RequestType::IN, 3)], &[512, 512, 1]);
            assert_eq!((reply.0, status_of(&reply)), (1025, Status::OK));
            assert_eq!(reply.1[..1024], data);
            rig.check();
        }
    }
}

#[test]
fn s5_2_6_every_request_type_is_served() {
    let image = Arc::new(Mutex::new(vec![7; 64 * 512]));
    let block = Block::memory(Arc::clone(&image)).id("serial 1");
    let mut rig = Rig::new(MODERN, SoftDevice::builder(block), Run::Stepped, 1, ALL);
    let reply = rig.ask(0, &[&header(&rig, RequestType::FLUSH, 0)], &[1]);
    assert_eq!(status_of(&reply), Status::OK);
    let reply = rig.ask(0, &[&header(&rig, RequestType::GET_ID, 0)], &[20, 1]);
    assert_eq!((reply.0, &reply.1[..9]), (21, b"serial 1\0".as_slice()));
    let reply = rig.ask(0, &[&header(&rig, RequestType::GET_LIFETIME, 0)], &[6, 1]);
    assert_eq!((reply.0, reply.1[0]), (7, 1));
    for (kind, sector) in
        [(RequestType::DISCARD, 1), (RequestType::WRITE_ZEROES, 4), (RequestType::SECURE_ERASE, 8)]
    {
        let segment = |sector| Segment { sector, num_sectors: 1, flags: 0 }.encode(ByteOrder::Little);
        let reply = rig.ask(0, &[&header(&rig, kind, 0), &segment(sector), &segment(sector + 1)], &[1]);
        assert_eq!(status_of(&reply), Status::OK, "{kind:?}");
        let image = image.lock().unwrap();
        let at = sector as usize * 512;
        assert!(image[at..at + 1024].iter().all(|byte| *byte == 0));
        assert_eq!((image[at - 1], image[at + 1024]), (7, 7));
    }
    let unmap = Segment { sector: 0, num_sectors: 1, flags: SEGMENT_UNMAP }.encode(ByteOrder::Little);
    let reply = rig.ask(0, &[&header(&rig, RequestType::DISCARD, 0), &unmap], &[1]);
    assert_eq!(status_of(&reply), Status::UNSUPP);
    let reply = rig.ask(0, &[&header(&rig, RequestType(99), 0)], &[1]);
    assert_eq!(status_of(&reply), Status::UNSUPP);
    rig.check();
}

#[test]
fn s5_2_6_requests_beyond_the_end_the_limits_or_what_may_be_written_fail() {
    let limits = {
        let mut limits = BlockLimits::default();
        limits.size_max = 512;
        limits.seg_max = 2;
        limits
    };
    let mut rig = Rig::new(MODERN, SoftDevice::builder(Block::zeroes(8).limits(limits)), Run::Inline, 1, ALL);
    let mut read = |sector, room: &[usize]| {
        let reply = rig.ask(0, &[&header(&rig, RequestType::IN, sector)], room);
        status_of(&reply)
    };
    assert_eq!(read(7, &[512, 1]), Status::OK);
    assert_eq!(read(8, &[512, 1]), Status::IOERR);
    assert_eq!(read(u64::MAX, &[512, 1]), Status::IOERR);
    assert_eq!(read(0, &[100, 1]), Status::IOERR);
    assert_eq!(read(0, &[1024, 1]), Status::IOERR);
    assert_eq!(read(0, &[512, 512, 512, 1]), Status::IOERR);
    let mut rig = Rig::new(MODERN, SoftDevice::builder(Block::zeroes(8).read_only()), Run::Inline, 1, ALL);
    let reply = rig.ask(0, &[&header(&rig, RequestType::OUT, 0), &[0; 512]], &[1]);
    assert_eq!(status_of(&reply), Status::IOERR);
}

#[test]
fn injected_failures_hit_their_sectors_and_types_only() {
    let bad =
        BlockFailure { request_type: Some(RequestType::IN), sectors: Some(4..5), status: Status::IOERR };
    let mut rig = Rig::new(MODERN, SoftDevice::builder(Block::zeroes(8).fails(bad)), Run::Inline, 1, ALL);
    for (kind, sector, wanted) in [
        (RequestType::IN, 3, Status::OK),
        (RequestType::IN, 4, Status::IOERR),
        (RequestType::IN, 5, Status::OK),
    ] {
        let reply = rig.ask(0, &[&header(&rig, kind, sector)], &[512, 1]);
        assert_eq!(status_of(&reply), wanted, "{sector}");
    }
    let reply = rig.ask(0, &[&header(&rig, RequestType::OUT, 4), &[0; 512]], &[1]);
    assert_eq!(status_of(&reply), Status::OK);
}

#[test]
fn a_file_is_a_disk_of_several_queues() {
    let path = std::env::temp_dir().join(format!("virtio-soft-{}", std::process::id()));
    std::fs::write(&path, vec![5; 512 * 700]).unwrap();
    let block = Block::file(&path, false).unwrap().with_queues(3);
    let mut rig = Rig::new(MODERN, SoftDevice::builder(block), Run::Thread, 3, ALL);
    for queue in 0..3 {
        let data = vec![queue as u8 + 10; 512 * 300];
        let sector = queue as u64 * 200;
        let reply = rig.ask(queue, &[&header(&rig, RequestType::OUT, sector), &data], &[1]);
        assert_eq!(status_of(&reply), Status::OK);
        let reply = rig.ask(queue, &[&header(&rig, RequestType::IN, sector)], &[512 * 300, 1]);
        assert_eq!(reply.1[..data.len()], data);
    }
    rig.check();
    drop(rig);
    let image = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((image[0], image[512 * 200], image[512 * 699]), (10, 11, 12));
}
