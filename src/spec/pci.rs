//! Virtio over PCI: capabilities and register layouts (VIRTIO 1.4 §4.1). The ids are [`super::DeviceType`]'s.
//!
//! Offsets are in bytes; all registers are little-endian, but for the device-specific configuration of the
//! legacy interface, which has the byte order of the guest.

/// PCI revision of a function with a legacy interface (§4.1.2.3).
pub const LEGACY_REVISION: u8 = 0;
/// Vector value that maps an event to no vector (§4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xFFFF;
/// Most vectors of an MSI-X table.
pub const MAX_VECTORS: u16 = 0x800;

/// Offsets in the PCI configuration space.
pub mod config {
    /// Vendor id, 16 bits.
    pub const VENDOR_ID: u64 = 0x00;
    /// Device id, 16 bits.
    pub const DEVICE_ID: u64 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u64 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u64 = 0x06;
    /// Revision id, 8 bits.
    pub const REVISION_ID: u64 = 0x08;
    /// First of the six base address registers, 32 bits each.
    pub const BAR0: u64 = 0x10;
    /// Kind of header: 0 a function, 1 a bridge; bit 7 tells of other functions.
    pub const HEADER_TYPE: u64 = 0x0E;
    /// Subsystem vendor id, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u64 = 0x2C;
    /// Subsystem device id, 16 bits.
    pub const SUBSYSTEM_ID: u64 = 0x2E;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u64 = 0x34;
    /// Interrupt line, 8 bits.
    pub const INTERRUPT_LINE: u64 = 0x3C;
    /// Interrupt pin, 8 bits: 0 means none.
    pub const INTERRUPT_PIN: u64 = 0x3D;
    /// First byte after the header: no capability lies before it.
    pub const HEADER_END: u64 = 0x40;
    /// Length of the part in which capabilities of the first kind lie.
    pub const LEN: u64 = 0x100;
    /// Bit of [`STATUS`]: there is a capability list.
    pub const STATUS_CAPABILITIES: u16 = 0x10;
    /// Number of base address registers.
    pub const BARS: u8 = 6;
}

/// Virtio's vendor-specific capability (§4.1.4): offsets in it, and its types.
pub mod cap {
    /// Capability id of a vendor-specific capability.
    pub const ID_VENDOR: u8 = 0x09;
    /// Capability id, 8 bits.
    pub const ID: u64 = 0;
    /// Offset of the next capability, 8 bits; 0 ends the list.
    pub const NEXT: u64 = 1;
    /// Length of the capability in bytes, 8 bits.
    pub const CAP_LEN: u64 = 2;
    /// Type of the structure, 8 bits.
    pub const CFG_TYPE: u64 = 3;
    /// Base address register, 8 bits.
    pub const BAR: u64 = 4;
    /// Id among capabilities of one type, 8 bits.
    pub const ID_OF_TYPE: u64 = 5;
    /// Offset of the structure in the BAR, 32 bits.
    pub const OFFSET: u64 = 8;
    /// Length of the structure, 32 bits.
    pub const LENGTH: u64 = 12;
    /// Length of the capability without extra data.
    pub const LEN: u8 = 16;
    /// Notification capability: multiplier of queue_notify_off, 32 bits (§4.1.4.4).
    pub const NOTIFY_OFF_MULTIPLIER: u64 = 16;
    /// Length of a notification capability.
    pub const NOTIFY_LEN: u8 = 20;
    /// cap64: upper half of the offset, 32 bits.
    pub const OFFSET_HI: u64 = 16;
    /// cap64: upper half of the length, 32 bits.
    pub const LENGTH_HI: u64 = 20;
    /// Length of a cap64.
    pub const LEN64: u8 = 24;
    /// PCI configuration access capability: the window, 1, 2 or 4 bytes (§4.1.4.9).
    pub const PCI_CFG_DATA: u64 = 16;
    /// Length of a PCI configuration access capability.
    pub const PCI_CFG_LEN: u8 = 20;
    /// Vendor data capability: vendor id, 16 bits (§4.1.4.8).
    pub const VENDOR_DATA_ID: u64 = 4;

