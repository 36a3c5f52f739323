#![expect(unsafe_code, reason = "a region over raw memory")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::child::in_child;
use crate::Error;
use crate::mem::region::{DmaRegion, HugePages};

fn memfd(flags: MemfdFlags, len: u64) -> File {
    let file = memfd_create(c"test", flags | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len).unwrap();
    File::from(file)
}

fn sealable(len: u64) -> File {
    memfd(MemfdFlags::ALLOW_SEALING, len)
}

fn misuse(result: crate::Result<Arc<DmaRegion>>, names: &str) {
    match result {
        Err(Error::Misuse { what }) => assert!(what.contains(names), "{what}"),
        other => panic!("{other:?} instead of a misuse that names {names}"),
    }
}

#[test]
fn a_region_is_zero_page_rounded_and_close_on_exec() {
    let region = DmaRegion::new(1).unwrap();
    assert_eq!(region.len(), rustix::param::page_size());
    assert_eq!(region.page_size(), rustix::param::page_size());
    let mut bytes = vec![1; region.len()];
    region.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|b| *b == 0));
    let flags = rustix::io::fcntl_getfd(&*region.fd().unwrap()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn v5_nobody_can_shrink_grow_or_seal_a_region_of_ours() {
    let region = DmaRegion::new(8192).unwrap();
    let fd = region.fd().unwrap();
    assert_eq!(ftruncate(&*fd, 4096), Err(Errno::PERM));
    assert_eq!(ftruncate(&*fd, 1 << 20), Err(Errno::PERM));
    assert_eq!(rustix::fs::fcntl_add_seals(&*fd, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
}

#[test]
fn another_mapping_of_the_descriptor_shares_the_bytes() {
    let region = DmaRegion::new(4096).unwrap();
    let file = File::from(region.fd().unwrap().as_fd().try_clone_to_owned().unwrap());
    file.write_all_at(b"outside", 10).unwrap();
    let mut seen = [0; 7];
    region.read(10, &mut seen).unwrap();
    assert_eq!(&seen, b"outside");
    region.write(100, b"inside").unwrap();
    let mut seen = [0; 6];
    file.read_exact_at(&mut seen, 100).unwrap();
    assert_eq!(&seen, b"inside");
}

#[test]
fn every_access_is_checked_against_the_region() {
    let region = DmaRegion::new(4096).unwrap();
    let out =
        |r: crate::Result<()>| assert!(matches!(r, Err(Error::OutOfBounds { size: 4096, .. })), "{r:?}");
    out(region.read(4090, &mut [0; 7]));
    out(region.write(4090, &[1; 7]));
    out(region.write(usize::MAX, &[1; 2]));
    out(region.fill(1, 4096, 1));
    out(region.fill(1, usize::MAX, 1));
    out(region.copy_from(0, &region, 4000, 97));
    out(region.copy_from(4000, &region, 0, 97));
    out(region.load::<u32>(4093).map(drop));
    out(region.store::<u64>(4096, 1));
    for result in [region.store::<u16>(1, 1), region.load::<u64>(4).map(drop)] {
        assert!(matches!(result, Err(Error::Misuse { .. })), "{result:?}");
    }
    let mut bytes = [9; 4096];
    region.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4096], "a refused access wrote something");
    region.read(4096, &mut []).unwrap();
}

#[test]
fn words_fills_and_copies_land_where_they_should() {
    let region = DmaRegion::new(4096).unwrap();
    region.store(8, 0x1122_3344_5566_7788u64).unwrap();
    region.store(16, 0xAABBu16).unwrap();
    let mut bytes = [0; 10];
    region.read(8, &mut bytes).unwrap();
    assert_eq!(bytes[..8], 0x1122_3344_5566_7788u64.to_ne_bytes());
    assert_eq!(bytes[8..], 0xAABBu16.to_ne_bytes());
    assert_eq!(region.load::<u64>(8).unwrap(), 0x1122_3344_5566_7788);
    assert_eq!(region.load::<u16>(16).unwrap(), 0xAABB);
    region.store(24, 0x99u8).unwrap();
    region.store(28, 0xDEAD_BEEFu32).unwrap();
    let mut bytes = [7; 10];
    region.read(23, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[1], &bytes[2..5], bytes[9]), (0, 0x99, &[0; 3][..], 0));
    assert_eq!(bytes[5..9], 0xDEAD_BEEFu32.to_ne_bytes());
    assert_eq!(region.load::<u8>(24).unwrap(), 0x99);
    assert_eq!(region.load::<u32>(28).unwrap(), 0xDEAD_BEEF);
    region.fill(100, 5, 7).unwrap();
    let other = DmaRegion::new(4096).unwrap();
    other.copy_from(1, &region, 99, 7).unwrap();
    let mut bytes = [9; 9];
    other.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 7, 7, 7, 7, 7, 0, 0]);
}

