//! A split ring as bare memory, and the memory it lies in.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Size of one split descriptor (VIRTIO 1.4 §2.7.5).
const DESCRIPTOR_BYTES: usize = 16;

/// Descriptor flag: the chain goes on at `next`.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes this buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;
/// Available ring flag: the driver wants no used buffer notification.
pub const NO_INTERRUPT: u16 = 1;
/// Used ring flag: the device wants no available buffer notification.
pub const NO_NOTIFY: u16 = 1;

/// One descriptor by value.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// Address of the buffer, or of a table.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor of the chain.
    pub next: u16,
}

/// Zeroed memory, aligned to a page, that is never given back: a benchmark ends with its process, and a
/// device thread may then still look at it.
#[must_use]
pub fn leak_pages(bytes: usize) -> &'static mut [u8] {
    let layout = Layout::from_size_align(bytes.max(1), 4096).expect("a size far below isize::MAX");
    // SAFETY: the layout has a size above zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: `start` leads to `bytes` zeroed bytes of one allocation that nobody frees or knows of.
    unsafe { std::slice::from_raw_parts_mut(start, bytes) }
}

/// Where the three parts of a split ring lie.
#[derive(Debug, Clone, Copy)]
pub struct RingAreas {
    desc: *mut u8,
    avail: *mut u8,
    used: *mut u8,
    mask: u16,
}

// SAFETY: the pointers lead to memory that is never freed (`new` asks for that), and every access through
// them is atomic.
unsafe impl Send for RingAreas {}

impl RingAreas {
    /// The ring of `size` descriptors with its three parts at these places.
    ///
    /// # Safety
    /// `size` is a power of two up to 32,768; the pointers lead to a descriptor table, an available ring and
    /// a used ring of that size (VIRTIO 1.4 §2.7), aligned to 16, 2 and 4, that are never freed and that
    /// nobody accesses through a reference while the value or a copy of it is in use.
    #[must_use]
    pub unsafe fn new(desc: *mut u8, avail: *mut u8, used: *mut u8, size: u16) -> Self {
        assert!(size.is_power_of_two());
        Self { desc, avail, used, mask: size - 1 }
    }

    /// A ring in new memory. The used ring starts on a cache line that nothing else lies in, at an offset in
    /// its page that is not the available ring's: else every store of one index looks to the processor as if
    /// it might be a store of the other.
    #[must_use]
    pub fn allocate(size: u16) -> Self {
        let n = usize::from(size);
        let avail = n * DESCRIPTOR_BYTES;
        let used = (avail + 6 + 2 * n).next_multiple_of(64) + 64;
        let start = leak_pages(used + 6 + 8 * n).as_mut_ptr();
        // SAFETY: the offsets follow the sizes of the parts and are multiples of 16 (a table of one
        // descriptor is 16 bytes long), 16 and 64; the memory is new and leaked.
        unsafe { Self::new(start, start.add(avail), start.add(used), size) }
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.mask + 1
    }

    /// Address of the descriptor table.
    #[must_use]
    pub fn desc(&self) -> *mut u8 {
        self.desc
    }

    /// Address of the available ring.
    #[must_use]
    pub fn avail(&self) -> *mut u8 {
        self.avail
    }

    /// Address of the used ring.
    #[must_use]
    pub fn used(&self) -> *mut u8 {
        self.used
    }

