//! What the device answers: errors, lengths, silence, and its end.

use virtio::Error;
use virtio::drivers::Block;
use virtio::soft::{self, BlockFailure, DeviceLie, Run, SoftDevice};
use virtio::spec::device::block::request::{RequestType, Status};

use super::driver_common::{Idle, MODERN, SHORT, kept_the_rules, ways};
use super::{builder, image, open, options, small};

fn failing(status: Status) -> BlockFailure {
    BlockFailure { request_type: None, sectors: None, status }
}

#[track_caller]
fn fails_with(result: virtio::Result, wanted: &Error) {
    assert_eq!(result.unwrap_err().kind(), wanted);
}

#[test]
fn d10_a_short_length_counts_behind_a_modern_interface_and_not_behind_a_legacy_one() {
    for way in ways() {
        for length in [0, 1, 512] {
            let image = image(64);
            let lies = [DeviceLie::UsedLen(length)];
            let (soft, block) = open(way, builder(&image).lies(lies), Run::Inline, options());
            let mut sector = [0; 512];
            let read = block.read(512, &mut sector);
            if way.legacy() {
                read.unwrap();
                assert_eq!(sector, [2; 512]);
                block.write(0, &[9; 512]).unwrap();
                assert_eq!(block.get_id().unwrap(), "virtio-soft");
            } else {
                fails_with(read, &Error::ShortReply { need: 513, got: length });
                if length == 0 {
                    fails_with(block.write(0, &[9; 512]), &Error::ShortReply { need: 1, got: 0 });
                    fails_with(block.flush(), &Error::ShortReply { need: 1, got: 0 });
                    fails_with(block.get_id().map(drop), &Error::ShortReply { need: 21, got: 0 });
                }
            }
            soft.be_honest().unwrap();
            block.read(512, &mut sector).unwrap();
            assert_eq!(sector, [2; 512]);
            kept_the_rules(&soft);
        }
    }
}

#[test]
fn d10_an_error_status_decides_before_the_length() {
    for way in ways() {
        for status in [Status::IOERR, Status::UNSUPP, Status(77)] {
            let model = soft::Block::zeroes(64).fails(failing(status));
            let builder = SoftDevice::builder(model).lies([DeviceLie::UsedLen(0)]);
            let (_soft, block) = open(way, builder, Run::Inline, options());
            let failed = Error::Request { status: status.0.into() };
            fails_with(block.read(0, &mut [0; 512]), &failed);
            fails_with(block.write(0, &[0; 512]), &failed);
            fails_with(block.flush(), &failed);
        }
    }
}

#[test]
fn d10_a_status_that_was_not_written_is_no_success() {
    for way in ways() {
        let model = || soft::Block::zeroes(64).without_status();
        let (_soft, block) = open(way, SoftDevice::builder(model()), Run::Inline, options());
        fails_with(block.read(0, &mut [0; 512]), &Error::Request { status: 255 });
        let builder = SoftDevice::builder(model()).lies([DeviceLie::UsedLen(512)]);
        let (_soft, block) = open(way, builder, Run::Inline, options());
        let wanted = match way.legacy() {
            true => Error::Request { status: 255 },
            false => Error::ShortReply { need: 513, got: 512 },
        };
        fails_with(block.read(0, &mut [0; 512]), &wanted);
    }
}

#[test]
fn d10_behind_a_legacy_interface_what_was_not_written_reads_as_zeroes() {
    for way in ways().into_iter().filter(|way| way.legacy()) {
        let (_soft, block) = open(way, SoftDevice::builder(Idle), Run::Inline, options());
        block.write(0, &[0xaa; 4096]).unwrap();
        let mut bytes = [0xbb; 4096];
        block.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096], "{way:?}");
    }
}

#[test]
fn d9_a_length_above_the_capacity_is_cut_and_counted() {
    let image = image(64);
    let lies = [DeviceLie::UsedLen(u32::MAX)];
    let (_soft, block) = open(MODERN, builder(&image).lies(lies), Run::Inline, options());
    let mut sector = [0; 512];
    block.read(512, &mut sector).unwrap();
    assert_eq!(sector, [2; 512]);
    assert_eq!(block.counters(0).unwrap().clamped, 1);
}

