//! What is in use of what was offered, wanted and required, and the reasons.

use super::*;

#[test]
fn s2_2_1_a_feature_that_is_not_offered_is_not_accepted() {
    let negotiated = Negotiation::new(UNKNOWN, MODERN)
        .want(Origin::Caller, Features::EVENT_IDX)
        .resolve()
        .expect("nothing is required");
    assert_eq!(negotiated.accepted(), MODERN);
    assert_eq!(dropped(&negotiated, feature::EVENT_IDX), Reason::NotOffered);
}

#[test]
fn a_feature_that_nobody_asked_for_is_not_accepted() {
    let negotiated = invent(bits(&[0, 20]), bits(&[0]));
    assert_eq!(negotiated.accepted(), bits(&[0]) | MODERN);
    assert_eq!(dropped(&negotiated, 20), Reason::NotWanted);
    assert_eq!(dropped(&negotiated, 21), Reason::NotOffered);
    assert_eq!(dropped(&negotiated, 255), Reason::NotOffered);
}

#[test]
fn s2_2_1_reserved_and_undefined_bits_are_never_accepted() {
    // Of an unspecified type only the bits that are the type's own are the caller's business.
    let all = Features(u128::MAX);
    let negotiated =
        Negotiation::new(UNKNOWN, all).want(Origin::Caller, all).resolve().expect("nothing is required");
    for bit in (24..=49).filter(|bit| *bit != 42) {
        let known = feature::RESERVED.iter().find(|entry| entry.bit == bit);
        match known {
            Some(entry) if bit == feature::UNUSED => {
                assert_eq!(dropped(&negotiated, bit), Reason::Undefined, "{}", entry.name);
            }
            Some(entry) if entry.legacy => {
                assert_eq!(dropped(&negotiated, bit), Reason::LegacyOnly, "{}", entry.name);
            }
            Some(entry) => assert!(negotiated.accepted().has(bit), "{}", entry.name),
            None => assert_eq!(dropped(&negotiated, bit), Reason::Undefined, "bit {bit}"),
        }
    }
    for bit in (0..=23).chain([42]).chain(50..=127) {
        assert!(negotiated.accepted().has(bit), "bit {bit}");
    }
    assert_eq!(dropped(&invent(bits(&[10]), bits(&[10])), 10), Reason::Undefined);
}

#[test]
fn s6_1_version_1_is_accepted_wherever_it_is_offered() {
    let negotiated = Negotiation::new(UNKNOWN, MODERN).resolve().expect("nothing is required");
    assert_eq!(negotiated.accepted(), MODERN);
    let answer = negotiated.answer(feature::VERSION_1);
    assert!(answer.wanted_by().eq([Origin::Transport]));
    let legacy = Negotiation::new(UNKNOWN, MODERN)
        .refuse(Origin::Transport, MODERN, "the interface is legacy")
        .resolve()
        .expect("nothing is required");
    assert_eq!(legacy.accepted(), Features::EMPTY);
}

#[test]
fn s6_3_any_layout_is_accepted_on_the_legacy_interface_only() {
    let legacy = Negotiation::new(UNKNOWN, Features::ANY_LAYOUT).resolve().expect("nothing is required");
    assert_eq!(legacy.accepted(), Features::ANY_LAYOUT);
    let modern =
        Negotiation::new(UNKNOWN, Features::ANY_LAYOUT | MODERN).resolve().expect("nothing is required");
    assert_eq!(modern.accepted(), MODERN);
    assert_eq!(dropped(&modern, feature::ANY_LAYOUT), Reason::LegacyOnly);
}

#[test]
fn legacy_bits_of_a_device_type_go_with_version_1() {
    assert_eq!(dropped(&invent(bits(&[9]), bits(&[9])), 9), Reason::LegacyOnly);
    let legacy = Negotiation::new(UNKNOWN, bits(&[9]))
        .want(Origin::Driver, bits(&[9]))
        .resolve_by(&invented)
        .expect("nothing is required");
    assert_eq!(legacy.accepted(), bits(&[9]));
}

#[test]
fn c5_packed_without_version_1_is_not_accepted() {
    let offered = Features::RING_PACKED | Features::EVENT_IDX | Features::INDIRECT_DESC;
    let negotiated = Negotiation::new(UNKNOWN, offered)
        .want(Origin::Caller, offered)
        .resolve()
        .expect("nothing is required");
    assert_eq!(negotiated.accepted(), Features::EVENT_IDX | Features::INDIRECT_DESC);
    assert_eq!(dropped(&negotiated, feature::RING_PACKED), Reason::DependencyMissing(feature::VERSION_1));
}

#[test]
fn c5_a_required_packed_without_version_1_fails_by_name() {
    let result = Negotiation::new(UNKNOWN, Features::RING_PACKED | Features::EVENT_IDX)
        .require(Origin::Caller, Features::RING_PACKED)
        .resolve();
    let Err(Error::MissingFeatures { missing, required, offered }) = result else { panic!("{result:?}") };
    assert_eq!(&*missing, "RING_PACKED (required by caller): requires VERSION_1, VERSION_1: not offered");
    assert_eq!((&*required, &*offered), ("RING_PACKED", "EVENT_IDX|RING_PACKED"));
}

#[test]
fn c6_a_modern_transport_fails_without_version_1() {
    let result = Negotiation::new(UNKNOWN, Features::EVENT_IDX)
        .require(Origin::Transport, Features::VERSION_1)
        .resolve();
    assert_eq!(missing(result), "VERSION_1 (required by transport): not offered");
}

