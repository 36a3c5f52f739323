//! A queue for one thread: requests with buffers of the device's, added, shown and taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use virtio::drivers::block::{Finished, Pipe};
use virtio::drivers::{Block, BlockOptions, Reconnect};
use virtio::event::Deadline;
use virtio::mem::pool::DmaBuf;
use virtio::soft::{self, BlockFailure, DeviceLie, Run, SoftDevice};
use virtio::spec::device::block::request::Status;
use virtio::{Error, Result};

use super::driver_common::{Gate, MODERN, SOON, kept_the_rules, rings, ways};
use super::{builder, image, open, options, pattern, small};

fn pipe(block: Block) -> Pipe {
    let mut pipes = block.into_pipes().unwrap();
    assert_eq!(pipes.len(), 1);
    pipes.remove(0)
}

/// Waits until nothing is under way; outcomes by tag.
fn all(pipe: &mut Pipe) -> BTreeMap<u64, Result<Option<DmaBuf>>> {
    let mut outcomes = BTreeMap::new();
    while pipe.under_way() != 0 {
        let Finished { tag, outcome } = pipe.wait(Deadline::after(SOON)).unwrap();
        assert!(outcomes.insert(tag, outcome).is_none(), "{tag} ended twice");
    }
    outcomes
}

#[track_caller]
fn one(pipe: &mut Pipe) -> Result<Option<DmaBuf>> {
    let mut outcomes = all(pipe);
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(&7).unwrap()
}

#[test]
fn s5_2_6_reads_writes_and_flushes_do_their_work_behind_every_interface() {
    for way in ways() {
        for withheld in rings() {
            for run in [Run::Thread, Run::Inline] {
                let image = image(256);
                let (soft, block) = open(way, builder(&image).withhold(withheld), run, small());
                let mut pipe = pipe(block);
                let pool = pipe.device().pool(60, 1024).unwrap();
                // More at a time than the ring has room for by descriptors of its own.
                let data = pattern(60 * 1024, 5);
                for (tag, piece) in data.chunks(1024).enumerate() {
                    let buf = pool.take().unwrap();
                    buf.write(0, piece).unwrap();
                    pipe.write(512 + 1024 * tag as u64, buf, tag as u64).unwrap();
                }
                assert!(all(&mut pipe).into_values().all(|outcome| outcome.unwrap().is_some()));
                pipe.flush(7).unwrap();
                assert!(one(&mut pipe).unwrap().is_none());
                assert!(image.lock().unwrap()[512..][..data.len()] == data);
                for tag in 0..60 {
                    pipe.read(512 + 1024 * tag, pool.take().unwrap(), tag).unwrap();
                }
                for (tag, outcome) in all(&mut pipe) {
                    let read = outcome.unwrap().unwrap().to_vec().unwrap();
                    assert!(read == data[1024 * tag as usize..][..1024], "{tag}");
                }
                assert_eq!(pool.free(), 60);
                kept_the_rules(&soft);
            }
        }
    }
}

#[test]
fn every_thread_has_a_queue_of_its_own() {
    let image = image(4096);
    let model = soft::Block::memory(Arc::clone(&image)).with_queues(4);
    let mut wish = options();
    wish.queues = 4;
    let (soft, block) = open(MODERN, SoftDevice::builder(model), Run::Thread, wish);
    let pipes = block.into_pipes().unwrap();
    assert_eq!(pipes.len(), 4);
    std::thread::scope(|scope| {
        for (thread, mut pipe) in (0u64..).zip(pipes) {
            scope.spawn(move || {
                let pool = pipe.device().pool(8, 512).unwrap();
                for round in 0..50 {
                    for tag in 0..8 {
                        let buf = pool.take().unwrap();
                        buf.fill(round as u8 ^ tag as u8).unwrap();
                        pipe.write(512 * (thread * 1024 + 8 * round + tag), buf, tag).unwrap();
                    }
                    assert!(all(&mut pipe).into_values().all(|outcome| outcome.is_ok()));
                }
            });
        }
    });
    for thread in 0..4 {
        for sector in 0..400 {
            let at = 512 * (thread * 1024 + sector);
            assert_eq!(image.lock().unwrap()[at..][..512], [(sector / 8) as u8 ^ (sector % 8) as u8; 512]);
        }
    }
    kept_the_rules(&soft);
}

