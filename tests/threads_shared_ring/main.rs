//! One queue for many threads, with real waiting: what loom cannot see, since it knows neither time nor descriptors.
//!
//! Deadlines are held to within [`SLACK`], what the machine's load allows (fault E10).
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "ranges that no memory is behind; a signal handler")]

#[path = "../ring_common/mod.rs"]
mod ring_common;
#[path = "../ring_lane/mod.rs"]
mod ring_lane;

mod deadlines;
mod ends;
mod rig;
mod tokens;
mod traffic;

/// How much later than its deadline a wait may end.
const SLACK: std::time::Duration = std::time::Duration::from_millis(50);
