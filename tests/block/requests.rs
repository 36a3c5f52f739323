//! All request types, and how calls are cut into requests.

use std::sync::Arc;

use virtio::Error;
use virtio::drivers::Block;
use virtio::features::Features;
use virtio::soft::{self, BlockLimits, Run, SoftDevice};
use virtio::spec::device::block::feature;

use super::driver_common::{LEGACY, MODERN, kept_the_rules, rings, ways};
use super::{Image, builder, image, open, options, pattern, small};

const SECTORS: usize = 4096;
const SIZE: u64 = SECTORS as u64 * 512;

#[test]
fn s5_2_6_every_request_type_does_its_work_behind_every_interface() {
    for way in ways() {
        for withheld in rings() {
            for run in [Run::Thread, Run::Inline] {
                let image = image(SECTORS);
                let model = soft::Block::memory(Arc::clone(&image)).id("disk 7").with_queues(2);
                let mut wish = small();
                wish.queues = 2;
                let builder = SoftDevice::builder(model).withhold(withheld);
                let (soft, block) = open(way, builder, run, wish);
                assert_eq!((block.size(), block.queues(), block.read_only()), (SIZE, 2, false));
                let event_idx = block.features().contains(Features::EVENT_IDX);
                assert_eq!(event_idx, !withheld.contains(Features::EVENT_IDX), "V21: taken where offered");
                every_type(&block, &image);
                block.close().unwrap();
                kept_the_rules(&soft);
            }
        }
    }
}

fn every_type(block: &Block, image: &Image) {
    let data = pattern(1_500 * 512, 0x5a);
    block.write(3 * 512, &data).unwrap();
    assert!(image.lock().unwrap()[3 * 512..1503 * 512] == data);
    let before = image.lock().unwrap().clone();
    let mut read = vec![0; 2048 * 512];
    block.read(512, &mut read).unwrap();
    assert!(read == before[512..2049 * 512]);
    block.flush().unwrap();
    assert_eq!(block.get_id().unwrap(), "disk 7");
    assert_eq!(block.lifetime().unwrap().device_lifetime_est_typ_b, 2);

    let buf = block.device().alloc(8192).unwrap();
    buf.write(0, &pattern(8192, 1)).unwrap();
    let buf = block.write_from(SIZE - 8192, buf).unwrap();
    assert!(image.lock().unwrap()[SIZE as usize - 8192..] == pattern(8192, 1));
    buf.fill(0).unwrap();
    let buf = block.read_into(SIZE - 8192, buf).unwrap();
    assert!(buf.to_vec().unwrap() == pattern(8192, 1));

    erased(block, image, 100, 33, |block, at, len| block.discard(at, len));
    erased(block, image, 200, 1, |block, at, len| block.write_zeroes(at, len, false));
    erased(block, image, 300, 700, |block, at, len| block.write_zeroes(at, len, true));
    erased(block, image, 0, 99, |block, at, len| block.secure_erase(at, len));
    block.set_writeback(false).unwrap();
    assert!(!block.limits().writeback);
}

/// The range is zero then, and nothing else has changed.
fn erased(
    block: &Block,
    image: &Image,
    sector: u64,
    count: u64,
    erase: impl Fn(&Block, u64, u64) -> virtio::Result,
) {
    let mut wanted = image.lock().unwrap().clone();
    erase(block, sector * 512, count * 512).unwrap();
    wanted[sector as usize * 512..(sector + count) as usize * 512].fill(0);
    assert!(*image.lock().unwrap() == wanted);
}

