//! From an address to a device: the only module that knows every bus, transport and software device.
#![cfg(not(loom))]

use alloc::boxed::Box;
use alloc::string::ToString;
use core::time::Duration;

use crate::address::{Address, Scheme};
use crate::device::{Device, Options};
use crate::drivers::block::Reopen;
use crate::drivers::{Block, BlockOptions, Entropy, Reconnect};
use crate::spec::DeviceType;
use crate::{Error, Result};

/// Opens the device at an address (see [`crate::address`]): it is reset, and knows that there is a driver.
///
/// This version opens devices of other processes, `vhost-user:PATH`, behind a Unix socket:
///
/// | parameter | values | meaning |
/// |---|---|---|
/// | `type` | a name or number, such as `block` | the device's type, which the protocol does not tell |
/// | `server` | `on`, `off` (without it) | whether to wait at the path for the back-end to connect |
/// | `size` | such as `64M` | `block`: the size of a device whose back-end does not tell its configuration |
///
/// software devices, `soft:TYPE`, of the types `block`, `entropy`, `console`, `net`, and `blank`, which gives all
/// buffers back and does nothing:
///
/// | parameter | values | meaning |
/// |---|---|---|
/// | `transport` | `pci-modern` (without it), `pci-transitional`, `pci-legacy`, `mmio`, `mmio-legacy` | the registers that the device has |
/// | `interface` | `modern`, `legacy` | the side of a transitional function to use; modern without it |
/// | `run` | `thread` (without it), `inline` | whether a thread serves the device, or each notification |
/// | `endian` | `little` (without it), `big` | byte order of the machine that a legacy device belongs to |
/// | `event_idx`, `indirect` | `on` (without it), `off` | whether EVENT_IDX, INDIRECT_DESC are offered |
/// | `path` | a file | `block`: what is stored; else memory |
/// | `size` | such as `64M` (without it) | `block` without a `path`: its size in bytes |
/// | `queues` | 1 to 1,024 | `block`: number of request queues |
/// | `readonly` | `on`, `off` | `block`: takes no writes |
/// | `id` | text | `block`: its id string |
/// | `seed` | a number | `entropy`: where its bytes start from; they are for tests alone |
///
/// `soft:TYPE@NAME` opens a software device that this process made and published
/// ([`SoftDevice::publish`](crate::soft::SoftDevice::publish)); `interface` is the one parameter that it takes.
///
/// and devices of a QEMU machine, `qtest:SOCKET` (see [`crate::bus::qtest`] for how it is started):
///
/// | parameter | values | meaning |
/// |---|---|---|
/// | `ram` | a file | the machine's RAM, shared |
/// | `pci` | such as `04.0`, `01:00.0` | the device is this PCI function, of bus 0 unless told |
/// | `mmio` | such as `0xfeb02e00` | the device is in the MMIO slot at this address |
/// | `interface` | `modern`, `legacy` | the side of a transitional function to use; modern without it |
/// | `machine` | `pc` (also Q35), `microvm`, `g3beige`, `m68k-virt` | where things are in the machine; the first two need not be said |
/// | `timeout` | milliseconds, 5000 without it | longest wait for an answer of the machine |
///
/// # Errors
/// [`Error::BadAddress`]; [`Error::NotFound`] for a scheme that this version or build does not open, and for a
/// type of software device that there is not; else as [`Device::open`] and the transports.
///
/// ```
/// # #[cfg(feature = "soft")] {
/// let device = virtio::open("soft:entropy?transport=mmio")?;
/// assert_eq!(device.device_type(), virtio::spec::DeviceType::ENTROPY);
/// # }
/// # Ok::<(), virtio::Error>(())
/// ```
pub fn open(address: &str) -> Result<Device> {
    open_with(&address.parse()?, Options::default())
}

/// The same for an address that is parsed, with options.
pub fn open_with(address: &Address, options: Options) -> Result<Device> {
    let opened = match address.scheme() {
        Scheme::Soft => software::open(address, options),
        Scheme::VhostUser => sockets::open(address, options),
        Scheme::Qtest => machines::open(address, options),
        scheme => Err(missing(scheme)),
    };
    opened.map_err(|error| error.at(&address.to_string()))
}

fn missing(scheme: Scheme) -> Error {
    let name = scheme.name();
    let why = alloc::format!(
        "{name}: devices are not opened by this version; soft:, vhost-user: and qtest: ones are"
    );
    Error::NotFound { why: why.into() }
}

