//! A machine: its connection, its RAM, and what of it is in use. One for each socket and process.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::thread::{Builder, JoinHandle};

use rustix::process::{Pid, getpid};

use super::layout::{LAYOUTS, Layout, ROUTED_TO};
use super::link::{Link, value};
use super::pump::Shared;
use super::registers::{Place, Slot};
use crate::event::Deadline;
use crate::mem::dma::{DmaAddr, DmaLimits, DmaMapper};
use crate::mem::ram::RamFile;
use crate::mem::region::DmaRegion;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Longest wait for one answer, unless it is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a machine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineOptions {
    /// Path of its qtest socket, at which it waits for a connection.
    pub socket: PathBuf,
    /// The file that is its RAM, shared.
    pub ram: PathBuf,
    /// Kind of machine: `pc` (also Q35), `microvm`, `g3beige`, `m68k-virt`. Without it the first two are told apart by a
    /// look, and a big-endian machine is refused.
    pub kind: Option<String>,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

impl MachineOptions {
    /// For a PC.
    pub fn new(socket: impl Into<PathBuf>, ram: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), ram: ram.into(), kind: None, timeout: DEFAULT_TIMEOUT }
    }
}

/// A QEMU machine whose processor is halted and whose devices this process drives.
///
/// Handles of one machine share it: its socket serves one connection. The connection ends when the last handle and
/// the last device are gone. Any thread may call.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    ram: Arc<RamFile>,
    layout: &'static Layout,
    big_endian: bool,
    timeout: Duration,
    options: MachineOptions,
    books: Mutex<Books>,
    owner: Pid,
}

/// What of the machine is given out.
#[derive(Debug, Default)]
struct Books {
    /// Names of the devices that are open.
    open: BTreeSet<String>,
    /// Addresses of BARs, by function and index, with their sizes: the same every time.
    bars: BTreeMap<(Slot, u8, u64), u64>,
    /// First free address for BARs of a bus, in memory space or in I/O space.
    next: BTreeMap<(u8, bool), u64>,
    /// The last bus that has a number, once they have.
    buses: Option<u8>,
    routed: bool,
    /// Whether devices of whoever had the machine before were stopped.
    taken_over: bool,
}

/// Machines of this process, by their sockets.
static MACHINES: Mutex<Vec<(PathBuf, Entry)>> = Mutex::new(Vec::new());

/// Locked while a connection is made.
type Entry = Arc<Mutex<Weak<Machine>>>;

fn entry(socket: PathBuf) -> Entry {
    let mut machines = MACHINES.lock().unwrap_or_else(PoisonError::into_inner);
    // What nobody has, and nobody is about to have.
    machines.retain(|(_, machine)| {
        Arc::strong_count(machine) > 1
            || machine.try_lock().map_or(true, |machine| machine.strong_count() > 0)
    });
    if let Some((_, machine)) = machines.iter().find(|(known, _)| *known == socket) {
        return Arc::clone(machine);
    }
    let machine = Arc::new(Mutex::new(Weak::new()));
    machines.push((socket, Arc::clone(&machine)));
    machine
}

impl Machine {
    /// The machine at a socket: the one that this process has already, or a new connection.
    ///
    /// [`Error::NotFound`] where nobody listens, [`Error::DeviceBusy`] where the machine does not answer in time,
    /// because somebody else has its connection or it is stopped; [`Error::Misuse`] for a kind of machine that is not
    /// known or does not fit; [`Error::Os`] for a RAM file that cannot be opened, [`Error::MemoryLimit`] for one that
    /// is too small.
    pub fn connect(options: &MachineOptions) -> Result<Arc<Self>> {
        let socket = options.socket.canonicalize().unwrap_or_else(|_| options.socket.clone());
        let entry = entry(socket);
        // One at a time for each socket: of two connections the machine would serve one.
        let mut known = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = known.upgrade().filter(|machine| !machine.shared.link.ended()) {
            return machine.fits(options).map(|()| machine);
        }
        let machine = Arc::new(Self::new(options)?);
        *known = Arc::downgrade(&machine);
        Ok(machine)
    }