#[test]
fn a_callers_memfd_is_sealed_and_keeps_its_content() {
    let file = sealable(16_384);
    file.write_all_at(b"cache", 8192).unwrap();
    let region = DmaRegion::from_fd(file.try_clone().unwrap(), 4096, 12_288).unwrap();
    assert_eq!((region.len(), region.fd_offset()), (12_288, 4096));
    let mut seen = [0; 5];
    region.read(4096, &mut seen).unwrap();
    assert_eq!(&seen, b"cache");
    assert_eq!(ftruncate(&file, 8192), Err(Errno::PERM), "it can still be shrunk");
    ftruncate(&file, 32_768).unwrap();
    drop(region);
    assert_eq!(ftruncate(&file, 8192), Err(Errno::PERM), "the seal is for good");
}

#[test]
fn a_memfd_that_is_sealed_already_is_taken_as_it_is() {
    let file = sealable(4096);
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL).unwrap();
    DmaRegion::from_fd(file, 0, 4096).unwrap();
}

#[test]
fn a_length_within_a_page_is_kept_exactly() {
    let region = DmaRegion::from_fd(sealable(1000), 0, 1000).unwrap();
    assert_eq!(region.len(), 1000);
    region.write(990, &[1; 10]).unwrap();
    assert!(region.write(991, &[1; 10]).is_err());
}

#[test]
fn files_that_cannot_be_sealed_are_refused_with_the_remedy() {
    misuse(DmaRegion::from_fd(memfd(MemfdFlags::empty(), 4096), 0, 4096), "MFD_ALLOW_SEALING");
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        let path = folder.join(std::format!("virtio-mem-test-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(4096).unwrap();
        misuse(DmaRegion::from_fd(file, 0, 4096), "memfd_create");
    }
    misuse(DmaRegion::from_fd(File::open("/dev/null").unwrap(), 0, 4096), "reading and writing");
}

#[test]
fn descriptors_that_cannot_be_written_are_refused() {
    let file = sealable(4096);
    let path = std::format!("/proc/self/fd/{}", file.as_raw_fd());
    misuse(DmaRegion::from_fd(File::open(path).unwrap(), 0, 4096), "reading and writing");
    for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
        let file = sealable(4096);
        rustix::fs::fcntl_add_seals(&file, seal).unwrap();
        misuse(DmaRegion::from_fd(file, 0, 4096), "sealed against writing");
    }
}

#[test]
fn v5_a_file_shorter_than_promised_is_refused() {
    for (offset, len) in [(0, 8193), (4096, 4097), (8192, 1), (1 << 40, 4096)] {
        let result = DmaRegion::from_fd(sealable(8192), offset, len);
        assert!(matches!(result, Err(Error::OutOfBounds { size: 8192, .. })), "{result:?}");
    }
    let result = DmaRegion::from_fd(sealable(8192), u64::MAX, 2);
    assert!(matches!(result, Err(Error::OutOfBounds { .. })), "{result:?}");
    misuse(DmaRegion::from_fd(sealable(8192), 100, 100), "page");
}

#[test]
fn memory_of_no_bytes_is_refused() {
    misuse(DmaRegion::new(0), "no bytes");
    misuse(DmaRegion::from_fd(sealable(4096), 0, 0), "no bytes");
    // SAFETY: no bytes are vouched for.
    misuse(unsafe { DmaRegion::from_raw(NonNull::dangling(), 0, Box::new(())) }, "no bytes");
}

#[test]
fn lengths_that_no_mapping_can_have_are_limits() {
    for len in [usize::MAX, isize::MAX as usize, usize::MAX - 4095] {
        let result = DmaRegion::new(len);
        assert!(matches!(result, Err(Error::MemoryLimit { .. })), "{result:?}");
    }
}

