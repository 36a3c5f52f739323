//! Each rule bites: a snippet that breaks it gives its message, and what looks like it but is not gives none.

use crate::rules::{MAX_FILE_LINES, MAX_FUNCTION_LINES, Source, check};

const LIB: &str = "#![no_std]\nextern crate alloc;\npub mod error;\npub mod queue;\n\
    #[cfg(feature = \"std\")]\npub mod event;\npub use error::{Error, Result};\n";

/// Faults of a crate that is `LIB` and one file.
fn faults(path: &str, text: &str) -> Vec<String> {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    if path == "src/lib.rs" {
        return check(&[source(path, text)]);
    }
    check(&[source("src/lib.rs", LIB), source(path, text)])
}

#[track_caller]
fn bites(path: &str, text: &str, at: usize, rule: &str) {
    let found = faults(path, text);
    let [only] = found.as_slice() else { panic!("one fault expected, found {found:?}") };
    assert!(only.starts_with(&format!("{path}:{at}: ")) && only.contains(rule), "{only}");
}

#[track_caller]
fn passes(path: &str, text: &str) {
    assert_eq!(faults(path, text), Vec::<String>::new());
}

#[test]
fn a_use_against_the_order_is_named_by_file_line_and_rule() {
    let found = faults("src/queue/ring.rs", "use core::fmt;\nuse crate::event::EventFd;\n");
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert!(
        only.starts_with("src/queue/ring.rs:2: layer order: queue may not use event (it may use: spec, "),
        "{only}"
    );
}

#[test]
fn every_way_to_write_a_path_is_seen() {
    let rule = "queue may not use device";
    bites("src/queue/ring.rs", "use crate::{\n  error::Error,\n  device::{Queue},\n};", 3, rule);
    bites("src/queue/ring.rs", "fn f() { let _ = crate::device::open::<u8>(); }", 1, rule);
    bites("src/queue/ring.rs", "use super::super::device::Device;", 1, rule);
    bites("src/queue/split/ring.rs", "use super::super::super::device;", 1, rule);
    bites("src/queue/ring.rs", "fn f(d: &'static crate::device::Device) {}", 1, rule);
    bites("src/queue/ring.rs", "macro_rules! m { () => { $crate::device::X } }", 1, rule);
    bites("src/queue/ring.rs", "type T = Vec<crate::device::Device>;", 1, rule);
}

#[test]
fn what_may_be_used_passes() {
    passes("src/queue/ring.rs", "use crate::mem::cell::Cell;\nuse crate::spec;\nuse crate::{Error, Result};");
    passes("src/queue/ring.rs", "use super::suppress;\nuse super::super::error::Error;");
    passes("src/device/mod.rs", "use crate::mem::{cell::Cell, region::Region};\nuse crate::queue::Ring;");
    passes("src/open.rs", "use crate::{device, soft, transport};");
}

#[test]
fn each_layer_keeps_its_own_order() {
    bites("src/spec/mod.rs", "use crate::error::Error;", 1, "spec may not use error");
    bites("src/spec/mod.rs", "use crate::Error;", 1, "spec may not use error");
    bites("src/features.rs", "use crate::queue::Ring;", 1, "features may not use queue");
    bites("src/sync.rs", "use crate::error::Error;", 1, "sync may not use error");
    bites("src/mem/cell/raw.rs", "use crate::mem::region::Region;", 1, "mem::cell may not use mem");
    bites("src/mem/pool.rs", "use crate::queue::Ring;", 1, "mem may not use queue");
    bites("src/queue/ring.rs", "use crate::mem::pool::Pool;", 1, "queue may not use mem");
    bites("src/bus/mod.rs", "use crate::transport::Transport;", 1, "bus may not use transport");
    bites("src/transport/mmio.rs", "use crate::device::Device;", 1, "transport may not use device");
    bites("src/transport/mmio.rs", "use crate::queue::Ring;", 1, "transport may not use queue");
    bites("src/device/mod.rs", "use crate::drivers::Block;", 1, "device may not use drivers");
    bites("src/drivers/block.rs", "use crate::transport::Transport;", 1, "drivers may not use transport");
    bites("src/drivers/block.rs", "use crate::bus::RegisterSpace;", 1, "drivers may not use bus");
    bites("src/soft/mod.rs", "use crate::transport::mmio;", 1, "soft may not use transport");
    bites("src/soft/mod.rs", "use crate::drivers::Block;", 1, "soft may not use drivers");
    bites("src/device/mod.rs", "use crate::soft::Block;", 1, "device may not use soft");
    bites("src/address.rs", "use crate::bus::MmioSlot;", 1, "address may not use bus");
    bites("src/event.rs", "use crate::python::Queue;", 1, "event may not use python");
}

