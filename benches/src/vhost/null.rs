//! A block device behind vhost-user that completes every request at once, on a thread that spins: what it costs to
//! reach a device, and nothing else.
//!
//! It reads each descriptor, writes status 0 and touches no data. `used.idx` is stored once a drain. It wants no
//! notification, and sends one only where the driver asks and the ring is empty. Split ring, one queue, no EVENT_IDX.

use std::io::{Read, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::thread::{self, JoinHandle};

use super::memory::{DESCRIPTION, Memory};
use super::wire::{Message, bad, receive, reply, request};
use crate::cpu::pin;
use crate::raw::{Descriptor, INDIRECT, NEXT, NO_INTERRUPT, NO_NOTIFY, RingAreas, WRITE, read_descriptor};

/// VERSION_1, INDIRECT_DESC, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_BLK_F_SEG_MAX and _BLK_SIZE.
const FEATURES: u64 = 1 << 32 | 1 << 28 | 1 << 30 | 1 << 2 | 1 << 6;
/// MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS.
const PROTOCOL_FEATURES: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 15;
/// Bytes of the device: what reads choose their offsets from.
pub const CAPACITY: u64 = 1 << 30;

/// Serves one connection after the other at `path`, with the ring's thread on `core`, until the standard input ends.
///
/// # Errors
/// The socket cannot be made. What goes wrong with one connection ends that one.
pub fn serve(path: &str, core: usize) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    println!("ready");
    let owner = thread::spawn(|| {
        // The parent holds the other end: with it goes this process.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        if let Err(error) = converse(&mut stream?, core) {
            eprintln!("null device: {error}");
        }
    }
    drop(owner);
    Ok(())
}

/// What the driver has told of the ring.
#[derive(Debug, Default)]
struct Told {
    size: u32,
    base: u16,
    /// Descriptor table, used ring, available ring.
    areas: Option<[u64; 3]>,
    call: Option<OwnedFd>,
}

/// The thread that serves the ring.
struct Runner {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u16>,
}

impl Runner {
    /// Answers how far it came.
    fn stop(self) -> u16 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_default()
    }
}

fn converse(stream: &mut UnixStream, core: usize) -> Result<()> {
    let mut memory = Arc::new(Memory::default());
    let mut told = Told::default();
    let mut runner: Option<Runner> = None;
    while let Some(message) = receive(stream)? {
        let mut answer = None;
        match message.request {
            request::GET_FEATURES => answer = Some(FEATURES.to_ne_bytes().to_vec()),
            request::GET_PROTOCOL_FEATURES => answer = Some(PROTOCOL_FEATURES.to_ne_bytes().to_vec()),
            request::GET_QUEUE_NUM => answer = Some(1u64.to_ne_bytes().to_vec()),
            request::GET_MAX_MEM_SLOTS => answer = Some(8u64.to_ne_bytes().to_vec()),
            request::GET_CONFIG => answer = Some(config(&message)?),
            request::SET_MEM_TABLE | request::ADD_MEM_REG | request::REM_MEM_REG => {
                // A table that a running ring uses is not changed: the ring is stopped for that long.
                told.base = runner.take().map_or(told.base, Runner::stop);
                let table = Arc::get_mut(&mut memory).ok_or_else(|| bad("the ring has not stopped"))?;
                change(table, &message)?;
                if told.size != 0 && told.areas.is_some() {
                    runner = Some(start(&memory, &told, core)?);
                }
            }
            request::SET_VRING_NUM => told.size = message.u32(4)?,
            request::SET_VRING_BASE => told.base = message.u32(4)? as u16,
            request::SET_VRING_ADDR => {
                told.areas = Some([message.u64(8)?, message.u64(16)?, message.u64(24)?]);
            }
            request::SET_VRING_CALL => {
                told.call = message.fds.first().map(|fd| fd.try_clone()).transpose()?
            }
            request::SET_VRING_ENABLE => {
                told.base = runner.take().map_or(told.base, Runner::stop);
                if message.u32(4)? != 0 {
                    runner = Some(start(&memory, &told, core)?);
                }
            }
            request::GET_VRING_BASE => {
                told.base = runner.take().map_or(told.base, Runner::stop);
                told.areas = None;
                answer = Some((u64::from(told.base) << 32).to_ne_bytes().to_vec());
            }
            _ => {}
        }
        let answer = answer.or_else(|| message.wants_reply.then(|| vec![0; 8]));
        if let Some(payload) = answer {
            reply(stream, message.request, &payload)?;
        }
    }
    runner.map(Runner::stop);
    Ok(())
}

/// The block configuration: capacity in sectors, `seg_max` and the block size.
fn config(message: &Message) -> Result<Vec<u8>> {
    let mut space = [0u8; 256];
    space[..8].copy_from_slice(&(CAPACITY / 512).to_le_bytes());
    space[12..16].copy_from_slice(&126u32.to_le_bytes());
    space[20..24].copy_from_slice(&512u32.to_le_bytes());
    let (offset, size) = (message.u32(0)? as usize, message.u32(4)? as usize);
    let mut payload = message.payload[..12].to_vec();
    payload
        .extend_from_slice(space.get(offset..offset + size).ok_or_else(|| bad("beyond the configuration"))?);
    Ok(payload)
}

