//! Chains whose descriptors are not all written anew: one that stands and goes out again with another middle, and
//! chains of a ring that remembers its table. The device sees what the driver wrote last and never what was there before;
//! the driver sees the end of each life once, and what the device wrote in it (VIRTIO 1.4 §2.7.13.1, §2.7.13.3.1).
#![cfg(loom)]
#![allow(unsafe_code, reason = "payload in loom's cells, and ranges that no memory is behind")]

mod loom_support;

use std::sync::Arc;

use loom_support::{Payload, model};
use virtio::mem::cell::RingMemory;
use virtio::mem::lease::{Lease, RawRange};
use virtio::queue::{Ring, RingConfig, Token};
use virtio::soft::DeviceRing;
use virtio::sync::mutants::Mutant;

/// Lives of one chain, each begun when the one before has ended.
const LIVES: u32 = 3;
/// Device address of the payload's first cell.
const BASE: u64 = 0x1000;
/// The payload's cells: those of the chain's own two buffers, then those that come and go between them.
const HEADER: u64 = BASE;
const STATUS: u64 = BASE + 1;
const DATA: [u64; 2] = [BASE + 2, BASE + 3];

type Part = (u64, u32, bool);

fn range((addr, len, _): Part) -> RawRange {
    // SAFETY: nothing is behind these addresses: the device's end of this model maps them to its payload.
    unsafe { RawRange::new(addr, len) }
}

fn cell(addr: u64) -> usize {
    (addr - BASE) as usize
}

/// How a model adds its chain.
#[derive(Clone, Copy)]
enum Way {
    /// It stands, and is sent again.
    Stands,
    /// Another chain over the same descriptors: in one call, then buffer by buffer, then as at first.
    Remembered,
}

impl Way {
    /// What the device must find in a life.
    fn parts(self, life: u32) -> [Part; 3] {
        let (header, status) = ((HEADER, 16, false), (STATUS, 1, true));
        match self {
            // The second middle goes out twice, so that once its descriptor is left as it is.
            Way::Stands if life == 0 => [header, (DATA[0], 64, false), status],
            Way::Stands => [header, (DATA[1], 64, true), status],
            Way::Remembered if life == 1 => [header, (DATA[1], 64, false), status],
            Way::Remembered => [header, (DATA[0], 64, false), status],
        }
    }
}

struct Driver {
    ring: Ring<RawRange>,
    payload: Arc<Payload>,
    way: Way,
    asked: u32,
    answered: u32,
    /// Of the latest life.
    token: Option<Token>,
}

impl Driver {
    fn ask(&mut self) {
        let (life, payload) = (self.asked, &self.payload);
        let [header, data, status] = self.way.parts(life).map(range);
        let prepare = || {
            payload.write(cell(HEADER), 100 + life);
            payload.write(cell(STATUS), 0xff);
        };
        if !self.way.parts(life)[1].2 {
            payload.write(cell(data.device_addr()), 300 + life);
        }
        let token = match (self.way, self.token) {
            (Way::Stands, Some(last)) => {
                let writable = self.way.parts(life)[1].2;
                let again = self.ring.resend(last.slot(), data, writable, |first, last| {
                    assert_eq!((first.device_addr(), last.device_addr()), (HEADER, STATUS));
                    prepare();
                    Ok(())
                });
                let again = again.unwrap();
                assert!(again.slot() == last.slot() && !self.ring.holds(last), "a life of its own");
                again
            }
            (Way::Remembered, Some(_)) if life == 1 => {
                prepare();
                self.ring.direct_chain().readable(header).readable(data).writable(status).add().unwrap()
            }
            _ => {
                prepare();
                self.ring.add([header, data], [status]).unwrap()
            }
        };
        self.token = Some(token);
        let _ = self.ring.publish();
        self.asked += 1;
    }

    fn collect(&mut self) {
        if self.answered == LIVES {
            return;
        }
        let Some(used) = self.ring.pop().unwrap() else { return };
        assert_eq!((Some(used.token()), used.written()), (self.token, 1));
        // What the device wrote in this life, and not in the one before.
        assert_eq!(self.payload.read(cell(STATUS)), 200 + self.answered);
        let data = self.way.parts(self.answered)[1];
        match self.way {
            Way::Stands => {
                assert_eq!(used.stand(), Some(range(data)));
                if data.2 {
                    assert_eq!(self.payload.read(cell(data.0)), 400 + self.answered);
                }
            }
            Way::Remembered => drop(used),
        }
        self.answered += 1;
        if self.asked < LIVES {
            self.ask();
        }
    }
}

struct Device {
    ring: DeviceRing,
    payload: Arc<Payload>,
    way: Way,
    served: u32,
}

impl Device {
    fn serve(&mut self) {
        let Some(chain) = self.ring.pop(&()).unwrap() else { return };
        let parts = self.way.parts(self.served);
        assert!(
            chain.descs.iter().map(|desc| (desc.addr, desc.len, desc.writable)).eq(parts),
            "{chain:?} in life {}",
            self.served
        );
        assert_eq!(self.payload.read(cell(HEADER)), 100 + self.served);
        match parts[1] {
            (data, _, true) => self.payload.write(cell(data), 400 + self.served),
            (data, _, false) => assert_eq!(self.payload.read(cell(data)), 300 + self.served),
        }
        self.payload.write(cell(STATUS), 200 + self.served);
        self.ring.push_used(chain.head, 1);
        let _ = self.ring.publish_used();
        self.served += 1;
    }
}

fn lives_in_turn(way: Way) {
    let mut config = RingConfig::new(0, 4);
    config.remember = true;
    let memory = RingMemory::model(config.ring_bytes().unwrap(), 0);
    let payload = Payload::new(4);
    let ring = Ring::new(&memory, None, &config).unwrap();
    let mut driver = Driver { ring, payload: Arc::clone(&payload), way, asked: 0, answered: 0, token: None };
    let ring = DeviceRing::beside(&memory, &config).unwrap();
    let mut device = Device { ring, payload, way, served: 0 };
    let device = loom::thread::spawn(move || {
        for _ in 0..LIVES {
            device.serve();
        }
        device
    });
    driver.ask();
    for _ in 0..LIVES {
        driver.collect();
    }
    let mut device = device.join().unwrap();
    while driver.answered < LIVES {
        device.serve();
        driver.collect();
    }
}

const ORDERS: [Mutant; 4] =
    [Mutant::PublishRelaxed, Mutant::AvailRelaxed, Mutant::UsedStoreRelaxed, Mutant::UsedRelaxed];

#[test]
fn a_chain_that_stands_goes_out_with_what_was_written_last() {
    let mutants = [Mutant::ResendUnprepared, Mutant::ResendStale, Mutant::SameLife];
    model("standing chain, 3 lives", &[ORDERS.as_slice(), &mutants].concat(), || lives_in_turn(Way::Stands));
}

#[test]
fn a_table_that_is_remembered_holds_what_each_chain_says() {
    let mutants = [Mutant::RememberStale, Mutant::NotForgotten];
    model("remembered table, 3 lives", &[ORDERS.as_slice(), &mutants].concat(), || {
        lives_in_turn(Way::Remembered);
    });
}
