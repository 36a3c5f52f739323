//! Interrupts become events: one thread a machine looks for what the machine wrote or said.
//!
//! An MSI-X message is a store of a number into a word of the shared RAM, of which nothing tells but the word itself;
//! an interrupt line is told of in a line of the protocol, between the answers. So the thread looks, often enough that
//! an event follows its cause within a millisecond, and sleeps while no device wants interrupts.
//!
//! A machine may have a clock that stands still but for the steps that it is told to make (V17): then the thread makes
//! it go with ours.
//!
//! Which controller a device's line goes to is known for the kinds of machines of [`super::layout`]. Until the first
//! line was told of, everybody with a line is woken with every look, and asks its device for the cause.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use super::link::Link;
use crate::event::{Deadline, EventFd, WeakEventFd};
use crate::mem::ram::RamFile;
use crate::mem::region::DmaRegion;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Pause between two looks while interrupts come.
const SHORT: Duration = Duration::from_micros(100);
/// And when none came for some time.
const LONG: Duration = Duration::from_micros(500);
/// Looks without an interrupt after which the pause is the long one.
const QUIET: u32 = 200;
/// Pause while nobody wants interrupts but lines are told of: they must be taken, or the machine would stop to wait.
const IDLE: Duration = Duration::from_millis(20);
/// Shortest step of a machine's clock.
const TICK: Duration = Duration::from_millis(1);
/// Longest step: what a stop of this process took is not made up for.
const LEAP: Duration = Duration::from_millis(100);
/// Words for MSI-X messages: as many as the smallest page has.
const WORDS: usize = 1024;
/// What an interrupt message writes.
pub(super) const MESSAGE: u32 = 1;
/// A PC's timer, whose line goes up and down with nobody's doing.
const TIMER: u32 = 0;

/// Connection and interrupts of a machine: what its thread has.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) link: Link,
    state: Mutex<State>,
    wake: EventFd,
    stop: AtomicBool,
    /// Whether the machine's clock stands still between our steps.
    still: bool,
}

#[derive(Debug, Default)]
struct State {
    /// What messages are written to.
    words: Option<Arc<DmaRegion>>,
    /// Words in use, with their events.
    vectors: Vec<(usize, WeakEventFd)>,
    /// Devices with an interrupt line, by a number of ours.
    lines: Vec<(u64, WeakEventFd)>,
    next_line: u64,
    /// Whether the machine was asked to tell of its interrupt lines.
    intercepted: bool,
    /// Whether it did: until a line was told of, whoever waits for one is woken all the time.
    heard: bool,
    /// Whether a device was served since the lines were last seen to be down.
    served: bool,
    /// Whether everybody was told of the connection's end.
    told: bool,
}

/// One message word: where the message goes, and what is signalled then.
#[derive(Debug)]
pub(super) struct Vector {
    word: usize,
    /// Address of the word, as the machine knows it.
    pub(super) address: u64,
    pub(super) event: EventFd,
}

