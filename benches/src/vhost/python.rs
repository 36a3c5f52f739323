//! Clients in Python: a process each, which is asked for one figure after the other.

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::cpu::on_core;

/// The one that answers.
#[derive(Debug)]
pub struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `benches/python/worker.py` for one client, on `core`.
    ///
    /// # Errors
    /// What it says where it cannot do its work: which module is missing, most of all.
    pub fn start(python: &str, client: &str, core: usize) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/worker.py");
        let mut command = Command::new(python);
        command.args([script, client]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = on_core(core, || command.spawn())?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(Error::other("no pipes")) };
        let mut worker = Self { process, input, output: BufReader::new(output) };
        match worker.line()?.as_str() {
            "ready" => Ok(worker),
            other => Err(Error::other(other.to_owned())),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Requests a second, of `depth` at a time for `time`.
    ///
    /// # Errors
    /// What the worker says went wrong.
    pub fn rate(&mut self, path: &str, depth: u32, time: Duration) -> Result<f64> {
        writeln!(self.input, "{path} {depth} {}", time.as_secs_f64())?;
        let line = self.line()?;
        line.parse().map_err(|_| Error::other(line))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
