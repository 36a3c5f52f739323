//! A driver that writes anything anywhere: the device survives it, and a reset gives an honest driver its due.

use std::sync::Arc;

use virtio::bus::RegisterSpace;
use virtio::features::Features;
use virtio::mem::dma::DmaMapper;
use virtio::mem::region::DmaRegion;
use virtio::soft::{Block, Console, DeviceModel, Entropy, Interface, Net, Run, SoftDevice};

use super::{Rig, Way, abused, ways};

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Small numbers, addresses that lead somewhere, and anything.
    fn value(&mut self, base: u64) -> u32 {
        match self.next() % 6 {
            0 => (self.next() % 8) as u32,
            1 => 1 << (self.next() % 32),
            2 => (base + self.next() % 0x1_0000) as u32 & !0xfff,
            3 => (base >> 32) as u32,
            4 => (base >> 12) as u32,
            _ => self.next() as u32,
        }
    }
}

fn models() -> Vec<Box<dyn DeviceModel>> {
    vec![
        Box::new(Entropy::new(1)),
        Box::new(Block::zeroes(64).with_queues(2)),
        Box::new(Console::new(1, 1)),
        Box::new(Net::new([2; 6])),
    ]
}

fn blocks(soft: &SoftDevice) -> Vec<Arc<dyn RegisterSpace>> {
    match soft.pci() {
        Ok(pci) => (0..6).filter_map(|bar| pci.bar(bar).unwrap()).map(|bar| bar.registers).collect(),
        Err(_) => vec![soft.mmio().unwrap().registers()],
    }
}

/// Writes and reads at random, often near the start, where the control registers are, with DRIVER_OK now and then.
fn storm(soft: &SoftDevice, random: &mut Random, region: &DmaRegion, base: u64) {
    let blocks = blocks(soft);
    for _ in 0..20_000 {
        let block = &blocks[random.next() as usize % blocks.len()];
        let near = if random.next().is_multiple_of(4) { block.size() } else { block.size().min(0x100) };
        let at = random.next() % near;
        let value = random.value(base);
        let _ = match random.next() % 5 {
            0 => block.write8(at, value as u8),
            1 => block.write16(at & !1, value as u16),
            2 | 3 => block.write32(at & !3, value),
            _ => block.read32(at & !3).map(|_| ()),
        };
        let _ = region.write(random.next() as usize % 0xfff0, &random.next().to_le_bytes());
        let _ = soft.step();
    }
}

#[test]
fn a_device_survives_any_driver() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for interface in Interface::ALL {
        for model in models() {
            let builder = SoftDevice::builder_boxed(model).interface(interface).run(Run::Stepped);
            let soft = abused(builder);
            let region = DmaRegion::new(0x1_0000).unwrap();
            let base = soft.dma().map(&region).unwrap().0;
            storm(&soft, &mut random, &region, base);
            assert!(soft.report().broken.is_some());
        }
    }
}

#[test]
fn after_a_reset_a_device_has_forgotten_the_driver_before() {
    for way in ways().into_iter().filter(|way| way.interface != Interface::PciTransitional) {
        let Way { interface, order, .. } = way;
        let builder = SoftDevice::builder(Entropy::new(1)).interface(interface).byte_order(order);
        let soft = abused(builder.run(Run::Stepped));
        let region = DmaRegion::new(0x1_0000).unwrap();
        let base = soft.dma().map(&region).unwrap().0;
        storm(&soft, &mut Random(7), &region, base);
        let mut rig = Rig::drive(way, soft, Run::Stepped, 1, Features::EMPTY);
        assert_eq!(rig.ask(0, &[], &[32]).0, 32, "{way:?}");
    }
}
