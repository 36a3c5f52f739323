//! The shortest way through everything: one block device over PCI modern.

use virtio::drivers::{Block, BlockOptions};
use virtio::testing::{Kind, Qemu};
use virtio::transport::TransportKind;

#[test]
fn a_block_device_of_qemu_is_read_and_written_by_its_address() {
    let qemu = Qemu::builder(Kind::Pc)
        .args(["-blockdev", "file,node-name=d,filename=@DIR/rom"])
        .device("virtio-blk-pci,drive=d,addr=4,disable-legacy=on")
        .start()
        .unwrap();
    let disk = Block::open(&qemu.pci(4), BlockOptions::default()).unwrap();
    assert_eq!((disk.device().transport().kind(), disk.size()), (TransportKind::PciModern, 0x10000));
    let data: Vec<u8> = (0..8192u32).map(|n| (n * 7) as u8).collect();
    disk.write(512, &data).unwrap();
    disk.flush().unwrap();
    let mut back = vec![0; data.len()];
    disk.read(512, &mut back).unwrap();
    assert_eq!(back, data);
    assert_eq!(std::fs::read(qemu.dir().join("rom")).unwrap()[512..][..data.len()], data);
    disk.close().unwrap();
}
