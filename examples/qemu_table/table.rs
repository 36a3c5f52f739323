//! Every virtio device type of the installed QEMU over every register interface: what is tried, and what came of it.

use std::fmt;

use virtio::device::{Device, QueueConfig};
use virtio::find::find_in;
use virtio::spec::DeviceType;
use virtio::testing::{Kind, Qemu};
use virtio::transport::TransportKind;
use virtio::{Error, Result};

/// A register interface, as QEMU is asked for it and as it is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    Modern,
    TransitionalModern,
    TransitionalLegacy,
    Legacy,
    Mmio2,
    Mmio1,
}

pub(crate) const INTERFACES: [Interface; 6] = [
    Interface::Modern,
    Interface::TransitionalModern,
    Interface::TransitionalLegacy,
    Interface::Legacy,
    Interface::Mmio2,
    Interface::Mmio1,
];

impl Interface {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Modern => "PCI modern",
            Self::TransitionalModern => "transitional, modern side",
            Self::TransitionalLegacy => "transitional, legacy side",
            Self::Legacy => "PCI legacy",
            Self::Mmio2 => "MMIO 2",
            Self::Mmio1 => "MMIO 1",
        }
    }

    fn is_pci(self) -> bool {
        !matches!(self, Self::Mmio2 | Self::Mmio1)
    }

    fn kind(self) -> TransportKind {
        match self {
            Self::Modern | Self::TransitionalModern => TransportKind::PciModern,
            Self::Legacy | Self::TransitionalLegacy => TransportKind::PciLegacy,
            Self::Mmio2 => TransportKind::Mmio,
            Self::Mmio1 => TransportKind::MmioLegacy,
        }
    }

    /// Properties that make QEMU give it, and the parameter that chooses it.
    fn sides(self) -> (&'static str, &'static str) {
        match self {
            Self::Modern => ("disable-legacy=on,disable-modern=off", ""),
            Self::TransitionalModern => ("disable-legacy=off,disable-modern=off", "modern"),
            Self::TransitionalLegacy => ("disable-legacy=off,disable-modern=off", "legacy"),
            Self::Legacy => ("disable-legacy=off,disable-modern=on", ""),
            Self::Mmio2 | Self::Mmio1 => ("", ""),
        }
    }
}

/// One device of QEMU.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    device_type: Option<DeviceType>,
    /// Its names for QEMU: on PCI, on MMIO.
    pub(crate) pci: &'static str,
    pub(crate) mmio: &'static str,
    properties: &'static str,
    args: &'static [&'static str],
    /// Whether it needs a PC with PCI Express.
    express: bool,
    /// Whether a machine without what it needs of its host gives it no interface at all.
    pub(crate) may_lack: bool,
}

const fn subject(
    name: &'static str,
    device_type: DeviceType,
    names: (&'static str, &'static str),
    properties: &'static str,
    args: &'static [&'static str],
) -> Subject {
    let (pci, mmio) = names;
    Subject {
        name,
        device_type: Some(device_type),
        pci,
        mmio,
        properties,
        args,
        express: false,
        may_lack: false,
    }
}

/// One that needs what machines for tests may not have: a kernel module, an input device, OpenGL, a daemon.
const fn lacking(
    name: &'static str,
    names: (&'static str, &'static str),
    properties: &'static str,
) -> Subject {
    let (pci, mmio) = names;
    Subject { name, device_type: None, pci, mmio, properties, args: &[], express: false, may_lack: true }
}

/// Room for memory that is plugged in.
const HOTPLUG: &str = "64,slots=4,maxmem=1G";

