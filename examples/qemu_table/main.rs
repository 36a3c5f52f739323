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
    let mut notes: Vec<String> = Vec::new();
    for (subject, outcomes) in &rows {
        let cells: Vec<String> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::NotGiven(why) => {
                    let at = notes.iter().position(|note| note == why).unwrap_or_else(|| {
                        notes.push(why.clone());
                        notes.len() - 1
                    });
                    format!("— ({})", at + 1)
                }
                outcome => outcome.to_string(),
            })
            .collect();
        writeln!(out, "| {} | {} |", subject.name, cells.join(" | "))?;
    }
    writeln!(out)?;
    for (n, note) in notes.iter().enumerate() {
        writeln!(out, "{}. {note}", n + 1)?;
    }
    let failed = rows.iter().flat_map(|(_, outcomes)| outcomes).any(|o| matches!(o, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
