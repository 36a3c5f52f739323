//! Which of the offered features are accepted, who asked for them, and why the others are not
//! (VIRTIO 1.4 §2.2.1).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{BitName, Features};
use crate::error::{Error, Result};
use crate::spec::DeviceType;
use crate::spec::feature;

/// Who asks for a feature, or refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The user of this crate.
    Caller,
    /// The driver of the device type.
    Driver,
    /// The transport, and on its behalf the specification itself.
    Transport,
}

impl Origin {
    /// Every origin.
    pub const ALL: [Self; 3] = [Self::Caller, Self::Driver, Self::Transport];
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Driver => "driver",
            Self::Transport => "transport",
        })
    }
}

/// Why a feature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The device does not offer it.
    NotOffered,
    /// The device offers it, and nobody asked for it.
    NotWanted,
    /// Somebody ruled it out.
    Refused {
        /// Who did.
        by: Origin,
        /// Why.
        why: &'static str,
    },
    /// The specification reserves the bit, or gives it no meaning for this device type; such a bit must not
    /// be accepted (VIRTIO 1.4 §2.2.1).
    Undefined,
    /// Only the legacy interface has it, and the device is not used through that: VERSION_1 is accepted.
    LegacyOnly,
    /// It requires the feature of this bit number, which is not accepted.
    DependencyMissing(u8),
    /// It requires one of the features of these bit numbers, none of which is accepted.
    NoneOf(&'static [u8]),
}

/// What became of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in use.
    Accepted,
    /// It is not in use.
    Dropped(Reason),
}

/// Features that each origin asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Asked {
    caller: Features,
    driver: Features,
    transport: Features,
}

impl Asked {
    fn of(&self, origin: Origin) -> Features {
        match origin {
            Origin::Caller => self.caller,
            Origin::Driver => self.driver,
            Origin::Transport => self.transport,
        }
    }

    fn insert(&mut self, origin: Origin, features: Features) {
        match origin {
            Origin::Caller => self.caller.insert(features),
            Origin::Driver => self.driver.insert(features),
            Origin::Transport => self.transport.insert(features),
        }
    }

    fn by_anyone(&self) -> Features {
        self.caller | self.driver | self.transport
    }

    fn origins(&self, bit: u8) -> impl Iterator<Item = Origin> + use<> {
        let asked = *self;
        Origin::ALL.into_iter().filter(move |origin| asked.of(*origin).has(bit))
    }
}

/// What must hold for a bit to be accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// The specification lets this device type have it.
    pub(super) defined: bool,
    /// Only the legacy interface has it.
    pub(super) legacy: bool,
    /// Each of these must be accepted.
    pub(super) requires: &'static [u8],
    /// One of these must be accepted, unless there are none.
    pub(super) requires_any: &'static [u8],
}

impl Rule {
    /// The rule of the specification for a bit of this device type.
    ///
    /// Where it does not define the device type, its own bits are the caller's business.
    pub(super) fn of(device_type: DeviceType, bit: u8) -> Self {
        match feature::lookup(device_type, bit) {
            Some(known) => Self {
                defined: bit != feature::UNUSED,
                legacy: known.legacy,
                requires: known.requires,
                requires_any: known.requires_any,
            },
            None => Self {
                defined: feature::is_device_specific(bit) && crate::spec::device::spec(device_type).is_none(),
                legacy: false,
                requires: &[],
                requires_any: &[],
            },
        }
    }

    /// What the bit lacks while `accepted` is accepted.
    fn lacks(&self, bit: u8, accepted: Features) -> Option<Reason> {
        if let Some(missing) = self.requires.iter().find(|needed| !accepted.has(**needed)) {
            return Some(Reason::DependencyMissing(*missing));
        }
        if !self.requires_any.is_empty() && !self.requires_any.iter().any(|one| accepted.has(*one)) {
            return Some(Reason::NoneOf(self.requires_any));
        }
        // The legacy interface does not reach these, whether their table says so or not.
        let modern = !Features::LEGACY_MASK.has(bit) && bit != feature::VERSION_1;
        (modern && !accepted.contains(Features::VERSION_1))
            .then_some(Reason::DependencyMissing(feature::VERSION_1))
    }
}

