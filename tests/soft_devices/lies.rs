//! Every lie of the script shows as the driver side's error for it, and is told at the interfaces it is about.

use std::sync::Arc;
use std::time::Duration;

use virtio::device::{Device, Options, Queue, QueueConfig};
use virtio::error::Violation;
use virtio::features::Features;
use virtio::mem::pool::DmaBuf;
use virtio::soft::{Console, DeviceLie, Interface, Lie, Run, SoftDevice};
use virtio::spec::{ByteOrder, Status, pci};
use virtio::transport::{PciInterface, Transport, open_mmio, open_pci};
use virtio::{Error, Result};

use crate::{abused, checked};

fn transport(soft: &SoftDevice) -> Result<Arc<dyn Transport>> {
    if soft.interface().is_pci() {
        open_pci(soft.pci()?, PciInterface::Any, ByteOrder::Little)
    } else {
        open_mmio(soft.mmio()?, ByteOrder::Little)
    }
}

fn soft(interface: Interface, lies: Vec<DeviceLie>) -> SoftDevice {
    checked(SoftDevice::builder(Console::new(80, 25)).interface(interface).run(Run::Inline).lies(lies))
}

/// As far as a driver gets: the whole life from open to one echoed byte and a reset.
fn live(soft: &SoftDevice) -> Result<(Device, Vec<Queue<DmaBuf>>)> {
    let mut options = Options::default();
    options.control_timeout = Duration::from_millis(20);
    let device = Device::open(transport(soft)?, options)?;
    device.negotiate(Features::EVENT_IDX, Features::EMPTY)?;
    let queues =
        vec![device.take_queue(0, QueueConfig::default())?, device.take_queue(1, QueueConfig::default())?];
    device.start()?;
    let mut queues = queues;
    let byte = device.alloc(1)?;
    queues[1].add_chain([byte], [])?;
    queues[1].notify()?;
    queues[1].get(Some(Duration::from_millis(200)))?;
    device.reset()?;
    Ok((device, queues))
}

fn outcome(interface: Interface, lies: impl IntoIterator<Item = DeviceLie>) -> Result<()> {
    live(&soft(interface, lies.into_iter().collect())).map(|_| ())
}

macro_rules! ends {
    ($interfaces:expr, $lie:expr, $pattern:pat $(if $guard:expr)?) => {
        for interface in $interfaces {
            let error = outcome(interface, [$lie]).expect_err(interface.name());
            assert!(matches!(error.kind(), $pattern $(if $guard)?), "{interface:?}: {error:?}");
        }
    };
}

const MODERN: [Interface; 2] = [Interface::PciModern, Interface::Mmio];
const LEGACY: [Interface; 2] = [Interface::PciLegacy, Interface::MmioLegacy];
const PCI: [Interface; 1] = [Interface::PciModern];
const MMIO: [Interface; 2] = [Interface::Mmio, Interface::MmioLegacy];

#[test]
fn an_honest_device_lives_behind_every_interface() {
    for interface in Interface::ALL {
        outcome(interface, []).unwrap();
    }
}

#[test]
fn c1_c2_c3_c26_c30_the_status() {
    for interface in Interface::ALL {
        let device = soft(interface, vec![]);
        let (driver, _queues) = live(&device).unwrap();
        driver.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
        device.tell(DeviceLie::StatusNeverResets).unwrap();
        let error = driver.reset().unwrap_err();
        assert!(matches!(error.kind(), Error::ResetTimeout { .. }), "{interface:?}: {error:?}");
    }
    ends!(Interface::ALL, DeviceLie::StatusAllOnes, Error::DeviceGone { .. });
    ends!(
        Interface::ALL,
        DeviceLie::NeedsReset { after: 0 },
        Error::DeviceNeedsReset | Error::Indeterminate { .. }
    );
    ends!(Interface::ALL, DeviceLie::Stalls, Error::Timeout { .. });
    for interface in Interface::ALL {
        outcome(interface, [DeviceLie::SlowReset { reads: 3 }]).unwrap();
        for lie in [DeviceLie::Removed, DeviceLie::AllOnes] {
            let device = soft(interface, vec![]);
            let driver = Device::open(transport(&device).unwrap(), Options::default()).unwrap();
            device.tell(lie).unwrap();
            let error = driver.reset().unwrap_err();
            assert!(matches!(error.kind(), Error::DeviceGone { .. }), "{interface:?}: {error:?}");
        }
    }
}

