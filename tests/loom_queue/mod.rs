//! A queue for the models of [`virtio::device::Shared`]: the real ring, and bells for doorbell and event.
#![allow(dead_code, reason = "not every model uses all of it")]

use std::mem::ManuallyDrop;
use std::ops::Deref;
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
use virtio::sync::Mutex;

/// What a notification reaches.
enum Doorbell {
    /// A device with a thread of its own, which may sleep.
    Bell(Arc<Bell>),
    /// A device that serves inside the notification, one at a time, and never asks to be left alone: without a thread
    /// of its own, it leaves the interleavings to those who share the queue.
    Device(Mutex<DeviceRing>),
}

/// Doorbell and event of a queue.
pub(crate) struct ModelPort {
    doorbell: Doorbell,
    event: Arc<Bell>,
    /// Not loom's: whoever sleeps first takes what is in it, and nobody is interrupted in that.
    first_sleep: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl ModelPort {
    /// Has `act` be done by the first who sleeps on the device, when it has asked for a notification and before it
    /// sleeps: threads that begin only then leave the interleavings before it to other models.
    pub(crate) fn at_first_sleep(&self, act: impl FnOnce() + Send + 'static) {
        *self.first_sleep.lock().unwrap() = Some(Box::new(act));
    }
}

impl Port for ModelPort {
    fn ring(&self) -> Result<()> {
        match &self.doorbell {
            Doorbell::Bell(bell) => bell.ring(),
            Doorbell::Device(device) => {
                let mut device = device.lock().unwrap();
                while let Some(chain) = device.pop(&()).unwrap() {
                    device.push_used(chain.head, 0);
                }
                if device.publish_used() {
                    self.event.ring();
                }
            }
        }
        Ok(())
    }

    fn sleep(&self, _limit: Duration) -> Result<()> {
        let act = self.first_sleep.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
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
        if let Some(bell) = self.give_back(token) {
            bell.ring();
        }
    }

    /// The same, with the bell to ring for the announcement, if one is wanted.
    pub(crate) fn give_back(&mut self, token: Token) -> Option<Arc<Bell>> {
        self.ring.push_used(token.slot(), 0);
        self.ring.publish_used().then(|| Arc::clone(&self.event))
    }
}

fn ends(size: u16) -> (Ring<RawRange>, DeviceRing) {
    let config = RingConfig::new(0, size);
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let mut ring = Ring::new(&memory, None, &config).unwrap();
    ring.disable_interrupts();
    (ring, DeviceRing::beside(&memory, &config).unwrap())
}

fn share(ring: Ring<RawRange>, doorbell: Doorbell, event: Arc<Bell>) -> Shared<RingLane<ModelPort>> {
    let port = loom::sync::Arc::new(ModelPort { doorbell, event, first_sleep: std::sync::Mutex::default() });
    Shared::new(RingLane { ring, port }, Duration::ZERO)
}

/// Both sides of a queue of `size`, flags and no EVENT_IDX.
pub(crate) fn queue(size: u16) -> (Shared<RingLane<ModelPort>>, ModelDevice) {
    let (ring, device) = ends(size);
    let (doorbell, event) = (Bell::new(), Bell::new());
    let shared = share(ring, Doorbell::Bell(doorbell.clone()), event.clone());
    (shared, ModelDevice { ring: device, doorbell, event })
}

/// The same, with a device inside the notification.
pub(crate) fn inline(size: u16) -> Kept<Shared<RingLane<ModelPort>>> {
    let (ring, device) = ends(size);
    Kept::new(share(ring, Doorbell::Device(Mutex::new(device)), Bell::new()))
}

/// What is not dropped where a model has failed: loom's own objects are gone by then, and their drops panic.
pub(crate) struct Kept<T>(ManuallyDrop<T>);

impl<T> Kept<T> {
    pub(crate) fn new(kept: T) -> Self {
        Self(ManuallyDrop::new(kept))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: this is the only place that drops it, and nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// A buffer that nothing is behind.
pub(crate) fn range(at: u64) -> RawRange {
    // SAFETY: the device's end of the models reaches no payload.
    unsafe { RawRange::new(at, 4) }
}
