//! Whether buffers are where the queue's device can reach them (fault M11).

use crate::mem::lease::Lease;
use crate::mem::space::DmaSpace;
use crate::{Error, Result};

#[inline]
pub(super) fn check_space<B: Lease>(space: &DmaSpace, buf: &B) -> Result<()> {
    match buf.space() {
        Some(other) if other != space.id() => {
            Err(Error::NotMapped { addr: buf.device_addr(), len: buf.len().into() })
        }
        _ => Ok(()),
    }
}

/// The same for a chain. Not one loop over both sides, which the compiler would leave one.
#[inline(always)]
pub(super) fn check_spaces<B: Lease>(space: &DmaSpace, readable: &[B], writable: &[B]) -> Result<()> {
    for buf in readable {
        check_space(space, buf)?;
    }
    for buf in writable {
        check_space(space, buf)?;
    }
    Ok(())
}
