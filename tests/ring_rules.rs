//! Rules for the driver's side that a caller can break, and what tokens are worth afterwards: each is refused
//! before anything reaches the device, and leaves the ring as it was.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use ring_common::{Buf, Case, Rig};
use virtio::Error;
use virtio::error::ChainFault;
use virtio::queue::{Chain, Token};

/// Builds a chain that is to be refused; the ring must be as it was.
fn refused(
    case: Case,
    fault: ChainFault,
    build: impl for<'r> Fn(Chain<'r, Buf>, Vec<Buf>) -> Chain<'r, Buf>,
) {
    let mut rig = Rig::new(case);
    let first = rig.add(1, 0);
    let free = rig.ring.free();
    for _ in 0..3 {
        let len = [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, u32::MAX];
        let bufs: Vec<Buf> = len.iter().map(|len| rig.buf(*len)).collect();
        let outcome = build(rig.ring.chain(), bufs).add();
        assert_eq!(outcome.map(|_| ()), Err(Error::BadChain(fault)));
    }
    assert_eq!((rig.ring.free(), rig.ledger.alive()), (free, 1));
    let _ = rig.ring.publish();
    let chains = rig.device_takes(1);
    assert_eq!(chains[0].head, first.token.slot(), "nothing else was published");
    assert!(rig.device.pop().unwrap().is_none());
}

/// In each kind of table.
fn in_each(fault: ChainFault, build: impl for<'r> Fn(Chain<'r, Buf>, Vec<Buf>) -> Chain<'r, Buf>) {
    for indirect in [false, true] {
        Case::each(indirect, false, |case| refused(case, fault, &build));
    }
}

#[test]
fn m10_an_empty_chain_is_refused() {
    in_each(ChainFault::Empty, |chain, _| chain);
}

#[test]
fn m10_an_empty_buffer_is_refused() {
    in_each(ChainFault::EmptyBuffer, |chain, mut bufs| {
        chain.readable(bufs.remove(0)).writable(bufs.remove(8))
    });
}

/// §2.7.4.2
#[test]
fn m10_a_readable_buffer_after_a_writable_one_is_refused() {
    in_each(ChainFault::ReadableAfterWritable, |chain, mut bufs| {
        chain.writable(bufs.remove(0)).readable(bufs.remove(0))
    });
}

/// §2.7.5
#[test]
fn m10_more_bytes_than_a_chain_may_have_are_refused() {
    in_each(ChainFault::TooManyBytes, |chain, mut bufs| {
        chain.readable(bufs.remove(10)).writable(bufs.remove(0))
    });
}

/// §2.7.5.3.1: even where a table has room.
#[test]
fn m10_more_buffers_than_the_queue_size_are_refused() {
    let mut rig = Rig::new(Case { large_tables: 2, size: 16, ..Case::new(true, false) });
    for readable in [17, 0] {
        let outcome = rig.try_add(readable, 17 - readable, 1).map(|_| ());
        assert_eq!(outcome, Err(Error::BadChain(ChainFault::TooManyBuffers)));
    }
    assert_eq!((rig.ring.free(), rig.ledger.alive()), (16, 0));
    assert!(rig.try_add(8, 8, 1).is_ok());
}

/// M1: a token is one request's, however often its descriptor is used again.
#[test]
fn m1_a_token_is_stale_when_its_descriptor_heads_the_next_chain() {
    for indirect in [false, true] {
        Case::each(indirect, false, |case| {
            let mut rig = Rig::new(case);
            let mut spent: Vec<Token> = Vec::new();
            for _ in 0..20 {
                let chain = rig.give(1).remove(0);
                let token = rig.added[0].token;
                assert!(rig.ring.holds(token) && !spent.contains(&token));
                for old in &spent {
                    let stale = Error::StaleToken { token: old.into_raw(), queue: 3 };
                    assert_eq!(rig.ring.check_token(*old), Err(stale));
                }
                rig.device.push_used(chain.head, 0);
                rig.device.publish_used();
                rig.take().unwrap().unwrap();
                spent.push(token);
            }
        });
    }
}

#[test]
fn m1_a_token_of_another_queue_is_stale() {
    let mut rig = Rig::new(Case::new(false, false));
    let token = rig.add(1, 0).token;
    for other in [0, 2, 4, 0xFFFF] {
        let foreign = Token::from_raw(token.into_raw() & 0x0000_FFFF_FFFF_FFFF | other << 48);
        assert!(!rig.ring.holds(foreign) && rig.ring.check_token(foreign).is_err());
    }
    assert!(rig.ring.check_token(token).is_ok());
}
