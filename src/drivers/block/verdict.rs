//! What a used buffer of a request means (fault D10).

use crate::mem::pool::DmaBuf;
use crate::queue::Completion;
use crate::spec::device::block::request::{STATUS_SIZE, Status};
use crate::{Error, Result};

/// What the status byte holds before the device writes it: no status of the specification.
pub(super) const UNWRITTEN: u8 = 0xff;

/// Judges a request by its status byte and by the bytes that the device says it wrote, out of `capacity`.
///
/// An error status decides first. The used length counts only where the device claims success, or never wrote
/// the status, and never through a legacy interface (VIRTIO 1.4 §5.2.6.3).
pub(super) fn verdict(legacy: bool, status: u8, written: u32, capacity: u32) -> Result<()> {
    let short = !legacy && written < capacity;
    match Status(status) {
        Status::OK | Status(UNWRITTEN) if short => Err(Error::ShortReply { need: capacity, got: written }),
        Status::OK => Ok(()),
        Status(status) => Err(Error::Request { status: status.into() }),
    }
}

/// The same by the status buffer of a request that has come back.
#[inline]
pub(super) fn judge(status: &DmaBuf, used: &Completion<'_, DmaBuf>, legacy: bool) -> Result<()> {
    let mut byte = [UNWRITTEN; STATUS_SIZE];
    status.read(0, &mut byte)?;
    let [byte] = byte;
    verdict(legacy, byte, used.written(), used.capacity())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d10_an_error_status_decides_before_a_short_length() {
        for legacy in [false, true] {
            for status in [1, 2, 3, 200, 254] {
                for written in [0, 1, 512, 513] {
                    let failed = Error::Request { status: status.into() };
                    assert_eq!(verdict(legacy, status, written, 513), Err(failed));
                }
            }
        }
    }

    #[test]
    fn d10_success_or_no_status_with_a_short_length_is_a_short_reply() {
        for status in [0, UNWRITTEN] {
            for written in [0, 1, 512] {
                let short = Error::ShortReply { need: 513, got: written };
                assert_eq!(verdict(false, status, written, 513), Err(short));
            }
        }
        assert_eq!(verdict(false, 0, 513, 513), Ok(()));
        assert_eq!(verdict(false, UNWRITTEN, 513, 513), Err(Error::Request { status: 255 }));
    }

    #[test]
    fn d10_a_legacy_device_s_length_is_ignored() {
        for written in [0, 1, 512, 513] {
            assert_eq!(verdict(true, 0, written, 513), Ok(()));
            assert_eq!(verdict(true, UNWRITTEN, written, 513), Err(Error::Request { status: 255 }));
        }
    }
}
