//! A QEMU machine: started, asked, killed.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, getpid, kill_process};

use super::devices::{Registers, registers};
use super::halt;
use super::qmp::Qmp;
use crate::address::{Address, Scheme};
use crate::error::errno;
use crate::event::Deadline;
use crate::{Error, Result};

/// Longest wait for a machine to come up.
const START: Duration = Duration::from_secs(30);
/// Longest wait for the end of one whose control socket has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause between looks whether it has.
const PAUSE: Duration = Duration::from_millis(3);

/// Kinds of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A PC with PCI (i440FX).
    Pc,
    /// A PC with PCI Express; its functions are driven as PCI ones.
    Q35,
    /// A small PC with MMIO slots of version 2.
    Microvm,
    /// The same with version 1.
    MicrovmLegacy,
    /// A Power Macintosh: big-endian, with PCI.
    G3beige,
    /// m68k's `virt`: big-endian, with MMIO slots of version 2.
    M68kVirt,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Pc, Self::Q35, Self::Microvm, Self::MicrovmLegacy, Self::G3beige, Self::M68kVirt];

    /// Its name here: `pc`, `q35`, `microvm`, `microvm-legacy`, `g3beige`, `m68k-virt`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MicrovmLegacy => "microvm-legacy",
            Self::M68kVirt => "m68k-virt",
            _ => self.machine(),
        }
    }

    /// The program, and the Debian package that has it.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Pc | Self::Q35 | Self::Microvm | Self::MicrovmLegacy => {
                ("qemu-system-x86_64", "qemu-system-x86")
            }
            Self::G3beige => ("qemu-system-ppc", "qemu-system-ppc"),
            Self::M68kVirt => ("qemu-system-m68k", "qemu-system-misc"),
        }
    }

    /// Its name for QEMU.
    fn machine(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Q35 => "q35",
            Self::Microvm | Self::MicrovmLegacy => "microvm",
            Self::G3beige => "g3beige",
            Self::M68kVirt => "virt",
        }
    }

    /// Its name in addresses, where one is needed.
    fn layout(self) -> Option<&'static str> {
        match self {
            Self::G3beige => Some("g3beige"),
            Self::M68kVirt => Some("m68k-virt"),
            _ => None,
        }
    }

    /// First MMIO slot, and where the first device of the command line goes: QEMU fills from the last slot down.
    fn slots(self) -> Option<(u64, u64)> {
        match self {
            Self::Microvm | Self::MicrovmLegacy => Some((0xFEB0_0000, 23)),
            Self::M68kVirt => Some((0xFF01_0000, 127)),
            _ => None,
        }
    }
}

/// What a machine is made of; see [`Qemu::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    kind: Kind,
    program: Option<String>,
    memory: u64,
    args: Vec<String>,
    files: Vec<(String, u64)>,
    devices: Vec<Registers>,
}