/// The device fails every request that is beyond its limits.
#[test]
fn s5_2_4_transfers_keep_to_size_max_and_seg_max() {
    for (size_max, seg_max) in [(512, 1), (512, 3), (1000, 2), (4096, 126), (65_536, 1), (0, 1), (300_000, 0)]
    {
        for way in [MODERN, LEGACY] {
            for withheld in rings() {
                let mut limits = BlockLimits::default();
                (limits.size_max, limits.seg_max) = (size_max, seg_max);
                let image = image(1024);
                let model = soft::Block::memory(Arc::clone(&image)).limits(limits);
                let builder = SoftDevice::builder(model).withhold(withheld);
                let (soft, block) = open(way, builder, Run::Inline, small());
                let data = pattern(700 * 512, 3);
                block.write(1024, &data).unwrap();
                let mut read = vec![0; data.len()];
                block.read(1024, &mut read).unwrap();
                assert!(read == data, "{size_max} {seg_max}");
                let buf = block.device().alloc(8192).unwrap();
                let own = block.read_into(0, buf);
                if size_max != 0 && size_max < 8192 {
                    assert!(matches!(own.unwrap_err().kind(), Error::Misuse { .. }));
                } else {
                    own.unwrap();
                }
                kept_the_rules(&soft);
            }
        }
    }
}

#[test]
fn s5_2_6_1_erasing_keeps_to_the_maxima_of_sectors_and_segments() {
    for (max_sectors, max_segments, alignment) in [(1, 1, 1), (8, 3, 4), (7, 2, 4), (8, 1, 0), (1000, 16, 64)]
    {
        let mut limits = BlockLimits::default();
        (limits.max_sectors, limits.max_segments, limits.alignment) = (max_sectors, max_segments, alignment);
        let image = image(1024);
        let model = soft::Block::memory(Arc::clone(&image)).limits(limits);
        let (soft, block) = open(MODERN, SoftDevice::builder(model), Run::Inline, options());
        erased(&block, &image, 3, 101, |block, at, len| block.discard(at, len));
        erased(&block, &image, 200, 64, |block, at, len| block.write_zeroes(at, len, true));
        erased(&block, &image, 517, 3, |block, at, len| block.secure_erase(at, len));
        let least = 101u64.div_ceil(u64::from(max_sectors) * u64::from(max_segments));
        assert!(soft.report().chains >= least);
        kept_the_rules(&soft);
    }
}

#[test]
fn several_segments_share_a_request() {
    let mut limits = BlockLimits::default();
    (limits.max_sectors, limits.max_segments) = (4, 8);
    let image = image(1024);
    let model = soft::Block::memory(Arc::clone(&image)).limits(limits);
    let (soft, block) = open(MODERN, SoftDevice::builder(model), Run::Inline, options());
    block.discard(0, 64 * 512).unwrap();
    assert_eq!(soft.report().chains, 2);
}

/// C9 of a ring's kind: the smallest queues, direct and indirect, legacy ones fixed by the device.
#[test]
fn small_queues_carry_every_call() {
    for size in [4, 8, 16] {
        for way in ways() {
            for withheld in rings() {
                let image = image(1024);
                let mut wish = small();
                wish.queue_size = Some(size);
                let (soft, block) = open(way, builder(&image).withhold(withheld), Run::Thread, wish);
                let mut read = vec![0; 1024 * 512];
                block.read(0, &mut read).unwrap();
                assert!(read == *image.lock().unwrap());
                kept_the_rules(&soft);
            }
        }
    }
    let mut wish = small();
    wish.queue_size = Some(2);
    let (_soft, device) = MODERN.open(builder(&image(8)), Run::Inline);
    let error = Block::new(device, wish).unwrap_err();
    assert!(matches!(error.kind(), Error::QueueUnavailable { .. }), "{error}");
}

