//! V16: a machine that talks nonsense, in part, in between, or not at all. The machine is a thread of the test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use virtio::bus::qtest::{Machine, MachineOptions};
use virtio::{Error, Result};

use crate::common::SOON;

/// What is answered to the commands of connecting: byte order, a look at the host bridge in two, the clock.
const CONNECTING: [&[u8]; 3] = [b"OK little\n", b"OK\n", b"OK 0x12378086\n"];
const ITS_OWN_CLOCK: &[u8] = b"FAIL Unknown command 'clock_step'\n";

/// A socket at which answers are given.
struct Fake {
    dir: PathBuf,
    thread: Option<JoinHandle<UnixStream>>,
}

impl Fake {
    /// One that gives `answers`, one to each command after those of connecting.
    fn new(answers: &'static [&'static [u8]]) -> Self {
        let answers = [&CONNECTING[..], &[ITS_OWN_CLOCK], answers].concat();
        Self::serve(answers.len(), move |n, _| answers[n].to_vec())
    }

    /// One that gives what `answer` says to so many commands, which it numbers.
    fn serve(count: usize, mut answer: impl FnMut(usize, &str) -> Vec<u8> + Send + 'static) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("virtio-fake-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("ram"), vec![0; 2 << 20]).unwrap();
        let listener = UnixListener::bind(dir.join("qtest")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
            for n in 0..count {
                let Some(Ok(line)) = lines.next() else { break };
                // Who ends the connection wants no answer any more.
                let _ = socket.write_all(&answer(n, &line));
            }
            socket
        });
        Self { dir, thread: Some(thread) }
    }

    fn connect(&self, timeout: Duration) -> Arc<Machine> {
        let mut options = MachineOptions::new(self.dir.join("qtest"), self.dir.join("ram"));
        options.timeout = timeout;
        Machine::connect(&options).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.thread.take().map(JoinHandle::join));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn transcript_of(result: Result<String>) -> String {
    match result {
        Err(Error::Protocol { detail }) => detail.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn v16_garbage_ends_the_connection_with_the_last_lines() {
    let fake = Fake::new(&[b"Segmentation fault\n"]);
    let machine = fake.connect(SOON);
    for _ in 0..3 {
        let detail = transcript_of(machine.command("readb 0x5"));
        assert!(detail.contains("> readb 0x5 | < Segmentation fault"), "{detail}");
    }
    assert!(machine.transcript().contains("Segmentation fault"));
}

#[test]
fn v16_a_line_without_an_end_is_garbage_at_last() {
    const ENDLESS: &[u8] = &[b'x'; 100_000];
    let fake = Fake::new(const { &[ENDLESS] });
    let detail = transcript_of(fake.connect(SOON).command("readb 0x5"));
    assert!(detail.contains("xxxx") && detail.len() < 2000);
}

#[test]
fn v16_an_answer_nobody_asked_for_is_garbage() {
    let fake = Fake::new(&[b"OK\nOK\n"]);
    let machine = fake.connect(SOON);
    let first = machine.command("writeb 0x5 0x1");
    assert!(first.is_ok() || matches!(first, Err(Error::Protocol { .. })));
    transcript_of(machine.command("writeb 0x5 0x1"));
}

#[test]
fn v16_interrupt_lines_come_between_and_in_pieces() {
    let fake = Fake::new(&[b"IRQ raise 11\nIRQ lower 11\nOK 0x7\nIRQ raise 3\n", b"OK 0x8\n"]);
    let machine = fake.connect(SOON);
    assert_eq!(machine.command("readb 0x5").unwrap(), "0x7");
    assert_eq!(machine.command("readb 0x6").unwrap(), "0x8");
}

#[test]
fn v16_a_refused_command_is_an_error_and_no_end() {
    let fake = Fake::new(&[b"FAIL Unknown command 'frob'\n", b"ERR\n", b"OK 0x1\n"]);
    let machine = fake.connect(SOON);
    assert!(transcript_of(machine.command("frob")).contains("< FAIL Unknown command \\'frob\\'"));
    transcript_of(machine.command("frob"));
    assert_eq!(machine.command("readb 0x0").unwrap(), "0x1");
    assert!(matches!(machine.command("two\nlines"), Err(Error::Misuse { .. })));
}

#[test]
fn v16_an_end_in_the_middle_of_a_line_tells_how_much_there_was() {
    let mut fake = Fake::new(&[b"OK 0x"]);
    let machine = fake.connect(SOON);
    let asking = std::thread::scope(|scope| {
        let asking = scope.spawn(|| machine.command("readb 0x5"));
        drop(fake.thread.take().unwrap().join().unwrap());
        asking.join().unwrap()
    });
    assert_eq!(asking, Err(Error::Disconnected { partial: 5 }));
    assert_eq!(machine.command("readb 0x5"), Err(Error::Disconnected { partial: 5 }));
}

#[test]
fn v16_an_end_after_an_answer_takes_nothing_from_it() {
    let mut fake = Fake::new(&[b"OK 0x9\n"]);
    let machine = fake.connect(SOON);
    assert_eq!(machine.command("readb 0x5").unwrap(), "0x9");
    drop(fake.thread.take().unwrap().join().unwrap());
    assert_eq!(machine.command("readb 0x5"), Err(Error::Disconnected { partial: 0 }));
    // The other end was a thread of this process: its end proves nothing.
    assert!(!machine.dead(virtio::event::Deadline::after(Duration::from_millis(10))));
}

#[test]
fn v16_no_answer_is_a_timeout() {
    let fake = Fake::new(&[b"", b"OK 0x1\nOK 0x2\n"]);
    let machine = fake.connect(Duration::from_millis(100));
    assert!(matches!(machine.command("readb 0x5"), Err(Error::Timeout { .. })));
    assert_eq!(machine.command("readb 0x6").unwrap(), "0x2", "the first answer was to the first command");
}

/// A clock that stands still goes with ours, in steps that are bounded, and what is asked meanwhile has its own answers.
#[test]
fn v17_a_clock_that_stands_still_is_stepped_by_us() {
    let (steps, stepped) = std::sync::mpsc::channel();
    let fake = Fake::serve(usize::MAX, move |n, command| {
        if let Some(answer) = CONNECTING.get(n) {
            return answer.to_vec();
        }
        match command.strip_prefix("clock_step ") {
            Some(step) => {
                // Nobody may hear any more.
                let _ = steps.send(Duration::from_nanos(step.parse().unwrap()));
                b"OK 77\n".to_vec()
            }
            None => b"OK 0x5\n".to_vec(),
        }
    });
    let start = Instant::now();
    let machine = fake.connect(SOON);
    assert_eq!(stepped.recv().unwrap(), Duration::ZERO, "the question whether it stands still");
    let mut time = Duration::ZERO;
    while time < Duration::from_millis(300) {
        let step = stepped.recv_timeout(SOON).unwrap();
        assert!((Duration::from_millis(1)..=Duration::from_millis(100)).contains(&step), "{step:?}");
        time += step;
        assert_eq!(machine.command("readb 0x5").unwrap(), "0x5");
        assert!(time <= start.elapsed(), "it goes faster than ours");
    }
    assert!(!machine.transcript().contains("77"), "{}", machine.transcript());
}

/// Steps that are not answered are not piled up, and an answer that is late is nobody else's.
#[test]
fn v17_one_step_at_a_time_is_asked_for() {
    let (commands, asked) = std::sync::mpsc::channel();
    let fake = Fake::serve(usize::MAX, move |n, command| {
        if let Some(answer) = [&CONNECTING[..], &[b"OK 0\n"]].concat().get(n) {
            return answer.to_vec();
        }
        let step = command.starts_with("clock_step");
        let _ = commands.send(step);
        if step { Vec::new() } else { b"OK 77\nOK 0x5\n".to_vec() }
    });
    let machine = fake.connect(SOON);
    assert!(asked.recv_timeout(SOON).unwrap(), "a step");
    // Some of the thread's pauses.
    assert!(
        asked.recv_timeout(Duration::from_millis(100)).is_err(),
        "another, before the first was answered"
    );
    assert_eq!(machine.command("readb 0x5").unwrap(), "0x5");
    assert!(!asked.recv_timeout(SOON).unwrap());
    assert!(asked.recv_timeout(SOON).unwrap(), "and then it goes on");
}
