//! Deadlines, and what happens on the way to them.

use std::time::{Duration, Instant};

use virtio::Error;
use virtio::event::Deadline;
use virtio::sync::{Arc, AtomicBool, AtomicU64, Ordering};

use crate::SLACK;
use crate::rig::{Case, Manner, Queue, ROOM, range, soon, spawn, until};

const LIMIT: Duration = Duration::from_millis(120);

/// How long a call took that must run out of time; it never ends early.
fn times_out<T: std::fmt::Debug>(call: impl FnOnce(Deadline) -> virtio::Result<T>) -> Duration {
    let start = Instant::now();
    let outcome = call(Deadline::after(LIMIT));
    let spent = start.elapsed();
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    assert!(spent >= LIMIT, "{spent:?}");
    spent
}

/// A wait by each of three threads that never comes true, each with the same deadline: the longest.
fn longest(queue: &Queue, tokens: &[virtio::queue::Token; 2]) -> Duration {
    let mut threads: Vec<_> = tokens
        .iter()
        .map(|&token| spawn(queue, move |queue| times_out(|end| queue.wait(token, end))))
        .collect();
    threads.push(spawn(queue, |queue| times_out(|end| queue.get(end))));
    threads.push(spawn(queue, |queue| times_out(|end| queue.add([], [range(9, ROOM)], end))));
    threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
}

/// E10: a machine that is busy with something else may make one attempt late, not all.
fn within_slack(mut attempt: impl FnMut() -> Duration) {
    let spent: Vec<_> = (0..10)
        .map(|_| attempt())
        .scan(false, |over, spent| {
            if *over {
                return None;
            }
            *over = spent <= LIMIT + SLACK;
            Some(spent)
        })
        .collect();
    assert!(spent.iter().any(|spent| *spent <= LIMIT + SLACK), "{spent:?}");
}

#[test]
fn e10_deadlines_hold_and_a_time_out_frees_nothing() {
    let (queue, mut device, _) = Case::size(2).build();
    let tokens = [1, 2].map(|number| queue.try_add([], [range(number, ROOM)]).unwrap());
    queue.notify().unwrap();
    within_slack(|| longest(&queue, &tokens));
    assert_eq!((queue.waited_for(), queue.in_line()), (0, 0));
    for _ in tokens {
        device.serve_one();
    }
    for token in tokens {
        assert_eq!(queue.wait(token, soon()).unwrap().token, token);
    }
}

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn pthread_self() -> usize;
    fn pthread_kill(thread: usize, number: i32) -> i32;
}

const SIGUSR1: i32 = 10;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(_number: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// E11: poll ends with EINTR each time; E9: and the deadline is where it was.
#[test]
fn e11_signals_neither_end_a_wait_nor_prolong_it() {
    // SAFETY: the handler adds to an atomic and nothing else.
    unsafe { signal(SIGUSR1, on_signal) };
    let (queue, mut device, _) = Case::size(2).build();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    within_slack(|| {
        let (thread, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (told, ended) = (Arc::clone(&thread), Arc::clone(&over));
        let waiter = spawn(&queue, move |queue| {
            // SAFETY: asks for the caller's own name.
            told.store(unsafe { pthread_self() } as u64, Ordering::Release);
            let spent = times_out(|end| queue.wait(token, end));
            ended.store(true, Ordering::Release);
            spent
        });
        until(|| thread.load(Ordering::Acquire) != 0);
        while !over.load(Ordering::Acquire) {
            // SAFETY: the thread is not joined yet, so that its name is good.
            unsafe { pthread_kill(thread.load(Ordering::Acquire) as usize, SIGUSR1) };
            // Not a wait for anything: one signal after the other, and not all at once.
            std::thread::sleep(Duration::from_millis(2));
        }
        waiter.join().unwrap()
    });
    assert!(SIGNALS.load(Ordering::Relaxed) >= 10);
    device.serve_one();
    assert_eq!(queue.wait(token, soon()).unwrap().token, token);
}

/// D14, D16: the device said once that it needs no notification, and sleeps: a wait notifies it at half its time.
#[test]
fn d16_a_device_that_suppresses_notifications_for_ever_is_woken_at_half_time() {
    for case in Case::all(4) {
        let (queue, mut device, port) = case.build();
        device.ring.disable_notifications();
        let device = device.run(Manner::Deaf);
        let token = queue.try_add([], [range(1, ROOM)]).unwrap();
        queue.notify().unwrap();
        let start = Instant::now();
        let limit = Duration::from_millis(300);
        assert_eq!(queue.wait(token, Deadline::after(limit)).unwrap().token, token);
        assert!(start.elapsed() >= limit / 2);
        assert_eq!(port.rings.load(Ordering::Relaxed), 1);
        // And so for room.
        for number in 2..6 {
            queue.try_add([], [range(number, ROOM)]).unwrap();
        }
        queue.add([], [range(6, ROOM)], Deadline::after(limit)).unwrap();
        assert_eq!(port.rings.load(Ordering::Relaxed), 2);
        device.stop();
    }
}

/// A look without time is no wait: nobody is notified, nobody sleeps.
#[test]
fn a_look_without_time_costs_the_device_nothing() {
    let (queue, mut device, port) = Case::size(4).build();
    device.ring.disable_notifications();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    let now = || Deadline::after(Duration::ZERO);
    for _ in 0..10 {
        assert!(matches!(queue.get(now()), Err(Error::Timeout { .. })));
        assert!(matches!(queue.wait(token, now()), Err(Error::Timeout { .. })));
    }
    assert_eq!((port.rings.load(Ordering::Relaxed), port.sleeps.load(Ordering::Relaxed)), (0, 0));
    device.serve_one();
    assert_eq!(queue.get(now()).unwrap().token, token);
}

/// D25: a device that never notifies and is done by the deadline is not slow.
#[test]
fn d25_the_ring_is_looked_at_once_more_before_a_time_out() {
    let (queue, mut device, _) = Case::size(4).build();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    let chain = device.take().unwrap();
    device.ring.push_used(chain.0, 1);
    // Completed without a notification.
    let _ = device.ring.publish_used();
    assert_eq!(queue.wait(token, Deadline::after(Duration::ZERO)).unwrap().token, token);
}

/// M7: the caller is asked at least every 50 ms, as the reaper and as one who sleeps on it.
#[test]
fn m7_the_caller_is_asked_while_it_waits() {
    let (queue, _device, _) = Case::size(4).build();
    let tokens = [1, 2].map(|number| queue.try_add([], [range(number, ROOM)]).unwrap());
    queue.notify().unwrap();
    let threads = tokens.map(|token| {
        spawn(&queue, move |queue| {
            let mut asked = 0;
            let end = Deadline::after(4 * SLACK);
            let outcome = queue.wait_with(token, end, || {
                asked += 1;
                Ok(())
            });
            assert!(matches!(outcome, Err(Error::Timeout { .. })));
            asked
        })
    });
    for thread in threads {
        assert!(thread.join().unwrap() >= 3);
    }
}
