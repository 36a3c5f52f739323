//! The fake on its bus: a PCI function, or an MMIO slot.

use super::*;
use crate::mem::dma::SoftDma;

impl PciFunction for FakeFunction {
    fn address(&self) -> &str {
        "fake:pci"
    }

    fn config(&self) -> &dyn RegisterSpace {
        &self.config
    }

    fn bar(&self, index: u8) -> Result<Option<Bar>> {
        Ok(self.bars[usize::from(index)].clone())
    }

    fn msix_vectors(&self) -> u16 {
        3
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>> {
        self.device.get().msix = count;
        (0..count).map(|_| EventFd::new()).collect()
    }

    fn enable_intx(&self) -> Result<EventFd> {
        EventFd::new()
    }

    fn unmask_intx(&self) -> Result<()> {
        self.device.get().unmasked += 1;
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::new(SoftDma::new())
    }
}

#[derive(Debug)]
pub(super) struct FakeSlot {
    pub(super) device: Fake,
    pub(super) place: Place,
}

impl MmioSlot for FakeSlot {
    fn address(&self) -> &str {
        "fake:mmio"
    }

    fn registers(&self) -> Arc<dyn RegisterSpace> {
        self.device.space(self.place)
    }

    fn enable_interrupt(&self) -> Result<EventFd> {
        EventFd::new()
    }

    fn unmask_interrupt(&self) -> Result<()> {
        self.device.get().unmasked += 1;
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaMapper> {
        Arc::new(SoftDma::new())
    }

    fn shared_memory(&self, address: u64, _length: u64) -> Result<Option<Arc<dyn RegisterSpace>>> {
        Ok((address < 1 << 40).then(|| self.device.space(Place::Modern)))
    }
}
