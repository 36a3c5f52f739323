//! Calls that do not wait: submitted, and picked up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio::Error;
use virtio::drivers::block::{Answer, Done, Submitter};
use virtio::event::Deadline;
use virtio::soft::{self, BlockLimits, Run, SoftDevice};

use super::driver_common::{Gate, LEGACY, MODERN, SOON, kept_the_rules, rings, ways};
use super::{builder, image, open, options, pattern, small};

/// Waits until nothing is under way; outcomes by tag.
fn all<T: Ord>(disk: &Submitter<T>) -> BTreeMap<T, virtio::Result<Answer>> {
    let (mut done, deadline) = (Vec::new(), Deadline::after(SOON));
    while disk.wait(&mut done, deadline).unwrap().open != 0 {
        assert!(!deadline.passed());
    }
    let outcomes: BTreeMap<_, _> = done.into_iter().map(|Done { tag, outcome }| (tag, outcome)).collect();
    outcomes
}

fn one(
    disk: &Submitter<u32>,
    submit: impl FnOnce(&Submitter<u32>) -> virtio::Result,
) -> virtio::Result<Answer> {
    submit(disk)?;
    let mut outcomes = all(disk);
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(&7).unwrap()
}

#[test]
fn s5_2_6_every_call_does_its_work_behind_every_interface() {
    for way in ways() {
        for withheld in rings() {
            for run in [Run::Thread, Run::Inline] {
                let image = image(4096);
                let model = soft::Block::memory(Arc::clone(&image)).id("disk 7");
                let (soft, block) = open(way, SoftDevice::builder(model).withhold(withheld), run, small());
                let disk = block.submitter();
                every_call(&disk, &image);
                disk.close().unwrap();
                kept_the_rules(&soft);
            }
        }
    }
}

fn every_call(disk: &Submitter<u32>, image: &super::Image) {
    // Much more than the window: 2 MiB through 256 KiB.
    let data = pattern(4000 * 512, 9);
    for repeats in [false, true] {
        let answer = one(disk, |disk| disk.write(512, &data, repeats, 7)).unwrap();
        assert!(answer.is_empty());
        assert!(image.lock().unwrap()[512..][..data.len()] == data);
        image.lock().unwrap()[512..][..data.len()].fill(0);
    }
    one(disk, |disk| disk.write(512, &data, false, 7)).unwrap();
    let answer = one(disk, |disk| disk.read(512, data.len(), 7)).unwrap();
    assert!(answer.into_bytes().unwrap() == data);
    let answer = one(disk, |disk| disk.read(1024, 4096, 7)).unwrap();
    let mut part = [0; 4096];
    answer.read(&mut part).unwrap();
    assert!(part == data[512..][..4096] && answer.read(&mut [0; 4097]).is_err());
    assert!(one(disk, |disk| disk.read(0, 0, 7)).unwrap().is_empty());
    assert!(one(disk, |disk| disk.write(0, &[], false, 7)).unwrap().is_empty());

    let pool = disk.device().pool(1, 8192).unwrap();
    let answer = one(disk, |disk| disk.read_into(512, pool.take().unwrap(), 7)).unwrap();
    let Answer::Buffer(buf) = answer else { panic!("{answer:?}") };
    assert!(buf.to_vec().unwrap() == data[..8192]);
    let answer = one(disk, |disk| disk.write_from(0, buf, true, 7)).unwrap();
    assert!(image.lock().unwrap()[..8192] == data[..8192]);
    drop(answer);
    assert_eq!(pool.free(), 1);

    let id = one(disk, |disk| disk.get_id(7)).unwrap().into_bytes().unwrap();
    assert_eq!(&id[..7], b"disk 7\0");
    one(disk, |disk| disk.discard(0, 512, 7)).unwrap();
    one(disk, |disk| disk.write_zeroes(512, 1024, true, 7)).unwrap();
    assert!(image.lock().unwrap()[..1536] == [0; 1536]);
    assert!(one(disk, |disk| disk.flush(7)).unwrap().is_empty());
}

