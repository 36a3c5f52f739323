//! Rules that more than one interface has to keep.

use std::sync::PoisonError;

use super::QueueSetup;
use crate::features::Features;
use crate::spec::split::{Layout, MAX_SIZE};
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Takes a lock. What a transport keeps behind one is consistent after each statement, so a panic of another
/// thread spoils nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`Error::QueueUnavailable`].
pub(super) fn unavailable(queue: u16, why: &'static str) -> Error {
    Error::QueueUnavailable { queue, why }
}

/// Whether the interface can carry all of `accepted`.
pub(super) fn check_features(accepted: Features, supported: Features) -> Result<()> {
    if supported.contains(accepted) {
        return Ok(());
    }
    Err(Error::Misuse { what: "a feature was accepted that this interface cannot carry" })
}

/// Largest usable size of a queue whose device said `size` (fault C7): at most 32768 and, in a split ring, a
/// power of two. `None` for 0.
pub(super) fn usable_size(size: u32, packed: bool) -> Option<u16> {
    let size = u16::try_from(size).unwrap_or(MAX_SIZE).min(MAX_SIZE);
    match (size, packed) {
        (0, _) => None,
        (size, true) => Some(size),
        (size, false) => size.checked_ilog2().and_then(|log| 1u16.checked_shl(log)),
    }
}

/// Whether `size` can be a queue's at all, and one that the device takes.
pub(super) fn check_size(queue: u16, size: u16, max: u16, packed: bool) -> Result<()> {
    if size == 0 || (!packed && !size.is_power_of_two()) {
        return Err(Error::Misuse { what: "a queue size is a power of two (packed rings: not 0)" });
    }
    if size > max {
        return Err(unavailable(
            queue,
            "the device does not take a queue of that size: ask for a smaller one",
        ));
    }
    Ok(())
}

/// Alignment of the three areas (§2.7, §2.8).
pub(super) fn check_areas(setup: &QueueSetup, packed: bool) -> Result<()> {
    let driver_align = if packed { 4 } else { 2 };
    let aligned = setup.descriptor_area.is_multiple_of(16)
        && setup.driver_area.is_multiple_of(driver_align)
        && setup.device_area.is_multiple_of(4);
    if aligned { Ok(()) } else { Err(Error::Misuse { what: "an area of the queue is not aligned" }) }
}

/// Page number of a legacy queue, after its layout was checked (§2.7.2; faults C23, C24).
pub(super) fn legacy_page(setup: &QueueSetup, align: u32) -> Result<u32> {
    let misplaced = Error::Misuse {
        what: "the areas of a legacy queue lie in one piece: descriptors, driver area, then the device area \
               at the next multiple of the alignment",
    };
    let layout = Layout::legacy(setup.size, align as usize).ok_or(misplaced.clone())?;
    let after = |offset: usize| setup.descriptor_area.checked_add(offset as u64);
    let end = after(layout.len).ok_or(misplaced.clone())?;
    let align = u64::from(align);
    if after(layout.avail) != Some(setup.driver_area)
        || after(layout.used) != Some(setup.device_area)
        || !setup.descriptor_area.is_multiple_of(align)
    {
        return Err(misplaced);
    }
    let page = setup.descriptor_area.checked_div(align).ok_or(misplaced)?;
    let page = u32::try_from(page).map_err(|_| Error::MemoryLimit {
        needed: end,
        have: align << 32,
        limit: "the 32-bit page number of a legacy queue: give the device lower addresses",
    })?;
    if page == 0 {
        return Err(Error::Misuse { what: "a legacy queue cannot start at device address 0" });
    }
    Ok(page)
}