/// The address with the type of device that is expected, where an address has to say it and this one does not.
fn typed(address: Address, kind: DeviceType) -> Address {
    match kind.name() {
        Some(name) if address.scheme() == Scheme::VhostUser && address.get("type").is_none() => {
            address.with("type", name)
        }
        _ => address,
    }
}

impl Block {
    /// Opens the block device at an address and sets it up; see [`open`] and [`Block::new`].
    ///
    /// The type of a `vhost-user:` device need not be said here.
    pub fn open(address: &str, options: BlockOptions) -> Result<Self> {
        let address = typed(address.parse()?, DeviceType::BLOCK);
        let how = Options { control_timeout: options.control_timeout, ..Options::default() };
        let device = open_with(&address, how.clone())?;
        let anew: Reopen = Box::new(move || open_with(&address, how.clone()));
        let reopen = (options.reconnect == Reconnect::Retry).then_some(anew);
        Self::with_reopen(device, &options, reopen)
    }
}

impl Entropy {
    /// Opens the entropy device at an address and sets it up; see [`open`] and [`Entropy::new`].
    pub fn open(address: &str, timeout: Duration) -> Result<Self> {
        let address = typed(address.parse()?, DeviceType::ENTROPY);
        Self::new(open_with(&address, Options::default())?, timeout)
    }
}

#[cfg(not(feature = "vhost-user"))]
mod sockets {
    use crate::address::Address;
    use crate::device::{Device, Options};
    use crate::{Error, Result};

    pub(super) fn open(_address: &Address, _options: Options) -> Result<Device> {
        let why = "this build opens no sockets: build it with the feature `vhost-user`";
        Err(Error::NotFound { why: why.into() })
    }
}

#[cfg(feature = "vhost-user")]
mod sockets {
    use alloc::string::ToString;

    use crate::Result;
    use crate::address::Address;
    use crate::device::{Device, Options};
    use crate::spec::DeviceType;
    use crate::spec::device::block::{SECTOR_SIZE, config};
    use crate::transport::{VhostUser, VhostUserOptions};

    pub(super) fn open(address: &Address, options: Options) -> Result<Device> {
        address.check_keys(&["type", "server", "size"])?;
        let kind: DeviceType = match address.get("type") {
            Some(name) => {
                name.parse().map_err(|_| address.bad(alloc::format!("type={name} is no device type")))?
            }
            None => return Err(address.bad("type= is needed: a socket does not tell what is behind it")),
        };
        let mut how = VhostUserOptions {
            server: address.flag("server")?.unwrap_or(false),
            control_timeout: options.control_timeout,
            address: Some(address.to_string()),
            ..VhostUserOptions::default()
        };
        if let Some(size) = address.size("size")? {
            if kind != DeviceType::BLOCK {
                return Err(address.bad("size= is of block devices"));
            }
            let sectors = size.checked_div(SECTOR_SIZE.into()).unwrap_or(0);
            how.config.resize(config::CAPACITY.into(), 0);
            how.config.extend_from_slice(&sectors.to_le_bytes());
        }
        Device::open(VhostUser::open(address.place(), kind, how)?, options)
    }
}

#[cfg(not(feature = "qtest"))]
mod machines {
    use crate::address::Address;
    use crate::device::{Device, Options};
    use crate::{Error, Result};

    pub(super) fn open(_address: &Address, _options: Options) -> Result<Device> {
        let why = "this build opens no devices of QEMU machines: build it with the feature `qtest`";
        Err(Error::NotFound { why: why.into() })
    }
}

#[cfg(feature = "qtest")]
mod machines {
    use alloc::string::ToString;

    use crate::Result;
    use crate::address::Address;
    use crate::bus::qtest::{Machine, Seat};
    use crate::device::{Device, Options};
    use crate::find::machine_options;
    use crate::spec::ByteOrder;
    use crate::transport::{PciInterface, open_mmio, open_pci};

    /// Which device of the machine is meant.
    fn seat(address: &Address) -> Result<Seat> {
        match (address.get("pci"), address.number("mmio")?) {
            (Some(pci), None) => Seat::parse_pci(pci).ok_or_else(|| {
                address.bad(alloc::format!("pci={pci} is no device and function, such as 04.0"))
            }),
            (None, Some(base)) => Ok(Seat::Mmio(base)),
            _ => Err(address.bad("either pci= or mmio= says which device of the machine is meant")),
        }
    }

