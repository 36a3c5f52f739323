//! A console that echoes: a request on queue 0 stays in flight until a byte comes, one on queue 1 is used at once.

use std::sync::Arc;

use virtio::device::{Device, Options, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::queue::Token;
use virtio::soft::{Console, DeviceLie, Interface, Run, SoftDevice, SoftDeviceBuilder};
use virtio::spec::ByteOrder;
use virtio::transport::{PciInterface, Transport, open_mmio, open_pci};
use virtio::{Error, Result};

pub(crate) use crate::driver_common::{SHORT, SOON, Way, checked, kept_the_rules};

const fn way(interface: Interface, choice: PciInterface) -> Way {
    Way { interface, choice, order: ByteOrder::Little }
}

pub(crate) const fn pci_modern() -> Way {
    way(Interface::PciModern, PciInterface::Any)
}

pub(crate) const fn transitional_modern() -> Way {
    way(Interface::PciTransitional, PciInterface::Modern)
}

pub(crate) const fn transitional_legacy() -> Way {
    way(Interface::PciTransitional, PciInterface::Legacy)
}

pub(crate) const fn pci_legacy() -> Way {
    way(Interface::PciLegacy, PciInterface::Any)
}

pub(crate) const fn mmio() -> Way {
    way(Interface::Mmio, PciInterface::Any)
}

pub(crate) const fn mmio_legacy() -> Way {
    way(Interface::MmioLegacy, PciInterface::Any)
}

pub(crate) fn console() -> SoftDeviceBuilder {
    SoftDevice::builder(Console::new(80, 25))
}

pub(crate) fn build(way: Way, builder: SoftDeviceBuilder) -> SoftDevice {
    checked(builder.interface(way.interface).byte_order(way.order).run(Run::Inline))
}

pub(crate) fn lying(way: Way, lie: DeviceLie) -> SoftDevice {
    build(way, console().lies([lie]))
}

pub(crate) fn transport(way: Way, soft: &SoftDevice) -> Result<Arc<dyn Transport>> {
    if way.interface.is_pci() {
        open_pci(soft.pci()?, way.choice, way.order)
    } else {
        open_mmio(soft.mmio()?, way.order)
    }
}

/// Opens the device, with little patience for resets.
pub(crate) fn open(way: Way, soft: &SoftDevice) -> Result<Device> {
    let mut options = Options::default();
    options.control_timeout = SHORT;
    Device::open(transport(way, soft)?, options)
}

pub(crate) fn negotiated(way: Way, soft: &SoftDevice) -> Result<Device> {
    let device = open(way, soft)?;
    device.negotiate(Features::EVENT_IDX, Features::EMPTY)?;
    Ok(device)
}

/// Sets both queues up and starts.
pub(crate) fn start(device: &Device) -> Result<Vec<Queue<DmaBuf>>> {
    let queues =
        vec![device.take_queue(0, QueueConfig::default())?, device.take_queue(1, QueueConfig::default())?];
    device.start()?;
    Ok(queues)
}

/// Sends a byte and sees it used.
pub(crate) fn send(device: &Device, queue: &mut Queue<DmaBuf>) -> Result<()> {
    let token = queue.add_chain([device.alloc(1)?], [])?;
    queue.notify()?;
    let used = queue.get(Some(SOON))?;
    assert_eq!(used.token, token);
    Ok(())
}

/// The whole life, from open to a confirmed reset.
pub(crate) fn live(way: Way, soft: &SoftDevice) -> Result<()> {
    let device = negotiated(way, soft)?;
    let mut queues = start(&device)?;
    send(&device, &mut queues[1])?;
    device.reset()
}

#[track_caller]
pub(crate) fn lives(way: Way, lie: DeviceLie) {
    let soft = lying(way, lie.clone());
    live(way, &soft).unwrap_or_else(|error| panic!("{lie:?}: {error}"));
}

/// A device that runs, with one request in flight on queue 0 whose buffer is a pool's only one.
pub(crate) struct Busy {
    pub(crate) soft: SoftDevice,
    pub(crate) device: Device,
    pub(crate) queues: Vec<Queue<DmaBuf>>,
    pub(crate) pool: DmaPool,
    pub(crate) token: Token,
}

impl Busy {
    pub(crate) fn new(way: Way, builder: SoftDeviceBuilder) -> Self {
        let soft = build(way, builder);
        let device = negotiated(way, &soft).unwrap();
        let mut queues = start(&device).unwrap();
        let pool = device.pool(1, 64).unwrap();
        let token = queues[0].add_chain([], [pool.take().unwrap()]).unwrap();
        queues[0].notify().unwrap();
        assert_eq!((pool.free(), queues[0].pop().unwrap().is_none()), (0, true));
        Self { soft, device, queues, pool, token }
    }

    pub(crate) fn get(&mut self) -> Error {
        self.queues[0].get(Some(SOON)).unwrap_err()
    }

    /// The request ends once, as indeterminate and with its token.
    #[track_caller]
    pub(crate) fn ends_once(&mut self) {
        let error = self.get();
        assert_eq!(error.kind(), &Error::Indeterminate { token: self.token.into_raw() });
        let error = self.get();
        let once = !matches!(error.kind(), Error::Indeterminate { .. } | Error::Timeout { .. });
        assert!(once, "{error}");
    }

    /// Nothing that the device had was freed, nor can it be had again.
    #[track_caller]
    pub(crate) fn keeps_its_memory(&self) {
        assert_eq!(self.pool.free(), 0);
        assert!(self.pool.take().is_err());
        assert_ne!(self.device.memory().quarantine().tally().count, 0);
    }

    /// A confirmed reset gives everything back, and the device serves again.
    #[track_caller]
    pub(crate) fn starts_again(self) {
        self.soft.be_honest().unwrap();
        self.device.reset().unwrap();
        assert_eq!(self.device.memory().quarantine().tally().count, 0);
        assert_eq!(self.pool.free(), 1);
        self.device.negotiate(Features::EVENT_IDX, Features::EMPTY).unwrap();
        let mut queues = start(&self.device).unwrap();
        send(&self.device, &mut queues[1]).unwrap();
        self.device.close().unwrap();
    }
}

/// Fails unless an error is of a kind.
macro_rules! fails {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = $result.map(drop).unwrap_err();
        assert!(matches!(error.kind(), $pattern $(if $guard)?), "{error}");
    }};
}
pub(crate) use fails;

/// Longest wait that these tests make for a thread.
pub(crate) fn deadline() -> virtio::event::Deadline {
    virtio::event::Deadline::after(SOON)
}
