//! What becomes of a block device whose back-end went away: reported, or taken up again.
//!
//! A new connection is a new life of the device: every lane gets a new queue. Which memory it uses depends on the old
//! back-end: where that is proven dead, the device stays and its memory with it; else everything is made anew, and what
//! the old one may still write to is kept for ever.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{OnceLock, PoisonError, TryLockError};
use std::thread;

use super::limits::Limits;
use crate::device::{Device, Queue, QueueConfig};
use crate::drivers::Between;
use crate::event::Deadline;
use crate::features::{Features, Origin};
use crate::mem::pool::DmaBuf;
use crate::spec::device::block::feature;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// What a block device does when its back-end goes away with requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reconnect {
    /// Every request in flight ends once, as [`Error::Indeterminate`]; the device is gone.
    #[default]
    Fail,
    /// The device is set up again, with a back-end that has at least what the first one had, within the time of the
    /// call that waits for it ([`Error::Incompatible`] for one that has less). Reads are sent again, and writes that
    /// were marked for it ([`super::Block::write_retry`]); everything else that was in flight ends as
    /// [`Error::Indeterminate`]. So does, once, the first flush after it with completed writes behind it that no flush
    /// had made permanent: the old back-end may have lost them. Where no back-end comes back in time, marked writes in
    /// flight end as [`Error::Indeterminate`] too; reads, which change nothing, as the error of the last attempt.
    Retry,
}

/// Makes the device anew, over a new connection.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Device> + Send + Sync>;

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// A queue of a new life.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) queue: Queue<DmaBuf>,
    pub(super) life: u64,
}

/// The devices of one block device, oldest first: references to each stay good.
#[derive(Debug)]
struct Devices {
    device: Device,
    next: OnceLock<Box<Devices>>,
}

/// The queues of the life that is, for lanes that have not taken theirs yet.
#[derive(Debug, Default)]
struct Book {
    life: u64,
    seats: Vec<Option<Queue<DmaBuf>>>,
}

/// What a device must be to stand in for the one before it.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) features: Features,
    pub(super) limits: Limits,
    pub(super) queues: u16,
    pub(super) config: QueueConfig,
}

/// Why there is no back-end to go on with. A device that is closed is closed on purpose: that keeps none away.
pub(super) fn kept_away(seat: &Result<Seat>) -> Option<&Error> {
    seat.as_ref().err().filter(|error| !matches!(error.kind(), Error::Closed { .. }))
}

/// Devices, and how one follows another.
pub(super) struct Rescue {
    policy: Reconnect,
    terms: Terms,
    /// [`Book::life`], for a look without its lock.
    life: AtomicU64,
    closed: AtomicBool,
    size: AtomicU64,
    /// Writes that were completed, and of those the ones that a flush made permanent.
    written: AtomicU64,
    flushed: AtomicU64,
    /// A back-end went away with completed writes that nobody had flushed.
    doubt: AtomicBool,
    reopen: Option<Reopen>,
    // Before the devices, as lanes are.
    book: Mutex<Book>,
    devices: Devices,
}

impl Rescue {
    pub(super) fn new(device: Device, policy: Reconnect, reopen: Option<Reopen>, terms: Terms) -> Self {
        Self {
            policy,
            size: AtomicU64::new(terms.limits.size),
            terms,
            life: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            doubt: AtomicBool::new(false),
            reopen,
            book: Mutex::default(),
            devices: Devices { device, next: OnceLock::new() },
        }
    }

    /// The device that is in use.
    pub(super) fn device(&self) -> &Device {
        &self.last().device
    }

    fn last(&self) -> &Devices {
        let mut devices = &self.devices;
        while let Some(next) = devices.next.get() {
            devices = next;
        }
        devices
    }

    pub(super) fn into_device(self) -> Device {
        let mut devices = self.devices;
        while let Some(next) = devices.next.take() {
            devices = *next;
        }
        devices.device
    }

    /// From now on nothing is taken up again.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether requests are to be sent again.
    pub(super) fn retries(&self) -> bool {
        self.policy == Reconnect::Retry
    }

    /// Number of the life that the device is in.
    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// Whether `error` is one after which the device is set up again.
    pub(super) fn can_help(&self, error: &Error) -> bool {
        self.retries()
            && !self.closed.load(Ordering::Acquire)
            && matches!(error.kind(), Error::DeviceGone { .. } | Error::Closed { .. })
    }

    /// A queue for lane `index`, whose own was of `life`; sets the device up again if nobody has done so yet. Calls
    /// `between` whenever it waits.
    pub(super) fn recover(
        &self,
        life: u64,
        index: u16,
        deadline: Deadline,
        between: &Between,
    ) -> Result<Seat> {
        let mut book = self.book(deadline, between)?;
        if book.life == life {
            self.set_up_again(&mut book, deadline, between)?;
        }
        let life = book.life;
        let queue = book.seats.get_mut(usize::from(index)).and_then(Option::take);
        Ok(Seat { queue: queue.ok_or(Error::Closed { what: "block device" })?, life })
    }

