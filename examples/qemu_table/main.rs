//! Tries every virtio device type of the installed QEMU over every register interface, and prints the table that
//! `docs/qemu.md` keeps.
//!
//! ```sh
//! cargo run --example qemu_table
//! ```
//!
//! Its exit status is 1 where a cell failed.

use std::io::{self, Write};
use std::process::ExitCode;

#[path = "table.rs"]
mod table;

use table::{INTERFACES, Outcome};

fn main() -> io::Result<ExitCode> {
    let rows = table::run(2);
    let mut out = io::stdout().lock();
    let heads = INTERFACES.map(table::Interface::title).join(" | ");
    writeln!(out, "| device | {heads} |")?;
    writeln!(out, "| --- |{}", " --- |".repeat(INTERFACES.len()))?;
    let (lines, notes) = table::lines(&rows);
    for line in lines.iter().chain([&String::new()]).chain(&notes) {
        writeln!(out, "{line}")?;
    }
    let failed = rows.iter().flat_map(|(_, outcomes)| outcomes).any(|o| matches!(o, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
