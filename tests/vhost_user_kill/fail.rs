//! The policy that reports: every request in flight ends once, nothing is done again.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use virtio::Error;
use virtio::device::{Device, Queue, QueueConfig};
use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::queue::Token;
use virtio::spec::ByteOrder;
use virtio::spec::device::block::request::{Header, RequestType};

use crate::daemon::{Daemon, Export, Place, image, over_file};
use crate::random::Random;
use crate::soak_common::soak;
use crate::{SLACK, alone, holdings, timely};

const DEPTH: usize = 32;
const BLOCK: u64 = 4096;
const BLOCKS: usize = 256;

/// One queue, 32 requests deep, and what the disk must hold.
struct Load {
    device: Device,
    queue: Queue<DmaBuf>,
    pools: [DmaPool; 3],
    random: Random,
    /// First byte of each block, and whether a write of unknown fate may have changed it.
    model: Vec<u8>,
    busy: BTreeMap<usize, ()>,
    flying: BTreeMap<u64, (usize, Option<u8>)>,
    done: u64,
    indeterminate: u64,
}

impl Load {
    fn new(address: &str, seed: u64) -> Self {
        let device = virtio::open(&format!("{address}?type=block")).unwrap();
        let wanted = Features::EVENT_IDX | Features::INDIRECT_DESC;
        device.negotiate(wanted, Features::VERSION_1).unwrap();
        let queue = device.take_queue(0, QueueConfig::size(128)).unwrap();
        device.start().unwrap();
        let pools = [16, BLOCK as u32, 1].map(|len| device.pool(DEPTH as u32, len).unwrap());
        let (busy, flying) = (BTreeMap::new(), BTreeMap::new());
        let model = vec![0; BLOCKS];
        Self { device, queue, pools, random: Random(seed), model, busy, flying, done: 0, indeterminate: 0 }
    }

    fn add(&mut self) -> virtio::Result<()> {
        let block = self.random.below(BLOCKS);
        if self.busy.contains_key(&block) {
            return Ok(());
        }
        let [headers, data, statuses] = &self.pools;
        let (header, data, status) = (headers.take()?, data.take()?, statuses.take()?);
        let fill = (self.random.below(2) == 0).then(|| self.random.next() as u8);
        let request_type = if fill.is_some() { RequestType::OUT } else { RequestType::IN };
        let sector = block as u64 * (BLOCK / 512);
        header.write(0, &Header { request_type, reserved: 0, sector }.encode(ByteOrder::Little))?;
        let token = match fill {
            Some(fill) => {
                data.fill(fill)?;
                self.queue.add([header, data], [status])?
            }
            None => self.queue.add([header], [data, status])?,
        };
        self.busy.insert(block, ());
        assert!(self.flying.insert(token.into_raw(), (block, fill)).is_none(), "a token twice");
        Ok(())
    }

    /// Takes one answer; `false` once the device has told of its end.
    fn take(&mut self) -> bool {
        match timely(Duration::from_secs(10), || self.queue.get(Some(Duration::from_secs(10)))) {
            Ok(mut used) => {
                let (block, fill) = self.flying.remove(&used.token.into_raw()).expect("in flight, once");
                self.busy.remove(&block);
                assert_eq!(used.buffer(2).unwrap().to_vec().unwrap(), [0], "its status");
                match fill {
                    Some(fill) => self.model[block] = fill,
                    None => {
                        let data = used.buffer(1).unwrap().to_vec().unwrap();
                        assert!(data.iter().all(|&byte| byte == self.model[block]), "block {block}");
                    }
                }
                self.done += 1;
                true
            }
            Err(Error::Indeterminate { token }) => {
                let token = Token::from_raw(token);
                self.flying.remove(&token.into_raw()).expect("in flight, and told of once");
                self.indeterminate += 1;
                true
            }
            Err(error) => {
                assert!(matches!(error, Error::DeviceGone { .. }), "{error}");
                assert!(self.flying.is_empty(), "all were told of before the end");
                false
            }
        }
    }

    fn run(&mut self) {
        loop {
            let mut gone = false;
            while self.flying.len() < DEPTH && !gone {
                gone = self.add().is_err();
            }
            let _ = self.queue.notify();
            if !self.take() {
                return;
            }
        }
    }
}

#[test]
fn e1_killed_at_any_moment_each_request_ends_once_and_nothing_is_kept() {
    killed(200);
}

#[test]
#[ignore = "soak: a thousand daemons"]
fn soak_killed_at_any_moment_each_request_ends_once() {
    soak("storage daemon killed under load, requests end", 1000, "daemons", killed);
}

fn killed(rounds: u64) {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, BLOCKS as u64 * BLOCK);
    let (mut random, mut ended, mut done, mut before) = (Random(3), 0, 0, None);
    for round in 0..rounds {
        let zeroes = std::fs::File::create(&file).unwrap();
        zeroes.set_len(BLOCKS as u64 * BLOCK).unwrap();
        let mut daemon =
            Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 1, writable: true });
        let mut load = Load::new(&daemon.address(), round + 1);
        let moment = Duration::from_micros(random.below(8000) as u64);
        let killer = thread::spawn(move || {
            thread::sleep(moment);
            daemon.kill();
        });
        load.run();
        killer.join().unwrap();
        (ended, done) = (ended + load.indeterminate, done + load.done);
        // What was answered is in the file, which outlives the daemon; what was not may be.
        let file = std::fs::read(&file).unwrap();
        for (block, bytes) in file.chunks(BLOCK as usize).enumerate() {
            let right = bytes.iter().all(|&byte| byte == load.model[block]);
            assert!(right || load.busy.contains_key(&block), "round {round}, block {block}");
        }
        // The daemon is proven dead, so that the device can be closed for good, and its memory goes.
        timely(Duration::from_secs(2), || load.device.close()).unwrap();
        drop(load);
        let now = holdings();
        assert_eq!(*before.get_or_insert(now), now, "round {round}");
    }
    assert!(ended > 0 && done > 0, "{ended} ended with the device, {done} were completed");
}

#[test]
fn v12_a_block_device_whose_daemon_is_killed_says_so_and_goes() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let mut before = None;
    for round in 0..20 {
        let mut daemon =
            Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 2, writable: true });
        let mut options = BlockOptions::default();
        (options.queues, options.chunk, options.timeout) = (2, 4096, Duration::from_secs(10));
        let disk = Block::open(&daemon.address(), options).unwrap();
        thread::scope(|scope| {
            let users = [0, 1].map(|_| {
                scope.spawn(|| {
                    let limit = Duration::from_secs(10) + SLACK;
                    let data = vec![0; 256 << 10];
                    let end = loop {
                        if let Err(error) = timely(limit, || disk.write(0, &data)) {
                            break error;
                        }
                    };
                    let kind = end.kind();
                    let told = matches!(kind, Error::Indeterminate { .. } | Error::DeviceGone { .. });
                    assert!(told, "{end}");
                    let after = disk.write(0, &data).unwrap_err();
                    assert!(matches!(after.kind(), Error::DeviceGone { .. }), "{after}");
                })
            });
            thread::sleep(Duration::from_millis(5));
            daemon.kill();
            users.into_iter().for_each(|user| user.join().unwrap());
        });
        disk.close().unwrap();
        drop(disk);
        let now = holdings();
        assert_eq!(*before.get_or_insert(now), now, "round {round}");
    }
}
