//! Many requests at once: one look at the device for all of them.

use super::Queue;
#[cfg(feature = "python")]
use super::check_space;
use crate::device::used::Done;
use crate::mem::lease::Lease;
#[cfg(feature = "python")]
use crate::{Result, queue::Token};

impl<B: Lease + Send + 'static> Queue<B> {
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
            for buf in &readable {
                check_space(&home.space, buf)?;
            }
            for buf in &writable {
                check_space(&home.space, buf)?;
            }
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

    /// Takes up to `most` used buffers of a device that runs, gives them to `take`, each with the first buffer of its
    /// chain, and answers how many they are; whatever ends them is for [`Queue::pop_with`] to find.
    #[inline(always)]
    pub(crate) fn pop_each(&mut self, most: usize, mut take: impl FnMut(Done, Option<B>)) -> usize {
        let Self { ring: Some(ring), home, .. } = self else { return 0 };
        if home.health.check().is_err() {
            return 0;
        }
        for count in 0..most {
            let Ok(Some(mut completion)) = ring.pop() else { return count };
            let first = completion.next();
            // Before the call, so that the completion need not lie in memory.
            take(Done::take(completion), first);
        }
        most
    }
}
