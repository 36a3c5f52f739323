//! Memory that a device may read and write.
//!
//! Nothing in this crate makes a reference or a slice to such memory: single values go through [`cell`],
//! bulk data through [`copy`](mod@copy). What a ring holds in flight is a [`lease::Lease`]. These, and
//! [`barrier`], need no operating system; with `std` there is the rest, from the outside to the inside:
//!
//! ```text
//! region::DmaRegion    a sealed memory file, mapped shared
//!   space::DmaSpace      all regions of one device, mapped for it by a dma::DmaMapper
//!     space::DmaChunk      a piece of one: a ring, indirect tables, a pool
//!       pool::DmaPool        equal buffers
//!         pool::DmaBuf         one of them, taken: owned by the caller or by the ring it was given to
//! ```
//!
//! Each keeps what it lies in. What a device was not proven to have let go is kept by `quarantine`, if need be for
//! the life of the process: nothing is unmapped, and nothing used for another purpose, under a device that may
//! still write.

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
pub(crate) mod process;
#[cfg(feature = "std")]
pub mod quarantine;
#[cfg(feature = "qtest")]
pub(crate) mod ram;
#[cfg(feature = "std")]
pub mod region;
#[cfg(feature = "std")]
mod slots;
#[cfg(all(feature = "std", loom))]
pub use slots::ModelSlots;
#[cfg(feature = "std")]
pub mod space;
#[cfg(feature = "std")]
mod spans;
#[cfg(feature = "std")]
mod word;

#[cfg(all(test, feature = "std"))]
mod tests;
