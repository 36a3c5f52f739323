//! Tables for indirect descriptors (VIRTIO 1.4 §2.7.5.3): a small one for every slot, a few large ones in a
//! pool, all in memory that the ring was given.

use alloc::vec::Vec;

use super::RingConfig;
use super::split::{Desc, write_desc};
use crate::mem::cell::{Pairs64, RingMemory};
use crate::spec::ByteOrder;
use crate::sync::mutant;
use crate::{Error, Result};

/// Descriptors in a slot's own table.
pub(super) const SMALL: u16 = 8;
/// Bytes of a descriptor.
const DESC: u64 = 16;

/// Which table a chain uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// The table of the slot with this number.
    Small(u32),
    /// This one of the pool.
    Large(u16),
}

/// All tables of one ring.
#[derive(Debug)]
pub(super) struct Tables {
    order: ByteOrder,
    small: Pairs64,
    small_addr: u64,
    large: Option<Pairs64>,
    large_addr: u64,
    /// Entries of a large table: the queue size, which is the longest chain (§2.7.5.3.1).
    large_len: u16,
    /// Large tables that are free.
    free: Vec<u16>,
    /// At each large table: the slot that uses it.
    owners: Vec<Option<u32>>,
}

impl RingConfig {
    /// Bytes of table memory that a ring of this configuration needs, 0 without indirect descriptors.
    pub fn table_bytes(&self) -> usize {
        if !self.indirect {
            return 0;
        }
        let large = usize::from(self.large_tables).saturating_mul(usize::from(self.size));
        let small = usize::from(self.size).saturating_mul(usize::from(SMALL));
        small.saturating_add(large).saturating_mul(DESC as usize)
    }
}

impl Tables {
    pub(super) fn new(memory: &RingMemory, config: &RingConfig) -> Result<Self> {
        let small = usize::from(config.size).saturating_mul(usize::from(SMALL));
        let large = usize::from(config.size).saturating_mul(usize::from(config.large_tables));
        if config.large_tables != 0 && !config.large_tables.is_power_of_two() {
            return Err(Error::Misuse { what: "the number of large tables is 0 or a power of two" });
        }
        let end = small.saturating_mul(DESC as usize);
        Ok(Self {
            order: config.order,
            small: Pairs64::new(memory, 0, small)?,
            small_addr: memory.device_addr(),
            large: if large == 0 { None } else { Some(Pairs64::new(memory, end, large)?) },
            large_addr: memory.device_addr().wrapping_add(end as u64),
            large_len: config.size,
            free: (0..config.large_tables).rev().collect(),
            owners: (0..config.large_tables).map(|_| None).collect(),
        })
    }

    /// Takes a large table for the chain of this slot.
    pub(super) fn take_large(&mut self, slot: u32) -> Option<Table> {
        let index = self.free.pop()?;
        if let Some(owner) = self.owners.get_mut(usize::from(index)) {
            *owner = Some(slot);
        }
        Some(Table::Large(index))
    }

    /// Whether a large table is free.
    pub(super) fn has_large(&self) -> bool {
        !self.free.is_empty()
    }

    /// Puts the large table of this slot back, if it has one.
    pub(super) fn give_back(&mut self, slot: u32) {
        let mine = self.owners.iter().position(|owner| *owner == Some(slot));
        if let Some((owner, index)) = mine.and_then(|at| Some((self.owners.get_mut(at)?, at as u16))) {
            *owner = None;
            self.free.push(index);
        }
    }

    /// Writes descriptor `at` of the table, with or without one after it: `next` is sequential, which
    /// IN_ORDER demands and nothing forbids (§2.7.5.3.1).
    #[inline(always)]
    pub(super) fn write(&self, table: Table, at: u16, desc: Desc, more: bool) {
        if !more && mutant!(IndirectShort) {
            return;
        }
        let next = more.then(|| at.wrapping_add(1));
        let (cells, first) = match (table, &self.large) {
            (Table::Large(index), Some(large)) => {
                (large, usize::from(index).wrapping_mul(usize::from(self.large_len)))
            }
            (Table::Small(slot), _) => (&self.small, (slot as usize).wrapping_mul(usize::from(SMALL))),
            (Table::Large(_), None) => return,
        };
        write_desc(cells, self.order, first.wrapping_add(usize::from(at)), desc, next);
    }

    /// Where the device finds the table.
    #[inline(always)]
    pub(super) fn device_addr(&self, table: Table) -> u64 {
        let (base, first) = match table {
            Table::Small(slot) => (self.small_addr, u64::from(slot).wrapping_mul(u64::from(SMALL))),
            Table::Large(index) => {
                (self.large_addr, u64::from(index).wrapping_mul(u64::from(self.large_len)))
            }
        };
        base.wrapping_add(first.wrapping_mul(DESC))
    }
}
