//! Indirect chains: the device that sees the chain sees all entries of its table, and none of the request that
//! uses the table next (VIRTIO 1.4 §2.7.5.3, §2.7.13.3.1).
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

/// Requests one after the other, each in the slot and the table that the one before it gave back.
const REQUESTS: u32 = 2;
const TABLES: u64 = 0x10_0000;

/// The buffers of a request: address and length tell the request and the part.
fn parts(request: u32) -> [(u64, u32); 3] {
    [0, 1, 2].map(|part| (0x1000 * (1 + u64::from(request)) + 0x100 * part, 16 * (1 + request) + part as u32))
}

/// The driver's end: its payload is one buffer, written for each request and answered in place.
struct Driver {
    ring: Ring<RawRange>,
    payload: Arc<Payload>,
    /// Whether the chain is built buffer by buffer, or added in one call.
    stepwise: bool,
    asked: u32,
    answered: u32,
}

impl Driver {
    fn ask(&mut self) {
        self.payload.write(0, 100 + self.asked);
        // SAFETY: nothing is behind these addresses, and the device's end of this model reaches nothing there.
        let [a, b, c] = parts(self.asked).map(|(addr, len)| unsafe { RawRange::new(addr, len) });
        if self.stepwise {
            self.ring.chain().readable(a).readable(b).writable(c).add().unwrap();
        } else {
            self.ring.add([a, b], [c]).unwrap();
        }
        let _ = self.ring.publish();
        self.asked += 1;
    }

    fn collect(&mut self) {
        let Some(used) = self.ring.pop().unwrap() else { return };
        assert_eq!(used.written(), 1);
        assert!(used.map(|buf| (buf.device_addr(), buf.len())).eq(parts(self.answered)));
        assert_eq!(self.payload.read(0), 200 + self.answered);
        self.answered += 1;
        if self.asked < REQUESTS {
            self.ask();
        }
    }
}

struct Device {
    ring: DeviceRing,
    tables: RingMemory,
    payload: Arc<Payload>,
    served: u32,
}

impl Device {
    fn serve(&mut self) {
        let Some(chain) = self.ring.pop(&self.tables).unwrap() else { return };
        assert!(chain.indirect);
        assert!(chain.descs.iter().map(|desc| (desc.addr, desc.len)).eq(parts(self.served)), "{chain:?}");
        assert!(chain.descs.iter().map(|desc| desc.writable).eq([false, false, true]));
        assert_eq!(self.payload.read(0), 100 + self.served);
        self.payload.write(0, 200 + self.served);
        self.ring.push_used(chain.head, 1);
        let _ = self.ring.publish_used();
        self.served += 1;
    }
}

fn requests_in_turn(stepwise: bool) {
    let mut config = RingConfig::new(0, 4);
    config.indirect = true;
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let tables = RingMemory::model(config.table_bytes(), TABLES);
    let payload = Payload::new(1);
    let ring = Ring::new(&memory, Some(&tables), &config).unwrap();
    let mut driver = Driver { ring, payload: Arc::clone(&payload), stepwise, asked: 0, answered: 0 };
    let ring = DeviceRing::beside(&memory, &config).unwrap();
    let mut device = Device { ring, tables, payload, served: 0 };
    let device = loom::thread::spawn(move || {
        for _ in 0..3 {
            device.serve();
        }
        device
    });
    driver.ask();
    for _ in 0..3 {
        driver.collect();
    }
    let mut device = device.join().unwrap();
    while driver.answered < REQUESTS {
        device.serve();
        driver.collect();
    }
}

const MUTANTS: [Mutant; 5] = [
    Mutant::PublishRelaxed,
    Mutant::AvailRelaxed,
    Mutant::IndirectShort,
    Mutant::UsedStoreRelaxed,
    Mutant::UsedRelaxed,
];

#[test]
fn a_table_is_whole_and_of_one_request_added_in_one_call() {
    model("indirect, in one call", &MUTANTS, || requests_in_turn(false));
}

#[test]
fn a_table_is_whole_and_of_one_request_built_by_steps() {
    model("indirect, by steps", &MUTANTS, || requests_in_turn(true));
}
