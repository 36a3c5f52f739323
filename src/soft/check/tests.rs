//! Each rule has a sequence that breaks it, and the checker names that rule and no other first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::vec::Vec;

use crate::bus::{Doorbell, RegisterSpace};
use crate::features::Features;
use crate::mem::dma::DmaMapper;
use crate::mem::region::DmaRegion;
use crate::soft::core::Face;
use crate::soft::registers::Reg;
use crate::soft::{Console, DeviceLie, Interface, RULES, Run, SoftDevice, SoftDeviceBuilder};
use crate::spec::device::console::feature as console;
use crate::spec::pci::{cap, config};

mod strict;

const ACK: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const FAILED: u32 = 128;
const V1: Features = Features::VERSION_1;

/// Size of the queue under test, and where its areas are in the memory.
const SIZE: u16 = 8;
const DRIVER_AREA: usize = 0x1000;
const DEVICE_AREA: usize = 0x2000;
const TABLE: usize = 0x3000;

/// A checked device, and a driver that has only its registers.
struct Raw {
    soft: SoftDevice,
    face: Face,
    region: Arc<DmaRegion>,
    base: u64,
}

impl Raw {
    fn over(builder: SoftDeviceBuilder, interface: Interface) -> Self {
        let soft = builder.interface(interface).run(Run::Stepped).checked(true).build().unwrap();
        let face = match interface {
            Interface::PciLegacy => Face::PciLegacy,
            Interface::Mmio => Face::Mmio,
            Interface::MmioLegacy => Face::MmioLegacy,
            _ => Face::PciModern,
        };
        let region = DmaRegion::new(0x1_0000).unwrap();
        let base = soft.dma().map(&region).unwrap().0;
        let raw = Self { soft, face, region, base };
        if !face.pci() {
            raw.r(Reg::Magic);
            raw.r(Reg::Version);
        }
        raw
    }

    fn new(interface: Interface) -> Self {
        let raw = Self::over(SoftDevice::builder(Console::new(80, 25)), interface);
        if !raw.face.pci() {
            raw.r(Reg::DeviceId);
        }
        raw
    }

    fn pci() -> Self {
        Self::new(Interface::PciModern)
    }

    fn mmio() -> Self {
        Self::new(Interface::Mmio)
    }

    fn w(&self, reg: Reg, value: u32) -> &Self {
        self.soft.running.machine.write(self.face, reg, value).unwrap();
        self
    }

    fn r(&self, reg: Reg) -> u32 {
        self.soft.running.machine.read(self.face, reg).unwrap()
    }

    fn status(&self, value: u32) -> &Self {
        self.w(Reg::Status, value)
    }

    /// Up to DRIVER.
    fn begin(&self) -> &Self {
        self.status(0).r(Reg::Status);
        self.status(ACK).status(ACK | DRIVER)
    }

    fn accept(&self, features: Features) -> &Self {
        for (select, word) in (0..).zip(features.words()) {
            self.w(Reg::DeviceFeatureSelect, select).r(Reg::DeviceFeature);
            self.w(Reg::DriverFeatureSelect, select).w(Reg::DriverFeature, word);
        }
        self
    }

    /// Up to FEATURES_OK, read back.
    fn agreed(&self, features: Features) -> &Self {
        self.begin().accept(features).status(ACK | DRIVER | FEATURES_OK).r(Reg::Status);
        self
    }

    fn areas(&self, areas: [u64; 3]) -> &Self {
        for (area, address) in (0..).zip(areas) {
            self.w(Reg::Area(area, false), address as u32).w(Reg::Area(area, true), (address >> 32) as u32);
        }
        self
    }

    fn good_areas(&self) -> [u64; 3] {
        [self.base, self.base + DRIVER_AREA as u64, self.base + DEVICE_AREA as u64]
    }

    /// Queue 0, enabled, read back.
    fn queue(&self) -> &Self {
        self.queue_at(self.good_areas())
    }

