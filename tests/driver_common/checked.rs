//! The one place where tests build software devices.

use virtio::soft::{SoftDevice, SoftDeviceBuilder};

/// A device that checks its driver, and whose end fails the test if the driver broke a rule for drivers.
pub(crate) fn checked(builder: SoftDeviceBuilder) -> SoftDevice {
    let kept = |report: &virtio::soft::Report| {
        // One failure is enough.
        if !std::thread::panicking() {
            assert_eq!(report.broken, None, "the driver broke a rule");
        }
    };
    builder.checked(true).at_end(kept).build().unwrap()
}

/// For ways of a device that one which checks does not take.
pub(crate) fn unchecked(builder: SoftDeviceBuilder) -> SoftDevice {
    builder.checked(false).build().unwrap()
}

/// For tests that are no driver, and break rules on purpose.
pub(crate) fn abused(builder: SoftDeviceBuilder) -> SoftDevice {
    builder.checked(true).build().unwrap()
}
