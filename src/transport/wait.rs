//! Waiting for a register that no interrupt announces.

use core::time::Duration;
use std::thread;

use crate::Result;
use crate::event::Deadline;

/// Polls that only give the processor away: most devices answer within them.
const YIELDS: u32 = 64;
/// First and longest pause after them.
const PAUSES: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(2));

/// Asks `look` until it answers, at least once and at most until `deadline`; `None` at the deadline.
pub(crate) fn poll<T>(deadline: Deadline, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let mut pause = PAUSES.0;
    for round in 0u32.. {
        if let Some(answer) = look()? {
            return Ok(Some(answer));
        }
        if deadline.passed() {
            break;
        }
        if round < YIELDS {
            thread::yield_now();
        } else {
            thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }
    Ok(None)
}
