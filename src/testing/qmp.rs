//! QEMU's control socket: commands, and the events between their answers.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::json::{Json, quote};
use crate::event::{Deadline, wait_readable};
use crate::{Error, Result};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Events that are kept for whoever waits for them.
const KEPT: usize = 1000;

/// A connection to a machine's control socket. Any thread may use it.
#[derive(Debug)]
pub struct Qmp(Mutex<State>);

#[derive(Debug)]
struct State {
    socket: UnixStream,
    input: Vec<u8>,
    events: VecDeque<Json>,
}

impl Qmp {
    pub(super) fn new(socket: UnixStream) -> Result<Self> {
        let qmp = Self(Mutex::new(State { socket, input: Vec::new(), events: VecDeque::new() }));
        let deadline = Deadline::after(PATIENCE);
        qmp.lock().message(deadline)?.ok_or_else(|| late(deadline))?;
        qmp.execute("qmp_capabilities", "{}")?;
        Ok(qmp)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a command executed, with its arguments as the text of a JSON object; answers what it returned.
    ///
    /// [`Error::Protocol`] with QEMU's words where it failed; [`Error::Disconnected`], [`Error::Timeout`].
    pub fn execute(&self, command: &str, arguments: &str) -> Result<Json> {
        let mut state = self.lock();
        let text = format!("{{\"execute\":{},\"arguments\":{arguments}}}\n", quote(command));
        state.socket.write_all(text.as_bytes()).map_err(|_| Error::Disconnected { partial: 0 })?;
        let deadline = Deadline::after(PATIENCE);
        loop {
            let message = state.message(deadline)?.ok_or_else(|| late(deadline))?;
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = message.get("error") {
                let why = error.get("desc").and_then(Json::text).unwrap_or("no reason given");
                return Err(Error::protocol(format!("{command}: {why}")));
            }
            state.keep(message);
        }
    }

    /// Has a line of the human monitor executed, and gives what it printed.
    pub fn monitor(&self, line: &str) -> Result<String> {
        let arguments = format!("{{\"command-line\":{}}}", quote(line));
        Ok(self.execute("human-monitor-command", &arguments)?.text().unwrap_or_default().into())
    }

    /// Waits for an event of this name, at most for `limit`; takes it, and gives its data.
    pub fn event(&self, name: &str, limit: Duration) -> Result<Json> {
        let deadline = Deadline::after(limit);
        let mut state = self.lock();
        loop {
            let is_it = |event: &Json| event.get("event").and_then(Json::text) == Some(name);
            if let Some(at) = state.events.iter().position(is_it)
                && let Some(event) = state.events.remove(at)
            {
                return Ok(event.get("data").cloned().unwrap_or(Json::Null));
            }
            let message = state.message(deadline)?.ok_or_else(|| deadline.timeout("an event of QEMU"))?;
            state.keep(message);
        }
    }
}

fn late(deadline: Deadline) -> Error {
    deadline.timeout("QEMU's control socket")
}

impl State {
    fn keep(&mut self, message: Json) {
        if message.get("event").is_some() {
            if self.events.len() >= KEPT {
                self.events.pop_front();
            }
            self.events.push_back(message);
        }
    }

    /// The next message; `None` at the deadline.
    fn message(&mut self, deadline: Deadline) -> Result<Option<Json>> {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                let json = Json::parse(&text);
                return json.map(Some).ok_or_else(|| Error::protocol(format!("QEMU said {text:?}")));
            }
            if !wait_readable(&self.socket, deadline)? {
                return Ok(None);
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) | Err(_) => {
                    let partial = u32::try_from(self.input.len()).unwrap_or(u32::MAX);
                    return Err(Error::Disconnected { partial });
                }
                Ok(got) => self.input.extend_from_slice(chunk.get(..got).unwrap_or_default()),
            }
        }
    }
}
