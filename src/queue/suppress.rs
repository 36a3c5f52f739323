//! The arithmetic of indices and of notification suppression: pure functions, tested over their whole range.
//!
//! Ring indices are free-running 16-bit counters that wrap at 65,536 (VIRTIO 1.4 §2.7.13.3), so nothing here
//! compares two of them by `<`.

use crate::sync::mutant;

/// Set in `avail.flags` by a driver that wants no used buffer notifications (§2.7.7).
pub const NO_INTERRUPT: u16 = 1;
/// Set in `used.flags` by a device that wants no available buffer notifications (§2.7.10).
pub const NO_NOTIFY: u16 = 1;

/// How far `to` is ahead of `from`.
#[inline(always)]
pub const fn span(from: u16, to: u16) -> u16 {
    to.wrapping_sub(from)
}

/// Whether moving an index from `old` to `new` passes `event`, so that the other side wants to hear of it
/// (§2.7.7.1, §2.7.10.1): whether one of the entries `old`, `old + 1`, …, `new - 1` is number `event`.
///
/// Both ends use it: the driver with `avail_event`, the device with `used_event`.
#[inline(always)]
pub fn passes_event(event: u16, new: u16, old: u16) -> bool {
    if mutant!(KickNotModular) {
        return new >= event.saturating_add(1);
    }
    if mutant!(KickOldIndex) {
        return event == new.wrapping_sub(1);
    }
    // Entry `event` is among the last `new - old` before `new` exactly if it lies less than that far behind.
    span(event, new).wrapping_sub(1) < span(old, new)
}

/// Whether the device wants a notification, by `used.flags`, where EVENT_IDX was not negotiated (§2.7.10.1).
/// Only the lowest bit counts; a device that sets others is told.
#[inline(always)]
pub const fn wants_notification(used_flags: u16) -> bool {
    used_flags & NO_NOTIFY == 0
}

/// A `used_event` that lets no used buffer notification come for as long as possible (§2.7.7.1): the entry
/// just before `last_used`, which the device passes only after 65,535 more.
#[inline(always)]
pub const fn far_event(last_used: u16) -> u16 {
    last_used.wrapping_sub(1)
}

/// Whether a `used_event` parked by [`far_event`] has to be parked anew: the device has gone half way to it.
#[inline(always)]
pub const fn far_event_is_stale(parked: u16, last_used: u16) -> bool {
    span(parked, last_used) > 0x8000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, entry by entry.
    fn by_definition(event: u16, new: u16, old: u16) -> bool {
        let mut entry = old;
        while entry != new {
            if entry == event {
                return true;
            }
            entry = entry.wrapping_add(1);
        }
        false
    }

    #[test]
    fn event_decision_matches_its_definition_around_every_wrap() {
        for old in (0..=u16::MAX).step_by(251).chain(65_500..=u16::MAX) {
            for count in 0..40u16 {
                let new = old.wrapping_add(count);
                for near in 0..48u16 {
                    let event = old.wrapping_sub(4).wrapping_add(near);
                    assert_eq!(
                        passes_event(event, new, old),
                        by_definition(event, new, old),
                        "event {event} old {old} new {new}"
                    );
                }
            }
        }
    }

    /// All 2^32 pairs: the decision depends on the distances only, so `old` is fixed and `event` and `new`
    /// take every value.
    #[test]
    fn event_decision_over_all_pairs() {
        // Not a constant to the compiler, which would otherwise prove the test instead of running it.
        let old = core::hint::black_box(0);
        for event in 0..=u16::MAX {
            for new in 0..=u16::MAX {
                // From 0 to `new`: the entries are 0..new, in plain arithmetic.
                let wanted = event < new;
                if passes_event(event, new, old) != wanted {
                    panic!("event {event} new {new}: wanted {wanted}");
                }
            }
        }
    }

    /// With the test above this covers every triple: shifting all three by the same amount changes nothing.
    #[test]
    fn event_decision_depends_on_distances_only() {
        for shift in (0..=u16::MAX).step_by(97) {
            for (event, new) in [(0, 1), (1, 1), (5, 3), (0, 32_768), (65_535, 65_535), (32_767, 32_768)] {
                assert_eq!(
                    passes_event(event, new, 0),
                    passes_event(shift.wrapping_add(event), shift.wrapping_add(new), shift)
                );
            }
        }
    }

    #[test]
    fn only_the_lowest_flag_suppresses() {
        for flags in 0..=u16::MAX {
            assert_eq!(wants_notification(flags), flags % 2 == 0);
        }
    }

    #[test]
    fn a_parked_event_is_not_passed_before_it_is_parked_anew() {
        for last in 0..=u16::MAX {
            let parked = far_event(last);
            assert!(!far_event_is_stale(parked, last));
            for count in [1, 2, 255, 32_767, 65_535] {
                assert!(!passes_event(parked, last.wrapping_add(count), last));
            }
            assert!(far_event_is_stale(parked, last.wrapping_add(0x8000)));
        }
    }
}
