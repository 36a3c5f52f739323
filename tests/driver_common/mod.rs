//! Software devices behind every interface, for the tests of the drivers.
#![allow(dead_code, reason = "each test program uses a part of this")]

mod channel;
mod checked;

use std::time::Duration;

pub(crate) use channel::{Receiver, Sender, channel};
pub(crate) use checked::checked;
use virtio::device::{Device, Options};
use virtio::features::Features;
use virtio::soft::{DeviceModel, Interface, Reply, Request, Run, SoftDevice, SoftDeviceBuilder};
use virtio::spec::{ByteOrder, DeviceType};
use virtio::transport::{PciInterface, open_mmio, open_pci};

/// Longest wait for anything that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Wait for something that must not happen.
pub(crate) const SHORT: Duration = Duration::from_millis(30);

/// How a driver gets at a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) interface: Interface,
    pub(crate) choice: PciInterface,
    pub(crate) order: ByteOrder,
}

pub(crate) const MODERN: Way =
    Way { interface: Interface::PciModern, choice: PciInterface::Any, order: ByteOrder::Little };
pub(crate) const LEGACY: Way =
    Way { interface: Interface::PciLegacy, choice: PciInterface::Any, order: ByteOrder::Big };

/// All five interfaces, both sides of the transitional one, the legacy ones in both byte orders.
pub(crate) fn ways() -> Vec<Way> {
    let way = |interface, choice, order| Way { interface, choice, order };
    let mut all = vec![
        MODERN,
        way(Interface::Mmio, PciInterface::Any, ByteOrder::Little),
        way(Interface::PciTransitional, PciInterface::Any, ByteOrder::Little),
    ];
    for order in [ByteOrder::Little, ByteOrder::Big] {
        all.push(way(Interface::PciTransitional, PciInterface::Legacy, order));
        all.push(way(Interface::PciLegacy, PciInterface::Any, order));
        all.push(way(Interface::MmioLegacy, PciInterface::Any, order));
    }
    all
}

/// With and without EVENT_IDX and INDIRECT_DESC: what is withheld.
pub(crate) fn rings() -> [Features; 4] {
    let (event, indirect) = (Features::EVENT_IDX, Features::INDIRECT_DESC);
    [Features::EMPTY, event, indirect, event | indirect]
}

impl Way {
    /// Runs a device and opens it.
    pub(crate) fn open(self, builder: SoftDeviceBuilder, run: Run) -> (SoftDevice, Device) {
        let soft = checked(builder.interface(self.interface).byte_order(self.order).run(run));
        let device = self.device(&soft).unwrap();
        (soft, device)
    }

    pub(crate) fn device(self, soft: &SoftDevice) -> virtio::Result<Device> {
        let transport = if self.interface.is_pci() {
            open_pci(soft.pci()?, self.choice, self.order)?
        } else {
            open_mmio(soft.mmio()?, self.order)?
        };
        Device::open(transport, Options::default())
    }

    pub(crate) fn legacy(self) -> bool {
        self.choice == PciInterface::Legacy
            || matches!(self.interface, Interface::PciLegacy | Interface::MmioLegacy)
    }
}

/// Fails where the device saw the driver break a rule.
#[track_caller]
pub(crate) fn kept_the_rules(soft: &SoftDevice) {
    assert_eq!(soft.report().broken, None);
}

/// A block device of 1 MiB that tells of each request that it gets, by queue, and answers none.
#[derive(Debug)]
pub(crate) struct Gate {
    queues: u16,
    seen: Sender<u16>,
}

impl Gate {
    pub(crate) fn new(queues: u16) -> (Self, Receiver<u16>) {
        let (seen, told) = channel();
        (Self { queues, seen }, told)
    }
}

impl DeviceModel for Gate {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLOCK
    }

    fn features(&self) -> Features {
        Features::from_bit(virtio::spec::device::block::feature::MQ)
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn config(&self, order: ByteOrder) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes[..8].copy_from_slice(&order.u64_to_bytes(2048));
        bytes[34..36].copy_from_slice(&order.u16_to_bytes(self.queues));
        bytes
    }

    fn handle(&mut self, request: &mut Request<'_>) -> virtio::Result<Reply> {
        self.seen.send(request.queue());
        Ok(Reply::Wait)
    }
}

/// A block device of 1 MiB that says that all went well, and reads nothing and writes nothing but the status.
#[derive(Debug)]
pub(crate) struct Idle;

impl DeviceModel for Idle {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLOCK
    }

    fn queues(&self) -> u16 {
        1
    }

    fn config(&self, order: ByteOrder) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes[..8].copy_from_slice(&order.u64_to_bytes(2048));
        bytes
    }

    fn handle(&mut self, request: &mut Request<'_>) -> virtio::Result<Reply> {
        let len = request.writable_len();
        request.write(len - 1, &[0])?;
        Ok(Reply::Used(len as u32))
    }
}
