//! Making memory reachable for a device.
use core::fmt::Debug;

/// (interface being written: see the helper's branch)
pub trait DmaMapper: Send + Sync + Debug {}