#[test]
fn no_bit_above_31_is_accepted_without_version_1() {
    let all = Features(u128::MAX) - MODERN;
    let negotiated =
        Negotiation::new(UNKNOWN, all).want(Origin::Caller, all).resolve().expect("nothing is required");
    assert!(Features::LEGACY_MASK.contains(negotiated.accepted()), "{:?}", negotiated.accepted());
    assert_eq!(dropped(&negotiated, 77), Reason::DependencyMissing(feature::VERSION_1));
    assert!(negotiated.contains(bits(&[0, 23]) | Features::NOTIFY_ON_EMPTY));
}

#[test]
fn s2_2_1_a_dependency_that_is_not_accepted_drops_what_requires_it_transitively() {
    // Offered, but bit 0 was not asked for.
    let negotiated = invent(bits(&[0, 1, 2, 3]), bits(&[1, 2, 3]));
    assert_eq!(negotiated.accepted(), MODERN);
    assert_eq!(dropped(&negotiated, 0), Reason::NotWanted);
    assert_eq!(dropped(&negotiated, 1), Reason::DependencyMissing(0));
    assert_eq!(dropped(&negotiated, 2), Reason::DependencyMissing(1));
    assert_eq!(dropped(&negotiated, 3), Reason::NoneOf(&[1, 2]));
    // Asked for, but bit 0 is not offered.
    let negotiated = invent(bits(&[1, 2]), bits(&[0, 1, 2]));
    assert_eq!(negotiated.accepted(), MODERN);
    assert_eq!(dropped(&negotiated, 0), Reason::NotOffered);
    // All there.
    let all = bits(&[0, 1, 2, 3]);
    assert_eq!(invent(all, all).accepted(), all | MODERN);
}

#[test]
fn one_of_several_dependencies_is_enough_where_the_rule_says_one_of() {
    let wanted = bits(&[0, 1, 3]);
    assert_eq!(invent(wanted, wanted).accepted(), wanted | MODERN);
}

#[test]
fn features_that_require_each_other_stand_or_fall_together() {
    let both = bits(&[4, 5]);
    assert_eq!(invent(both, both).accepted(), both | MODERN);
    assert_eq!(invent(both, bits(&[4])).accepted(), MODERN);
}

#[test]
fn a_failing_circle_of_requirements_is_explained_once() {
    let result = Negotiation::new(UNKNOWN, bits(&[6, 7]) | MODERN)
        .require(Origin::Driver, bits(&[6, 7]))
        .resolve_by(&invented);
    assert_eq!(
        missing(result),
        "bit 6 (required by driver): requires bit 7, bit 7 (required by driver): requires bit 8, \
         bit 8: not offered; bit 7 (required by driver): requires bit 8, bit 8: not offered"
    );
}

#[test]
fn a_refusal_overrules_every_wish_and_takes_what_requires_it_along() {
    let all = bits(&[0, 1]);
    let negotiation = Negotiation::new(UNKNOWN, all | MODERN)
        .refuse(Origin::Transport, bits(&[0, 50]), "no room for it")
        .refuse(Origin::Driver, bits(&[0]), "a later reason")
        .want(Origin::Caller, all);
    let negotiated = negotiation.clone().resolve_by(&invented).expect("nothing is required");
    assert_eq!(negotiated.accepted(), MODERN);
    let refused = Reason::Refused { by: Origin::Transport, why: "no room for it" };
    assert_eq!(dropped(&negotiated, 0), refused);
    assert_eq!(dropped(&negotiated, 1), Reason::DependencyMissing(0));
    assert_eq!(dropped(&negotiated, 50), Reason::NotOffered);
    let result = negotiation.require(Origin::Driver, bits(&[1])).resolve_by(&invented);
    assert_eq!(
        missing(result),
        "bit 1 (required by driver, wanted by caller): requires bit 0, \
         bit 0 (wanted by caller): refused by transport: no room for it"
    );
}

#[test]
fn answers_name_everybody_who_asked() {
    let negotiated = Negotiation::new(UNKNOWN, MODERN | Features::EVENT_IDX | Features::IN_ORDER)
        .want(Origin::Caller, Features::EVENT_IDX | Features::RING_PACKED)
        .want(Origin::Driver, Features::EVENT_IDX)
        .require(Origin::Transport, MODERN)
        .resolve()
        .expect("VERSION_1 is offered");
    let event_idx = negotiated.answer(feature::EVENT_IDX);
    assert_eq!(event_idx.outcome, Outcome::Accepted);
    assert!(event_idx.wanted_by().eq([Origin::Caller, Origin::Driver]));
    assert_eq!(event_idx.required_by().count(), 0);
    assert!(negotiated.answer(feature::VERSION_1).required_by().eq([Origin::Transport]));
    let lines: Vec<String> = negotiated.answers().map(|answer| answer.to_string()).collect();
    assert_eq!(
        lines,
        [
            "EVENT_IDX (wanted by caller, wanted by driver): accepted",
            "VERSION_1 (required by transport, wanted by transport): accepted",
            "RING_PACKED (wanted by caller): not offered",
            "IN_ORDER: not asked for",
        ]
    );
}

#[test]
fn every_reason_has_a_text() {
    let negotiated = invent(bits(&[1, 3, 9, 10]), bits(&[1, 3, 9, 10]));
    let lines: Vec<String> =
        [1, 3, 9, 10].into_iter().map(|bit| negotiated.answer(bit).to_string()).collect();
    assert_eq!(
        lines,
        [
            "bit 1 (wanted by driver): requires bit 0",
            "bit 3 (wanted by driver): requires one of bit 1 bit 2",
            "bit 9 (wanted by driver): only for the legacy interface",
            "bit 10 (wanted by driver): not defined for this device type",
        ]
    );
}
