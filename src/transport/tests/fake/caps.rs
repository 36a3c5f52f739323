//! PCI configuration spaces, made of capabilities.

use alloc::vec;
use alloc::vec::Vec;

use super::{COMMON, CONFIG_LEN, DEVICE, ISR, NOTIFY};
use crate::spec::pci;

/// A vendor capability without its link.
pub(in crate::transport::tests) fn vendor_cap(
    cfg_type: u8,
    bar: u8,
    offset: u32,
    length: u32,
    extra: &[u32],
) -> Vec<u8> {
    let mut bytes = vec![pci::cap::ID_VENDOR, 0, 16 + 4 * extra.len() as u8, cfg_type, bar, 0, 0, 0];
    for word in [offset, length].iter().chain(extra) {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

/// The MSI-X capability of 3 vectors, its table and pending bits in BAR 1.
pub(in crate::transport::tests) fn msix_cap(bar: u32, table: u32) -> Vec<u8> {
    let mut bytes = vec![pci::msix::ID, 0, 2, 0];
    bytes.extend((table | bar).to_le_bytes());
    bytes.extend(((table + 0x800) | bar).to_le_bytes());
    bytes
}

pub(in crate::transport::tests) fn standard_caps() -> Vec<Vec<u8>> {
    use pci::cap::*;
    let len = (pci::common::FULL_LEN as u32, CONFIG_LEN as u32);
    vec![
        msix_cap(1, 0),
        vendor_cap(COMMON_CFG, 4, COMMON as u32, len.0, &[]),
        vendor_cap(ISR_CFG, 4, ISR as u32, 1, &[]),
        vendor_cap(DEVICE_CFG, 4, DEVICE as u32, len.1, &[]),
        vendor_cap(NOTIFY_CFG, 4, NOTIFY as u32, 0x100, &[4]),
        vendor_cap(PCI_CFG, 0, 0, 0, &[0]),
    ]
}

/// A configuration space with these capabilities, linked in order from 0x40 on.
pub(in crate::transport::tests) fn pci_config(device_id: u16, caps: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; pci::config::LEN as usize];
    bytes[0..2].copy_from_slice(&0x1AF4u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&device_id.to_le_bytes());
    bytes[6] = pci::config::STATUS_CAPABILITIES as u8;
    bytes[0x2E] = 2;
    let mut link = pci::config::CAPABILITIES as usize;
    let mut at = pci::config::HEADER_END as usize;
    for cap in caps {
        bytes[link] = at as u8;
        bytes[at..at + cap.len()].copy_from_slice(cap);
        bytes[at + 1] = 0;
        link = at + 1;
        at += cap.len().next_multiple_of(4);
    }
    bytes
}
