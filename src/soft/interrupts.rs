//! Interrupts out of a software device: MSI-X vectors and a line.

use alloc::vec::Vec;

use crate::Result;
use crate::event::EventFd;
use crate::spec::pci::msix;

/// Bit of an entry's vector control, and of nothing else that is looked at.
const MASKED: u32 = 1;

/// One entry of the MSI-X table, and the event that stands for its message.
#[derive(Debug, Default)]
struct Entry {
    words: [u32; 4],
    pending: bool,
    event: Option<EventFd>,
}

impl Entry {
    fn masked(&self) -> bool {
        self.words.get(3).is_none_or(|control| control & MASKED != 0)
    }
}

/// What a device raises interrupts with.
#[derive(Debug, Default)]
pub(super) struct Irq {
    entries: Vec<Entry>,
    control: u16,
    line: Option<EventFd>,
    line_masked: bool,
    line_up: bool,
}

impl Irq {
    pub(super) fn new(vectors: u16) -> Self {
        let entry = || Entry { words: [0, 0, 0, MASKED], ..Entry::default() };
        Self { entries: core::iter::repeat_with(entry).take(vectors.into()).collect(), ..Self::default() }
    }

    pub(super) fn vectors(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(u16::MAX)
    }

    /// The event behind a vector of a device whose driver has no registers to write: MSI-X is on, nothing is masked.
    #[cfg(feature = "vhost-user")]
    pub(super) fn set_event(&mut self, vector: u16, event: Option<EventFd>) {
        self.control = msix::CONTROL_ENABLE;
        if let Some(entry) = self.entries.get_mut(usize::from(vector)) {
            *entry = Entry { event, ..Entry::default() };
        }
    }

    /// Message control of the capability.
    pub(super) fn control(&self) -> u16 {
        self.vectors().saturating_sub(1) | self.control
    }

    pub(super) fn set_control(&mut self, value: u16) -> Result<()> {
        self.control = value & (msix::CONTROL_ENABLE | msix::CONTROL_MASK_ALL);
        self.deliver_pending()
    }

    pub(super) fn msix_enabled(&self) -> bool {
        self.control & msix::CONTROL_ENABLE != 0
    }

    /// What a bus does for its caller: events behind the first `count` vectors, unmasked, and MSI-X on.
    pub(super) fn enable_msix(&mut self, count: u16) -> Result<Vec<EventFd>> {
        self.control = 0;
        for entry in &mut self.entries {
            *entry = Entry { words: [0, 0, 0, MASKED], ..Entry::default() };
        }
        let mut events = Vec::new();
        for (number, entry) in (0..count).zip(&mut self.entries) {
            let event = EventFd::new()?;
            // Where a PC's messages go, and the vector as the data.
            entry.words = [0xfee0_0000, 0, number.into(), 0];
            entry.event = Some(event.clone());
            events.push(event);
        }
        if count > 0 {
            self.control = msix::CONTROL_ENABLE;
        }
        Ok(events)
    }

    pub(super) fn enable_line(&mut self) -> Result<EventFd> {
        let event = EventFd::new()?;
        self.line = Some(event.clone());
        self.line_masked = false;
        self.show_line()?;
        Ok(event)
    }

    pub(super) fn unmask_line(&mut self) -> Result<()> {
        self.line_masked = false;
        self.show_line()
    }

    /// The line goes up or down.
    pub(super) fn set_line(&mut self, up: bool) -> Result<()> {
        self.line_up = up;
        self.show_line()
    }

    /// A line that is up is told once, and masked until it was handled, as a bus does.
    fn show_line(&mut self) -> Result<()> {
        let Some(event) = self.line.as_ref().filter(|_| self.line_up && !self.line_masked) else {
            return Ok(());
        };
        event.signal()?;
        self.line_masked = true;
        Ok(())
    }

    /// Sends the message of `vector`, or marks it pending while it is masked.
    pub(super) fn send(&mut self, vector: u16) -> Result<()> {
        if let Some(entry) = self.entries.get_mut(usize::from(vector)) {
            entry.pending = true;
        }
        self.deliver_pending()
    }

    fn deliver_pending(&mut self) -> Result<()> {
        if !self.msix_enabled() || self.control & msix::CONTROL_MASK_ALL != 0 {
            return Ok(());
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.pending && !entry.masked()) {
            entry.pending = false;
            if let Some(event) = &entry.event {
                event.signal()?;
            }
        }
        Ok(())
    }

    /// A word of the table, or of the pending bits behind it at `pba`.
    pub(super) fn read_table(&self, offset: u64, pba: u64) -> u32 {
        if let Some(at) = offset.checked_sub(pba) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            let bits = self.entries.iter().skip(first).take(32).map(|entry| u32::from(entry.pending));
            return bits.rev().fold(0, |bits, bit| bits << 1 | bit);
        }
        let word = self.entries.get((offset / msix::ENTRY) as usize);
        word.and_then(|entry| entry.words.get((offset % msix::ENTRY / 4) as usize)).copied().unwrap_or(0)
    }

    pub(super) fn write_table(&mut self, offset: u64, value: u32) -> Result<()> {
        let entry = self.entries.get_mut((offset / msix::ENTRY) as usize);
        if let Some(word) = entry.and_then(|entry| entry.words.get_mut((offset % msix::ENTRY / 4) as usize)) {
            *word = value;
        }
        self.deliver_pending()
    }
}