    fn book(&self, deadline: Deadline, between: &Between) -> Result<MutexGuard<'_, Book>> {
        loop {
            match self.book.try_lock() {
                Ok(book) => return Ok(book),
                Err(TryLockError::Poisoned(book)) => return Ok(book.into_inner()),
                Err(TryLockError::WouldBlock) if deadline.passed() => {
                    return Err(deadline.timeout("a back-end to come back"));
                }
                Err(TryLockError::WouldBlock) => {}
            }
            between.look()?;
            thread::sleep(PAUSES.0);
        }
    }

    fn set_up_again(&self, book: &mut Book, deadline: Deadline, between: &Between) -> Result<()> {
        let mut pause = PAUSES.0;
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::Closed { what: "block device" });
            }
            match self.attempt() {
                Ok(seats) => {
                    if self.written.load(Ordering::Acquire) != self.flushed.load(Ordering::Acquire) {
                        self.doubt.store(true, Ordering::Release);
                    }
                    (book.life, book.seats) = (book.life.wrapping_add(1), seats);
                    self.life.store(book.life, Ordering::Release);
                    return Ok(());
                }
                Err(error) if self.is_final(&error) || deadline.passed() => return Err(error),
                Err(error) => log::info!("{}: not back yet: {error}", self.device().address()),
            }
            between.look()?;
            thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    /// One attempt: the same device where the old back-end is proven dead, else another one.
    fn attempt(&self) -> Result<Vec<Option<Queue<DmaBuf>>>> {
        match self.device().reset() {
            Ok(()) => self.prepare(self.device()),
            Err(error) if matches!(error.kind(), Error::DeviceGone { .. } | Error::Closed { .. }) => {
                let reopen = self.reopen.as_ref().ok_or(error)?;
                if let Err(error) = self.device().close() {
                    log::warn!("{error}: its memory is kept, another connection is made");
                }
                let device = reopen()?;
                let seats = self.prepare(&device)?;
                // Nobody else adds one: the book is locked.
                let added = self.last().next.set(Box::new(Devices { device, next: OnceLock::new() }));
                added.map(|()| seats).map_err(|_| Error::Closed { what: "block device" })
            }
            Err(error) => Err(error),
        }
    }

    /// Sets a device up as the first one was, or says in what it is less (fault E2).
    fn prepare(&self, device: &Device) -> Result<Vec<Option<Queue<DmaBuf>>>> {
        let Terms { features, limits, queues, config } = &self.terms;
        let offered = device.offered()?;
        let read_only = |set: Features| u64::from(set.has(feature::RO));
        if !offered.contains(*features) {
            let lost = features.difference(offered);
            let word = |set: Features| {
                let [low, high, ..] = set.words();
                u64::from(low) | u64::from(high) << 32
            };
            return Err(less("features", word(*features), word(features.difference(lost))));
        }
        if read_only(offered) != read_only(*features) {
            return Err(less("VIRTIO_BLK_F_RO", read_only(*features), read_only(offered)));
        }
        device.negotiate_as(Origin::Driver, *features, *features)?;
        let now = Limits::read(device.config(), *features)?;
        for (what, before, now) in [
            ("a capacity of", self.size(), now.size),
            ("a size_max of", limits.size_max.into(), now.size_max.into()),
            ("a seg_max of", limits.seg_max.into(), now.seg_max.into()),
            ("queues numbering", (*queues).into(), now.queues.into()),
        ] {
            if now < before {
                return Err(less(what, before, now));
            }
        }
        let seats = (0..*queues).map(|index| device.take_queue(index, config.clone()).map(Some));
        let seats = seats.collect::<Result<_>>()?;
        device.start()?;
        self.set_size(now.size);
        Ok(seats)
    }

    /// Whether trying again would not help.
    fn is_final(&self, error: &Error) -> bool {
        match error.kind() {
            Error::Incompatible { .. }
            | Error::MissingFeatures { .. }
            | Error::BadConfig { .. }
            | Error::MemoryLimit { .. }
            | Error::ForkedProcess { .. } => true,
            Error::DeviceGone { .. } => self.reopen.is_none(),
            _ => false,
        }
    }

    /// Size of the device in bytes, as last read.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// A write was completed, on a queue of `life`.
    pub(super) fn wrote(&self, life: u64) {
        self.written.fetch_add(1, Ordering::AcqRel);
        if life != self.life() {
            self.doubt.store(true, Ordering::Release);
        }
    }

    /// What a flush that begins now makes permanent if it succeeds.
    ///
    /// [`Error::Indeterminate`], once, where a back-end went away with completed writes that were not flushed.
    pub(super) fn begin_flush(&self) -> Result<u64> {
        let written = self.written.load(Ordering::Acquire);
        self.settle_doubt(written).map(|()| written)
    }

    /// A flush has succeeded. Errors as [`Rescue::begin_flush`]: one that had to wait for the next back-end was done by
    /// that, which knows nothing of the writes.
    pub(super) fn end_flush(&self, written: u64) -> Result<()> {
        self.settle_doubt(written)?;
        self.flushed.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }

    /// Tells of writes that may be lost, once.
    fn settle_doubt(&self, written: u64) -> Result<()> {
        if !self.doubt.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.flushed.fetch_max(written, Ordering::AcqRel);
        Err(Error::Indeterminate { token: 0 })
    }

    /// The lock of the book, for debugging.
    fn seats(&self) -> usize {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).seats.iter().flatten().count()
    }
}

/// [`Error::Incompatible`].
fn less(what: &'static str, before: u64, now: u64) -> Error {
    Error::Incompatible { what, before, now }
}

impl fmt::Debug for Rescue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rescue({:?}, life {}, {} seats)", self.policy, self.life(), self.seats())
    }
}
