//! A running device: its lock, its notifications, and the thread or the calls that serve it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::PoisonError;
use std::thread::{Builder, JoinHandle};

use super::core::{Core, Face};
use super::device::Report;
use super::registers::{NOTIFY_DATA, Reg};
use crate::event::{Deadline, EventFd};
use crate::features::Features;
use crate::mem::dma::SoftDma;
use crate::mem::process::Process;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Chains of one queue that are used in one go, before the driver's registers and the other queues have a turn.
pub(super) const BATCH: u32 = 32;

/// How a software device is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    /// By a thread of its own, which ends when the last handle of the device is dropped.
    #[default]
    Thread,
    /// By calls of [`super::SoftDevice::step`], in the caller's thread.
    Stepped,
    /// Inside the driver's notification, in its thread, which returns when everything that was available is
    /// used.
    Inline,
}

/// A device and everything that its handles share.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) address: String,
    pub(super) dma: Arc<SoftDma>,
    core: Mutex<Core>,
    run: Run,
    checked: bool,
    /// Whether notifications may be served on the shortest way.
    plain: bool,
    /// Whether notifications carry what NOTIF_CONFIG_DATA made of the queue index.
    notify_data: AtomicBool,
    /// For each queue whether it was notified since it was last looked at.
    pending: Box<[AtomicBool]>,
    notifications: AtomicU64,
    wake: EventFd,
    asleep: AtomicBool,
    stop: AtomicBool,
    /// Accesses to registers, notifications too.
    accesses: AtomicU64,
}

