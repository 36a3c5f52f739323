//! Copies by hand, in one thread: a device does nothing but in a step of the test, and each step one request.

use std::sync::{Arc, Mutex};

use virtio::device::{Device, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::soft::{self, Run, SoftDevice};
use virtio::spec::ByteOrder;
use virtio::spec::device::block::request::{Header, RequestType, STATUS_SIZE, Status};
use virtio::spec::device::block::{SECTOR_SIZE, feature};

use super::driver_common::{Way, kept_the_rules, rings};
use super::{
    Folder, MIB, SIZE, Store, clear, has_all_but, hash_of_file, hash_of_store, interfaces, make_image,
};

/// Requests of 1 MiB each that are made available together.
const BATCH: usize = 4;
const SMALL: u32 = 16;
/// What no device answers.
const UNWRITTEN: u8 = 0xff;

/// A stepped device, and its request queue driven by hand.
struct Disk {
    soft: SoftDevice,
    device: Device,
    queue: Queue<DmaBuf>,
    small: DmaPool,
    data: DmaPool,
    order: ByteOrder,
}

impl Disk {
    fn new(way: Way, model: soft::Block, withheld: Features) -> Self {
        let (soft, device) = way.open(SoftDevice::builder(model).withhold(withheld), Run::Stepped);
        let ring = Features::EVENT_IDX | Features::INDIRECT_DESC;
        let wanted = ring | Features::from_bit(feature::FLUSH);
        has_all_but(device.negotiate(wanted, Features::EMPTY).unwrap(), withheld);
        let queue = device.take_queue(0, QueueConfig::size(64)).unwrap();
        device.start().unwrap();
        let small = device.pool(2 * BATCH as u32, SMALL).unwrap();
        let data = device.pool(BATCH as u32, MIB as u32).unwrap();
        Self { soft, device, queue, small, data, order: way.order }
    }

    /// Adds a request (§5.2.6): a header and what it takes with it to read, what it takes to write and a status.
    fn add(&mut self, kind: RequestType, sector: u64, data: Option<DmaBuf>) -> u32 {
        let mut header = self.small.take().unwrap();
        header.set_len(Header::SIZE as u32).unwrap();
        let fields = Header { request_type: kind, reserved: 0, sector };
        header.write(0, &fields.encode(self.order)).unwrap();
        let mut status = self.small.take().unwrap();
        status.set_len(STATUS_SIZE as u32).unwrap();
        status.write(0, &[UNWRITTEN]).unwrap();
        let (token, written) = match data {
            Some(data) if kind == RequestType::IN => {
                let len = data.len();
                (self.queue.add([header], [data, status]), len + 1)
            }
            Some(data) => (self.queue.add([header, data], [status]), 1),
            None => (self.queue.add([header], [status]), 1),
        };
        token.unwrap();
        written
    }

    /// Has the device do what was added, one request in a step and none without, and gives the data buffers
    /// back.
    fn work(&mut self, written: &[u32]) -> Vec<DmaBuf> {
        self.queue.notify().unwrap();
        let mut data = Vec::new();
        for written in written {
            assert!(self.queue.pop().unwrap().is_none(), "the device did something without a step");
            assert!(self.soft.step().unwrap(), "the device was notified, and has nothing to do");
            let used = self.queue.pop().unwrap().expect("a step uses a chain");
            assert_eq!(used.written, *written);
            let mut buffers: Vec<_> = used.into_buffers().collect();
            let status = buffers.pop().unwrap();
            assert_eq!(status.to_vec().unwrap(), [Status::OK.0]);
            data.extend(buffers.into_iter().skip(1));
        }
        assert!(!self.soft.step().unwrap(), "nothing is left to do");
        data
    }

    /// Reads 1 MiB from each of `places` on; gives the buffers in that order.
    fn read(&mut self, places: &[u64]) -> Vec<DmaBuf> {
        let mut add = |at: &u64| {
            let data = self.data.take().unwrap();
            self.add(RequestType::IN, at / u64::from(SECTOR_SIZE), Some(data))
        };
        let written: Vec<_> = places.iter().map(&mut add).collect();
        self.work(&written)
    }

    /// Writes what `pieces` hold, of which each has its place.
    fn write(&mut self, pieces: &[(u64, Vec<u8>)]) {
        let mut add = |(at, piece): &(u64, Vec<u8>)| {
            let data = self.data.take().unwrap();
            data.write(0, piece).unwrap();
            self.add(RequestType::OUT, at / u64::from(SECTOR_SIZE), Some(data))
        };
        let written: Vec<_> = pieces.iter().map(&mut add).collect();
        self.work(&written);
    }

    fn flush(&mut self) {
        let written = self.add(RequestType::FLUSH, 0, None);
        self.work(&[written]);
    }

    /// Ends it: it did as many requests as it was asked for, and saw no rule broken.
    fn close(self, requests: u64) {
        assert_eq!(self.soft.report().chains, requests);
        drop(self.queue);
        self.device.close().unwrap();
        kept_the_rules(&self.soft);
    }
}

#[test]
fn an_image_of_256_mib_goes_out_of_and_into_stepped_devices_as_it_was() {
    let folder = Folder::new("copy-stepped");
    let image = folder.file("image");
    let hash = make_image(&image, SIZE);
    let store: Store = Arc::new(Mutex::new(vec![0; SIZE as usize]));
    let places: Vec<_> = (0..SIZE).step_by(MIB).collect();
    let mut pieces: Vec<_> = (0..BATCH).map(|_| (0, vec![0; MIB])).collect();
    for way in interfaces() {
        for withheld in rings() {
            clear(&store);
            let mut from = Disk::new(way, soft::Block::file(&image, true).unwrap(), withheld);
            let mut to = Disk::new(way, soft::Block::memory(Arc::clone(&store)), withheld);
            for batch in places.chunks(BATCH) {
                for ((data, at), piece) in from.read(batch).iter().zip(batch).zip(&mut pieces) {
                    data.read(0, &mut piece.1).unwrap();
                    piece.0 = *at;
                }
                to.write(&pieces);
            }
            to.flush();
            from.close(places.len() as u64);
            to.close(places.len() as u64 + 1);
            assert_eq!(hash_of_store(&store), hash, "{way:?} without {withheld:?}");
        }
    }
    assert_eq!(hash_of_file(&image), hash, "the source is as it was");
}