#[test]
fn s5_2_4_calls_keep_to_size_max_and_seg_max_of_the_device() {
    for (size_max, seg_max) in [(512, 1), (1000, 2), (4096, 126), (65_536, 1)] {
        for way in [MODERN, LEGACY] {
            let mut limits = BlockLimits::default();
            (limits.size_max, limits.seg_max) = (size_max, seg_max);
            let image = image(1024);
            let model = soft::Block::memory(Arc::clone(&image)).limits(limits);
            let (soft, block) = open(way, SoftDevice::builder(model), Run::Thread, small());
            let disk = block.submitter();
            let data = pattern(700 * 512, 3);
            disk.write(1024, &data, false, 0).unwrap();
            all(&disk).into_values().for_each(|outcome| drop(outcome.unwrap()));
            for piece in 0..70 {
                disk.read(1024 + piece * 5120, 5120, piece).unwrap();
            }
            for (piece, outcome) in all(&disk) {
                let read = outcome.unwrap().into_bytes().unwrap();
                assert!(read == data[piece as usize * 5120..][..5120], "{size_max} {seg_max} {piece}");
            }
            let buf = disk.device().alloc(8192).unwrap();
            let refused = disk.read_into(0, buf, 0).err().map(|error| error.kind().clone());
            assert_eq!(matches!(refused, Some(Error::Misuse { .. })), size_max < 8192);
            all(&disk);
            kept_the_rules(&soft);
        }
    }
}

#[test]
fn many_calls_are_under_way_and_a_batch_costs_one_notification() {
    let image = image(4096);
    let (soft, block) = open(MODERN, builder(&image), Run::Stepped, options());
    let disk = block.submitter();
    let mut done = Vec::new();
    for round in 0..6u64 {
        for n in 0..32 {
            disk.read(n * 4096, 4096, n).unwrap();
        }
        assert_eq!(soft.settle().unwrap(), 0, "nothing was shown yet");
        assert_eq!(disk.poll(&mut done).unwrap().open, 32);
        assert_eq!(soft.settle().unwrap(), 32);
        assert_eq!(disk.poll(&mut done).unwrap().open, 0);
        assert_eq!(disk.counters().kicks, round + 1);
    }
    assert_eq!(done.len(), 192);
    assert!(done.iter().all(|done| done.outcome.as_ref().unwrap().len() == 4096));
    let own = done.iter().filter(|done| matches!(done.outcome, Ok(Answer::Buffer(_)))).count();
    assert_eq!(own, 128, "a caller that keeps answers does not get all buffers of the queue");
    disk.read(0, 2 << 20, 0).unwrap();
    while disk.poll(&mut done).unwrap().open != 0 {
        soft.settle().unwrap();
    }
    assert!(done.pop().unwrap().outcome.unwrap().into_bytes().unwrap() == *image.lock().unwrap());
    kept_the_rules(&soft);
}

#[test]
fn more_calls_than_there_is_room_for_stand_in_line() {
    let image = image(4096);
    let mut wish = small();
    wish.queue_size = Some(8);
    let (soft, block) = open(MODERN, builder(&image), Run::Thread, wish);
    let disk = block.submitter();
    for n in 0..200u64 {
        disk.write(n * 512, &[n as u8; 512], false, n).unwrap();
    }
    assert!(all(&disk).into_values().all(|outcome| outcome.is_ok()));
    for n in 0..200 {
        disk.read(n * 512, 512, n).unwrap();
    }
    let outcomes = all(&disk);
    assert_eq!(outcomes.len(), 200);
    for (n, outcome) in outcomes {
        assert_eq!(outcome.unwrap().into_bytes().unwrap(), [n as u8; 512]);
    }
    kept_the_rules(&soft);
}

