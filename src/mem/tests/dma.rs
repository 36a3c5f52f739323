use alloc::sync::Arc;

use crate::Error;
use crate::mem::dma::{DmaLimits, DmaMapper, MAX_REGIONS, SoftDma};
use crate::mem::region::DmaRegion;

#[test]
fn device_addresses_are_neither_pointers_nor_fit_32_bits_and_none_comes_twice() {
    let dma = SoftDma::new();
    let region = DmaRegion::new(4096).unwrap();
    let mut last = 0;
    for _ in 0..4 {
        let addr = dma.map(&region).unwrap().0;
        assert!(addr > u64::from(u32::MAX) && addr != region.as_ptr().addr() as u64 && addr > last);
        assert!(addr.is_multiple_of(4096));
        dma.unmap(&region).unwrap();
        last = addr;
    }
}

#[test]
fn m11_what_is_not_wholly_in_one_region_is_not_mapped() {
    let dma = Arc::new(SoftDma::new());
    let (a, b) = (DmaRegion::new(4096).unwrap(), DmaRegion::new(8192).unwrap());
    let (at_a, at_b) = (dma.map(&a).unwrap().0, dma.map(&b).unwrap().0);
    let mut view = dma.view();
    for (addr, len) in [
        (at_a - 1, 1),
        (at_a - 1, 4097),
        (at_a, 4097),
        (at_a + 4096, 1),
        (at_a + 4095, 2),
        (at_a + 1, usize::MAX),
        (at_b + 8192, 1),
        (at_a, usize::try_from(at_b - at_a).unwrap() + 1),
        (0, 1),
        (u64::MAX, 2),
        (at_a & 0xffff_ffff, 1),
        (a.as_ptr().addr() as u64, 1),
    ] {
        assert!(dma.translate(addr, len).is_none(), "{addr:#x}+{len:#x}");
        let result = view.translate(addr, len).map(drop);
        assert_eq!(result, Err(Error::NotMapped { addr, len: len as u64 }));
    }
    assert_eq!(view.write(at_a + 4090, &[1; 7]), Err(Error::NotMapped { addr: at_a + 4090, len: 7 }));
    assert_eq!(a.load::<u8>(4095).unwrap(), 0, "a refused access wrote something");
    let (region, offset) = view.translate(at_b + 8000, 192).unwrap();
    assert!(Arc::ptr_eq(region, &b) && offset == 8000);
}

#[test]
fn the_device_end_reaches_the_bytes() {
    let dma = Arc::new(SoftDma::new());
    let region = DmaRegion::new(4096).unwrap();
    let addr = dma.map(&region).unwrap().0;
    let mut view = dma.view();
    region.write(5, b"driver").unwrap();
    let mut seen = [0; 6];
    view.read(addr + 5, &mut seen).unwrap();
    assert_eq!(&seen, b"driver");
    view.store(addr + 64, 0x0102_0304u32).unwrap();
    assert_eq!(region.load::<u32>(64).unwrap(), 0x0102_0304);
    assert_eq!(
        view.load::<u16>(addr + 64).unwrap(),
        0x0102_0304u32 as u16 * u16::from(cfg!(target_endian = "little"))
    );
    view.fill(addr + 100, 3, 8).unwrap();
    dma.write(addr + 101, b"!").unwrap();
    let mut seen = [0; 4];
    dma.read(addr + 100, &mut seen).unwrap();
    assert_eq!(&seen, &[8, b'!', 8, 0]);
}

#[test]
fn a_view_follows_mapping_and_unmapping() {
    let dma = Arc::new(SoftDma::new());
    let mut view = dma.view();
    let region = DmaRegion::new(4096).unwrap();
    let addr = dma.map(&region).unwrap().0;
    view.write(addr, b"x").unwrap();
    dma.unmap(&region).unwrap();
    assert!(view.write(addr, b"y").is_err());
    assert_eq!(region.load::<u8>(0).unwrap(), b'x');
    drop(view);
    assert_eq!(Arc::strong_count(&region), 1, "nobody holds an unmapped region");
}

#[test]
fn a_mapped_region_lives_as_long_as_the_device_can_reach_it() {
    let dma = SoftDma::new();
    let region = DmaRegion::new(4096).unwrap();
    let addr = dma.map(&region).unwrap().0;
    drop(region);
    dma.write(addr, b"still there").unwrap();
}

#[test]
fn limits_hold_and_misuse_is_named() {
    let dma = SoftDma::new();
    let regions: [_; MAX_REGIONS + 1] = core::array::from_fn(|_| DmaRegion::new(4096).unwrap());
    for region in &regions[..MAX_REGIONS] {
        dma.map(region).unwrap();
        assert!(matches!(dma.map(region), Err(Error::Misuse { .. })), "mapped twice");
    }
    assert!(matches!(dma.map(&regions[MAX_REGIONS]), Err(Error::MemoryLimit { .. })));
    assert!(matches!(dma.unmap(&regions[MAX_REGIONS]), Err(Error::Misuse { .. })));
    let narrow = DmaLimits { max_addr: 0xffff, alignment: 8192, ..DmaLimits::default() };
    let dma = SoftDma::with_limits(0x1000, narrow);
    assert_eq!(dma.limits(), narrow);
    assert_eq!(dma.map(&regions[0]).unwrap().0, 0x2000);
    let large = DmaRegion::new(0xd000).unwrap();
    assert!(matches!(dma.map(&large), Err(Error::MemoryLimit { .. })));
}