#[test]
fn c4_c5_c6_c27_the_features() {
    ends!(MODERN, DeviceLie::FeaturesOkNotSticky, Error::FeaturesRejected { .. });
    ends!(MODERN, DeviceLie::NoVersion1, Error::MissingFeatures { .. });
    ends!(MODERN, DeviceLie::Offers(Features::RING_PACKED), Error::MissingFeatures { .. });
    outcome(Interface::Mmio, [DeviceLie::FeatureWordsEcho]).unwrap();
    let echo = soft(Interface::Mmio, vec![DeviceLie::FeatureWordsEcho]);
    assert_eq!(transport(&echo).unwrap().device_features().unwrap().0 >> 64, 0);
    for interface in MODERN {
        let device = soft(interface, vec![DeviceLie::OffersFlicker(Features::IN_ORDER)]);
        let transport = transport(&device).unwrap();
        let seen: Vec<_> = (0..4).map(|_| transport.device_features().unwrap()).collect();
        assert!(seen.iter().any(|one| *one != seen[0]), "{interface:?}");
    }
}

#[test]
fn c7_c8_c9_c10_c23_the_queues() {
    for size in [0, 3, 0x8001] {
        let lie = DeviceLie::QueueSize { queue: 0, size };
        ends!([Interface::PciLegacy], lie.clone(), Error::QueueUnavailable { queue: 0, .. });
        if size == 0 {
            ends!(Interface::ALL, lie.clone(), Error::QueueUnavailable { queue: 0, .. });
        }
    }
    ends!(PCI, DeviceLie::QueueSizeGrows, Error::QueueUnavailable { .. });
    for count in [0, 1] {
        ends!(PCI, DeviceLie::NumQueues(count), Error::QueueUnavailable { .. });
    }
    outcome(Interface::PciModern, [DeviceLie::NumQueues(u16::MAX)]).unwrap();
    ends!(MODERN, DeviceLie::QueueEnableReads0, Error::QueueUnavailable { .. });
    ends!(MODERN, DeviceLie::QueueEnableReads1, Error::QueueUnavailable { .. });
    ends!(PCI, DeviceLie::NotifyOff(u16::MAX), Error::QueueUnavailable { .. });
    ends!(PCI, DeviceLie::NotifyMultiplier(u32::MAX - 1), Error::QueueUnavailable { .. });
    ends!(PCI, DeviceLie::NotifyMultiplier(3), Error::BadCapability { .. });
    outcome(Interface::PciModern, [DeviceLie::NotifyMultiplier(0)]).unwrap();
    ends!(LEGACY, DeviceLie::PageNumberReads(77), Error::QueueUnavailable { .. });
}

#[test]
fn c11_c12_c13_c14_c16_interrupts_and_configuration() {
    for interface in Interface::ALL {
        outcome(interface, [DeviceLie::IsrBits(0xfc)]).unwrap();
        let device = soft(interface, vec![]);
        let driver = Device::open(transport(&device).unwrap(), Options::default()).unwrap();
        assert_eq!(driver.config().read(0, 2).unwrap(), 80);
        device.change_config(0, &[132, 0]).unwrap();
        assert_eq!(driver.config().read(0, 2).unwrap(), 132, "{interface:?}");
    }
    let refused = soft(Interface::PciModern, vec![DeviceLie::VectorRefused { from: 0 }]);
    let transport_of = transport(&refused).unwrap();
    transport_of.enable_interrupts(1).unwrap();
    assert!(matches!(transport_of.set_config_vector(Some(0)), Err(Error::VectorRefused { vector: 0 })));
    for interface in MODERN {
        let device = soft(interface, vec![DeviceLie::GenerationChanges]);
        let driver = Device::open(transport(&device).unwrap(), Options::default()).unwrap();
        let error = driver.config().snapshot(driver.offered().unwrap()).unwrap_err();
        assert!(matches!(error.kind(), Error::ConfigUnstable { .. }), "{interface:?}: {error:?}");
        let device = soft(interface, vec![DeviceLie::ConfigLen(2)]);
        let driver = Device::open(transport(&device).unwrap(), Options::default()).unwrap();
        let error = driver.config().read(4, 4).unwrap_err();
        assert!(matches!(error.kind(), Error::ConfigOutOfRange { .. }), "{interface:?}: {error:?}");
    }
}

