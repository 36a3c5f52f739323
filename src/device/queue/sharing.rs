//! A queue as something that several threads share.

use alloc::sync::Arc;

use super::{Queue, QueuePort};
use crate::Result;
use crate::device::lane::Lane;
use crate::device::shared::Shared;
use crate::device::used::Done;
use crate::mem::lease::Lease;
use crate::mem::pool::DmaBuf;
use crate::queue::{Completion, Ring, Token};

impl<B: Lease + Send + 'static> Queue<B> {
    /// Makes it one for several threads.
    pub fn share(self) -> SharedQueue<B> {
        let spin = self.spin;
        Shared::new(self, spin)
    }
}

/// A device's queue for any number of threads.
pub type SharedQueue<B = DmaBuf> = Shared<Queue<B>>;

impl<B: Lease + Send + 'static> Lane for Queue<B> {
    type Buf = B;
    type Port = QueuePort;

    fn index(&self) -> u16 {
        self.index
    }

    fn size(&self) -> u16 {
        self.size
    }

    fn port(&self) -> Arc<QueuePort> {
        Arc::clone(&self.port)
    }

    fn has_room(&self, parts: u16) -> bool {
        Self::has_room(self, parts)
    }

    fn is_idle(&self) -> bool {
        // Over, it has no room and will have none: adding tells why.
        self.ring.as_ref().is_none_or(|ring| ring.tokens().next().is_none())
            || self.home.health.check().is_err()
    }

    fn holds(&self, token: Token) -> bool {
        Self::holds(self, token) || self.ended.contains(&token)
    }

    fn add(&mut self, readable: impl Iterator<Item = B>, writable: impl Iterator<Item = B>) -> Result<Token> {
        self.add_chain(readable, writable)
    }

    fn publish(&mut self) -> Result<bool> {
        Self::publish(self)
    }

    fn may_ring(&self) -> Result<()> {
        self.check_started()
    }

    fn kick_again(&mut self) -> bool {
        self.ring.as_mut().and_then(Ring::kick_again).is_some()
    }

    #[inline]
    fn pop_with<T>(&mut self, take: impl FnOnce(Completion<'_, B>) -> T) -> Result<Option<T>> {
        Self::pop_with(self, take)
    }

    #[inline]
    fn pop_each(&mut self, most: usize, take: impl FnMut(Done)) -> usize {
        Self::pop_each(self, most, take)
    }

    fn arm(&mut self) -> Result<bool> {
        self.ask_for_interrupts()
    }

    fn disarm(&mut self) {
        self.disable_interrupts();
    }
}
