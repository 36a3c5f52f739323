//! The state of a software device, without the registers of any one interface.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::check::Checker;
use super::interrupts::Irq;
use super::lies::LyingRing;
use super::model::{DeviceModel, SharedRegion};
use super::pci_config::PciState;
use super::ring::DeviceChain;
use super::script::{DeviceLie, Script};
use crate::Result;
use crate::features::Features;
use crate::mem::dma::DmaView;
use crate::spec::pci::{NO_VECTOR, isr};
use crate::spec::{ByteOrder, Status};

/// Which set of registers an access came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    PciModern,
    PciLegacy,
    Mmio,
    MmioLegacy,
}

impl Face {
    pub(super) fn legacy(self) -> bool {
        matches!(self, Self::PciLegacy | Self::MmioLegacy)
    }

    pub(super) fn pci(self) -> bool {
        matches!(self, Self::PciModern | Self::PciLegacy)
    }
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) max: u16,
    pub(super) size: u16,
    pub(super) size_written: bool,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Reads of the reset register that still say that the reset goes on.
    pub(super) resetting: u32,
    /// Descriptor, driver and device area.
    pub(super) areas: [u64; 3],
    /// Legacy: page number, 0 while the queue is not used.
    pub(super) page: u32,
    /// Legacy MMIO.
    pub(super) align: u32,
    pub(super) ring: Option<LyingRing>,
    /// Where its areas are, while there is a ring.
    pub(super) ranges: super::engine::Ranges,
    /// A chain that could not be served yet.
    pub(super) parked: Option<DeviceChain>,
    /// A chain that is used up, for its memory.
    pub(super) spare: DeviceChain,
    /// Whether the ring was set up without what makes serving it longer.
    pub(super) plain: bool,
    /// Chains used since the queue was enabled.
    pub(super) used: u64,
    /// Where the ring goes on, in a place where a driver can say so.
    pub(super) base: Option<u16>,
}

impl Queue {
    fn new(max: u16) -> Self {
        Self { max, size: max, vector: NO_VECTOR, ..Self::default() }
    }

    /// As it was before anything was written; the vector stays, as §2.6.1.1 lets it.
    pub(super) fn reset(&mut self) {
        *self = Self { vector: self.vector, ..Self::new(self.max) };
    }

    pub(super) fn in_use(&self) -> bool {
        self.enabled || self.page != 0
    }
}

/// What the driver does not choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Make {
    /// Whether there is a modern interface, a legacy one.
    pub(super) modern: bool,
    pub(super) legacy: bool,
    /// Features offered beyond the type's, and those withheld.
    pub(super) offer: Features,
    pub(super) withhold: Features,
    /// Byte order of the machine, for the legacy interface.
    pub(super) order: ByteOrder,
}

/// All of a device but its threads.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) model: Box<dyn DeviceModel>,
    pub(super) make: Make,
    pub(super) view: RefCell<DmaView>,
    pub(super) status: u8,
    /// Reads of the status that still show what it was before a reset.
    pub(super) resetting: (u32, u8),
    pub(super) accepted: [u32; 4],
    pub(super) device_select: u32,
    pub(super) driver_select: u32,
    pub(super) queue_select: u16,
    pub(super) queues: Vec<Queue>,
    pub(super) config_vector: u16,
    pub(super) generation: u32,
    pub(super) isr: u8,
    pub(super) page_size: u32,
    pub(super) shm_select: u32,
    pub(super) shared: Vec<SharedRegion>,
    pub(super) irq: Irq,
    pub(super) script: Script,
    pub(super) pci: PciState,
    pub(super) checker: Option<Box<Checker>>,
    /// Chains used since the last reset.
    pub(super) used: u64,
    /// Chains used in all.
    pub(super) total: u64,
    /// Interrupts sent for queues in all.
    pub(super) interrupts: u64,
    /// Reads of registers, for what changes with each.
    pub(super) register_reads: u32,
    /// Whether the model takes all chains, and nobody checks the driver or lied to it.
    pub(super) plain: bool,
    /// Notifications that were served on the shortest way.
    pub(super) plain_rings: u64,
}

