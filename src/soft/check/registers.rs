//! Rules about registers.

use super::super::core::{Core, Face};
use super::super::registers::{NOTIFY_DATA, Reg};
use super::super::script::DeviceLie;
use super::{Checker, Life, Must, QueueCheck};
use crate::features::Features;
use crate::spec::pci::{NO_VECTOR, isr};
use crate::spec::{DeviceType, Status, device, feature};

const MAGIC: u8 = 1;
const VERSION: u8 = 2;
const DEVICE_ID: u8 = 4;

fn status(core: &Core) -> Status {
    Status::from_bits_retain(core.status)
}

impl Checker {
    /// A register was accessed at a wrong width.
    pub(in super::super) fn width(&mut self, face: Face, _offset: u64, _width: u8) {
        self.report(if face.pci() { Must::PCI_WIDTH } else { Must::MMIO_WIDTH });
    }

    pub(in super::super) fn unknown_register(&mut self, _offset: u64) {
        self.report(Must::MMIO_UNKNOWN_REGISTER);
    }

    pub(in super::super) fn direction(&mut self, _offset: u64, write: bool) {
        self.report(if write { Must::MMIO_READ_ONLY } else { Must::MMIO_WRITE_ONLY });
    }

    /// The driver wrote to a PCI capability; `access` tells whether it was the access capability, and then
    /// whether its window is aligned and inside, once it is used.
    pub(in super::super) fn capability_written(&mut self, access: bool) {
        self.require(access, Must::PCI_CAP_WRITTEN);
    }

    pub(in super::super) fn access_used(&mut self, aligned: bool, inside: bool) {
        self.require(aligned, Must::PCI_ACCESS_ALIGN);
        self.require(inside, Must::PCI_ACCESS_RANGE);
    }

    /// MMIO: which registers may be accessed before the device is identified (§4.2.3.1.1).
    fn identify(&mut self, core: &Core, reg: Reg, read: bool) {
        match reg {
            Reg::Magic if read => self.identified |= MAGIC,
            Reg::Version if read => self.identified |= VERSION,
            Reg::DeviceId if read => {
                let first = self.identified & (MAGIC | VERSION) == MAGIC | VERSION;
                self.require(first, Must::MMIO_IDENTITY_ORDER);
                self.identified |= DEVICE_ID;
                let lied = core.script.tells(&super::super::script::DeviceLie::DeviceId(0));
                self.empty_slot = core.model.device_type() == DeviceType(0) || lied;
            }
            _ => {
                let known = self.identified == MAGIC | VERSION | DEVICE_ID;
                self.require(known, Must::MMIO_IDENTITY);
                self.require(!self.empty_slot, Must::MMIO_EMPTY_SLOT);
            }
        }
    }

    /// Before a register is read.
    pub(in super::super) fn read(&mut self, core: &Core, face: Face, reg: Reg) {
        if !face.pci() {
            self.identify(core, reg, true);
        }
        let select = core.queue_select;
        match reg {
            Reg::DeviceFeature => {
                let selected = self.life.device_select || face.pci();
                self.require(selected, Must::MMIO_DEVICE_FEATURES_SEL);
                self.life.features_read = true;
                self.life.shown |= core.offered(face.legacy());
            }
            Reg::Status => {
                let slow = core.resetting.0 > 0;
                self.life.reset_open &= core.status != 0 || slow;
                if self.life.features_ok_written {
                    self.life.features_ok_read = Some(status(core).contains(Status::FEATURES_OK));
                }
            }
            Reg::Isr => self.life.interrupt_read = true,
            Reg::ConfigVector => self.life.config_vector_open = false,
            Reg::QueueVector => self.of_queue(core, select, |queue| queue.vector_open = false),
            Reg::QueueEnable => self.of_queue(core, select, |queue| queue.stop_open = false),
            Reg::QueueReset => {
                let busy = core.queues.get(usize::from(select)).is_some_and(|queue| queue.resetting > 0);
                self.of_queue(core, select, |queue| queue.reset_open &= busy);
            }
            _ => {}
        }
    }

    fn of_queue(&mut self, core: &Core, index: u16, change: impl FnOnce(&mut QueueCheck)) {
        if usize::from(index) < core.queues.len()
            && let Some(queue) = self.queue(index)
        {
            change(queue);
        }
    }

