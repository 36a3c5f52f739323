//! The connection to a machine: commands, their answers, and the interrupt lines between them.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{PoisonError, TryLockError};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
};
use rustix::process::{Pid, getpid};

use super::wire::{Line, Transcript, number};
use crate::bus::peer::Peer;
use crate::event::Deadline;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Longest line that is believed, in bytes.
const LONGEST_LINE: usize = 1 << 16;
/// Pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(2);
/// One poll lasts no longer; the loop around it starts another.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How a connection ended, for good.
#[derive(Debug, Clone)]
enum End {
    /// The machine closed it, in the middle of a line of so many bytes.
    Closed(u32),
    /// It sent what no machine sends.
    Garbage,
}

/// One connection. Any thread may ask; answers are told apart because one command waits at a time.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    /// Whether the connection has ended, for those who do not want to wait for the lock.
    ended: AtomicBool,
    /// The process at the other end, where the kernel tells.
    peer: Option<Peer>,
    owner: Pid,
}

#[derive(Debug)]
struct State {
    socket: OwnedFd,
    /// Received, no whole line yet.
    input: Vec<u8>,
    /// Not sent yet: of a command whose caller ran out of time.
    output: Vec<u8>,
    /// Answers that will come for commands whose callers gave up.
    owed: usize,
    transcript: Transcript,
    end: Option<End>,
    /// Interrupt lines that are up.
    up: BTreeSet<u32>,
    /// Lines that went up since they were last taken.
    raised: BTreeSet<u32>,
    /// Answers that came, oldest first.
    answers: VecDeque<Line>,
    /// Whether the next answer is to a step of the clock, which the transcript is not filled with.
    stepping: bool,
}

/// What has become of interrupt lines.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines {
    /// Whether one went up since the last look.
    pub(super) raised: bool,
    /// Whether one is up now.
    pub(super) up: bool,
}

impl Link {
    /// Connects, and asks for the byte order of its processor, `little` or `big`: a machine serves one connection, and keeps others waiting.
    ///
    /// [`Error::DeviceBusy`] where none comes in time; [`Error::NotFound`] where nobody listens at the path.
    pub(super) fn connect(path: &Path, timeout: Duration) -> Result<(Self, String)> {
        let deadline = Deadline::after(timeout);
        let socket = reach(path, deadline)?;
        // Before the first answer: who answers then is alive, so that its number is nobody else's yet.
        let peer = Peer::of(&socket);
        let state = State {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            owed: 0,
            transcript: Transcript::default(),
            end: None,
            up: BTreeSet::new(),
            raised: BTreeSet::new(),
            answers: VecDeque::new(),
            stepping: false,
        };
        let owner = getpid();
        let link = Self { state: Mutex::new(state), ended: AtomicBool::new(false), peer, owner };
        match link.ask("endianness", deadline.left().unwrap_or(timeout)) {
            Err(Error::Timeout { .. }) => Err(busy(path)),
            outcome => outcome.map(|order| (link, order)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Has one command done, and gives its answer without the leading `OK`.
    ///
    /// [`Error::Protocol`] with the last lines where the machine refuses it, or sends garbage, after which the
    /// connection is not used any more; [`Error::Disconnected`] at its end; [`Error::Timeout`] where no answer
    /// comes: a late one is then skipped by the next command.
    pub(super) fn ask(&self, command: &str, timeout: Duration) -> Result<String> {
        self.check_process()?;
        let deadline = Deadline::after(timeout);
        let mut state = self.lock();
        let answer = state.say(command).and_then(|()| state.answer(0, deadline));
        self.note(&state);
        answer
    }

    /// The same for two commands that belong together, with the answer to the second: nobody's comes between.
    pub(super) fn ask_two(&self, first: &str, second: &str, timeout: Duration) -> Result<String> {
        self.check_process()?;
        let deadline = Deadline::after(timeout);
        let mut state = self.lock();
        let both = state.say(first).and_then(|()| state.say(second));
        let answer = both.and_then(|()| {
            let first = state.answer(1, deadline);
            let second = state.answer(0, deadline);
            first.and(second)
        });
        self.note(&state);
        answer
    }

    fn check_process(&self) -> Result<()> {
        if getpid() != self.owner {
            return Err(Error::ForkedProcess { what: "machine" });
        }
        Ok(())
    }

    fn note(&self, state: &State) {
        if state.end.is_some() && !self.ended.swap(true, Ordering::AcqRel) {
            log::error!("the connection to a machine ended; the last lines: {}", state.transcript.text());
        }
    }

    /// Takes what has come without a question, and tells of the interrupt lines that count. `None` while somebody asks,
    /// who takes it anyway.
    pub(super) fn attend(&self, counts: impl Fn(u32) -> bool) -> Option<Lines> {
        let mut state = self.try_lock()?;
        if let Err(error) = state.receive() {
            log::debug!("a machine without a question: {error}");
        }
        self.note(&state);
        let raised = core::mem::take(&mut state.raised).into_iter().any(&counts);
        Some(Lines { raised, up: state.up.iter().any(|line| counts(*line)) })
    }

    /// Lets the clock of a machine whose time stands still go on by `step`. Nobody waits for the answer: as long as one
    /// is to come, and while somebody asks, no step is made, which `false` tells.
    pub(super) fn step_clock(&self, step: Duration) -> bool {
        let Some(mut state) = self.try_lock() else { return false };
        state.skip_late();
        if state.owed > 0 {
            return false;
        }
        let said = state.queue(&alloc::format!("clock_step {}", step.as_nanos()));
        state.stepping = said.is_ok();
        said.is_ok()
    }

    /// Whether the connection has ended.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The last lines, both ways.
    pub(super) fn transcript(&self) -> String {
        self.lock().transcript.text()
    }

    /// Waits until the machine's process is dead, at most until `deadline`; `false` then, and where the kernel did
    /// not tell which process it is.
    pub(super) fn dead(&self, deadline: Deadline) -> bool {
        self.peer.as_ref().is_some_and(|peer| matches!(peer.wait_dead(deadline), Ok(true)))
    }
}

fn reach(path: &Path, deadline: Deadline) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(|e| Error::os("use the path of a socket", e))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| Error::os("make a socket", e))?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::NOENT | Errno::CONNREFUSED) => {
                let why = alloc::format!("no machine listens at {}: is it running?", path.display());
                return Err(Error::NotFound { why: why.into() });
            }
            // Others wait already.
            Err(Errno::AGAIN) if deadline.passed() => return Err(busy(path)),
            Err(Errno::AGAIN | Errno::INTR) => thread::sleep(PAUSE),
            Err(errno) => return Err(Error::os("connect to a machine", errno)),
        }
    }
}

