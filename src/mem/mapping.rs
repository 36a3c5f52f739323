//! Making, sealing and mapping memory files: the system calls beneath [`super::region`].
#![expect(unsafe_code, reason = "mmap and munmap")]

use core::ptr::NonNull;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

use crate::{Error, Result};

/// File system magic of hugetlbfs, on which huge page memory files live.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// A shared, writable mapping of a memory file, unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and the type gives nothing but its address.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes (a multiple of `page_size`) of `file` from `offset` on.
    pub(super) fn shared(file: BorrowedFd<'_>, offset: u64, len: usize, page_size: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so that no existing mapping can be replaced.
        let base = unsafe {
            rustix::mm::mmap(core::ptr::null_mut(), len, protection, MapFlags::SHARED, file, offset)
        };
        let base = base.map_err(|errno| map_failure(errno, len, page_size))?;
        match NonNull::new(base.cast::<u8>()) {
            Some(base) => Ok(Self { base, len }),
            None => Err(Error::os("map shared memory", Errno::INVAL)),
        }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `shared` mapped; whoever holds the address holds this value.
        let outcome = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        if let Err(errno) = outcome {
            log::error!("munmap of {} bytes failed: {errno}", self.len);
        }
    }
}

/// Bytes as u64, for errors.
pub(super) fn bytes(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Which limit stood against a mapping of `len` bytes.
fn map_failure(errno: Errno, len: usize, page_size: usize) -> Error {
    let needed = bytes(len);
    if errno == Errno::AGAIN {
        // Only a process that locks its future mappings sees this.
        let have = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
        let limit = "the locked memory limit: raise it with ulimit -l";
        return Error::MemoryLimit { needed, have, limit };
    }
    if errno == Errno::NOMEM && page_size > base_page_size() {
        return no_huge_pages(needed, page_size);
    }
    match getrlimit(Resource::As).current {
        Some(have) if errno == Errno::NOMEM => {
            let limit = "the address space limit: raise it with ulimit -v";
            Error::MemoryLimit { needed, have, limit }
        }
        _ => Error::os("map shared memory", errno),
    }
}

fn no_huge_pages(needed: u64, page_size: usize) -> Error {
    let free = std::format!("/sys/kernel/mm/hugepages/hugepages-{}kB/free_hugepages", page_size / 1024);
    let free = std::fs::read_to_string(free).ok().and_then(|text| text.trim().parse::<u64>().ok());
    Error::MemoryLimit {
        needed,
        have: free.unwrap_or(0).saturating_mul(bytes(page_size)),
        limit: "the free huge pages: write a larger number to /proc/sys/vm/nr_hugepages",
    }
}

/// The machine's ordinary page size in bytes.
pub(super) fn base_page_size() -> usize {
    rustix::param::page_size()
}

/// Page size of a memory file in bytes: the huge page size on hugetlbfs.
pub(super) fn page_size_of(file: BorrowedFd<'_>) -> Result<usize> {
    let stat = rustix::fs::fstatfs(file).map_err(|e| Error::os("ask for a file's page size", e))?;
    // The width of these fields differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    let (kind, block) = (stat.f_type as u64 & 0xffff_ffff, stat.f_bsize as u64);
    let block = usize::try_from(block).unwrap_or(0);
    let huge = kind == HUGETLBFS_MAGIC && block.is_power_of_two() && block >= base_page_size();
    Ok(if huge { block } else { base_page_size() })
}

/// A new memory file of at least `len` bytes, rounded up to its page size, that nobody can shrink, grow or
/// seal further. Answers the file, its length and its page size.
pub(super) fn create(len: usize, huge: bool) -> Result<(OwnedFd, usize, usize)> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge {
        flags |= MemfdFlags::HUGETLB;
    }
    let file = rustix::fs::memfd_create(c"virtio-dma", flags).map_err(|e| match e {
        Errno::NOENT | Errno::NOSYS | Errno::INVAL | Errno::NODEV if huge => {
            Error::Unsupported { what: "huge pages: the kernel has none configured; ask for ordinary pages" }
        }
        e => Error::os("create shared memory", e),
    })?;
    let page_size = page_size_of(file.as_fd())?;
    let len = round_up(len, page_size)?;
    rustix::fs::ftruncate(&file, bytes(len)).map_err(|e| Error::os("size shared memory", e))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(|e| Error::os("seal shared memory", e))?;
    Ok((file, len, page_size))
}

/// `len` rounded up to whole pages. A length that no mapping can have is a limit.
pub(super) fn round_up(len: usize, page_size: usize) -> Result<usize> {
    len.checked_next_multiple_of(page_size).filter(|len| isize::try_from(*len).is_ok()).ok_or(
        Error::MemoryLimit {
            needed: bytes(len),
            have: bytes(isize::MAX.unsigned_abs()),
            limit: "the address space",
        },
    )
}

/// Length of a file of whoever else, which is sealed against shrinking where it can be.
#[cfg(all(any(feature = "qtest", all(feature = "soft", feature = "vhost-user")), not(loom)))]
pub(super) fn sealed_len(file: BorrowedFd<'_>) -> Result<u64> {
    if let Ok(seals) = rustix::fs::fcntl_get_seals(file)
        && !seals.contains(SealFlags::SHRINK)
        && let Err(errno) = rustix::fs::fcntl_add_seals(file, SealFlags::SHRINK)
    {
        log::debug!("a memory file is not sealed against shrinking: {errno}");
    }
    // After the seal, so that it cannot shrink between the look and the use.
    let stat = rustix::fs::fstat(file).map_err(|e| Error::os("look at a memory file", e))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Length of a machine's RAM file, in whole pages.
#[cfg(all(feature = "qtest", not(loom)))]
pub(super) fn ram_file_len(file: BorrowedFd<'_>) -> Result<usize> {
    let len = usize::try_from(sealed_len(file)?).unwrap_or(0);
    let pages = page_size_of(file)?;
    Ok(len - len % pages)
}

/// Checks that a caller's memory file can be written and never shrinks below `end` bytes: it is sealed here
/// where it is not yet.
pub(super) fn adopt(file: BorrowedFd<'_>, end: u64) -> Result<()> {
    let mode = rustix::fs::fcntl_getfl(file).map_err(|e| Error::os("look at a caller's memory file", e))?;
    if mode & OFlags::RWMODE != OFlags::RDWR {
        return Err(Error::Misuse {
            what: "the memory file is not open for reading and writing: open it so",
        });
    }
    let unsealable = Error::Misuse {
        what: "the file cannot be sealed against shrinking: make it with memfd_create and \
               MFD_ALLOW_SEALING, or copy the data into the device's own memory",
    };
    let seals = match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) => seals,
        Err(_) => return Err(unsealable),
    };
    if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(Error::Misuse {
            what: "the memory file is sealed against writing: make one that is not",
        });
    }
    if !seals.contains(SealFlags::SHRINK) && rustix::fs::fcntl_add_seals(file, SealFlags::SHRINK).is_err() {
        return Err(unsealable);
    }
    // After the seal, so that it cannot shrink between the look and the use.
    let stat = rustix::fs::fstat(file).map_err(|e| Error::os("look at a caller's memory file", e))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size < end {
        return Err(Error::OutOfBounds { offset: 0, len: end, size });
    }
    Ok(())
}