    /// Type: common configuration.
    pub const COMMON_CFG: u8 = 1;
    /// Type: notifications.
    pub const NOTIFY_CFG: u8 = 2;
    /// Type: ISR status.
    pub const ISR_CFG: u8 = 3;
    /// Type: device-specific configuration.
    pub const DEVICE_CFG: u8 = 4;
    /// Type: PCI configuration access.
    pub const PCI_CFG: u8 = 5;
    /// Type: shared memory region (a cap64).
    pub const SHARED_MEMORY_CFG: u8 = 8;
    /// Type: vendor data.
    pub const VENDOR_CFG: u8 = 9;
}

/// Registers of the common configuration structure (§4.1.4.3).
pub mod common {
    /// 32 bits, read and write.
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    /// 32 bits, read only.
    pub const DEVICE_FEATURE: u64 = 0x04;
    /// 32 bits, read and write.
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    /// 32 bits, read and write.
    pub const DRIVER_FEATURE: u64 = 0x0C;
    /// 16 bits, read and write.
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    /// 16 bits, read only.
    pub const NUM_QUEUES: u64 = 0x12;
    /// 8 bits, read and write.
    pub const DEVICE_STATUS: u64 = 0x14;
    /// 8 bits, read only.
    pub const CONFIG_GENERATION: u64 = 0x15;
    /// 16 bits, read and write.
    pub const QUEUE_SELECT: u64 = 0x16;
    /// 16 bits, read and write.
    pub const QUEUE_SIZE: u64 = 0x18;
    /// 16 bits, read and write.
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1A;
    /// 16 bits, read and write; the driver writes no 0.
    pub const QUEUE_ENABLE: u64 = 0x1C;
    /// 16 bits, read only; in units of the notification capability's multiplier.
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1E;
    /// 64 bits, read and write, accessed as two of 32.
    pub const QUEUE_DESC: u64 = 0x20;
    /// 64 bits, read and write, accessed as two of 32.
    pub const QUEUE_DRIVER: u64 = 0x28;
    /// 64 bits, read and write, accessed as two of 32.
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// Length of the structure without the fields that features bring.
    pub const LEN: u64 = 0x38;
    /// 16 bits, read only; with NOTIF_CONFIG_DATA.
    pub const QUEUE_NOTIF_CONFIG_DATA: u64 = 0x38;
    /// 16 bits, read and write; with RING_RESET.
    pub const QUEUE_RESET: u64 = 0x3A;
    /// 16 bits, read only; with ADMIN_VQ.
    pub const ADMIN_QUEUE_INDEX: u64 = 0x3C;
    /// 16 bits, read only; with ADMIN_VQ.
    pub const ADMIN_QUEUE_NUM: u64 = 0x3E;
    /// Length of the structure with every field of this version.
    pub const FULL_LEN: u64 = 0x40;
}

/// Bits of the ISR status (§4.1.4.5), and of MMIO's InterruptStatus and InterruptACK (§4.2.2).
pub mod isr {
    /// A queue has used buffers.
    pub const QUEUE: u8 = 0x01;
    /// The configuration changed.
    pub const CONFIG: u8 = 0x02;
    /// The bits that have a meaning.
    pub const DEFINED: u8 = QUEUE | CONFIG;
}

/// Registers of the legacy interface, in BAR 0, I/O space (§4.1.4.10).
pub mod legacy {
    /// 32 bits, read only: bits 0 to 31.
    pub const DEVICE_FEATURES: u64 = 0x00;
    /// 32 bits, read and write.
    pub const DRIVER_FEATURES: u64 = 0x04;
    /// 32 bits, read and write: device address of the queue divided by [`PAGE`].
    pub const QUEUE_ADDRESS: u64 = 0x08;
    /// 16 bits, read only: the device fixes it.
    pub const QUEUE_SIZE: u64 = 0x0C;
    /// 16 bits, read and write.
    pub const QUEUE_SELECT: u64 = 0x0E;
    /// 16 bits, read and write.
    pub const QUEUE_NOTIFY: u64 = 0x10;
    /// 8 bits, read and write.
    pub const DEVICE_STATUS: u64 = 0x12;
    /// 8 bits; a read clears it.
    pub const ISR_STATUS: u64 = 0x13;
    /// 16 bits, read and write; there only while MSI-X is enabled.
    pub const CONFIG_MSIX_VECTOR: u64 = 0x14;
    /// 16 bits, read and write; there only while MSI-X is enabled.
    pub const QUEUE_MSIX_VECTOR: u64 = 0x16;
    /// Start of the device-specific configuration while MSI-X is not enabled.
    pub const CONFIG: u64 = 0x14;
    /// Start of the device-specific configuration while MSI-X is enabled.
    pub const CONFIG_MSIX: u64 = 0x18;
    /// Unit of the queue address, and alignment of the used ring (§4.1.5.1.3.1).
    pub const PAGE: u32 = 4096;
}

