//! The rules, and what they look at.

use std::collections::BTreeMap;

use crate::scan::{
    Code, PathUse, attribute_end, functions, group_end, is, path_tree, paths, tokens, without_tests,
};

/// Lines of a file that are no test code, at most.
pub(crate) const MAX_FILE_LINES: usize = 500;
/// Lines of a function, from its `fn` to its last brace, at most.
pub(crate) const MAX_FUNCTION_LINES: usize = 60;
/// Where `unsafe` may be written.
const ISLANDS: [&str; 5] =
    ["src/mem.rs", "src/mem/", "src/bus/", "src/python/buffer.rs", "src/python/queue/fast.rs"];

/// Modules that decide on what a device wrote.
const DEVICE_FACING: [&str; 5] = ["queue", "bus", "transport", "device", "drivers"];
/// What could panic on it.
const NO_PANIC_LINTS: [&str; 5] =
    ["unwrap_used", "expect_used", "panic", "indexing_slicing", "arithmetic_side_effects"];

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A part of the house with its own place in the order of layers.
#[derive(Debug)]
struct Unit {
    name: &'static str,
    /// The Cargo feature that it needs; empty for the `no_std` part.
    feature: &'static str,
    /// What it may use; `*` is everything.
    uses: &'static [&'static str],
}

const fn unit(name: &'static str, feature: &'static str, uses: &'static [&'static str]) -> Unit {
    Unit { name, feature, uses }
}

/// The order of layers, from the used to the user. Parts of `mem` that need no operating system count as
/// units of their own.
const UNITS: &[Unit] = &[
    unit("spec", "", &[]),
    unit("error", "", &["spec"]),
    unit("features", "", &["spec", "error"]),
    unit("sync", "", &[]),
    unit("mem::barrier", "", &["sync"]),
    unit("mem::cell", "", &["error", "sync", "mem::barrier"]),
    unit("mem::lease", "", &["error", "sync", "mem::cell"]),
    unit("queue", "", &["spec", "error", "features", "sync", "mem::barrier", "mem::cell", "mem::lease"]),
    unit("bus::signal", "vhost-user", &["error"]),
    unit("event", "std", &["error", "sync", "bus::signal"]),
    unit("mem", "std", &["spec", "error", "sync", "event", "mem::barrier", "mem::cell", "mem::lease"]),
    unit("bus", "std", &["spec", "error", "sync", "event", "mem"]),
    unit("transport", "std", &["spec", "error", "features", "sync", "event", "mem", "mem::barrier", "bus"]),
    unit(
        "device",
        "std",
        &["spec", "error", "features", "sync", "event", "mem", "queue", "bus", "transport"],
    ),
    unit("drivers", "std", &["spec", "error", "features", "sync", "event", "mem", "queue", "device"]),
    unit("soft", "soft", &["spec", "error", "features", "sync", "event", "mem", "queue", "bus"]),
    unit("address", "std", &["spec", "error"]),
    unit("find", "std", &["spec", "error", "features", "event", "mem", "bus", "address"]),
    unit("testing", "qtest", &["error", "event", "address"]),
    unit("open", "std", &["*"]),
    unit("python", "python", &["*"]),
];

impl Unit {
    fn may_use(&self, other: &str) -> bool {
        // Whoever may use all of `mem` may use its parts.
        let part_of_mem = other.starts_with("mem::") && self.uses.contains(&"mem");
        self.name == other || self.uses.contains(&"*") || self.uses.contains(&other) || part_of_mem
    }
}

/// The unit that a module path (without `crate`) belongs to: the longest name that it begins with.
fn unit_of(module: &[String]) -> Option<&'static Unit> {
    let fits = |unit: &&Unit| {
        let name: Vec<&str> = unit.name.split("::").collect();
        module.len() >= name.len() && name.iter().zip(module).all(|(a, b)| a == b)
    };
    UNITS.iter().filter(fits).max_by_key(|unit| unit.name.len())
}

