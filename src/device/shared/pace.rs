//! What a wait does next: the order of looks, sleeps and kicks up to a deadline.

use core::time::Duration;

use crate::event::Deadline;

/// Longest sleep before a waiter looks around.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Look whether the caller has something against the wait.
    Ask,
    /// Notify the device once more: half the time has passed (D14, D16).
    Kick,
    /// Reap, or sleep on who does.
    Wait,
    /// The time is over: look once more (D25).
    LastLook {
        /// Whether there was any time at all.
        waited: bool,
    },
    /// Give up.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) deadline: Deadline,
    /// Half the time, until the device was notified once more; a call that does not wait has none.
    half: Option<Deadline>,
    waits: bool,
    asked: bool,
    looked: bool,
}

impl Pace {
    pub(super) fn new(deadline: Deadline) -> Self {
        let left = deadline.left().filter(|left| !left.is_zero());
        let half = left.map(|left| Deadline::after(left.checked_div(2).unwrap_or(left)));
        let waits = left.is_some() || deadline.left().is_none();
        Self { deadline, half, waits, asked: false, looked: false }
    }

    pub(super) fn next(&mut self) -> Step {
        if self.deadline.passed() {
            let looked = core::mem::replace(&mut self.looked, true);
            return if looked { Step::Over } else { Step::LastLook { waited: self.waits } };
        }
        if self.half.is_some_and(|half| half.passed()) {
            self.half = None;
            return Step::Kick;
        }
        self.asked = !self.asked;
        if self.asked { Step::Ask } else { Step::Wait }
    }

    /// How long to sleep now.
    pub(super) fn limit(&self) -> Duration {
        let left = [self.deadline.left(), self.half.and_then(|half| half.left())];
        left.into_iter().flatten().fold(SLICE, Duration::min)
    }
}
