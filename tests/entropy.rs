//! The entropy driver over software devices behind every interface (VIRTIO 1.4 §5.4).
#![cfg(all(feature = "soft", not(loom)))]

mod driver_common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use driver_common::{MODERN, SHORT, SOON, kept_the_rules, rings, ways};
use virtio::Error;
use virtio::drivers::Entropy;
use virtio::features::Features;
use virtio::soft::{self, DeviceLie, DeviceModel, Reply, Request, Run, SoftDevice};
use virtio::spec::DeviceType;

/// What the device gives at first.
fn first_bytes(len: usize) -> Vec<u8> {
    let (_soft, device) = MODERN.open(SoftDevice::builder(soft::Entropy::new(7)), Run::Inline);
    let mut bytes = vec![0; len];
    Entropy::new(device, SOON).unwrap().fill(&mut bytes).unwrap();
    bytes
}

fn lying(lie: DeviceLie, timeout: Duration) -> (SoftDevice, Entropy) {
    let (soft, device) = MODERN.open(SoftDevice::builder(soft::Entropy::new(7)).lies([lie]), Run::Inline);
    (soft, Entropy::new(device, timeout).unwrap())
}

#[test]
fn s5_4_6_bytes_come_behind_every_interface() {
    let wanted = first_bytes(10_000);
    for way in ways() {
        for withheld in rings() {
            for run in [Run::Thread, Run::Inline] {
                let builder = SoftDevice::builder(soft::Entropy::new(7)).withhold(withheld);
                let (soft, device) = way.open(builder, run);
                let mut entropy = Entropy::new(device, SOON).unwrap();
                let event_idx = entropy.device().features().contains(Features::EVENT_IDX);
                assert_eq!(event_idx, !withheld.contains(Features::EVENT_IDX), "V21: taken where offered");
                let mut bytes = vec![0; 10_000];
                entropy.fill(&mut bytes).unwrap();
                // A request of 1,808 bytes at the end, of 4,096 before: the device draws as many.
                assert!(bytes == wanted, "{way:?} {withheld:?} {run:?}");
                entropy.device().close().unwrap();
                kept_the_rules(&soft);
            }
        }
    }
}

#[test]
fn s5_4_6_1_the_used_length_tells_how_many_bytes_there_are() {
    for most in [1, 7, 4095] {
        let builder = SoftDevice::builder(soft::Entropy::new(7).at_most(most));
        let (soft, device) = MODERN.open(builder, Run::Thread);
        let mut entropy = Entropy::new(device, SOON).unwrap();
        let mut bytes = [0; 5000];
        assert_eq!(entropy.read(&mut bytes).unwrap() as u64, most);
        assert!(bytes[most as usize..].iter().all(|&byte| byte == 0), "nothing beyond it is touched");
        entropy.fill(&mut bytes).unwrap();
        assert!(soft.report().chains > 5000 / most);
        assert_eq!(entropy.read(&mut []).unwrap(), 0);
        kept_the_rules(&soft);
    }
}

#[test]
fn d10_answers_without_a_byte_end_in_an_error_after_a_few() {
    let (soft, mut entropy) = lying(DeviceLie::UsedLen(0), SOON);
    let error = entropy.fill(&mut [0; 32]).unwrap_err();
    assert_eq!(error.kind(), &Error::ShortReply { need: 1, got: 0 });
    assert!((1..=64).contains(&soft.report().chains));
    soft.be_honest().unwrap();
    entropy.fill(&mut [0; 32]).unwrap();
}

#[test]
fn d9_a_length_above_the_buffer_gives_the_buffer_alone() {
    let (_soft, mut entropy) = lying(DeviceLie::UsedLen(u32::MAX), SOON);
    let mut bytes = [0; 64];
    assert_eq!(entropy.read(&mut bytes[..32]).unwrap(), 32);
    assert_eq!((&bytes[..32], &bytes[32..]), (&first_bytes(32)[..], &[0; 32][..]));
}

/// An entropy device that numbers its answers from 1 on, each filled with its number; waits while it is not open,
/// and claims all bytes but writes none after `honest` answers.
#[derive(Debug)]
struct Counting {
    open: Arc<AtomicBool>,
    answers: u8,
    honest: u8,
}

impl DeviceModel for Counting {
    fn device_type(&self) -> DeviceType {
        DeviceType::ENTROPY
    }

    fn queues(&self) -> u16 {
        1
    }

    fn handle(&mut self, request: &mut Request<'_>) -> virtio::Result<Reply> {
        if !self.open.load(Ordering::Acquire) {
            return Ok(Reply::Wait);
        }
        self.answers += 1;
        let len = request.writable_len();
        if self.answers <= self.honest {
            request.fill(0, len as usize, self.answers)?;
        }
        Ok(Reply::Used(len as u32))
    }
}

#[test]
fn d9_bytes_that_were_not_written_are_no_earlier_ones() {
    let model = Counting { open: Arc::new(AtomicBool::new(true)), answers: 0, honest: 8 };
    let (_soft, device) = MODERN.open(SoftDevice::builder(model), Run::Inline);
    let mut entropy = Entropy::new(device, SOON).unwrap();
    for number in 1..=16 {
        let mut bytes = [0xaa; 64];
        assert_eq!(entropy.read(&mut bytes).unwrap(), 64);
        assert_eq!(bytes, [if number <= 8 { number } else { 0 }; 64]);
    }
}

#[test]
fn an_answer_that_comes_late_in_the_next_call_is_not_taken_for_its_own() {
    let open = Arc::new(AtomicBool::new(false));
    let model = Counting { open: Arc::clone(&open), answers: 0, honest: 255 };
    let (_soft, device) = MODERN.open(SoftDevice::builder(model), Run::Inline);
    let mut entropy = Entropy::new(device, SHORT).unwrap();
    assert!(matches!(entropy.read(&mut [0; 8]).unwrap_err().kind(), Error::Timeout { .. }));
    // The device answers the first request when it is notified of the second.
    open.store(true, Ordering::Release);
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes).unwrap();
    assert_eq!(bytes, [2; 8]);
}

#[test]
fn c26_a_silent_device_is_a_timeout_and_late_answers_are_dropped() {
    let (soft, mut entropy) = lying(DeviceLie::Stalls, SHORT);
    // More than there are buffers: the last ones are not even asked for.
    for _ in 0..6 {
        let error = entropy.fill(&mut [0; 16]).unwrap_err();
        assert!(matches!(error.kind(), Error::Timeout { .. }), "{error}");
    }
    assert_eq!(soft.report().chains, 0);
    soft.be_honest().unwrap();
    assert_eq!(soft.report().chains, 4, "every buffer was asked for once");
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes).unwrap();
    // The device draws 512 bytes for each answer, and gives 16.
    assert_eq!(bytes[..], first_bytes(2064)[2048..], "not one of the four answers that came late");
    kept_the_rules(&soft);
}

#[test]
fn another_device_is_refused() {
    let (_soft, device) = MODERN.open(SoftDevice::builder(soft::Block::zeroes(8)), Run::Inline);
    assert!(matches!(Entropy::new(device, SOON).unwrap_err().kind(), Error::Misuse { .. }));
}
