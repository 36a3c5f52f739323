//! Crate `virtio-driver`: its block queue over its vhost-user transport, polled.

use std::fs::File;
use std::io::Result;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use virtio_driver::{QueueNotifier, VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags};

use super::measure::{BLOCK, Client, Offsets, QUEUE};

/// Buffers in a memory file.
struct Buffers {
    start: *mut u8,
    len: usize,
    file: File,
}

impl Buffers {
    fn new(count: usize) -> Result<Self> {
        let len = count * BLOCK;
        let file = memfd_create("virtio-driver's buffers", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, len as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so that no mapping of this process is replaced.
        let start = unsafe { mmap(null_mut(), len, protection, MapFlags::SHARED, &file, 0)? }.cast();
        Ok(Self { start, len, file: file.into() })
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and dropped after the queue whose requests use it.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

/// One queue with `depth` requests in flight.
pub struct VirtioDriver {
    queue: VirtioBlkQueue<'static, u32>,
    kick: Box<dyn QueueNotifier>,
    // Keeps the queue's memory, and the connection.
    _transport: Box<VirtioBlkTransport>,
    buffers: Buffers,
    depth: u32,
    offsets: Offsets,
    /// Buffers that are not in flight.
    free: Vec<u32>,
}

impl VirtioDriver {
    /// Connects to the device at a socket.
    ///
    /// # Errors
    /// As the crate's calls.
    pub fn open(path: &str, depth: u32) -> Result<Self> {
        let wanted = VirtioFeatureFlags::VERSION_1;
        let mut transport: Box<VirtioBlkTransport> = Box::new(VhostUser::new(path, wanted.bits())?);
        let buffers = Buffers::new(depth as usize)?;
        let fd = buffers.file.as_raw_fd();
        transport.map_mem_region(buffers.start as usize, buffers.len, fd, 0)?;
        let mut queues = VirtioBlkQueue::setup_queues(&mut *transport, 1, QUEUE)?;
        let mut queue = queues.remove(0);
        queue.set_used_notif_enabled(false);
        let kick = transport.get_submission_notifier(0);
        let free = (0..depth).collect();
        Ok(Self { queue, kick, _transport: transport, buffers, depth, offsets: Offsets::default(), free })
    }

    #[inline(always)]
    fn submit(&mut self) {
        let count = self.free.len();
        for _ in 0..count {
            let slot = self.free.pop().expect("as many as were counted");
            let buffer = self.buffers.start.wrapping_add(slot as usize * BLOCK);
            // SAFETY: the buffer is this slot's, which is in flight once; it is mapped until the queue is gone.
            let sent = unsafe { self.queue.read_raw(self.offsets.draw(), buffer, BLOCK, slot) };
            sent.expect("a queue of 512 has room");
        }
        if count != 0 && self.queue.avail_notif_needed() {
            self.kick.notify().expect("an event takes a signal");
        }
    }

    /// Takes all that is done.
    #[inline(always)]
    fn take(&mut self) -> u64 {
        let mut taken = 0;
        for done in self.queue.completions() {
            assert_eq!(done.ret, 0, "a read failed");
            self.free.push(done.context);
            taken += 1;
        }
        taken
    }
}

impl Client for VirtioDriver {
    fn turn(&mut self, requests: u64) -> u64 {
        let mut made = 0;
        while made < requests {
            self.submit();
            made += self.take();
        }
        made
    }
}

impl Drop for VirtioDriver {
    fn drop(&mut self) {
        while self.free.len() < self.depth as usize {
            self.take();
        }
    }
}
