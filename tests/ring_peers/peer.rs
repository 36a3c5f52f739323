//! A queue of the peer, with our device end on the other side.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use virtio::mem::cell::RingMemory;
use virtio::queue::RingConfig;
use virtio::soft::{DeviceChain, DeviceRing, Lie, LyingRing};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

pub(crate) const SIZE: usize = 8;

/// Device addresses are addresses of this process.
pub(crate) struct Identity;

fn pages(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).unwrap()
}

// SAFETY: `dma_alloc` gives fresh zeroed pages, which `dma_dealloc` frees; sharing changes nothing.
unsafe impl Hal for Identity {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty: no queue takes zero pages.
        let start = NonNull::new(unsafe { alloc_zeroed(pages(count)) }).unwrap();
        (start.as_ptr() as PhysAddr, start)
    }

    unsafe fn dma_dealloc(_: PhysAddr, start: NonNull<u8>, count: usize) -> i32 {
        // SAFETY: allocated above with this layout; the caller gives it back once.
        unsafe { dealloc(start.as_ptr(), pages(count)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("there is no PCI transport here")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The device: it uses a chain as soon as it is notified.
pub(crate) struct Device {
    event_idx: bool,
    ring: Option<LyingRing>,
    table: PhysAddr,
    pub(crate) len: u32,
}

impl Device {
    /// Both ends. The device goes before the queue, whose memory it uses.
    pub(crate) fn new(event_idx: bool) -> (Self, VirtQueue<Identity, SIZE>) {
        let mut device = Self { event_idx, ring: None, table: 0, len: 0 };
        let queue = VirtQueue::new(&mut device, 0, false, event_idx).unwrap();
        (device, queue)
    }

    pub(crate) fn ring(&mut self) -> &mut LyingRing {
        self.ring.as_mut().expect("the queue was set up")
    }

    pub(crate) fn plan(&mut self, lie: Lie) {
        self.ring().plan(lie);
    }

    /// Takes all available chains, uses and shows them.
    pub(crate) fn serve(&mut self) -> Vec<DeviceChain> {
        let (len, ring) = (self.len, self.ring());
        let chains: Vec<_> = std::iter::from_fn(|| ring.pop().unwrap()).collect();
        for chain in &chains {
            ring.push_used(chain.head, len);
        }
        ring.publish_used();
        chains
    }

    /// The address in descriptor `index` of the peer's table.
    pub(crate) fn descriptor_addr(&self, index: usize) -> u64 {
        let field = (self.table as usize + index * 16) as *const u64;
        // SAFETY: the table has `SIZE` descriptors and lives as long as the queue, which the caller holds.
        unsafe { field.read_volatile() }
    }
}

fn memory(addr: PhysAddr, len: usize) -> RingMemory {
    let start = NonNull::new(addr as *mut u8).unwrap();
    // SAFETY: the peer placed an area of that length there, which lives as long as the queue. It reaches some
    // fields by plain accesses, but in the same thread, one after the other.
    unsafe { RingMemory::from_raw(start, len, addr, None) }.unwrap()
}

impl Transport for Device {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        1 << 32
    }
    fn write_driver_features(&mut self, _: u64) {}
    fn max_queue_size(&mut self, _: u16) -> u32 {
        SIZE as u32
    }
    fn notify(&mut self, _: u16) {
        self.serve();
    }
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::DRIVER_OK
    }
    fn set_status(&mut self, _: DeviceStatus) {}
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _: u16, size: u32, desc: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        let n = size as usize;
        let mut config = RingConfig::new(0, size as u16);
        config.event_idx = self.event_idx;
        let (table, driver) = (memory(desc, 16 * n + 6 + 2 * n), (driver - desc) as usize);
        let used = memory(device, 6 + 8 * n);
        let ring = DeviceRing::new((&table, 0), (&table, driver), (&used, 0), &config).unwrap();
        (self.ring, self.table) = (Some(LyingRing::new(ring, None)), desc);
    }
    fn queue_unset(&mut self, _: u16) {}
    fn queue_used(&mut self, _: u16) -> bool {
        false
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T>(&self, _: usize) -> virtio_drivers::Result<T> {
        Err(virtio_drivers::Error::ConfigSpaceMissing)
    }
    fn write_config_space<T>(&mut self, _: usize, _: T) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::ConfigSpaceMissing)
    }
}
