//! A queue by hand, without a driver: opens an entropy device, gives it a buffer and waits for it to come back.
//!
//! ```sh
//! cargo run --example raw_queue -- 'soft:entropy?transport=mmio'
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use virtio::device::QueueConfig;
use virtio::features::Features;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "soft:entropy".to_owned());
    let mut out = io::stdout();

    // Reset, ACKNOWLEDGE, DRIVER (VIRTIO 1.4 §3.1.1, steps 1 to 3).
    let device = virtio::open(&address)?;
    writeln!(out, "{}: {}", device.address(), device.device_type())?;
    // Steps 4 to 6: what we want if it is offered, and what we must have.
    let features = device.negotiate(Features::EVENT_IDX | Features::INDIRECT_DESC, Features::EMPTY)?;
    writeln!(out, "features: {}", features.names(device.device_type()))?;
    // Step 7: the queue, in memory that the device can reach. Step 8: DRIVER_OK.
    let mut queue = device.take_queue(0, QueueConfig::size(64))?;
    device.start()?;

    // A chain of two buffers for the device to write; the queue owns them until they come back.
    let pool = device.pool(2, 16)?;
    let token = queue.add([], [pool.take()?, pool.take()?])?;
    // Shows the chain to the device, and notifies it if it wants that.
    queue.notify()?;
    let used = queue.get(Some(Duration::from_secs(1)))?;
    assert_eq!(used.token, token);
    writeln!(out, "{} of {} bytes written:", used.written, used.capacity)?;
    for buffer in used.buffers() {
        writeln!(out, "{:02x?}", buffer.to_vec()?)?;
    }
    // Resets the device and takes its memory from it; a drop would do so too.
    device.close()?;
    Ok(())
}