#[test]
fn e12_one_bad_sector_fails_its_call_and_no_other() {
    for run in [Run::Thread, Run::Inline] {
        let bad = BlockFailure {
            request_type: Some(RequestType::IN),
            sectors: Some(500..501),
            status: Status::IOERR,
        };
        let model = soft::Block::memory(image(4096)).fails(bad);
        let (soft, block) = open(MODERN, SoftDevice::builder(model), run, small());
        let mut bytes = vec![0; 4096 * 512];
        for _ in 0..20 {
            fails_with(block.read(0, &mut bytes), &Error::Request { status: 1 });
            block.read(501 * 512, &mut bytes[..512 * 512]).unwrap();
            assert_eq!(bytes[..512], [(501 % 255) as u8 + 1; 512]);
        }
        kept_the_rules(&soft);
    }
}

#[test]
fn c26_a_time_out_frees_nothing_and_late_answers_are_dropped() {
    let image = image(4096);
    let mut wish = small();
    wish.timeout = SHORT;
    let lies = [DeviceLie::Stalls];
    let (soft, block) = open(MODERN, builder(&image).lies(lies), Run::Inline, wish);
    let mut late = vec![0; 1 << 20];
    // Four buffers: the second call finds none.
    for _ in 0..3 {
        let error = block.read(0, &mut late).unwrap_err();
        assert!(matches!(error.kind(), Error::Timeout { .. }), "{error}");
    }
    let pool = block.device().pool(1, 512).unwrap();
    assert!(block.read_into(512, pool.take().unwrap()).is_err());
    assert_eq!(pool.free(), 0, "the device may still write to it");
    soft.be_honest().unwrap();
    assert_eq!(soft.report().chains, 5);
    assert_eq!(late, vec![0; 1 << 20], "no late answer is written to the caller");
    let mut sector = [0; 512];
    block.read(100 * 512, &mut sector).unwrap();
    assert_eq!(sector, [101; 512]);
    assert_eq!(pool.free(), 1, "its late answer was taken");
    let mut all = vec![0; 4096 * 512];
    block.read(0, &mut all).unwrap();
    assert!(all == *image.lock().unwrap(), "every buffer is in use again, and none twice");
    kept_the_rules(&soft);
}

#[test]
fn what_is_in_flight_at_the_end_of_the_driver_is_kept_until_the_reset() {
    let mut wish = small();
    wish.timeout = SHORT;
    let builder = builder(&image(4096)).lies([DeviceLie::Stalls]);
    let (_soft, block) = open(MODERN, builder, Run::Inline, wish);
    let pool = block.device().pool(1, 512).unwrap();
    assert!(block.read_into(512, pool.take().unwrap()).is_err());
    let device = block.into_device();
    assert_ne!(device.memory().quarantine().tally().count, 0);
    assert_eq!(pool.free(), 0);
    device.reset().unwrap();
    assert_eq!((device.memory().quarantine().tally().count, pool.free()), (0, 1));
}

#[test]
fn c3_a_device_that_asks_for_a_reset_is_set_up_again() {
    for way in ways() {
        let image = image(4096);
        let lies = [DeviceLie::NeedsReset { after: 3 }];
        let (soft, block) = open(way, builder(&image).lies(lies), Run::Thread, small());
        let error = block.read(0, &mut vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), &Error::DeviceNeedsReset, "{way:?}");
        let device = block.into_device();
        soft.be_honest().unwrap();
        device.reset().unwrap();
        let block = Block::new(device, small()).unwrap();
        let mut all = vec![0; 4096 * 512];
        block.read(0, &mut all).unwrap();
        assert!(all == *image.lock().unwrap());
        block.close().unwrap();
        assert!(matches!(block.read(0, &mut all).unwrap_err().kind(), Error::Closed { .. }));
        kept_the_rules(&soft);
    }
}

#[test]
fn d23_a_device_that_is_gone_says_so() {
    for way in ways() {
        let mut wish = small();
        wish.timeout = SHORT;
        let (soft, block) = open(way, builder(&image(64)), Run::Inline, wish);
        soft.tell(DeviceLie::AllOnes).unwrap();
        // It may have done what it was asked while it went; from then on it is known to be gone.
        let error = block.read(0, &mut [0; 512]).unwrap_err();
        let went = matches!(error.kind(), Error::Indeterminate { .. } | Error::DeviceGone { .. });
        assert!(went, "{way:?}: {error}");
        let error = block.read(0, &mut [0; 512]).unwrap_err();
        assert!(matches!(error.kind(), Error::DeviceGone { .. }), "{way:?}: {error}");
    }
}
