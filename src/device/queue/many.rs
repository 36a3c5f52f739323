//! Many requests at once: one look at the device for all of them.

use super::Queue;
#[cfg(feature = "python")]
use super::reach::check_spaces;
use crate::device::used::Done;
use crate::mem::lease::Lease;
#[cfg(feature = "python")]
use crate::{Error, Result, queue::Token};

impl<B: Lease + Send + 'static> Queue<B> {
    /// [`Queue::add`], and with `SHOW` [`Queue::publish`], by one look at the device. Answers whether it wants to be
    /// notified.
    #[cfg(feature = "python")]
    #[inline]
    pub(crate) fn submit<const SHOW: bool, const R: usize, const W: usize>(
        &mut self,
        readable: [B; R],
        writable: [B; W],
    ) -> Result<(Token, bool)> {
        check_spaces(&self.home.space, &readable, &writable)?;
        if SHOW { self.check_started() } else { self.home.health.check() }?;
        let Self { ring: Some(ring), gauge, .. } = self else { return Err(Error::Closed { what: "queue" }) };
        let token = ring.add(readable, writable)?;
        if SHOW && let Some(gauge) = gauge {
            gauge.show(ring.next_index());
        }
        Ok((token, SHOW && ring.publish().is_some()))
    }

    /// Adds up to `count` chains that `next` makes, gives their tokens to `added`, and answers how many they are. It
    /// ends where the queue is full, before it asks for a chain, and where one is refused.
    ///
    /// An error of `next`, or as [`Queue::add`], where it concerns the first chain.
    #[cfg(feature = "python")]
    #[inline(always)]
    pub(crate) fn add_each<const R: usize, const W: usize>(
        &mut self,
        count: usize,
        mut next: impl FnMut() -> Result<([B; R], [B; W])>,
        mut added: impl FnMut(Token),
    ) -> Result<usize> {
        self.home.health.check()?;
        let Self { ring: Some(ring), home, .. } = self else { return self.alive().map(|_| 0) };
        let parts = u16::try_from(R.wrapping_add(W)).unwrap_or(u16::MAX);
        let mut add = || {
            let (readable, writable) = next()?;
            check_spaces(&home.space, &readable, &writable)?;
            added(ring.add(readable, writable)?);
            Ok(ring.has_room(parts))
        };
        for done in 0..count {
            match add() {
                Ok(true) => {}
                Ok(false) => return Ok(done.wrapping_add(1)),
                Err(error) if done == 0 => return Err(error),
                // The next call meets it again, with the chain that it concerns in front.
                Err(_) => return Ok(done),
            }
        }
        Ok(count)
    }

    /// Takes up to `most` used buffers of a device that runs, gives them to `take`, and answers how many they are; whatever
    /// ends them is for [`Queue::pop_with`] to find.
    #[inline(always)]
    pub(crate) fn pop_each(&mut self, most: usize, mut take: impl FnMut(Done)) -> usize {
        let Self { ring: Some(ring), home, .. } = self else { return 0 };
        if home.health.check().is_err() {
            return 0;
        }
        for count in 0..most {
            let Ok(Some(mut completion)) = ring.pop() else { return count };
            // The first buffer goes here, where its end is inlined, as most chains have one; and last, so that the
            // completion need not lie in memory.
            let first = completion.next();
            take(Done::take(completion));
            drop(first);
        }
        most
    }
}
