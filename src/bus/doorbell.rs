//! The doorbell: how a driver's available buffer notification is sent, resolved once per queue.

use alloc::sync::Arc;
use core::fmt;

use crate::Result;
use crate::event::EventFd;

/// Sends the available buffer notifications of one queue (VIRTIO 1.4 §4.1.5.2, §4.2.3.3).
///
/// An enum, so that the hot path has no dynamic call where hardware is near: buses that map registers add a
/// variant for a plain store.
#[derive(Clone)]
#[non_exhaustive]
pub enum Doorbell {
    /// An event descriptor that the device end waits on; the value is not carried.
    Event(EventFd),
    /// A call: software devices, sockets, system calls.
    Call(Arc<dyn Fn(u32) -> Result<()> + Send + Sync>),
}

impl Doorbell {
    /// Sends one notification with `value` (the queue index, or what NOTIFICATION_DATA and
    /// NOTIF_CONFIG_DATA make of it).
    pub fn ring(&self, value: u32) -> Result<()> {
        match self {
            Self::Event(event) => event.signal(),
            Self::Call(call) => call(value),
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event(_) => "Doorbell::Event",
            Self::Call(_) => "Doorbell::Call",
        })
    }
}
