//! A structure inside a register block, with every access kept inside it.

use alloc::sync::Arc;

use crate::bus::{Doorbell, RegisterSpace};
use crate::spec::ByteOrder;
use crate::{Error, Result};

/// Bytes `offset .. offset + len` of a register block.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    registers: Arc<dyn RegisterSpace>,
    offset: u64,
    len: u64,
}

impl Window {
    /// `None` where the bytes do not lie wholly inside `registers`.
    pub(crate) fn new(registers: Arc<dyn RegisterSpace>, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= registers.size()).then_some(Self { registers, offset, len })
    }

    /// The whole of `registers`.
    pub(crate) fn whole(registers: Arc<dyn RegisterSpace>) -> Self {
        let len = registers.size();
        Self { registers, offset: 0, len }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn at(&self, offset: u64, width: u8) -> Result<u64> {
        let outside = Error::RegisterOutOfRange { offset, width: width.into(), len: self.len };
        match offset.checked_add(width.into()) {
            Some(end) if end <= self.len => self.offset.checked_add(offset).ok_or(outside),
            _ => Err(outside),
        }
    }

    pub(crate) fn read8(&self, offset: u64) -> Result<u8> {
        self.registers.read8(self.at(offset, 1)?)
    }

    pub(crate) fn read16(&self, offset: u64) -> Result<u16> {
        self.registers.read16(self.at(offset, 2)?)
    }

    pub(crate) fn read32(&self, offset: u64) -> Result<u32> {
        self.registers.read32(self.at(offset, 4)?)
    }

    /// A 64-bit field as two accesses, the low half first (VIRTIO 1.4 §4.1.3.1).
    pub(crate) fn read64(&self, offset: u64) -> Result<u64> {
        let low = self.read32(offset)?;
        let high = self.read32(upper_half(offset))?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    pub(crate) fn write8(&self, offset: u64, value: u8) -> Result<()> {
        self.registers.write8(self.at(offset, 1)?, value)
    }

    pub(crate) fn write16(&self, offset: u64, value: u16) -> Result<()> {
        self.registers.write16(self.at(offset, 2)?, value)
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.registers.write32(self.at(offset, 4)?, value)
    }

    /// A 64-bit field as two accesses, the low half first (VIRTIO 1.4 §4.1.3.1).
    pub(crate) fn write64(&self, offset: u64, value: u64) -> Result<()> {
        self.write32(offset, value as u32)?;
        self.write32(upper_half(offset), (value >> 32) as u32)
    }

    /// A doorbell, or `None` where the bytes are not inside or not aligned to their width.
    pub(crate) fn doorbell(&self, offset: u64, width: u8) -> Result<Option<Doorbell>> {
        match self.at(offset, width) {
            Ok(at) if at.is_multiple_of(width.into()) => self.registers.doorbell(at, width).map(Some),
            _ => Ok(None),
        }
    }

    /// Part of the window from `offset` on; nothing where the window ends before it.
    pub(crate) fn from(&self, offset: u64) -> Self {
        let offset = offset.min(self.len);
        Self {
            registers: Arc::clone(&self.registers),
            offset: self.offset.saturating_add(offset),
            len: self.len.saturating_sub(offset),
        }
    }

    /// Reads a field of the device configuration that this window is, in `order`.
    pub(crate) fn read_field(&self, offset: u64, width: u8, order: ByteOrder) -> Result<u64> {
        self.check_field(offset, width)?;
        let big = order == ByteOrder::Big;
        Ok(match width {
            1 => self.read8(offset)?.into(),
            2 if big => self.read16(offset)?.swap_bytes().into(),
            2 => self.read16(offset)?.into(),
            4 if big => self.read32(offset)?.swap_bytes().into(),
            4 => self.read32(offset)?.into(),
            _ if big => self.read64(offset)?.swap_bytes(),
            _ => self.read64(offset)?,
        })
    }

    /// Writes a field of the device configuration that this window is, in `order`.
    pub(crate) fn write_field(&self, offset: u64, width: u8, value: u64, order: ByteOrder) -> Result<()> {
        self.check_field(offset, width)?;
        let fits = width == 8 || value.checked_shr(u32::from(width) * 8) == Some(0);
        if !fits {
            return Err(Error::Misuse { what: "the value does not fit the configuration field" });
        }
        let big = order == ByteOrder::Big;
        match width {
            1 => self.write8(offset, value as u8),
            2 if big => self.write16(offset, (value as u16).swap_bytes()),
            2 => self.write16(offset, value as u16),
            4 if big => self.write32(offset, (value as u32).swap_bytes()),
            4 => self.write32(offset, value as u32),
            _ if big => self.write64(offset, value.swap_bytes()),
            _ => self.write64(offset, value),
        }
    }

    /// Width and alignment as §4.1.3.1 and §4.2.2.2 ask, and inside the configuration (fault C14).
    fn check_field(&self, offset: u64, width: u8) -> Result<()> {
        let align = match width {
            1 | 2 | 4 => width,
            8 => 4,
            _ => return Err(Error::Misuse { what: "a configuration access is 1, 2, 4 or 8 bytes wide" }),
        };
        match offset.checked_add(width.into()) {
            Some(end) if end <= self.len => {}
            _ => return Err(Error::ConfigOutOfRange { offset, width: width.into(), len: self.len }),
        }
        if !offset.is_multiple_of(align.into()) {
            return Err(Error::Misuse {
                what: "a configuration access starts at a multiple of its width (of 4 for 8 bytes)",
            });
        }
        Ok(())
    }
}

/// Offset of the upper half of a 64-bit register; saturates into an offset that no block has.
fn upper_half(offset: u64) -> u64 {
    offset.saturating_add(4)
}
