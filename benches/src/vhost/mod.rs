//! Block devices behind vhost-user: ours, the crate `virtio-driver` and what Python has, on the same device in one run.

pub mod measure;
pub mod memory;
pub mod null;
pub mod ours;
pub mod peer;
pub mod python;
pub mod rows;
pub mod storage;
pub mod wire;
