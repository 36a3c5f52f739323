//! The ways by which a device of a machine is reached.

use std::time::Duration;

use virtio::testing::{Builder, Kind, Qemu};
use virtio::transport::TransportKind;

/// Longest wait for anything that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A register interface, and what QEMU has to be told to give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Modern,
    Legacy,
    TransitionalModern,
    TransitionalLegacy,
    Mmio,
    MmioLegacy,
}

pub(crate) const WAYS: [Way; 6] =
    [Way::Modern, Way::Legacy, Way::TransitionalModern, Way::TransitionalLegacy, Way::Mmio, Way::MmioLegacy];

impl Way {
    pub(crate) fn is_pci(self) -> bool {
        !matches!(self, Self::Mmio | Self::MmioLegacy)
    }

    pub(crate) fn machine(self) -> Kind {
        match self {
            Self::Mmio => Kind::Microvm,
            Self::MmioLegacy => Kind::MicrovmLegacy,
            _ => Kind::Pc,
        }
    }

    pub(crate) fn kind(self) -> TransportKind {
        match self {
            Self::Modern | Self::TransitionalModern => TransportKind::PciModern,
            Self::Legacy | Self::TransitionalLegacy => TransportKind::PciLegacy,
            Self::Mmio => TransportKind::Mmio,
            Self::MmioLegacy => TransportKind::MmioLegacy,
        }
    }

    /// The argument for device number `index` (from 0), such as `("blk", "drive=d")`.
    pub(crate) fn device(self, name: &str, index: u8, properties: &str) -> String {
        let comma = if properties.is_empty() { "" } else { "," };
        let at = 4 + index;
        let sides = match self {
            Self::Mmio | Self::MmioLegacy => return format!("virtio-{name}-device{comma}{properties}"),
            Self::Modern => "disable-legacy=on,disable-modern=off",
            Self::Legacy => "disable-legacy=off,disable-modern=on",
            Self::TransitionalModern | Self::TransitionalLegacy => "disable-legacy=off,disable-modern=off",
        };
        format!("virtio-{name}-pci,addr={at:#x},{sides}{comma}{properties}")
    }

    /// The address of that device.
    pub(crate) fn address(self, qemu: &Qemu, index: u8) -> String {
        if !self.is_pci() {
            return qemu.mmio(index.into()).unwrap();
        }
        match self {
            Self::TransitionalLegacy => qemu.pci(4 + index) + "&interface=legacy",
            Self::TransitionalModern => qemu.pci(4 + index) + "&interface=modern",
            _ => qemu.pci(4 + index),
        }
    }

    pub(crate) fn builder(self) -> Builder {
        Qemu::builder(self.machine())
    }
}

/// Bytes that look like nothing else, from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}
