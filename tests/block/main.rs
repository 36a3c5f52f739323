//! The block driver over software devices behind every interface (VIRTIO 1.4 §5.2).
#![cfg(all(feature = "soft", not(loom)))]

#[path = "../driver_common/mod.rs"]
mod driver_common;

mod answers;
mod config;
mod pipe;
mod requests;
mod submit;
mod threads;

use std::sync::{Arc, Mutex};

use driver_common::{SOON, Way};
use virtio::drivers::{Block, BlockOptions};
use virtio::soft::{self, Run, SoftDevice, SoftDeviceBuilder};

/// What the device stores, shared with the test.
type Image = Arc<Mutex<Vec<u8>>>;

fn image(sectors: usize) -> Image {
    Arc::new(Mutex::new((0..sectors * 512).map(|at| (at / 512 % 255) as u8 + 1).collect()))
}

fn builder(image: &Image) -> SoftDeviceBuilder {
    SoftDevice::builder(soft::Block::memory(Arc::clone(image)))
}

fn options() -> BlockOptions {
    let mut options = BlockOptions::default();
    options.timeout = SOON;
    options
}

/// The same, with requests of 64 KiB, four in flight.
fn small() -> BlockOptions {
    let mut options = options();
    options.chunk = 64 << 10;
    options.window = 256 << 10;
    options
}

fn open(way: Way, builder: SoftDeviceBuilder, run: Run, options: BlockOptions) -> (SoftDevice, Block) {
    let (soft, device) = way.open(builder, run);
    let block = Block::new(device, options).unwrap();
    (soft, block)
}

/// Bytes of which no two sectors are equal.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| ((at / 512 + at) % 253) as u8 ^ seed).collect()
}
