//! The driver's face.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::PoisonError;

use super::job::{Ask, Flow, Job, OwnJob, Read, Write};
use super::lanes::{Lanes, Taken};
use super::limits::Limits;
use super::options::{BlockOptions, lanes};
use super::rescue::{Reopen, Rescue, Terms};
use super::split::{SECTOR, Shape, Transfers};
use crate::device::{Device, Events};
use crate::drivers::agree;
use crate::features::Features;
use crate::mem::pool::DmaBuf;
use crate::queue::Counters;
use crate::spec::DeviceType;
use crate::spec::device::block::request::{ID_SIZE, Lifetime, RequestType};
use crate::spec::device::block::{config, feature};
use crate::sync::Mutex;
use crate::{Error, Result};

/// What the driver takes where it is offered. Not ZONED: a driver that takes it has to serve zones.
const WANTED: [u8; 13] = [
    feature::SIZE_MAX,
    feature::SEG_MAX,
    feature::GEOMETRY,
    feature::RO,
    feature::BLK_SIZE,
    feature::FLUSH,
    feature::TOPOLOGY,
    feature::CONFIG_WCE,
    feature::MQ,
    feature::DISCARD,
    feature::WRITE_ZEROES,
    feature::LIFETIME,
    feature::SECURE_ERASE,
];

/// Shortest time between two looks for a changed configuration, in microseconds: a look costs a register access.
const LOOK_EVERY: u64 = 1000;

/// A block device. Any thread may call; each call waits until all its requests are done.
///
/// Offsets and lengths are in bytes and multiples of 512 ([`Error::Misuse`] else), whatever the block size. Of a
/// call that fails, any part may have been done; a read's buffer holds no particular bytes then.
///
/// Each call of a lane may fail with
/// - [`Error::Request`] where the device answered with an error status (VIRTIO 1.4 §5.2.6),
/// - [`Error::ShortReply`] where it claimed success with less than the whole answer,
/// - [`Error::Timeout`] where it gave no answer in time: its requests stay in flight with their memory, and their
///   late answers are dropped,
/// - [`Error::Broken`], [`Error::DeviceNeedsReset`], [`Error::DeviceGone`], [`Error::Indeterminate`] as
///   [`crate::device::Queue::pop`] gives them: see [`Block::into_device`] for what leads on from there.
///
/// ```
/// use virtio::drivers::{Block, BlockOptions};
///
/// # #[cfg(feature = "soft")] {
/// let disk = Block::open("soft:block?size=1M", BlockOptions::default())?;
/// disk.write(512, &[7; 1024])?;
/// disk.flush()?;
/// let mut sector = [0; 512];
/// disk.read(1024, &mut sector)?;
/// assert_eq!((disk.size(), sector), (1 << 20, [7; 512]));
/// assert!(disk.read(1, &mut sector).is_err());
/// # }
/// # Ok::<(), virtio::Error>(())
/// ```
pub struct Block {
    // Before the device: what is in flight then goes to its quarantine, which its reset empties.
    pub(super) lanes: Lanes,
    pub(super) rescue: Rescue,
    pub(super) features: Features,
    limits: Mutex<Limits>,
    pub(super) shape: Shape,
    pub(super) size_max: u32,
    /// When the configuration was looked after, by [`coarse_micros`].
    looked: AtomicU64,
    /// A change that was seen by a call and not told to [`Block::events`] yet.
    changed: AtomicBool,
}

impl Block {
    /// Sets a block device up: one that was opened, or opened and negotiated.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a device of another type; [`Error::BadConfig`] for a configuration with which it
    /// cannot be used (fault C15); [`Error::QueueUnavailable`]; else as [`Device::negotiate`],
    /// [`Device::take_queue`] and [`Device::start`]. The device is closed then.
    pub fn new(device: Device, options: BlockOptions) -> Result<Self> {
        Self::with_reopen(device, &options, None)
    }

