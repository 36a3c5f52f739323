use alloc::sync::Arc;
use alloc::vec::Vec;
use std::string::{String, ToString};
use std::sync::Mutex;

use super::child::in_child;
use crate::Error;
use crate::mem::dma::SoftDma;
use crate::mem::pool::DmaPool;
use crate::mem::quarantine::{StoppedProof, Tally, kept};
use crate::mem::space::DmaSpace;

fn space() -> (Arc<SoftDma>, DmaSpace) {
    let dma = Arc::new(SoftDma::new());
    (dma.clone(), DmaSpace::new(dma))
}

#[test]
fn r9_what_is_held_comes_out_with_this_devices_proof_only() {
    let ((_, space), (_, other)) = (space(), self::space());
    let pool = DmaPool::new(&space, 4, 512).unwrap();
    let leases: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
    space.quarantine().hold(leases, 3 * 512);
    space.quarantine().hold(pool.take().unwrap(), 512);
    assert_eq!(space.quarantine().tally(), Tally { count: 2, bytes: 2048 });
    let refused = space.quarantine().release(&StoppedProof::confirmed(&other));
    assert!(matches!(refused, Err(Error::Misuse { .. })));
    assert!(pool.take().is_err(), "a quarantined buffer was used again");
    let proof = StoppedProof::confirmed(&space);
    assert_eq!(space.quarantine().release(&proof), Ok(Tally { count: 2, bytes: 2048 }));
    assert_eq!(space.quarantine().tally(), Tally::default());
    assert_eq!(pool.free(), 4);
    space.close(&proof).unwrap();
}

#[test]
fn closing_with_a_proof_empties_the_quarantine() {
    let (_, space) = space();
    let thing = Arc::new(());
    space.quarantine().hold(Arc::clone(&thing), 8);
    space.close(&StoppedProof::confirmed(&space)).unwrap();
    assert_eq!(Arc::strong_count(&thing), 1);
}

#[test]
fn r9_without_a_proof_mappings_stay_and_descriptors_go() {
    let (dma, space) = space();
    let pool = DmaPool::new(&space, 2, 4096).unwrap();
    let (lease, other) = (pool.take().unwrap(), pool.take().unwrap());
    let addr = lease.device_addr();
    lease.write(0, b"in flight").unwrap();
    let region = Arc::downgrade(lease.region());
    let descriptor = Arc::downgrade(&lease.region().fd().unwrap());
    space.quarantine().hold(lease, 4096);
    let before = kept();
    drop(space);
    drop(other);
    assert!(pool.take().is_ok() && pool.slot(0).is_err(), "the buffer in flight was used again");
    drop(pool);
    assert!(descriptor.upgrade().is_none(), "the descriptor is open");
    dma.write(addr + 3, b"!").unwrap();
    let mut seen = [0; 9];
    dma.read(addr, &mut seen).unwrap();
    assert_eq!(&seen, b"in !light");
    drop(dma);
    let region = region.upgrade().expect("the region was unmapped");
    let mut seen = [0; 9];
    region.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"in !light");
    let after = kept();
    assert!(after.count >= before.count + 2 && after.bytes >= before.bytes + (2 << 20) + 4096, "{after:?}");
}

#[test]
fn a_callers_region_is_kept_mapped_as_well() {
    let (_, space) = space();
    let region = crate::mem::region::DmaRegion::new(4096).unwrap();
    drop(space.add_region(&region).unwrap());
    drop(space);
    assert!(region.fd().is_none());
    let weak = Arc::downgrade(&region);
    drop(region);
    assert!(weak.upgrade().is_some());
}

struct Collect(Mutex<Vec<String>>);

impl log::Log for Collect {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Error {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

static LOG: Collect = Collect(Mutex::new(Vec::new()));

#[test]
fn what_is_kept_for_ever_is_logged_with_its_size() {
    // The logger is one for the process.
    if !in_child("mem::tests::quarantine::what_is_kept_for_ever_is_logged_with_its_size") {
        return;
    }
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let space = DmaSpace::with_first_region(Arc::new(SoftDma::new()), 77 * 4096);
    drop(space.alloc(1, 1).unwrap());
    space.quarantine().hold((), 123_457);
    drop(space);
    let lines = LOG.0.lock().unwrap();
    for size in ["315392 bytes", "(123457 bytes)"] {
        let found = lines.iter().any(|line| line.contains(size) && line.contains("not proven"));
        assert!(found, "{size}: {lines:?}");
    }
}
