//! A channel over `virtio::sync`: the thread sanitizer does not see through std's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use virtio::event::Deadline;
use virtio::sync::{Condvar, Mutex};

#[derive(Debug)]
struct Shared<T> {
    sent: Mutex<VecDeque<T>>,
    more: Condvar,
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { sent: Mutex::new(VecDeque::new()), more: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) {
        self.0.sent.lock().unwrap().push_back(value);
        self.0.more.notify_one();
    }
}

impl<T> Receiver<T> {
    /// The next value, or `None` after `limit`.
    pub(crate) fn recv_timeout(&self, limit: Duration) -> Option<T> {
        let deadline = Deadline::after(limit);
        let mut sent = self.0.sent.lock().unwrap();
        loop {
            let left = deadline.left()?;
            match sent.pop_front() {
                None if left.is_zero() => return None,
                None => sent = self.0.more.wait_timeout(sent, left).unwrap().0,
                value => return value,
            }
        }
    }
}
