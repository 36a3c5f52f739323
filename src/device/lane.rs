//! What a queue must be able to do to be shared between threads.

use core::time::Duration;

use super::used::{Done, Used};
use crate::Result;
use crate::queue::{Completion, Token};
use crate::sync::Arc;

/// A queue that a [`super::Shared`] can drive. [`super::Queue`] is one.
pub trait Lane: Send {
    /// What it holds in flight.
    type Buf: Send;
    /// Its doorbell and its event.
    type Port: Port;

    /// Index of the queue.
    fn index(&self) -> u16;
    /// Number of descriptors.
    fn size(&self) -> u16;
    /// The doorbell and the event, for use without the lock.
    fn port(&self) -> Arc<Self::Port>;
    /// Whether a chain of `parts` buffers would find room.
    fn has_room(&self, parts: u16) -> bool;
    /// Whether nothing is in flight, so that no room will come.
    fn is_idle(&self) -> bool;
    /// Whether the token's request is in flight.
    fn holds(&self, token: Token) -> bool;
    /// Adds a chain.
    fn add(
        &mut self,
        readable: impl Iterator<Item = Self::Buf>,
        writable: impl Iterator<Item = Self::Buf>,
    ) -> Result<Token>;
    /// Shows what was added to the device; answers whether to ring.
    fn publish(&mut self) -> Result<bool>;
    /// Ok where the device may be notified.
    fn may_ring(&self) -> Result<()> {
        Ok(())
    }
    /// Whether to ring although the device did not ask for it.
    fn kick_again(&mut self) -> bool;
    /// Takes a used buffer, and gives it to `take`.
    fn pop_with<T>(&mut self, take: impl FnOnce(Completion<'_, Self::Buf>) -> T) -> Result<Option<T>>;
    /// Takes up to `most` used buffers that are at hand, gives them to `take`, and answers how many: there may be more,
    /// and an error.
    fn pop_each(&mut self, _most: usize, _take: impl FnMut(Done)) -> usize {
        0
    }
    /// Takes a used buffer.
    fn pop(&mut self) -> Result<Option<Used<Self::Buf>>> {
        self.pop_with(Used::take)
    }
    /// Asks for an interrupt; answers whether there is something already. Leaves the event's signals alone: one of
    /// them may be [`Port::wake`]'s.
    fn arm(&mut self) -> Result<bool>;
    /// Advises the device that no interrupts are needed.
    fn disarm(&mut self);
}

/// What of a queue can be used without its lock.
pub trait Port: Send + Sync {
    /// Notifies the device.
    fn ring(&self) -> Result<()>;
    /// Sleeps until the device or [`Port::wake`] signals, at most for `limit`.
    fn sleep(&self, limit: Duration) -> Result<()>;
    /// Ends a sleep.
    fn wake(&self);
    /// Asks the device how it is, after a wait that brought nothing.
    fn ask(&self);
    /// Fails in another process than the queue's: there, its lock may be held by nobody, for ever (fault M6).
    fn usable(&self) -> Result<()> {
        Ok(())
    }
}