    /// The same for a device that can be made anew.
    pub(crate) fn with_reopen(
        device: Device,
        options: &BlockOptions,
        reopen: Option<Reopen>,
    ) -> Result<Self> {
        let address = device.address().to_string();
        Self::set_up(device, options, reopen).map_err(|error| error.at(&address))
    }

    fn set_up(device: Device, options: &BlockOptions, reopen: Option<Reopen>) -> Result<Self> {
        if device.device_type() != DeviceType::BLOCK {
            return Err(Error::Misuse { what: "this device is no block device" });
        }
        let features = agree(&device, WANTED.into_iter().map(Features::from_bit).collect())?;
        let limits = Limits::read(device.config(), features)?;
        let (lanes, shape) = lanes(&device, options, &limits)?;
        device.start()?;
        let queues = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
        let terms = Terms { features, limits, queues, config: options.queue() };
        Ok(Self {
            lanes: Lanes::new(lanes, options.between.clone()),
            rescue: Rescue::new(device, options.reconnect, reopen, terms),
            features,
            limits: Mutex::new(limits),
            shape,
            size_max: limits.size_max,
            looked: AtomicU64::new(coarse_micros()),
            changed: AtomicBool::new(false),
        })
    }

    /// The device behind it. Its events are to be taken through [`Block::events`]. After a reconnection with
    /// [`Reconnect::Retry`](super::Reconnect::Retry) it may be another one.
    pub fn device(&self) -> &Device {
        self.rescue.device()
    }

    /// Gives the device back, for a reset and another set-up. What is in flight stays in the device's quarantine
    /// until that reset.
    pub fn into_device(self) -> Device {
        let Self { lanes, rescue, .. } = self;
        drop(lanes);
        rescue.into_device()
    }

    /// Resets and closes the device. A second call does nothing; calls of other threads fail from then on.
    pub fn close(&self) -> Result<()> {
        self.rescue.close();
        self.device().close()
    }

    /// Features in use.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What the device can do, as last read.
    pub fn limits(&self) -> Limits {
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        Limits { size: self.size(), ..limits }
    }

    /// Size in bytes, as last read: it may change while the device runs ([`Block::events`]).
    pub fn size(&self) -> u64 {
        self.rescue.size()
    }

    /// Logical block size in bytes: what the device works with, not what calls must be multiples of.
    pub fn block_size(&self) -> u32 {
        self.limits().block_size
    }

    /// Whether the device takes no writes.
    pub fn read_only(&self) -> bool {
        self.features.has(feature::RO)
    }

    /// Number of request queues in use.
    pub fn queues(&self) -> usize {
        self.lanes.len()
    }

    /// What request queue `index` has counted; waits for a call that uses it.
    pub fn counters(&self, index: usize) -> Option<Counters> {
        let lane = self.lanes.get(index)?;
        Some(lane.lock().unwrap_or_else(PoisonError::into_inner).queue.counters())
    }

    /// Takes what has happened to the device, and reads its configuration again if that changed (fault C16).
    ///
    /// Calls do the same now and then, and before they refuse an access beyond the end.
    pub fn events(&self) -> Result<Events> {
        let mut events = self.device().events()?;
        if events.config_changed {
            self.refresh()?;
        }
        events.config_changed |= self.changed.swap(false, Ordering::AcqRel);
        Ok(events)
    }

    /// Reads what of the configuration may change while the device runs.
    fn refresh(&self) -> Result<()> {
        self.device().check_process()?;
        let new = Limits::read(self.device().config(), self.features)?;
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.size = new.size;
        limits.writeback = new.writeback;
        limits.write_zeroes_may_unmap = new.write_zeroes_may_unmap;
        self.rescue.set_size(new.size);
        Ok(())
    }

