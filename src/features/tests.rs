use super::negotiation::Rule;
use super::*;
use crate::error::Error;
use proptest::collection::vec;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;

/// A device type of which the specification says nothing.
const UNKNOWN: DeviceType = DeviceType(4711);
const MODERN: Features = Features::VERSION_1;

fn bits(bits: &[u8]) -> Features {
    bits.iter().copied().map(Features::from_bit).collect()
}

fn dropped(negotiated: &Negotiated, bit: u8) -> Reason {
    match negotiated.answer(bit).outcome {
        Outcome::Dropped(reason) => reason,
        Outcome::Accepted => panic!("bit {bit} is accepted"),
    }
}

fn missing(result: Result<Negotiated, Error>) -> String {
    match result {
        Err(Error::MissingFeatures { missing, .. }) => missing.into(),
        other => panic!("not MissingFeatures: {other:?}"),
    }
}

/// Bits of an invented device type: 1 needs 0, 2 needs 1, 3 needs one of 1 and 2, 4 and 5 need each other,
/// 6 needs 7 and 7 needs 6 and 8; 9 is legacy; 10 is not defined. Others need nothing.
fn invented(bit: u8) -> Rule {
    let requires: &'static [u8] = match bit {
        1 => &[0],
        2 => &[1],
        4 => &[5],
        5 => &[4],
        6 => &[7],
        7 => &[6, 8],
        _ => &[],
    };
    let requires_any: &'static [u8] = if bit == 3 { &[1, 2] } else { &[] };
    Rule { defined: bit != 10, legacy: bit == 9, requires, requires_any }
}

fn invent(offered: Features, wanted: Features) -> Negotiated {
    Negotiation::new(UNKNOWN, offered | MODERN)
        .want(Origin::Driver, wanted)
        .resolve_by(&invented)
        .expect("nothing is required")
}

mod set {
    use super::*;

    #[test]
    fn each_bit_is_its_number_in_the_words() {
        for bit in 0..128_u8 {
            let one = Features::from_bit(bit);
            assert_eq!(one, Features::try_from_bit(bit).expect("below 128"));
            let words = one.words();
            for (index, word) in words.into_iter().enumerate() {
                let expected = if index == usize::from(bit / 32) { 1 << (bit % 32) } else { 0 };
                assert_eq!(word, expected, "bit {bit}, word {index}");
            }
            assert_eq!(Features::from_words(words), one);
            assert_eq!(one.iter().collect::<Vec<_>>(), [bit]);
            assert!(one.has(bit) && one.len() == 1 && !one.is_empty());
        }
    }

    #[test]
    fn there_is_no_bit_above_127() {
        for bit in 128..=255 {
            assert_eq!(Features::try_from_bit(bit), None);
            assert!(!Features(u128::MAX).has(bit));
        }
        assert!(std::panic::catch_unwind(|| Features::from_bit(128)).is_err());
    }

