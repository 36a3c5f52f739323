//! Finding virtio's structures by the PCI capability list (VIRTIO 1.4 §4.1.4).
//!
//! Everything here comes from the device: the walk is bounded, sums are made in 64 bits, and a structure is
//! accepted only where it lies wholly inside its BAR, clear of the MSI-X table and of the structures that were
//! accepted before it (faults C17, C18).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::SharedMemory;
use super::window::Window;
use crate::bus::{Bar, BarKind, PciFunction, RegisterSpace};
use crate::spec::pci::{cap, common, config, msix};
use crate::{Error, Result};

/// Most capabilities that fit behind the header: a longer walk is a cycle.
const MAX_CAPS: usize = ((config::LEN - config::HEADER_END) / 4) as usize;

/// Structures that a modern interface consists of.
#[derive(Debug)]
pub(super) struct Structures {
    pub(super) common: Window,
    pub(super) notify: Window,
    /// What queue_notify_off counts in.
    pub(super) notify_off_multiplier: u32,
    pub(super) isr: Window,
    /// Device-specific configuration, where the type has one.
    pub(super) device: Option<Window>,
    shared: Vec<VendorCap>,
    taken: Vec<Range>,
}

/// A vendor-specific capability as read, with nothing checked.
#[derive(Debug, Clone, Copy)]
struct VendorCap {
    at: u16,
    len: u8,
    cfg_type: u8,
    bar: u8,
    id: u8,
    offset: u64,
    length: u64,
    multiplier: u32,
}

/// Bytes of a BAR that have a purpose.
#[derive(Debug, Clone, Copy)]
struct Range {
    bar: u8,
    start: u64,
    end: u64,
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        self.bar == other.bar && self.start < other.end && other.start < self.end
    }
}

impl VendorCap {
    fn bad(&self, why: &'static str) -> Error {
        Error::BadCapability { at: self.at, why }
    }

    /// What a structure of this type has to keep: length of the capability, alignment, least length.
    fn rules(&self) -> (u8, u64, u64) {
        match self.cfg_type {
            cap::COMMON_CFG => (cap::LEN, 4, common::LEN),
            cap::NOTIFY_CFG => (cap::NOTIFY_LEN, 2, 2),
            cap::DEVICE_CFG => (cap::LEN, 4, 1),
            cap::SHARED_MEMORY_CFG => (cap::LEN64, 1, 1),
            _ => (cap::LEN, 1, 1),
        }
    }

    /// The bytes that it names, after all checks that need no BAR.
    fn range(&self, taken: &[Range]) -> Result<Range> {
        let (cap_len, align, least) = self.rules();
        if self.len < cap_len {
            return Err(self.bad("it is too short for its type"));
        }
        if self.bar >= config::BARS {
            return Err(self.bad("its BAR number is reserved"));
        }
        if self.cfg_type == cap::NOTIFY_CFG && self.multiplier % 2 == 1 {
            return Err(self.bad("its notify_off_multiplier is odd"));
        }
        if !self.offset.is_multiple_of(align) {
            return Err(self.bad("its structure is not aligned"));
        }
        if self.length < least {
            return Err(self.bad("its structure is too short"));
        }
        let end = self.offset.checked_add(self.length);
        let end = end.ok_or_else(|| self.bad("its structure ends beyond 2^64"))?;
        let range = Range { bar: self.bar, start: self.offset, end };
        if taken.iter().any(|other| other.overlaps(&range)) {
            return Err(self.bad("its structure overlaps another or the MSI-X table"));
        }
        Ok(range)
    }

    /// The BAR, if the structure lies in it.
    fn place(&self, function: &dyn PciFunction, range: Range) -> Result<Bar> {
        let bar = function.bar(self.bar)?.ok_or_else(|| self.bad("its BAR is not implemented"))?;
        if range.end > bar.registers.size() {
            return Err(self.bad("its structure ends beyond its BAR"));
        }
        if self.cfg_type == cap::SHARED_MEMORY_CFG && bar.kind != BarKind::Memory {
            return Err(self.bad("its shared memory lies in I/O space"));
        }
        Ok(bar)
    }
}

/// The first usable structure of one type, and why the first unusable one was not it.
#[derive(Default)]
struct Slot {
    window: Option<Window>,
    multiplier: u32,
    refused: Option<Error>,
}

impl Slot {
    /// Takes `candidate` unless there is one already: the device orders them by preference (C19).
    fn offer(&mut self, function: &dyn PciFunction, candidate: &VendorCap, taken: &mut Vec<Range>) {
        if self.window.is_some() {
            return;
        }
        let found = candidate.range(taken).and_then(|range| {
            let bar = candidate.place(function, range)?;
            let window = Window::new(bar.registers, candidate.offset, candidate.length);
            Ok((range, window.ok_or_else(|| candidate.bad("its structure ends beyond its BAR"))?))
        });
        match found {
            Ok((range, window)) => {
                taken.push(range);
                self.window = Some(window);
                self.multiplier = candidate.multiplier;
            }
            Err(error) => {
                self.refused.get_or_insert(error);
            }
        }
    }

    fn required(self, why: &'static str) -> Result<Window> {
        let missing = Error::BadCapability { at: config::CAPABILITIES as u16, why };
        self.window.ok_or(self.refused.unwrap_or(missing))
    }
}

