//! Chains that stand: they keep their first and last buffer, and go out again with another one between them.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

use ring_common::{Case, Rig, stopped};
use virtio::Error;
use virtio::error::{ChainFault, Violation};
use virtio::mem::lease::Lease as _;
use virtio::queue::{Ring, Token};
use virtio::soft::DeviceChain;

/// A rig whose ring remembers its table, or not.
fn rig(size: u16, remember: bool) -> Rig {
    let case = Case { size, ..Case::new(false, false) };
    let mut rig = Rig::new(case);
    if remember {
        let mut config = case.config();
        config.remember = true;
        rig.ring = Ring::new(&rig.memory, None, &config).unwrap();
    }
    rig
}

/// Has the device take the one chain that was added.
fn device_takes(rig: &mut Rig) -> DeviceChain {
    let _ = rig.ring.publish();
    rig.device_takes(1).remove(0)
}

fn complete(rig: &mut Rig, chain: &DeviceChain, written: u32) {
    rig.device.push_used(chain.head, written);
    rig.device.publish_used();
}

/// Sends a header of 16 bytes, data of 64 and a status, and has the chain stand.
fn stand(rig: &mut Rig) -> Token {
    let [header, data, status] = [16, 64, 1].map(|len| rig.buf(len));
    let token = rig.ring.add([header], [data, status]).unwrap();
    let chain = device_takes(rig);
    complete(rig, &chain, 65);
    let used = rig.ring.pop().unwrap().expect("it was completed");
    assert_eq!(used.last_of_three().map(|last| last.len()), Some(1));
    assert_eq!(used.stand().map(|data| data.len()), Some(64));
    token
}

/// Sends a chain that stands with `len` bytes between its ends, and writes to neither.
fn resend(rig: &mut Rig, slot: u16, len: u32, writable: bool) -> virtio::Result<Token> {
    let data = rig.buf(len);
    rig.ring.resend(slot, data, writable, |_, _| Ok(()))
}

#[test]
fn a_chain_that_stands_goes_out_with_its_own_ends_and_another_middle() {
    for remember in [false, true] {
        let mut rig = rig(8, remember);
        let token = stand(&mut rig);
        assert!(!rig.ring.holds(token) && rig.ring.tokens().next().is_none());
        assert_eq!(rig.ring.free(), 5, "its descriptors stay taken");
        for (round, writable) in [true, false, false, true].into_iter().enumerate() {
            let data = rig.buf(32);
            let (addr, mut seen) = (data.addr, None);
            let again = rig.ring.resend(token.slot(), data, writable, |first, last| {
                seen = Some((first.len(), last.len()));
                Ok(())
            });
            let again = again.unwrap();
            assert_eq!((seen, again.slot()), (Some((16, 1)), token.slot()));
            assert!(again != token && rig.ring.holds(again) && !rig.ring.holds(token));
            assert!(resend(&mut rig, token.slot(), 1, true).is_err(), "the device has it");
            let chain = device_takes(&mut rig);
            let descs: Vec<_> = chain.descs.iter().map(|desc| (desc.len, desc.writable)).collect();
            assert_eq!(descs, [(16, false), (32, writable), (1, true)], "round {round}");
            assert_eq!(chain.descs[1].addr, addr);
            let capacity = if writable { 33 } else { 1 };
            complete(&mut rig, &chain, capacity + 7);
            let used = rig.ring.pop().unwrap().expect("it was completed");
            assert_eq!((used.token(), used.capacity(), used.written()), (again, capacity, capacity));
            assert_eq!(used.stand().map(|data| data.addr), Some(addr));
        }
        assert_eq!(rig.ledger.alive(), 2, "header and status");
        let [first, last] = rig.ring.dismiss(token.slot()).expect("it stands");
        assert_eq!((first.len(), last.len(), rig.ring.free()), (16, 1, 8));
        assert!(rig.ring.dismiss(token.slot()).is_none());
        rig.round_trips(20);
    }
}

