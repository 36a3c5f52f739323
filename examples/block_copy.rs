//! Copies an image: `block_copy FROM TO`.
//!
//! Each of the two is a file, or the address of a block device such as `soft:block?path=disk.img`. A file as TO is
//! made, and gets the size of what is copied. A device as TO must be large enough; what is left of the last sector
//! of 512 bytes is filled with zeroes. Progress goes to standard error; the exit code is 0 for success, 1 for a
//! failure, 2 for wrong arguments.
//!
//! ```sh
//! cargo run --release --example block_copy -- disk.img 'soft:block?size=64M'
//! ```

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::thread;

use virtio::address::Address;
use virtio::drivers::{Block, BlockOptions};

/// Bytes that are read before they are written, and how many such pieces are on their way.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;
/// A block device is read and written in multiples of this.
const SECTOR: u64 = 512;

/// What can go wrong here comes from files and from devices.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Something that holds an image.
enum Place {
    File(File),
    Device(Box<Block>),
}

impl Place {
    /// What to copy from.
    fn source(name: &str) -> Outcome<Self> {
        if is_address(name) { device(name) } else { Ok(Self::File(File::open(name)?)) }
    }

    /// What to copy `size` bytes to.
    fn target(name: &str, size: u64) -> Outcome<Self> {
        if !is_address(name) {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(name)?;
            file.set_len(size)?;
            return Ok(Self::File(file));
        }
        let target = device(name)?;
        let room = target.size()?;
        if room < size {
            return Err(format!("{name} has room for {room} bytes, {size} are to be copied").into());
        }
        Ok(target)
    }

    fn size(&self) -> Outcome<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Device(block) => Ok(block.size()),
        }
    }

    fn read(&self, at: u64, to: &mut [u8]) -> Outcome<()> {
        match self {
            Self::File(file) => Ok(file.read_exact_at(to, at)?),
            Self::Device(block) => Ok(block.read(at, to)?),
        }
    }

    fn write(&self, at: u64, piece: &mut Vec<u8>) -> Outcome<()> {
        match self {
            Self::File(file) => Ok(file.write_all_at(piece, at)?),
            Self::Device(block) => {
                piece.resize(piece.len().next_multiple_of(SECTOR as usize), 0);
                Ok(block.write(at, piece)?)
            }
        }
    }

    /// Makes permanent what was written.
    fn finish(self) -> Outcome<()> {
        match self {
            Self::File(file) => Ok(file.sync_all()?),
            Self::Device(block) => {
                block.flush()?;
                Ok(block.close()?)
            }
        }
    }
}

/// A name that begins with the scheme of a device address is one; `./soft:x` is a file.
fn is_address(name: &str) -> bool {
    name.parse::<Address>().is_ok()
}

fn device(name: &str) -> Outcome<Place> {
    Ok(Place::Device(Box::new(Block::open(name, BlockOptions::default())?)))
}

/// Copies all of `from` to `to` and tells how many bytes that were: one thread reads, this one writes.
pub(crate) fn copy(from: &str, to: &str, mut progress: impl FnMut(u64, u64)) -> Outcome<u64> {
    let source = Place::source(from)?;
    let size = source.size()?;
    let target = Place::target(to, size)?;
    thread::scope(|scope| {
        let (full_out, full_in) = sync_channel::<Outcome<(u64, Vec<u8>)>>(PIECES);
        let (empty_out, empty_in) = sync_channel(PIECES);
        for _ in 0..PIECES {
            empty_out.send(Vec::with_capacity(PIECE))?;
        }
        let source = &source;
        scope.spawn(move || {
            for at in (0..size).step_by(PIECE) {
                // The writer has given up where either channel is closed.
                let Ok(mut piece) = empty_in.recv() else { return };
                piece.resize((size - at).min(PIECE as u64) as usize, 0);
                let read = source.read(at, &mut piece).map(|()| (at, piece));
                if full_out.send(read).is_err() {
                    return;
                }
            }
        });
        for piece in full_in {
            let (at, mut piece) = piece?;
            let len = piece.len() as u64;
            target.write(at, &mut piece)?;
            progress(at + len, size);
            // The reader is done where it takes no more.
            let _ = empty_out.send(piece);
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    })?;
    target.finish()?;
    Ok(size)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut err = io::stderr();
    let [from, to] = args.as_slice() else {
        let _ = writeln!(err, "usage: block_copy FROM TO (each a file or a device's address)");
        return ExitCode::from(2);
    };
    let mut last = 0;
    let shown = copy(from, to, |done, size| {
        let percent = done * 100 / size.max(1);
        if percent != last {
            last = percent;
            let _ = write!(io::stderr(), "\r{percent:3} %");
        }
    });
    match shown {
        Ok(size) => {
            let _ = writeln!(err, "\r{size} bytes copied");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(err, "\rblock_copy: {error}");
            ExitCode::FAILURE
        }
    }
}
