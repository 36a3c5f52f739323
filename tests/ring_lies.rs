//! Every lie of a device about a split ring ends as the fault model says: rows D1–D6, D9, D11–D16 and D23–D25,
//! each with direct and indirect descriptors and with both ways of suppressing notifications, wherever there is
//! such a combination. No panic, no hang, no token lost, none twice.
#![cfg(all(feature = "soft", not(loom)))]
#![allow(unsafe_code, reason = "a test brings its own memory")]

mod ring_common;

/// Names a row and runs it in all combinations that exist.
macro_rules! row {
    ($name:ident: direct $body:ident) => { row!(@ $name: $body; direct_flags(false, false), direct_event_idx(false, true)); };
    ($name:ident: indirect $body:ident) => { row!(@ $name: $body; indirect_flags(true, false), indirect_event_idx(true, true)); };
    ($name:ident: flags $body:ident) => { row!(@ $name: $body; direct_flags(false, false), indirect_flags(true, false)); };
    ($name:ident: event_idx $body:ident) => { row!(@ $name: $body; direct_event_idx(false, true), indirect_event_idx(true, true)); };
    ($name:ident: $body:ident) => {
        row!(@ $name: $body; direct_flags(false, false), direct_event_idx(false, true),
            indirect_flags(true, false), indirect_event_idx(true, true));
    };
    (@ $name:ident: $body:ident; $($case:ident($indirect:literal, $event_idx:literal)),*) => {
        mod $name {
            $(#[test]
            fn $case() {
                crate::ring_common::Case::each($indirect, $event_idx, super::$body);
            })*
        }
    };
}

#[path = "ring_lies/gone.rs"]
mod gone;
#[path = "ring_lies/ids.rs"]
mod ids;
#[path = "ring_lies/index.rs"]
mod index;
#[path = "ring_lies/lengths.rs"]
mod lengths;
#[path = "ring_lies/notify.rs"]
mod notify;
#[path = "ring_lies/scribble.rs"]
mod scribble;
