//! The RAM of a machine under test, of which its devices' memory is cut.
//!
//! The machine and this process map the same file, so that rings and buffers are shared memory, and the address that
//! a device knows is the offset in the file. What is cut out is a [`DmaRegion`] like any other; it keeps the mapping,
//! and its bytes are handed out again only when the region is gone.
#![cfg(not(loom))]

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::PoisonError;

use super::mapping::bytes;
use super::region::DmaRegion;
use super::spans::Spans;
use crate::error::errno;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// What lies below is not handed out: a machine's first instructions and tables, and on PCs a hole.
const FIRST: usize = 1 << 20;
/// What lies above is not handed out: on PCs an address is an offset below their hole for devices only.
const LAST: usize = 2 << 30;

/// A machine's RAM file, mapped. One for each file and process, whoever asks: memory that a device may still write
/// is then never cut a second time.
#[derive(Debug)]
pub(crate) struct RamFile {
    whole: Arc<DmaRegion>,
    spans: Mutex<Spans>,
    /// Device and inode of the file.
    id: (u64, u64),
}

static OPEN: Mutex<Vec<Weak<RamFile>>> = Mutex::new(Vec::new());

/// A part that was cut out, given back when its region goes.
struct Cut {
    ram: Arc<RamFile>,
    offset: usize,
    len: usize,
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.ram.spans().give(self.offset, self.len);
    }
}

impl RamFile {
    /// Maps the file at `path`, or gives the mapping that there is.
    ///
    /// [`Error::Os`] where it cannot be opened or mapped, [`Error::MemoryLimit`] where it is too small to cut
    /// anything out of it.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| Error::Os {
            doing: "open the machine's RAM file",
            errno: error.raw_os_error().unwrap_or(errno::EIO),
        })?;
        let file = OwnedFd::from(file);
        let stat = rustix::fs::fstat(&file).map_err(|e| Error::os("look at a machine's RAM file", e))?;
        let id = (stat.st_dev, stat.st_ino);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|ram| ram.strong_count() > 0);
        if let Some(ram) = open.iter().filter_map(Weak::upgrade).find(|ram| ram.id == id) {
            return Ok(ram);
        }
        let whole = DmaRegion::over_ram_file(file)?;
        let mut spans = Spans::new(whole.len().min(LAST));
        let reserved = FIRST.saturating_add(whole.page_size());
        if spans.take(0, reserved, 1).is_none() {
            return Err(Error::MemoryLimit {
                needed: bytes(reserved),
                have: bytes(whole.len()),
                limit: "the machine's RAM: give it some megabytes",
            });
        }
        let ram = Arc::new(Self { whole, spans: Mutex::new(spans), id });
        open.push(Arc::downgrade(&ram));
        Ok(ram)
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page that interrupt messages are written to: the same for whoever asks, and never handed out, since a
    /// device that was given up may still send some.
    pub(crate) fn messages(&self) -> Result<Arc<DmaRegion>> {
        self.whole.part(FIRST, self.whole.page_size(), Box::new(()))
    }

    /// Cuts out `len` bytes, rounded up to whole pages, all zero. [`Error::MemoryLimit`] where there is no room.
    pub(crate) fn cut(self: &Arc<Self>, len: usize) -> Result<Arc<DmaRegion>> {
        let page = self.whole.page_size();
        let full = |have| Error::MemoryLimit {
            needed: bytes(len),
            have: bytes(have),
            limit: "the machine's RAM: give it more, or close devices",
        };
        let whole_pages = len.checked_next_multiple_of(page).ok_or_else(|| full(0))?;
        let span = {
            let mut spans = self.spans();
            spans.take(0, whole_pages, bytes(page)).ok_or_else(|| full(spans.free_bytes()))?
        };
        let cut = Cut { ram: Arc::clone(self), offset: span.offset, len: span.len };
        // Whatever ran in the machine may have left something there.
        self.whole.fill(span.offset, span.len, 0)?;
        self.whole.part(span.offset, span.len, Box::new(cut))
    }

    /// Where a region that was cut from this file begins in it; `None` for another one.
    pub(crate) fn offset_of(&self, region: &DmaRegion) -> Option<u64> {
        let offset = region.as_ptr().addr().checked_sub(self.whole.as_ptr().addr())?;
        let end = offset.checked_add(region.len())?;
        (end <= self.whole.len()).then(|| bytes(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::mapping::base_page_size;

    fn file(len: usize) -> (std::path::PathBuf, Arc<RamFile>) {
        let name = std::format!("virtio-ram-{}-{len}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, std::vec![7; len]).unwrap();
        let ram = RamFile::open(&path).unwrap();
        (path, ram)
    }

    #[test]
    fn parts_are_zero_apart_and_in_the_file() {
        let (path, ram) = file(2 << 20);
        let page = base_page_size();
        let (a, b) = (ram.cut(page + 1).unwrap(), ram.cut(1).unwrap());
        assert_eq!((a.len(), b.len()), (2 * page, page));
        let (at, other) = (ram.offset_of(&a).unwrap(), ram.offset_of(&b).unwrap());
        assert!(at > 1 << 20 && other >= at + 2 * page as u64 && at.is_multiple_of(page as u64));
        assert_eq!((a.fd_offset(), a.load::<u64>(0).unwrap()), (at, 0));
        a.write(3, b"shared").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[at as usize + 3..][..6], b"shared");
        assert!(ram.offset_of(&DmaRegion::new(1).unwrap()).is_none());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_part_is_handed_out_again_when_it_is_gone_and_the_file_is_mapped_once() {
        let (path, ram) = file((1 << 20) + 5 * base_page_size());
        let all = ram.cut(4 * base_page_size()).unwrap();
        let again = RamFile::open(&path).unwrap();
        assert!(Arc::ptr_eq(&ram, &again));
        drop((ram, again));
        let again = RamFile::open(&path).unwrap();
        assert!(matches!(again.cut(1), Err(Error::MemoryLimit { have: 0, .. })), "the part keeps the file");
        all.write(0, b"old").unwrap();
        drop(all);
        assert_eq!(again.cut(1).unwrap().load::<u32>(0).unwrap(), 0);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_without_room_is_refused() {
        let path = std::env::temp_dir().join(std::format!("virtio-ram-small-{}", std::process::id()));
        std::fs::write(&path, [0; 5000]).unwrap();
        assert!(matches!(RamFile::open(&path), Err(Error::MemoryLimit { .. })));
        std::fs::write(&path, []).unwrap();
        assert!(matches!(RamFile::open(&path), Err(Error::Misuse { .. })));
        std::fs::remove_file(path).unwrap();
    }
}