pub(crate) static SUBJECTS: &[Subject] = &[
    subject(
        "net",
        DeviceType::NET,
        ("virtio-net-pci", "virtio-net-device"),
        "netdev=n",
        &["-netdev", "hubport,id=n,hubid=0"],
    ),
    subject(
        "block",
        DeviceType::BLOCK,
        ("virtio-blk-pci", "virtio-blk-device"),
        "drive=d",
        &["-blockdev", "null-co,node-name=d,size=1048576,read-zeroes=on"],
    ),
    subject(
        "console",
        DeviceType::CONSOLE,
        ("virtio-serial-pci", "virtio-serial-device"),
        "max_ports=4",
        &[],
    ),
    subject(
        "entropy",
        DeviceType::ENTROPY,
        ("virtio-rng-pci", "virtio-rng-device"),
        "rng=r",
        &["-object", "rng-builtin,id=r"],
    ),
    subject("balloon", DeviceType::BALLOON, ("virtio-balloon-pci", "virtio-balloon-device"), "", &[]),
    subject("scsi", DeviceType::SCSI, ("virtio-scsi-pci", "virtio-scsi-device"), "", &[]),
    subject(
        "9p",
        DeviceType::NINE_P,
        ("virtio-9p-pci", "virtio-9p-device"),
        "fsdev=f,mount_tag=tag",
        &["-fsdev", "local,id=f,path=@DIR,security_model=none"],
    ),
    subject("gpu", DeviceType::GPU, ("virtio-gpu-pci", "virtio-gpu-device"), "", &[]),
    subject("gpu, as VGA", DeviceType::GPU, ("virtio-vga", "virtio-vga-device"), "", &[]),
    subject("input, keyboard", DeviceType::INPUT, ("virtio-keyboard-pci", "virtio-keyboard-device"), "", &[]),
    subject("input, mouse", DeviceType::INPUT, ("virtio-mouse-pci", "virtio-mouse-device"), "", &[]),
    subject("input, tablet", DeviceType::INPUT, ("virtio-tablet-pci", "virtio-tablet-device"), "", &[]),
    subject(
        "crypto",
        DeviceType::CRYPTO,
        ("virtio-crypto-pci", "virtio-crypto-device"),
        "cryptodev=c",
        &["-object", "cryptodev-backend-builtin,id=c"],
    ),
    Subject {
        express: true,
        ..subject("iommu", DeviceType::IOMMU, ("virtio-iommu-pci", "virtio-iommu-device"), "", &[])
    },
    subject(
        "memory",
        DeviceType::MEMORY,
        ("virtio-mem-pci", "virtio-mem"),
        "memdev=v",
        &["-m", HOTPLUG, "-object", "memory-backend-ram,id=v,size=128M"],
    ),
    subject(
        "pmem",
        DeviceType::PMEM,
        ("virtio-pmem-pci", "virtio-pmem"),
        "memdev=p",
        &["-m", HOTPLUG, "-object", "memory-backend-ram,id=p,size=16M"],
    ),
    lacking("socket (vhost)", ("vhost-vsock-pci", "vhost-vsock-device"), "guest-cid=3"),
    lacking("scsi (vhost)", ("vhost-scsi-pci", "vhost-scsi"), "wwpn=naa.5000000000000001"),
    lacking("input, host", ("virtio-input-host-pci", "virtio-input-host-device"), "evdev=/dev/input/event0"),
    lacking("gpu, OpenGL", ("virtio-gpu-gl-pci", "virtio-gpu-gl-device"), ""),
    lacking("gpu, as VGA, OpenGL", ("virtio-vga-gl", "virtio-vga-gl-device"), ""),
    lacking("block (vhost-user)", ("vhost-user-blk-pci", "vhost-user-blk"), ""),
    lacking("scsi (vhost-user)", ("vhost-user-scsi-pci", "vhost-user-scsi"), ""),
    lacking("file system (vhost-user)", ("vhost-user-fs-pci", "vhost-user-fs-device"), ""),
    lacking("gpio (vhost-user)", ("vhost-user-gpio-pci", "vhost-user-gpio-device"), ""),
    lacking("i2c (vhost-user)", ("vhost-user-i2c-pci", "vhost-user-i2c-device"), ""),
    lacking("input (vhost-user)", ("vhost-user-input-pci", "vhost-user-input"), ""),
    lacking("entropy (vhost-user)", ("vhost-user-rng-pci", "vhost-user-rng"), ""),
    lacking("gpu (vhost-user)", ("vhost-user-gpu-pci", "vhost-user-gpu"), ""),
    lacking("gpu, as VGA (vhost-user)", ("vhost-user-vga", "vhost-user-vga-device"), ""),
    lacking("socket (vhost-user)", ("vhost-user-vsock-pci", "vhost-user-vsock-device"), ""),
];

/// What came of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was done: number of features in use, of configuration fields read, of queues set up.
    Done { features: u32, fields: usize, queues: u16 },
    /// QEMU does not give the device this interface; why, in its words or by what it did.
    NotGiven(String),
    /// It should have gone.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { features, fields, queues } => {
                write!(f, "{features} features, {fields} fields, {queues} queues")
            }
            Self::NotGiven(_) => f.write_str("—"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
        }
    }
}