    /// `index` modulo the ring's size.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, index: u16) -> usize {
        usize::from(index & self.mask)
    }

    /// Writes descriptor `index` (modulo the size), field by field.
    #[inline(always)]
    pub fn write_desc(&self, index: u16, d: Descriptor) {
        let at = self.slot(index) * DESCRIPTOR_BYTES;
        // SAFETY: `slot` is below the ring's size, so the descriptor lies in the table, which is aligned to
        // 16; the offsets are its fields'. See `new` for life and access.
        unsafe {
            AtomicU64::from_ptr(self.desc.add(at).cast()).store(d.addr, Ordering::Relaxed);
            AtomicU32::from_ptr(self.desc.add(at + 8).cast()).store(d.len, Ordering::Relaxed);
            AtomicU16::from_ptr(self.desc.add(at + 12).cast()).store(d.flags, Ordering::Relaxed);
            AtomicU16::from_ptr(self.desc.add(at + 14).cast()).store(d.next, Ordering::Relaxed);
        }
    }

    /// Reads descriptor `index` (modulo the size).
    #[inline(always)]
    #[must_use]
    pub fn read_desc(&self, index: u16) -> Descriptor {
        // SAFETY: `slot` is below the ring's size, so the descriptor lies in the table; see `new`.
        unsafe { read_descriptor(self.desc, self.slot(index)) }
    }

    #[inline(always)]
    fn half(&self, part: *mut u8, offset: usize) -> &AtomicU16 {
        // SAFETY: the callers below name offsets inside the part, whose start is aligned to at least 2; all
        // offsets are even. See `new` for life and access.
        unsafe { AtomicU16::from_ptr(part.add(offset).cast()) }
    }

    /// `avail.flags`.
    #[inline(always)]
    #[must_use]
    pub fn avail_flags(&self) -> &AtomicU16 {
        self.half(self.avail, 0)
    }

    /// `avail.idx`.
    #[inline(always)]
    #[must_use]
    pub fn avail_idx(&self) -> &AtomicU16 {
        self.half(self.avail, 2)
    }

    /// `avail.ring[index % size]`.
    #[inline(always)]
    #[must_use]
    pub fn avail_ring(&self, index: u16) -> &AtomicU16 {
        self.half(self.avail, 4 + 2 * self.slot(index))
    }

    /// `used.flags`.
    #[inline(always)]
    #[must_use]
    pub fn used_flags(&self) -> &AtomicU16 {
        self.half(self.used, 0)
    }

    /// `used.idx`.
    #[inline(always)]
    #[must_use]
    pub fn used_idx(&self) -> &AtomicU16 {
        self.half(self.used, 2)
    }

    #[inline(always)]
    fn used_word(&self, index: u16, offset: usize) -> &AtomicU32 {
        // SAFETY: `slot` is below the ring's size, so the element lies in the used ring, whose start is
        // aligned to 4. See `new` for life and access.
        unsafe { AtomicU32::from_ptr(self.used.add(4 + 8 * self.slot(index) + offset).cast()) }
    }

    /// Writes `used.ring[index % size]`.
    #[inline(always)]
    pub fn write_used(&self, index: u16, id: u32, len: u32) {
        self.used_word(index, 0).store(id, Ordering::Relaxed);
        self.used_word(index, 4).store(len, Ordering::Relaxed);
    }

    /// Reads `used.ring[index % size]`: id and length.
    #[inline(always)]
    #[must_use]
    pub fn read_used(&self, index: u16) -> (u32, u32) {
        (self.used_word(index, 0).load(Ordering::Relaxed), self.used_word(index, 4).load(Ordering::Relaxed))
    }
}

/// Reads descriptor `index` of the table at `table`.
///
/// # Safety
/// The table has more than `index` descriptors, is aligned to 16, and stays alive and free of references
/// that overlap it during the call.
#[inline(always)]
#[must_use]
pub unsafe fn read_descriptor(table: *mut u8, index: usize) -> Descriptor {
    let at = index * DESCRIPTOR_BYTES;
    // SAFETY: by the caller's promise the four fields lie in the table, each aligned to its width.
    unsafe {
        Descriptor {
            addr: AtomicU64::from_ptr(table.add(at).cast()).load(Ordering::Relaxed),
            len: AtomicU32::from_ptr(table.add(at + 8).cast()).load(Ordering::Relaxed),
            flags: AtomicU16::from_ptr(table.add(at + 12).cast()).load(Ordering::Relaxed),
            next: AtomicU16::from_ptr(table.add(at + 14).cast()).load(Ordering::Relaxed),
        }
    }
}