/// A negotiation: what the device offers, what each side asks for, and what is ruled out.
///
/// The order of calls does not matter, and a refusal overrules every wish. [`Negotiation::resolve`] touches no
/// device; the features it accepts never lack what they require, whatever the device offers.
///
/// ```
/// use virtio::features::{Features, Negotiation, Origin, Outcome, Reason};
/// use virtio::spec::{DeviceType, feature};
///
/// let offered = Features::VERSION_1 | Features::EVENT_IDX | Features::RING_RESET;
/// let negotiated = Negotiation::new(DeviceType::BLOCK, offered)
///     .require(Origin::Transport, Features::VERSION_1)
///     .want(Origin::Caller, Features::EVENT_IDX | Features::RING_PACKED)
///     .resolve()?;
/// assert_eq!(negotiated.accepted(), Features::VERSION_1 | Features::EVENT_IDX);
/// assert_eq!(negotiated.answer(feature::RING_PACKED).outcome, Outcome::Dropped(Reason::NotOffered));
/// assert_eq!(negotiated.answer(feature::RING_RESET).outcome, Outcome::Dropped(Reason::NotWanted));
/// # Ok::<(), virtio::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is decided before `resolve`"]
pub struct Negotiation {
    device_type: DeviceType,
    offered: Features,
    wanted: Asked,
    required: Asked,
    refused: Vec<(Features, Reason)>,
}

impl Negotiation {
    /// A negotiation in which nobody has asked for anything.
    pub fn new(device_type: DeviceType, offered: Features) -> Self {
        let (wanted, required) = (Asked::default(), Asked::default());
        Self { device_type, offered, wanted, required, refused: Vec::new() }
    }

    /// Asks for features that are used if they are to be had. What they require is not asked for by this.
    pub fn want(mut self, origin: Origin, features: Features) -> Self {
        self.wanted.insert(origin, features);
        self
    }

    /// Asks for features without which it does not go.
    pub fn require(mut self, origin: Origin, features: Features) -> Self {
        self.required.insert(origin, features);
        self
    }

    /// Rules features out, whoever asks for them. Of several refusals of a bit the first is reported.
    pub fn refuse(mut self, origin: Origin, features: Features, why: &'static str) -> Self {
        self.refused.push((features, Reason::Refused { by: origin, why }));
        self
    }

    /// Decides.
    ///
    /// VERSION_1, and ANY_LAYOUT on the legacy interface, are accepted wherever they are offered and not
    /// refused (VIRTIO 1.4 §6.1, §6.3): they count as wanted by the transport. A transport that is used
    /// through the legacy interface offers no bit above 31.
    ///
    /// # Errors
    /// [`Error::MissingFeatures`] where a required feature cannot be accepted; its text says why for each,
    /// back to the first cause.
    pub fn resolve(self) -> Result<Negotiated> {
        let device_type = self.device_type;
        self.resolve_by(&|bit| Rule::of(device_type, bit))
    }

    pub(super) fn resolve_by(mut self, rule: &dyn Fn(u8) -> Rule) -> Result<Negotiated> {
        const ACCEPT_IF_OFFERED: Features = Features::VERSION_1.union(Features::ANY_LAYOUT);
        self.wanted.insert(Origin::Transport, self.offered & ACCEPT_IF_OFFERED);
        let (accepted, dropped) = self.decide(rule);
        let negotiated = Negotiated {
            device_type: self.device_type,
            offered: self.offered,
            wanted: self.wanted,
            required: self.required,
            accepted,
            dropped,
        };
        negotiated.check()?;
        Ok(negotiated)
    }

    /// What is accepted, and why each other bit that was offered or asked for is not.
    fn decide(&self, rule: &dyn Fn(u8) -> Rule) -> (Features, Vec<(u8, Reason)>) {
        let asked = self.wanted.by_anyone() | self.required.by_anyone();
        // Whether the legacy interface is in use depends on nothing but this one bit, which requires none.
        let version_1 = self.bars(feature::VERSION_1, asked, false, rule).is_none();
        let mut accepted = Features::EMPTY;
        let mut dropped = Vec::new();
        for bit in self.offered | asked {
            match self.bars(bit, asked, version_1, rule) {
                Some(reason) => dropped.push((bit, reason)),
                None => accepted |= Features::from_bit(bit),
            }
        }
        // Taking out until nothing lacks anything leaves the largest set that is closed; a bit's reason names
        // what went before it, so that reasons lead back to a first cause and never round in a circle.
        loop {
            let before = accepted;
            for bit in before {
                if let Some(reason) = rule(bit).lacks(bit, accepted) {
                    accepted -= Features::from_bit(bit);
                    dropped.push((bit, reason));
                }
            }
            if accepted == before {
                return (accepted, dropped);
            }
        }
    }

    /// What stands against a bit, whatever else is accepted.
    fn bars(&self, bit: u8, asked: Features, version_1: bool, rule: &dyn Fn(u8) -> Rule) -> Option<Reason> {
        if !self.offered.has(bit) {
            return Some(Reason::NotOffered);
        }
        if let Some((_, refusal)) = self.refused.iter().find(|(features, _)| features.has(bit)) {
            return Some(*refusal);
        }
        if !asked.has(bit) {
            return Some(Reason::NotWanted);
        }
        let rule = rule(bit);
        if !rule.defined {
            return Some(Reason::Undefined);
        }
        (rule.legacy && version_1).then_some(Reason::LegacyOnly)
    }
}

