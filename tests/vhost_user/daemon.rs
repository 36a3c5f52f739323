//! qemu-storage-daemon, started and ended by the test itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A directory of the test's own, removed with the value.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Place {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vub-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether the daemon tells its front-ends of a new size: 7.2 does not, nor does its configuration change.
pub(crate) fn tells_of_resizes() -> bool {
    let output = Command::new("qemu-storage-daemon").arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let major = text.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    major.unwrap() >= 10
}

/// One daemon that exports one block device.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    qmp: PathBuf,
}

/// What a daemon is started with.
pub(crate) struct Export<'a> {
    /// `--blockdev` options, the last of which has the node name `d`.
    pub(crate) blockdevs: &'a [String],
    pub(crate) queues: u16,
    pub(crate) writable: bool,
}

/// A node `d` over the file at `path`.
pub(crate) fn over_file(path: &Path) -> Vec<String> {
    vec![format!("driver=file,node-name=d,filename={},discard=unmap", path.display())]
}

/// A file of `size` zeroes.
pub(crate) fn image(place: &Place, size: u64) -> PathBuf {
    let path = place.path("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

impl Daemon {
    pub(crate) fn start(place: &Place, export: &Export<'_>) -> Self {
        Self::launch(place, export, None)
    }

    /// With a throttle group `g` of so many requests a second.
    pub(crate) fn start_throttled(place: &Place, export: &Export<'_>, each_second: u32) -> Self {
        Self::launch(place, export, Some(each_second))
    }

    fn launch(place: &Place, export: &Export<'_>, each_second: Option<u32>) -> Self {
        let (socket, qmp) = (place.path("vub.sock"), place.path("qmp.sock"));
        let mut command = Command::new("qemu-storage-daemon");
        if let Some(number) = each_second {
            command.arg("--object").arg(format!("throttle-group,id=g,x-iops-total={number}"));
        }
        for blockdev in export.blockdevs {
            command.args(["--blockdev", blockdev]);
        }
        let writable = if export.writable { "on" } else { "off" };
        command.arg("--chardev").arg(format!("socket,id=qmp,path={},server=on,wait=off", qmp.display()));
        command.args(["--monitor", "chardev=qmp"]);
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path={},writable={writable},num-queues={}",
            socket.display(),
            export.queues
        ));
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.expect("qemu-storage-daemon starts (Debian package qemu-system-common)");
        Self { child, socket, qmp }
    }

    pub(crate) fn address(&self) -> String {
        format!("vhost-user:{}", self.socket.display())
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Runs one QMP command.
    pub(crate) fn qmp(&self, command: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        let mut stream = loop {
            match UnixStream::connect(&self.qmp) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.next().unwrap().unwrap();
        for command in [r#"{"execute":"qmp_capabilities"}"#, command] {
            writeln!(stream, "{command}").unwrap();
            loop {
                let line = lines.next().unwrap().unwrap();
                assert!(!line.contains("\"error\""), "{command}: {line}");
                if line.contains("\"return\"") {
                    break;
                }
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
