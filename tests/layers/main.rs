//! The rules of the house that the compiler does not know: which module may use which, where `unsafe` and
//! PyO3 may appear, what `lib.rs` may hold, how long files and functions may be.
//!
//! `docs/architecture.md` draws the layers; `rules.rs` is the same picture as a table. Each rule is shown to
//! bite by a snippet that breaks it (`bites.rs`).

mod bites;
mod rules;
mod scan;

use std::fs;
use std::path::Path;

use rules::{Source, check};

#[test]
fn the_source_tree_keeps_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, &root.join("src"), &mut sources);
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"), "no src/lib.rs below {}", root.display());
    let faults = check(&sources);
    assert!(faults.is_empty(), "{} broken rules:\n{}", faults.len(), faults.join("\n"));
}

/// So that no test of a driver goes without a look at what the device saw of it.
#[test]
fn tests_build_software_devices_that_check_their_driver() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, &root.join("tests"), &mut sources);
    let unchecked = |source: &&Source| {
        let place =
            source.path.starts_with("tests/layers/") || source.path == "tests/driver_common/checked.rs";
        !place && source.text.contains("SoftDevice") && source.text.contains(".build()")
    };
    let found: Vec<_> = sources.iter().filter(unchecked).map(|source| &source.path).collect();
    assert!(found.is_empty(), "tests/driver_common/checked.rs builds them: {found:?}");
    let abusing = |source: &&Source| source.text.contains("abused(");
    let found: Vec<_> = sources.iter().filter(abusing).map(|source| source.path.as_str()).collect();
    let wanted = [
        "tests/driver_common/checked.rs",
        "tests/layers/main.rs",
        "tests/soft_devices/hostile.rs",
        "tests/soft_devices/lies.rs",
    ];
    assert_eq!(found, wanted, "tests that break rules on purpose");
}

/// Reads every Rust file below `folder`, named from `root`.
fn collect(root: &Path, folder: &Path, into: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            into.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}