impl Subject {
    /// Starts a machine with the device, and does all that can be done without knowing its type.
    pub(crate) fn attempt(&self, interface: Interface) -> Outcome {
        match self.start(interface) {
            Ok(qemu) => {
                self.drive(&qemu, interface).unwrap_or_else(|error| Outcome::Failed(error.to_string()))
            }
            Err(Error::Protocol { detail }) => match self.words(&detail) {
                Some(words) => Outcome::NotGiven(words),
                None => Outcome::Failed(detail.into()),
            },
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// What QEMU said of the device when it ended at once.
    fn words(&self, detail: &str) -> Option<String> {
        let about = detail.lines().find(|line| line.contains("-device ") || line.contains("object type"))?;
        let (_, words) = about.split_once("-device ").unwrap_or(("", about));
        // The device's own properties come first, and say nothing.
        Some(words.split_once(": ").map_or(words, |(_, words)| words).to_owned())
    }

    fn start(&self, interface: Interface) -> Result<Qemu> {
        let kind = match interface {
            Interface::Mmio2 => Kind::Microvm,
            Interface::Mmio1 => Kind::MicrovmLegacy,
            _ if self.express => Kind::Q35,
            _ => Kind::Pc,
        };
        let mut device =
            if interface.is_pci() { format!("{},addr=4", self.pci) } else { self.mmio.to_owned() };
        // Some of what may be lacking knows no sides: the first column then has QEMU's words on what is lacking.
        let sides = if self.may_lack && interface == Interface::Modern { "" } else { interface.sides().0 };
        for part in [sides, self.properties] {
            if !part.is_empty() {
                device = format!("{device},{part}");
            }
        }
        Qemu::builder(kind).args(self.args.iter().copied()).device(device).start()
    }

    fn drive(&self, qemu: &Qemu, interface: Interface) -> Result<Outcome> {
        let machine = qemu.address().to_string();
        let found = find_in(&machine)?.collect::<Result<Vec<_>>>()?;
        let info = found.iter().find(|info| self.device_type.is_none_or(|wanted| info.device_type == wanted));
        let Some(info) = info else {
            return Ok(Outcome::Failed(format!("not found among {} devices", found.len())));
        };
        let side = interface.sides().1;
        let address = match side {
            "" => info.address.clone(),
            side => info.address.clone().with("interface", side),
        };
        let device = match virtio::open(&address.to_string()) {
            Err(error) if matches!(error.kind(), Error::Unsupported { .. }) => {
                return Ok(Outcome::NotGiven(format!(
                    "QEMU makes the function a modern one ({})",
                    error.kind()
                )));
            }
            device => device?,
        };
        if device.transport().kind() != interface.kind() {
            return Ok(Outcome::NotGiven(format!("QEMU gives {} instead", device.transport().kind())));
        }
        let outcome = life(&device)?;
        device.close()?;
        let again = virtio::open(&address.to_string())?;
        again.close()?;
        Ok(outcome)
    }
}

/// One life of a device: features, configuration, queues, start, reset.
fn life(device: &Device) -> Result<Outcome> {
    let features = device.negotiate(device.offered()?, virtio::features::Features::EMPTY)?;
    let fields = device.config().snapshot(features)?.len();
    let count = device.transport().queue_count()?;
    let mut queues = Vec::new();
    for index in 0..count.unwrap_or(u16::MAX) {
        match device.take_queue(index, QueueConfig::size(16)) {
            Ok(queue) => queues.push(queue),
            Err(error) if matches!(error.kind(), Error::QueueUnavailable { .. }) && count.is_none() => break,
            Err(error) => return Err(error),
        }
    }
    device.start()?;
    let queues = queues.len() as u16;
    device.reset()?;
    Ok(Outcome::Done { features: features.len(), fields, queues })
}

/// All rows, by `threads` threads: each with its outcomes in the order of [`INTERFACES`].
pub(crate) fn run(threads: usize) -> Vec<(&'static Subject, Vec<Outcome>)> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let rows = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(subject) = SUBJECTS.get(at) else { break };
                    let outcomes = INTERFACES.map(|interface| subject.attempt(interface)).to_vec();
                    rows.lock().unwrap().push((at, subject, outcomes));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(at, ..)| *at);
    rows.into_iter().map(|(_, subject, outcomes)| (subject, outcomes)).collect()
}

/// The table as the documents keep it: its rows, then the notes that the cells refer to, both in lines.
pub(crate) fn lines(rows: &[(&'static Subject, Vec<Outcome>)]) -> (Vec<String>, Vec<String>) {
    let mut notes: Vec<String> = Vec::new();
    let mut note = |why: &String| {
        let at = notes.iter().position(|note| note == why).unwrap_or(notes.len());
        if at == notes.len() {
            notes.push(why.clone());
        }
        format!("— ({})", at + 1)
    };
    let rows = rows.iter().map(|(subject, outcomes)| {
        let cells = outcomes.iter().map(|outcome| match outcome {
            Outcome::NotGiven(why) => note(why),
            outcome => outcome.to_string(),
        });
        format!("| {} | {} |", subject.name, cells.collect::<Vec<_>>().join(" | "))
    });
    let rows = rows.collect();
    (rows, notes.iter().enumerate().map(|(n, note)| format!("{}. {note}", n + 1)).collect())
}
