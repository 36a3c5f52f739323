//! Drive VirtIO devices from user space, and trust none of them (VIRTIO 1.4).
//!
//! # The protocol in ten steps
//!
//! What a driver and a device have to do with one another, and who does it here:
//!
//! 1. **Reach the registers.** A PCI function with virtio's capabilities, the legacy registers in its I/O BAR, or a
//!    slot of memory-mapped registers (§4.1, §4.2). [`bus`] reaches them, [`transport`] knows what they mean.
//! 2. **Reset, and take over.** Status 0, read back until it is 0; then ACKNOWLEDGE and DRIVER (§2.1, §2.4,
//!    §3.1.1). [`open()`] and [`Device::open`](device::Device::open) do it.
//! 3. **Agree on features.** The device offers bits, the driver accepts some, sets FEATURES_OK and reads back that it
//!    stayed (§2.2). [`Device::negotiate`](device::Device::negotiate); [`features`] knows what depends on what.
//! 4. **Read the configuration**, again where its generation changed meanwhile (§2.5).
//!    [`Device::config`](device::Device::config).
//! 5. **Set queues up.** A virtqueue is three areas of memory: a table of descriptors and a ring of available chains,
//!    which the driver writes, and a ring of used ones, which the device writes (§2.6, §2.7). The device learns their
//!    addresses. [`Device::take_queue`](device::Device::take_queue).
//! 6. **Start.** DRIVER_OK (§3.1.1). [`Device::start`](device::Device::start).
//! 7. **Add chains.** A request is a chain of descriptors, device-readable buffers first (§2.7.4). Its head goes into
//!    the available ring. [`queue::Ring::add`] and [`queue::Ring::chain`], which
//!    [`device::Queue`] has too.
//! 8. **Publish.** The available index moves, once for all that was added; after a full fence the driver looks whether
//!    the device wants a notification (§2.7.13). [`queue::Ring::publish`] tells, and
//!    [`device::Queue::notify`](device::Queue::notify) sends it.
//! 9. **Take used buffers.** The device writes the chain's head and how many bytes it wrote to the used ring, moves
//!    its index, and interrupts if the driver wants that (§2.7.8, §2.7.14). Index, id and length are each read once and
//!    checked against private memory. [`queue::Ring::pop`], [`device::Queue::get`](device::Queue::get).
//! 10. **Stop.** Only a reset that was confirmed gives back the memory of what is still in flight (§2.4, §3.3).
//!     [`Device::close`](device::Device::close), or a drop.
//!
//! # Where to start
//!
//! - To use a device: [`open()`], [`drivers::Block`], [`drivers::Entropy`]; addresses are described at [`address`].
//! - To write a driver: [`device`]; to share one queue between threads: [`device::SharedQueue`].
//! - To bring rings into a kernel or another project, without `std`: [`queue`] and [`mem::lease`].
//! - To test a driver: [`soft`], whose devices check the driver by clause, and lie on demand.
//! - To reach devices in a way of your own: implement the traits of [`bus`].
//!
//! # The modules, from the used to the user
//!
//! | module | what it is | without `std` |
//! |---|---|---|
//! | [`spec`] | numbers and layouts of the specification | yes |
//! | [`error`] | the one error type | yes |
//! | [`features`] | sets of feature bits, and their negotiation | yes |
//! | [`sync`] | atomics, fences and locks; loom's in models | yes |
//! | [`mem`] | memory that a device may write: cells, copies, leases; regions, pools, quarantine with `std` | in part |
//! | [`queue`] | the virtqueue alone | yes |
//! | [`event`] | event descriptors and deadlines | |
//! | [`bus`] | how a device is reached | |
//! | [`transport`] | what its registers mean | |
//! | [`device`] | life cycle, configuration space, interrupts, queues | |
//! | [`drivers`] | one a device type | |
//! | [`soft`] | software devices (feature `soft`) | |
//! | [`address`] | device addresses as text | |
//! | [`find`] | what is on this machine, or in a QEMU machine | |
//! | [`testing`] | QEMU machines for tests (feature `qtest`) | |
//!
//! # Rules that hold everywhere
//!
//! - Every failure is an [`Error`] with an errno; nothing panics because of a device.
//! - Every wait takes a deadline. A time-out frees nothing: what is in flight stays so.
//! - Types say in their documents which threads may use them; what takes `&mut self` takes no lock.
//! - Sections are cited as `VIRTIO 1.4 §2.7.13`, or `§2.7.13` alone. Faults in parentheses, such as D4 or C30, are the
//!   rows of the fault model in the project's `docs/testing.md`.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "soft", feature = "qtest")),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "this page links to all that the default features bring"
    )
)]

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
pub mod find;
#[cfg(all(feature = "std", not(loom)))]
mod open;
#[cfg(all(feature = "python", not(loom)))]
mod python;
#[cfg(feature = "soft")]
pub mod soft;
#[cfg(all(feature = "qtest", not(loom)))]
pub mod testing;
#[cfg(feature = "std")]
pub mod transport;

pub use error::{Error, Result};
#[cfg(all(feature = "std", not(loom)))]
pub use open::{open, open_with};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[cfg_attr(feature = "qtest", doc = include_str!("../docs/qemu.md"))]
struct ReadmeExamples;