/// The MSI-X capability and its table (PCI 3.0 §6.8.2).
pub mod msix {
    /// Capability id.
    pub const ID: u8 = 0x11;
    /// Length of the capability.
    pub const LEN: u64 = 12;
    /// Offset in the capability: message control, 16 bits.
    pub const CONTROL: u64 = 2;
    /// Offset in the capability: table offset (multiple of 8) and, in its low three bits, BAR; 32 bits.
    pub const TABLE: u64 = 4;
    /// Offset in the capability: the same for the pending bits; 32 bits.
    pub const PBA: u64 = 8;
    /// Message control: number of vectors less one.
    pub const CONTROL_SIZE: u16 = 0x07FF;
    /// Message control: all vectors masked.
    pub const CONTROL_MASK_ALL: u16 = 0x4000;
    /// Message control: MSI-X enabled.
    pub const CONTROL_ENABLE: u16 = 0x8000;
    /// Low bits of [`TABLE`] and [`PBA`] that name the BAR.
    pub const BIR: u32 = 0x7;
    /// Bytes of one table entry.
    pub const ENTRY: u64 = 16;
    /// Offset in an entry: message address, 64 bits.
    pub const ENTRY_ADDRESS: u64 = 0;
    /// Offset in an entry: message data, 32 bits.
    pub const ENTRY_DATA: u64 = 8;
    /// Offset in an entry: vector control, 32 bits; bit 0 masks.
    pub const ENTRY_CONTROL: u64 = 12;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The structure of §4.1.4.3 by its field types, so that the compiler computes the offsets.
    #[repr(C)]
    struct CommonCfg {
        device_feature_select: u32,
        device_feature: u32,
        driver_feature_select: u32,
        driver_feature: u32,
        config_msix_vector: u16,
        num_queues: u16,
        device_status: u8,
        config_generation: u8,
        queue_select: u16,
        queue_size: u16,
        queue_msix_vector: u16,
        queue_enable: u16,
        queue_notify_off: u16,
        queue_desc: [u32; 2],
        queue_driver: [u32; 2],
        queue_device: [u32; 2],
        queue_notif_config_data: u16,
        queue_reset: u16,
        admin_queue_index: u16,
        admin_queue_num: u16,
    }

    #[test]
    fn common_configuration_offsets_follow_from_the_field_types() {
        macro_rules! check {
            ($($field:ident = $offset:expr),* $(,)?) => {
                $(assert_eq!(core::mem::offset_of!(CommonCfg, $field) as u64, $offset, stringify!($field));)*
            };
        }
        check!(
            device_feature_select = common::DEVICE_FEATURE_SELECT,
            device_feature = common::DEVICE_FEATURE,
            driver_feature_select = common::DRIVER_FEATURE_SELECT,
            driver_feature = common::DRIVER_FEATURE,
            config_msix_vector = common::CONFIG_MSIX_VECTOR,
            num_queues = common::NUM_QUEUES,
            device_status = common::DEVICE_STATUS,
            config_generation = common::CONFIG_GENERATION,
            queue_select = common::QUEUE_SELECT,
            queue_size = common::QUEUE_SIZE,
            queue_msix_vector = common::QUEUE_MSIX_VECTOR,
            queue_enable = common::QUEUE_ENABLE,
            queue_notify_off = common::QUEUE_NOTIFY_OFF,
            queue_desc = common::QUEUE_DESC,
            queue_driver = common::QUEUE_DRIVER,
            queue_device = common::QUEUE_DEVICE,
            queue_notif_config_data = common::QUEUE_NOTIF_CONFIG_DATA,
            queue_reset = common::QUEUE_RESET,
            admin_queue_index = common::ADMIN_QUEUE_INDEX,
            admin_queue_num = common::ADMIN_QUEUE_NUM,
        );
        assert_eq!(size_of::<CommonCfg>() as u64, common::FULL_LEN);
    }
}