#[test]
fn c17_c18_c19_the_capabilities() {
    for lie in [DeviceLie::CapCycle, DeviceLie::CapInHeader, DeviceLie::CapMisaligned, DeviceLie::CapAtEnd] {
        ends!(PCI, lie.clone(), Error::BadCapability { .. });
    }
    let field = |cfg_type, field: u64, value| DeviceLie::CapField { cfg_type, field: field as u8, value };
    for lie in [
        field(pci::cap::COMMON_CFG, pci::cap::CAP_LEN, 15),
        field(pci::cap::COMMON_CFG, pci::cap::BAR, 6),
        field(pci::cap::COMMON_CFG, pci::cap::BAR, 5),
        field(pci::cap::NOTIFY_CFG, pci::cap::OFFSET, u32::MAX - 1),
        field(pci::cap::NOTIFY_CFG, pci::cap::LENGTH, u32::MAX),
        field(pci::cap::COMMON_CFG, pci::cap::OFFSET, 2),
        DeviceLie::BarMissing,
        DeviceLie::CapsOverlap,
        DeviceLie::CapInMsixTable,
    ] {
        ends!(PCI, lie.clone(), Error::BadCapability { .. });
    }
    for cfg_type in [pci::cap::COMMON_CFG, pci::cap::NOTIFY_CFG, pci::cap::ISR_CFG, pci::cap::DEVICE_CFG] {
        outcome(Interface::PciModern, [DeviceLie::CapTwice(cfg_type)]).unwrap();
        outcome(Interface::PciModern, [DeviceLie::CapTwiceFirstBad(cfg_type)]).unwrap();
    }
}

#[test]
fn c22_the_identity_of_an_mmio_slot() {
    ends!(MMIO, DeviceLie::Magic(1), Error::BadMagic { found: 1 });
    ends!(MMIO, DeviceLie::Version(3), Error::BadVersion { found: 3 });
    ends!(MMIO, DeviceLie::DeviceId(0), Error::NoDevice);
    for interface in MMIO {
        outcome(interface, [DeviceLie::Vendor(0x554d_4551)]).unwrap();
    }
}

#[test]
fn c24_memory_beyond_a_page_number_is_refused() {
    for interface in LEGACY {
        let soft = SoftDevice::builder(Console::new(1, 1)).interface(interface).memory_at(1 << 45);
        let error = live(&checked(soft)).unwrap_err();
        assert!(matches!(error.kind(), Error::MemoryLimit { .. }), "{interface:?}: {error:?}");
    }
}

#[test]
fn c25_shared_memory_out_of_range_harms_nothing_else() {
    let lie = DeviceLie::SharedMemory { id: 3, offset: 1 << 40, len: 1 << 30 };
    for interface in MODERN {
        let device = soft(interface, vec![lie.clone()]);
        assert!(transport(&device).unwrap().shared_memory(3).is_err(), "{interface:?}");
        assert!(transport(&device).unwrap().shared_memory(4).unwrap().is_none());
        live(&device).unwrap();
    }
}

#[test]
fn d10_d23_d24_rings_of_devices_that_lie() {
    for interface in Interface::ALL {
        outcome(interface, [DeviceLie::EarlyInterrupt]).unwrap();
        outcome(interface, [DeviceLie::UsedLen(0)]).unwrap();
        let lie = DeviceLie::Ring { queue: 1, chain: 0, lie: Lie::UsedIdRange { id: 1 << 20 } };
        let error = outcome(interface, [lie]).unwrap_err();
        assert!(matches!(error.kind(), Error::Broken { queue: 1, .. }), "{interface:?}: {error:?}");
    }
}

/// A device that runs, with one request in flight on queue 0 that nothing answers.
fn in_flight(interface: Interface) -> (SoftDevice, Device, Queue<DmaBuf>, u64) {
    let device = soft(interface, vec![]);
    let driver = Device::open(transport(&device).unwrap(), Options::default()).unwrap();
    driver.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
    let mut queue = driver.take_queue(0, QueueConfig::default()).unwrap();
    driver.start().unwrap();
    let token = queue.add_chain([], [driver.alloc(4).unwrap()]).unwrap();
    queue.notify().unwrap();
    (device, driver, queue, token.into_raw())
}

