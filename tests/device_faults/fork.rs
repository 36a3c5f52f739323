//! A fork's child has copies of handles, and no device: M6.
#![allow(unsafe_code, reason = "fork")]

use virtio::Error;
use virtio::device::{Phase, QueueConfig};
use virtio::features::Features;
use virtio::mem::region::DmaRegion;
use virtio::soft::Run;

use crate::rig::*;

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Runs `child` in a fork's child, and gives what it answered: 0 for all well, else what went wrong.
fn in_a_child(child: impl FnOnce() -> u8) -> u8 {
    // SAFETY: the child only uses memory, which is a copy of ours, and leaves by _exit.
    let pid = unsafe { fork() };
    if pid == 0 {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { _exit(caught.unwrap_or(u8::MAX).into()) };
    }
    let mut status = -1;
    // SAFETY: `status` is a live integer.
    let waited = unsafe { waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    assert_eq!(status & 0x7f, 0, "the child was ended by a signal");
    (status >> 8) as u8
}

fn refused<T>(result: Result<T, Error>) -> bool {
    matches!(result.as_ref().map_err(Error::kind), Err(Error::ForkedProcess { .. }))
}

/// Number of the first of these calls, from 1 on, that is not refused in a fork's child; 0 where all are.
macro_rules! first_let_through {
    ($($call:expr),* $(,)?) => {
        [$(refused($call)),*].iter().position(|refused| !refused).map_or(0, |at| at as u8 + 1)
    };
}

fn bytes(region: &DmaRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.len()];
    region.read(0, &mut bytes).unwrap();
    bytes
}

each!(m6_every_call_in_a_forks_child_is_refused_and_nothing_is_touched(way) on all {
    let mut busy = Busy::new(way, console());
    let shared = busy.queues.pop().unwrap().share();
    let watch = busy.device.watch().unwrap();
    let region = busy.device.memory().regions()[0].0.clone();
    let before = (bytes(&region), busy.soft.report());
    let wrong = in_a_child(|| {
        let (device, queue) = (&busy.device, &mut busy.queues[0]);
        let buf = || busy.pool.take().ok();
        let wrong = first_let_through![
            device.status(), device.offered(), device.events(), device.watch(), device.reset(), device.close(),
            device.start(), device.negotiate(Features::EMPTY, Features::EMPTY),
            device.take_queue(0, QueueConfig::default()), device.alloc(1), device.pool(1, 64),
            device.config().read(0, 2), device.config().read(0, 8), device.config().write(8, 4, 1),
            device.config().snapshot(Features::EMPTY),
            queue.add_chain(buf(), None), queue.notify(), queue.pop(), queue.get(None),
            queue.enable_interrupts(), queue.close(deadline()),
            shared.add(None.into_iter().collect::<Vec<_>>(), vec![], deadline()),
            shared.try_add(vec![], vec![]), shared.notify(), shared.pop(), shared.get(deadline()),
            shared.wait(busy.token, deadline()),
            watch.wait(virtio::event::Deadline::never()),
        ];
        queue.disable_interrupts();
        shared.close();
        if wrong != 0 {
            return wrong;
        }
        let told = (device.phase(), device.features(), device.negotiated().is_none());
        let as_closed = told == (Phase::Closed, Features::EMPTY, true);
        let untouched = (bytes(&region), busy.soft.report()) == before;
        if as_closed && untouched { 0 } else { 200 + u8::from(untouched) }
    });
    assert_eq!(wrong, 0, "call number");
    assert!((bytes(&region), busy.soft.report()) == before);
    drop((watch, shared));
    busy.device.reset().unwrap();
    busy.ends_once();
    let soft = busy.soft.clone();
    busy.starts_again();
    kept_the_rules(&soft);
});

each!(m6_what_is_dropped_in_a_forks_child_touches_neither_device_nor_memory(way) on all {
    for run in [Run::Inline, Run::Thread] {
        let soft = checked(console().interface(way.interface).byte_order(way.order).run(run));
        let device = negotiated(way, &soft).unwrap();
        let mut queues = start(&device).unwrap();
        let pool = device.pool(2, 64).unwrap();
        let token = queues[0].add_chain([], [pool.take().unwrap()]).unwrap();
        queues[0].notify().unwrap();
        send(&device, &mut queues[1]).unwrap();
        // What one byte that was sent gives queue 0.
        assert_eq!(queues[0].get(Some(SOON)).unwrap().token, token);
        let token = queues[0].add_chain([], [pool.take().unwrap()]).unwrap();
        queues[0].notify().unwrap();
        let region = pool.memory().region().clone();
        let before = (bytes(&region), soft.report());
        let mut held = Some((device, queues, pool));
        let wrong = in_a_child(|| {
            let Some((device, queues, pool)) = held.take() else { return 1 };
            // Any order of drops.
            drop(queues);
            drop(device);
            drop(pool);
            // A thread may have had the device's lock at the fork, and has it in the child for ever.
            let registers = run == Run::Thread || soft.report() == before.1;
            u8::from(!registers) << 1 | u8::from(bytes(&region) != before.0) << 2
        });
        assert_eq!(wrong, 0);
        assert!((bytes(&region), soft.report()) == before);
        // The parent's device serves as before.
        let (device, mut queues, pool) = held.take().unwrap();
        send(&device, &mut queues[1]).unwrap();
        assert_eq!(queues[0].get(Some(SOON)).unwrap().token, token);
        drop(queues);
        device.close().unwrap();
        assert_eq!((device.memory().quarantine().tally().count, pool.free()), (0, 2));
        kept_the_rules(&soft);
    }
});

each!(m6_a_forks_child_waits_for_no_lock_of_a_thread_that_it_has_not(way) on all {
    let mut busy = Busy::new(way, console());
    let held = std::sync::Barrier::new(2);
    let soft = busy.soft.clone();
    soft.tell(virtio::soft::DeviceLie::StatusNeverResets).unwrap();
    std::thread::scope(|scope| {
        // A reset that takes its time has the device's lock.
        let reset = scope.spawn(|| {
            held.wait();
            busy.device.reset()
        });
        held.wait();
        let wrong = in_a_child(|| {
            let closed = busy.device.phase() == Phase::Closed && busy.device.negotiated().is_none();
            u8::from(!(closed && refused(busy.device.reset()) && refused(busy.device.events())))
        });
        assert_eq!(wrong, 0);
        fails!(reset.join().unwrap(), Error::ResetTimeout { .. });
    });
    busy.ends_once();
    busy.starts_again();
});
