//! A ring as the lane of a shared queue, over a port of the test's own: for loom's models and for real threads.

use virtio::Result;
use virtio::device::{Lane, Port};
use virtio::mem::lease::{DeviceStopped, RawRange};
use virtio::queue::{Completion, Ring, Token};
use virtio::sync::Arc;

/// The driver's side of a queue. The device's end of these tests reaches no payload.
pub(crate) struct RingLane<P> {
    pub(crate) ring: Ring<RawRange>,
    pub(crate) port: Arc<P>,
}

impl<P: Port> Lane for RingLane<P> {
    type Buf = RawRange;
    type Port = P;

    fn index(&self) -> u16 {
        self.ring.queue()
    }

    fn size(&self) -> u16 {
        self.ring.size()
    }

    fn port(&self) -> Arc<P> {
        self.port.clone()
    }

    fn has_room(&self, parts: u16) -> bool {
        self.ring.has_room(parts)
    }

    fn is_idle(&self) -> bool {
        self.ring.tokens().next().is_none()
    }

    fn holds(&self, token: Token) -> bool {
        self.ring.holds(token)
    }

    fn add(
        &mut self,
        readable: impl Iterator<Item = RawRange>,
        writable: impl Iterator<Item = RawRange>,
    ) -> Result<Token> {
        let chain = readable.fold(self.ring.chain(), |chain, buf| chain.readable(buf));
        writable.fold(chain, |chain, buf| chain.writable(buf)).add()
    }

    fn publish(&mut self) -> Result<bool> {
        Ok(self.ring.publish().is_some())
    }

    fn kick_again(&mut self) -> bool {
        self.ring.kick_again().is_some()
    }

    fn pop_with<T>(&mut self, take: impl FnOnce(Completion<'_, RawRange>) -> T) -> Result<Option<T>> {
        Ok(self.ring.pop()?.map(take))
    }

    fn arm(&mut self) -> Result<bool> {
        // The event's signals stay, as they do with the real thing.
        self.ring.enable_interrupts()
    }

    fn disarm(&mut self) {
        self.ring.disable_interrupts();
    }
}

impl<P> Drop for RingLane<P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed; of a model, loom's cells are gone.
            return;
        }
        // SAFETY: the device's end reaches no payload, and buffers have no memory.
        let stopped = unsafe { DeviceStopped::assume() };
        // A ring that is dropped with chains in flight keeps its memory.
        self.ring.reset(&stopped, |_, _| {}).unwrap();
    }
}