/// Looks at all files and answers one line for each broken rule: file, line, rule.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let files: Vec<File> = sources.iter().map(File::new).collect();
    let test_files = test_files(&files);
    let exports = files.iter().find(|f| f.path == "src/lib.rs").map(root_exports).unwrap_or_default();
    let mut faults = Vec::new();
    for file in &files {
        if is_test_file(file.path, &test_files) {
            continue;
        }
        let mut fault = |line: usize, rule: String| faults.push(format!("{}:{line}: {rule}", file.path));
        if file.path == "src/lib.rs" {
            lib_holds_no_code(file, &mut fault);
        } else {
            layer_order(file, &exports, &mut fault);
        }
        unsafe_stays_on_islands(file, &mut fault);
        foreign_names(file, &mut fault);
        no_slices_of_shared_memory(file, &mut fault);
        device_facing_lints(file, &files, &mut fault);
        sizes(file, &mut fault);
    }
    faults
}

struct File<'a> {
    path: &'a str,
    module: Vec<String>,
    lines: usize,
    code: Code,
}

impl<'a> File<'a> {
    fn new(source: &'a Source) -> Self {
        let path = source.path.as_str();
        let stem = path.strip_prefix("src/").unwrap_or(path).strip_suffix(".rs").unwrap_or(path);
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        let module = if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() };
        Self { path, module, lines: source.text.lines().count(), code: without_tests(tokens(&source.text)) }
    }
}

/// Path stems (`src/queue/fake`) of the modules that only test builds see.
fn test_files(files: &[File<'_>]) -> Vec<String> {
    let stem = |file: &File<'_>, name: &String| {
        let parts: Vec<&str> = ["src"].into_iter().chain(file.module.iter().map(String::as_str)).collect();
        format!("{}/{name}", parts.join("/"))
    };
    files
        .iter()
        .flat_map(|f| f.code.test_modules.iter().map(|name| stem(f, name)).collect::<Vec<_>>())
        .collect()
}

