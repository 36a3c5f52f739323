//! The thread of a device end: waits for front-ends, and serves one at a time.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use super::Shared;
use super::engine::Engine;
use super::session::Session;
use super::table::Table;
use super::watch::{Watch, Woken};
use crate::bus::endpoint::Endpoint;
use crate::event::{Deadline, EventFd};
use crate::mem::dma::SoftDma;
use crate::{Error, Result};

/// Between two attempts where the system refuses.
const PAUSE: Duration = Duration::from_millis(50);

/// All that the thread has.
#[derive(Debug)]
pub(super) struct Server {
    endpoint: Endpoint,
    listener: Arc<OwnedFd>,
    shared: Arc<Shared>,
    engine: Box<dyn Engine>,
    protocol: u64,
    dma: Arc<SoftDma>,
    changed: EventFd,
    /// Kicks taken on all connections.
    kicks: u64,
}

/// Tells that the thread has ended, also where it ends in a panic.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        if let Err(error) = self.0.ended.signal() {
            log::warn!("nobody hears of a thread's end: {error}");
        }
    }
}

impl Server {
    pub(super) fn new(
        endpoint: Endpoint,
        shared: Arc<Shared>,
        engine: Box<dyn Engine>,
        protocol: u64,
        dma: Arc<SoftDma>,
        changed: EventFd,
    ) -> Result<Self> {
        let listener = endpoint.listener().ok_or(Error::Misuse { what: "a device end waits at its path" })?;
        Ok(Self { endpoint, listener, shared, engine, protocol, dma, changed, kicks: 0 })
    }

    pub(super) fn run(mut self) {
        let end = End(Arc::clone(&self.shared));
        while !self.stopped() {
            let outcome = self.wait().and_then(|connected| match connected {
                Some(fd) => self.serve(fd),
                None => Ok(()),
            });
            if let Err(error) = outcome {
                log::warn!("a device end goes on after {error}");
                self.rest();
            }
        }
        // The path is free before the owner hears of the end.
        drop(self);
        drop(end);
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Waits for a front-end; `None` where the owner woke us.
    fn wait(&mut self) -> Result<Option<OwnedFd>> {
        let watch = Watch::new()?;
        watch.add(&self.shared.wake, Woken::Owner)?;
        watch.add(&*self.listener, Woken::Message)?;
        let mut found = None;
        for woken in watch.wait(true)? {
            if woken == Woken::Owner {
                self.shared.wake.drain()?;
            } else {
                found = self.accept()?;
            }
        }
        Ok(found)
    }

    /// The front-end that connected, unless it is gone again.
    fn accept(&self) -> Result<Option<OwnedFd>> {
        match self.endpoint.connect(Deadline::after(Duration::ZERO)) {
            Ok(fd) => Ok(Some(fd)),
            Err(Error::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits a moment, unless the owner wants something.
    fn rest(&self) {
        let woken = self.shared.wake.wait(Deadline::after(PAUSE)).and_then(|_| self.shared.wake.drain());
        if let Err(error) = woken {
            log::error!("a device end cannot be woken: {error}");
        }
    }

    /// Serves one front-end to its end.
    fn serve(&mut self, fd: OwnedFd) -> Result<()> {
        self.note(|seen| {
            seen.connected = true;
            seen.connections = seen.connections.saturating_add(1);
        });
        self.shared.hang_up.store(false, Ordering::SeqCst);
        let outcome = self.converse(fd);
        self.engine.disconnected()?;
        self.note(|seen| {
            seen.connected = false;
            match outcome {
                // Between two messages it is no failure.
                Ok(()) | Err(Error::Disconnected { partial: 0 }) => {}
                Err(error) => {
                    log::warn!("a front-end is hung up on: {error}");
                    seen.error = Some(error);
                }
            }
        });
        Ok(())
    }

    fn note(&self, what: impl FnOnce(&mut super::VhostUserReport)) {
        what(&mut self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Until the owner wants an end, the front-end is gone, or it has broken the protocol.
    fn converse(&mut self, fd: OwnedFd) -> Result<()> {
        let watch = Watch::new()?;
        watch.add(&self.shared.wake, Woken::Owner)?;
        watch.add(&self.changed, Woken::Changed)?;
        let table = Table::new(Arc::clone(&self.dma));
        let mut session = Session::new(fd, &mut self.engine, table, self.protocol, watch)?;
        session.kicks = self.kicks;
        let outcome = converse(&mut session, &self.shared, &self.changed);
        session.table.clear();
        session.count(&self.shared);
        self.kicks = session.kicks;
        outcome
    }
}

impl Session<'_> {
    /// Shows what was counted.
    fn count(&self, shared: &Shared) {
        let (chains, calls) = self.engine.counted();
        for (count, value) in shared.counts.iter().zip([chains, self.kicks, calls]) {
            count.store(value, Ordering::Relaxed);
        }
    }
}

fn converse(session: &mut Session<'_>, shared: &Shared, changed: &EventFd) -> Result<()> {
    loop {
        let more = session.work()?;
        session.count(shared);
        for woken in session.watch.wait(!more)? {
            match woken {
                Woken::Owner => drop(shared.wake.drain()?),
                Woken::Message => session.receive()?,
                Woken::Changed => {
                    changed.drain()?;
                    session.changed()?;
                }
                Woken::Ring(index) => session.kicked(index)?,
            }
        }
        if shared.stop.load(Ordering::SeqCst) || shared.hang_up.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
}
