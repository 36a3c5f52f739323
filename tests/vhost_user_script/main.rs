//! A daemon that does as a script says, and lies in every way that a socket, its messages, its descriptors and the
//! memory behind it allow (faults V1 to V15, V18 to V21, P10 and P12, rule R9).
//!
//! A program of its own, whose tests run one after the other: they count descriptors and mappings of the process.
#![cfg(all(feature = "vhost-user", not(loom)))]
#![allow(unsafe_code, reason = "a test counts what is allocated")]

mod answers;
#[path = "../vhost_user/daemon.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod daemon;
mod ends;
mod events;
mod living;
mod offers;
mod oracle;
mod random;
mod requests;
mod ring;
mod script;
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use virtio::Error;
use virtio::address::Address;
use virtio::device::{Device, Options, Queue, QueueConfig};
use virtio::drivers::{Block, BlockOptions};
use virtio::features::Features;
use virtio::mem::pool::{DmaBuf, DmaPool};
use virtio::queue::Token;
use virtio::spec::ByteOrder;
use virtio::spec::device::block::request::{Header, RequestType};

/// What a wait may last beyond its deadline.
const SLACK: Duration = Duration::from_millis(50);

static ONE: Mutex<()> = Mutex::new(());

/// Lets one test run at a time.
fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Open descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// For how long this thread was ready to run and had no processor.
fn stalled() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').nth(1).and_then(|text| text.trim().parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Runs `call` and sees that it ends no later than its deadline. What others had of the processors is not counted.
fn timely<T>(limit: Duration, call: impl FnOnce() -> T) -> T {
    let (start, before) = (Instant::now(), stalled());
    let value = call();
    let took = start.elapsed();
    let stalled = stalled().saturating_sub(before);
    assert!(
        took <= limit + SLACK + stalled,
        "a call with {limit:?} took {took:?}, {stalled:?} of it stalled"
    );
    value
}

/// The largest piece of memory that anybody asked for.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: all is done by the system's allocator, with what came in.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

/// Options of a small block device, with this limit on each answer.
fn small(limit: Duration) -> BlockOptions {
    let mut options = BlockOptions::default();
    (options.chunk, options.window, options.queue_size) = (4096, 16 << 10, Some(16));
    (options.timeout, options.control_timeout) = (limit, limit);
    options
}

/// Where a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Config,
    Region,
    Read,
    Close,
}

/// A device's whole life: opened, set up, asked for its configuration, given another region, used, closed. Each step
/// keeps its limit; an opening is some thirty messages, each of which has a limit of its own.
fn life(address: &str, limit: Duration) -> Result<(), (Step, Error)> {
    let at = |step: Step| move |error: Error| (step, error.kind().clone());
    let disk = timely(40 * limit, || Block::open(address, small(limit))).map_err(at(Step::Open))?;
    let outcome = timely(limit, || disk.device().config().read(0, 8));
    outcome.map_err(at(Step::Config))?;
    let pool = timely(limit, || disk.device().pool(1, 8 << 20)).map_err(at(Step::Region))?;
    let mut data = [0; 1024];
    timely(limit, || disk.read(512, &mut data)).map_err(at(Step::Read))?;
    assert!(data[..512].iter().all(|&byte| byte == 1) && data[512..].iter().all(|&byte| byte == 2));
    drop(pool);
    timely(limit, || disk.close()).map_err(at(Step::Close))
}

/// A block device without its driver: one queue, and requests that are put together by hand.
struct Low {
    device: Device,
    queue: Queue<DmaBuf>,
    pools: [DmaPool; 3],
}

impl Low {
    fn open(address: &str, limit: Duration) -> Self {
        let address: Address = format!("{address}?type=block").parse().unwrap();
        let mut options = Options::default();
        options.control_timeout = limit;
        let device = virtio::open_with(&address, options).unwrap();
        device.negotiate(Features::EVENT_IDX, Features::VERSION_1).unwrap();
        let queue = device.take_queue(0, QueueConfig::size(64)).unwrap();
        device.start().unwrap();
        let pools = [16, 512, 1].map(|len| device.pool(20, len).unwrap());
        Self { device, queue, pools }
    }

    /// Asks for one sector.
    fn read(&mut self, sector: u64) -> Token {
        let [header, data, status] = self.pools.each_ref().map(|pool| pool.take().unwrap());
        let request = Header { request_type: RequestType::IN, reserved: 0, sector };
        header.write(0, &request.encode(ByteOrder::Little)).unwrap();
        self.queue.add([header], [data, status]).unwrap()
    }

    /// Waits for an answer, and gives its token.
    fn get(&mut self, limit: Duration) -> virtio::Result<Token> {
        let mut used = timely(limit, || self.queue.get(Some(limit)))?;
        assert_eq!(used.buffer(2).unwrap().to_vec().unwrap(), [0], "its status");
        Ok(used.token)
    }
}