impl Core {
    pub(super) fn new(model: Box<dyn DeviceModel>, make: Make, view: DmaView, vectors: u16) -> Self {
        let queues = (0..model.queues()).map(|index| Queue::new(model.queue_size(index))).collect();
        let shared = model.shared_memory();
        let plain = model.takes_all();
        Self {
            model,
            make,
            view: RefCell::new(view),
            status: 0,
            resetting: (0, 0),
            accepted: [0; 4],
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
            queues,
            config_vector: NO_VECTOR,
            generation: 0,
            isr: 0,
            page_size: 0,
            shm_select: 0,
            shared,
            irq: Irq::new(vectors),
            script: Script::default(),
            pci: PciState::default(),
            checker: None,
            used: 0,
            total: 0,
            interrupts: 0,
            register_reads: 0,
            plain,
            plain_rings: 0,
        }
    }

    /// What is offered through an interface.
    pub(super) fn offered(&self, legacy: bool) -> Features {
        let lied = self.script.find(|lie| match lie {
            DeviceLie::Offers(features) => Some(*features),
            _ => None,
        });
        if let Some(features) = lied {
            return features;
        }
        let rings = Features::INDIRECT_DESC | Features::EVENT_IDX;
        let mut all = self.model.features() | rings | self.make.offer;
        if legacy {
            all = (all | Features::ANY_LAYOUT) & Features::LEGACY_MASK;
        } else {
            all |= Features::VERSION_1 | Features::RING_RESET;
        }
        all -= self.make.withhold;
        if self.script.tells(&DeviceLie::NoVersion1) {
            all.remove(Features::VERSION_1);
        }
        all
    }

    pub(super) fn accepted(&self) -> Features {
        Features::from_words(self.accepted)
    }

    /// Whether the driver is a legacy one: it did not accept VERSION_1 (§6.2).
    pub(super) fn legacy_driver(&self) -> bool {
        !self.accepted().contains(Features::VERSION_1)
    }

    /// Byte order of rings and buffers.
    pub(super) fn order(&self) -> ByteOrder {
        if self.legacy_driver() { self.make.order } else { ByteOrder::Little }
    }