#[test]
fn a_region_over_raw_memory_keeps_its_owner_and_no_descriptor() {
    struct Owner(Arc<AtomicBool>, #[expect(dead_code, reason = "kept, not read")] Arc<DmaRegion>);
    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (dropped, ram) = (Arc::new(AtomicBool::new(false)), DmaRegion::new(16_384).unwrap());
    let base = NonNull::new(ram.as_ptr().wrapping_add(4096)).unwrap();
    let owner = Box::new(Owner(Arc::clone(&dropped), Arc::clone(&ram)));
    // SAFETY: the range lies in `ram`, which the owner keeps mapped.
    let part = unsafe { DmaRegion::from_raw(base, 8192, owner) }.unwrap();
    assert!(part.fd().is_none());
    part.write(1, b"x").unwrap();
    assert_eq!(ram.load::<u8>(4097).unwrap(), b'x');
    assert!(!dropped.load(Ordering::Relaxed));
    drop(part);
    assert!(dropped.load(Ordering::Relaxed));
    let odd = NonNull::new(ram.as_ptr().wrapping_add(1)).unwrap();
    // SAFETY: the range lies in `ram`, which is kept as the owner.
    misuse(unsafe { DmaRegion::from_raw(odd, 4096, Box::new(Arc::clone(&ram))) }, "page");
}

#[test]
fn closing_the_descriptor_keeps_the_bytes() {
    let region = DmaRegion::new(4096).unwrap();
    region.write(0, b"kept").unwrap();
    let fd = Arc::downgrade(&region.fd().unwrap());
    region.close_fd();
    assert!(region.fd().is_none() && fd.upgrade().is_none());
    let mut seen = [0; 4];
    region.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"kept");
}

#[test]
fn e7_huge_pages_are_had_or_refused_with_the_remedy() {
    let free = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = free.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    let free: u64 = free.map_or(0, |n| n.trim().parse().unwrap());
    let tried = DmaRegion::builder().huge_pages(HugePages::Try).build(4096).unwrap();
    match DmaRegion::builder().huge_pages(HugePages::Require).build(4096) {
        Ok(region) => {
            assert!(region.page_size() > rustix::param::page_size());
            assert_eq!(region.len(), region.page_size());
            let again = region.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
            let again = DmaRegion::from_fd(again, 0, 5000).unwrap();
            again.write(4999, b"!").unwrap();
            assert_eq!(again.page_size(), region.page_size(), "found out from the descriptor");
            assert_eq!(region.load::<u8>(4999).unwrap(), b'!');
        }
        Err(Error::MemoryLimit { limit, .. }) => {
            assert!(free == 0 && limit.contains("nr_hugepages"), "{limit}, {free} free");
            assert_eq!(tried.page_size(), rustix::param::page_size());
        }
        Err(Error::Unsupported { what }) => assert!(what.contains("ordinary pages"), "{what}"),
        Err(other) => panic!("{other:?}"),
    }
    tried.write(tried.len() - 1, &[1]).unwrap();
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn e6_no_free_descriptor_is_a_typed_error_that_leaks_nothing() {
    if !in_child("mem::tests::region::e6_no_free_descriptor_is_a_typed_error_that_leaks_nothing") {
        return;
    }
    let caller: OwnedFd = sealable(4096).into();
    let before = open_descriptors();
    let old = getrlimit(Resource::Nofile);
    let next = u64::try_from(rustix::io::dup(&caller).unwrap().as_raw_fd()).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: old.maximum }).unwrap();
    for _ in 0..100 {
        match DmaRegion::new(4096) {
            Err(Error::Os { doing, errno: 24 }) => assert_eq!(doing, "create shared memory"),
            other => panic!("{other:?}"),
        }
    }
    let adopted = DmaRegion::from_fd(caller, 0, 4096).unwrap();
    setrlimit(Resource::Nofile, old).unwrap();
    drop(adopted);
    assert_eq!(open_descriptors(), before - 1, "only the caller's descriptor is gone");
    DmaRegion::new(4096).unwrap();
}

#[test]
#[cfg_attr(any(asan, tsan), ignore = "the sanitizer's own memory is beyond any such limit")]
fn e4_an_address_space_limit_is_a_typed_error_that_leaks_nothing() {
    if !in_child("mem::tests::region::e4_an_address_space_limit_is_a_typed_error_that_leaks_nothing") {
        return;
    }
    let before = open_descriptors();
    let old = getrlimit(Resource::As);
    let used = std::fs::read_to_string("/proc/self/statm").unwrap();
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    // Counted from what is in use: a sanitizer reserves terabytes.
    let allowed = used * rustix::param::page_size() as u64 + (256 << 20);
    setrlimit(Resource::As, Rlimit { current: Some(allowed), maximum: old.maximum }).unwrap();
    for _ in 0..100 {
        match DmaRegion::new(2 << 30) {
            Err(Error::MemoryLimit { needed, have, limit }) => {
                assert_eq!((needed, have), (2 << 30, allowed));
                assert!(limit.contains("ulimit -v"));
            }
            other => panic!("{other:?}"),
        }
    }
    DmaRegion::new(4096).unwrap();
    assert_eq!(open_descriptors(), before);
}
