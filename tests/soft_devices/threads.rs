//! A device with a thread of its own: no notification is lost, in either direction, and it ends with its handles.

use std::time::{Duration, Instant};

use virtio::device::QueueConfig;
use virtio::features::Features;
use virtio::soft::{Entropy, Interface, Run, SoftDevice};
use virtio::spec::ByteOrder;
use virtio::transport::PciInterface;

use super::{Rig, SOON, Way, ways};

#[test]
fn a_threaded_device_loses_no_notification_and_sees_no_rule_broken() {
    for way in ways() {
        let mut rig = Rig::new(way, SoftDevice::builder(Entropy::new(1)), Run::Thread, 1, Features::EMPTY);
        let queue = &mut rig.queues[0];
        queue.set_spin(Duration::ZERO);
        let mut bufs: Vec<_> = (0..8).map(|_| rig.device.alloc(8).unwrap()).collect();
        for round in 0..1500usize {
            // From one to eight in flight, so that the device sleeps, wakes and finds more by turns.
            for buf in bufs.drain(..round % 8 + 1) {
                queue.add_chain([], [buf]).unwrap();
                queue.notify().unwrap();
            }
            while queue.outstanding() > 0 {
                let used = queue.get(Some(SOON)).unwrap();
                assert_eq!(used.written, 8);
                bufs.extend(used.into_buffers());
            }
        }
        rig.check();
        rig.device.close().unwrap();
    }
}

#[test]
fn a_device_serves_as_long_as_anything_of_it_is_held_and_then_ends_its_thread() {
    let way = Way { interface: Interface::PciModern, choice: PciInterface::Any, order: ByteOrder::Little };
    let soft = way.build(SoftDevice::builder(Entropy::new(1)), Run::Thread);
    let dma = std::sync::Arc::downgrade(soft.dma());
    let device = virtio::device::Device::open(way.transport(&soft), Default::default()).unwrap();
    drop(soft);
    device.negotiate(Features::EMPTY, Features::EMPTY).unwrap();
    let mut queue = device.take_queue(0, QueueConfig::default()).unwrap();
    device.start().unwrap();
    queue.add_chain([], [device.alloc(8).unwrap()]).unwrap();
    queue.notify().unwrap();
    assert_eq!(queue.get(Some(SOON)).unwrap().written, 8);
    device.close().unwrap();
    drop((queue, device));
    let start = Instant::now();
    while dma.strong_count() > 0 && start.elapsed() < SOON {
        std::thread::yield_now();
    }
    assert_eq!(dma.strong_count(), 0, "the thread holds the device");
}