#[test]
fn what_is_refused_goes_home_and_is_not_under_way() {
    let mut wish = options();
    wish.queue_size = Some(8);
    let (soft, block) = open(MODERN, builder(&image(64)), Run::Stepped, wish);
    let mut pipe = pipe(block);
    let pool = pipe.device().pool(9, 512).unwrap();
    let (_other, stranger) = open(MODERN, builder(&image(64)), Run::Inline, options());
    let foreign = stranger.device().alloc(512).unwrap();
    let short = |len: u32| {
        let mut buf = pool.take().unwrap();
        buf.set_len(len).unwrap();
        buf
    };
    let refused = |pipe: &mut Pipe, offset, buf| pipe.read(offset, buf, 0).unwrap_err().kind().clone();
    assert!(matches!(refused(&mut pipe, 1, short(512)), Error::Misuse { .. }));
    assert!(matches!(refused(&mut pipe, 0, short(511)), Error::Misuse { .. }));
    assert!(matches!(refused(&mut pipe, 0, short(0)), Error::Misuse { .. }));
    assert!(matches!(refused(&mut pipe, 64 * 512, short(512)), Error::OutOfBounds { .. }));
    assert!(matches!(refused(&mut pipe, u64::MAX - 511, short(512)), Error::OutOfBounds { .. }));
    assert!(matches!(refused(&mut pipe, 0, foreign), Error::NotMapped { .. }));
    assert_eq!((pool.free(), pipe.under_way()), (9, 0));
    let mut added = 0;
    while pipe.has_room() {
        pipe.read(0, pool.take().unwrap(), added).unwrap();
        added += 1;
    }
    assert!((2..=8).contains(&added), "{added}");
    assert!(matches!(refused(&mut pipe, 0, short(512)), Error::QueueFull { .. }));
    assert_eq!(u64::from(pipe.under_way()), added);
    pipe.send().unwrap();
    soft.settle().unwrap();
    assert_eq!(all(&mut pipe).into_values().filter(|outcome| outcome.is_ok()).count() as u64, added);
    assert!(matches!(pipe.wait(Deadline::after(SOON)).unwrap_err().kind(), Error::Misuse { .. }));
    assert_eq!(pool.free(), 9);
    kept_the_rules(&soft);
}

#[test]
fn a_read_only_device_takes_no_writes_and_one_that_is_taken_up_again_has_no_pipes() {
    let model = soft::Block::memory(image(64)).read_only();
    let (_soft, block) = open(MODERN, SoftDevice::builder(model), Run::Inline, options());
    let mut read_only = pipe(block);
    let pool = read_only.device().pool(1, 512).unwrap();
    let error = read_only.write(0, pool.take().unwrap(), 7).unwrap_err();
    assert_eq!((error.kind(), pool.free()), (&Error::ReadOnly, 1));

    let mut wish: BlockOptions = options();
    wish.reconnect = Reconnect::Retry;
    let (_soft, block) = open(MODERN, builder(&image(64)), Run::Inline, wish);
    assert!(matches!(block.into_pipes().unwrap_err().kind(), Error::Misuse { .. }));
}

#[test]
fn d10_what_the_device_answers_is_told_and_the_buffer_goes_home() {
    for way in ways() {
        let failure = BlockFailure { request_type: None, sectors: Some(8..9), status: Status::IOERR };
        let model = soft::Block::zeroes(64).fails(failure);
        let (soft, block) = open(way, SoftDevice::builder(model), Run::Inline, options());
        let mut pipe = pipe(block);
        let pool = pipe.device().pool(1, 512).unwrap();
        pipe.read(8 * 512, pool.take().unwrap(), 7).unwrap();
        assert_eq!(one(&mut pipe).unwrap_err().kind(), &Error::Request { status: 1 });
        assert_eq!(pool.free(), 1);
        pipe.read(0, pool.take().unwrap(), 7).unwrap();
        assert_eq!(one(&mut pipe).unwrap().map(|buf| buf.len()), Some(512));
        kept_the_rules(&soft);
    }
    let (_soft, block) =
        open(MODERN, builder(&image(64)).lies([DeviceLie::UsedLen(100)]), Run::Inline, options());
    let mut pipe = pipe(block);
    pipe.read(0, pipe.device().alloc(512).unwrap(), 7).unwrap();
    assert_eq!(one(&mut pipe).unwrap_err().kind(), &Error::ShortReply { need: 513, got: 100 });
}

