//! Close, and a ring that breaks, against those who wait.

use virtio::Error;
use virtio::error::Violation;

use crate::rig::{Case, ROOM, range, soon, spawn, until};

const CLOSED: Error = Error::Closed { what: "queue" };

/// M4, M3: a reaper, one who sleeps on it, one who wants anything, and two in line.
#[test]
fn m4_close_wakes_everybody() {
    for case in Case::all(4) {
        let (queue, _device, _) = case.build();
        let tokens: Vec<_> = (0..4).map(|at| queue.try_add([], [range(at, ROOM)]).unwrap()).collect();
        queue.notify().unwrap();
        let mut threads: Vec<_> = tokens[..2]
            .iter()
            .map(|&token| spawn(&queue, move |queue| queue.wait(token, soon()).unwrap_err()))
            .collect();
        threads.push(spawn(&queue, |queue| queue.get(soon()).unwrap_err()));
        threads.extend(
            (0..2).map(|_| spawn(&queue, |queue| queue.add([], [range(9, ROOM)], soon()).unwrap_err())),
        );
        until(|| queue.waited_for() == 2 && queue.in_line() == 2);
        queue.close();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), CLOSED);
        }
        // M3: whatever comes later.
        assert_eq!(queue.wait(tokens[3], soon()).unwrap_err(), CLOSED);
        assert_eq!(queue.get(soon()).unwrap_err(), CLOSED);
        assert_eq!(queue.pop().unwrap_err(), CLOSED);
        assert_eq!(queue.notify().unwrap_err(), CLOSED);
        assert_eq!(queue.try_add([], [range(9, ROOM)]).unwrap_err(), CLOSED);
        assert_eq!(queue.add([], [range(9, ROOM)], soon()).unwrap_err(), CLOSED);
        queue.close();
    }
}

#[test]
fn a_broken_ring_fails_everybody_who_waits() {
    let (queue, mut device, _) = Case::size(4).build();
    let tokens: Vec<_> = (0..4).map(|at| queue.try_add([], [range(at, ROOM)]).unwrap()).collect();
    queue.notify().unwrap();
    let mut threads: Vec<_> = tokens[..3]
        .iter()
        .map(|&token| spawn(&queue, move |queue| queue.wait(token, soon()).map(|used| used.token)))
        .collect();
    threads.push(spawn(&queue, |queue| queue.get(soon()).map(|used| used.token)));
    threads.push(spawn(&queue, |queue| queue.add([], [range(9, ROOM)], soon())));
    until(|| queue.waited_for() == 3 && queue.in_line() == 1);
    // D1: an id outside the ring.
    device.complete((77, 0));
    for thread in threads {
        let broken = Error::Broken { queue: 5, violation: Violation::UsedIdRange { id: 77, size: 4 } };
        assert_eq!(thread.join().unwrap(), Err(broken));
    }
    assert_eq!((queue.waited_for(), queue.in_line()), (0, 0));
}
