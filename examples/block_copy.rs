//! Copies an image: `block_copy [--progress] FROM TO`.
//!
//! Each of the two is a file, or the address of a block device such as `soft:block?path=disk.img`; what begins with
//! the scheme of an address is one, and `./soft:x` is a file. A file as TO is made, or emptied, and gets the size of
//! what is copied. A device as TO must be large enough; what is left of the last sector of 512 bytes is filled with
//! zeroes, and what is behind it stays as it is. What was copied is permanent when the program ends with success.
//!
//! Progress, and at the end the number of bytes, go to standard error where that is a terminal, or with
//! `--progress`. Errors go there in any case.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | everything was copied |
//! | 1 | something went wrong, and a line on standard error says what; TO may hold a part |
//! | 2 | wrong arguments; nothing was opened |
//!
//! ```sh
//! cargo run --release --example block_copy -- disk.img 'soft:block?size=64M'
//! ```

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
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
pub(crate) enum Place {
    File(File),
    Device(Box<Block>),
}

impl Place {
    /// What to copy from.
    fn source(name: &str) -> Outcome<Self> {
        if is_address(name) {
            return device(name);
        }
        let file = File::open(name).map_err(|error| format!("{name}: {error}"))?;
        if !file.metadata()?.is_file() {
            return Err(format!("{name} is no regular file").into());
        }
        Ok(Self::File(file))
    }

    /// What to copy all of this to.
    fn target(&self, name: &str) -> Outcome<Self> {
        if is_address(name) {
            return device(name);
        }
        // Emptied only once it is known not to be the source.
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(name);
        let file = opened.map_err(|error| format!("{name}: {error}"))?;
        let there = file.metadata()?;
        if !there.is_file() {
            return Err(format!("{name} is no regular file").into());
        }
        if let Self::File(source) = self {
            let source = source.metadata()?;
            if (source.dev(), source.ino()) == (there.dev(), there.ino()) {
                return Err(format!("{name} is what is to be copied").into());
            }
        }
        file.set_len(0)?;
        file.set_len(self.size()?)?;
        Ok(Self::File(file))
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

/// A name that begins with the scheme of a device address is one, even if the rest of it is wrong.
fn is_address(name: &str) -> bool {
    name.split_once(':').is_some_and(|(scheme, _)| format!("{scheme}:x").parse::<Address>().is_ok())
}

fn device(name: &str) -> Outcome<Place> {
    Ok(Place::Device(Box::new(Block::open(name, BlockOptions::default())?)))
}

/// Copies all of `from` to `to` and tells how many bytes that were.
pub(crate) fn copy(from: &str, to: &str, progress: impl FnMut(u64, u64)) -> Outcome<u64> {
    let source = Place::source(from)?;
    let target = source.target(to)?;
    transfer(&source, target, progress)
}

/// The same between two places that are open: one thread reads, this one writes.
pub(crate) fn transfer(source: &Place, target: Place, mut progress: impl FnMut(u64, u64)) -> Outcome<u64> {
    let (size, room) = (source.size()?, target.size()?);
    if room < size {
        return Err(format!("TO has room for {room} bytes, {size} are to be copied").into());
    }
    thread::scope(|scope| {
        let (full_out, full_in) = sync_channel::<Outcome<(u64, Vec<u8>)>>(PIECES);
        let (empty_out, empty_in) = sync_channel(PIECES);
        for _ in 0..PIECES {
            empty_out.send(Vec::with_capacity(PIECE))?;
        }
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

/// FROM, TO and whether progress was asked for; `None` for wrong arguments.
fn arguments(args: impl IntoIterator<Item = String>) -> Option<(String, String, bool)> {
    let (options, names): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.starts_with('-'));
    let [from, to] = <[String; 2]>::try_from(names).ok()?;
    let known = options.iter().all(|option| option == "--progress");
    known.then_some((from, to, !options.is_empty()))
}

/// The whole program but for its surroundings: answers the exit code. `err` is standard error.
pub(crate) fn run(args: impl IntoIterator<Item = String>, err: &mut impl Write, terminal: bool) -> u8 {
    let Some((from, to, asked)) = arguments(args) else {
        let _ = writeln!(err, "usage: block_copy [--progress] FROM TO (each a file or a device's address)");
        return 2;
    };
    let shows = asked || terminal;
    let mut last = 0;
    let copied = copy(&from, &to, |done, size| {
        let percent = done * 100 / size.max(1);
        if shows && percent != last {
            last = percent;
            let _ = write!(err, "\r{percent:3} %");
        }
    });
    if last > 0 {
        // Where progress was shown, its line ends first.
        let _ = writeln!(err);
    }
    match copied {
        Ok(size) if shows => {
            let _ = writeln!(err, "{size} bytes copied");
            0
        }
        Ok(_) => 0,
        Err(error) => {
            let _ = writeln!(err, "block_copy: {error}");
            1
        }
    }
}

fn main() -> ExitCode {
    let mut err = io::stderr();
    let terminal = err.is_terminal();
    ExitCode::from(run(std::env::args().skip(1), &mut err, terminal))
}