#[test]
fn only_a_chain_of_three_with_a_writable_end_in_the_ring_s_own_table_stands() {
    let mut rig = rig(8, false);
    for (readable, writable) in [(1, 1), (3, 0), (0, 3), (2, 2)] {
        let added = rig.add(readable, writable);
        let chain = device_takes(&mut rig);
        complete(&mut rig, &chain, 0);
        let used = rig.ring.pop().unwrap().expect("it was completed");
        assert_eq!(used.token(), added.token);
        assert!(used.last_of_three().is_none() && used.stand().is_none(), "{readable} and {writable}");
        assert_eq!((rig.ring.free(), rig.ledger.alive()), (8, 0));
    }
    let mut rig = Rig::new(Case { size: 8, ..Case::new(true, false) });
    rig.add(1, 2);
    let chain = device_takes(&mut rig);
    complete(&mut rig, &chain, 0);
    assert!(rig.ring.pop().unwrap().expect("it was completed").stand().is_none(), "in a table");
    assert_eq!(rig.ring.free(), 8);
}

#[test]
fn what_cannot_be_sent_again_is_refused_and_changes_nothing() {
    let mut rig = rig(8, true);
    let slot = stand(&mut rig).slot();
    for wrong in [slot + 1, slot + 2, 7, 8, u16::MAX] {
        let refused = resend(&mut rig, wrong, 1, true);
        assert!(matches!(refused, Err(Error::Misuse { .. })), "{wrong}: {refused:?}");
    }
    let empty = resend(&mut rig, slot, 0, true);
    assert_eq!(empty, Err(Error::BadChain(ChainFault::EmptyBuffer)));
    let huge = resend(&mut rig, slot, u32::MAX - 16, true);
    assert_eq!(huge, Err(Error::BadChain(ChainFault::TooManyBytes)));
    let data = rig.buf(8);
    let failed = rig.ring.resend(slot, data, true, |_, _| Err(Error::ReadOnly));
    assert_eq!(failed, Err(Error::ReadOnly));
    assert_eq!((rig.ring.outstanding(), rig.ring.next_index(), rig.ledger.alive()), (0, 1, 2));
    assert!(resend(&mut rig, slot, 8, true).is_ok(), "it still stands");
}

/// D5: a chain that stands is not the device's to give back.
#[test]
fn d5_an_id_of_a_chain_that_stands_breaks_the_ring() {
    let mut rig = rig(8, true);
    let slot = stand(&mut rig).slot();
    rig.add(1, 0);
    device_takes(&mut rig);
    rig.device.push_used(slot, 0);
    rig.device.publish_used();
    let id = slot.into();
    let broken = Error::Broken { queue: rig.ring.queue(), violation: Violation::UsedIdNotHead { id } };
    assert_eq!(rig.ring.pop().map(|used| used.is_some()), Err(broken.clone()));
    assert_eq!(resend(&mut rig, slot, 8, true), Err(broken));
    assert!(rig.ring.dismiss(slot).is_none() && rig.ring.free() == 0, "a broken ring has no room");
    rig.ring.reset(&stopped(), |_, _| {}).unwrap();
    assert_eq!((rig.ring.free(), rig.ledger.alive()), (8, 0));
}

#[test]
fn a_reset_and_a_drop_end_all_standing() {
    let mut rig = rig(8, true);
    let (first, second) = (stand(&mut rig), stand(&mut rig));
    assert_eq!((rig.ledger.alive(), rig.ring.free()), (4, 2));
    resend(&mut rig, second.slot(), 4, false).unwrap();
    let mut ended = Vec::new();
    rig.ring.reset(&stopped(), |token, bufs| ended.push((token.slot(), bufs.count()))).unwrap();
    assert_eq!((ended, rig.ledger.alive(), rig.ring.free()), (vec![(second.slot(), 3)], 0, 8));
    assert!(resend(&mut rig, first.slot(), 4, false).is_err());
    rig.added.clear();
    rig.new_device();
    stand(&mut rig);
    let ring = Ring::new(&rig.memory, None, &rig.case.config()).unwrap();
    drop(core::mem::replace(&mut rig.ring, ring));
    assert_eq!(rig.ledger.alive(), 0, "nothing was in flight");
}