#[test]
fn a_way_round_the_order_is_closed() {
    bites("src/queue/ring.rs", "use crate::*;", 1, "leads to no layer");
    bites("src/queue/ring.rs", "use crate::Unknown;", 1, "crate::Unknown leads to no layer");
    bites("src/queue/ring.rs", "extern crate self as virtio;", 1, "second name");
    bites("src/queue/ring.rs", "use crate as virtio;", 1, "second name");
    bites("src/gadget.rs", "", 1, "gadget is in no layer");
}

#[test]
fn test_code_may_use_what_it_needs() {
    passes("src/queue/ring.rs", "#[cfg(test)]\nmod tests {\n use crate::device::Device;\n}");
    passes("src/queue/ring.rs", "#[cfg(test)]\nuse crate::device::{Device, Other};");
    passes(
        "src/queue/ring.rs",
        "#[cfg(all(test, not(loom)))]\n#[rustfmt::skip]\nfn f() { crate::device::f() }",
    );
    passes("src/queue/tests.rs", "use crate::device::Device;");
    passes("src/queue/ring/tests/lies.rs", "use crate::device::Device;");
    passes("src/queue/fake.rs", "#![cfg(test)]\nuse crate::device::Device;");
    // The code after a test item is looked at again.
    bites("src/queue/ring.rs", "#[cfg(test)]\nmod t { fn f() {} }\nuse crate::device;", 3, "not use device");
    bites("src/queue/ring.rs", "#[cfg(test)]\nuse a::{b};\nuse crate::device;", 3, "not use device");
    bites("src/queue/ring.rs", "#[cfg(not(test))]\nuse crate::device;", 2, "not use device");
    bites(
        "src/queue/ring.rs",
        "#[cfg(any(test, feature = \"soft\"))]\nuse crate::device;",
        2,
        "not use device",
    );
}

#[test]
fn a_module_declared_for_tests_only_is_test_code() {
    let sources = [
        ("src/lib.rs", LIB),
        ("src/queue/mod.rs", "#[cfg(test)]\npub(crate) mod fake;"),
        ("src/queue/fake.rs", "use crate::device::Device;"),
    ];
    let sources = sources.map(|(path, text)| Source { path: path.to_owned(), text: text.to_owned() });
    assert_eq!(check(&sources), Vec::<String>::new());
}

#[test]
fn comments_and_literals_are_no_code() {
    passes("src/queue/ring.rs", "// use crate::device;\n/* crate::device /* unsafe */ crate::device */");
    passes(
        "src/queue/ring.rs",
        "//! See [`crate::device::Queue`].\nconst A: &str = \"crate::device unsafe \\\" pyo3\";",
    );
    passes(
        "src/queue/ring.rs",
        "const A: &str = r#\"unsafe \" crate::device\"#; const B: &[u8] = b\"unsafe\";",
    );
    // Quotes as characters and lifetimes do not hide what follows.
    bites("src/queue/ring.rs", "const Q: char = '\"';\nuse crate::device;", 2, "not use device");
    bites("src/queue/ring.rs", "const Q: char = '\\'';\nuse crate::device;", 2, "not use device");
    bites("src/queue/ring.rs", "const Q: u8 = b'\"';\nuse crate::device;", 2, "not use device");
    bites("src/queue/ring.rs", "fn f<'a>(r#type: &'a u8) {}\nuse crate::device;", 2, "not use device");
    bites("src/queue/ring.rs", "const A: &str = r##\"a\"#\nb\"##;\nuse crate::device;", 3, "not use device");
}

#[test]
fn unsafe_is_confined() {
    bites("src/queue/ring.rs", "fn f() {\n unsafe { g() }\n}", 2, "unsafe outside the islands");
    bites("src/queue/ring.rs", "#![allow(unsafe_code)]", 1, "islands' lint");
    bites("src/python/queue.rs", "unsafe impl Send for Q {}", 1, "unsafe outside the islands");
    bites("src/mem/cell.rs", "#![allow(unsafe_code)]", 1, "expect(unsafe_code, reason");
    bites("src/mem/cell.rs", "#![expect(unsafe_code)]", 1, "expect(unsafe_code, reason");
    passes("src/mem/cell.rs", "#![expect(unsafe_code, reason = \"cells\")]\nfn f() { unsafe { g() } }");
    passes(
        "src/bus/doorbell.rs",
        "#![expect(unsafe_code, reason = \"registers\")]\nfn f() { unsafe { g() } }",
    );
}

