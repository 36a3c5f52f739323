//! The rules for drivers that are checked: one row each.

use core::fmt;

/// A rule for drivers that the driver broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenMust {
    /// Name of the rule.
    pub id: &'static str,
    /// Where it stands in VIRTIO 1.4.
    pub clause: &'static str,
    /// What the driver did.
    pub what: &'static str,
}

impl fmt::Display for BrokenMust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, clause, what } = self;
        write!(f, "{id} ({clause}): {what}")
    }
}

macro_rules! rules {
    ($($id:ident $clause:literal $what:literal;)*) => {
        /// A rule, by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(non_camel_case_types, reason = "the variants are the names of the rules")]
        pub(super) enum Must { $($id,)* }

        impl Must {
            pub(super) const fn broken(self) -> BrokenMust {
                match self {
                    $(Self::$id => BrokenMust { id: stringify!($id), clause: $clause, what: $what },)*
                }
            }
        }

        /// Every rule that a checked device knows.
        pub const RULES: &[BrokenMust] = &[$(Must::$id.broken(),)*];
    };
}

rules! {
    STATUS_BIT_CLEARED "§2.1.1" "it cleared a bit of the device status";
    STATUS_UNKNOWN_BIT "§2.1" "it set a bit of the device status that has no meaning";
    STATUS_NEEDS_RESET_SET "§2.1" "it set DEVICE_NEEDS_RESET, which is the device's";
    STATUS_AFTER_FAILED "§2.1.1" "it went on after FAILED without a reset";
    INIT_NO_RESET "§3.1.1" "it did not begin with a reset";
    INIT_DRIVER_FIRST "§3.1.1" "it set DRIVER without ACKNOWLEDGE";
    INIT_FEATURES_OK_FIRST "§3.1.1" "it set FEATURES_OK without DRIVER";
    INIT_DRIVER_OK_EARLY "§3.1.1" "it set DRIVER_OK without FEATURES_OK";
    INIT_DRIVER_OK_WITHOUT_DRIVER "§3.1.1" "it set DRIVER_OK without DRIVER";
    INIT_FEATURES_EARLY "§3.1.1" "it accepted features without DRIVER";
    INIT_FEATURES_LATE "§3.1.1" "it accepted features after FEATURES_OK";
    INIT_FEATURES_AFTER_DRIVER_OK "§3.1.1" "it accepted features after DRIVER_OK";
    INIT_FEATURES_OK_NOT_READ "§3.1.1" "it went on without reading FEATURES_OK back";
    INIT_FEATURES_REFUSED "§3.1.1" "it went on although FEATURES_OK did not stay set";
    INIT_CONFIG_WRITTEN "§3.1.1" "it wrote to the configuration before FEATURES_OK";
    INIT_QUEUE_EARLY "§3.1.1" "it set up a queue before FEATURES_OK";
    INIT_QUEUE_LATE "§3.1.1" "it enabled a queue after DRIVER_OK, without a queue reset";
    INIT_NOTIFIED_EARLY "§3.1.1" "it sent a notification before DRIVER_OK";
    FEATURES_NOT_READ "§2.2.1" "it accepted features without reading what is offered";
    FEATURE_NOT_OFFERED "§2.2.1" "it accepted a feature that is not offered";
    FEATURE_DEPENDENCY "§2.2.1" "it accepted a feature without one that this one requires";
    FEATURE_RESERVED "§2.2.1" "it accepted a feature that the specification does not know";
    FEATURE_TRANSPORT "§2.2.1" "it accepted a feature that the transport does not support";
    FEATURE_VERSION_1 "§6.1" "it did not accept VERSION_1";
    FEATURE_SR_IOV "§6.1" "it accepted SR_IOV of a device without that capability";
    CONFIG_FEATURE "§2.5.1" "it accessed a configuration field whose feature is not offered";
    PCI_CONFIG_WIDTH "§4.1.3.1" "it accessed a configuration field at another width";
    PCI_WIDTH "§4.1.3.1" "it accessed a register at another width";
    PCI_READ_ONLY "§4.1.4.3.2" "it wrote to a read-only register";
    PCI_RESET_NOT_READ "§4.1.4.3.2" "it went on after a reset before the status read 0";
    PCI_SIZE_NOT_POWER_OF_2 "§4.1.4.3.2" "it wrote a queue size that is no power of 2";
    PCI_SIZE_ZERO "§4.1.4.3.2" "it wrote 0 as the size of a packed queue";
    PCI_ENABLE_ZERO "§4.1.4.3.2" "it wrote 0 to queue_enable";
    PCI_ENABLE_UNCONFIGURED "§4.1.4.3.2" "it enabled a queue before it wrote all areas";
    PCI_QUEUE_CHANGED "§4.1.4.3.2" "it wrote to a field of an enabled queue";
    PCI_CAP_WRITTEN "§4.1.4.1" "it wrote to a capability that is not the access capability";
    PCI_ACCESS_ALIGN "§4.1.4.9.2" "it used the access capability with an offset that is no multiple of the length";
    PCI_ACCESS_RANGE "§4.1.4.9.2" "it used the access capability outside of the device's structures";
    PCI_VECTOR_RANGE "§4.1.5.1.2.2" "it mapped an event to a vector outside the table";
    PCI_VECTOR_NOT_READ "§4.1.5.1.2.2" "it did not read a vector back";
    PCI_NOTIFY_16 "§4.1.5.2.1" "its notification was not 16 bits wide";
    PCI_NOTIFY_32 "§4.1.5.2.1" "its notification was not 32 bits wide, with NOTIFICATION_DATA";
    PCI_NOTIFY_VALUE "§4.1.5.2.1" "its notification names no queue of the device";
    PCI_NOTIFY_CONFIG_DATA "§4.1.5.2.1" "its notification does not hold queue_notif_config_data";
    PCI_NOTIFY_ADDRESS "§4.1.4.4" "it sent a notification to another queue's address";
    QUEUE_RESET_NOT_READ "§2.6.1.1.2" "it used a queue again before its reset read 0";
    QUEUE_RESET_FEATURE "§2.6.1" "it reset a queue without RING_RESET";
    MMIO_WIDTH "§4.2.2.2" "it accessed a register at another width than 32 bits";
    MMIO_CONFIG_WIDTH "§4.2.2.2" "it accessed a configuration field at another width";
    MMIO_UNKNOWN_REGISTER "§4.2.2.2" "it accessed a place where no register is";
    MMIO_READ_ONLY "§4.2.2.2" "it wrote to a read-only register";
    MMIO_WRITE_ONLY "§4.2.2.2" "it read a write-only register";
    MMIO_DEVICE_FEATURES_SEL "§4.2.2.2" "it read DeviceFeatures before it wrote DeviceFeaturesSel";
    MMIO_DRIVER_FEATURES_SEL "§4.2.2.2" "it wrote DriverFeatures before it wrote DriverFeaturesSel";
    MMIO_SIZE_TOO_LARGE "§4.2.2.2" "it wrote a queue size above QueueSizeMax";
    MMIO_QUEUE_CHANGED "§4.2.2.2" "it accessed a register of a queue that is ready";
    MMIO_STOP_NOT_READ "§4.2.2.2" "it stopped a queue and did not read QueueReady back";
    MMIO_ACK_UNDEFINED "§4.2.2.2" "it acknowledged undefined interrupt bits";
    MMIO_ACK_UNREAD "§4.2.3.4.1" "it acknowledged an interrupt without reading InterruptStatus";
    MMIO_IDENTITY "§4.2.3.1.1" "it accessed a register before it read MagicValue, Version and DeviceID";
    MMIO_IDENTITY_ORDER "§4.2.3.1.1" "it read DeviceID before MagicValue and Version";
    MMIO_EMPTY_SLOT "§4.2.3.1.1" "it accessed another register although DeviceID reads 0";
    MMIO_NOTIFY_VALUE "§4.2.3.3" "its notification names no queue of the device";
    MMIO_LEGACY_PAGE_SIZE "§4.2.4" "it set up a queue before it wrote the page size";
    MMIO_LEGACY_ALIGN "§4.2.4" "it wrote a queue alignment that is no power of 2";
    RING_ALIGN "§2.7.1" "an area of a queue is not aligned";
    RING_UNREACHABLE "§2.7" "an area of a queue lies outside the memory that the device may use";
    RING_USED_FLAGS "§2.7.10.1" "the flags of the used ring were not 0 at first";
    RING_FRAMING "§2.7.4.2" "a device-readable descriptor follows a device-writable one";
    RING_TOO_MANY_BYTES "§2.7.5.2" "a chain of more than 2^32 bytes";
    RING_IN_ORDER "§2.7.5.2" "a chain's descriptors are not in ring order, with IN_ORDER";
    RING_INDEX "§2.7.5" "a descriptor index outside the table";
    RING_INDIRECT_FEATURE "§2.7.5.3.1" "an indirect descriptor without INDIRECT_DESC";
    RING_INDIRECT_NESTED "§2.7.5.3.1" "an indirect descriptor within an indirect table";
    RING_INDIRECT_NEXT "§2.7.5.3.1" "a descriptor with INDIRECT and NEXT";
    RING_CHAIN_TOO_LONG "§2.7.5.3.1" "a chain longer than the queue size, or one that loops";
    RING_BAD_TABLE "§2.7.5.3" "an indirect table of a wrong length or out of reach";
    RING_IDX "§2.7.6.1" "the available index went back, or ahead by more than the queue size";
    RING_FLAGS "§2.7.7.1" "the flags of the available ring are neither 0 nor 1";
    RING_FLAGS_EVENT_IDX "§2.7.7.1" "the flags of the available ring are not 0, with EVENT_IDX";
    RING_NOT_NOTIFIED "§2.7.10.1" "it made buffers available without the notification that was asked for";
    RING_HEAD_IN_USE "§2.7.13.1" "it made a descriptor available that is in use";
    RING_EXPOSED_CHANGED "§3.3.1" "it changed a descriptor of a buffer that the device has";
}
