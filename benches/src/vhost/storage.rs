//! The devices: the null device in a process of its own, and `qemu-storage-daemon` over `null-co`.

use std::io::{BufRead, BufReader, Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::null::CAPACITY;
use crate::cpu::on_core;

/// A directory of this run's own, gone with it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("virtio-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Device {
    process: Child,
    /// Its end tells the null device to go.
    _input: Option<ChildStdin>,
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts the null device: this program, by its hidden argument.
///
/// # Errors
/// It does not come up.
pub fn null(path: &str, core: usize) -> Result<Device> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--null-device", path, &core.to_string()]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input = process.stdin.take();
    let output = process.stdout.take().ok_or_else(|| Error::other("no output"))?;
    BufReader::new(output).read_line(&mut String::new())?;
    Ok(Device { process, _input: input })
}

/// Starts `qemu-storage-daemon` on `core`: `null-co` behind vhost-user-blk and behind NBD. `None` where there is no
/// such program.
///
/// # Errors
/// It does not come up.
pub fn qemu(scratch: &Scratch, core: usize) -> Result<Option<Device>> {
    let (vhost, nbd) = (scratch.path("qemu.sock"), scratch.path("nbd.sock"));
    let mut command = Command::new("qemu-storage-daemon");
    command.args(["--object", "iothread,id=io"]);
    for node in ["disk", "other"] {
        let null = format!("driver=null-co,node-name={node},size={CAPACITY}");
        command.args(["--blockdev", &null]);
    }
    let export =
        format!("type=vhost-user-blk,id=vhost,node-name=disk,iothread=io,addr.type=unix,addr.path={vhost}");
    command.args(["--export", &export, "--nbd-server", &format!("addr.type=unix,addr.path={nbd}")]);
    // Not in the iothread: there this program fails an assertion when a client of its NBD server goes away.
    command.args(["--export", "type=nbd,id=nbd,node-name=other,name=disk"]);
    let process = match on_core(core, || command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        process => process?,
    };
    let device = Device { process, _input: None };
    let start = Instant::now();
    while ![&vhost, &nbd].iter().all(|path| Path::new(path).exists()) {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(Error::other("qemu-storage-daemon did not make its sockets in 10 s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Some(device))
}
