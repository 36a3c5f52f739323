//! One queue of a device, shared by threads: what libvirtio's mutex and condition variable gave, with deadlines.
#![cfg(all(feature = "soft", not(loom)))]

mod driver_common;

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use driver_common::{MODERN, SOON, channel, checked, kept_the_rules};
use virtio::Error;
use virtio::device::{Device, QueueConfig, SharedQueue};
use virtio::event::Deadline;
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::queue::Token;
use virtio::soft::{DeviceLie, Entropy, Lie, Run, SoftDevice};
use virtio::sync::Mutex;

/// How much later than its deadline a call may come back.
const SLACK: Duration = Duration::from_millis(50);

/// A device that fills buffers, its queue of `size`, and a pool of buffers.
fn set_up(
    run: Run,
    size: u16,
    features: Features,
    lies: Vec<DeviceLie>,
) -> (SoftDevice, Device, SharedQueue, DmaPool) {
    let (soft, device) = MODERN.open(SoftDevice::builder(Entropy::new(7)).lies(lies), run);
    device.negotiate(features, Features::EMPTY).unwrap();
    let queue = device.take_queue(0, QueueConfig::size(size)).unwrap().share();
    device.start().unwrap();
    let pool = device.pool(64, 64).unwrap();
    (soft, device, queue, pool)
}

/// A buffer, as soon as there is one: what was reaped and not fetched keeps its buffer, so that whoever adds faster
/// than others fetch finds the pool empty.
fn take(pool: &DmaPool) -> DmaBuf {
    let deadline = Deadline::after(SOON);
    loop {
        match pool.take() {
            Ok(buf) => return buf,
            Err(error) => assert!(!deadline.passed(), "{error}"),
        }
        thread::yield_now();
    }
}

fn submit(queue: &SharedQueue, pool: &DmaPool) -> Token {
    let token = queue.add([], [take(pool)], Deadline::after(SOON)).unwrap();
    queue.notify().unwrap();
    token
}

/// The thread sanitizer sees a join, but not the end of a scope.
fn join<'a>(threads: impl IntoIterator<Item = thread::ScopedJoinHandle<'a, ()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn m5_eight_threads_on_four_slots_lose_and_double_nothing() {
    const EACH: usize = 2_000;
    let (soft, _device, queue, pool) = set_up(Run::Thread, 4, Features::EVENT_IDX, vec![]);
    let seen = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        let waiters = [(); 8].map(|()| {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let token = submit(&queue, &pool);
                    let used = queue.wait(token, Deadline::after(SOON)).unwrap();
                    assert_eq!((used.token, used.written), (token, 64));
                    assert!(seen.lock().unwrap().insert(token), "{token:?} came twice");
                }
            })
        });
        join(waiters);
    });
    assert_eq!(seen.into_inner().unwrap().len(), 8 * EACH);
    assert_eq!(pool.free(), 64);
    kept_the_rules(&soft);
}

#[test]
fn what_nobody_waits_for_comes_to_whoever_takes_any() {
    const EACH: usize = 1_000;
    let (soft, _device, queue, pool) = set_up(Run::Thread, 8, Features::EMPTY, vec![]);
    let (given, taken) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    thread::scope(|scope| {
        let givers = [(); 2].map(|()| {
            scope.spawn(|| {
                for _ in 0..EACH {
                    assert!(given.lock().unwrap().insert(submit(&queue, &pool)));
                }
            })
        });
        let takers = [(); 2].map(|()| {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let used = queue.get(Deadline::after(SOON)).unwrap();
                    assert!(taken.lock().unwrap().insert(used.token));
                }
            })
        });
        join(givers.into_iter().chain(takers));
    });
    assert_eq!(given.into_inner().unwrap(), taken.into_inner().unwrap());
    kept_the_rules(&soft);
}

#[test]
fn who_waits_for_room_is_served_in_order() {
    let (soft, _device, queue, pool) = set_up(Run::Stepped, 1, Features::EMPTY, vec![]);
    let first = submit(&queue, &pool);
    let ((stand, stands), (tell, told), (ring, rung)) = (channel(), channel(), channel());
    thread::scope(|scope| {
        let mut waiters = Vec::new();
        for number in 0..4 {
            let (queue, pool) = (&queue, &pool);
            let (stand, tell, ring) = (stand.clone(), tell.clone(), ring.clone());
            waiters.push(scope.spawn(move || {
                let buf = pool.take().unwrap();
                let waits = || {
                    stand.send(number);
                    Ok(())
                };
                let token = queue.add_with([], [buf], Deadline::after(SOON), waits).unwrap();
                // The order shows before the device can serve this one and so make room for the next.
                tell.send((number, token));
                queue.notify().unwrap();
                ring.send(());
            }));
            // In line, and past the notification that it gives there: later, that could show the device what another
            // has added, and be on its way yet when that one finds nothing left to notify of.
            while stands.recv_timeout(SOON).unwrap() != number {}
            assert_eq!(queue.in_line(), number + 1);
        }
        let mut token = first;
        for number in 0..4 {
            soft.settle().unwrap();
            assert_eq!(queue.wait(token, Deadline::after(SOON)).unwrap().token, token);
            let (who, next) = told.recv_timeout(SOON).unwrap();
            assert_eq!(who, number);
            // A stepped device looks at a queue only when it was notified.
            rung.recv_timeout(SOON).unwrap();
            token = next;
        }
        soft.settle().unwrap();
        queue.wait(token, Deadline::after(SOON)).unwrap();
        join(waiters);
    });
    assert!(matches!(queue.try_add([], []), Err(Error::BadChain(_))));
    kept_the_rules(&soft);
}

