//! Writes random bytes of an entropy device to standard output: `entropy [ADDRESS [BYTES]]`.
//!
//! ```sh
//! cargo run --example entropy -- soft:entropy 32 | od -An -tx1
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use virtio::drivers::Entropy;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "soft:entropy".to_owned());
    let mut left: usize = args.next().map_or(Ok(32), |bytes| bytes.parse())?;

    let mut entropy = Entropy::open(&address, Duration::from_secs(5))?;
    let mut bytes = [0; 4096];
    while left > 0 {
        let part = &mut bytes[..left.min(4096)];
        entropy.fill(part)?;
        io::stdout().write_all(part)?;
        left -= part.len();
    }
    Ok(())
}
