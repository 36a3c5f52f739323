//! Software devices behind every interface, driven through the transports that hardware meets.
#![cfg(all(feature = "soft", not(loom)))]

mod blank;
mod block;
#[path = "../driver_common/checked.rs"]
mod checked;
mod entropy;
mod hostile;
mod lies;
mod streams;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use checked::{abused, checked};
use virtio::device::{Device, Options, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::pool::DmaBuf;
use virtio::soft::{Interface, Run, SoftDevice, SoftDeviceBuilder};
use virtio::spec::ByteOrder;
use virtio::transport::{PciInterface, Transport, open_mmio, open_pci};

/// Longest wait for anything that has to happen.
const SOON: Duration = Duration::from_secs(10);

/// How a driver gets at a device: the device's interface, and the driver's choice where there is one.
#[derive(Debug, Clone, Copy)]
struct Way {
    interface: Interface,
    choice: PciInterface,
    order: ByteOrder,
}

/// Every way to drive a device, the legacy ones in both byte orders.
fn ways() -> Vec<Way> {
    let way = |interface, choice, order| Way { interface, choice, order };
    let mut all = Vec::new();
    for order in [ByteOrder::Little, ByteOrder::Big] {
        all.extend([
            way(Interface::PciTransitional, PciInterface::Legacy, order),
            way(Interface::PciLegacy, PciInterface::Any, order),
            way(Interface::MmioLegacy, PciInterface::Any, order),
            way(Interface::PciTransitional, PciInterface::Modern, order),
        ]);
    }
    all.push(way(Interface::PciModern, PciInterface::Any, ByteOrder::Little));
    all.push(way(Interface::Mmio, PciInterface::Any, ByteOrder::Little));
    all
}

impl Way {
    fn transport(self, soft: &SoftDevice) -> Arc<dyn Transport> {
        if self.interface.is_pci() {
            open_pci(soft.pci().unwrap(), self.choice, self.order).unwrap()
        } else {
            open_mmio(soft.mmio().unwrap(), self.order).unwrap()
        }
    }

    fn build(self, builder: SoftDeviceBuilder, run: Run) -> SoftDevice {
        checked(builder.interface(self.interface).byte_order(self.order).run(run))
    }
}

/// A device that runs, with its queues.
struct Rig {
    soft: SoftDevice,
    device: Device,
    queues: Vec<Queue<DmaBuf>>,
    run: Run,
}

impl Rig {
    fn new(way: Way, builder: SoftDeviceBuilder, run: Run, queues: u16, wanted: Features) -> Self {
        let soft = way.build(builder, run);
        Self::drive(way, soft, run, queues, wanted)
    }

    /// Drives a device that is there.
    fn drive(way: Way, soft: SoftDevice, run: Run, queues: u16, wanted: Features) -> Self {
        let device = Device::open(way.transport(&soft), Options::default()).unwrap();
        let rings = Features::EVENT_IDX | Features::INDIRECT_DESC;
        device.negotiate(wanted | rings, Features::EMPTY).unwrap();
        let queues =
            (0..queues).map(|index| device.take_queue(index, QueueConfig::default()).unwrap()).collect();
        device.start().unwrap();
        Self { soft, device, queues, run }
    }

    /// Sends one chain and waits for it; answers the length and the device-writable bytes.
    fn ask(&mut self, queue: usize, send: &[&[u8]], room: &[usize]) -> (u32, Vec<u8>) {
        let buf = |len: usize| self.device.alloc(len).unwrap();
        let readable: Vec<_> = send
            .iter()
            .map(|bytes| {
                let buf = buf(bytes.len());
                buf.write(0, bytes).unwrap();
                buf
            })
            .collect();
        let writable: Vec<_> = room.iter().map(|len| buf(*len)).collect();
        let queue = &mut self.queues[queue];
        queue.add_chain(readable, writable).unwrap();
        queue.notify().unwrap();
        if self.run == Run::Stepped {
            self.soft.settle().unwrap();
        }
        let used = queue.get(Some(SOON)).unwrap();
        let written = used.written;
        let mut bytes = Vec::new();
        for buf in used.into_buffers().skip(send.len()) {
            let mut part = vec![0; buf.len() as usize];
            buf.read(0, &mut part).unwrap();
            bytes.extend(part);
        }
        (written, bytes)
    }

    fn check(&self) {
        assert_eq!(self.soft.report().broken, None);
    }
}
