//! The tools of `virtio::sync` between real threads; the thread sanitizer watches them in
//! `make test-sanitizers`, where a lock that it cannot see through would be reported here.
#![cfg(not(loom))]

use std::thread;
use std::time::Duration;

use virtio::sync::{Arc, AtomicU32, AtomicU64, Condvar, Mutex, Ordering};

const THREADS: u64 = 4;
const ROUNDS: u64 = 2_000;

#[test]
fn a_contended_lock_orders_what_it_guards() {
    let counted = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let counted = Arc::clone(&counted);
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    counted.lock().unwrap().push(round);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(counted.lock().unwrap().iter().sum::<u64>(), THREADS * ROUNDS * (ROUNDS - 1) / 2);
}

#[test]
fn a_wait_gives_the_lock_away_and_takes_it_back() {
    struct Ball {
        turn: Mutex<(u64, Vec<u64>)>,
        passed: Condvar,
    }
    let ball = Arc::new(Ball { turn: Mutex::new((0, Vec::new())), passed: Condvar::new() });
    let play = |ball: Arc<Ball>, own: u64| {
        for round in 0..ROUNDS {
            let mut turn = ball.turn.lock().unwrap();
            while turn.0 % 2 != own {
                // Both ways to wait; the limit is far beyond what a wake-up takes and is not relied on.
                turn = if round % 2 == 0 {
                    ball.passed.wait(turn).unwrap()
                } else {
                    ball.passed.wait_timeout(turn, Duration::from_secs(60)).unwrap().0
                };
            }
            turn.0 += 1;
            turn.1.push(own);
            ball.passed.notify_one();
        }
    };
    let other = {
        let ball = Arc::clone(&ball);
        thread::spawn(move || play(ball, 1))
    };
    play(Arc::clone(&ball), 0);
    other.join().unwrap();
    let turn = ball.turn.lock().unwrap();
    assert_eq!(turn.0, 2 * ROUNDS);
    assert!(turn.1.iter().zip((0..2).cycle()).all(|(own, wanted)| *own == wanted));
}

#[test]
fn an_acquire_load_sees_what_was_there_before_the_release_store() {
    let shared = Arc::new((AtomicU32::new(0), AtomicU64::new(0)));
    let reader = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let mut seen = 0;
            while u64::from(seen) < ROUNDS {
                let index = shared.0.load(Ordering::Acquire);
                assert!(index >= seen && shared.1.load(Ordering::Relaxed) >= u64::from(index));
                seen = index;
            }
        })
    };
    for round in 1..=ROUNDS {
        shared.1.store(round, Ordering::Relaxed);
        shared.0.store(round as u32, Ordering::Release);
    }
    reader.join().unwrap();
}
