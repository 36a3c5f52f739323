//! A queue for the models of [`virtio::device::Shared`]: the real ring, and bells for doorbell and event.
#![allow(dead_code, reason = "not every model uses all of it")]

use std::sync::Arc;
use std::time::Duration;

use super::loom_support::Bell;
use virtio::Result;
use virtio::device::{Lane, Port, Shared, Used};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{DeviceStopped, RawRange};
use virtio::queue::{Ring, RingConfig, Token};
use virtio::soft::DeviceRing;

/// The driver's side of a queue.
pub(crate) struct ModelLane {
    ring: Ring<RawRange>,
    port: loom::sync::Arc<ModelPort>,
}

/// Its doorbell and its event.
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

impl Lane for ModelLane {
    type Buf = RawRange;
    type Port = ModelPort;

    fn index(&self) -> u16 {
        self.ring.queue()
    }

    fn size(&self) -> u16 {
        self.ring.size()
    }

    fn port(&self) -> loom::sync::Arc<ModelPort> {
        self.port.clone()
    }

    fn has_room(&self, parts: u16) -> bool {
        self.ring.has_room(parts)
    }

    fn is_idle(&self) -> bool {
        self.ring.tokens().next().is_none()
    }

    fn holds(&self, token: Token) -> bool {
        self.ring.holds(token)
    }

    fn add(
        &mut self,
        readable: impl Iterator<Item = RawRange>,
        writable: impl Iterator<Item = RawRange>,
    ) -> Result<Token> {
        let chain = readable.fold(self.ring.chain(), |chain, buf| chain.readable(buf));
        writable.fold(chain, |chain, buf| chain.writable(buf)).add()
    }

    fn publish(&mut self) -> Result<bool> {
        Ok(self.ring.publish().is_some())
    }

    fn kick_again(&mut self) -> bool {
        false
    }

    fn pop(&mut self) -> Result<Option<Used<RawRange>>> {
        Ok(self.ring.pop()?.map(Used::take))
    }

    fn arm(&mut self) -> Result<bool> {
        // The event's signals stay, as they do with the real thing.
        self.ring.enable_interrupts()
    }

    fn disarm(&mut self) {
        self.ring.disable_interrupts();
    }
}

impl Drop for ModelLane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The model has failed, and loom's cells are gone.
            return;
        }
        // SAFETY: the device's end reaches no payload, and its thread was joined.
        let stopped = unsafe { DeviceStopped::assume() };
        // A ring that is dropped with chains in flight keeps its memory, in every execution.
        self.ring.reset(&stopped, |_, _| {}).unwrap();
    }
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
pub(crate) fn queue(size: u16) -> (Shared<ModelLane>, ModelDevice) {
    let config = RingConfig::new(0, size);
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let mut ring = Ring::new(&memory, None, &config).unwrap();
    ring.disable_interrupts();
    let device = DeviceRing::beside(&memory, &config).unwrap();
    let (doorbell, event) = (Bell::new(), Bell::new());
    let port = loom::sync::Arc::new(ModelPort { doorbell: doorbell.clone(), event: event.clone() });
    let lane = ModelLane { ring, port };
    (Shared::new(lane, Duration::ZERO), ModelDevice { ring: device, doorbell, event })
}

/// A buffer that nothing is behind.
pub(crate) fn range(at: u64) -> RawRange {
    // SAFETY: the device's end of the models reaches no payload.
    unsafe { RawRange::new(at, 4) }
}
