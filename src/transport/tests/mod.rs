//! Each interface against a small device that lies on demand; tests are named by the row of the fault list
//! or the clause that they hold.

mod caps;
mod common;
mod fake;
mod legacy;
mod mmio;
mod modern;
mod queues;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use self::fake::{Fake, Place};
use super::{PciInterface, QueueSetup, RingLayout, Transport, open_mmio, open_pci};
use crate::event::Deadline;
use crate::spec::ByteOrder;
use crate::{Error, Result};

/// The four interfaces.
const PLACES: [Place; 4] = [Place::Modern, Place::Legacy, Place::Mmio2, Place::Mmio1];

/// Opens the fake's interface of that name.
fn open(fake: &Fake, place: Place) -> Result<Arc<dyn Transport>> {
    open_as(fake, place, ByteOrder::Little)
}

fn open_as(fake: &Fake, place: Place, order: ByteOrder) -> Result<Arc<dyn Transport>> {
    let interface = match place {
        Place::Modern => PciInterface::Modern,
        Place::Legacy => PciInterface::Legacy,
        _ => return open_mmio(fake.slot(place), order),
    };
    open_pci(Arc::new(fake.function()), interface, order)
}

/// A fresh fake behind each interface.
fn all() -> Vec<(Place, Fake, Arc<dyn Transport>)> {
    let each = |place| {
        let fake = Fake::new();
        let transport = open(&fake, place).unwrap();
        (place, fake, transport)
    };
    PLACES.map(each).into()
}

/// Areas of a queue of `size` where the layout wants them, from `base` on.
fn setup(transport: &dyn Transport, size: u16, base: u64) -> QueueSetup {
    let n = u64::from(size);
    let driver = base + 16 * n;
    let device = match transport.ring_layout() {
        RingLayout::Modern => (driver + 6 + 2 * n).next_multiple_of(4),
        RingLayout::Legacy { align } => (driver + 6 + 2 * n).next_multiple_of(align.into()),
    };
    QueueSetup { size, descriptor_area: base, driver_area: driver, device_area: device, vector: None }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(30))
}

fn later() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// The error without its address.
#[track_caller]
fn error<T: core::fmt::Debug>(result: Result<T>) -> Error {
    result.unwrap_err().kind().clone()
}

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        assert_error!($result, $pattern $(if $guard)?, "")
    };
    ($result:expr, $pattern:pat $(if $guard:expr)?, $what:expr) => {{
        let found = super::error($result);
        assert!(matches!(found, $pattern $(if $guard)?), "{}: {found:?}", $what);
    }};
}
use assert_error;