    #[test]
    fn constants_are_the_bits_of_the_reserved_table() {
        let named = [
            (Features::NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY"),
            (Features::ANY_LAYOUT, "ANY_LAYOUT"),
            (Features::INDIRECT_DESC, "INDIRECT_DESC"),
            (Features::EVENT_IDX, "EVENT_IDX"),
            (Features::VERSION_1, "VERSION_1"),
            (Features::ACCESS_PLATFORM, "ACCESS_PLATFORM"),
            (Features::RING_PACKED, "RING_PACKED"),
            (Features::IN_ORDER, "IN_ORDER"),
            (Features::ORDER_PLATFORM, "ORDER_PLATFORM"),
            (Features::SR_IOV, "SR_IOV"),
            (Features::NOTIFICATION_DATA, "NOTIFICATION_DATA"),
            (Features::NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA"),
            (Features::RING_RESET, "RING_RESET"),
            (Features::ADMIN_VQ, "ADMIN_VQ"),
            (Features::SUSPEND, "SUSPEND"),
        ];
        for (features, name) in named {
            assert_eq!(features.names(UNKNOWN).to_string(), name);
        }
        // Bit 30 has no constant: nobody may ask for it.
        assert_eq!(named.len() + 1, feature::RESERVED.len());
    }

    #[test]
    fn names_join_known_and_unknown_bits_lowest_first() {
        let features = bits(&[127, 77, 32, 29, 25]);
        assert_eq!(features.names(UNKNOWN).to_string(), "bit 25|EVENT_IDX|VERSION_1|bit 77|bit 127");
        assert_eq!(Features::EMPTY.names(UNKNOWN).to_string(), "none");
    }

    #[test]
    fn debug_shows_the_number() {
        assert_eq!(std::format!("{:?}", Features::VERSION_1), "Features(0x100000000)");
    }

    proptest! {
        #[test]
        fn operations_are_those_of_sets(a: u128, b: u128) {
            let (x, y) = (Features(a), Features(b));
            prop_assert_eq!((x | y).0, a | b);
            prop_assert_eq!((x & y).0, a & b);
            prop_assert_eq!((x - y).0, a & !b);
            let (mut or, mut and, mut sub) = (x, x, x);
            or |= y;
            and &= y;
            sub -= y;
            prop_assert_eq!((or, and, sub), (x | y, x & y, x - y));
            prop_assert_eq!(x.contains(y), (x & y) == y);
            prop_assert_eq!(x.intersects(y), a & b != 0);
            prop_assert_eq!(Features::from_words(x.words()), x);
            prop_assert_eq!(x.iter().len(), x.len() as usize);
            prop_assert!(x.iter().is_sorted());
            prop_assert_eq!(x.iter().map(Features::from_bit).collect::<Features>(), x);
        }
    }
}

mod negotiate;

/// The tables of the device types, as the specification gives them.
mod tables {
    use super::*;
    use crate::spec::device::{self, net::feature as net};

    #[test]
    fn s5_1_3_1_net_offloads_fall_with_the_checksum_they_require() {
        let offered = bits(&[net::GUEST_TSO4, net::GUEST_TSO6, net::GUEST_ECN, net::MAC]) | MODERN;
        let negotiated = Negotiation::new(DeviceType::NET, offered)
            .want(Origin::Driver, offered | bits(&[net::GUEST_CSUM]))
            .resolve()
            .expect("nothing is required");
        assert_eq!(negotiated.accepted().names(DeviceType::NET).to_string(), "MAC|VERSION_1");
        assert_eq!(dropped(&negotiated, net::GUEST_TSO4), Reason::DependencyMissing(net::GUEST_CSUM));
        assert_eq!(dropped(&negotiated, net::GUEST_ECN), Reason::NoneOf(&[net::GUEST_TSO4, net::GUEST_TSO6]));
    }

    #[test]
    fn s5_1_3_1_one_segmentation_offload_is_enough_for_ecn() {
        let all = bits(&[net::GUEST_CSUM, net::GUEST_TSO6, net::GUEST_ECN]) | MODERN;
        let negotiated = Negotiation::new(DeviceType::NET, all)
            .require(Origin::Driver, all)
            .resolve()
            .expect("all is there");
        assert_eq!(negotiated.accepted(), all);
    }

    #[test]
    fn a_required_net_feature_is_missing_by_name_back_to_the_first_cause() {
        let result = Negotiation::new(DeviceType::NET, bits(&[net::GUEST_TSO4, net::MQ]) | MODERN)
            .require(Origin::Caller, bits(&[net::GUEST_TSO4, net::MQ]))
            .want(Origin::Driver, bits(&[net::GUEST_CSUM]))
            .resolve();
        assert_eq!(
            missing(result),
            "GUEST_TSO4 (required by caller): requires GUEST_CSUM, \
             GUEST_CSUM (wanted by driver): not offered; \
             MQ (required by caller): requires CTRL_VQ, CTRL_VQ: not offered"
        );
    }

    #[test]
    fn s2_2_1_a_bit_that_the_device_type_does_not_have_is_not_accepted() {
        let all = Features(u128::MAX);
        let negotiated = Negotiation::new(DeviceType::ENTROPY, all)
            .want(Origin::Caller, all)
            .resolve()
            .expect("nothing is required");
        for bit in (0..=23).chain([42]).chain(50..=127) {
            assert_eq!(dropped(&negotiated, bit), Reason::Undefined, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_never_lacks_what_its_table_requires(
            index in 0..device::all().len(), offered: u128, wanted: u128, modern: bool,
        ) {
            let device_type = device::all()[index].device_type;
            let version = if modern { MODERN } else { Features::EMPTY };
            let offered = (Features(offered) - MODERN) | version;
            let negotiated = Negotiation::new(device_type, offered)
                .want(Origin::Driver, Features(wanted))
                .resolve()
                .expect("nothing is required");
            let accepted = negotiated.accepted();
            prop_assert!(offered.contains(accepted));
            for bit in accepted {
                let known = feature::lookup(device_type, bit).expect("only named bits are accepted");
                prop_assert!(accepted.contains(bits(known.requires)), "{}", known.name);
                prop_assert!(
                    known.requires_any.is_empty() || accepted.intersects(bits(known.requires_any)),
                    "{}", known.name
                );
                prop_assert!(!(known.legacy && modern), "{}", known.name);
                prop_assert!(modern || bit < 32, "{}", known.name);
            }
        }
    }
}

mod closure {
    use super::*;

    /// Random rules for bits 0 to 11, drawn from fixed lists, for rules live as long as the program.
    const LISTS: [&[u8]; 8] = [&[], &[], &[0], &[1, 2], &[3], &[11], &[5, 7], &[9, 4, 10]];

    type Table = Vec<(usize, usize, bool)>;

    fn table() -> impl Strategy<Value = Table> {
        vec((0..LISTS.len(), 0..LISTS.len(), proptest::bool::weighted(0.1)), 12)
    }

    fn rule(table: &Table, bit: u8) -> Rule {
        let (all, any, legacy) = table.get(usize::from(bit)).copied().unwrap_or((0, 0, false));
        Rule { defined: true, legacy, requires: LISTS[all], requires_any: LISTS[any] }
    }

    fn holds(rule: Rule, accepted: Features) -> bool {
        rule.requires.iter().all(|needed| accepted.has(*needed))
            && (rule.requires_any.is_empty() || rule.requires_any.iter().any(|one| accepted.has(*one)))
            && !(rule.legacy && accepted.contains(MODERN))
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_closed_and_nothing_could_be_added(
            table in table(), offered in 0..0x1000_u128, wanted in 0..0x1000_u128, modern: bool,
        ) {
            let version = if modern { MODERN } else { Features::EMPTY };
            let (offered, wanted) = (Features(offered) | version, Features(wanted));
            let negotiated = Negotiation::new(UNKNOWN, offered)
                .want(Origin::Caller, wanted)
                .resolve_by(&|bit| rule(&table, bit))
                .expect("nothing is required");
            let accepted = negotiated.accepted();
            let candidates = (offered & wanted) | version;
            prop_assert!(candidates.contains(accepted));
            for bit in accepted {
                prop_assert!(holds(rule(&table, bit), accepted), "bit {} lacks something", bit);
            }
            // The largest such set: every subset of what is left that is closed with the rest is empty.
            let left: Vec<u8> = (candidates - accepted).iter().collect();
            for subset in 1..1_u32 << left.len() {
                let more: Features = (0..left.len())
                    .filter(|index| subset >> index & 1 == 1)
                    .map(|index| Features::from_bit(left[index]))
                    .collect();
                prop_assert!(
                    !more.iter().all(|bit| holds(rule(&table, bit), accepted | more)),
                    "{:?} could be accepted beside {:?}", more, accepted
                );
            }
        }

        #[test]
        fn every_bit_has_an_answer_that_leads_to_a_first_cause(
            table in table(), offered in 0..0x1000_u128, wanted in 0..0x1000_u128,
        ) {
            let negotiation = Negotiation::new(UNKNOWN, Features(offered) | MODERN)
                .want(Origin::Caller, Features(wanted));
            let negotiated = negotiation.resolve_by(&|bit| rule(&table, bit)).expect("nothing is required");
            for answer in negotiated.answers() {
                let mut outcome = answer.outcome;
                let mut steps = 0;
                while let Outcome::Dropped(Reason::DependencyMissing(needed)) = outcome {
                    outcome = negotiated.answer(needed).outcome;
                    prop_assert_ne!(outcome, Outcome::Accepted);
                    steps += 1;
                    prop_assert!(steps <= 12, "reasons go round in a circle");
                }
                if let Outcome::Dropped(Reason::NoneOf(bits)) = outcome {
                    prop_assert!(bits.iter().all(|bit| !negotiated.accepted().has(*bit)));
                }
            }
        }

        #[test]
        fn a_negotiation_fails_exactly_where_a_required_bit_is_not_accepted(
            offered: u128, wanted: u128, required in vec(0..128_u8, 0..3),
        ) {
            let negotiation = || Negotiation::new(UNKNOWN, Features(offered));
            let required = bits(&required);
            let all = Features(wanted) | required;
            let as_wish = negotiation().want(Origin::Caller, all).resolve().expect("nothing is required");
            let result =
                negotiation().want(Origin::Caller, all).require(Origin::Driver, required).resolve();
            prop_assert_eq!(result.is_ok(), as_wish.contains(required));
            if let Ok(negotiated) = result {
                prop_assert_eq!(negotiated.accepted(), as_wish.accepted());
            }
        }
    }
}
