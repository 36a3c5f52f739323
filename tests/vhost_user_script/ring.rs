//! Rings as the scripted daemon serves them: a disk of bytes, over the crate `virtio-queue`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

type Memory = Arc<GuestMemoryMmap>;
pub(crate) type Chain = DescriptorChain<Memory>;

/// One region as the front-end told of it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) guest: u64,
    pub(crate) len: u64,
    pub(crate) user: u64,
    pub(crate) offset: u64,
    pub(crate) file: Arc<File>,
}

/// The mapped memory of one connection. Every mapping is read and written by the volatile accesses of `vm-memory`.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    pub(crate) told: Vec<Told>,
    pub(crate) memory: Option<Memory>,
}

impl Regions {
    pub(crate) fn add(&mut self, told: Told) {
        self.told.push(told);
        let regions = self.told.iter().map(|told| {
            let file = FileOffset::from_arc(Arc::clone(&told.file), told.offset);
            let mapping = MmapRegion::from_file(file, told.len as usize).unwrap();
            GuestRegionMmap::new(mapping, GuestAddress(told.guest)).unwrap()
        });
        self.memory = Some(Arc::new(GuestMemoryMmap::from_regions(regions.collect()).unwrap()));
    }

    /// What descriptors call an address that the front-end gave as its own.
    fn guest(&self, user: u64) -> u64 {
        let inside = |told: &&Told| user >= told.user && user - told.user < told.len;
        let told = self.told.iter().find(inside).expect("an address of a region that was told");
        told.guest + (user - told.user)
    }

    /// Writes `byte` over all of it.
    pub(crate) fn overwrite(&self, byte: u8) {
        let memory = self.memory.as_ref().unwrap();
        let page = [byte; 4096];
        for told in &self.told {
            for at in (0..told.len).step_by(4096) {
                memory.write_slice(&page, GuestAddress(told.guest + at)).unwrap();
            }
        }
    }
}

/// One ring of one connection.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) queue: Queue,
    pub(crate) enabled: bool,
    pub(crate) kick: Option<OwnedFd>,
    pub(crate) call: Option<OwnedFd>,
    /// Chains that were taken and not answered.
    pub(crate) taken: Vec<Chain>,
}

impl Ring {
    pub(crate) fn new() -> Self {
        Self { queue: Queue::new(1024).unwrap(), enabled: false, kick: None, call: None, taken: Vec::new() }
    }

    pub(crate) fn set_addresses(&mut self, regions: &Regions, [table, used, avail]: [u64; 3]) {
        let at = |addr: u64| GuestAddress(regions.guest(addr));
        self.queue.try_set_desc_table_address(at(table)).unwrap();
        self.queue.try_set_used_ring_address(at(used)).unwrap();
        self.queue.try_set_avail_ring_address(at(avail)).unwrap();
    }

    /// Takes what is available.
    pub(crate) fn take(&mut self, memory: &Memory) {
        while let Some(chain) = self.queue.pop_descriptor_chain(Arc::clone(memory)) {
            self.taken.push(chain);
        }
    }

    /// Answers the chains that were taken, but for `keep` of them.
    pub(crate) fn answer(&mut self, memory: &Memory, disk: &mut [u8], keep: usize) {
        while self.taken.len() > keep {
            let chain = self.taken.remove(0);
            let written = serve(memory, chain.clone(), disk);
            self.queue.add_used(&**memory, chain.head_index(), written).unwrap();
        }
    }

    /// Whether the driver wants to be told of what was answered.
    pub(crate) fn call_wanted(&mut self, memory: &Memory) -> bool {
        self.queue.needs_notification(&**memory).unwrap()
    }

    pub(crate) fn call(&self) {
        if let Some(call) = &self.call {
            let _ = rustix::io::write(call, &1u64.to_ne_bytes());
        }
    }
}

/// A block request (VIRTIO 1.4 §5.2.6): answers how many bytes were written.
fn serve(memory: &Memory, chain: Chain, disk: &mut [u8]) -> u32 {
    let mut reader = chain.clone().reader(memory).unwrap();
    let mut writer = chain.writer(memory).unwrap();
    let kind: u32 = reader.read_obj::<u32>().unwrap();
    let _: u32 = reader.read_obj().unwrap();
    let at = reader.read_obj::<u64>().unwrap() as usize * 512;
    let mut status = 0u8;
    match kind {
        0 => {
            let len = writer.available_bytes() - 1;
            writer.write_all(&disk[at..at + len]).unwrap();
        }
        1 => {
            let len = reader.available_bytes();
            reader.read_exact(&mut disk[at..at + len]).unwrap();
        }
        4 => {}
        _ => status = 2,
    }
    let rest = writer.available_bytes() - 1;
    if rest > 0 {
        writer.write_all(&vec![0; rest]).unwrap();
    }
    writer.write_all(&[status]).unwrap();
    writer.bytes_written() as u32
}

/// Whether the ring has to be looked at again after asking for kicks.
pub(crate) fn ask_for_kicks(ring: &mut Ring, memory: &Memory) -> bool {
    ring.queue.enable_notification(&**memory).unwrap()
}
