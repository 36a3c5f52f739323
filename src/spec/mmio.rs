//! Virtio over MMIO: register layouts of versions 1 and 2 (VIRTIO 1.4 §4.2.2, §4.2.4).
//!
//! Control registers are 32 bits wide and little-endian; offsets are in bytes.

/// What [`MAGIC_VALUE`] reads: "virt".
pub const MAGIC: u32 = 0x7472_6976;
/// Version of the legacy interface.
pub const VERSION_LEGACY: u32 = 1;
/// Version of the interface of this specification.
pub const VERSION_MODERN: u32 = 2;

/// Read only: [`MAGIC`].
pub const MAGIC_VALUE: u64 = 0x000;
/// Read only.
pub const VERSION: u64 = 0x004;
/// Read only; 0 means an empty slot.
pub const DEVICE_ID: u64 = 0x008;
/// Read only.
pub const VENDOR_ID: u64 = 0x00C;
/// Read only: the 32 feature bits that [`DEVICE_FEATURES_SEL`] selects.
pub const DEVICE_FEATURES: u64 = 0x010;
/// Write only.
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// Write only: the 32 feature bits that [`DRIVER_FEATURES_SEL`] selects.
pub const DRIVER_FEATURES: u64 = 0x020;
/// Write only.
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// Version 1, write only: page size in bytes, the unit of [`QUEUE_PFN`].
pub const GUEST_PAGE_SIZE: u64 = 0x028;
/// Write only.
pub const QUEUE_SEL: u64 = 0x030;
/// Read only: 0 where there is no such queue.
pub const QUEUE_SIZE_MAX: u64 = 0x034;
/// Write only.
pub const QUEUE_SIZE: u64 = 0x038;
/// Version 1, write only: alignment of the used ring in bytes.
pub const QUEUE_ALIGN: u64 = 0x03C;
/// Version 1, read and write: page number of the queue, 0 where it is not used.
pub const QUEUE_PFN: u64 = 0x040;
/// Version 2, read and write.
pub const QUEUE_READY: u64 = 0x044;
/// Write only.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// Read only; bits as in [`super::pci::isr`].
pub const INTERRUPT_STATUS: u64 = 0x060;
/// Write only; bits as in [`super::pci::isr`].
pub const INTERRUPT_ACK: u64 = 0x064;
/// Read and write.
pub const STATUS: u64 = 0x070;
/// Version 2, write only: lower half; the upper half follows.
pub const QUEUE_DESC: u64 = 0x080;
/// Version 2, write only: lower half; the upper half follows.
pub const QUEUE_DRIVER: u64 = 0x090;
/// Version 2, write only: lower half; the upper half follows.
pub const QUEUE_DEVICE: u64 = 0x0A0;
/// Version 2, write only: id of a shared memory region.
pub const SHM_SEL: u64 = 0x0AC;
/// Version 2, read only: lower half; the upper half follows. All ones where there is no such region.
pub const SHM_LEN: u64 = 0x0B0;
/// Version 2, read only: lower half; the upper half follows.
pub const SHM_BASE: u64 = 0x0B8;
/// Version 2 with RING_RESET, read and write.
pub const QUEUE_RESET: u64 = 0x0C0;
/// Version 2, read only.
pub const CONFIG_GENERATION: u64 = 0x0FC;
/// Start of the device-specific configuration.
pub const CONFIG: u64 = 0x100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_agree_with_the_kernel_headers() {
        use virtio_bindings::bindings::virtio_mmio as v;
        let pairs = [
            (DEVICE_FEATURES_SEL, v::VIRTIO_MMIO_DEVICE_FEATURES_SEL),
            (DRIVER_FEATURES, v::VIRTIO_MMIO_DRIVER_FEATURES),
            (GUEST_PAGE_SIZE, v::VIRTIO_MMIO_GUEST_PAGE_SIZE),
            (QUEUE_SIZE_MAX, v::VIRTIO_MMIO_QUEUE_NUM_MAX),
            (QUEUE_SIZE, v::VIRTIO_MMIO_QUEUE_NUM),
            (QUEUE_ALIGN, v::VIRTIO_MMIO_QUEUE_ALIGN),
            (QUEUE_PFN, v::VIRTIO_MMIO_QUEUE_PFN),
            (QUEUE_READY, v::VIRTIO_MMIO_QUEUE_READY),
            (QUEUE_NOTIFY, v::VIRTIO_MMIO_QUEUE_NOTIFY),
            (INTERRUPT_ACK, v::VIRTIO_MMIO_INTERRUPT_ACK),
            (STATUS, v::VIRTIO_MMIO_STATUS),
            (QUEUE_DESC, v::VIRTIO_MMIO_QUEUE_DESC_LOW),
            (QUEUE_DRIVER, v::VIRTIO_MMIO_QUEUE_AVAIL_LOW),
            (QUEUE_DEVICE, v::VIRTIO_MMIO_QUEUE_USED_LOW),
            (SHM_LEN, v::VIRTIO_MMIO_SHM_LEN_LOW),
            (SHM_BASE, v::VIRTIO_MMIO_SHM_BASE_LOW),
            (CONFIG_GENERATION, v::VIRTIO_MMIO_CONFIG_GENERATION),
            (CONFIG, v::VIRTIO_MMIO_CONFIG),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours, u64::from(theirs));
        }
    }
}
