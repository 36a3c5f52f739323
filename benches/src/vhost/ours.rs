//! Ours: by the calls of `Block`, and by a queue that the caller drives.

use virtio::Result;
use virtio::device::{Queue, QueueConfig};
use virtio::drivers::block::{Answer, Done, Pipe, Submitter};
use virtio::drivers::{Block, BlockOptions};
use virtio::event::Deadline;
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};

use super::measure::{BLOCK, Client, Offsets, QUEUE};

fn address(path: &str) -> String {
    format!("vhost-user:{path}?type=block")
}

/// With queues as large as the peer's; everything else as it comes.
fn open(path: &str) -> Result<Block> {
    let mut options = BlockOptions::default();
    options.queue_size = Some(QUEUE);
    Block::open(&address(path), options)
}

/// A call at a time, each of which waits.
pub struct Calls {
    block: Block,
    offsets: Offsets,
    buf: Option<DmaBuf>,
    bytes: Vec<u8>,
    pool: DmaPool,
}

impl Calls {
    /// `copies`: into bytes of the caller's; else into a buffer of the device's.
    ///
    /// # Errors
    /// As [`Block::open`].
    pub fn open(path: &str, copies: bool) -> Result<Self> {
        let block = open(path)?;
        let pool = block.device().pool(1, BLOCK as u32)?;
        let (buf, bytes) = if copies { (None, vec![0; BLOCK]) } else { (Some(pool.take()?), Vec::new()) };
        Ok(Self { block, offsets: Offsets::default(), buf, bytes, pool })
    }
}

impl Client for Calls {
    fn turn(&mut self, requests: u64) -> u64 {
        for _ in 0..requests {
            let offset = self.offsets.draw();
            match self.buf.take() {
                Some(buf) => self.buf = Some(self.block.read_into(offset, buf).expect("a read")),
                None => self.block.read(offset, &mut self.bytes).expect("a read"),
            }
        }
        requests
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        drop(self.buf.take());
        assert_eq!(self.pool.free(), 1);
    }
}

/// Batches: `depth` reads by one call, into bytes of the caller's.
pub struct Batches {
    block: Block,
    offsets: Offsets,
    places: Vec<u64>,
    bytes: Vec<u8>,
}

impl Batches {
    /// # Errors
    /// As [`Block::open`].
    pub fn open(path: &str, depth: u32) -> Result<Self> {
        let (count, block) = (depth as usize, open(path)?);
        Ok(Self { block, offsets: Offsets::default(), places: vec![0; count], bytes: vec![0; count * BLOCK] })
    }
}

impl Client for Batches {
    fn turn(&mut self, requests: u64) -> u64 {
        let mut made = 0;
        while made < requests {
            self.places.iter_mut().for_each(|place| *place = self.offsets.draw());
            self.block.read_many(&self.places, &mut self.bytes).expect("reads");
            made += self.places.len() as u64;
        }
        made
    }
}

/// Calls that do not wait, `depth` of them under way, into buffers of the device's.
pub struct Submitted {
    block: Submitter<()>,
    offsets: Offsets,
    depth: usize,
    done: Vec<Done<()>>,
    free: Vec<DmaBuf>,
}

impl Submitted {
    /// # Errors
    /// As [`Block::open`].
    pub fn open(path: &str, depth: u32) -> Result<Self> {
        let block = open(path)?;
        let pool = block.device().pool(depth, BLOCK as u32)?;
        let free = (0..depth).map(|_| pool.take()).collect::<Result<_>>()?;
        let (depth, done) = (depth as usize, Vec::new());
        Ok(Self { block: block.submitter(), offsets: Offsets::default(), depth, done, free })
    }

    fn take(&mut self) -> u64 {
        self.block.poll(&mut self.done).expect("a device that is there");
        let taken = self.done.len();
        for done in self.done.drain(..) {
            match done.outcome {
                Ok(Answer::Buffer(buf)) => self.free.push(buf),
                other => panic!("a read: {other:?}"),
            }
        }
        taken as u64
    }
}

impl Client for Submitted {
    fn turn(&mut self, requests: u64) -> u64 {
        let mut made = 0;
        while made < requests {
            while let Some(buf) = self.free.pop() {
                self.block.read_into(self.offsets.draw(), buf, ()).expect("a read");
            }
            made += self.take();
        }
        made
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        while self.free.len() < self.depth {
            self.take();
        }
    }
}

/// A pipe with `depth` requests under way.
pub struct Piped {
    pipe: Pipe,
    offsets: Offsets,
    depth: usize,
    /// Whether the next request is made only when all before it have ended.
    batches: bool,
    free: Vec<DmaBuf>,
}

