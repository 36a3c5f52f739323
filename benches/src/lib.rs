//! What the benchmarks are made of: the yardsticks, the peers, the device end and the way to measure.
//!
//! The README beside this crate says how a run is read and where another ring is plugged in.

pub mod contender;
pub mod cpu;
pub mod daemon;
pub mod device;
pub mod driver;
pub mod floor;
pub mod heap;
pub mod ours;
pub mod peers;
pub mod ping_pong;
pub mod raw;
pub mod report;
pub mod stats;
pub mod vhost;
