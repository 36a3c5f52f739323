//! Interrupts of every kind reach the descriptor of a queue.

use std::time::{Duration, Instant};

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
    let qemu = crate::entropy(way, if way.is_pci() && !vectors { ",vectors=0" } else { "" });
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

/// A message is a store that nothing tells of. The quickest quarter of them is an event within a millisecond; the others
/// may have waited for a processor that somebody else had.
#[test]
fn a_message_becomes_an_event_within_a_millisecond() {
    let way = Way::Modern;
    let qemu = crate::entropy(way, "");
    let machine = machine(&qemu);
    let function = machine.pci(0, 4, 0, "the function").unwrap();
    let event = function.enable_msix(1).unwrap().remove(0);
    // QEMU puts the table of vectors alone into BAR 1.
    let address = function.bar(1).unwrap().unwrap().registers.read32(0).unwrap();
    // Long enough pauses for the thread to look less often.
    let mut times: Vec<Duration> = (0..32)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(40));
            event.drain().unwrap();
            let start = Instant::now();
            machine.command(&format!("writel {address:#x} 0x1")).unwrap();
            assert!(event.wait(Deadline::after(SOON)).unwrap());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[times.len() / 4] < Duration::from_millis(1), "{times:?}");
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

/// Of a line that stays up nothing is told: after a service that left a cause behind the event comes again.
#[test]
fn a_line_that_stays_up_after_a_service_wakes_again() {
    use virtio::spec::mmio::{INTERRUPT_ACK, INTERRUPT_STATUS, STATUS};
    let way = Way::Mmio;
    let qemu = way
        .builder()
        .args(["-netdev", "hubport,id=n,hubid=0"])
        .device(way.device("net", 0, "netdev=n"))
        .start()
        .unwrap();
    let slot = machine(&qemu).mmio(0xfeb0_2e00, "the slot").unwrap();
    let event = slot.enable_interrupt().unwrap();
    let registers = slot.registers();
    // Far enough for a change of the configuration to be told of.
    [0, 1, 3, 11, 15].into_iter().for_each(|status| registers.write32(STATUS, status).unwrap());
    qemu.qmp().execute("set_link", "{\"name\":\"n\",\"up\":false}").unwrap();
    let soon = Deadline::after(SOON);
    while registers.read32(INTERRUPT_STATUS).unwrap() == 0 {
        assert!(!soon.passed());
    }
    // The line was told of by now, and told on: nothing more comes by itself.
    let wake = || {
        let woken = event.wait(Deadline::after(SOON)).unwrap();
        event.drain().unwrap();
        woken
    };
    assert!(wake());
    let quiet = || !event.wait(Deadline::after(std::time::Duration::from_millis(20))).unwrap();
    while !quiet() {
        event.drain().unwrap();
        assert!(!soon.passed(), "it comes for ever, though the line was told of");
    }
    for _ in 0..3 {
        slot.unmask_interrupt().unwrap();
        assert!(wake(), "the line is still up");
    }
    let causes = registers.read32(INTERRUPT_STATUS).unwrap();
    registers.write32(INTERRUPT_ACK, causes).unwrap();
    slot.unmask_interrupt().unwrap();
    assert!(quiet(), "the line is down");
}