    /// Before a register is written.
    pub(in super::super) fn write(&mut self, core: &Core, face: Face, reg: Reg, value: u32) {
        if !face.pci() {
            self.identify(core, reg, false);
        }
        if self.life.reset_open && face == Face::PciModern && !(reg == Reg::Status && value == 0) {
            self.report(Must::PCI_RESET_NOT_READ);
            self.life.reset_open = false;
        }
        match reg {
            Reg::Status => self.write_status(core, face, Status::from_bits_retain(value as u8)),
            Reg::DeviceFeatureSelect => self.life.device_select = true,
            Reg::DriverFeatureSelect => self.life.driver_select = true,
            Reg::DriverFeature => self.write_features(core, face),
            Reg::DeviceFeature | Reg::NumQueues | Reg::Generation | Reg::NotifyOff | Reg::NotifyData => {
                self.report(Must::PCI_READ_ONLY);
            }
            Reg::ConfigVector | Reg::QueueVector => self.write_vector(core, reg, value as u16),
            Reg::IsrAck => {
                self.require(value & !u32::from(isr::DEFINED) == 0, Must::MMIO_ACK_UNDEFINED);
                self.require(self.life.interrupt_read, Must::MMIO_ACK_UNREAD);
            }
            Reg::PageSize => self.life.page_size = true,
            Reg::QueueAlign => self.require(value.is_power_of_two(), Must::MMIO_LEGACY_ALIGN),
            Reg::QueueSize | Reg::Area(..) | Reg::QueueEnable | Reg::PageNumber | Reg::QueueReset => {
                self.write_queue(core, face, reg, value);
            }
            _ => {}
        }
    }

    fn write_status(&mut self, core: &Core, face: Face, value: Status) {
        if value.is_empty() {
            self.life = Life { begun: true, reset_open: true, ..Life::default() };
            self.queues.clear();
            return;
        }
        let old = status(core);
        let set = value.difference(old);
        self.require(self.life.begun, Must::INIT_NO_RESET);
        let kept = old.difference(Status::DEVICE_NEEDS_RESET.union(Status::SUSPEND));
        self.require(value.contains(kept), Must::STATUS_BIT_CLEARED);
        self.require(!value.contains(Status::from_bits_retain(0x20)), Must::STATUS_UNKNOWN_BIT);
        self.require(!set.contains(Status::DEVICE_NEEDS_RESET), Must::STATUS_NEEDS_RESET_SET);
        let went_on = old.contains(Status::FAILED) && !set.is_empty();
        self.require(!went_on, Must::STATUS_AFTER_FAILED);
        if set.contains(Status::DRIVER) {
            self.require(value.contains(Status::ACKNOWLEDGE), Must::INIT_DRIVER_FIRST);
        }
        if set.contains(Status::FEATURES_OK) && !face.legacy() {
            self.require(value.contains(Status::DRIVER), Must::INIT_FEATURES_OK_FIRST);
            self.life.features_ok_written = true;
            self.life.features_ok_read = None;
            self.check_features(core, face);
        }
        if set.contains(Status::DRIVER_OK) {
            self.require(value.contains(Status::DRIVER), Must::INIT_DRIVER_OK_WITHOUT_DRIVER);
            self.require(!self.life.config_vector_open, Must::PCI_VECTOR_NOT_READ);
            if face.legacy() {
                self.check_features(core, face);
            } else {
                self.after_features_ok(value.contains(Status::FEATURES_OK), Must::INIT_DRIVER_OK_EARLY);
            }
        }
    }

    /// What has to come after step 6 of §3.1.1.
    fn after_features_ok(&mut self, set: bool, early: Must) {
        if !set && self.life.features_ok_read != Some(false) {
            self.report(early);
            return;
        }
        match self.life.features_ok_read {
            None => self.report(Must::INIT_FEATURES_OK_NOT_READ),
            Some(false) => self.report(Must::INIT_FEATURES_REFUSED),
            Some(true) => {}
        }
    }

    fn write_features(&mut self, core: &Core, face: Face) {
        let status = status(core);
        self.require(self.life.driver_select || face.pci(), Must::MMIO_DRIVER_FEATURES_SEL);
        self.require(status.contains(Status::DRIVER), Must::INIT_FEATURES_EARLY);
        if status.contains(Status::DRIVER_OK) {
            self.report(Must::INIT_FEATURES_AFTER_DRIVER_OK);
        } else {
            self.require(!status.contains(Status::FEATURES_OK) || face.legacy(), Must::INIT_FEATURES_LATE);
        }
    }

