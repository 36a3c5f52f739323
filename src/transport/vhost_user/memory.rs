//! The memory table: which regions the back-end knows, and under which addresses.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;

use super::control::Control;
use super::link::Link;
use super::{Core, GONE};
use crate::event::Deadline;
use crate::mem::dma::{DmaAddr, DmaLimits, DmaMapper, MAX_REGIONS};
use crate::mem::region::DmaRegion;
use crate::spec::vhost_user::{MAX_TABLE_REGIONS, MemoryHeader, MemoryRegion, ORDER, Request, protocol};
use crate::{Error, Result};

/// Where the first region goes: an address that was cut to 32 bits leads nowhere.
const BASE: u64 = 1 << 32;
/// What lies between regions, so that an overrun meets no neighbour; also what their addresses are aligned to.
const GAP: u64 = 2 << 20;

#[derive(Debug)]
struct Window {
    addr: u64,
    region: Arc<DmaRegion>,
    /// Whether the back-end of this connection knows it.
    told: bool,
}

impl Window {
    fn describe(&self) -> MemoryRegion {
        MemoryRegion {
            guest_addr: self.addr,
            size: self.region.len() as u64,
            // Addresses of this process are nobody's concern: rings are told in the same numbers as buffers.
            user_addr: self.addr,
            mmap_offset: self.region.fd_offset(),
        }
    }

    /// What a message about this region alone says.
    fn single(&self) -> Vec<u8> {
        let mut payload = Vec::from([0; MemoryRegion::SINGLE_PADDING]);
        payload.extend_from_slice(&self.describe().encode(ORDER));
        payload
    }
}

/// The regions of one device; it outlives its connections.
#[derive(Debug)]
pub(super) struct Table {
    windows: Vec<Window>,
    next: u64,
    /// Regions that the back-end takes.
    slots: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { windows: Vec::new(), next: BASE, slots: MAX_TABLE_REGIONS }
    }

    /// A new connection, whose back-end knows nothing yet and takes so many regions one by one.
    ///
    /// [`Error::Incompatible`] where it takes fewer than there are (fault E2).
    pub(super) fn connected(&mut self, slots: Option<usize>) -> Result<()> {
        let slots = slots.unwrap_or(MAX_TABLE_REGIONS).min(MAX_TABLE_REGIONS);
        if self.windows.len() > slots {
            let (before, now) = (self.windows.len() as u64, slots as u64);
            return Err(Error::Incompatible { what: "memory slots", before, now });
        }
        self.slots = slots;
        self.windows.iter_mut().for_each(|window| window.told = false);
        Ok(())
    }

    pub(super) fn limits(&self) -> DmaLimits {
        DmaLimits { max_regions: self.slots.min(MAX_REGIONS), alignment: GAP, ..DmaLimits::default() }
    }

    /// Enters a region; the back-end is to be told of it.
    pub(super) fn enter(&mut self, region: &Arc<DmaRegion>) -> Result<DmaAddr> {
        if self.windows.iter().any(|window| Arc::ptr_eq(&window.region, region)) {
            return Err(Error::Misuse { what: "the region is mapped for this device already" });
        }
        let have = self.slots.saturating_sub(self.windows.len()) as u64;
        let needed = region.len() as u64;
        if have == 0 {
            let limit = "the number of memory regions that the back-end takes: use fewer, larger ones";
            return Err(Error::MemoryLimit { needed, have, limit });
        }
        file(region)?;
        let addr = self.next;
        let after = addr.checked_add(needed).and_then(|end| end.checked_add(GAP));
        let limit = "the device's address space";
        self.next = after
            .and_then(|after| after.checked_next_multiple_of(GAP))
            .ok_or(Error::MemoryLimit { needed, have: u64::MAX.saturating_sub(addr), limit })?;
        self.windows.push(Window { addr, region: Arc::clone(region), told: false });
        Ok(DmaAddr(addr))
    }

    /// Takes a region out; `false` where it is not there.
    pub(super) fn remove(&mut self, region: &Arc<DmaRegion>) -> bool {
        let before = self.windows.len();
        self.windows.retain(|window| !Arc::ptr_eq(&window.region, region));
        self.windows.len() != before
    }

    /// Tells a back-end that was told of a region, and has a slot for it, that it is to go. One without slots is told
    /// with the next table.
    pub(super) fn forget(
        &mut self,
        region: &Arc<DmaRegion>,
        control: &mut Control,
        deadline: Deadline,
    ) -> Result<()> {
        let known = self.windows.iter().find(|window| window.told && Arc::ptr_eq(&window.region, region));
        let Some(window) = known.filter(|_| control.has(protocol::CONFIGURE_MEM_SLOTS)) else {
            return Ok(());
        };
        control.tell(Request::REM_MEM_REG, &window.single(), &[], deadline)?;
        control.settle(deadline)
    }

    /// Tells the back-end of what it does not know: one by one where it has slots, else the whole table.
    pub(super) fn tell(&mut self, control: &mut Control, deadline: Deadline) -> Result<()> {
        if self.windows.iter().all(|window| window.told) {
            return Ok(());
        }
        if control.has(protocol::CONFIGURE_MEM_SLOTS) {
            for window in self.windows.iter_mut().filter(|window| !window.told) {
                let file = file(&window.region)?;
                control.tell(Request::ADD_MEM_REG, &window.single(), &[file.as_fd()], deadline)?;
                window.told = true;
            }
        } else {
            let regions = u32::try_from(self.windows.len()).unwrap_or(u32::MAX);
            let mut payload = Vec::from(MemoryHeader { regions, padding: 0 }.encode(ORDER));
            for window in &self.windows {
                payload.extend_from_slice(&window.describe().encode(ORDER));
            }
            let files: Vec<_> =
                self.windows.iter().map(|window| file(&window.region)).collect::<Result<_>>()?;
            let fds: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
            control.tell(Request::SET_MEM_TABLE, &payload, &fds, deadline)?;
            self.windows.iter_mut().for_each(|window| window.told = true);
        }
        control.settle(deadline)
    }
}

/// The memory file behind a region. Not kept: a region that goes into quarantine gives its descriptor up.
fn file(region: &DmaRegion) -> Result<Arc<OwnedFd>> {
    region.fd().ok_or(Error::Misuse {
        what: "memory for another process is a memory file: make the region with one",
    })
}

impl DmaMapper for Core {
    fn map(&self, region: &Arc<DmaRegion>) -> Result<DmaAddr> {
        let (mut link, deadline) = self.talk()?;
        let addr = link.table.enter(region)?;
        if link.told {
            let Link { control, table, .. } = &mut *link;
            let told = control.as_mut().ok_or(GONE).and_then(|control| table.tell(control, deadline));
            // Told or not, the back-end was given no address in it: it may go again.
            if let Err(error) = told {
                table.remove(region);
                return Err(error);
            }
        }
        Ok(addr)
    }

    fn unmap(&self, region: &Arc<DmaRegion>) -> Result<()> {
        // The back-end was proven to have stopped; that its mapping goes with the connection is its own concern.
        let removed = self.talk()?.0.table.remove(region);
        if removed { Ok(()) } else { Err(Error::Misuse { what: "the region is not mapped for this device" }) }
    }

    fn withdraw(&self, region: &Arc<DmaRegion>) -> Result<()> {
        let (mut link, deadline) = self.talk()?;
        let Link { control, table, .. } = &mut *link;
        table.forget(region, control.as_mut().ok_or(GONE)?, deadline)?;
        drop(link);
        self.unmap(region)
    }

    fn limits(&self) -> DmaLimits {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).table.limits()
    }
}
