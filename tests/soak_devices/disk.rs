//! A disk over a file under random requests, beside a model of it in memory.

use std::path::PathBuf;

use virtio::drivers::{Block, BlockOptions};
use virtio::soft::{self, Run, SoftDevice};

use super::driver_common::{SOON, Way, kept_the_rules, ways};
use super::soak_common::{Random, soak};

const SECTOR: usize = 512;
const SECTORS: usize = 1 << 14;
/// Longest request of a caller in sectors: more than one request of the driver, and more than its window.
const LONGEST: usize = 1 << 11;

/// A file that goes with the test.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::write(&path, vec![0; SECTORS * SECTOR]).unwrap();
        Self(path)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn fill(random: &mut Random, bytes: &mut [u8]) {
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
    }
}

fn request(block: &Block, model: &mut [u8], random: &mut Random, scratch: &mut [u8]) {
    // As many short ones as long ones.
    let longest = LONGEST >> random.below(11);
    let len = (1 + random.below(longest as u64) as usize) * SECTOR;
    let at = random.below(((model.len() - len) / SECTOR) as u64 + 1) as usize * SECTOR;
    let (place, scratch) = (&mut model[at..at + len], &mut scratch[..len]);
    match random.below(16) {
        0..7 => {
            block.read(at as u64, scratch).unwrap();
            assert!(scratch == place, "{len} bytes from {at} on are not what was written");
        }
        7..14 => {
            fill(random, place);
            block.write(at as u64, place).unwrap();
        }
        14 => {
            block.write_zeroes(at as u64, len as u64, false).unwrap();
            place.fill(0);
        }
        _ => block.flush().unwrap(),
    }
}

/// So many requests over one interface.
fn run(way: Way, requests: u64) {
    let image = Image::new("disk");
    let model = soft::Block::file(&image.0, false).unwrap().with_queues(2);
    let (soft, device) = way.open(SoftDevice::builder(model), Run::Thread);
    let mut options = BlockOptions::default();
    (options.timeout, options.chunk, options.window) = (SOON, 64 << 10, 256 << 10);
    let block = Block::new(device, options).unwrap();
    let (mut random, mut scratch) = (Random::new(requests), vec![0; LONGEST * SECTOR]);
    let mut model = vec![0; SECTORS * SECTOR];
    for _ in 0..requests {
        request(&block, &mut model, &mut random, &mut scratch);
    }
    kept_the_rules(&soft);
    drop(block);
    assert!(std::fs::read(&image.0).unwrap() == model, "{way:?}: the file is not what was written");
}

#[test]
fn a_file_holds_what_random_requests_wrote_over_every_interface() {
    ways().into_iter().for_each(|way| run(way, 60));
}

#[test]
#[ignore = "soak: 900,000 requests"]
fn soak_a_file_holds_what_random_requests_wrote_over_every_interface() {
    let ways = ways();
    soak("disk over a file", 900_000, "requests", |requests| {
        ways.iter().for_each(|way| run(*way, requests / ways.len() as u64));
    });
}
