//! Crate `virtio-drivers`, split ring.

use crate::driver::{Buffers, DATA_BYTES, HEADER_BYTES, Request, RingDriver, STATUS_BYTES};
use crate::raw::{RingAreas, leak_pages};
use std::hint::black_box;
use std::ptr::NonNull;
use std::slice::{from_raw_parts, from_raw_parts_mut};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The size of its queues, which is a constant of their type.
pub const SIZE: usize = 256;

/// Device addresses are virtual addresses.
struct Identity;

// SAFETY: `dma_alloc` gives zeroed pages, aligned, never freed and known to nobody else; `share` changes
// nothing, since the device end works with virtual addresses.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let start = NonNull::from(leak_pages(pages * virtio_drivers::PAGE_SIZE)).cast::<u8>();
        (start.as_ptr() as PhysAddr, start)
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("there is no PCI transport here")
    }

    #[inline(always)]
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    #[inline(always)]
    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// A transport that only remembers where the queue was put.
#[derive(Default)]
struct Placement(Option<(PhysAddr, PhysAddr, PhysAddr)>);

impl Transport for Placement {
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
    fn notify(&mut self, _: u16) {}
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::DRIVER_OK
    }
    fn set_status(&mut self, _: DeviceStatus) {}
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _: u16, _: u32, desc: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.0 = Some((desc, driver, device));
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

/// A queue of the crate.
pub struct VirtioDrivers {
    queue: VirtQueue<Identity, SIZE>,
    ring: RingAreas,
    buffers: Buffers,
    popped: usize,
    three_parts: bool,
}

impl VirtioDrivers {
    /// A split queue of [`SIZE`] that carries these buffers, from the first request on.
    ///
    /// # Errors
    /// The crate refused.
    pub fn new(buffers: Buffers, indirect: bool) -> virtio_drivers::Result<Self> {
        let mut placement = Placement::default();
        let mut queue = VirtQueue::new(&mut placement, 0, indirect, false)?;
        queue.set_dev_notify(false);
        let (desc, avail, used) = placement.0.ok_or(virtio_drivers::Error::NotReady)?;
        // SAFETY: the crate just placed a split ring of `SIZE` there, in pages of `dma_alloc`, never freed.
        let ring = unsafe { RingAreas::new(desc as *mut u8, avail as *mut u8, used as *mut u8, SIZE as u16) };
        Ok(Self { queue, ring, buffers, popped: 0, three_parts: false })
    }
}

/// # Safety
/// `addr` leads to `len` bytes of the harness's buffers.
#[inline(always)]
unsafe fn bytes(addr: u64, len: u32) -> &'static [u8] {
    // SAFETY: the buffers are leaked, zeroed and never written.
    unsafe { from_raw_parts(addr as *const u8, len as usize) }
}

/// # Safety
/// `addr` leads to `len` bytes of the harness's buffers, and the last slice made of them is out of use.
#[inline(always)]
unsafe fn bytes_mut(addr: u64, len: u32) -> &'static mut [u8] {
    // SAFETY: the buffers are leaked, zeroed and never touched; the crate keeps no slice beyond a call.
    unsafe { from_raw_parts_mut(addr as *mut u8, len as usize) }
}

impl RingDriver for VirtioDrivers {
    fn areas(&self) -> RingAreas {
        self.ring
    }

    #[inline(always)]
    fn add1(&mut self, r: &Request) {
        self.three_parts = false;
        // SAFETY: the harness's buffers stay, and nobody touches them.
        let token = unsafe { self.queue.add(&[bytes(r.data, DATA_BYTES)], &mut []) };
        black_box(token.expect("the harness adds only what fits"));
    }

    #[inline(always)]
    fn add3(&mut self, r: &Request) {
        self.three_parts = true;
        // SAFETY: the harness's buffers stay, and nobody touches them.
        let token = unsafe {
            let writable = &mut [bytes_mut(r.data, DATA_BYTES), bytes_mut(r.status, STATUS_BYTES)];
            self.queue.add(&[bytes(r.header, HEADER_BYTES)], writable)
        };
        black_box(token.expect("the harness adds only what fits"));
    }

    #[inline(always)]
    fn publish(&mut self) {
        assert!(!self.queue.should_notify());
    }

    #[inline(always)]
    fn pop(&mut self) -> bool {
        let Some(token) = self.queue.peek_used() else {
            return false;
        };
        let r = self.buffers.request(self.popped);
        self.popped = self.popped.wrapping_add(1);
        // SAFETY: the device end completes in order, so these are the buffers of the oldest request, as added.
        let len = unsafe {
            if self.three_parts {
                let writable = &mut [bytes_mut(r.data, DATA_BYTES), bytes_mut(r.status, STATUS_BYTES)];
                self.queue.pop_used(token, &[bytes(r.header, HEADER_BYTES)], writable)
            } else {
                self.queue.pop_used(token, &[bytes(r.data, DATA_BYTES)], &mut [])
            }
        };
        black_box(len.expect("the token is the next one"));
        true
    }
}
