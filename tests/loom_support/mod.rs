//! What the models share: running one to exhaustion and against its mutants, and a bell to sleep on.
#![allow(dead_code, reason = "not every model uses all of it")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use virtio::sync::mutants::{self, Mutant};
use virtio::sync::{Condvar, Mutex};

/// The mutant that is switched on and the panic hook belong to the process: one model at a time.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Runs the model as it is, under every interleaving and every value that a load may see, which must find no
/// fault; then with each of the mutants (three at least), of which it must find every one. Prints the rows of
/// the table that `make loom` shows.
pub(crate) fn model(name: &str, mutants: &[Mutant], f: impl Fn() + Send + Sync + 'static) {
    assert!(mutants.len() >= 3, "{name}: a model with fewer than three mutants proves little");
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let f: Arc<dyn Fn() + Send + Sync> = Arc::new(f);
    mutants::choose(Mutant::None);
    let (executions, seconds) = match explore(&f) {
        (Ok(()), executions, seconds) => (executions, seconds),
        (Err(fault), executions, _) => panic!("{name}: execution {executions} fails: {}", text(&*fault)),
    };
    row(name, "-", "exhausted", executions, seconds);
    let mut survivors = Vec::new();
    for &mutant in mutants {
        mutants::choose(mutant);
        let hook = take_hook();
        set_hook(Box::new(|_| {}));
        let (outcome, executions, seconds) = explore(&f);
        set_hook(hook);
        mutants::choose(Mutant::None);
        let verdict = if outcome.is_err() { "killed" } else { "survived" };
        row(name, &format!("{mutant:?}"), verdict, executions, seconds);
        if outcome.is_ok() {
            survivors.push(mutant);
        }
    }
    assert!(survivors.is_empty(), "{name}: mutants survive: {survivors:?}");
}

/// Every execution of the model, or those up to the first that fails. Without any bound, whatever
/// loom's variables in the environment say: they would make "exhausted" a lie.
fn explore(f: &Arc<dyn Fn() + Send + Sync>) -> (Result<(), Box<dyn Any + Send>>, usize, Duration) {
    let executions = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    (builder.preemption_bound, builder.max_permutations, builder.max_duration) = (None, None, None);
    let (f, count) = (f.clone(), executions.clone());
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            f();
        });
    }));
    (outcome, executions.load(Ordering::Relaxed), start.elapsed())
}

fn text(fault: &(dyn Any + Send)) -> &str {
    let owned = fault.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| fault.downcast_ref().copied()).unwrap_or("a panic without words")
}

#[expect(clippy::print_stdout, reason = "the rows of a table that the runner of the tests collects")]
fn row(name: &str, mutant: &str, verdict: &str, executions: usize, spent: Duration) {
    println!("loom | {name} | {mutant} | {verdict} | {executions} | {:.1}", spent.as_secs_f64());
}

/// What an eventfd is to the ends of a ring: a ring of it before the wait is not lost, and whoever is woken sees
/// what the other did before. It orders nothing unless it is rung.
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { rung: Mutex::new(false), heard: Condvar::new() })
    }

    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    /// Sleeps until the bell is rung. Loom reports it as a deadlock if nobody ever does.
    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Plain memory that both ends use: loom reports any access that is not ordered after the other end's last.
pub(crate) struct Payload(Vec<loom::cell::UnsafeCell<u32>>);

// SAFETY: loom checks each access of a cell against all others, and panics before two of them meet.
unsafe impl Sync for Payload {}

impl Payload {
    pub(crate) fn new(len: usize) -> Arc<Self> {
        Arc::new(Self((0..len).map(|_| loom::cell::UnsafeCell::new(0)).collect()))
    }

    pub(crate) fn write(&self, at: usize, value: u32) {
        // SAFETY: the pointer is valid for the closure; loom vouches for nobody else using the cell.
        self.0[at].with_mut(|cell| unsafe { *cell = value });
    }

    pub(crate) fn read(&self, at: usize) -> u32 {
        // SAFETY: as above.
        self.0[at].with(|cell| unsafe { *cell })
    }
}
