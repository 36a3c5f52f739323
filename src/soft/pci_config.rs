//! The PCI configuration space of a software device (VIRTIO 1.4 §4.1.2, §4.1.4).

use alloc::vec;
use alloc::vec::Vec;

use super::core::Core;
use super::machine::Machine;
use super::script::DeviceLie;
use super::space::read_bytes;
use super::{pci, space};
use crate::Result;
use crate::spec::pci::{LEGACY_REVISION, cap, common, config, msix};
use crate::spec::{PCI_DEVICE_ID_BASE, PCI_VENDOR_ID};

/// Where the first capability lies.
const FIRST: usize = config::HEADER_END as usize;

/// What of the configuration space can be written, but for the MSI-X control.
#[derive(Debug, Default)]
pub(super) struct PciState {
    command: u16,
    /// The PCI configuration access capability from its BAR number on: bar, offset, length, data.
    window: [u8; 16],
}

/// A capability: its bytes, the first of which is the id and the second the link.
type Capability = Vec<u8>;

fn structure(cfg_type: u8, bar: u8, id: u8, offset: u64, length: u64) -> Capability {
    let mut bytes = vec![cap::ID_VENDOR, 0, cap::LEN, cfg_type, bar, id, 0, 0];
    bytes.extend((offset as u32).to_le_bytes());
    bytes.extend((length as u32).to_le_bytes());
    bytes
}

fn set_len(capability: &mut Capability) {
    let len = capability.len() as u8;
    if let Some(field) = capability.get_mut(cap::CAP_LEN as usize) {
        *field = len;
    }
}

/// Virtio's capabilities, in order, with the lies about them.
fn structures(core: &Core) -> Vec<Capability> {
    let bar = pci::MODERN_BAR;
    let of_type = |lied: fn(&DeviceLie) -> Option<u32>| core.script.find(lied);
    let multiplier = of_type(|lie| match lie {
        DeviceLie::NotifyMultiplier(value) => Some(*value),
        _ => None,
    });
    let overlap = core.script.tells(&DeviceLie::CapsOverlap);
    let (isr_bar, isr_at) =
        if core.script.tells(&DeviceLie::CapInMsixTable) { (pci::MSIX_BAR, 0) } else { (bar, pci::ISR) };
    let mut notify = structure(
        cap::NOTIFY_CFG,
        bar,
        0,
        if overlap { pci::COMMON } else { pci::NOTIFY },
        pci::notify_len(core),
    );
    notify.extend(multiplier.unwrap_or(pci::NOTIFY_UNIT as u32).to_le_bytes());
    let mut all = vec![
        structure(cap::COMMON_CFG, bar, 0, pci::COMMON, common::FULL_LEN),
        notify,
        structure(cap::ISR_CFG, isr_bar, 0, isr_at, 1),
    ];
    let config_len = core.config(false).len() as u64;
    if config_len > 0 {
        all.push(structure(cap::DEVICE_CFG, bar, 0, pci::DEVICE, config_len));
    }
    let lied = core.script.iter().filter_map(|lie| match lie {
        DeviceLie::SharedMemory { id, .. } => Some(*id),
        _ => None,
    });
    let ids = core.shared.iter().map(|region| region.id).chain(lied);
    let mut seen = Vec::new();
    for id in ids {
        if let Some((offset, len)) = core.shared_place(id).filter(|_| !seen.contains(&id)) {
            seen.push(id);
            let mut region = structure(cap::SHARED_MEMORY_CFG, pci::SHARED_BAR, id, offset, len);
            region.extend(((offset >> 32) as u32).to_le_bytes());
            region.extend(((len >> 32) as u32).to_le_bytes());
            all.push(region);
        }
    }
    let mut access = structure(cap::PCI_CFG, 0, 0, 0, 0);
    access.truncate(cap::BAR as usize);
    access.extend(core.pci.window);
    all.push(access);
    all.iter_mut().for_each(set_len);
    duplicate(core, &mut all);
    all
}