impl Machine {
    pub(super) fn new(address: String, dma: Arc<SoftDma>, core: Core, run: Run) -> Result<Self> {
        let pending = core.queues.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self {
            address,
            dma,
            run,
            checked: core.checker.is_some(),
            plain: run == Run::Inline && core.plain,
            notify_data: AtomicBool::new(false),
            core: Mutex::new(core),
            pending,
            notifications: AtomicU64::new(0),
            wake: EventFd::new()?,
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            accesses: AtomicU64::new(0),
        })
    }

    /// The device's lock. What a panic of a model left behind is still a device.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver reads or writes something.
    pub(super) fn accessed(&self) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells no lie any more.
    pub(super) fn be_honest(&self) -> Result<()> {
        self.core().script.clear();
        self.look_again()
    }

    pub(super) fn report(&self) -> Report {
        let core = self.core();
        Report {
            broken: core.checker.as_ref().and_then(|checker| checker.first()),
            chains: core.total,
            notifications: self.notifications.load(Ordering::Relaxed).wrapping_add(core.plain_rings),
            interrupts: core.interrupts,
            accesses: self.accesses.load(Ordering::Relaxed).wrapping_add(core.plain_rings),
            status: core.status,
            accepted: core.accepted(),
        }
    }

    /// The driver rang for the queue that `value` names. `at` is that of the notification address, in units of
    /// the multiplier, where it tells.
    pub(super) fn notify(&self, face: Face, width: u8, value: u32, at: Option<u64>) -> Result<()> {
        if self.plain && self.core().serve_plain(value as u16)? {
            return Ok(());
        }
        self.accessed();
        if self.checked {
            let mut core = self.core();
            if let Some(mut checker) = core.checker.take() {
                checker.notified(&core, face, width, value, at);
                core.checker = Some(checker);
            }
        }
        self.notifications.fetch_add(1, Ordering::Relaxed);
        let mut queue = value as u16;
        if face == Face::PciModern && self.notify_data.load(Ordering::Relaxed) {
            queue ^= NOTIFY_DATA;
        }
        self.notify_queue(queue)
    }

    pub(super) fn notify_queue(&self, queue: u16) -> Result<()> {
        let Some(pending) = self.pending.get(usize::from(queue)) else { return Ok(()) };
        // SeqCst: our mark against the look at `asleep`; pairs with the thread's, which stores the one and looks
        // at the other.
        pending.store(true, Ordering::SeqCst);
        match self.run {
            Run::Inline => self.run_all(),
            Run::Thread if self.asleep.swap(false, Ordering::SeqCst) => self.wake.signal(),
            Run::Thread | Run::Stepped => Ok(()),
        }
    }

    /// Reads a register.
    pub(super) fn read(&self, face: Face, reg: Reg) -> Result<u32> {
        let mut core = self.core();
        if let Some(mut checker) = core.checker.take() {
            checker.read(&core, face, reg);
            core.checker = Some(checker);
        }
        core.read(face, reg)
    }

    /// Writes a register.
    pub(super) fn write(&self, face: Face, reg: Reg, value: u32) -> Result<()> {
        let mut core = self.core();
        if let Some(mut checker) = core.checker.take() {
            checker.write(&core, face, reg, value);
            core.checker = Some(checker);
        }
        core.write(face, reg, value)?;
        let data = core.accepted().contains(Features::NOTIF_CONFIG_DATA);
        self.notify_data.store(data, Ordering::Relaxed);
        let wakes = reg == Reg::Status && core.live();
        drop(core);
        if wakes { self.look_again() } else { Ok(()) }
    }

    /// Something else than a notification may have made work: DRIVER_OK, or the end of a lie.
    pub(super) fn look_again(&self) -> Result<()> {
        for queue in 0..self.pending.len() {
            self.notify_queue(u16::try_from(queue).unwrap_or(u16::MAX))?;
        }
        Ok(())
    }

    /// Serves the notified queues once, up to `most` chains of each, or of the first where `one` is set. Answers
    /// whether any chain was used.
    pub(super) fn round(&self, most: u32, one: bool) -> Result<bool> {
        let mut any = false;
        for (queue, pending) in (0..).zip(&self.pending) {
            if !pending.swap(false, Ordering::SeqCst) {
                continue;
            }
            any |= self.serve(queue, pending, most)?;
            if any && one {
                break;
            }
        }
        Ok(any)
    }

    fn serve(&self, queue: u16, pending: &AtomicBool, most: u32) -> Result<bool> {
        let mut core = self.core();
        let served = core.serve(queue, most)?;
        if served.more {
            pending.store(true, Ordering::SeqCst);
        }
        if served.chains == 0 {
            return Ok(false);
        }
        for (other, pending) in (0..).zip(&self.pending) {
            if core.waits(other) {
                pending.store(true, Ordering::SeqCst);
            }
        }
        Ok(true)
    }

    /// One chain, of the first notified queue that has one.
    pub(super) fn step(&self) -> Result<bool> {
        if self.run != Run::Stepped {
            return Err(Error::Misuse { what: "only a device that is built as stepped can be stepped" });
        }
        let any = self.round(1, true)?;
        if self.checked && !any {
            let mut core = self.core();
            if let Some(mut checker) = core.checker.take() {
                let notified = |queue: u16| {
                    let pending = self.pending.get(usize::from(queue));
                    pending.is_some_and(|pending| pending.load(Ordering::SeqCst))
                };
                checker.quiet(&core, notified);
                core.checker = Some(checker);
            }
        }
        Ok(any)
    }

    fn run_all(&self) -> Result<()> {
        while self.round(u32::MAX, false)? {}
        Ok(())
    }

    fn work(&self) {
        while !self.stop.load(Ordering::Acquire) {
            match self.round(BATCH, false) {
                Ok(true) => continue,
                Ok(false) => {}
                // Only an event that cannot be signalled: the driver has none, and polls or times out.
                Err(error) => log::warn!("{}: {error}", self.address),
            }
            self.asleep.store(true, Ordering::SeqCst);
            let pending = self.pending.iter().any(|pending| pending.load(Ordering::SeqCst));
            if !pending && !self.stop.load(Ordering::SeqCst) {
                let woken = self.wake.wait(Deadline::never()).and_then(|_| self.wake.drain());
                if let Err(error) = woken {
                    log::error!("{}: the device stops: {error}", self.address);
                    return;
                }
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }
}

/// What is called with a device's report.
pub(super) type Look = Box<dyn FnOnce(&Report) + Send + Sync>;

/// What a device's maker wants to have called when it has ended.
#[derive(Default)]
pub(super) struct AtEnd(pub(super) Option<Look>);

impl fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AtEnd({})", self.0.is_some())
    }
}

/// Keeps a device running; the last handle that drops it ends the thread.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) machine: Arc<Machine>,
    thread: Mutex<Option<JoinHandle<()>>>,
    owner: Process,
    at_end: AtEnd,
}

impl Running {
    pub(super) fn start(machine: Machine, at_end: AtEnd) -> Result<Arc<Self>> {
        let machine = Arc::new(machine);
        let thread = if machine.run == Run::Thread { Some(spawn(&machine)?) } else { None };
        Ok(Arc::new(Self { machine, thread: Mutex::new(thread), owner: Process::current(), at_end }))
    }
}

fn spawn(machine: &Arc<Machine>) -> Result<JoinHandle<()>> {
    let machine = Arc::clone(machine);
    let name = Builder::new().name("virtio-soft".into());
    let spawned = name.spawn(move || machine.work());
    spawned.map_err(|error| Error::Os {
        doing: "start the thread of a software device",
        errno: error.raw_os_error().unwrap_or(crate::error::errno::EIO),
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A fork's child has no such thread, and its event is the parent's.
        if !self.owner.is_current() {
            return core::mem::forget(thread);
        }
        self.machine.stop.store(true, Ordering::SeqCst);
        // Where it cannot be woken, it is left to itself.
        if let Some(thread) = thread
            && self.machine.wake.signal().is_ok()
        {
            let _ = thread.join();
        }
        if let Some(look) = self.at_end.0.take() {
            look(&self.machine.report());
        }
    }
}