fn change(memory: &mut Memory, message: &Message) -> Result<()> {
    let at = |at: usize| -> Result<[u64; 4]> {
        Ok([message.u64(at)?, message.u64(at + 8)?, message.u64(at + 16)?, message.u64(at + 24)?])
    };
    match message.request {
        request::SET_MEM_TABLE => {
            memory.clear();
            for (index, fd) in message.fds.iter().enumerate() {
                memory.add(at(8 + index * DESCRIPTION)?, fd)?;
            }
        }
        request::ADD_MEM_REG => {
            let fd = message.fds.first().ok_or_else(|| bad("a region without a descriptor"))?;
            memory.add(at(8)?, fd)?;
        }
        _ => memory.remove(message.u64(8)?),
    }
    Ok(())
}

fn start(memory: &Arc<Memory>, told: &Told, core: usize) -> Result<Runner> {
    let size = u16::try_from(told.size).map_err(|_| bad("a queue size"))?;
    let [desc, used, avail] = told.areas.ok_or_else(|| bad("a ring that is nowhere"))?;
    let entries = usize::from(size);
    let desc = memory.ring(desc, 16 * entries)?;
    let avail = memory.ring(avail, 4 + 2 * entries)?;
    let used = memory.ring(used, 4 + 8 * entries)?;
    // SAFETY: the driver's memory holds the parts; the thread below, which alone uses them, keeps it mapped.
    let ring = unsafe { RingAreas::new(desc, avail, used, size) };
    let stop = Arc::new(AtomicBool::new(false));
    let call = told.call.as_ref().map(OwnedFd::try_clone).transpose()?;
    let (memory, ended, base) = (Arc::clone(memory), Arc::clone(&stop), told.base);
    let thread = thread::spawn(move || {
        pin(core);
        let mut device = Null { ring, memory: &memory, call, done: base, owes: false };
        device.run(&ended)
    });
    Ok(Runner { stop, thread })
}

struct Null<'a> {
    ring: RingAreas,
    memory: &'a Memory,
    call: Option<OwnedFd>,
    /// Number of chains that were taken, and given back.
    done: u16,
    /// Whether chains were given back since the driver was last asked whether it wants to be told.
    owes: bool,
}

/// Empty looks between two at whether to stop.
const LOOKS: u32 = 64;

impl Null<'_> {
    fn run(&mut self, stop: &AtomicBool) -> u16 {
        self.ring.used_flags().store(NO_NOTIFY, Ordering::Relaxed);
        let mut empty = 0;
        loop {
            if self.drain() != 0 {
                empty = 0;
                continue;
            }
            if self.owes {
                self.tell();
            }
            empty += 1;
            if empty % LOOKS == 0 && stop.load(Ordering::Acquire) {
                return self.done;
            }
        }
    }

    /// Completes what `avail.idx` announces at this moment.
    #[inline(never)]
    fn drain(&mut self) -> u16 {
        let end = self.ring.avail_idx().load(Ordering::Acquire);
        let count = end.wrapping_sub(self.done);
        while self.done != end {
            let head = self.ring.avail_ring(self.done).load(Ordering::Relaxed);
            let written = self.walk(head);
            self.ring.write_used(self.done, u32::from(head), written);
            self.done = self.done.wrapping_add(1);
        }
        if count != 0 {
            self.ring.used_idx().store(self.done, Ordering::Release);
            self.owes = true;
        }
        count
    }

    /// Tells the driver of what was given back, if it wants that.
    #[cold]
    fn tell(&mut self) {
        self.owes = false;
        // Pairs with the driver's: it stores its wish and then loads `used.idx`.
        fence(Ordering::SeqCst);
        if self.ring.avail_flags().load(Ordering::Relaxed) & NO_INTERRUPT == 0
            && let Some(call) = &self.call
        {
            let _ = rustix::io::write(call.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// Walks one chain: the last byte is its status. Answers how many bytes the device could write.
    #[inline(always)]
    fn walk(&self, head: u16) -> u32 {
        let mut desc = self.ring.read_desc(head);
        let (mut table, mut entries) = (std::ptr::null_mut(), u64::MAX);
        if desc.flags & INDIRECT != 0 {
            entries = u64::from(desc.len) / 16;
            table = self.memory.at(desc.addr, u64::from(desc.len));
            if table.is_null() {
                return 0;
            }
            // SAFETY: the driver's memory has the whole table, and stays mapped while this thread runs.
            desc = unsafe { read_descriptor(table, 0) };
        }
        let mut written = 0u32;
        for _ in 0..u64::from(self.ring.size()).min(entries) {
            if desc.flags & WRITE != 0 {
                written = written.wrapping_add(desc.len);
            }
            if desc.flags & NEXT == 0 {
                self.finish(&desc);
                return written;
            }
            desc = match table.is_null() {
                true => self.ring.read_desc(desc.next),
                // SAFETY: as above; the index is looked at first.
                false if u64::from(desc.next) < entries => unsafe {
                    read_descriptor(table, usize::from(desc.next))
                },
                false => return 0,
            };
        }
        0
    }

    #[inline(always)]
    fn finish(&self, last: &Descriptor) {
        let status = self.memory.at(last.addr, u64::from(last.len));
        if last.flags & WRITE != 0 && last.len != 0 && !status.is_null() {
            let status = status.wrapping_add(last.len as usize - 1);
            // SAFETY: a byte of the driver's memory, which stays mapped while this thread runs.
            unsafe { AtomicU8::from_ptr(status) }.store(0, Ordering::Relaxed);
        }
    }
}
