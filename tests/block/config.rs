//! Configurations that are absurd, and that change.

use std::sync::Arc;

use virtio::Error;
use virtio::drivers::Block;
use virtio::soft::{self, BlockLimits, DeviceLie, Run, SoftDevice};
use virtio::spec::device::block::config;

use super::driver_common::{Way, kept_the_rules, ways};
use super::{image, open, options};

/// A device that announces every limit, but for what lies at `offset`.
fn lying(way: Way, offset: u16, value: &[u8]) -> virtio::Result<(SoftDevice, Block)> {
    let mut limits = BlockLimits::default();
    limits.size_max = 4096;
    let model = soft::Block::memory(image(64)).limits(limits).with_queues(2);
    let lie = DeviceLie::ConfigBytes { offset, bytes: value.to_vec() };
    let (soft, device) = way.open(SoftDevice::builder(model).lies([lie]), Run::Inline);
    let mut wish = options();
    wish.queues = 8;
    Block::new(device, wish).map(|block| (soft, block))
}

fn order(way: Way) -> virtio::spec::ByteOrder {
    if way.legacy() { way.order } else { virtio::spec::ByteOrder::Little }
}

fn lying32(way: Way, offset: u16, value: u32) -> virtio::Result<(SoftDevice, Block)> {
    lying(way, offset, &order(way).u32_to_bytes(value))
}

#[test]
fn c15_what_cannot_be_used_is_refused() {
    for way in ways() {
        for capacity in [u64::MAX, 1 << 63, (u64::MAX >> 9) + 1] {
            let error = lying(way, config::CAPACITY, &order(way).u64_to_bytes(capacity)).unwrap_err();
            assert!(matches!(error.kind(), Error::BadConfig { field: "capacity", .. }), "{error}");
        }
        for size_max in [1, 511] {
            let error = lying32(way, config::SIZE_MAX, size_max).unwrap_err();
            assert!(matches!(error.kind(), Error::BadConfig { field: "size_max", .. }), "{error}");
        }
    }
}

#[test]
fn c15_what_can_be_done_without_is_ignored() {
    for way in ways() {
        for blk_size in [0, 1, 3, 511, 1 << 21, u32::MAX] {
            let (_soft, block) = lying32(way, config::BLK_SIZE, blk_size).unwrap();
            assert_eq!(block.block_size(), 512);
            block.read(0, &mut [0; 8192]).unwrap();
        }
        for (offset, erase) in [
            (config::MAX_DISCARD_SECTORS, Block::discard as fn(&Block, u64, u64) -> virtio::Result),
            (config::MAX_DISCARD_SEG, Block::discard),
            (config::MAX_SECURE_ERASE_SECTORS, Block::secure_erase),
            (config::MAX_SECURE_ERASE_SEG, Block::secure_erase),
            (config::MAX_WRITE_ZEROES_SECTORS, |block, at, len| block.write_zeroes(at, len, false)),
            (config::MAX_WRITE_ZEROES_SEG, |block, at, len| block.write_zeroes(at, len, false)),
        ] {
            let (soft, block) = lying32(way, offset, 0).unwrap();
            let error = erase(&block, 0, 512).unwrap_err();
            assert!(matches!(error.kind(), Error::Unsupported { .. }), "{error}");
            assert_eq!(soft.report().chains, 0);
        }
        for alignment in [0, 3, u32::MAX] {
            let (_soft, block) = lying32(way, config::DISCARD_SECTOR_ALIGNMENT, alignment).unwrap();
            block.discard(512, 63 * 512).unwrap();
        }
        let (_soft, block) = lying32(way, config::SEG_MAX, 0).unwrap();
        block.read(0, &mut [0; 8192]).unwrap();
        for (queues, used) in [(0u16, 1), (1, 1), (u16::MAX, 2)] {
            let (_soft, block) = lying(way, config::NUM_QUEUES, &order(way).u16_to_bytes(queues)).unwrap();
            assert_eq!(block.queues(), used, "{way:?} {queues}");
        }
    }
}

/// Every field at once, all bits set or none.
#[test]
fn c15_absurd_values_in_every_field_end_in_an_error_or_a_working_device() {
    for way in ways() {
        for value in [0, 0xff] {
            if let Ok((_soft, block)) = lying(way, config::CAPACITY + 8, &[value; 88]) {
                let _ = block.read(0, &mut [0; 8192]);
                let _ = block.discard(0, 512);
            }
        }
        for len in [0, 4, 7, 8, 12, 33, 60] {
            let model = soft::Block::memory(image(64));
            let (_soft, device) =
                way.open(SoftDevice::builder(model).lies([DeviceLie::ConfigLen(len)]), Run::Inline);
            if let Ok(block) = Block::new(device, options()) {
                let read = block.read(0, &mut [0; 8192]);
                // Some legacy interfaces give zeroes where there is no field: a device of no size.
                assert!(read.is_ok() || block.size() == 0, "{way:?} {len}: {read:?}");
            }
        }
    }
}

#[test]
fn c16_a_device_that_shrinks_is_not_asked_beyond_its_new_end() {
    for way in ways() {
        let (soft, block) =
            open(way, SoftDevice::builder(soft::Block::memory(image(64))), Run::Inline, options());
        block.read(40 * 512, &mut [0; 512]).unwrap();
        soft.change_config(config::CAPACITY, &order(way).u64_to_bytes(40)).unwrap();
        assert!(block.events().unwrap().config_changed, "{way:?}");
        assert_eq!(block.size(), 40 * 512);
        let chains = soft.report().chains;
        for result in [block.read(40 * 512, &mut [0; 512]), block.write(39 * 512, &[0; 1024])] {
            let error = result.unwrap_err();
            assert!(matches!(error.kind(), Error::OutOfBounds { size: 20_480, .. }), "{error}");
        }
        assert_eq!(soft.report().chains, chains, "nothing was published");
        block.read(39 * 512, &mut [0; 512]).unwrap();
        assert!(!block.events().unwrap().any());
        kept_the_rules(&soft);
    }
}

#[test]
fn c16_calls_see_a_change_by_themselves() {
    let way = super::driver_common::MODERN;
    let image = image(64);
    let model = soft::Block::memory(Arc::clone(&image));
    let lie = DeviceLie::ConfigBytes { offset: config::CAPACITY, bytes: 10u64.to_le_bytes().to_vec() };
    let (soft, block) = open(way, SoftDevice::builder(model).lies([lie]), Run::Inline, options());
    assert_eq!(block.size(), 5120);
    assert!(block.read(5120, &mut [0; 512]).is_err());
    // It grows, without a word: an access beyond the end looks before it is refused.
    soft.be_honest().unwrap();
    block.read(63 * 512, &mut [0; 512]).unwrap();
    assert_eq!(block.size(), 64 * 512);
    // It shrinks: the next calls notice, at the latest a moment later.
    soft.change_config(config::CAPACITY, &20u64.to_le_bytes()).unwrap();
    let deadline = std::time::Instant::now() + super::driver_common::SOON;
    while block.size() != 20 * 512 {
        block.read(0, &mut [0; 512]).unwrap();
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(block.events().unwrap().config_changed, "the caller is told of it too");
    assert!(!block.events().unwrap().config_changed);
}