/// Capabilities of a type twice, one of the two leading nowhere; then fields that lie.
fn duplicate(core: &Core, all: &mut Vec<Capability>) {
    for lie in core.script.iter() {
        let (DeviceLie::CapTwice(cfg_type) | DeviceLie::CapTwiceFirstBad(cfg_type)) = lie else { continue };
        let found = all.iter().position(|capability| type_of(capability) == Some(*cfg_type));
        let Some((at, mut bad)) = found.and_then(|at| Some((at, all.get(at)?.clone()))) else { continue };
        put(&mut bad, cap::OFFSET as usize, &0xffff_f000u32.to_le_bytes());
        if matches!(lie, DeviceLie::CapTwice(_)) { all.push(bad) } else { all.insert(at, bad) }
    }
    for lie in core.script.iter() {
        let DeviceLie::CapField { cfg_type, field, value } = lie else { continue };
        let width = if u64::from(*field) < cap::OFFSET { 1 } else { 4 };
        if let Some(capability) = all.iter_mut().find(|capability| type_of(capability) == Some(*cfg_type)) {
            let bytes = value.to_le_bytes();
            put(capability, usize::from(*field), bytes.get(..width).unwrap_or_default());
        }
    }
}

fn type_of(capability: &Capability) -> Option<u8> {
    capability.get(cap::CFG_TYPE as usize).copied()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

fn msix_capability(core: &Core) -> Capability {
    let bir = u32::from(pci::MSIX_BAR);
    let mut bytes = vec![msix::ID, 0];
    bytes.extend(core.irq.control().to_le_bytes());
    bytes.extend(bir.to_le_bytes());
    bytes.extend((pci::MSIX_PBA as u32 | bir).to_le_bytes());
    bytes
}

/// All 256 bytes, and where the MSI-X and the access capability lie.
fn image(core: &Core) -> ([u8; config::LEN as usize], [Option<usize>; 2]) {
    let mut space = [0; config::LEN as usize];
    let device_type = core.model.device_type();
    let transitional = device_type.transitional_pci_device_id().filter(|_| core.make.legacy);
    let device_id = transitional.unwrap_or(PCI_DEVICE_ID_BASE.wrapping_add(device_type.0 as u16));
    let revision = if core.make.legacy { LEGACY_REVISION } else { 1 };
    put(&mut space, config::VENDOR_ID as usize, &PCI_VENDOR_ID.to_le_bytes());
    put(&mut space, config::DEVICE_ID as usize, &device_id.to_le_bytes());
    put(&mut space, config::COMMAND as usize, &core.pci.command.to_le_bytes());
    put(&mut space, config::REVISION_ID as usize, &[revision]);
    put(&mut space, config::SUBSYSTEM_VENDOR_ID as usize, &PCI_VENDOR_ID.to_le_bytes());
    put(&mut space, config::SUBSYSTEM_ID as usize, &(device_type.0 as u16).to_le_bytes());
    put(&mut space, config::INTERRUPT_PIN as usize, &[1]);
    let mut capabilities = Vec::new();
    if core.irq.vectors() > 0 {
        capabilities.push(msix_capability(core));
    }
    if core.make.modern {
        capabilities.extend(structures(core));
    }
    let places = link(core, &mut space, &capabilities);
    (space, places)
}

/// Puts the capabilities into the space, each leading to the next.
fn link(core: &Core, space: &mut [u8], capabilities: &[Capability]) -> [Option<usize>; 2] {
    let (mut at, mut from) = (FIRST, config::CAPABILITIES as usize);
    let mut places = [None; 2];
    for capability in capabilities {
        if at.saturating_add(capability.len()) > config::LEN as usize {
            break;
        }
        put(space, at, capability);
        put(space, from, &[at as u8]);
        match capability.first() {
            Some(&msix::ID) => places[0] = Some(at),
            _ if type_of(capability) == Some(cap::PCI_CFG) => places[1] = Some(at),
            _ => {}
        }
        from = at.saturating_add(cap::NEXT as usize);
        at = at.saturating_add(capability.len()).next_multiple_of(4);
    }
    if !capabilities.is_empty() {
        put(space, config::STATUS as usize, &config::STATUS_CAPABILITIES.to_le_bytes());
    }
    let first = config::CAPABILITIES as usize;
    for lie in core.script.iter() {
        match lie {
            DeviceLie::CapCycle => put(space, from, &[FIRST as u8]),
            DeviceLie::CapInHeader => put(space, first, &[0x2c]),
            DeviceLie::CapMisaligned => put(space, first, &[FIRST as u8 | 1]),
            DeviceLie::CapAtEnd => {
                put(space, first, &[0xfc]);
                put(space, 0xfc, &[cap::ID_VENDOR, 0, cap::LEN, cap::COMMON_CFG]);
            }
            _ => {}
        }
    }
    places
}

/// The window of the access capability, if the driver set it to bytes that are there.
fn window(core: &Core) -> Option<(u8, u64, u8)> {
    let bytes = &core.pci.window;
    let word = |at| u64::from(read_bytes(bytes, at, 4));
    let (bar, offset, len) = (bytes.first().copied()?, word(4), word(8));
    matches!(len, 1 | 2 | 4).then_some((bar, offset, len as u8))
}

/// Offset of the data in the capability, less that of the window.
const DATA: usize = (cap::PCI_CFG_DATA - cap::BAR) as usize;

/// Tells the checker of a use of the window.
fn check_use(core: &mut Core) {
    let bytes = core.pci.window;
    let word = |at| u64::from(read_bytes(&bytes, at, 4));
    let (offset, len) = (word(4), word(8));
    let aligned = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
    let end = offset.saturating_add(len);
    let inside = bytes.first() == Some(&pci::MODERN_BAR) && end <= pci::modern_size(core);
    if let Some(checker) = &mut core.checker {
        checker.access_used(aligned, inside);
    }
}

pub(super) fn read(machine: &Machine, offset: u64, width: u8) -> Result<u32> {
    let (space, [_, access]) = image(&machine.core());
    let at = offset as usize;
    if access.is_some_and(|access| at == access.saturating_add(cap::PCI_CFG_DATA as usize)) {
        check_use(&mut machine.core());
        let window = window(&machine.core());
        if let Some((bar, offset, len)) = window.filter(|(_, _, len)| *len == width) {
            return pci::read_bar(machine, bar, offset, len);
        }
    }
    Ok(read_bytes(&space, offset, width))
}

pub(super) fn write(machine: &Machine, offset: u64, width: u8, value: u32) -> Result<()> {
    let mut core = machine.core();
    let (_, [msix_at, access]) = image(&core);
    let at = offset as usize;
    let bytes = value.to_le_bytes();
    let bytes = bytes.get(..usize::from(width)).unwrap_or_default();
    if offset == config::COMMAND {
        core.pci.command = value as u16;
        return Ok(());
    }
    if msix_at.is_some_and(|cap| at == cap.saturating_add(msix::CONTROL as usize)) {
        return core.irq.set_control(value as u16);
    }
    let inside = access.and_then(|access| at.checked_sub(access.saturating_add(cap::BAR as usize)));
    let inside = inside.filter(|inside| *inside < core.pci.window.len());
    if let Some(checker) = core.checker.as_mut().filter(|_| offset >= config::HEADER_END) {
        checker.capability_written(inside.is_some());
    }
    let Some(inside) = inside else { return Ok(()) };
    put(&mut core.pci.window, inside, bytes);
    if inside != DATA {
        return Ok(());
    }
    check_use(&mut core);
    match window(&core).filter(|(_, _, len)| *len == width) {
        Some((bar, offset, len)) => {
            drop(core);
            pci::write_bar(machine, bar, offset, len, value)
        }
        None => Ok(()),
    }
}

/// Size of the shared memory's BAR: a power of two that holds all of it.
pub(super) fn shared_bar(core: &Core) -> u64 {
    space::shared_size(core).next_power_of_two()
}