    pub(super) fn open(address: &Address, options: Options) -> Result<Device> {
        address.check_keys(&["ram", "pci", "mmio", "interface", "machine", "timeout"])?;
        let seat = seat(address)?;
        let interface = match address.get("interface") {
            None => PciInterface::Any,
            Some("modern") => PciInterface::Modern,
            Some("legacy") => PciInterface::Legacy,
            Some(_) => return Err(address.bad("interface= is modern or legacy")),
        };
        let machine = Machine::connect(&machine_options(address)?)?;
        let order = if machine.big_endian() { ByteOrder::Big } else { ByteOrder::Little };
        let name = address.to_string();
        let transport = match seat {
            Seat::Pci { bus, device, function } => {
                open_pci(machine.pci(bus, device, function, &name)?, interface, order)?
            }
            Seat::Mmio(_) if interface != PciInterface::Any => {
                return Err(address.bad("interface= chooses a side of a PCI function"));
            }
            Seat::Mmio(base) => open_mmio(machine.mmio(base, &name)?, order)?,
        };
        Device::open(transport, options)
    }
}

#[cfg(not(feature = "soft"))]
mod software {
    use crate::address::Address;
    use crate::device::{Device, Options};
    use crate::{Error, Result};

    pub(super) fn open(_address: &Address, _options: Options) -> Result<Device> {
        let why = "this build has no software devices: build it with the feature `soft`";
        Err(Error::NotFound { why: why.into() })
    }
}

#[cfg(feature = "python")]
pub(crate) use software::builder;
#[cfg(feature = "python")]
pub(crate) use software::{behind_a_socket, null};

#[cfg(feature = "soft")]
mod software {
    use alloc::boxed::Box;
    use alloc::string::ToString;
    use core::fmt::Display;

    use crate::address::Address;
    use crate::device::{Device, Options};
    use crate::features::Features;
    use crate::soft::{self, DeviceModel, Interface, Run, SoftDevice, SoftDeviceBuilder};
    #[cfg(feature = "python")]
    use crate::soft::{VhostUserDevice, VhostUserDeviceBuilder};
    use crate::spec::ByteOrder;
    use crate::spec::device::block::SECTOR_SIZE;
    use crate::transport::{PciInterface, open_mmio, open_pci};
    use crate::{Error, Result};

    /// Parameters of every software device.
    const COMMON: [&str; 6] = ["transport", "interface", "run", "endian", "event_idx", "indirect"];
    const BLOCK: [&str; 5] = ["path", "size", "queues", "readonly", "id"];
    /// Size of a block device that nobody said a size for.
    const USUAL_SIZE: u64 = 64 << 20;
    const MOST_QUEUES: u64 = 1024;

    type Maker = fn(&Address) -> Result<Box<dyn DeviceModel>>;

