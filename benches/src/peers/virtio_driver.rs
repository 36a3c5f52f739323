//! Crate `virtio-driver`, split ring.

use crate::daemon::with_daemon;
use crate::driver::{DATA_BYTES, HEADER_BYTES, Request, RingDriver, STATUS_BYTES};
use crate::raw::{RingAreas, leak_pages};
use std::hint::black_box;
use std::io;
use virtio_driver::virtqueue::{Virtqueue, VirtqueueLayout};
use virtio_driver::{ByteValued, IovaTranslator, VhostUser, VirtioFeatureFlags, VirtioTransport, iovec};

#[derive(Clone, Copy)]
struct NoConfig;

// SAFETY: the type has no byte, so any bytes make a value, and there is no padding.
unsafe impl ByteValued for NoConfig {}

/// A queue of the crate. Its requests carry no data of the crate's own (`R = ()`): the harness has buffers.
pub struct VirtioDriver {
    queue: Virtqueue<'static, ()>,
    ring: RingAreas,
}

impl VirtioDriver {
    /// A split queue of this size.
    ///
    /// # Errors
    /// The connection to the null daemon failed.
    pub fn new(size: u16) -> io::Result<Self> {
        let features = VirtioFeatureFlags::VERSION_1;
        let translator: Box<dyn IovaTranslator> = with_daemon(|path| {
            let transport = VhostUser::<NoConfig, ()>::new(path, features.bits())?;
            Ok(transport.iova_translator())
        })?;
        let layout = VirtqueueLayout::new::<()>(1, size.into(), features)?;
        let mut queue = Virtqueue::new(translator, leak_pages(layout.end_offset), size, features)?;
        queue.set_used_notif_enabled(false);
        let (desc, avail, used) = (
            queue.desc_table_ptr().cast_mut(),
            queue.driver_area_ptr().cast_mut(),
            queue.device_area_ptr().cast_mut(),
        );
        // SAFETY: these are the parts of a split ring of `size`, as the crate laid them out, in memory that
        // was leaked. The crate's own slice of the table is what the crate always has beside a device.
        let ring = unsafe { RingAreas::new(desc, avail, used, size) };
        Ok(Self { queue, ring })
    }
}

#[inline(always)]
fn part(addr: u64, len: u32) -> iovec {
    iovec { iov_base: addr as *mut _, iov_len: len as usize }
}

impl RingDriver for VirtioDriver {
    fn areas(&self) -> RingAreas {
        self.ring
    }

    #[inline(always)]
    fn add1(&mut self, r: &Request) {
        let added = self.queue.add_request(|(), add| add(part(r.data, DATA_BYTES), false));
        black_box(added.expect("the harness adds only what fits"));
    }

    #[inline(always)]
    fn add3(&mut self, r: &Request) {
        let added = self.queue.add_request(|(), add| {
            add(part(r.header, HEADER_BYTES), false)?;
            add(part(r.data, DATA_BYTES), true)?;
            add(part(r.status, STATUS_BYTES), true)
        });
        black_box(added.expect("the harness adds only what fits"));
    }

    #[inline(always)]
    fn publish(&mut self) {
        assert!(!self.queue.avail_notif_needed());
    }

    #[inline(always)]
    fn pop(&mut self) -> bool {
        black_box(self.queue.completions().next()).is_some()
    }
}