    /// Looks for a changed configuration, if that is long ago.
    pub(super) fn look(&self) -> Result<()> {
        let now = coarse_micros();
        if now.saturating_sub(self.looked.load(Ordering::Relaxed)) < LOOK_EVERY {
            return Ok(());
        }
        self.looked.store(now, Ordering::Relaxed);
        if self.events()?.config_changed {
            self.changed.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// First sector of an access that lies on the device (VIRTIO 1.4 §5.2.6.1: none beyond its capacity).
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<u64> {
        self.look()?;
        self.sector_of(offset, len)
    }

    /// The same for an access that changes the device.
    pub(super) fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        self.begin_check(true)?;
        self.sector_of(offset, len)
    }

    /// What is looked at once for many accesses, before [`Block::sector_of`] each.
    pub(super) fn begin_check(&self, writes: bool) -> Result<()> {
        if writes && self.read_only() {
            return Err(Error::ReadOnly);
        }
        self.look()
    }

    /// As [`Block::check`], by what is known of the device.
    pub(super) fn sector_of(&self, offset: u64, len: u64) -> Result<u64> {
        if !(offset | len).is_multiple_of(SECTOR) {
            return Err(Error::Misuse { what: "offset and length on a block device are multiples of 512" });
        }
        let inside = |size| offset.checked_add(len).is_some_and(|end| end <= size);
        if !inside(self.size()) {
            self.refresh()?;
            let size = self.size();
            if !inside(size) {
                return Err(Error::OutOfBounds { offset, len, size });
            }
        }
        Ok(offset.checked_div(SECTOR).unwrap_or(0))
    }

    pub(super) fn located<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.at(self.device().address()))
    }

    /// A lane for a call.
    fn lane(&self) -> Result<Taken<'_>> {
        self.device().check_process()?;
        self.lanes.lane()
    }

    pub(super) fn run(&self, job: &mut impl Job) -> Result<()> {
        self.lane()?.run(job, &self.rescue)
    }

    /// The same for a job all of whose requests have buffers of their own.
    pub(super) fn run_own(&self, job: &mut impl OwnJob) -> Result<()> {
        self.lane()?.run_own(job, &self.rescue)
    }

    /// Reads `to.len()` bytes from `offset` on.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        let result = self.check(offset, to.len() as u64).and_then(|sector| {
            let pieces = Transfers::new(to.len() as u64, self.shape);
            self.run(&mut Read { sector, pieces, to })
        });
        self.located(result)
    }

    /// Writes `from` at `offset`. The data is in the device's cache then, if it has one ([`Limits::writeback`]):
    /// [`Block::flush`]. [`Error::ReadOnly`] for a read-only device.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.put(offset, from, false)
    }

    /// The same for a write that may be made more than once: with [`Reconnect::Retry`](super::Reconnect::Retry) it is sent again where the
    /// device went away with it.
    pub fn write_retry(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.put(offset, from, true)
    }

    fn put(&self, offset: u64, from: &[u8], repeats: bool) -> Result<()> {
        let result = self.check_write(offset, from.len() as u64).and_then(|sector| {
            let pieces = Transfers::new(from.len() as u64, self.shape);
            self.run(&mut Write { sector, pieces, from, repeats })
        });
        self.located(result)
    }

    /// Reads into a buffer of the device's own memory ([`Device::pool`]), without a copy: as many bytes as it is
    /// long, in one request.
    ///
    /// # Errors
    /// [`Error::Misuse`] for one above [`Limits::size_max`]; [`Error::NotMapped`] for one of another device. With
    /// an error the buffer goes back to its pool, after a time-out when the device has given it back.
    pub fn read_into(&self, offset: u64, buf: DmaBuf) -> Result<DmaBuf> {
        let checked = self.check(offset, buf.len().into());
        self.located(checked.and_then(|sector| self.own(sector, Flow::FromDevice, buf, true)))
    }

    /// Writes a buffer of the device's own memory, without a copy, in one request. Errors as [`Block::read_into`]
    /// and [`Block::write`].
    pub fn write_from(&self, offset: u64, buf: DmaBuf) -> Result<DmaBuf> {
        let checked = self.check_write(offset, buf.len().into());
        self.located(checked.and_then(|sector| self.own(sector, Flow::ToDevice, buf, false)))
    }

    /// The same for a write that may be made more than once: see [`Block::write_retry`]. It is sent again where the
    /// old back-end is proven dead, so that nobody else uses the buffer.
    pub fn write_from_retry(&self, offset: u64, buf: DmaBuf) -> Result<DmaBuf> {
        let checked = self.check_write(offset, buf.len().into());
        self.located(checked.and_then(|sector| self.own(sector, Flow::ToDevice, buf, true)))
    }

    /// Makes all writes that were completed before the call permanent (VIRTIO 1.4 §5.2.6.2).
    ///
    /// [`Error::Indeterminate`], once, where the device went away with completed writes behind it
    /// ([`Reconnect::Retry`](super::Reconnect::Retry)): they may be lost.
    ///
    /// Without FLUSH the device has no cache that could be flushed, as far as the specification lets a driver
    /// know (§5.2.5.1): then nothing is done.
    pub fn flush(&self) -> Result<()> {
        if !self.features.has(feature::FLUSH) {
            return Ok(());
        }
        let written = self.located(self.rescue.begin_flush())?;
        self.ask(RequestType::FLUSH, &mut [])?;
        self.located(self.rescue.end_flush(written))
    }

    fn ask(&self, request_type: RequestType, answer: &mut [u8]) -> Result<()> {
        self.located(self.run(&mut Ask { request_type, answer, asked: false }))
    }

    /// The device's id string, at most 20 bytes; what is not UTF-8 is replaced. [`Error::Request`] with status 2
    /// where the device has none.
    pub fn get_id(&self) -> Result<String> {
        let mut id = [0; ID_SIZE];
        self.ask(RequestType::GET_ID, &mut id)?;
        let bytes: Vec<u8> = id.into_iter().take_while(|&byte| byte != 0).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How worn the storage is. [`Error::Unsupported`] without LIFETIME.
    pub fn lifetime(&self) -> Result<Lifetime> {
        if !self.features.has(feature::LIFETIME) {
            return self.located(Err(Error::Unsupported { what: "the device tells no lifetime" }));
        }
        let mut bytes = [0; Lifetime::SIZE];
        self.ask(RequestType::GET_LIFETIME, &mut bytes)?;
        Ok(Lifetime::decode(&bytes, self.device().transport().byte_order()))
    }

    /// Tells the device that a range is not needed any more: what it reads as then is undefined.
    ///
    /// [`Error::Unsupported`] without DISCARD or with limits of 0.
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.erase(RequestType::DISCARD, self.limits().discard, offset, len, false)
    }

    /// Sets a range to zeroes; with `unmap` the device may deallocate it. [`Error::Unsupported`] without
    /// WRITE_ZEROES or with limits of 0.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<()> {
        self.erase(RequestType::WRITE_ZEROES, self.limits().write_zeroes, offset, len, unmap)
    }

    /// Erases a range so that nobody can read it again. [`Error::Unsupported`] without SECURE_ERASE or with
    /// limits of 0.
    pub fn secure_erase(&self, offset: u64, len: u64) -> Result<()> {
        self.erase(RequestType::SECURE_ERASE, self.limits().secure_erase, offset, len, false)
    }

    /// Switches between a writeback cache (`true`) and writethrough (VIRTIO 1.4 §5.2.5). Writes that were made
    /// before are not made permanent by this. [`Error::Unsupported`] without CONFIG_WCE.
    pub fn set_writeback(&self, writeback: bool) -> Result<()> {
        if !self.features.has(feature::CONFIG_WCE) {
            return self.located(Err(Error::Unsupported { what: "the cache mode cannot be set" }));
        }
        let written = self.device().config().write(config::WRITEBACK.into(), 1, writeback.into());
        self.located(written.and_then(|()| self.refresh()))
    }
}

/// Microseconds of a clock that is some milliseconds wide of the mark, for a quarter of the price of an exact one.
fn coarse_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000).wrapping_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1000)
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:?}, {} bytes, {} queues)", self.device(), self.size(), self.lanes.len())
    }
}