impl Builder {
    /// Size of its RAM in MiB; 64 without it.
    #[must_use]
    pub fn memory(mut self, mebibytes: u64) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Another program than the one of the machine's kind.
    #[must_use]
    pub fn program(mut self, path: impl Into<String>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Arguments of the command line. `@DIR` in them is the machine's directory ([`Qemu::dir`]).
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A file of zeroes in its directory, `@DIR/NAME` for arguments, of so many bytes.
    #[must_use]
    pub fn file(mut self, name: &str, len: u64) -> Self {
        self.files.push((name.to_owned(), len));
        self
    }

    /// A disk of zeroes, of so many bytes: the file `@DIR/NAME` and the block node NAME over it.
    #[must_use]
    pub fn disk(self, name: &str, len: u64) -> Self {
        let node = format!("file,node-name={name},filename=@DIR/{name},discard=unmap");
        self.file(name, len).args(["-blockdev".to_owned(), node])
    }

    /// A device: `-device TEXT`, where TEXT is driver and properties, `virtio-blk-pci,drive=d`. A PCI function without
    /// an id gets one; see [`Qemu::addresses`].
    #[must_use]
    pub fn device(mut self, text: impl Into<String>) -> Self {
        let (text, registers) = registers(text.into(), self.kind.slots().is_some(), self.devices.len());
        self.devices.extend(registers);
        self.args(["-device".to_owned(), text])
    }

    /// Starts the machine, and waits until it can be asked.
    ///
    /// [`Error::NotFound`], with the name of the Debian package, where QEMU is not installed; [`Error::Protocol`] with
    /// QEMU's words where it ends at once; [`Error::Timeout`].
    pub fn start(self) -> Result<Qemu> {
        let dir = Dir::new()?;
        let child = self.spawn(&dir.0)?;
        let mut qemu =
            Qemu { kind: self.kind, child: Mutex::new(child), qmp: None, dir, devices: self.devices };
        let deadline = Deadline::after(START);
        let path = qemu.dir.0.join("qmp");
        // The qtest socket is there before: QEMU makes them in the order of its command line.
        let socket = loop {
            match UnixStream::connect(&path) {
                Ok(socket) => break socket,
                Err(_) if deadline.passed() => return Err(deadline.timeout("a QEMU that starts")),
                Err(_) => qemu.check()?,
            }
            thread::sleep(PAUSE);
        };
        qemu.qmp = Some(Qmp::new(socket).map_err(|error| qemu.last_words(error))?);
        Ok(qemu)
    }

    fn spawn(&self, dir: &Path) -> Result<Child> {
        let (program, package) = self.kind.program();
        let ram = dir.join("ram");
        let file = fs::File::create(&ram).map_err(|e| failed("make a machine's RAM file", &e))?;
        let mut args = Vec::new();
        if self.kind == Kind::M68kVirt {
            fs::write(&ram, halt::m68k()).map_err(|e| failed("write to a machine's RAM file", &e))?;
        } else {
            let rom = if self.kind == Kind::G3beige { halt::g3beige() } else { halt::pc() };
            let path = dir.join("rom");
            fs::write(&path, rom).map_err(|e| failed("write a machine's firmware", &e))?;
            args.extend(["-bios".to_owned(), path.display().to_string()]);
        }
        file.set_len(self.memory << 20).map_err(|e| failed("size a machine's RAM file", &e))?;
        for (name, len) in &self.files {
            let file = fs::File::create(dir.join(name));
            file.and_then(|file| file.set_len(*len)).map_err(|e| failed("make a machine's file", &e))?;
        }
        let log = fs::File::create(dir.join("stderr")).map_err(|e| failed("keep QEMU's words", &e))?;
        args.extend(self.common(dir));
        let here = dir.display().to_string();
        args.extend(self.args.iter().map(|arg| arg.replace("@DIR", &here)));
        let mut command = Command::new(self.program.as_deref().unwrap_or(program));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let why = format!("{program} is not installed: install the Debian package {package}");
                Error::NotFound { why: why.into() }
            }
            _ => failed("start QEMU", &error),
        })
    }

    fn common(&self, dir: &Path) -> Vec<String> {
        let (dir, size) = (dir.display(), self.memory);
        let mut args: Vec<String> = ["-accel", "tcg", "-display", "none", "-nodefaults", "-serial", "none"]
            .map(str::to_owned)
            .into_iter()
            .collect();
        args.extend(["-monitor".to_owned(), "none".to_owned(), "-m".to_owned(), size.to_string()]);
        args.extend(["-M".to_owned(), format!("{},memory-backend=m", self.kind.machine())]);
        let ram = format!("memory-backend-file,id=m,share=on,mem-path={dir}/ram,size={size}M");
        args.extend(["-object".to_owned(), ram]);
        args.extend(["-qtest".to_owned(), format!("unix:{dir}/qtest,server=on,wait=off")]);
        args.extend(["-qtest-log".to_owned(), "/dev/null".to_owned()]);
        args.extend(["-qmp".to_owned(), format!("unix:{dir}/qmp,server=on,wait=off")]);
        if matches!(self.kind, Kind::Microvm | Kind::MicrovmLegacy) {
            let legacy = if self.kind == Kind::MicrovmLegacy { "on" } else { "off" };
            args.extend(["-global".to_owned(), format!("virtio-mmio.force-legacy={legacy}")]);
        }
        args
    }
}

fn failed(doing: &'static str, error: &io::Error) -> Error {
    Error::Os { doing, errno: error.raw_os_error().unwrap_or(errno::EIO) }
}

/// A directory of the machine's own, removed with it. In memory where that can be: RAM and disks live there.
#[derive(Debug)]
struct Dir(PathBuf, Pid);

