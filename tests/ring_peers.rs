//! What a peer's ring and the seed's ring get wrong, shown beside ours: the same device end, the same steps.
//!
//! The peer is the published crate `virtio-drivers` 0.13. Of its holes P1, P2, P3 and P8 are run here. P4, the
//! missing full fence between publishing and the look at the device's wish, shows itself on no single machine run;
//! `tests/loom_kick.rs` explores all of them on our ring and kills the mutant that leaves the fence out.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

#[path = "ring_peers/holes.rs"]
mod holes;
#[path = "ring_peers/peer.rs"]
mod peer;
#[path = "ring_peers/seed.rs"]
mod seed;