#[test]
fn r3_a_time_out_comes_in_time_and_loses_nothing() {
    let (soft, _device, queue, pool) = set_up(Run::Stepped, 4, Features::EVENT_IDX, vec![]);
    let token = submit(&queue, &pool);
    for limit in [Duration::ZERO, Duration::from_millis(120)] {
        let start = Instant::now();
        let outcome = queue.wait(token, Deadline::after(limit));
        assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
        let spent = start.elapsed();
        assert!(spent >= limit && spent < limit + SLACK, "{spent:?} for {limit:?}");
    }
    assert!(matches!(queue.get(Deadline::after(Duration::ZERO)), Err(Error::Timeout { .. })));
    assert_eq!(pool.free(), 63, "the buffer stays in flight");
    soft.settle().unwrap();
    assert_eq!(queue.wait(token, Deadline::after(SOON)).unwrap().written, 64);
    assert_eq!(pool.free(), 64);
}

#[test]
fn m1_a_token_is_good_once_and_for_one_waiter() {
    let (soft, _device, queue, pool) = set_up(Run::Stepped, 4, Features::EMPTY, vec![]);
    let token = submit(&queue, &pool);
    let stale = |token| matches!(queue.wait(token, Deadline::after(SOON)), Err(Error::StaleToken { .. }));
    assert!(stale(Token::from_raw(token.into_raw() ^ 1 << 48)), "another queue's");
    assert!(stale(Token::from_raw(token.into_raw().wrapping_add(1))), "another life's");
    thread::scope(|scope| {
        // One of the two is refused at once; which one is their affair.
        let outcomes =
            [0, 1].map(|_| scope.spawn(|| queue.wait(token, Deadline::after(SOON)).map(|used| used.token)));
        let deadline = Deadline::after(SOON);
        while !outcomes.iter().any(thread::ScopedJoinHandle::is_finished) {
            assert!(!deadline.passed());
            thread::yield_now();
        }
        soft.settle().unwrap();
        let results = outcomes.map(|outcome| outcome.join().unwrap());
        assert_eq!(results.iter().filter(|result| **result == Ok(token)).count(), 1, "{results:?}");
        let refused = |result: &&virtio::Result<Token>| matches!(result, Err(Error::StaleToken { .. }));
        assert_eq!(results.iter().filter(refused).count(), 1, "{results:?}");
    });
    assert!(stale(token), "fetched already");
}

#[test]
fn m4_close_wakes_every_waiter_at_once() {
    let (_soft, device, queue, pool) = set_up(Run::Stepped, 2, Features::EMPTY, vec![]);
    let tokens = [submit(&queue, &pool), submit(&queue, &pool)];
    thread::scope(|scope| {
        let waits = tokens.map(|token| {
            let queue = &queue;
            scope.spawn(move || queue.wait(token, Deadline::never()).map(drop))
        });
        let any = scope.spawn(|| queue.get(Deadline::never()).map(drop));
        let room = scope.spawn(|| queue.add([], [pool.take().unwrap()], Deadline::never()).map(drop));
        let deadline = Deadline::after(SOON);
        while queue.in_line() == 0 {
            assert!(!deadline.passed());
            thread::yield_now();
        }
        queue.close();
        for waiter in waits.into_iter().chain([any, room]) {
            assert!(matches!(waiter.join().unwrap(), Err(Error::Closed { .. })));
        }
    });
    assert!(matches!(queue.try_add([], [pool.take().unwrap()]), Err(Error::Closed { .. })));
    assert!(matches!(queue.pop(), Err(Error::Closed { .. })));
    drop(queue);
    device.close().unwrap();
    assert_eq!(pool.free(), 64, "what was in flight came home with the reset");
}

/// The device is stepped, and looks at a queue only when it was notified: a threaded one could still be polling, and
/// find the request by itself.
#[test]
fn d16_a_device_that_never_asks_for_notifications_is_notified_at_half_time() {
    let lie = DeviceLie::Ring { queue: 0, chain: 0, lie: Lie::NoNotifyStuck };
    let (soft, _device, queue, pool) = set_up(Run::Stepped, 4, Features::EMPTY, vec![lie]);
    let token = submit(&queue, &pool);
    soft.settle().unwrap();
    queue.wait(token, Deadline::after(SOON)).unwrap();
    let kicks = queue.with(|queue| queue.counters().kicks);
    let token = submit(&queue, &pool);
    soft.settle().unwrap();
    assert!(matches!(queue.pop(), Ok(None)), "the device was not notified, and so has not looked");
    assert_eq!(queue.with(|queue| queue.counters().kicks), kicks);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.wait(token, Deadline::after(Duration::from_secs(2))).map(drop));
        while !waiter.is_finished() {
            soft.settle().unwrap();
            thread::yield_now();
        }
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
    assert!(queue.with(|queue| queue.counters().kicks) > kicks, "the wait itself notified");
}

#[test]
fn d25_a_device_that_never_interrupts_is_polled() {
    let (soft, device, queue, pool) = {
        let soft = checked(SoftDevice::builder(Entropy::new(7)).vectors(0).run(Run::Stepped));
        let device = MODERN.device(&soft).unwrap();
        device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
        let mut config = QueueConfig::size(4);
        config.interrupts = false;
        let queue = device.take_queue(0, config).unwrap().share();
        device.start().unwrap();
        let pool = device.pool(4, 64).unwrap();
        (soft, device, queue, pool)
    };
    let token = submit(&queue, &pool);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.wait(token, Deadline::after(SOON)).map(|used| used.written));
        soft.settle().unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(64));
    });
    drop(device);
}