    pub(super) fn queue(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.queue_select))
    }

    /// Whether chains may be taken: §2.1.2, and nothing stands against it.
    pub(super) fn live(&self) -> bool {
        let running = Status::DRIVER_OK | Status::DEVICE_NEEDS_RESET | Status::FAILED;
        Status::from_bits_retain(self.status) & running == Status::DRIVER_OK
            && !self.script.gone()
            && !self.script.tells(&DeviceLie::Stalls)
    }

    /// The driver wrote the status (§2.1).
    pub(super) fn set_status(&mut self, value: u8) -> Result<()> {
        if value == 0 {
            return self.reset();
        }
        let set = Status::from_bits_retain(value & !self.status);
        let mut value = value | (self.status & Status::DEVICE_NEEDS_RESET.bits());
        if set.contains(Status::FEATURES_OK) && !self.agrees() {
            value &= !Status::FEATURES_OK.bits();
        }
        self.status = value;
        if set.contains(Status::DRIVER_OK) {
            let features = self.accepted();
            self.model.start(features);
            self.after_chains()?;
        }
        Ok(())
    }

    fn agrees(&self) -> bool {
        let modern = self.make.modern && !self.legacy_driver();
        self.offered(!modern).contains(self.accepted())
            && modern
            && !self.script.tells(&DeviceLie::FeaturesOkNotSticky)
    }

    /// §2.4: back to the beginning, all queues forgotten.
    pub(super) fn reset(&mut self) -> Result<()> {
        let slow = self.script.find(|lie| match lie {
            DeviceLie::SlowReset { reads } => Some(*reads),
            _ => None,
        });
        self.resetting = match self.status {
            0 => (0, self.resetting.1),
            status => (slow.unwrap_or(0), status),
        };
        self.status = 0;
        self.accepted = [0; 4];
        (self.device_select, self.driver_select, self.queue_select) = (0, 0, 0);
        (self.config_vector, self.page_size, self.used) = (NO_VECTOR, 0, 0);
        self.isr = 0;
        for queue in &mut self.queues {
            *queue = Queue::new(queue.max);
        }
        self.model.reset();
        self.irq.set_line(false)
    }

    /// The configuration space as it lies in memory.
    pub(super) fn config(&self, legacy: bool) -> Vec<u8> {
        let order = if legacy { self.make.order } else { ByteOrder::Little };
        let mut bytes = self.model.config(order);
        for lie in self.script.iter() {
            match lie {
                DeviceLie::ConfigLen(len) => bytes.resize(usize::from(*len), 0),
                DeviceLie::ConfigBytes { offset, bytes: lied } => overlay(&mut bytes, *offset, lied),
                DeviceLie::ConfigChanges { after, offset, bytes: lied } if *after <= self.used => {
                    overlay(&mut bytes, *offset, lied);
                }
                _ => {}
            }
        }
        bytes
    }

    pub(super) fn write_config(&mut self, offset: u64, bytes: &[u8], legacy: bool) {
        let order = if legacy { self.make.order } else { ByteOrder::Little };
        self.model.write_config(offset, bytes, order);
    }

    /// The configuration is another one: a new generation and a notification (§2.5.1, §2.3).
    pub(super) fn config_changed(&mut self) -> Result<()> {
        self.generation = self.generation.wrapping_add(1);
        self.interrupt(isr::CONFIG, self.config_vector)
    }

    /// The device cannot go on (§2.1.2).
    pub(super) fn fail(&mut self) -> Result<()> {
        self.status |= Status::DEVICE_NEEDS_RESET.bits();
        self.interrupt(isr::CONFIG, self.config_vector)
    }

    /// By a vector where MSI-X is on, else by the line with the cause in the ISR status (§4.1.5.3, §4.2.3.4).
    pub(super) fn interrupt(&mut self, cause: u8, vector: u16) -> Result<()> {
        if cause == isr::QUEUE {
            self.interrupts = self.interrupts.wrapping_add(1);
        }
        if self.irq.msix_enabled() {
            return self.irq.send(vector);
        }
        self.isr |= cause;
        self.irq.set_line(true)
    }

    /// What the script has to say after chains were used, or the device was started.
    pub(super) fn after_chains(&mut self) -> Result<()> {
        let used = self.used;
        let due = |after: u64| after == used;
        let (mut fails, mut changes) = (false, false);
        for lie in self.script.iter() {
            match lie {
                DeviceLie::NeedsReset { after } => fails |= due(*after),
                DeviceLie::ConfigChanges { after, .. } => changes |= due(*after) && used > 0,
                _ => {}
            }
        }
        if changes {
            self.config_changed()?;
        }
        if fails { self.fail() } else { Ok(()) }
    }

    /// Where shared memory region `id` lies in its BAR, or behind [`super::mmio::SHARED_BASE`], and how long
    /// it is.
    pub(super) fn shared_place(&self, id: u8) -> Option<(u64, u64)> {
        let lied = self.script.find(|lie| match lie {
            DeviceLie::SharedMemory { id: lied, offset, len } if *lied == id => Some((*offset, *len)),
            _ => None,
        });
        lied.or_else(|| {
            let mut at = 0u64;
            for region in &self.shared {
                let len = region.bytes.len() as u64;
                if region.id == id {
                    return Some((at, len));
                }
                at = at.saturating_add(len).next_multiple_of(4096);
            }
            None
        })
    }
}

fn overlay(bytes: &mut Vec<u8>, offset: u16, lied: &[u8]) {
    let (start, end) = (usize::from(offset), usize::from(offset).saturating_add(lied.len()));
    if bytes.len() < end {
        bytes.extend(vec![0; end.saturating_sub(bytes.len())]);
    }
    if let Some(place) = bytes.get_mut(start..end) {
        place.copy_from_slice(lied);
    }
}
