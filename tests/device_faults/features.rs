//! Feature bits.

use virtio::Error;
use virtio::device::Phase;
use virtio::features::Features;
use virtio::soft::DeviceLie;
use virtio::spec::Status;

use crate::rig::*;

#[track_caller]
fn given_up(soft: &virtio::soft::SoftDevice, device: &virtio::device::Device) {
    assert_eq!(device.phase(), Phase::Failed);
    assert!(Status::from_bits_retain(soft.report().status).contains(Status::FAILED));
}

each!(c4_p7_features_ok_not_sticky(way) on modern {
    let soft = lying(way, DeviceLie::FeaturesOkNotSticky);
    let device = open(way, &soft).unwrap();
    fails!(device.negotiate(Features::EMPTY, Features::EMPTY), Error::FeaturesRejected { .. });
    given_up(&soft, &device);
    kept_the_rules(&soft);
});

each!(c5_packed_without_version_1_is_refused(way) on modern {
    let soft = lying(way, DeviceLie::Offers(Features::RING_PACKED));
    let device = open(way, &soft).unwrap();
    fails!(device.negotiate(Features::RING_PACKED, Features::EMPTY), Error::MissingFeatures { .. });
    given_up(&soft, &device);
});

each!(c5_a_required_feature_that_is_not_offered_fails_the_open(way) on all {
    let base = if way.legacy() { Features::EMPTY } else { Features::VERSION_1 };
    let soft = lying(way, DeviceLie::Offers(base));
    let device = open(way, &soft).unwrap();
    fails!(device.negotiate(Features::EMPTY, Features::EVENT_IDX), Error::MissingFeatures { .. });
    given_up(&soft, &device);
});

each!(c5_what_was_negotiated_stays_whatever_is_offered_later(way) on all {
    let soft = build(way, console());
    let device = negotiated(way, &soft).unwrap();
    let accepted = device.features();
    assert!(accepted.contains(Features::EVENT_IDX));
    soft.tell(DeviceLie::Offers(Features::EMPTY)).unwrap();
    let mut queues = start(&device).unwrap();
    send(&device, &mut queues[1]).unwrap();
    soft.tell(DeviceLie::OffersFlicker(Features::EVENT_IDX)).unwrap();
    send(&device, &mut queues[1]).unwrap();
    assert_eq!(device.features(), accepted);
});

each!(c6_a_modern_interface_without_version_1_is_refused(way) on modern {
    let soft = lying(way, DeviceLie::NoVersion1);
    let device = open(way, &soft).unwrap();
    fails!(device.negotiate(Features::EMPTY, Features::EMPTY), Error::MissingFeatures { .. });
    given_up(&soft, &device);
});

each!(c27_feature_words_that_echo_word_1_offer_nothing_above_63(way) on [mmio] {
    let soft = lying(way, DeviceLie::FeatureWordsEcho);
    let device = open(way, &soft).unwrap();
    assert_eq!(device.offered().unwrap().0 >> 64, 0);
    device.negotiate(Features(u128::MAX) - Features::RING_RESET, Features::EMPTY).unwrap();
    assert!(soft.report().accepted.contains(Features::VERSION_1));
    let mut queues = start(&device).unwrap();
    send(&device, &mut queues[1]).unwrap();
});