impl Shared {
    pub(super) fn new(link: Link, still: bool) -> Result<Self> {
        let wake = EventFd::new()?;
        Ok(Self { link, state: Mutex::default(), wake, stop: AtomicBool::new(false), still })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A word for the messages of one vector.
    pub(super) fn add_vector(&self, ram: &Arc<RamFile>) -> Result<Vector> {
        let event = EventFd::new()?;
        let mut state = self.lock();
        let words = match &state.words {
            Some(words) => Arc::clone(words),
            None => {
                let words = ram.messages()?;
                state.words = Some(Arc::clone(&words));
                words
            }
        };
        let full = Error::MemoryLimit {
            needed: 1,
            have: 0,
            limit: "the interrupt vectors of one machine: open devices with fewer queues",
        };
        let word = (0..WORDS).find(|word| state.vectors.iter().all(|(used, _)| used != word)).ok_or(full)?;
        let offset = word.saturating_mul(size_of::<u32>());
        words.store(offset, 0u32)?;
        state.vectors.push((word, event.downgrade()));
        drop(state);
        self.wake.signal()?;
        let address = ram.offset_of(&words).unwrap_or(0).saturating_add(offset as u64);
        Ok(Vector { word, address, event })
    }

    /// Its device sends no messages any more.
    pub(super) fn remove_vector(&self, vector: &Vector) {
        self.lock().vectors.retain(|(word, _)| *word != vector.word);
    }

    /// An event for a device with an interrupt line, and the number to remove it by. It is signalled whenever a line
    /// goes up: lines are shared, and each device's cause register tells whether it was meant.
    pub(super) fn add_line(&self) -> Result<(u64, EventFd)> {
        let event = EventFd::new()?;
        let mut state = self.lock();
        state.next_line = state.next_line.wrapping_add(1);
        let number = state.next_line;
        state.lines.push((number, event.downgrade()));
        drop(state);
        self.wake.signal()?;
        Ok((number, event))
    }

    pub(super) fn remove_line(&self, number: u64) {
        self.lock().lines.retain(|(line, _)| *line != number);
    }

    /// Has `intercept` done once, which makes the machine tell of its lines.
    pub(super) fn intercept_once(&self, intercept: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        if !state.intercepted {
            intercept()?;
            state.intercepted = true;
        }
        Ok(())
    }

    /// A device with a line was served. Where a line is still up there is more to do, of this device or of another one:
    /// of a line that stays up nothing is told.
    pub(super) fn served(&self) {
        self.lock().served = true;
    }

    /// The machine's thread.
    pub(super) fn run(&self) {
        let mut quiet = 0u32;
        let mut stepped = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            if self.still {
                self.go_on(&mut stepped);
            }
            match self.step() {
                Step::Asleep if self.still => thread::sleep(IDLE),
                Step::Asleep => {
                    if let Err(error) =
                        self.wake.wait(Deadline::never()).and_then(|_| self.wake.drain().map(drop))
                    {
                        log::error!("the thread of a machine's interrupts ends: {error}");
                        return;
                    }
                }
                Step::Idle => thread::sleep(IDLE),
                Step::Something => {
                    quiet = 0;
                    thread::sleep(SHORT);
                }
                Step::Nothing => {
                    quiet = quiet.saturating_add(1);
                    thread::sleep(if quiet < QUIET { SHORT } else { LONG });
                }
            }
        }
    }

    /// Has the machine's clock go by what ours went since `stepped`.
    fn go_on(&self, stepped: &mut Instant) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(*stepped);
        if passed >= TICK && self.link.step_clock(passed.min(LEAP)) {
            *stepped = now;
        }
    }

    /// One look.
    fn step(&self) -> Step {
        let lines = self.link.attend(|line| line != TIMER);
        let mut state = self.lock();
        // A line that was seen up before the service costs a look for nothing; one that went up later is told of.
        let again = state.served && lines.is_some_and(|lines| lines.up);
        state.served &= lines.is_none();
        let raised = again || lines.is_some_and(|lines| lines.raised);
        state.heard |= raised;
        state.vectors.retain(|(_, event)| event.upgrade().is_some());
        state.lines.retain(|(_, event)| event.upgrade().is_some());
        let mut due: Vec<EventFd> = Vec::new();
        if let Some(words) = &state.words {
            for (word, event) in &state.vectors {
                let offset = word.saturating_mul(size_of::<u32>());
                if !matches!(words.load::<u32>(offset), Ok(0)) {
                    // Cleared before the signal: a message that comes between finds the waiter about to look.
                    let _ = words.store(offset, 0u32);
                    due.extend(event.upgrade());
                }
            }
        }
        let ended = self.link.ended() && !state.told;
        if ended {
            state.told = true;
            due.extend(state.vectors.iter().filter_map(|(_, event)| event.upgrade()));
        }
        let found = raised || ended || !due.is_empty();
        // Nothing was heard yet: the lines may be another controller's, and the device's cause register tells.
        if raised || ended || !state.heard {
            due.extend(state.lines.iter().filter_map(|(_, event)| event.upgrade()));
        }
        let wanted = !state.vectors.is_empty() || !state.lines.is_empty();
        let intercepted = state.intercepted && !self.link.ended();
        drop(state);
        for event in &due {
            if let Err(error) = event.signal() {
                log::error!("an interrupt could not be passed on: {error}");
            }
        }
        match (wanted, intercepted) {
            (true, _) if !found => Step::Nothing,
            (true, _) => Step::Something,
            (false, true) => Step::Idle,
            (false, false) => Step::Asleep,
        }
    }

    /// Ends [`Shared::run`].
    pub(super) fn stop(&self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.wake.signal()
    }
}

/// What a look found.
enum Step {
    /// Interrupts.
    Something,
    /// None.
    Nothing,
    /// Nobody wants any, but lines are told of.
    Idle,
    /// Nobody wants any.
    Asleep,
}