#[test]
fn m10_what_is_misused_is_refused_before_anything_is_published() {
    let image = image(64);
    let (soft, block) = open(MODERN, builder(&image), Run::Inline, options());
    let end = 64 * 512;
    for (offset, len) in [(1, 512), (0, 511), (511, 1), (512, 513)] {
        for result in [
            block.read(offset, &mut vec![0; len]),
            block.write(offset, &vec![0; len]),
            block.discard(offset, len as u64),
            block.write_zeroes(offset, len as u64, false),
            block.secure_erase(offset, len as u64),
        ] {
            assert!(matches!(result.unwrap_err().kind(), Error::Misuse { .. }), "{offset} {len}");
        }
    }
    for (offset, len) in [(end, 512), (end - 512, 1024), (u64::MAX - 511, 512), (u64::MAX - 1023, 1024)] {
        for result in [
            block.read(offset, &mut vec![0; len]),
            block.write(offset, &vec![0; len]),
            block.discard(offset, len as u64),
        ] {
            let error = result.unwrap_err();
            let beyond = matches!(error.kind(), Error::OutOfBounds { size, .. } if *size == end);
            assert!(beyond, "{offset} {len}: {error}");
        }
    }
    let (_other, device) = MODERN.open(builder(&image), Run::Inline);
    let foreign = device.alloc(512).unwrap();
    assert!(matches!(block.write_from(0, foreign).unwrap_err().kind(), Error::NotMapped { .. }));
    let odd = block.device().alloc(100).unwrap();
    assert!(matches!(block.read_into(0, odd).unwrap_err().kind(), Error::Misuse { .. }));
    assert_eq!(soft.report().chains, 0);
    // No bytes are no request, at the very end too.
    block.read(end, &mut []).unwrap();
    block.write(end, &[]).unwrap();
    block.discard(end, 0).unwrap();
    assert_eq!(soft.report().chains, 0);
    // What was refused has cost nothing.
    block.read(0, &mut [0; 512]).unwrap();
    kept_the_rules(&soft);
}

#[test]
fn s5_2_5_a_read_only_device_is_not_written() {
    for way in ways() {
        let image = image(64);
        let before = image.lock().unwrap().clone();
        let model = soft::Block::memory(Arc::clone(&image)).read_only();
        let (soft, block) = open(way, SoftDevice::builder(model), Run::Inline, options());
        assert!(block.read_only());
        let buf = block.device().alloc(512).unwrap();
        for result in [
            block.write(0, &[9; 512]),
            block.discard(0, 512),
            block.write_zeroes(0, 512, true),
            block.secure_erase(0, 512),
            block.write_from(0, buf).map(drop),
        ] {
            assert_eq!(result.unwrap_err().kind(), &Error::ReadOnly);
        }
        assert_eq!(soft.report().chains, 0, "nothing was published");
        block.read(0, &mut [0; 512]).unwrap();
        block.flush().unwrap();
        assert!(*image.lock().unwrap() == before);
        kept_the_rules(&soft);
    }
}

#[test]
fn s5_2_5_without_their_features_requests_are_not_sent() {
    let bits = [
        feature::FLUSH,
        feature::CONFIG_WCE,
        feature::DISCARD,
        feature::WRITE_ZEROES,
        feature::SECURE_ERASE,
        feature::LIFETIME,
        feature::MQ,
    ];
    let withheld = bits.into_iter().map(Features::from_bit).collect();
    let image = image(64);
    let mut wish = options();
    wish.queues = 4;
    let model = soft::Block::memory(Arc::clone(&image)).with_queues(4);
    let (soft, block) = open(MODERN, SoftDevice::builder(model).withhold(withheld), Run::Inline, wish);
    // No cache that a driver could know of: done already.
    assert!(!block.limits().writeback);
    block.flush().unwrap();
    for result in [
        block.discard(0, 512),
        block.write_zeroes(0, 512, false),
        block.secure_erase(0, 512),
        block.lifetime().map(drop),
        block.set_writeback(true),
    ] {
        assert!(matches!(result.unwrap_err().kind(), Error::Unsupported { .. }));
    }
    assert_eq!((soft.report().chains, block.queues()), (0, 1));
    kept_the_rules(&soft);
}

#[test]
fn a_batch_is_one_notification() {
    let image = image(1024);
    let (_soft, block) = open(MODERN, builder(&image), Run::Inline, options());
    block.read(0, &mut vec![0; 1024 * 512]).unwrap();
    let counters = block.counters(0).unwrap();
    assert_eq!((counters.added, counters.kicks), (4, 1), "{counters:?}");
}

#[test]
fn another_device_is_refused() {
    let (_soft, device) = MODERN.open(SoftDevice::builder(soft::Entropy::new(1)), Run::Inline);
    assert!(matches!(Block::new(device, options()).unwrap_err().kind(), Error::Misuse { .. }));
}