    /// The set of features that was accepted, when it is final.
    fn check_features(&mut self, core: &Core, face: Face) {
        let accepted = core.accepted();
        self.require(self.life.features_read || accepted.is_empty(), Must::FEATURES_NOT_READ);
        // What it was shown counts too, where the device changed its mind.
        let offered = core.offered(face.legacy()) | self.life.shown;
        self.require(offered.contains(accepted), Must::FEATURE_NOT_OFFERED);
        let device_type = core.model.device_type();
        for bit in (0..feature::COUNT).filter(|bit| accepted.has(*bit)) {
            let Some(known) = feature::lookup(device_type, bit) else {
                self.report(Must::FEATURE_RESERVED);
                continue;
            };
            let all = known.requires.iter().all(|other| accepted.has(*other));
            let any =
                known.requires_any.is_empty() || known.requires_any.iter().any(|one| accepted.has(*one));
            self.require((all && any) || face.legacy(), Must::FEATURE_DEPENDENCY);
            self.require(bit != feature::UNUSED, Must::FEATURE_RESERVED);
        }
        // No software device has the SR-IOV capability.
        self.require(!accepted.contains(Features::SR_IOV), Must::FEATURE_SR_IOV);
        let pci_only = Features::ADMIN_VQ | Features::NOTIF_CONFIG_DATA;
        self.require(face.pci() || !accepted.intersects(pci_only), Must::FEATURE_TRANSPORT);
        let offers_1 = offered.contains(Features::VERSION_1) && !face.legacy();
        self.require(!offers_1 || accepted.contains(Features::VERSION_1), Must::FEATURE_VERSION_1);
    }

    fn write_vector(&mut self, core: &Core, reg: Reg, value: u16) {
        let known = value == NO_VECTOR || value < core.irq.vectors();
        self.require(known, Must::PCI_VECTOR_RANGE);
        let open = value != NO_VECTOR;
        if reg == Reg::ConfigVector {
            self.life.config_vector_open = open;
        } else {
            self.of_queue(core, core.queue_select, |queue| queue.vector_open = open);
        }
    }

    fn write_queue(&mut self, core: &Core, face: Face, reg: Reg, value: u32) {
        let select = core.queue_select;
        let Some(queue) = core.queues.get(usize::from(select)) else { return };
        let modern = !face.legacy();
        let stops = match reg {
            Reg::QueueEnable => value == 0 && !face.pci(),
            Reg::PageNumber => value == 0,
            Reg::QueueReset => true,
            _ => false,
        };
        if modern && !stops {
            let set = status(core).contains(Status::FEATURES_OK);
            self.after_features_ok(set, Must::INIT_QUEUE_EARLY);
        }
        let changed = if face.pci() { Must::PCI_QUEUE_CHANGED } else { Must::MMIO_QUEUE_CHANGED };
        let field = matches!(reg, Reg::QueueSize | Reg::Area(..));
        self.require(!(field && queue.enabled), changed);
        match reg {
            Reg::QueueSize => self.write_size(core, face, queue.max, value),
            Reg::Area(area, _) => {
                self.of_queue(core, select, |queue| queue.areas |= 1u8.checked_shl(area.into()).unwrap_or(0));
            }
            Reg::QueueReset => {
                let negotiated = core.accepted().contains(Features::RING_RESET);
                self.require(negotiated, Must::QUEUE_RESET_FEATURE);
                self.of_queue(core, select, |queue| queue.reset_open = true);
            }
            Reg::QueueEnable if stops => {
                self.of_queue(core, select, |queue| {
                    *queue = QueueCheck { stop_open: true, ..Default::default() }
                });
            }
            Reg::QueueEnable => self.enable(core, face, value),
            Reg::PageNumber if !stops => {
                let told = face == Face::PciLegacy || self.life.page_size;
                self.require(told, Must::MMIO_LEGACY_PAGE_SIZE);
                self.enable_legacy(core);
            }
            _ => {}
        }
    }