#[test]
fn d23_rings_of_all_ones_break_the_queue_or_are_a_device_gone() {
    for interface in Interface::ALL {
        let get = |queue: &mut Queue<DmaBuf>| queue.get(Some(Duration::from_secs(10))).map(drop).unwrap_err();
        // The ring alone.
        let (device, _driver, mut queue, _) = in_flight(interface);
        device.tell(DeviceLie::Ring { queue: 0, chain: 0, lie: Lie::AllOnes }).unwrap();
        for _ in 0..2 {
            let violation = Violation::UsedIdxJump { span: u16::MAX, outstanding: 1 };
            assert_eq!(get(&mut queue).kind(), &Error::Broken { queue: 0, violation }, "{interface:?}");
        }
        // The status too: what was in flight ends once, then every call tells of the device.
        let (device, _driver, mut queue, token) = in_flight(interface);
        device.tell(DeviceLie::AllOnes).unwrap();
        assert_eq!(get(&mut queue).kind(), &Error::Indeterminate { token }, "{interface:?}");
        for _ in 0..2 {
            let error = get(&mut queue);
            assert!(matches!(error.kind(), Error::DeviceGone { .. }), "{interface:?}: {error:?}");
        }
    }
}

#[test]
fn d24_completions_of_nothing_are_skipped_and_counted_or_break_the_ring() {
    for interface in Interface::ALL {
        let early = |count| DeviceLie::Ring { queue: 1, chain: 0, lie: Lie::UsedBeforeAvailable { count } };
        let device = soft(interface, vec![]);
        let driver = Device::open(transport(&device).unwrap(), Options::default()).unwrap();
        driver.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
        let mut queue = driver.take_queue(1, QueueConfig::default()).unwrap();
        driver.start().unwrap();
        device.tell(early(2)).unwrap();
        assert!(queue.pop().unwrap().is_none());
        let token = queue.add_chain([driver.alloc(1).unwrap()], []).unwrap();
        queue.notify().unwrap();
        assert_eq!(queue.get(Some(Duration::from_secs(10))).unwrap().token, token, "{interface:?}");
        assert_eq!((queue.counters().early, queue.counters().used), (2, 1), "{interface:?}");
        // Once something was asked, they are no early ones.
        device.tell(early(1)).unwrap();
        let violation = Violation::UsedIdxJump { span: 1, outstanding: 0 };
        let error = queue.pop().unwrap_err();
        assert_eq!(error.kind(), &Error::Broken { queue: 1, violation }, "{interface:?}");
    }
}

#[test]
fn a_driver_that_breaks_the_ring_makes_the_device_ask_for_a_reset() {
    for interface in Interface::ALL {
        let builder = SoftDevice::builder(Console::new(80, 25)).interface(interface).run(Run::Inline);
        let device = abused(builder);
        let transport = transport(&device).unwrap();
        transport.reset(virtio::event::Deadline::after(Duration::from_secs(1))).unwrap();
        let ok = Status::ACKNOWLEDGE | Status::DRIVER;
        transport.set_status(ok).unwrap();
        let features = if transport.legacy() { Features::EMPTY } else { Features::VERSION_1 };
        transport.set_driver_features(features).unwrap();
        let ok = ok | Status::FEATURES_OK;
        transport.set_status(ok).unwrap();
        // Areas where the device has no memory at all.
        let setup = match transport.ring_layout() {
            virtio::transport::RingLayout::Modern => (0x10_0000, 0x20_0000, 0x30_0000),
            _ => (0x10_0000, 0x10_1000, 0x10_2000),
        };
        transport
            .set_queue(
                0,
                &virtio::transport::QueueSetup {
                    size: 256,
                    descriptor_area: setup.0,
                    driver_area: setup.1,
                    device_area: setup.2,
                    vector: None,
                },
            )
            .unwrap();
        transport.set_status(ok | Status::DRIVER_OK).unwrap();
        let status = transport.status().unwrap();
        assert!(status.contains(Status::DEVICE_NEEDS_RESET), "{interface:?}: {status}");
    }
}
