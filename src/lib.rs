//! Drive VirtIO devices from user space.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod error;
pub mod features;
pub mod mem;
pub mod queue;
pub mod spec;
pub mod sync;

#[cfg(feature = "std")]
pub mod address;
#[cfg(feature = "std")]
pub mod bus;
#[cfg(feature = "std")]
pub mod device;
#[cfg(all(feature = "std", not(loom)))]
pub mod drivers;
#[cfg(feature = "std")]
pub mod event;
#[cfg(all(feature = "std", not(loom)))]
mod open;
#[cfg(feature = "soft")]
pub mod soft;
#[cfg(feature = "std")]
pub mod transport;

pub use error::{Error, Result};
#[cfg(all(feature = "std", not(loom)))]
pub use open::{open, open_with};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