    fn queue_at(&self, areas: [u64; 3]) -> &Self {
        self.w(Reg::QueueSelect, 0).w(Reg::QueueSize, SIZE.into()).areas(areas).w(Reg::QueueEnable, 1);
        self.r(Reg::QueueEnable);
        self
    }

    /// Up to DRIVER_OK.
    fn running(&self, features: Features) -> &Self {
        self.agreed(features).queue().driver_ok()
    }

    fn driver_ok(&self) -> &Self {
        self.status(ACK | DRIVER | FEATURES_OK | DRIVER_OK)
    }

    fn legacy(interface: Interface) -> Self {
        let raw = Self::new(interface);
        raw.begin();
        raw
    }

    fn desc_at(&self, at: usize, addr: u64, len: u32, flags: u16, next: u16) -> &Self {
        let mut bytes = Vec::from(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.region.write(at, &bytes).unwrap();
        self
    }

    fn desc(&self, index: usize, flags: u16, next: u16) -> &Self {
        self.desc_at(16 * index, self.base + 0x4000, 16, flags, next)
    }

    fn avail(&self, field: usize, value: u16) -> &Self {
        self.region.write(DRIVER_AREA + field, &value.to_le_bytes()).unwrap();
        self
    }

    /// Shows these heads to the device, without telling it.
    fn show(&self, heads: &[u16]) -> &Self {
        for (slot, head) in heads.iter().enumerate() {
            self.avail(4 + 2 * slot, *head);
        }
        self.avail(2, heads.len() as u16)
    }

    fn notify(&self) -> &Self {
        self.doorbell(2).ring(0).unwrap();
        self
    }

    fn doorbell(&self, width: u8) -> Doorbell {
        self.bar(4).doorbell(0x3000, width).unwrap()
    }

    fn step(&self) {
        let _ = self.soft.step().unwrap();
    }

    /// Makes the heads available as it ought to be done, and lets the device look.
    fn go(&self, heads: &[u16]) {
        self.show(heads).notify().step();
    }

    fn bar(&self, index: u8) -> Arc<dyn RegisterSpace> {
        self.soft.pci().unwrap().bar(index).unwrap().unwrap().registers
    }

    fn slot(&self) -> Arc<dyn RegisterSpace> {
        self.soft.mmio().unwrap().registers()
    }
}

/// Offset of the capability of a type in the configuration space.
fn find_cap(raw: &Raw, cfg_type: u8) -> u64 {
    let pci = raw.soft.pci().unwrap();
    let space = pci.config();
    let mut at = u64::from(space.read8(config::CAPABILITIES).unwrap());
    while space.read8(at).unwrap() != cap::ID_VENDOR || space.read8(at + cap::CFG_TYPE).unwrap() != cfg_type {
        at = space.read8(at + cap::NEXT).unwrap().into();
        assert_ne!(at, 0);
    }
    at
}

/// Sets the window of the access capability, and reads through it.
fn access(raw: &Raw, bar: u8, offset: u32, len: u32) {
    let at = find_cap(raw, cap::PCI_CFG);
    let pci = raw.soft.pci().unwrap();
    pci.config().write8(at + cap::BAR, bar).unwrap();
    pci.config().write32(at + cap::OFFSET, offset).unwrap();
    pci.config().write32(at + cap::LENGTH, len).unwrap();
    pci.config().read32(at + cap::PCI_CFG_DATA).unwrap();
}

type Case = (&'static str, fn() -> Raw, fn(&Raw));

fn offering(features: Features) -> Raw {
    Raw::over(SoftDevice::builder(Console::new(80, 25)).offer(features), Interface::PciModern)
}

const STATUS: &[Case] = &[
    ("STATUS_BIT_CLEARED", Raw::pci, |d| _ = d.begin().status(ACK)),
    ("STATUS_UNKNOWN_BIT", Raw::pci, |d| _ = d.begin().status(ACK | DRIVER | 0x20)),
    ("STATUS_NEEDS_RESET_SET", Raw::pci, |d| _ = d.begin().status(ACK | DRIVER | 64)),
    ("STATUS_AFTER_FAILED", Raw::pci, |d| {
        d.begin().status(ACK | DRIVER | FAILED).status(ACK | DRIVER | FAILED | 16);
    }),
    ("INIT_NO_RESET", Raw::pci, |d| _ = d.status(ACK)),
    ("INIT_DRIVER_FIRST", Raw::pci, |d| {
        d.status(0).r(Reg::Status);
        d.status(DRIVER);
    }),
    ("INIT_FEATURES_OK_FIRST", Raw::pci, |d| {
        d.status(0).r(Reg::Status);
        d.status(ACK).status(ACK | FEATURES_OK);
    }),
    ("INIT_DRIVER_OK_EARLY", Raw::pci, |d| _ = d.begin().status(ACK | DRIVER | DRIVER_OK)),
    (
        "INIT_DRIVER_OK_WITHOUT_DRIVER",
        || Raw::new(Interface::PciLegacy),
        |d| {
            d.status(0).status(ACK).status(ACK | DRIVER_OK);
        },
    ),
    ("INIT_FEATURES_EARLY", Raw::pci, |d| {
        d.status(0).r(Reg::Status);
        d.status(ACK).accept(V1);
    }),
    ("INIT_FEATURES_LATE", Raw::pci, |d| _ = d.agreed(V1).w(Reg::DriverFeature, 0)),
    ("INIT_FEATURES_AFTER_DRIVER_OK", Raw::pci, |d| _ = d.running(V1).w(Reg::DriverFeature, 0)),
    ("INIT_FEATURES_OK_NOT_READ", Raw::pci, |d| {
        d.begin().accept(V1).status(ACK | DRIVER | FEATURES_OK).queue();
    }),
    (
        "INIT_FEATURES_REFUSED",
        || {
            let builder = SoftDevice::builder(Console::new(1, 1));
            Raw::over(builder.lies([DeviceLie::FeaturesOkNotSticky]), Interface::PciModern)
        },
        |d| _ = d.agreed(V1).queue(),
    ),
    ("INIT_CONFIG_WRITTEN", Raw::pci, |d| {
        d.begin();
        d.bar(4).write32(0x2008, 65).unwrap();
    }),
    ("INIT_QUEUE_EARLY", Raw::pci, |d| _ = d.begin().queue()),
    ("INIT_QUEUE_LATE", Raw::pci, |d| {
        d.running(V1).w(Reg::QueueSelect, 1).areas(d.good_areas()).w(Reg::QueueEnable, 1);
    }),
    ("INIT_NOTIFIED_EARLY", Raw::pci, |d| _ = d.agreed(V1).queue().notify()),
];

const FEATURES: &[Case] = &[
    ("FEATURES_NOT_READ", Raw::pci, |d| {
        d.begin().w(Reg::DriverFeatureSelect, 1).w(Reg::DriverFeature, 1);
        d.status(ACK | DRIVER | FEATURES_OK);
    }),
    ("FEATURE_NOT_OFFERED", Raw::pci, |d| _ = d.agreed(V1 | Features::IN_ORDER)),
    ("FEATURE_DEPENDENCY", || offering(Features::IN_ORDER), |d| _ = d.agreed(Features::IN_ORDER)),
    ("FEATURE_RESERVED", || offering(Features(1 << 48)), |d| _ = d.agreed(V1 | Features(1 << 48))),
    (
        "FEATURE_TRANSPORT",
        || {
            let builder = SoftDevice::builder(Console::new(1, 1)).offer(Features::ADMIN_VQ);
            let raw = Raw::over(builder, Interface::Mmio);
            raw.r(Reg::DeviceId);
            raw
        },
        |d| _ = d.agreed(V1 | Features::ADMIN_VQ),
    ),
    ("FEATURE_VERSION_1", Raw::pci, |d| _ = d.agreed(Features::EVENT_IDX)),
    ("FEATURE_SR_IOV", || offering(Features::SR_IOV), |d| _ = d.agreed(V1 | Features::SR_IOV)),
    (
        "CONFIG_FEATURE",
        || {
            let builder = SoftDevice::builder(Console::new(1, 1)).withhold(Features::from_bit(console::SIZE));
            Raw::over(builder, Interface::PciModern)
        },
        |d| _ = d.bar(4).read16(0x2000).unwrap(),
    ),
];

const PCI: &[Case] = &[
    ("PCI_CONFIG_WIDTH", Raw::pci, |d| _ = d.bar(4).read8(0x2000).unwrap()),
    ("PCI_WIDTH", Raw::pci, |d| _ = d.bar(4).read32(0x14).unwrap()),
    ("PCI_READ_ONLY", Raw::pci, |d| d.bar(4).write16(0x12, 1).unwrap()),
    ("PCI_RESET_NOT_READ", Raw::pci, |d| _ = d.status(0).status(ACK)),
    ("PCI_SIZE_NOT_POWER_OF_2", Raw::pci, |d| _ = d.agreed(V1).w(Reg::QueueSize, 3)),
    (
        "PCI_SIZE_ZERO",
        || offering(Features::RING_PACKED),
        |d| {
            d.agreed(V1 | Features::RING_PACKED).w(Reg::QueueSize, 0);
        },
    ),
    ("PCI_ENABLE_ZERO", Raw::pci, |d| _ = d.agreed(V1).queue().w(Reg::QueueEnable, 0)),
    ("PCI_ENABLE_UNCONFIGURED", Raw::pci, |d| {
        d.agreed(V1).w(Reg::QueueSelect, 0).w(Reg::Area(0, false), 0x1000).w(Reg::QueueEnable, 1);
    }),
    ("PCI_QUEUE_CHANGED", Raw::pci, |d| _ = d.agreed(V1).queue().w(Reg::Area(1, false), 64)),
    ("PCI_CAP_WRITTEN", Raw::pci, |d| {
        let at = find_cap(d, cap::COMMON_CFG);
        d.soft.pci().unwrap().config().write8(at + cap::BAR, 2).unwrap();
    }),
    ("PCI_ACCESS_ALIGN", Raw::pci, |d| access(d, 4, 2, 4)),
    ("PCI_ACCESS_RANGE", Raw::pci, |d| access(d, 1, 0, 4)),
    ("PCI_VECTOR_RANGE", Raw::pci, |d| _ = d.begin().w(Reg::ConfigVector, 500)),
    ("PCI_VECTOR_NOT_READ", Raw::pci, |d| _ = d.agreed(V1).w(Reg::QueueVector, 0).queue()),
    ("PCI_NOTIFY_16", Raw::pci, |d| {
        d.running(V1);
        d.doorbell(4).ring(0).unwrap();
    }),
    (
        "PCI_NOTIFY_32",
        || offering(Features::NOTIFICATION_DATA),
        |d| {
            d.running(V1 | Features::NOTIFICATION_DATA).notify();
        },
    ),
    ("PCI_NOTIFY_VALUE", Raw::pci, |d| {
        d.running(V1);
        d.doorbell(2).ring(9).unwrap();
    }),
    (
        "PCI_NOTIFY_CONFIG_DATA",
        || offering(Features::NOTIF_CONFIG_DATA),
        |d| {
            d.running(V1 | Features::NOTIF_CONFIG_DATA).notify();
        },
    ),
    ("PCI_NOTIFY_ADDRESS", Raw::pci, |d| {
        d.running(V1);
        d.doorbell(2).ring(1).unwrap();
    }),
    ("QUEUE_RESET_NOT_READ", Raw::pci, |d| {
        d.running(V1 | Features::RING_RESET).w(Reg::QueueReset, 1).queue();
    }),
    ("QUEUE_RESET_FEATURE", Raw::pci, |d| _ = d.running(V1).w(Reg::QueueReset, 1)),
];

const MMIO: &[Case] = &[
    ("MMIO_WIDTH", Raw::mmio, |d| _ = d.slot().read8(0x70).unwrap()),
    ("MMIO_CONFIG_WIDTH", Raw::mmio, |d| _ = d.slot().read32(0x100).unwrap()),
    ("MMIO_UNKNOWN_REGISTER", Raw::mmio, |d| _ = d.slot().read32(0x18).unwrap()),
    ("MMIO_READ_ONLY", Raw::mmio, |d| d.slot().write32(0x34, 1).unwrap()),
    ("MMIO_WRITE_ONLY", Raw::mmio, |d| _ = d.slot().read32(0x30).unwrap()),
    ("MMIO_DEVICE_FEATURES_SEL", Raw::mmio, |d| {
        d.begin().r(Reg::DeviceFeature);
    }),
    ("MMIO_DRIVER_FEATURES_SEL", Raw::mmio, |d| _ = d.begin().w(Reg::DriverFeature, 0)),
    ("MMIO_SIZE_TOO_LARGE", Raw::mmio, |d| _ = d.agreed(V1).w(Reg::QueueSize, 0x8000)),
    ("MMIO_QUEUE_CHANGED", Raw::mmio, |d| _ = d.agreed(V1).queue().w(Reg::QueueSize, 4)),
    ("MMIO_STOP_NOT_READ", Raw::mmio, |d| _ = d.agreed(V1).queue().w(Reg::QueueEnable, 0).queue()),
    ("MMIO_ACK_UNDEFINED", Raw::mmio, |d| {
        d.begin().r(Reg::Isr);
        d.w(Reg::IsrAck, 5);
    }),
    ("MMIO_ACK_UNREAD", Raw::mmio, |d| _ = d.begin().w(Reg::IsrAck, 1)),
    (
        "MMIO_IDENTITY",
        || Raw::over(SoftDevice::builder(Console::new(1, 1)), Interface::Mmio),
        |d| {
            d.status(0);
        },
    ),
    (
        "MMIO_IDENTITY_ORDER",
        || {
            let builder = SoftDevice::builder(Console::new(1, 1)).interface(Interface::Mmio);
            let soft = builder.run(Run::Stepped).checked(true).build().unwrap();
            Raw { soft, face: Face::Mmio, region: DmaRegion::new(4096).unwrap(), base: 0 }
        },
        |d| _ = d.r(Reg::DeviceId),
    ),
    (
        "MMIO_EMPTY_SLOT",
        || {
            let builder = SoftDevice::builder(Console::new(1, 1)).lies([DeviceLie::DeviceId(0)]);
            Raw::over(builder, Interface::Mmio)
        },
        |d| {
            d.r(Reg::DeviceId);
            d.status(0);
        },
    ),
    ("MMIO_NOTIFY_VALUE", Raw::mmio, |d| {
        d.running(V1);
        d.slot().write32(0x50, 7).unwrap();
    }),
    ("MMIO_LEGACY_PAGE_SIZE", || Raw::legacy(Interface::MmioLegacy), |d| _ = d.w(Reg::PageNumber, 7)),
    ("MMIO_LEGACY_ALIGN", || Raw::legacy(Interface::MmioLegacy), |d| _ = d.w(Reg::QueueAlign, 5)),
];

const RINGS: &[Case] = &[
    ("RING_ALIGN", Raw::pci, |d| {
        let [table, driver, device] = d.good_areas();
        d.agreed(V1).queue_at([table + 4, driver, device]).driver_ok().notify().step();
    }),
    ("RING_UNREACHABLE", Raw::pci, |d| {
        d.agreed(V1).queue_at([0x1000, 0x2000, 0x3000]).driver_ok().notify().step();
    }),
    ("RING_USED_FLAGS", Raw::pci, |d| {
        d.region.write(DEVICE_AREA, &[1, 0]).unwrap();
        d.running(V1).go(&[]);
    }),
    ("RING_FRAMING", Raw::pci, |d| d.running(V1).desc(0, 1 | 2, 1).desc(1, 0, 0).go(&[0])),
    ("RING_TOO_MANY_BYTES", Raw::pci, |d| {
        d.running(V1).desc_at(0, 0, u32::MAX, 1, 1).desc_at(16, 0, u32::MAX, 0, 0).go(&[0]);
    }),
    (
        "RING_IN_ORDER",
        || offering(Features::IN_ORDER),
        |d| {
            d.running(V1 | Features::IN_ORDER).desc(0, 3, 2).desc(2, 2, 0).go(&[0]);
        },
    ),
    ("RING_INDEX", Raw::pci, |d| d.running(V1).desc(0, 1, SIZE).go(&[0])),
    ("RING_INDIRECT_FEATURE", Raw::pci, |d| d.running(V1).desc(0, 4, 0).go(&[0])),
    ("RING_INDIRECT_NESTED", Raw::pci, |d| {
        d.running(V1 | Features::INDIRECT_DESC);
        d.desc_at(0, d.base + TABLE as u64, 16, 4, 0).desc_at(TABLE, d.base, 16, 4, 0).go(&[0]);
    }),
    ("RING_INDIRECT_NEXT", Raw::pci, |d| {
        d.running(V1 | Features::INDIRECT_DESC).desc(0, 5, 1).go(&[0]);
    }),
    ("RING_CHAIN_TOO_LONG", Raw::pci, |d| d.running(V1).desc(0, 1, 1).desc(1, 1, 0).go(&[0])),
    ("RING_BAD_TABLE", Raw::pci, |d| {
        d.running(V1 | Features::INDIRECT_DESC).desc_at(0, d.base, 17, 4, 0).go(&[0]);
    }),
    ("RING_IDX", Raw::pci, |d| d.running(V1).avail(2, u16::MAX).notify().step()),
    ("RING_FLAGS", Raw::pci, |d| d.running(V1).avail(0, 2).go(&[])),
    ("RING_FLAGS_EVENT_IDX", Raw::pci, |d| d.running(V1 | Features::EVENT_IDX).avail(0, 1).go(&[])),
    ("RING_NOT_NOTIFIED", Raw::pci, |d| {
        d.running(V1).step();
        d.desc(0, 2, 0).show(&[0]).step();
    }),
    // The first waits in the device: a console has nothing to say.
    ("RING_HEAD_IN_USE", Raw::pci, |d| d.running(V1).desc(0, 2, 0).go(&[0, 0])),
    ("RING_EXPOSED_CHANGED", Raw::pci, |d| {
        d.running(V1).desc(0, 2, 0).go(&[0]);
        d.desc_at(0, 0x77, 1, 2, 0).notify().step();
    }),
];

#[test]
fn each_broken_rule_is_named_first() {
    for (id, make, breaks) in [STATUS, FEATURES, PCI, MMIO, RINGS].concat() {
        let raw = make();
        assert_eq!(raw.soft.report().broken, None, "{id}: broken before it began");
        breaks(&raw);
        let broken = raw.soft.report().broken;
        assert_eq!(broken.map(|broken| broken.id), Some(id));
    }
}

#[test]
fn each_rule_has_a_sequence_that_breaks_it() {
    let broken: BTreeSet<_> =
        [STATUS, FEATURES, PCI, MMIO, RINGS].concat().iter().map(|case| case.0).collect();
    let known: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(broken, known);
    assert!(known.len() >= 60, "{}", known.len());
    assert_eq!(known.len(), RULES.len(), "names are distinct");
}

#[test]
fn a_driver_that_keeps_the_rules_breaks_none() {
    for interface in [Interface::PciModern, Interface::Mmio] {
        let raw = Raw::new(interface);
        raw.running(V1);
        assert_eq!(raw.soft.report().broken, None, "{interface:?}");
    }
}
