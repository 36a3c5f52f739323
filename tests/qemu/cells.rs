//! No cell of the table of devices and interfaces fails.

#[path = "../../examples/qemu_table/table.rs"]
mod table;

use std::process::Command;

use table::{INTERFACES, Interface, Outcome, SUBJECTS};

/// What QEMU says of itself.
fn qemu(arguments: &[&str]) -> String {
    let said = Command::new("qemu-system-x86_64").args(arguments).output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_table_has_every_virtio_device_of_the_installed_qemu() {
    let help = qemu(&["-device", "help"]);
    let devices = help.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("name \"")?.split_once('"')?;
        let ours = name.starts_with("virtio-") || name.starts_with("vhost-");
        (ours && ["bus PCI", "bus virtio-bus"].iter().any(|bus| rest.contains(bus))).then_some(name)
    });
    let mut count = 0;
    for name in devices {
        count += 1;
        // Other names of the same devices, with one of the sides switched off.
        let plain = name.trim_end_matches("-non-transitional").trim_end_matches("-transitional");
        let known = SUBJECTS.iter().any(|subject| subject.pci == plain || subject.mmio == plain);
        assert!(known, "the table has no row for {name}");
    }
    assert!(count > 40, "{help}");
}

#[test]
fn every_device_of_qemu_lives_a_life_over_every_interface_that_qemu_gives_it() {
    let rows = table::run(2);
    let mut faults = Vec::new();
    for (subject, outcomes) in &rows {
        for (interface, outcome) in INTERFACES.iter().zip(outcomes) {
            let allowed = match outcome {
                Outcome::Done { .. } => true,
                Outcome::NotGiven(why) => {
                    let always = matches!(interface, Interface::Modern | Interface::TransitionalModern);
                    !why.is_empty() && (subject.may_lack || !always)
                }
                Outcome::Failed(_) => false,
            };
            if !allowed {
                faults.push(format!("{}, {}: {outcome:?}", subject.name, interface.title()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // What the upper part says depends on QEMU alone; the lower part on what the host has.
    if qemu(&["--version"]).contains("version 7.2.") {
        let page = include_str!("../../docs/qemu.md");
        let upper: Vec<_> = rows.iter().filter(|(subject, _)| !subject.may_lack).cloned().collect();
        let (lines, notes) = table::lines(&upper);
        for line in lines.iter().chain(&notes) {
            assert!(
                page.lines().any(|known| known == line),
                "docs/qemu.md lacks: {line}; run make qemu-table"
            );
        }
    }
    let done = rows.iter().flat_map(|(_, outcomes)| outcomes).filter(|o| matches!(o, Outcome::Done { .. }));
    assert!(done.count() >= 70, "fewer cells than QEMU 7.2 fills");
}
