//! Memory that a device may read and write.
//!
//! Nothing in this crate makes a reference or a slice to such memory: single values go through [`cell`],
//! bulk data through [`copy`].

pub mod barrier;
pub mod cell;
pub mod copy;
pub mod lease;

#[cfg(feature = "std")]
pub mod dma;
#[cfg(feature = "std")]
mod mapping;
#[cfg(feature = "std")]
pub mod region;
