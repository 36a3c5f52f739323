//! Many requests by many threads.

use std::sync::Arc;
use std::time::Duration;

use virtio::Error;
use virtio::event::Deadline;
use virtio::sync::{AtomicBool, AtomicU64, Ordering};

use crate::rig::{Case, Manner, Queue, ROOM, range, soon, spawn, until, written};

const THREADS: u64 = 8;
/// Of each thread; the thread sanitizer is slow.
const REQUESTS: u64 = if cfg!(tsan) { 100 } else { 1_000 };

/// One thread's requests, up to three in flight at once, each waited for by its token.
fn request(queue: &Queue, thread: u64, count: u64) -> std::thread::JoinHandle<()> {
    spawn(queue, move |queue| {
        let mut flying = Vec::new();
        for at in 0..count {
            let number = thread << 32 | at;
            let token = queue.add([range(number, 16)], [range(number, ROOM)], soon()).unwrap();
            if at % 4 != 1 {
                queue.notify().unwrap();
            }
            flying.push((token, number));
            if flying.len() == 3 || at + 1 == count {
                queue.notify().unwrap();
                // Not in the order in which they were added.
                for (token, number) in flying.drain(..).rev() {
                    let used = queue.wait(token, soon()).unwrap();
                    assert_eq!((used.token, used.written), (token, written(number)));
                    let back: Vec<_> = used.into_buffers().collect();
                    assert_eq!(back, [range(number, 16), range(number, ROOM)]);
                }
            }
        }
    })
}

fn eight_threads(case: Case, manner: Manner, count: u64) {
    let (queue, device, _) = case.build();
    let device = device.run(manner);
    let threads: Vec<_> = (0..THREADS).map(|thread| request(&queue, thread, count)).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(device.stop(), THREADS * count);
    let counters = queue.with(|lane| lane.ring.counters());
    assert_eq!((counters.added, counters.used), (THREADS * count, THREADS * count));
    assert!(queue.pop().unwrap().is_none());
    assert_eq!((queue.in_line(), queue.waited_for()), (0, 0));
}

/// M5. A queue of 16 descriptors is full most of the time: room is waited for as well.
#[test]
fn m5_eight_threads_on_one_queue_lose_and_double_nothing() {
    for case in Case::all(16) {
        eight_threads(case, Manner::Proper, REQUESTS);
    }
}

/// Three descriptors a chain at most, and eight threads on a queue of two: always a line.
#[test]
fn m5_eight_threads_on_a_queue_of_two() {
    eight_threads(Case::size(2), Manner::Proper, REQUESTS / 4);
}

#[test]
fn d25_a_device_that_never_interrupts_is_found_out_by_looking() {
    eight_threads(Case::size(8), Manner::Mute, 3);
}

#[test]
fn d25_an_interrupt_storm_disturbs_nobody() {
    let (queue, device, port) = Case::size(16).build();
    let device = device.run(Manner::Proper);
    let calm = Arc::new(AtomicBool::new(false));
    let (over, event) = (Arc::clone(&calm), port.event.clone());
    let storm = std::thread::spawn(move || {
        let mut signals = 0u64;
        while !over.load(Ordering::Acquire) {
            event.signal().unwrap();
            signals += 1;
        }
        signals
    });
    let threads: Vec<_> = (0..4).map(|thread| request(&queue, thread, REQUESTS / 4)).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    calm.store(true, Ordering::Release);
    assert!(storm.join().unwrap() > 0);
    assert_eq!(device.stop(), REQUESTS);
}

/// Whoever asks for any completion gets each once, whatever thread it was added by.
#[test]
fn m5_each_completion_is_got_by_one_thread() {
    let (queue, device, _) = Case::size(8).build();
    let device = device.run(Manner::Proper);
    let left = Arc::new(AtomicU64::new(2 * REQUESTS));
    let getters: Vec<_> = (0..3)
        .map(|_| {
            let left = Arc::clone(&left);
            spawn(&queue, move |queue| {
                let mut got = Vec::new();
                let one_less = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok() {
                    let mut used = queue.get(soon()).unwrap();
                    got.push(used.buffer(0).unwrap());
                }
                got
            })
        })
        .collect();
    let producers: Vec<_> = (0..2)
        .map(|thread| {
            spawn(&queue, move |queue| {
                for at in 0..REQUESTS {
                    queue.add([], [range(thread * REQUESTS + at, ROOM)], soon()).unwrap();
                    queue.notify().unwrap();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.join().unwrap();
    }
    let mut got: Vec<_> = getters.into_iter().flat_map(|getter| getter.join().unwrap()).collect();
    got.sort_by_key(virtio::mem::lease::Lease::device_addr);
    let all: Vec<_> = (0..2 * REQUESTS).map(|number| range(number, ROOM)).collect();
    assert_eq!(got, all);
    assert_eq!(device.stop(), 2 * REQUESTS);
}

#[test]
fn those_who_wait_for_room_are_served_in_order() {
    let (queue, mut device, _) = Case::size(1).build();
    queue.try_add([], [range(0, ROOM)]).unwrap();
    let waiting: Vec<_> = (1..=6)
        .map(|number| {
            let thread = spawn(&queue, move |queue| {
                queue.add([], [range(number, ROOM)], soon()).unwrap();
                queue.notify().unwrap();
            });
            until(|| queue.in_line() == number as usize);
            // Nobody jumps the line.
            let refused = queue.try_add([], [range(99, ROOM)]);
            assert_eq!(refused, Err(Error::QueueFull { queue: 5, need: 1, free: 0 }));
            thread
        })
        .collect();
    let order: Vec<_> = (0..=6).map(|_| device.serve_one()).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6]);
    for thread in waiting {
        thread.join().unwrap();
    }
}

/// A large chain at the head of the line is not passed by small ones that would find room.
#[test]
fn a_large_chain_is_not_starved_by_small_ones() {
    let (queue, mut device, _) = Case::size(4).build();
    for number in 0..4 {
        queue.try_add([], [range(number, ROOM)]).unwrap();
    }
    let parts = [0; 4].map(|_| range(10, ROOM));
    let large = spawn(&queue, move |queue| {
        queue.add([], parts, soon()).unwrap();
        queue.notify().unwrap();
    });
    until(|| queue.in_line() == 1);
    let small = spawn(&queue, |queue| {
        queue.add([], [range(11, ROOM)], soon()).unwrap();
        queue.notify().unwrap();
    });
    until(|| queue.in_line() == 2);
    let order: Vec<_> = (0..6).map(|_| device.serve_one()).collect();
    assert_eq!(order, [0, 1, 2, 3, 10, 11]);
    large.join().unwrap();
    small.join().unwrap();
}

/// It is refused at once, not when its turn comes.
#[test]
fn a_chain_that_never_fits_does_not_wait() {
    let (queue, _device, _) = Case::size(2).build();
    queue.try_add([], [range(0, ROOM), range(0, ROOM)]).unwrap();
    let parts = [0; 3].map(|_| range(1, ROOM));
    let refused = queue.add([], parts, Deadline::after(Duration::from_secs(3600)));
    assert!(matches!(refused, Err(Error::BadChain(_))), "{refused:?}");
}
