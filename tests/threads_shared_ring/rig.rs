//! A queue over a real ring and event descriptors, and the device at its other end, in a thread or stepped.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use virtio::Result;
use virtio::device::{Port, Shared};
use virtio::event::{Deadline, EventFd, wait_readable};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::RawRange;
use virtio::queue::{Ring, RingConfig};
use virtio::soft::DeviceRing;
use virtio::sync::{AtomicBool, AtomicU64, Ordering};

use crate::ring_common::{RING_ADDR, TABLE_ADDR, memory_at};
use crate::ring_lane::RingLane;

/// Longest wait for anything that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Device-writable bytes of every chain.
pub(crate) const ROOM: u32 = 64;

pub(crate) fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// Doorbell and event of the queue.
pub(crate) struct EventPort {
    pub(crate) doorbell: EventFd,
    pub(crate) event: EventFd,
    /// Notifications sent.
    pub(crate) rings: AtomicU64,
    /// Sleeps that ended.
    pub(crate) sleeps: AtomicU64,
}

impl Port for EventPort {
    fn ring(&self) -> Result<()> {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.doorbell.signal()
    }

    fn sleep(&self, limit: Duration) -> Result<()> {
        wait_readable(&self.event.as_fd(), Deadline::after(limit))?;
        self.event.drain()?;
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn wake(&self) {
        self.event.signal().unwrap();
    }

    fn ask(&self) {}
}

/// A queue that threads share.
pub(crate) type Queue = Arc<Shared<RingLane<EventPort>>>;

/// A buffer without memory that carries a number.
pub(crate) fn range(number: u64, len: u32) -> RawRange {
    // SAFETY: no device of these tests reaches payload.
    unsafe { RawRange::new(number << 8, len) }
}

/// What the device says it wrote for the chain with this number.
pub(crate) fn written(number: u64) -> u32 {
    (number % u64::from(ROOM)) as u32
}

/// How a device in a thread behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Notifies where that is wanted, and only so.
    Proper,
    /// Never notifies (D25).
    Mute,
    /// Does nothing but when it is notified (D14, D16, once it said that it needs no notification).
    Deaf,
}

/// The device's end.
pub(crate) struct Device {
    pub(crate) ring: DeviceRing,
    tables: Option<RingMemory>,
    doorbell: EventFd,
    pub(crate) event: EventFd,
}

impl Device {
    /// Takes the next chain: its head and its number.
    pub(crate) fn take(&mut self) -> Option<(u16, u64)> {
        let chain = match &self.tables {
            Some(tables) => self.ring.pop(tables).unwrap(),
            None => self.ring.pop(&()).unwrap(),
        }?;
        Some((chain.head, chain.descs[0].addr >> 8))
    }

    /// Completes a chain and notifies as the driver wishes.
    pub(crate) fn complete(&mut self, (head, number): (u16, u64)) {
        self.ring.push_used(head, written(number));
        if self.ring.publish_used() {
            self.event.signal().unwrap();
        }
    }

    /// Takes and completes the next chain, which must come soon.
    pub(crate) fn serve_one(&mut self) -> u64 {
        let end = soon();
        loop {
            if let Some(chain) = self.take() {
                self.complete(chain);
                return chain.1;
            }
            assert!(!end.passed(), "no chain came");
            self.doorbell.wait(Deadline::after(Duration::from_millis(1))).unwrap();
            self.doorbell.drain().unwrap();
        }
    }

    fn hear(&self) {
        self.doorbell.wait(soon()).unwrap();
        self.doorbell.drain().unwrap();
    }

    /// Serves in a thread until it is stopped; tells how many chains it took.
    pub(crate) fn run(mut self, manner: Manner) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, doorbell) = (Arc::clone(&stop), self.doorbell.clone());
        let thread = std::thread::spawn(move || {
            let mut served = 0;
            while !told.load(Ordering::Acquire) {
                if manner == Manner::Deaf {
                    self.hear();
                }
                let mut batch: Vec<_> = std::iter::from_fn(|| self.take()).collect();
                served += batch.len() as u64;
                // In no order of the driver's.
                batch.reverse();
                for (head, number) in batch.drain(..) {
                    self.ring.push_used(head, written(number));
                }
                if self.ring.publish_used() && manner != Manner::Mute {
                    self.event.signal().unwrap();
                }
                if manner != Manner::Deaf && !self.ring.enable_notifications().unwrap() {
                    self.hear();
                }
            }
            served
        });
        Running { stop, doorbell, thread }
    }
}

/// A device in a thread.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    doorbell: EventFd,
    thread: JoinHandle<u64>,
}

impl Running {
    /// Stops it; answers how many chains it took.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.doorbell.signal().unwrap();
        self.thread.join().unwrap()
    }
}

/// What a queue is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) size: u16,
    pub(crate) indirect: bool,
    pub(crate) event_idx: bool,
    pub(crate) spin: Duration,
}

impl Case {
    pub(crate) fn size(size: u16) -> Self {
        Self { size, indirect: false, event_idx: false, spin: Duration::ZERO }
    }

    /// Direct and indirect, flags and EVENT_IDX, with and without a spin.
    pub(crate) fn all(size: u16) -> Vec<Self> {
        let mut all = Vec::new();
        for (indirect, event_idx) in [(false, false), (false, true), (true, false), (true, true)] {
            for spin in [Duration::ZERO, Duration::from_micros(50)] {
                all.push(Self { size, indirect, event_idx, spin });
            }
        }
        all
    }

    /// Both ends, and the port.
    pub(crate) fn build(self) -> (Queue, Device, virtio::sync::Arc<EventPort>) {
        let mut config = RingConfig::new(5, self.size);
        (config.indirect, config.event_idx) = (self.indirect, self.event_idx);
        let (memory, _) = memory_at(RING_ADDR, config.ring_bytes().unwrap());
        let tables = self.indirect.then(|| memory_at(TABLE_ADDR, config.table_bytes()).0);
        let mut ring = Ring::new(&memory, tables.as_ref(), &config).unwrap();
        ring.disable_interrupts();
        let device = DeviceRing::beside(&memory, &config).unwrap();
        let (doorbell, event) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let port = virtio::sync::Arc::new(EventPort {
            doorbell: doorbell.clone(),
            event: event.clone(),
            rings: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
        });
        let lane = RingLane { ring, port: port.clone() };
        let queue = Arc::new(Shared::new(lane, self.spin));
        (queue, Device { ring: device, tables, doorbell, event }, port)
    }
}

/// Runs something with the queue in a thread.
pub(crate) fn spawn<T: Send + 'static>(
    queue: &Queue,
    f: impl FnOnce(&Shared<RingLane<EventPort>>) -> T + Send + 'static,
) -> JoinHandle<T> {
    let queue = Arc::clone(queue);
    std::thread::spawn(move || f(&queue))
}

/// Waits until it is so.
pub(crate) fn until(mut so: impl FnMut() -> bool) {
    let end = soon();
    while !so() {
        assert!(!end.passed(), "it did not come about");
        std::thread::yield_now();
    }
}