    fn new(options: &MachineOptions) -> Result<Self> {
        let named = options.kind.as_deref().map(|name| {
            Layout::named(name).ok_or(Error::Misuse {
                what: "this kind of machine is not known: pc, microvm, g3beige and m68k-virt are",
            })
        });
        let named = named.transpose()?;
        // Nobody at the socket says more than a file that is not there either.
        let (link, order) = Link::connect(&options.socket, options.timeout)?;
        let ram = RamFile::open(&options.ram)?;
        let big_endian = order == "big";
        if big_endian && options.kind.is_none() {
            return Err(Error::Misuse { what: "a big-endian machine: say its kind, g3beige or m68k-virt" });
        }
        let layout = match named {
            Some(layout) => layout,
            None => look(&link, options.timeout)?,
        };
        // Known where QEMU runs with `-accel qtest`, and refused where its clock goes by itself.
        let still = match link.ask("clock_step 0", options.timeout) {
            Ok(_) => true,
            Err(Error::Protocol { .. }) if !link.ended() => false,
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared::new(link, still)?);
        let thread = {
            let shared = Arc::clone(&shared);
            let name = String::from("virtio-qtest");
            Builder::new().name(name).spawn(move || shared.run()).map_err(|error| Error::Os {
                doing: "start the thread of a machine's interrupts",
                errno: error.raw_os_error().unwrap_or(crate::error::errno::EAGAIN),
            })?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
            ram,
            layout,
            big_endian,
            timeout: options.timeout,
            options: options.clone(),
            books: Mutex::default(),
            owner: getpid(),
        })
    }

    fn fits(&self, options: &MachineOptions) -> Result<()> {
        let kind = options.kind.as_deref().unwrap_or(self.layout.name);
        if kind == self.layout.name && options.ram == self.options.ram {
            return Ok(());
        }
        Err(Error::Misuse { what: "this machine is in use with another RAM file, or as another kind" })
    }

    /// Whether the machine's processor is big-endian, and with it its legacy devices.
    pub fn big_endian(&self) -> bool {
        self.big_endian
    }

    /// The last lines that went over the socket, `>` before ours and `<` before the machine's: what to look at when a
    /// device turns out to be gone.
    pub fn transcript(&self) -> String {
        self.shared.link.transcript()
    }

    /// Has one command of the qtest protocol done; gives its answer without the leading `OK`. For what is no
    /// register of a virtio device, such as the ports by which a PC ejects one.
    ///
    /// [`Error::Protocol`] with the last lines where the machine refuses it; [`Error::Disconnected`],
    /// [`Error::Timeout`].
    pub fn command(&self, command: &str) -> Result<String> {
        if command.contains('\n') {
            return Err(Error::Misuse { what: "a command is one line" });
        }
        self.shared.link.ask(command, self.timeout)
    }

    /// A command for a register: where the connection has ended, so has the device.
    pub(super) fn ask(&self, command: &str) -> Result<String> {
        self.located(self.shared.link.ask(command, self.timeout))
    }

    pub(super) fn ask_two(&self, first: &str, second: &str) -> Result<String> {
        self.located(self.shared.link.ask_two(first, second, self.timeout))
    }

    fn located(&self, answer: Result<String>) -> Result<String> {
        answer.map_err(|error| match error {
            Error::ForkedProcess { .. } => error,
            _ if self.shared.link.ended() => {
                Error::DeviceGone { what: "the connection to its machine ended" }
            }
            error => error,
        })
    }

    pub(super) fn layout(&self) -> &'static Layout {
        self.layout
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn ram(&self) -> &Arc<RamFile> {
        &self.ram
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the machine's process is dead, at most until `deadline`; `false` then, while the connection lives,
    /// and where the kernel did not tell which process it is. A dead machine reads and writes no memory.
    pub fn dead(&self, deadline: Deadline) -> bool {
        // Without this a wait for the death of a machine that is well would take all of the time.
        self.shared.link.ended() && self.shared.link.dead(deadline)
    }

    /// The last bus that has a number, once they have.
    pub(super) fn buses(&self) -> Option<u8> {
        self.books().buses
    }

    pub(super) fn set_buses(&self, last: u8) {
        self.books().buses = Some(last);
    }

    /// Takes a device for one handle; [`Error::DeviceBusy`] where this process has it open.
    pub(super) fn claim(self: &Arc<Self>, name: &str) -> Result<Claim> {
        if !self.books().open.insert(name.into()) {
            return Err(Error::DeviceBusy { holder: "another handle of this process".into() });
        }
        Ok(Claim { machine: Arc::clone(self), name: name.into() })
    }

    /// An address for a BAR of `size` bytes, the same every time.
    pub(super) fn place_bar(&self, slot: Slot, index: u8, size: u64, io: bool) -> Result<u64> {
        let mut books = self.books();
        if let Some(&at) = books.bars.get(&(slot, index, size)) {
            return Ok(at);
        }
        let (first, last) = self.layout.window(slot.bus, io);
        let full = Error::MemoryLimit { needed: size, have: 0, limit: "the machine's space for BARs" };
        let next = books.next.entry((slot.bus, io)).or_insert(first);
        let at = next.checked_next_multiple_of(size.max(1)).ok_or_else(|| full.clone())?;
        let end = at.checked_add(size).filter(|end| *end <= last.saturating_add(1)).ok_or(full)?;
        *next = end;
        books.bars.insert((slot, index, size), at);
        Ok(at)
    }

    /// An event for a device's interrupt line, and its number.
    pub(super) fn line(&self) -> Result<(u64, crate::event::EventFd)> {
        self.shared.intercept_once(|| {
            for path in self.layout.controllers {
                match self.shared.link.ask(&alloc::format!("irq_intercept_in {path}"), self.timeout) {
                    Ok(_) => return Ok(()),
                    Err(error @ Error::Protocol { .. }) => {
                        log::debug!("no interrupt lines from {path}: {error}")
                    }
                    Err(error) => return Err(error),
                }
            }
            log::warn!("the machine tells of no interrupt lines: waits look at the rings now and then");
            Ok(())
        })?;
        self.shared.add_line()
    }

    /// Before the first device of a connection is used: what others have left running may still write to the memory
    /// that is about to be cut for it, and is stopped.
    pub(super) fn take_over(self: &Arc<Self>) -> Result<()> {
        let seats = self.seats()?;
        // Kept locked: nobody uses a device before all are stopped.
        let mut books = self.books();
        if books.taken_over {
            return Ok(());
        }
        for seat in seats {
            self.disarm(seat)?;
        }
        books.taken_over = true;
        Ok(())
    }

    /// Routes PCI's interrupt lines to the interrupt controller, as firmware would.
    pub(super) fn route(&self) -> Result<()> {
        if self.books().routed {
            return Ok(());
        }
        for router in self.layout.routers {
            let place = Place::Config(Slot { bus: 0, device: router.device, function: 0 });
            if self.access(place, 0, 4, None)? == router.id {
                for &register in router.registers {
                    self.access(place, register, 1, Some(ROUTED_TO.into()))?;
                }
            }
        }
        self.books().routed = true;
        Ok(())
    }

    /// Makes memory reachable for one device.
    pub(super) fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::new(RamMapper { ram: Arc::clone(&self.ram), mapped: Mutex::default() })
    }
}