    fn write_size(&mut self, core: &Core, face: Face, max: u16, value: u32) {
        if face.pci() {
            if core.accepted().contains(Features::RING_PACKED) {
                self.require(value != 0, Must::PCI_SIZE_ZERO);
            } else {
                self.require(value.is_power_of_two(), Must::PCI_SIZE_NOT_POWER_OF_2);
            }
        } else {
            self.require(value <= max.into(), Must::MMIO_SIZE_TOO_LARGE);
        }
    }

    fn enable_legacy(&mut self, core: &Core) {
        let open = self.queue(core.queue_select).is_some_and(|queue| queue.vector_open);
        self.require(!open, Must::PCI_VECTOR_NOT_READ);
    }

    fn enable(&mut self, core: &Core, face: Face, value: u32) {
        self.require(!(value == 0 && face.pci()), Must::PCI_ENABLE_ZERO);
        if value == 0 {
            return;
        }
        let Some(queue) = self.queue(core.queue_select) else { return };
        let (areas, vector, reset, stop) =
            (queue.areas, queue.vector_open, queue.reset_open, queue.stop_open);
        if face.pci() {
            self.require(areas == 0b111, Must::PCI_ENABLE_UNCONFIGURED);
        }
        self.require(!vector, Must::PCI_VECTOR_NOT_READ);
        self.require(!reset, Must::QUEUE_RESET_NOT_READ);
        self.require(!stop, Must::MMIO_STOP_NOT_READ);
        let late = status(core).contains(Status::DRIVER_OK);
        let may = core.accepted().contains(Features::RING_RESET);
        self.require(!late || may, Must::INIT_QUEUE_LATE);
    }

    /// Before the device configuration is accessed.
    pub(in super::super) fn config(&mut self, core: &Core, face: Face, offset: u64, width: u8, write: bool) {
        if !face.pci() {
            self.identify(core, Reg::Generation, false);
        }
        if write && !face.legacy() {
            let set = status(core).contains(Status::FEATURES_OK);
            self.require(set, Must::INIT_CONFIG_WRITTEN);
        }
        let Some(spec) = device::spec(core.model.device_type()) else { return };
        let inside = |field: &&crate::spec::layout::ConfigField| {
            u64::from(field.offset) <= offset && offset < u64::from(field.end())
        };
        let Some(field) = spec.config.iter().find(inside) else { return };
        let unit = field.width.min(4);
        let aligned = offset.saturating_sub(field.offset.into()).is_multiple_of(unit.into());
        let must = if face.pci() { Must::PCI_CONFIG_WIDTH } else { Must::MMIO_CONFIG_WIDTH };
        self.require(width == unit && aligned, must);
        let offered = core.offered(face.legacy());
        let valid = field.valid_if.is_empty() || field.valid_if.iter().any(|bit| offered.has(*bit));
        self.require(valid, Must::CONFIG_FEATURE);
    }

    /// Before a notification.
    pub(in super::super) fn notified(
        &mut self,
        core: &Core,
        face: Face,
        width: u8,
        value: u32,
        at: Option<u64>,
    ) {
        self.require(status(core).contains(Status::DRIVER_OK), Must::INIT_NOTIFIED_EARLY);
        let accepted = core.accepted();
        if face.pci() {
            let wide = accepted.contains(Features::NOTIFICATION_DATA);
            let (right, must) = if wide { (4, Must::PCI_NOTIFY_32) } else { (2, Must::PCI_NOTIFY_16) };
            self.require(width == right, must);
        }
        let (mut queue, mut must) = (value as u16, Must::PCI_NOTIFY_VALUE);
        if accepted.contains(Features::NOTIF_CONFIG_DATA) {
            queue ^= NOTIFY_DATA;
            must = Must::PCI_NOTIFY_CONFIG_DATA;
        }
        if !face.pci() {
            must = Must::MMIO_NOTIFY_VALUE;
        }
        let known = usize::from(queue) < core.queues.len();
        self.require(known, must);
        let misled = |lie: &DeviceLie| {
            matches!(lie, DeviceLie::NotifyMultiplier(_) | DeviceLie::NotifyOff(_)).then_some(())
        };
        if known
            && let Some(at) = at
            && core.script.find(misled).is_none()
        {
            self.require(at == u64::from(queue), Must::PCI_NOTIFY_ADDRESS);
        }
    }
}