#[test]
fn what_a_call_cannot_have_is_refused_at_once_and_what_the_device_refuses_is_told() {
    let image = image(64);
    let model = soft::Block::memory(Arc::clone(&image)).read_only();
    let (_soft, block) = open(MODERN, SoftDevice::builder(model), Run::Inline, options());
    let disk = block.submitter();
    assert!(matches!(disk.read(1, 512, 0).unwrap_err().kind(), Error::Misuse { .. }));
    assert!(matches!(disk.read(0, 1 << 40, 0).unwrap_err().kind(), Error::OutOfBounds { .. }));
    assert!(matches!(disk.write(0, &[0; 512], false, 0).unwrap_err().kind(), Error::ReadOnly));
    assert_eq!(all(&disk).len(), 0);
    assert_eq!(one(&disk, |disk| disk.read(0, 512, 7)).unwrap().len(), 512);
}

#[test]
fn a_close_ends_every_call_once_with_its_own_error() {
    for way in ways() {
        let (gate, seen) = Gate::new(1);
        let mut wish = small();
        wish.queue_size = Some(8);
        let (_soft, block) = open(way, SoftDevice::builder(gate), Run::Thread, wish);
        let disk = block.submitter();
        for n in 0..20 {
            disk.read(0, 512, n).unwrap();
        }
        let mut done = Vec::new();
        assert_eq!(disk.poll(&mut done).unwrap().open, 20);
        seen.recv_timeout(SOON).unwrap();
        let in_flight = disk.counters().added as usize;
        // A legacy interface decides on the size by itself.
        assert!((1..=20).contains(&in_flight) && (way.legacy() || in_flight < 20), "{in_flight}");
        disk.close().unwrap();
        let outcomes = all(&disk);
        assert_eq!(outcomes.len(), 20);
        let lost = |outcome: &virtio::Result<Answer>| {
            matches!(outcome.as_ref().unwrap_err().kind(), Error::Indeterminate { .. })
        };
        assert_eq!(outcomes.values().filter(|outcome| lost(outcome)).count(), in_flight);
        for outcome in outcomes.into_values().filter(|outcome| !lost(outcome)) {
            assert!(matches!(outcome.unwrap_err().kind(), Error::Closed { .. }));
        }
        disk.read(0, 512, 0).unwrap();
        assert!(matches!(all(&disk)[&0].as_ref().unwrap_err().kind(), Error::Closed { .. }));
    }
}

#[test]
fn a_device_that_does_not_answer_is_given_up_and_its_late_answers_are_dropped() {
    let image = image(64);
    let mut wish = options();
    wish.timeout = Duration::from_millis(100);
    let (soft, block) = open(MODERN, builder(&image), Run::Stepped, wish);
    let disk = block.submitter();
    let start = Instant::now();
    disk.read(0, 512, 1).unwrap();
    disk.write_from(0, disk.device().alloc(512).unwrap(), false, 2).unwrap();
    let outcomes = all(&disk);
    assert!(start.elapsed() >= Duration::from_millis(100));
    for outcome in outcomes.into_values() {
        assert!(matches!(outcome.unwrap_err().kind(), Error::Timeout { .. }));
    }
    // A stranger's answers do not end a call of today, whatever its place in the books is.
    disk.read(512, 512, 3).unwrap();
    let mut done = Vec::new();
    disk.poll(&mut done).unwrap();
    assert!(soft.step().unwrap() && soft.step().unwrap());
    assert_eq!(disk.poll(&mut done).unwrap().open, 1);
    assert!(done.is_empty());
    soft.settle().unwrap();
    disk.poll(&mut done).unwrap();
    assert_eq!(done.remove(0).outcome.unwrap().into_bytes().unwrap(), image.lock().unwrap()[512..1024]);
    kept_the_rules(&soft);
}

#[test]
fn dropped_with_calls_under_way_it_leaves_their_buffers_to_the_device_until_its_reset() {
    let (soft, block) = open(MODERN, builder(&image(64)), Run::Stepped, options());
    let disk = block.submitter();
    let pool = disk.device().pool(1, 512).unwrap();
    disk.read_into(0, pool.take().unwrap(), ()).unwrap();
    disk.poll(&mut Vec::new()).unwrap();
    assert_eq!(pool.free(), 0);
    drop(disk);
    assert_eq!(pool.free(), 1, "the device was reset");
    kept_the_rules(&soft);
}
