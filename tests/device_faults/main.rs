//! What a device, its registers and its configuration do wrong, through `device::Device`, behind every interface
//! to which it applies. Names begin with the row of the fault model; `docs/faults.md` is the list.
#![cfg(all(feature = "soft", not(loom)))]

#[path = "../driver_common/mod.rs"]
mod driver_common;

/// One test for each interface: `each!(name(way) on set { … })` makes `name::pci_modern` and so on.
macro_rules! each {
    ($name:ident($arg:ident) on all $body:block) => {
        each!($name($arg) on [pci_modern transitional_modern transitional_legacy pci_legacy mmio mmio_legacy] $body);
    };
    ($name:ident($arg:ident) on modern $body:block) => {
        each!($name($arg) on [pci_modern transitional_modern mmio] $body);
    };
    ($name:ident($arg:ident) on legacy $body:block) => {
        each!($name($arg) on [transitional_legacy pci_legacy mmio_legacy] $body);
    };
    ($name:ident($arg:ident) on pci $body:block) => {
        each!($name($arg) on [pci_modern transitional_modern transitional_legacy pci_legacy] $body);
    };
    ($name:ident($arg:ident) on [$($way:ident)*] $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "each body uses a part")]
            use super::*;

            fn holds($arg: Way) $body

            $(
                #[test]
                fn $way() {
                    holds($crate::rig::$way());
                }
            )*
        }
    };
}

mod config;
mod ends;
mod features;
mod fork;
mod interrupts;
mod life;
mod queues;
mod registers;
mod rig;
