//! How a software device is made and told what to do, wherever its driver meets it.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;
use std::env;

use super::check::Checker;
use super::core::{Core, Make};
use super::lies::Lie;
use super::model::DeviceModel;
use super::script::DeviceLie;
use crate::Result;
use crate::features::Features;
use crate::mem::dma::DmaView;
use crate::spec::ByteOrder;
use crate::spec::pci::isr;

/// What is told of a device before it is made.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) model: Box<dyn DeviceModel>,
    pub(super) lies: Vec<DeviceLie>,
    /// `None` where nothing was said.
    pub(super) checked: Option<bool>,
    pub(super) offer: Features,
    pub(super) withhold: Features,
}

impl Plan {
    pub(super) fn new(model: Box<dyn DeviceModel>) -> Self {
        Self { model, lies: Vec::new(), checked: None, offer: Features::EMPTY, withhold: Features::EMPTY }
    }

    /// The device, which has a modern side, a legacy one or both.
    pub(super) fn core(
        self,
        (modern, legacy): (bool, bool),
        order: ByteOrder,
        view: DmaView,
        vectors: u16,
        address: &str,
    ) -> Result<Core> {
        let make = Make { modern, legacy, offer: self.offer, withhold: self.withhold, order };
        let mut core = Core::new(self.model, make, view, vectors);
        for lie in self.lies {
            core.tell(lie)?;
        }
        core.checker = checker(self.checked, address).map(Box::new);
        core.plain &= core.checker.is_none();
        Ok(core)
    }
}

/// Who checks the driver of a device for which this was asked, if anybody does.
fn checker(asked: Option<bool>, address: &str) -> Option<Checker> {
    match asked {
        Some(true) => Some(Checker::new()),
        None if env::var_os("VIRTIO_SOFT_CHECK").is_some_and(|value| value == "abort") => {
            Some(Checker::strict(address.to_owned()))
        }
        _ => None,
    }
}

impl Core {
    /// Adds a lie to the script, and tells it where it is not one that shows when something is asked.
    pub(super) fn tell(&mut self, lie: DeviceLie) -> Result<()> {
        self.plain = false;
        match &lie {
            DeviceLie::Ring { queue, lie: ring_lie, .. } if self.live() && self.has_ring(*queue)? => {
                let Some(queue) = self.queues.get_mut(usize::from(*queue)) else { return Ok(()) };
                let vector = queue.vector;
                if let Some(ring) = &mut queue.ring {
                    ring.tell(*ring_lie);
                }
                return self.interrupt(isr::QUEUE, vector);
            }
            DeviceLie::AllOnes => {
                for ring in self.queues.iter_mut().filter_map(|queue| queue.ring.as_mut()) {
                    ring.tell(Lie::AllOnes);
                }
            }
            DeviceLie::NeedsReset { after } if self.live() && *after <= self.used => {
                return self.fail();
            }
            _ => {}
        }
        self.script.add(lie);
        Ok(())
    }

    /// Other bytes in the configuration space, with a notification.
    pub(super) fn change_config(&mut self, offset: u16, bytes: &[u8]) -> Result<()> {
        self.plain = false;
        self.script.add(DeviceLie::ConfigBytes { offset, bytes: bytes.into() });
        self.config_changed()
    }
}