#[test]
fn d23_the_device_s_end_is_told_once_for_each_request_and_then_as_what_it_is() {
    for way in ways() {
        let (gate, seen) = Gate::new(1);
        let (_soft, block) = open(way, SoftDevice::builder(gate), Run::Thread, small());
        let mut pipe = pipe(block);
        let pool = pipe.device().pool(5, 512).unwrap();
        for tag in 0..5 {
            pipe.read(0, pool.take().unwrap(), tag).unwrap();
        }
        pipe.send().unwrap();
        seen.recv_timeout(SOON).unwrap();
        assert!(pipe.take().unwrap().is_none());
        let late = pipe.wait(Deadline::after(Duration::from_millis(1))).unwrap_err();
        assert!(matches!(late.kind(), Error::Timeout { .. }));
        assert_eq!((pipe.under_way(), pool.free()), (5, 0));
        pipe.device().reset().unwrap();
        let outcomes = all(&mut pipe);
        assert_eq!(outcomes.len(), 5);
        for outcome in outcomes.into_values() {
            assert!(matches!(outcome.unwrap_err().kind(), Error::Indeterminate { .. }));
        }
        assert_eq!(pool.free(), 5, "the device was proven to have stopped");
        assert!(matches!(pipe.take().unwrap_err().kind(), Error::Closed { .. }));
        let refused = pipe.read(0, pool.take().unwrap(), 0).unwrap_err();
        assert!(matches!(refused.kind(), Error::Closed { .. }), "{refused}");
    }
}

#[test]
fn late_answers_to_calls_of_before_are_nobody_s() {
    let image = image(64);
    let mut wish = options();
    wish.timeout = Duration::from_millis(20);
    let (soft, block) = open(MODERN, builder(&image), Run::Stepped, wish);
    let old = block.device().pool(1, 512).unwrap();
    let error = block.read_into(0, old.take().unwrap()).unwrap_err();
    assert!(matches!(error.kind(), Error::Timeout { .. }));
    let mut pipe = pipe(block);
    pipe.read(512, pipe.device().alloc(512).unwrap(), 7).unwrap();
    pipe.send().unwrap();
    assert!(soft.step().unwrap());
    assert!(pipe.take().unwrap().is_none());
    assert_eq!((pipe.under_way(), old.free()), (1, 1));
    soft.settle().unwrap();
    assert_eq!(one(&mut pipe).unwrap().unwrap().to_vec().unwrap(), image.lock().unwrap()[512..1024]);
    kept_the_rules(&soft);
}

#[test]
fn dropped_with_requests_under_way_it_leaves_their_buffers_to_the_device_until_its_reset() {
    let (soft, block) = open(MODERN, builder(&image(64)), Run::Stepped, options());
    let mut pipe = pipe(block);
    let pool = pipe.device().pool(1, 512).unwrap();
    pipe.read(0, pool.take().unwrap(), 7).unwrap();
    pipe.send().unwrap();
    assert_eq!(pool.free(), 0);
    drop(pipe);
    assert_eq!(pool.free(), 1, "the device was reset");
    kept_the_rules(&soft);
}

/// The device ends between an add and the wait for it: what became of the requests comes first.
#[test]
fn a_wait_that_finds_the_device_ended_tells_of_its_requests_before_that() {
    let (_soft, block) = open(MODERN, builder(&image(64)), Run::Stepped, options());
    let mut pipe = pipe(block);
    let pool = pipe.device().pool(2, 512).unwrap();
    for tag in 0..2 {
        pipe.read(0, pool.take().unwrap(), tag).unwrap();
    }
    pipe.device().reset().unwrap();
    for outcome in all(&mut pipe).into_values() {
        assert!(matches!(outcome.unwrap_err().kind(), Error::Indeterminate { .. }));
    }
    assert_eq!(pool.free(), 2);
}

/// Late answers of before leave the pipe as much room as any other.
#[test]
fn calls_of_before_that_timed_out_take_no_room_for_ever() {
    let mut wish = options();
    (wish.timeout, wish.queue_size) = (Duration::from_millis(20), Some(8));
    let (soft, block) = open(MODERN, builder(&image(64)), Run::Stepped, wish);
    let pool = block.device().pool(8, 512).unwrap();
    // Those for which there is room stay in flight.
    for _ in 0..8 {
        block.read_into(0, pool.take().unwrap()).unwrap_err();
    }
    let late = 8 - pool.free();
    let mut pipe = pipe(block);
    assert!(late > 0);
    soft.settle().unwrap();
    assert!(pipe.take().unwrap().is_none());
    assert_eq!(pool.free(), 8);
    let mut added = 0;
    while pipe.has_room() {
        pipe.read(0, pool.take().unwrap(), added).unwrap();
        added += 1;
    }
    assert_eq!(added, late as u64, "as many as there were in flight");
}
