//! Publish and consume, in both directions: what was written before an index moved is there for whoever sees it
//! moved (VIRTIO 1.4 §2.7.13.3.1, §2.7.8.2).
#![cfg(loom)]
#![allow(unsafe_code, reason = "payload in loom's cells, and ranges that no memory is behind")]

mod loom_support;

use std::sync::Arc;

use loom_support::{Payload, model};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{Lease, RawRange};
use virtio::queue::{Ring, RingConfig};
use virtio::soft::DeviceRing;
use virtio::sync::mutants::Mutant;

const CHAINS: usize = 2;
/// Device address of the payload's cell 0: each chain's request is at twice its number, its answer after that.
const BASE: u64 = 0x1000;

/// One request and one answer for each chain.
fn request(payload: &Payload, ring: &mut Ring<RawRange>, chain: usize) {
    payload.write(2 * chain, 100 + chain as u32);
    // SAFETY: nothing is behind these addresses: the device's end of this model maps them to `payload`.
    let range = |at: usize, len: u32| unsafe { RawRange::new(BASE + at as u64, len) };
    ring.add([range(2 * chain, 4)], [range(2 * chain + 1, 8)]).unwrap();
}

/// Takes a chain if there is one, and answers it.
fn answer(payload: &Payload, device: &mut DeviceRing) {
    let Some(chain) = device.pop(&()).unwrap() else { return };
    let [readable, writable] = chain.descs[..] else { panic!("two buffers were added: {chain:?}") };
    assert!(!readable.writable && writable.writable);
    assert_eq!((readable.len, writable.len), (4, 8));
    let at = (readable.addr - BASE) as usize;
    let asked = payload.read(at);
    assert_eq!(asked, 100 + at as u32 / 2);
    payload.write((writable.addr - BASE) as usize, asked + 100);
    device.push_used(chain.head, 8);
    let _ = device.publish_used();
}

/// Takes a used buffer if there is one; `seen` counts them.
fn collect(payload: &Payload, ring: &mut Ring<RawRange>, seen: &mut usize) {
    let Some(mut used) = ring.pop().unwrap() else { return };
    assert_eq!(used.written(), 8);
    let at = (used.nth(1).unwrap().device_addr() - BASE) as usize;
    assert_eq!(payload.read(at), 200 + at as u32 / 2);
    *seen += 1;
}

#[test]
fn what_was_written_before_an_index_is_seen_after_it() {
    let mutants =
        [Mutant::PublishRelaxed, Mutant::AvailRelaxed, Mutant::UsedStoreRelaxed, Mutant::UsedRelaxed];
    model("publish and consume", &mutants, || {
        let config = RingConfig::new(0, 4);
        let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
        let mut ring = Ring::new(&memory, None, &config).unwrap();
        let mut device = DeviceRing::beside(&memory, &config).unwrap();
        let payload = Payload::new(2 * CHAINS);
        let theirs = Arc::clone(&payload);
        let device = loom::thread::spawn(move || {
            for _ in 0..CHAINS {
                answer(&theirs, &mut device);
            }
            device
        });
        let mut seen = 0;
        for chain in 0..CHAINS {
            request(&payload, &mut ring, chain);
            let _ = ring.publish();
            collect(&payload, &mut ring, &mut seen);
        }
        let mut device = device.join().unwrap();
        for _ in 0..CHAINS {
            answer(&payload, &mut device);
            collect(&payload, &mut ring, &mut seen);
        }
        while seen < CHAINS {
            collect(&payload, &mut ring, &mut seen);
        }
    });
}
