//! Interrupts of every kind reach the descriptor of a queue.

use std::time::Instant;

use virtio::bus::qtest::{Machine, MachineOptions};
use virtio::device::QueueConfig;
use virtio::event::{Deadline, wait_readable};
use virtio::features::Features;
use virtio::testing::Qemu;

use crate::common::{SOON, WAYS, Way};

fn machine(qemu: &Qemu) -> std::sync::Arc<Machine> {
    Machine::connect(&MachineOptions::new(qemu.dir().join("qtest"), qemu.dir().join("ram"))).unwrap()
}

/// Sleeps on the queue's descriptor alone: nobody looks at the ring meanwhile.
fn by_descriptor(way: Way, vectors: bool) {
    let properties = if way.is_pci() && !vectors { "rng=r,vectors=0" } else { "rng=r" };
    let qemu = way
        .builder()
        .args(["-object", "rng-builtin,id=r"])
        .device(way.device("rng", 0, properties))
        .start()
        .unwrap();
    let device = virtio::open(&way.address(&qemu, 0)).unwrap();
    device.negotiate(Features::EVENT_IDX, Features::EMPTY).unwrap();
    let mut queue = device.take_queue(0, QueueConfig::size(8)).unwrap();
    device.start().unwrap();
    let pool = device.pool(8, 64).unwrap();
    let machine = machine(&qemu);
    let mut told = false;
    for round in 0..50 {
        queue.add([], [pool.take().unwrap()]).unwrap();
        assert!(!queue.enable_interrupts().unwrap());
        queue.notify().unwrap();
        let start = Instant::now();
        loop {
            assert!(wait_readable(&queue, Deadline::after(SOON)).unwrap(), "{way:?}: round {round}");
            told |= machine.transcript().contains("IRQ raise");
            if queue.enable_interrupts().unwrap() {
                assert!(queue.pop().unwrap().is_some());
                break;
            }
            assert!(start.elapsed() < SOON, "{way:?}: no used buffer in round {round}");
        }
    }
    assert_eq!(told, !vectors, "{way:?}: {}", machine.transcript());
}

#[test]
fn s4_1_5_1_2_msi_x_messages_wake() {
    for way in WAYS.into_iter().filter(|way| way.is_pci()) {
        by_descriptor(way, true);
    }
}

#[test]
fn s4_1_5_3_s4_2_3_4_interrupt_lines_wake_and_are_told_of() {
    for way in WAYS {
        by_descriptor(way, false);
    }
}

/// Devices that share one line: each reads its own cause.
#[test]
fn devices_on_one_line_hear_of_their_own() {
    use virtio::drivers::{Block, BlockOptions};
    for way in [Way::Modern, Way::Legacy, Way::Mmio] {
        let line = if way.is_pci() { ",vectors=0" } else { "" };
        let mut builder = way.builder();
        for n in 0..3u8 {
            builder = builder.disk(&format!("d{n}"), 4 << 20);
            builder = builder.device(way.device("blk", n, &format!("drive=d{n}{line}")));
        }
        let qemu = builder.start().unwrap();
        std::thread::scope(|scope| {
            for n in 0..3u8 {
                let address = way.address(&qemu, n);
                scope.spawn(move || {
                    let mut options = BlockOptions::default();
                    options.timeout = SOON;
                    options.chunk = 4096;
                    let disk = Block::open(&address, options).unwrap();
                    for round in 0..40u8 {
                        disk.write(u64::from(round) << 14, &[round + n; 16384]).unwrap();
                        let mut back = [0; 16384];
                        disk.read(u64::from(round) << 14, &mut back).unwrap();
                        assert_eq!(back, [round + n; 16384]);
                    }
                });
            }
        });
    }
}