/// Which kind a little-endian machine is: a PC has a host bridge.
fn look(link: &Link, timeout: Duration) -> Result<&'static Layout> {
    let [pc, microvm, ..] = &LAYOUTS;
    let ids = link.ask_two("outl 0xcf8 0x80000000", "inl 0xcfc", timeout)?;
    Ok(if value(&ids)? as u16 == u16::MAX { microvm } else { pc })
}

impl Drop for Machine {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if getpid() != self.owner {
            // The thread is the parent's: there is nothing to wait for here.
            core::mem::forget(thread);
            return;
        }
        if let Err(error) = self.shared.stop() {
            log::error!("the thread of a machine's interrupts was not stopped: {error}");
        } else if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// A device in use.
#[derive(Debug)]
pub(super) struct Claim {
    machine: Arc<Machine>,
    name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.machine.books().open.remove(&self.name);
    }
}

/// All of the RAM is reachable for every device, at its offset in the file: mapping is bookkeeping.
#[derive(Debug)]
struct RamMapper {
    ram: Arc<RamFile>,
    mapped: Mutex<Vec<Arc<DmaRegion>>>,
}

impl DmaMapper for RamMapper {
    fn map(&self, region: &Arc<DmaRegion>) -> Result<DmaAddr> {
        let offset = self.ram.offset_of(region).ok_or(Error::Misuse {
            what: "a machine's devices reach its RAM only: copy the data into the device's own memory",
        })?;
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if mapped.iter().any(|known| Arc::ptr_eq(known, region)) {
            return Err(Error::Misuse { what: "the region is mapped for this device already" });
        }
        mapped.push(Arc::clone(region));
        Ok(DmaAddr(offset))
    }

    fn unmap(&self, region: &Arc<DmaRegion>) -> Result<()> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let before = mapped.len();
        mapped.retain(|known| !Arc::ptr_eq(known, region));
        if mapped.len() == before {
            return Err(Error::Misuse { what: "the region is not mapped for this device" });
        }
        Ok(())
    }

    fn limits(&self) -> DmaLimits {
        DmaLimits::default()
    }

    fn new_region(&self, len: usize) -> Result<Arc<DmaRegion>> {
        self.ram.cut(len)
    }
}