#[test]
fn foreign_names_stay_where_they_belong() {
    bites("src/device/mod.rs", "use pyo3::prelude::*;", 1, "pyo3 outside");
    passes("src/python/mod.rs", "use pyo3::prelude::*;");
    bites("src/queue/ring.rs", "use core::sync::atomic::AtomicU16;", 1, "from crate::sync");
    bites("src/queue/ring.rs", "use std::{fmt, sync::Mutex};", 1, "from crate::sync");
    bites("src/mem/slots.rs", "use core::sync::atomic::AtomicU64;", 1, "from crate::sync");
    passes("src/queue/ring.rs", "use alloc::sync::Arc;\nuse core::fmt;");
}

#[test]
fn no_slice_is_made_of_shared_memory() {
    let text = "fn f(p: *const u8) -> &'static [u8] { core::slice::from_raw_parts(p, 1) }";
    bites("src/mem/copy.rs", text, 1, "no-shared-refs");
    bites("src/mem/copy.rs", "use std::slice::from_raw_parts_mut;", 1, "no-shared-refs");
    passes("src/mem/copy.rs", "fn f(p: *mut u8) -> *mut [u8] { ptr::slice_from_raw_parts_mut(p, 1) }");
}

#[test]
fn device_facing_modules_deny_what_could_panic() {
    let rule = "device-facing: #![deny(clippy::…)] lacks panic, arithmetic_side_effects";
    let some = "#![deny(clippy::unwrap_used, clippy::expect_used)]\n#![deny(clippy::indexing_slicing)]\n";
    bites("src/transport/mod.rs", &format!("{some}fn f() {{}}"), 1, rule);
    bites("src/transport/mod.rs", &format!("{some}#![allow(clippy::panic)]\nfn f() {{}}"), 1, rule);
    let rest = "#![deny(clippy::panic, clippy::arithmetic_side_effects)]\n";
    passes("src/transport/mod.rs", &format!("{some}{rest}fn f() {{}}"));
    passes("src/transport/mod.rs", "pub mod mmio;");
    // The root file answers for the files below it.
    let sources = [
        Source { path: "src/drivers/mod.rs".to_owned(), text: "pub mod block;".to_owned() },
        Source { path: "src/drivers/block.rs".to_owned(), text: "fn f() {}".to_owned() },
    ];
    let found = check(&sources);
    assert!(matches!(found.as_slice(), [only] if only.starts_with("src/drivers/mod.rs:1: device-facing")));
}

#[test]
fn lib_rs_holds_no_code() {
    bites("src/lib.rs", "//! Docs.\npub fn f() {}", 2, "documents, lints, modules and re-exports only");
    bites("src/lib.rs", "pub mod spec { pub const A: u8 = 0; }", 1, "re-exports only");
    bites("src/lib.rs", "pub mod gadget;", 1, "gadget is in no layer");
    bites("src/lib.rs", "pub use error::{Error, Result};\nconst A: u8 = 1;", 2, "re-exports only");
    passes("src/lib.rs", "#[cfg(doctest)]\n#[doc = include_str!(\"../README.md\")]\nstruct Readme;");
}

#[test]
fn modules_are_behind_the_feature_of_their_layer() {
    bites("src/lib.rs", "pub mod event;", 1, "event needs #[cfg(feature = \"std\")]");
    bites(
        "src/lib.rs",
        "#[cfg(feature = \"std\")]\npub mod soft;",
        2,
        "soft needs #[cfg(feature = \"soft\")]",
    );
    bites("src/lib.rs", "#[cfg(feature = \"std\")]\npub mod queue;", 2, "no_std part");
    passes("src/lib.rs", "pub mod mem;\n#[cfg(feature = \"soft\")]\npub mod soft;");
}

#[test]
fn files_and_functions_stay_short() {
    let long = "//\n".repeat(MAX_FILE_LINES);
    passes("src/error.rs", &long);
    bites("src/error.rs", &format!("{long}//\n"), 1, "501 lines beside tests");
    passes("src/error.rs", &format!("{long}#[cfg(test)]\nmod tests {{\n{}}}\n", "//\n".repeat(90)));
    let body = "    g();\n".repeat(MAX_FUNCTION_LINES - 2);
    passes("src/error.rs", &format!("fn f(a: [u8; 4]) {{\n{body}}}\n"));
    bites("src/error.rs", &format!("\nfn f(a: [u8; 4]) {{\n{body}\n}}\n"), 2, "fn f has 61 lines");
}