fn is_test_file(path: &str, test_files: &[String]) -> bool {
    path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || test_files.iter().any(|stem| {
            path.strip_prefix(stem.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
}

/// Names that `lib.rs` re-exports, and the module each is from: `crate::Error` counts as `error`.
fn root_exports(lib: &File<'_>) -> BTreeMap<String, Vec<String>> {
    let mut found = Vec::new();
    let tokens = &lib.code.tokens;
    for at in (0..tokens.len()).filter(|&at| is(tokens, at, "use")) {
        path_tree(tokens, at + 1, &mut Vec::new(), &mut found);
    }
    let local = found.into_iter().map(|p| without_crate(p.segments));
    local.filter_map(|path| Some((path.last()?.clone(), path))).collect()
}

fn without_crate(mut path: Vec<String>) -> Vec<String> {
    if path.first().is_some_and(|first| first == "crate" || first == "self") {
        path.remove(0);
    }
    path
}

/// Each path into the crate leads to a unit that the file's own unit may use.
fn layer_order(
    file: &File<'_>,
    exports: &BTreeMap<String, Vec<String>>,
    fault: &mut impl FnMut(usize, String),
) {
    let Some(own) = unit_of(&file.module) else {
        fault(1, format!("layer order: {} is in no layer, add it to UNITS", file.module.join("::")));
        return;
    };
    let tokens = &file.code.tokens;
    // `use crate as x` and `extern crate self as x` would hide every path behind x.
    let renamed = |at: &usize| {
        let own =
            is(tokens, *at, "crate") || (*at > 0 && is(tokens, *at, "self") && is(tokens, *at - 1, "crate"));
        own && is(tokens, *at + 1, "as")
    };
    for at in (0..tokens.len()).filter(renamed) {
        fault(tokens[at].line, "layer order: the crate has no second name".to_owned());
    }
    for used in paths(tokens, &["crate", "super"]) {
        let line = used.line;
        match target(file, used, exports) {
            Ok(unit) if own.may_use(unit.name) => {}
            Ok(unit) => {
                let may = own.uses.join(", ");
                fault(
                    line,
                    format!("layer order: {} may not use {} (it may use: {may})", own.name, unit.name),
                );
            }
            Err(path) => {
                fault(line, format!("layer order: crate::{path} leads to no layer, name the module"))
            }
        }
    }
}

/// The unit that a path leads to, or the path from the crate's root where it leads to none.
fn target(
    file: &File<'_>,
    used: PathUse,
    exports: &BTreeMap<String, Vec<String>>,
) -> Result<&'static Unit, String> {
    let mut path = if used.segments.first().is_some_and(|s| s == "super") {
        let ups = used.segments.iter().take_while(|s| *s == "super").count();
        let kept = file.module.len().saturating_sub(ups);
        [&file.module[..kept], &used.segments[ups..]].concat()
    } else {
        used.segments[1..].to_vec()
    };
    if let Some(full) = path.first().and_then(|name| exports.get(name)).filter(|_| unit_of(&path).is_none()) {
        path = full.clone();
    }
    unit_of(&path).ok_or_else(|| path.join("::"))
}

/// `lib.rs` is documents, lints, modules and re-exports; modules are behind the feature of their layer.
fn lib_holds_no_code(file: &File<'_>, fault: &mut impl FnMut(usize, String)) {
    let tokens = &file.code.tokens;
    let (mut at, mut attributes) = (0, Vec::new());
    while at < tokens.len() {
        if let Some(end) = attribute_end(tokens, at) {
            attributes.push(tokens[at..end].iter().map(|t| t.text.as_str()).collect::<String>());
            at = end;
            continue;
        }
        let line = tokens[at].line;
        let end = statement_end(tokens, at);
        let words: Vec<&str> =
            tokens[at..end].iter().map(|t| t.text.as_str()).filter(|t| *t != "pub").collect();
        match words.as_slice() {
            ["mod", name, ";"] => gate(name, line, &attributes, fault),
            ["use", ..] | ["extern", "crate", _, ";"] => {}
            _ if attributes.iter().any(|a| a == "#[cfg(doctest)]") => {}
            _ => fault(line, "lib.rs holds documents, lints, modules and re-exports only".to_owned()),
        }
        attributes.clear();
        at = end;
    }
}

fn statement_end(tokens: &[crate::scan::Token], mut at: usize) -> usize {
    while at < tokens.len() && !is(tokens, at, ";") && !is(tokens, at, "{") {
        at += 1;
    }
    // A `use` group has its semicolon behind the brace.
    let end = if is(tokens, at, "{") { group_end(tokens, at) } else { at };
    if is(tokens, end, ";") { end + 1 } else { end.max(at + 1).min(tokens.len()) }
}

/// The `no_std` part is always there; every other module is behind the feature of its layer.
fn gate(name: &str, line: usize, attributes: &[String], fault: &mut impl FnMut(usize, String)) {
    // `mem` is there in part without any feature; its own mod.rs gates the rest.
    let feature = match unit_of(&[name.to_owned()]) {
        Some(unit) if name != "mem" => unit.feature,
        Some(_) => "",
        None => return fault(line, format!("layer order: {name} is in no layer, add it to UNITS")),
    };
    // What no model reaches may stay out of loom's build.
    let wanted =
        [format!("#[cfg(feature=\"{feature}\")]"), format!("#[cfg(all(feature=\"{feature}\",not(loom)))]")];
    let gates: Vec<&String> = attributes.iter().filter(|a| a.starts_with("#[cfg(")).collect();
    if feature.is_empty() && !gates.is_empty() {
        fault(line, format!("feature gate: {name} is in the no_std part, behind no feature"));
    } else if !feature.is_empty() && !gates.iter().any(|gate| wanted.contains(gate)) {
        fault(line, format!("feature gate: {name} needs #[cfg(feature = \"{feature}\")]"));
    }
}

/// `unsafe` is written on the islands only, and an island says why it is one.
fn unsafe_stays_on_islands(file: &File<'_>, fault: &mut impl FnMut(usize, String)) {
    let island = ISLANDS.iter().any(|i| file.path.starts_with(i));
    let tokens = &file.code.tokens;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "unsafe" if !island => fault(token.line, "unsafe outside the islands".to_owned()),
            "unsafe_code" if !island => fault(token.line, "unsafe_code is the islands' lint".to_owned()),
            "unsafe_code" => {
                let expected = at >= 2 && is(tokens, at - 2, "expect") && is(tokens, at + 2, "reason");
                if !expected {
                    fault(token.line, "an island opens with expect(unsafe_code, reason = …)".to_owned());
                }
            }
            _ => {}
        }
    }
}

