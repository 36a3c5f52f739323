//! Whose a token is.

use virtio::Error;
use virtio::event::Deadline;
use virtio::queue::Token;

use crate::rig::{Case, ROOM, range, soon, spawn, until};

fn stale(token: Token) -> Error {
    Error::StaleToken { token: token.into_raw(), queue: 5 }
}

#[test]
fn m1_a_token_is_good_for_one_wait() {
    let (queue, mut device, _) = Case::size(4).build();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    device.serve_one();
    assert_eq!(queue.wait(token, soon()).unwrap().token, token);
    assert_eq!(queue.wait(token, soon()).unwrap_err(), stale(token));
    // Its slot's next life has another token.
    let next = queue.try_add([], [range(2, ROOM)]).unwrap();
    assert_eq!(next.slot(), token.slot());
    assert_eq!(queue.wait(token, soon()).unwrap_err(), stale(token));
}

#[test]
fn m1_a_token_that_get_took_is_spent() {
    let (queue, mut device, _) = Case::size(4).build();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    device.serve_one();
    assert_eq!(queue.get(soon()).unwrap().token, token);
    assert_eq!(queue.wait(token, soon()).unwrap_err(), stale(token));
}

#[test]
fn m1_a_foreign_token_is_refused() {
    let (queue, _device, _) = Case::size(4).build();
    let own = queue.try_add([], [range(1, ROOM)]).unwrap();
    for raw in [0, u64::MAX, own.into_raw() ^ 1 << 48, own.into_raw() ^ 1 << 32, own.into_raw() + 1] {
        let token = Token::from_raw(raw);
        assert_eq!(queue.wait(token, soon()).unwrap_err(), stale(token));
    }
}

#[test]
fn m1_a_token_has_one_waiter_at_a_time() {
    let (queue, mut device, _) = Case::size(4).build();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    let first = spawn(&queue, move |queue| queue.wait(token, soon()).unwrap().token);
    until(|| queue.waited_for() == 1);
    assert_eq!(queue.wait(token, soon()).unwrap_err(), stale(token));
    device.serve_one();
    assert_eq!(first.join().unwrap(), token);
}

/// What nobody waits for is kept until somebody does.
#[test]
fn a_completion_that_nobody_waits_for_is_kept() {
    let (queue, mut device, _) = Case::size(4).build();
    let tokens: Vec<_> = (0..4).map(|at| queue.try_add([], [range(at, ROOM)]).unwrap()).collect();
    queue.notify().unwrap();
    for _ in 0..4 {
        device.serve_one();
    }
    assert_eq!(queue.wait(tokens[3], soon()).unwrap().token, tokens[3]);
    assert_eq!(queue.get(soon()).unwrap().token, tokens[0]);
    assert_eq!(queue.wait(tokens[2], soon()).unwrap().token, tokens[2]);
    assert_eq!(queue.pop().unwrap().unwrap().token, tokens[1]);
    assert!(queue.pop().unwrap().is_none());
}

/// M12: the caller's own code ends the wait, by an error or a panic: the request is as before.
#[test]
fn m12_a_wait_that_the_caller_ends_loses_nothing() {
    let (queue, mut device, _) = Case::size(4).build();
    let token = queue.try_add([], [range(1, ROOM)]).unwrap();
    queue.notify().unwrap();
    let mut looks = 0;
    let outcome = queue.wait_with(token, soon(), || {
        looks += 1;
        if looks == 3 { Err(Error::Misuse { what: "enough" }) } else { Ok(()) }
    });
    assert_eq!((outcome.unwrap_err(), looks), (Error::Misuse { what: "enough" }, 3));
    let panics = spawn(&queue, move |queue| {
        let _ =
            queue.wait_with(token, soon(), || std::panic::resume_unwind(Box::new("a panic of the caller")));
    });
    assert!(panics.join().is_err());
    let full = spawn(&queue, move |queue| {
        let parts = [0; 4].map(|_| range(2, ROOM));
        let _ = queue.add_with([], parts, soon(), || std::panic::resume_unwind(Box::new("the same in line")));
    });
    assert!(full.join().is_err());
    assert_eq!((queue.waited_for(), queue.in_line()), (0, 0));
    device.serve_one();
    assert_eq!(queue.wait(token, soon()).unwrap().token, token);
}

/// A waiter that sleeps on the reaper takes the role when the reaper's time is over.
#[test]
fn a_reaper_that_times_out_hands_the_role_on() {
    let (queue, mut device, _) = Case::size(4).build();
    let tokens: Vec<_> = (0..3).map(|at| queue.try_add([], [range(at, ROOM)]).unwrap()).collect();
    queue.notify().unwrap();
    let brief = {
        let token = tokens[0];
        let limit = std::time::Duration::from_millis(60);
        spawn(&queue, move |queue| queue.wait(token, Deadline::after(limit)).unwrap_err())
    };
    let patient: Vec<_> = tokens[1..]
        .iter()
        .map(|&token| spawn(&queue, move |queue| queue.wait(token, soon()).unwrap().token))
        .collect();
    assert!(matches!(brief.join().unwrap(), Error::Timeout { .. }));
    for _ in 0..3 {
        device.serve_one();
    }
    for (thread, token) in patient.into_iter().zip(&tokens[1..]) {
        assert_eq!(thread.join().unwrap(), *token);
    }
    assert_eq!(queue.wait(tokens[0], soon()).unwrap().token, tokens[0]);
}
