//! No cell of the table of devices and interfaces fails.

#[path = "../../examples/qemu_table/table.rs"]
mod table;

use table::{INTERFACES, Interface, Outcome};

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
    let done = rows.iter().flat_map(|(_, outcomes)| outcomes).filter(|o| matches!(o, Outcome::Done { .. }));
    assert!(done.count() >= 70, "fewer cells than QEMU 7.2 fills");
}