    /// What one of a few words stands for; the first where the parameter is missing.
    fn word<T: Copy>(address: &Address, key: &str, words: &[(&str, T)]) -> Result<T> {
        let given = address.get(key);
        let found = words.iter().find(|(name, _)| given.is_none_or(|given| given == *name));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names = words.iter().map(|(name, _)| *name).collect::<alloc::vec::Vec<_>>().join(", ");
            unknown(address, key, names)
        })
    }

    fn unknown(address: &Address, key: &str, known: impl Display) -> Error {
        let given = address.get(key).unwrap_or_default();
        address.bad(alloc::format!("{key}={given} is not known; known are {known}"))
    }

    fn interface(address: &Address) -> Result<(Interface, PciInterface)> {
        let made = word(address, "transport", &Interface::ALL.map(|made| (made.name(), made)))?;
        Ok((made, side(address, made)?))
    }

    /// The side of a device with these registers that is asked for.
    fn side(address: &Address, made: Interface) -> Result<PciInterface> {
        let used = word(
            address,
            "interface",
            &[("", PciInterface::Any), ("modern", PciInterface::Modern), ("legacy", PciInterface::Legacy)],
        )?;
        if used != PciInterface::Any && made != Interface::PciTransitional {
            return Err(address.bad("interface= chooses a side of transport=pci-transitional only"));
        }
        Ok(used)
    }

    fn block(address: &Address) -> Result<soft::Block> {
        let read_only = address.flag("readonly")?.unwrap_or(false);
        let mut block = match (address.get("path"), address.size("size")?) {
            (Some(_), Some(_)) => return Err(address.bad("the size of a device over a file is the file's")),
            (Some(path), None) => soft::Block::file(path, read_only)?,
            (None, size) => {
                let sectors = size.unwrap_or(USUAL_SIZE).checked_div(u64::from(SECTOR_SIZE)).unwrap_or(0);
                let sectors = u32::try_from(sectors).map_err(|_| address.bad("a size below 2T is needed"))?;
                soft::Block::zeroes(sectors)
            }
        };
        if read_only {
            block = block.read_only();
        }
        if let Some(id) = address.get("id") {
            block = block.id(id);
        }
        match address.number("queues")?.unwrap_or(1) {
            queues @ 1..=MOST_QUEUES => Ok(block.with_queues(queues as u16)),
            _ => Err(address.bad("queues= is a number from 1 to 1024")),
        }
    }

    fn model(address: &Address) -> Result<Box<dyn DeviceModel>> {
        let (own, make): (&[&str], Maker) = match address.place() {
            "block" => (&BLOCK, |address| Ok(Box::new(block(address)?))),
            "entropy" => {
                (&["seed"], |address| Ok(Box::new(soft::Entropy::new(address.number("seed")?.unwrap_or(1)))))
            }
            "console" => (&[], |_| Ok(Box::new(soft::Console::new(80, 25)))),
            "net" => (&[], |_| Ok(Box::new(soft::Net::new([0x52, 0x54, 0, 0, 0, 1])))),
            "blank" => (&[], |_| Ok(Box::new(soft::Blank))),
            other => {
                let why = alloc::format!(
                    "no software device is a {other}; there are blank, block, entropy, console and net"
                );
                return Err(Error::NotFound { why: why.into() });
            }
        };
        address.check_keys(&[&COMMON, own].concat())?;
        make(address)
    }

    /// Features that the address says not to offer.
    fn withheld(address: &Address) -> Result<Features> {
        let mut withheld = Features::EMPTY;
        for (key, feature) in [("event_idx", Features::EVENT_IDX), ("indirect", Features::INDIRECT_DESC)] {
            if !address.flag(key)?.unwrap_or(true) {
                withheld |= feature;
            }
        }
        Ok(withheld)
    }

    /// A software device as its address describes it, to be put behind a socket, where it has no registers.
    #[cfg(feature = "python")]
    pub(crate) fn behind_a_socket(address: &Address) -> Result<VhostUserDeviceBuilder> {
        if let Some(key) =
            ["transport", "interface", "run", "endian"].iter().find(|key| address.get(key).is_some())
        {
            return Err(address.bad(alloc::format!("a device behind a socket has no {key}")));
        }
        Ok(VhostUserDevice::builder_boxed(model(address)?).withhold(withheld(address)?))
    }

    /// A block device that does nothing but complete, as an address describes it.
    #[cfg(feature = "python")]
    pub(crate) fn null(address: &Address) -> Result<soft::NullBlock> {
        if address.place() != "block" {
            return Err(address.bad("the null device is a block device"));
        }
        address.check_keys(&["size", "queues", "spin"])?;
        let size = address.size("size")?.unwrap_or(USUAL_SIZE);
        let sectors = size.checked_div(u64::from(SECTOR_SIZE)).unwrap_or(0);
        let queues = address.number("queues")?.unwrap_or(1);
        let queues = u16::try_from(queues).ok().filter(|queues| (1..=256).contains(queues));
        let queues = queues.ok_or_else(|| address.bad("queues= is a number from 1 to 256"))?;
        let spin = address.flag("spin")?.unwrap_or(false);
        Ok(soft::NullBlock::new(sectors).with_queues(queues).spin(spin))
    }

    /// A software device as its address describes it, not yet built.
    pub(crate) fn builder(address: &Address) -> Result<SoftDeviceBuilder> {
        let model = model(address)?;
        let (made, _) = interface(address)?;
        // One that is stepped has to be held by who steps it: there is no way to it through an address.
        let run = word(address, "run", &[("thread", Run::Thread), ("inline", Run::Inline)])?;
        let order = word(address, "endian", &[("little", ByteOrder::Little), ("big", ByteOrder::Big)])?;
        Ok(SoftDevice::builder_boxed(model)
            .interface(made)
            .run(run)
            .byte_order(order)
            .withhold(withheld(address)?)
            .address(address.to_string()))
    }

    /// The device that was published at this place, and the side of it to use.
    fn published(address: &Address) -> Result<(SoftDevice, PciInterface)> {
        address.check_keys(&["interface"])?;
        let device = soft::published(address.place()).ok_or_else(|| Error::NotFound {
            why: "no software device is published at this place of this process".into(),
        })?;
        let used = side(address, device.interface())?;
        Ok((device, used))
    }

    pub(super) fn open(address: &Address, options: Options) -> Result<Device> {
        let (device, used) = if address.place().contains('@') {
            published(address)?
        } else {
            (builder(address)?.build()?, interface(address)?.1)
        };
        let order = device.byte_order();
        let transport = if device.interface().is_pci() {
            open_pci(device.pci()?, used, order)?
        } else {
            open_mmio(device.mmio()?, order)?
        };
        Device::open(transport, options)
    }
}
