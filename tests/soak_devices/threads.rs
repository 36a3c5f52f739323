//! Eight threads on one queue of a device with a thread of its own.

use std::thread;

use virtio::device::{QueueConfig, SharedQueue};
use virtio::event::Deadline;
use virtio::features::Features;
use virtio::mem::pool::DmaBuf;
use virtio::soft::{DeviceModel, Reply, Request, Run, SoftDevice};
use virtio::spec::DeviceType;

use super::driver_common::{MODERN, SOON, kept_the_rules};
use super::soak_common::soak;

const THREADS: u64 = 8;

/// Answers each word with what [`answer`] makes of it.
#[derive(Debug)]
struct Echo;

fn answer(word: u64) -> u64 {
    (!word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl DeviceModel for Echo {
    fn device_type(&self) -> DeviceType {
        DeviceType::ENTROPY
    }

    fn queues(&self) -> u16 {
        1
    }

    fn handle(&mut self, request: &mut Request<'_>) -> virtio::Result<Reply> {
        let mut word = [0; 8];
        request.read(0, &mut word)?;
        request.write(0, &answer(u64::from_le_bytes(word)).to_le_bytes())?;
        Ok(Reply::Used(8))
    }
}

/// One request after the other: each thread gets the answer to its own question.
fn ask(queue: &SharedQueue, (question, reply): (DmaBuf, DmaBuf), words: impl Iterator<Item = u64>) {
    let mut bufs = (question, reply);
    for word in words {
        bufs.0.write(0, &word.to_le_bytes()).unwrap();
        let token = queue.add([bufs.0], [bufs.1], Deadline::after(SOON)).unwrap();
        queue.notify().unwrap();
        let used = queue.wait(token, Deadline::after(SOON)).unwrap();
        assert_eq!((used.token, used.written), (token, 8));
        let mut back = used.into_buffers();
        bufs = (back.next().unwrap(), back.next().unwrap());
        let mut bytes = [0; 8];
        bufs.1.read(0, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), answer(word), "another one's answer");
    }
}

/// A queue that is too small for all of them, so that they wait for room too.
fn run(requests: u64) {
    let (soft, device) = MODERN.open(SoftDevice::builder(Echo), Run::Thread);
    device.negotiate(Features::EVENT_IDX | Features::INDIRECT_DESC, Features::EMPTY).unwrap();
    let mut config = QueueConfig::default();
    config.size = Some(4);
    let queue = device.take_queue(0, config).unwrap();
    device.start().unwrap();
    let queue = queue.share();
    thread::scope(|scope| {
        let askers = (0..THREADS).map(|number| {
            let bufs = (device.alloc(8).unwrap(), device.alloc(8).unwrap());
            let words = (number..requests).step_by(THREADS as usize);
            let queue = &queue;
            scope.spawn(move || ask(queue, bufs, words))
        });
        let askers: Vec<_> = askers.collect();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
    });
    kept_the_rules(&soft);
    let counters = queue.with(|queue| queue.counters());
    assert_eq!((counters.added, counters.used), (requests, requests));
}

#[test]
fn eight_threads_each_get_the_answer_to_their_own_question() {
    run(8_000);
}

#[test]
#[ignore = "soak: ten million requests"]
fn soak_eight_threads_each_get_the_answer_to_their_own_question() {
    soak("one queue, 8 threads", 10_000_000, "requests", run);
}
