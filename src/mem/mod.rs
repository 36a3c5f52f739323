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
pub mod pool;
#[cfg(feature = "std")]
pub mod quarantine;
#[cfg(feature = "std")]
pub mod region;
#[cfg(feature = "std")]
mod slots;
#[cfg(feature = "std")]
pub mod space;
#[cfg(feature = "std")]
mod spans;
#[cfg(feature = "std")]
mod word;

#[cfg(all(test, feature = "std"))]
mod tests;