impl Structures {
    /// Finds them. `None` where no capability names a structure of virtio's: a legacy device (§4.1.5.1.1).
    pub(super) fn find(function: &dyn PciFunction) -> Result<Option<Self>> {
        let space = function.config();
        let mut taken = Vec::new();
        let mut vendor = Vec::new();
        for at in walk(space)? {
            match space.read8(field(at, cap::ID))? {
                cap::ID_VENDOR => vendor.push(read_vendor_cap(space, at)?),
                msix::ID => taken.extend(msix_ranges(space, at)?),
                _ => {}
            }
        }
        let (mut common, mut notify, mut isr, mut device) =
            (Slot::default(), Slot::default(), Slot::default(), Slot::default());
        let mut shared = Vec::new();
        let mut any = false;
        for candidate in vendor {
            let slot = match candidate.cfg_type {
                cap::COMMON_CFG => &mut common,
                cap::NOTIFY_CFG => &mut notify,
                cap::ISR_CFG => &mut isr,
                // Devices without a configuration may announce one of no length.
                cap::DEVICE_CFG if candidate.length == 0 && candidate.len >= cap::LEN => continue,
                cap::DEVICE_CFG => &mut device,
                cap::SHARED_MEMORY_CFG => {
                    shared.push(candidate);
                    continue;
                }
                // PCI_CFG and vendor data are not used; reserved types have to be ignored (§4.1.4.1).
                _ => continue,
            };
            any = true;
            slot.offer(function, &candidate, &mut taken);
        }
        if !any {
            return Ok(None);
        }
        let notify_off_multiplier = notify.multiplier;
        Ok(Some(Self {
            common: common.required("no common configuration structure")?,
            notify: notify.required("no notification structure")?,
            notify_off_multiplier,
            isr: isr.required("no ISR status structure")?,
            device: match device {
                Slot { window: None, refused: Some(error), .. } => return Err(error),
                slot => slot.window,
            },
            shared,
            taken,
        }))
    }

    /// Shared memory region `id`; what is wrong with one does harm to nothing else (C25).
    pub(super) fn shared_memory(&self, function: &dyn PciFunction, id: u8) -> Result<Option<SharedMemory>> {
        let mut refused = None;
        for region in self.shared.iter().filter(|region| region.id == id) {
            let placed = region.range(&self.taken).and_then(|range| region.place(function, range));
            match placed {
                Ok(bar) => {
                    let Bar { registers, .. } = bar;
                    let (offset, len) = (region.offset, region.length);
                    return Ok(Some(SharedMemory { registers: Arc::clone(&registers), offset, len }));
                }
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

/// Offsets of all capabilities, in order of the list (fault C17).
fn walk(space: &dyn RegisterSpace) -> Result<Vec<u16>> {
    let mut found = Vec::new();
    if space.read16(config::STATUS)? & config::STATUS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut from = config::CAPABILITIES;
    loop {
        let next = space.read8(from)?;
        let bad = |why| Error::BadCapability { at: from as u16, why };
        if next == 0 {
            return Ok(found);
        }
        if u64::from(next) < config::HEADER_END {
            return Err(bad("the list points into the header"));
        }
        if next % 4 != 0 {
            return Err(bad("the list points at an offset that is no multiple of 4"));
        }
        if found.len() >= MAX_CAPS || found.contains(&u16::from(next)) {
            return Err(bad("the list runs in a circle"));
        }
        found.push(next.into());
        from = field(next.into(), cap::NEXT);
    }
}

/// Offset of a field of the capability at `at`.
fn field(at: u16, offset: u64) -> u64 {
    u64::from(at).saturating_add(offset)
}

/// Reads the vendor-specific capability at `at`, as much of it as there is.
fn read_vendor_cap(space: &dyn RegisterSpace, at: u16) -> Result<VendorCap> {
    let len = space.read8(field(at, cap::CAP_LEN))?;
    // What runs past the end of the configuration space counts as too short for any type.
    let len = if field(at, len.into()) > config::LEN { 0 } else { len };
    let cfg_type = space.read8(field(at, cap::CFG_TYPE))?;
    let mut found = VendorCap { at, len, cfg_type, bar: u8::MAX, id: 0, offset: 0, length: 0, multiplier: 0 };
    if len >= cap::LEN {
        found.bar = space.read8(field(at, cap::BAR))?;
        found.id = space.read8(field(at, cap::ID_OF_TYPE))?;
        found.offset = space.read32(field(at, cap::OFFSET))?.into();
        found.length = space.read32(field(at, cap::LENGTH))?.into();
    }
    if cfg_type == cap::NOTIFY_CFG && len >= cap::NOTIFY_LEN {
        found.multiplier = space.read32(field(at, cap::NOTIFY_OFF_MULTIPLIER))?;
    }
    if cfg_type == cap::SHARED_MEMORY_CFG && len >= cap::LEN64 {
        found.offset |= u64::from(space.read32(field(at, cap::OFFSET_HI))?) << 32;
        found.length |= u64::from(space.read32(field(at, cap::LENGTH_HI))?) << 32;
    }
    Ok(found)
}

/// Where the MSI-X table and the pending bits lie.
fn msix_ranges(space: &dyn RegisterSpace, at: u16) -> Result<[Range; 2]> {
    if field(at, msix::LEN) > config::LEN {
        return Err(Error::BadCapability { at, why: "it runs past the configuration space" });
    }
    let vectors = u64::from(space.read16(field(at, msix::CONTROL))? & msix::CONTROL_SIZE).saturating_add(1);
    let range = |register: u32, len: u64| {
        let start = u64::from(register & !msix::BIR);
        Range { bar: (register & msix::BIR) as u8, start, end: start.saturating_add(len) }
    };
    Ok([
        range(space.read32(field(at, msix::TABLE))?, vectors.saturating_mul(msix::ENTRY)),
        range(space.read32(field(at, msix::PBA))?, vectors.div_ceil(64).saturating_mul(8)),
    ])
}