impl Dir {
    /// Machine and directory are those of the process that made them, not of its children.
    fn is_ours(&self) -> bool {
        getpid() == self.1
    }
}

impl Dir {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("virtio-qemu-{}-{number}", std::process::id());
        let shm = Path::new("/dev/shm").join(&name);
        if fs::create_dir(&shm).is_ok() {
            return Ok(Self(shm, getpid()));
        }
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|e| failed("make a machine's directory", &e))?;
        Ok(Self(path, getpid()))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// A running QEMU machine, killed when it is dropped.
#[derive(Debug)]
pub struct Qemu {
    kind: Kind,
    child: Mutex<Child>,
    /// `None` until it has started.
    qmp: Option<Qmp>,
    dir: Dir,
    devices: Vec<Registers>,
}

impl Qemu {
    /// A machine to be made.
    pub fn builder(kind: Kind) -> Builder {
        Builder { kind, program: None, memory: 64, args: Vec::new(), files: Vec::new(), devices: Vec::new() }
    }

    /// Its control socket.
    ///
    /// # Panics
    /// Never: a machine is given out when it has one.
    pub fn qmp(&self) -> &Qmp {
        match &self.qmp {
            Some(qmp) => qmp,
            None => unreachable!("a machine is given out when its control socket is there"),
        }
    }

    /// A directory of its own, for files and sockets; it goes with the machine.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// The address of the machine, as [`crate::find::find_in`] takes it.
    pub fn address(&self) -> Address {
        let socket = self.dir.0.join("qtest").display().to_string();
        let address = Address::new(Scheme::Qtest, socket).with("ram", self.dir.0.join("ram").display());
        match self.kind.layout() {
            Some(name) => address.with("machine", name),
            None => address,
        }
    }

    pub(super) fn registers(&self) -> &[Registers] {
        &self.devices
    }

    /// The address of function 0 of a device of PCI bus 0.
    pub fn pci(&self, device: u8) -> String {
        self.address().with("pci", format!("{device:02x}.0")).to_string()
    }

    /// The address of the MMIO device that came as number `index` (from 0) on the command line.
    /// [`Error::Misuse`] for a machine without slots.
    pub fn mmio(&self, index: u64) -> Result<String> {
        let (first, last) =
            self.kind.slots().ok_or(Error::Misuse { what: "this machine has no MMIO slots" })?;
        let base = first.saturating_add(last.saturating_sub(index).saturating_mul(512));
        Ok(self.address().with("mmio", format!("{base:#x}")).to_string())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// What it wrote to its standard error.
    pub fn stderr(&self) -> String {
        let text = fs::read(self.dir.0.join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// [`Error::Protocol`] with its exit status and its last words where it has ended.
    pub fn check(&self) -> Result<()> {
        match self.child().try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(failed("look after QEMU", &error)),
        }
    }

    /// Why a machine that is about to end does so, if it does; else `error`. For errors of its control socket.
    pub fn last_words(&self, error: Error) -> Error {
        let deadline = Deadline::after(LAST_WORDS);
        while !deadline.passed() {
            if let Err(ended) = self.check() {
                return ended;
            }
            thread::sleep(PAUSE);
        }
        error
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::protocol(format!("QEMU has ended ({status}); it said: {}", self.stderr().trim()))
    }

    /// Kills it, by SIGKILL, and waits for its end. A second call does nothing; [`Error::ForkedProcess`] in the child of
    /// a fork, which also drops it without an effect.
    pub fn kill(&self) -> Result<()> {
        if !self.dir.is_ours() {
            return Err(Error::ForkedProcess { what: "machine" });
        }
        let mut child = self.child();
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|e| failed("kill QEMU", &e))
    }

    /// Stops it, by SIGSTOP: it does nothing until [`Qemu::resume`], and tells nobody.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on, by SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // The lock keeps the number from being somebody else's: nobody waits for the child meanwhile.
        let mut child = self.child();
        if let Ok(Some(status)) = child.try_wait() {
            drop(child);
            return Err(self.ended(status));
        }
        kill_process(Pid::from_child(&child), signal).map_err(|e| Error::os("signal QEMU", e))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if !self.dir.is_ours() {
            return;
        }
        if let Err(error) = self.kill() {
            log::error!("{error}");
        }
    }
}