/// The result of a [`Negotiation`]: fixed, whatever the device offers later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    device_type: DeviceType,
    offered: Features,
    wanted: Asked,
    required: Asked,
    accepted: Features,
    dropped: Vec<(u8, Reason)>,
}

impl Negotiated {
    /// The device type for which bits were judged.
    pub fn device_type(&self) -> DeviceType {
        self.device_type
    }

    /// What the device offered.
    pub fn offered(&self) -> Features {
        self.offered
    }

    /// What is accepted: a subset of what was offered, with all that it requires.
    pub fn accepted(&self) -> Features {
        self.accepted
    }

    /// Whether every one of these features is accepted.
    pub fn contains(&self, features: Features) -> bool {
        self.accepted.contains(features)
    }

    /// What became of a bit, and who asked for it.
    pub fn answer(&self, bit: u8) -> Answer {
        let outcome = if self.accepted.has(bit) {
            Outcome::Accepted
        } else {
            let reason = self.dropped.iter().find(|(dropped, _)| *dropped == bit);
            // No reason is kept for a bit that was neither offered nor asked for.
            Outcome::Dropped(reason.map_or(Reason::NotOffered, |(_, reason)| *reason))
        };
        let (wanted, required) = (self.wanted, self.required);
        Answer { device_type: self.device_type, bit, outcome, wanted, required }
    }

    /// The answers for every bit that was offered or asked for, lowest bit first.
    pub fn answers(&self) -> impl Iterator<Item = Answer> + '_ {
        let all = self.offered | self.wanted.by_anyone() | self.required.by_anyone();
        all.iter().map(|bit| self.answer(bit))
    }

    fn check(&self) -> Result {
        let missing = self.required.by_anyone() - self.accepted;
        if missing.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = missing.iter().map(|bit| self.explain(bit)).collect();
        let names = |features: Features| features.names(self.device_type).to_string().into_boxed_str();
        Err(Error::MissingFeatures {
            missing: texts.join("; ").into_boxed_str(),
            required: names(self.required.by_anyone()),
            offered: names(self.offered),
        })
    }

    /// Why a bit is missing, back to the first cause.
    fn explain(&self, bit: u8) -> String {
        let mut answer = self.answer(bit);
        let mut text = answer.to_string();
        while let Outcome::Dropped(Reason::DependencyMissing(needed)) = answer.outcome {
            answer = self.answer(needed);
            // Writing to a string does not fail.
            let _ = write!(text, ", {answer}");
        }
        text
    }
}

/// What became of one feature bit. Its text is a line for people, such as
/// `RING_PACKED (wanted by caller): not offered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    device_type: DeviceType,
    /// Number of the bit.
    pub bit: u8,
    /// What became of it.
    pub outcome: Outcome,
    wanted: Asked,
    required: Asked,
}

impl Answer {
    /// Name of the feature, where the specification has one for this device type.
    pub fn name(&self) -> Option<&'static str> {
        feature::lookup(self.device_type, self.bit).map(|known| known.name)
    }

    /// Who asked for the feature as one that is welcome.
    pub fn wanted_by(&self) -> impl Iterator<Item = Origin> + use<> {
        self.wanted.origins(self.bit)
    }

    /// Who asked for the feature as one that must be had.
    pub fn required_by(&self) -> impl Iterator<Item = Origin> + use<> {
        self.required.origins(self.bit)
    }

    fn write_origins(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted_by().map(|origin| ("wanted by", origin));
        let required = self.required_by().map(|origin| ("required by", origin));
        let mut opened = false;
        for (how, origin) in required.chain(wanted) {
            write!(f, "{}{how} {origin}", if opened { ", " } else { " (" })?;
            opened = true;
        }
        f.write_str(if opened { ")" } else { "" })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |bit| BitName(self.device_type, bit);
        write!(f, "{}", name(self.bit))?;
        self.write_origins(f)?;
        match self.outcome {
            Outcome::Accepted => f.write_str(": accepted"),
            Outcome::Dropped(Reason::NotOffered) => f.write_str(": not offered"),
            Outcome::Dropped(Reason::NotWanted) => f.write_str(": not asked for"),
            Outcome::Dropped(Reason::Refused { by, why }) => write!(f, ": refused by {by}: {why}"),
            Outcome::Dropped(Reason::Undefined) => f.write_str(": not defined for this device type"),
            Outcome::Dropped(Reason::LegacyOnly) => f.write_str(": only for the legacy interface"),
            Outcome::Dropped(Reason::DependencyMissing(needed)) => {
                write!(f, ": requires {}", name(needed))
            }
            Outcome::Dropped(Reason::NoneOf(bits)) => {
                f.write_str(": requires one of")?;
                bits.iter().try_for_each(|bit| write!(f, " {}", name(*bit)))
            }
        }
    }
}
