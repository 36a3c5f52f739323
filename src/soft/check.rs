//! Checking the driver: stub
use super::core::{Core, Face, Queue};
use super::registers::Reg;
use super::ring::*;
/// A rule for drivers that the driver broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenMust {
    /// Name of the rule.
    pub id: &'static str,
    /// Where it stands in VIRTIO 1.4, as `§` and a number.
    pub clause: &'static str,
    /// What the driver did.
    pub what: &'static str,
}
#[derive(Debug)]
pub(super) struct Checker;
#[allow(unused)]
impl Checker {
    pub(super) fn new() -> Self {
        Self
    }
    pub(super) fn first(&self) -> Option<BrokenMust> {
        None
    }
    pub(super) fn width(&mut self, face: Face, offset: u64, width: u8) {}
    pub(super) fn unknown_register(&mut self, offset: u64) {}
    pub(super) fn direction(&mut self, offset: u64, write: bool) {}
    pub(super) fn read(&mut self, core: &Core, face: Face, reg: Reg) {}
    pub(super) fn write(&mut self, core: &Core, face: Face, reg: Reg, value: u32) {}
    pub(super) fn config(&mut self, core: &Core, face: Face, offset: u64, width: u8, write: bool) {}
    pub(super) fn notified(&mut self, core: &Core, face: Face, width: u8, value: u32, at: Option<u64>) {}
    pub(super) fn ring_started(&mut self, index: u16, queue: &Queue, legacy: bool) {}
    pub(super) fn ring_refused(&mut self, index: u16, queue: &Queue, error: &crate::Error) {}
    pub(super) fn popped(
        &mut self,
        index: u16,
        popped: &Result<Option<DeviceChain>, DriverFault>,
        ring: &DeviceRing,
        tables: &impl Tables,
    ) {
    }
    pub(super) fn chain_used(&mut self, index: u16, chain: &DeviceChain) {}
}
