//! Real devices for tests, in a second: QEMU machines whose processor is halted.
//!
//! ```no_run
//! use virtio::drivers::{Block, BlockOptions};
//! use virtio::testing::{Kind, Qemu};
//!
//! let qemu = Qemu::builder(Kind::Pc)
//!     .args(["-blockdev", "null-co,node-name=d,size=1048576,read-zeroes=on"])
//!     .device("virtio-blk-pci,drive=d,addr=4")
//!     .start()?;
//! let disk = Block::open(&qemu.pci(4), BlockOptions::default())?;
//! assert_eq!(disk.size(), 1 << 20);
//! # Ok::<(), virtio::Error>(())
//! ```

mod devices;
mod halt;
pub mod json;
mod qemu;
mod qmp;

pub use qemu::{Builder, Kind, Qemu};
pub use qmp::Qmp;
