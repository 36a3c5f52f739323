//! A queue for the models of [`virtio::device::Shared`]: the real ring, and bells for doorbell and event.
#![allow(dead_code, reason = "not every model uses all of it")]

use std::sync::Arc;
use std::time::Duration;

use super::loom_support::Bell;
use super::ring_lane::RingLane;
use virtio::Result;
use virtio::device::{Port, Shared};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::RawRange;
use virtio::queue::{Ring, RingConfig, Token};
use virtio::soft::DeviceRing;

/// Doorbell and event of a queue.
pub(crate) struct ModelPort {
    pub(crate) doorbell: Arc<Bell>,
    pub(crate) event: Arc<Bell>,
}

impl Port for ModelPort {
    fn ring(&self) -> Result<()> {
        self.doorbell.ring();
        Ok(())
    }

    fn sleep(&self, _limit: Duration) -> Result<()> {
        self.event.wait();
        Ok(())
    }

    fn wake(&self) {
        self.event.ring();
    }

    fn ask(&self) {}
}

/// The device's side.
pub(crate) struct ModelDevice {
    pub(crate) ring: DeviceRing,
    doorbell: Arc<Bell>,
    event: Arc<Bell>,
}

impl ModelDevice {
    /// Serves `count` chains, each completed and announced by itself.
    pub(crate) fn serve(&mut self, count: usize) {
        let mut served = 0;
        while served < count {
            while let Some(chain) = self.ring.pop(&()).unwrap() {
                self.ring.push_used(chain.head, 0);
                if self.ring.publish_used() {
                    self.event.ring();
                }
                served += 1;
            }
            if served < count && !self.ring.enable_notifications().unwrap() {
                self.doorbell.wait();
            }
        }
    }
}

impl ModelDevice {
    /// Completes the chain of one token, which was made available, and announces it.
    pub(crate) fn complete(&mut self, token: Token) {
        self.ring.push_used(token.slot(), 0);
        if self.ring.publish_used() {
            self.event.ring();
        }
    }
}

/// Both sides of a queue of `size`, flags and no EVENT_IDX.
pub(crate) fn queue(size: u16) -> (Shared<RingLane<ModelPort>>, ModelDevice) {
    let config = RingConfig::new(0, size);
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let mut ring = Ring::new(&memory, None, &config).unwrap();
    ring.disable_interrupts();
    let device = DeviceRing::beside(&memory, &config).unwrap();
    let (doorbell, event) = (Bell::new(), Bell::new());
    let port = loom::sync::Arc::new(ModelPort { doorbell: doorbell.clone(), event: event.clone() });
    let lane = RingLane { ring, port };
    (Shared::new(lane, Duration::ZERO), ModelDevice { ring: device, doorbell, event })
}

/// A buffer that nothing is behind.
pub(crate) fn range(at: u64) -> RawRange {
    // SAFETY: the device's end of the models reaches no payload.
    unsafe { RawRange::new(at, 4) }
}
