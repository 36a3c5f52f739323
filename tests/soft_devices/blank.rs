//! The device that does nothing, on its shortest way and on every other.

use std::collections::BTreeSet;
use std::sync::Arc;

use virtio::device::{Device, Options, Queue, QueueConfig};
use virtio::features::Features;
use virtio::mem::dma::{DmaMapper, SoftDma};
use virtio::mem::pool::DmaBuf;
use virtio::mem::region::DmaRegion;
use virtio::queue::{Areas, RingConfig};
use virtio::soft::{Blank, DeviceRing, DriverFault, Run, SoftDevice};
use virtio::spec::ByteOrder;
use virtio::transport::{PciInterface, open_pci};

use super::SOON;
use super::checked::{checked, unchecked};

/// A device that is run inline, on the shortest way unless it is checked.
fn rig(with_check: bool, wanted: Features) -> (SoftDevice, Device, Queue<DmaBuf>) {
    let builder = SoftDevice::builder(Blank).run(Run::Inline);
    let soft = if with_check { checked(builder) } else { unchecked(builder) };
    let transport = open_pci(soft.pci().unwrap(), PciInterface::Any, ByteOrder::Little).unwrap();
    let device = Device::open(transport, Options::default()).unwrap();
    device.negotiate(wanted, Features::EMPTY).unwrap();
    let queue = device.take_queue(0, QueueConfig::size(8)).unwrap();
    device.start().unwrap();
    (soft, device, queue)
}

#[test]
fn every_chain_comes_back_in_the_notification_with_all_its_bytes_written() {
    let rings = Features::EVENT_IDX | Features::INDIRECT_DESC;
    for (with_check, wanted) in [(false, Features::EMPTY), (false, rings), (true, Features::EMPTY)] {
        let (soft, device, mut queue) = rig(with_check, wanted);
        let buf = |len| device.pool(1, len).unwrap().take().unwrap();
        for turn in 0..100 {
            let full = buf(64);
            full.fill(9).unwrap();
            let chains = [
                (queue.add([], [full]).unwrap(), 64),
                (queue.add([buf(16)], []).unwrap(), 0),
                (queue.add([buf(16)], [buf(100), buf(1)]).unwrap(), 101),
            ];
            queue.notify().unwrap();
            for (token, written) in chains {
                let used = queue.pop().unwrap().expect("used in the notification");
                assert_eq!((used.token, used.written), (token, written), "turn {turn}");
                if written == 64 {
                    let bytes = used.into_buffers().next().unwrap().to_vec().unwrap();
                    assert_eq!(bytes, [9; 64], "nothing is written");
                }
            }
            assert!(queue.pop().unwrap().is_none());
        }
        let report = soft.report();
        assert_eq!((report.chains, report.notifications), (300, 100));
        assert_eq!(report.interrupts, 0, "nobody sleeps");
        assert_eq!(report.broken, None);
    }
}

#[test]
fn who_sleeps_is_woken() {
    for wanted in [Features::EMPTY, Features::EVENT_IDX] {
        let (soft, device, mut queue) = rig(false, wanted);
        queue.add([], [device.pool(1, 16).unwrap().take().unwrap()]).unwrap();
        queue.notify().unwrap();
        queue.pop().unwrap().unwrap();
        assert!(!queue.enable_interrupts().unwrap());
        queue.add([], [device.pool(1, 16).unwrap().take().unwrap()]).unwrap();
        queue.notify().unwrap();
        assert_eq!(soft.report().interrupts, 1);
        assert_eq!(queue.get(Some(SOON)).unwrap().written, 16);
    }
}

/// What two ends of one ring make of the same chains: the one that takes chains apart, and the one that does not.
fn judge(dma: &Arc<SoftDma>, addr: u64, config: &RingConfig) -> [Vec<Result<u64, DriverFault>>; 2] {
    let memory = dma.view().ring_memory(addr, config.ring_bytes().unwrap()).unwrap();
    let mut apart = DeviceRing::beside(&memory, config).unwrap();
    let mut found = Vec::new();
    loop {
        match apart.pop(&()) {
            Ok(None) => break,
            Ok(Some(chain)) => found.push(Ok(chain.writable_len().min(u32::MAX.into()))),
            Err(fault) => {
                found.push(Err(fault));
                break;
            }
        }
    }
    let mut whole = DeviceRing::beside(&memory, config).unwrap();
    let taken = whole.use_all();
    let used = Areas::new(config.layout, config.size).unwrap().device as u64 + 4;
    let element = |index: u16| dma.view().load::<u32>(addr + used + 8 * u64::from(index) + 4).unwrap();
    let mut lengths: Vec<_> = (0..whole.next_used()).map(|index| Ok(element(index).into())).collect();
    match taken {
        Ok(count) => assert_eq!(count, whole.next_used().into()),
        Err(fault) => lengths.push(Err(fault)),
    }
    [found, lengths]
}

#[test]
fn what_a_driver_writes_is_judged_as_everywhere() {
    let config = RingConfig::new(0, 4);
    let areas = Areas::new(config.layout, config.size).unwrap();
    let dma = Arc::new(SoftDma::new());
    let region = DmaRegion::new(areas.total).unwrap();
    let addr = dma.map(&region).unwrap().0;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut faults = BTreeSet::new();
    for _ in 0..50_000 {
        for index in 0..4 {
            // Mostly short and right, so that chains become long.
            let len =
                if random() % 16 == 0 { u32::MAX - (random() % 2) as u32 } else { (random() % 100) as u32 };
            let flags =
                [0, 1, 1, 2, 3, 3, 1, 3][random() as usize % 8] | if random() % 16 == 0 { 4 } else { 0 };
            let next = random() as u16 % 5;
            let rest = u64::from(len) | flags << 32 | u64::from(next) << 48;
            region.store(16 * index, random()).unwrap();
            region.store(16 * index + 8, rest).unwrap();
            region.store(areas.driver + 4 + 2 * index, random() as u16 % 5).unwrap();
        }
        region.store(areas.driver + 2, random() as u16 % 6).unwrap();
        let [apart, whole] = judge(&dma, addr, &config);
        assert_eq!(apart, whole);
        faults.extend(
            apart.into_iter().filter_map(Result::err).map(|fault| format!("{fault:?}")[..10].to_owned()),
        );
    }
    assert!(faults.len() >= 7, "each of the rules was broken: {faults:?}");
}
