//! A block device in use takes no memory from the heap: no call, no request, no answer.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code)]

mod driver_common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use driver_common::{LEGACY, MODERN, SOON, rings};
use virtio::drivers::{Block, BlockOptions};
use virtio::soft::{self, Run, SoftDevice};

std::thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread takes: the device's thread is not asked.
struct Counting;

// SAFETY: every call goes to `System` unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller keeps `GlobalAlloc`'s rules, which are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

#[test]
fn calls_in_a_steady_state_take_nothing_from_the_heap() {
    for way in [MODERN, LEGACY] {
        for withheld in rings() {
            let model = soft::Block::zeroes(8192).with_queues(2);
            let (_soft, device) = way.open(SoftDevice::builder(model).withhold(withheld), Run::Thread);
            let mut options = BlockOptions::default();
            (options.timeout, options.queues) = (SOON, 2);
            let block = Block::new(device, options).unwrap();
            let mut bytes = vec![1; 4 << 20];
            let mut buf = Some(block.device().alloc(65_536).unwrap());
            let mut round = || {
                block.write(0, &bytes).unwrap();
                block.read(0, &mut bytes).unwrap();
                block.read(512, &mut bytes[..4096]).unwrap();
                block.flush().unwrap();
                block.discard(0, 4 << 20).unwrap();
                let given = block.write_from(0, buf.take().unwrap()).unwrap();
                buf = Some(block.read_into(0, given).unwrap());
            };
            // The thread's own number, and a look at the clock.
            round();
            let before = TAKEN.get();
            for _ in 0..20 {
                round();
            }
            assert_eq!(TAKEN.get(), before, "{way:?} {withheld:?}");
        }
    }
}