impl Piped {
    /// # Errors
    /// As [`Block::open`].
    pub fn open(path: &str, depth: u32, batches: bool) -> Result<Self> {
        let pipe = open(path)?.into_pipes()?.remove(0);
        let pool = pipe.device().pool(depth, BLOCK as u32)?;
        let free = (0..depth).map(|_| pool.take()).collect::<Result<_>>()?;
        Ok(Self { pipe, offsets: Offsets::default(), depth: depth as usize, batches, free })
    }

    #[inline(always)]
    fn submit(&mut self) {
        for tag in 0..self.free.len() as u64 {
            let buf = self.free.pop().expect("as many as were counted");
            self.pipe.read(self.offsets.draw(), buf, tag).expect("a queue of 512 has room");
        }
        self.pipe.send().expect("a device that is there");
    }

    #[inline(always)]
    fn take(&mut self) -> u64 {
        let Self { pipe, free, .. } = self;
        let taken = pipe.take_each(|done| free.extend(done.outcome.expect("a read")));
        taken.expect("an honest device").into()
    }
}

impl Client for Piped {
    fn turn(&mut self, requests: u64) -> u64 {
        let mut made = 0;
        while made < requests {
            self.submit();
            // One at a time is waited for as it comes: spinning, then asleep.
            if self.depth == 1 {
                let done = self.pipe.wait(Deadline::never()).expect("an honest device");
                self.free.extend(done.outcome.expect("a read"));
                made += 1;
                continue;
            }
            made += self.take();
            while self.batches && self.free.len() < self.depth {
                made += self.take();
            }
        }
        made
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        while self.free.len() < self.depth {
            self.take();
        }
    }
}

/// A queue that the caller drives, requests and all.
pub struct Driven {
    queue: Queue<DmaBuf>,
    offsets: Offsets,
    depth: usize,
    free: Vec<[DmaBuf; 3]>,
    // After the queue.
    _device: virtio::device::Device,
}

impl Driven {
    /// # Errors
    /// As [`virtio::open`] and what follows it.
    pub fn open(path: &str, depth: u32) -> Result<Self> {
        let device = virtio::open(&address(path))?;
        device.negotiate(Features::EVENT_IDX, Features::VERSION_1)?;
        let mut queue = device.take_queue(0, QueueConfig::size(QUEUE))?;
        device.start()?;
        let (headers, statuses) = (device.pool(depth, 16)?, device.pool(depth, 1)?);
        let data = device.pool(depth, BLOCK as u32)?;
        let part = |pool: &DmaPool, len: u32| -> Result<DmaBuf> {
            let mut buf = pool.take()?;
            buf.set_len(len)?;
            Ok(buf)
        };
        let request = |_| Ok([part(&headers, 16)?, data.take()?, part(&statuses, 1)?]);
        let free = (0..depth).map(request).collect::<Result<Vec<_>>>()?;
        queue.disable_interrupts();
        Ok(Self { queue, offsets: Offsets::default(), depth: depth as usize, free, _device: device })
    }

    #[inline(always)]
    fn submit(&mut self) {
        let count = self.free.len();
        for _ in 0..count {
            let [header, data, status] = self.free.pop().expect("as many as were counted");
            let mut request = [0; 16];
            request[8..].copy_from_slice(&(self.offsets.draw() / 512).to_le_bytes());
            header.write(0, &request).expect("a header");
            status.write(0, &[0xff]).expect("a status");
            self.queue.add([header], [data, status]).expect("a queue of 512 has room");
        }
        if count != 0 {
            self.queue.notify().expect("a device that is there");
        }
    }

    #[inline(always)]
    fn take(&mut self) -> u64 {
        let mut taken = 0;
        while let Some(mut used) = self.queue.pop().expect("an honest device") {
            let [Some(header), Some(data), Some(status)] = [0, 1, 2].map(|index| used.buffer(index)) else {
                panic!("a chain of three")
            };
            let mut byte = [0xff];
            status.read(0, &mut byte).expect("a status");
            assert_eq!((byte, used.written), ([0], BLOCK as u32 + 1), "a read failed");
            self.free.push([header, data, status]);
            taken += 1;
        }
        taken
    }
}

impl Client for Driven {
    fn turn(&mut self, requests: u64) -> u64 {
        let mut made = 0;
        while made < requests {
            self.submit();
            made += self.take();
        }
        made
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        while self.free.len() < self.depth {
            self.take();
        }
    }
}