/// PyO3 is named in `python` only; what loom models takes its atomics from `sync`, or loom would not see them.
fn foreign_names(file: &File<'_>, fault: &mut impl FnMut(usize, String)) {
    let python = file.module.first().is_some_and(|m| m == "python");
    for token in file.code.tokens.iter().filter(|t| t.text == "pyo3" && !python) {
        fault(token.line, "pyo3 outside src/python".to_owned());
    }
    if file.module.first().is_some_and(|m| m == "queue") || file.path == "src/mem/slots.rs" {
        for used in paths(&file.code.tokens, &["core", "std", "loom"]) {
            if used.segments.get(1).is_some_and(|s| s == "sync") {
                fault(used.line, "queues and pools take atomics and locks from crate::sync".to_owned());
            }
        }
    }
}

/// `no-shared-refs`: a slice over memory that a device may write is undefined behaviour waiting to happen.
fn no_slices_of_shared_memory(file: &File<'_>, fault: &mut impl FnMut(usize, String)) {
    let tokens = &file.code.tokens;
    for at in (2..tokens.len()).filter(|&at| is(tokens, at - 2, "slice") && is(tokens, at - 1, "::")) {
        if is(tokens, at, "from_raw_parts") || is(tokens, at, "from_raw_parts_mut") {
            fault(tokens[at].line, "no-shared-refs: no slice of memory that a device can write".to_owned());
        }
    }
}

/// A module that meets what a device wrote denies, in its root file, what could panic on it.
fn device_facing_lints(file: &File<'_>, files: &[File<'_>], fault: &mut impl FnMut(usize, String)) {
    let [module] = file.module.as_slice() else { return };
    let facing = DEVICE_FACING.contains(&module.as_str());
    let mut members = files.iter().filter(|f| f.module.first() == Some(module));
    if !facing || members.all(|f| functions(&f.code.tokens).is_empty()) {
        return;
    }
    let denied = inner_denies(&file.code.tokens);
    let missing: Vec<&str> = NO_PANIC_LINTS.into_iter().filter(|lint| !denied.contains(lint)).collect();
    if !missing.is_empty() {
        fault(1, format!("device-facing: #![deny(clippy::…)] lacks {}", missing.join(", ")));
    }
}

/// Words inside `#![deny(…)]` attributes.
fn inner_denies(tokens: &[crate::scan::Token]) -> Vec<&str> {
    let attributes = (0..tokens.len()).filter_map(|at| Some(at..attribute_end(tokens, at)?));
    let deny = attributes.filter(|a| is(tokens, a.start + 1, "!") && is(tokens, a.start + 3, "deny"));
    deny.flat_map(|a| tokens[a].iter().map(|t| t.text.as_str())).collect()
}

/// Files and functions that can be read in one go.
fn sizes(file: &File<'_>, fault: &mut impl FnMut(usize, String)) {
    let in_tests: usize = file.code.test_lines.iter().map(|range| range.clone().count()).sum();
    let lines = file.lines.saturating_sub(in_tests);
    if lines > MAX_FILE_LINES {
        fault(1, format!("{lines} lines beside tests, {MAX_FILE_LINES} are allowed"));
    }
    for (name, range) in functions(&file.code.tokens) {
        let lines = range.clone().count();
        if lines > MAX_FUNCTION_LINES {
            fault(*range.start(), format!("fn {name} has {lines} lines, {MAX_FUNCTION_LINES} are allowed"));
        }
    }
}
