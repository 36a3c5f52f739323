//! Memory balloon device (VIRTIO 1.4 §5.5).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

/// Feature bits and configuration space of the memory balloon device (VIRTIO 1.4 §5.5.3, §5.5.4).
///
/// The configuration space is little-endian even through the legacy interface (VIRTIO 1.4 §5.5.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::BALLOON, features: FEATURES, config: CONFIG };

feature_bits! { "5.5.3"
    /// The device is to be told before pages leave the balloon.
    MUST_TELL_HOST = 0;
    /// The statistics queue exists.
    STATS_VQ = 1;
    /// The balloon shrinks when memory runs out.
    DEFLATE_ON_OOM = 2;
    /// The queue for hints of free pages exists; `free_page_hint_cmd_id` is valid.
    FREE_PAGE_HINT = 3;
    /// The driver fills pages that leave the balloon with `poison_val`.
    PAGE_POISON = 4;
    /// The queue for reports of free pages exists.
    PAGE_REPORTING = 5;
}

config_space! { "5.5.4"
    /// Size that the device asks of the balloon, in pages of 4096 bytes.
    NUM_PAGES "num_pages" @ 0: u32;
    /// Size of the balloon, in pages of 4096 bytes.
    ACTUAL "actual" @ 4: u32 => writable;
    /// Command number of the free page hints.
    FREE_PAGE_HINT_CMD_ID "free_page_hint_cmd_id" @ 8: u32 when [FREE_PAGE_HINT];
    /// Value that the driver fills pages with.
    POISON_VAL "poison_val" @ 12: u32 when [PAGE_POISON] => writable;
}