fn busy(path: &Path) -> Error {
    let holder = alloc::format!(
        "whoever has the connection to {} (a machine serves one), or the machine is stopped",
        path.display()
    );
    Error::DeviceBusy { holder: holder.into() }
}

impl State {
    fn ended(&self) -> Result<()> {
        match self.end {
            None => Ok(()),
            Some(End::Closed(partial)) => Err(Error::Disconnected { partial }),
            Some(End::Garbage) => Err(self.broken("it sent a line that is none of the protocol")),
        }
    }

    fn broken(&self, what: impl fmt::Display) -> Error {
        Error::protocol(alloc::format!("the machine: {what}; the last lines: {}", self.transcript.text()))
    }

    /// Queues a command, whose answer is owed from now on.
    fn say(&mut self, command: &str) -> Result<()> {
        self.transcript.said(command);
        self.queue(command)
    }

    fn queue(&mut self, command: &str) -> Result<()> {
        self.ended()?;
        self.output.extend_from_slice(command.as_bytes());
        self.output.push(b'\n');
        self.owed = self.owed.saturating_add(1);
        self.send()
    }

    /// Drops the answers to commands that were given up. Only where nobody asks.
    fn skip_late(&mut self) {
        self.owed = self.owed.saturating_sub(self.answers.len());
        self.answers.clear();
    }

    /// Sends what can be sent now.
    fn send(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent.min(self.output.len()))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Its last words may still be there to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.output.clear();
                    break;
                }
                Err(errno) => return Err(Error::os("send to a machine", errno)),
            }
        }
        Ok(())
    }

    /// Waits for the answer that leaves `left` others to come. Those to commands that were given up come before it,
    /// and are dropped.
    fn answer(&mut self, left: usize, deadline: Deadline) -> Result<String> {
        loop {
            while let Some(line) = self.answers.pop_front() {
                self.owed = self.owed.saturating_sub(1);
                match line {
                    _ if self.owed > left => {}
                    Line::Done(rest) => return Ok(rest),
                    _ => return Err(self.broken("it refused a command")),
                }
            }
            self.ended()?;
            let waited = self.wait(deadline);
            self.receive()?;
            // What came while nobody let us run came in time.
            if self.answers.is_empty() && self.end.is_none() {
                waited?;
            }
        }
    }

    /// Waits until there is something to read, or room for what is to be sent.
    fn wait(&mut self, deadline: Deadline) -> Result<()> {
        let late = || deadline.timeout("an answer over qtest");
        if deadline.passed() {
            return Err(late());
        }
        let flags = if self.output.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let left = deadline.left().unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => self.send(),
            Err(errno) => Err(Error::os("wait for a machine", errno)),
        }
    }

    /// Reads what is there, without waiting, and sorts the lines.
    fn receive(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        while self.end.is_none() {
            let got = match rustix::net::recv(&self.socket, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok((got, _)) => got,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNRESET) => 0,
                Err(errno) => return Err(Error::os("receive from a machine", errno)),
            };
            if got == 0 {
                self.end = Some(End::Closed(u32::try_from(self.input.len()).unwrap_or(u32::MAX)));
            }
            self.input.extend_from_slice(chunk.get(..got).unwrap_or_default());
            self.sort();
        }
        Ok(())
    }

    /// Takes the whole lines out of what was received.
    fn sort(&mut self) {
        let input = core::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let parsed = Line::parse(line);
            match parsed {
                Line::Done(_) | Line::Refused if self.stepping => self.stepping = false,
                _ => self.transcript.heard(line),
            }
            match parsed {
                Line::Irq { line, up: true } => {
                    self.up.insert(line);
                    self.raised.insert(line);
                }
                Line::Irq { line, up: false } => {
                    self.up.remove(&line);
                }
                Line::Garbage => self.end = Some(End::Garbage),
                // An answer that nobody asked for is no answer.
                _ if self.answers.len() >= self.owed => self.end = Some(End::Garbage),
                answer => self.answers.push_back(answer),
            }
        }
        if rest.len() > LONGEST_LINE {
            self.transcript.heard(rest);
            self.end = Some(End::Garbage);
        }
        self.input = rest.to_vec();
    }
}

/// A register's value.
pub(super) fn value(answer: &str) -> Result<u64> {
    number(answer)
        .ok_or_else(|| Error::protocol(alloc::format!("the machine answered {answer:?}, not a number")))
}
