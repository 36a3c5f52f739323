//! Block driver (VIRTIO 1.4 §5.2).
//!
//! [`Block`] reads and writes by byte offset, in multiples of 512. A call is cut into requests that keep to every
//! limit of the device (`size_max`, `seg_max`, the maxima of discard, write zeroes and secure erase), and has
//! many of them in flight. Each request queue is a lane with a lock of its own: threads that call at the same
//! time run in parallel, as many as there are lanes.

mod api;
mod call;
mod desk;
mod job;
mod lane;
mod lanes;
mod limits;
mod many;
mod options;
mod pipe;
mod quick;
mod rescue;
mod split;
mod stand;
mod submit;
mod verdict;
mod work;

pub use api::Block;
pub use limits::{EraseLimits, Geometry, Limits, Topology};
pub use options::BlockOptions;
pub use pipe::{Finished, Pipe};
pub use rescue::Reconnect;
pub(crate) use rescue::Reopen;
pub use submit::{Done, Progress, Submitter};
pub use work::Answer;

pub use crate::spec::device::block::request::{Lifetime, PreEolInfo};
