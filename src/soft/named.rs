//! Software devices that an address leads to: `soft:TYPE@NAME`.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use std::sync::{OnceLock, PoisonError};

use super::device::SoftDevice;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

static NAMED: OnceLock<Mutex<BTreeMap<String, SoftDevice>>> = OnceLock::new();

fn named() -> MutexGuard<'static, BTreeMap<String, SoftDevice>> {
    NAMED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as this lives, [`crate::open()`] finds the device; see [`SoftDevice::publish`].
#[derive(Debug)]
pub struct Published {
    place: String,
}

impl Published {
    /// The place in the address, `TYPE@NAME`.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // The device may have been the last handle: its thread is waited for without the lock.
        let gone = named().remove(&self.place);
        drop(gone);
    }
}

impl SoftDevice {
    /// Makes the device one that the address `soft:` with this place opens, in this process, any number of times.
    /// Two drivers at the same time disturb each other, as they would with hardware.
    ///
    /// Fails with [`Error::Misuse`] for a place without an `@`, or one that is taken.
    ///
    /// ```
    /// use virtio::soft::{Entropy, SoftDevice};
    ///
    /// let soft = SoftDevice::builder(Entropy::new(1)).checked(true).build()?;
    /// let published = soft.publish("entropy@mine")?;
    /// virtio::open("soft:entropy@mine")?.close()?;
    /// assert_eq!(soft.report().broken, None);
    /// drop(published);
    /// assert!(virtio::open("soft:entropy@mine").is_err());
    /// # Ok::<(), virtio::Error>(())
    /// ```
    pub fn publish(&self, place: &str) -> Result<Published> {
        if !place.contains('@') {
            return Err(Error::Misuse { what: "a published device has a place such as entropy@mine" });
        }
        let mut named = named();
        if named.contains_key(place) {
            return Err(Error::Misuse { what: "another software device is published at this place" });
        }
        named.insert(place.to_owned(), self.clone());
        Ok(Published { place: place.to_owned() })
    }
}

/// The device that is published at a place.
pub(crate) fn published(place: &str) -> Option<SoftDevice> {
    named().get(place).cloned()
}
