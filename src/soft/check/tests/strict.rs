//! Devices that nobody said a word about, in a process that is told to check them.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::string::String;

use crate::soft::core::Face;
use crate::soft::registers::Reg;
use crate::soft::{Console, Interface, Run, SoftDevice};

const HERE: &str = "soft::check::tests::strict::the_first_broken_rule_ends_the_process";
const SIGABRT: i32 = 6;
const VICTIM: &str = "VIRTIO_TEST_VICTIM";

#[test]
fn the_first_broken_rule_ends_the_process() {
    if env::var_os(VICTIM).is_some() {
        let builder = SoftDevice::builder(Console::new(80, 25)).interface(Interface::PciModern);
        let soft = builder.run(Run::Stepped).build().unwrap();
        soft.running.machine.write(Face::PciModern, Reg::Status, super::DRIVER).unwrap();
        return;
    }
    let run = |check: &str| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args([HERE, "--exact", "--nocapture"]).env(VICTIM, "1").env("VIRTIO_SOFT_CHECK", check);
        child.output().unwrap()
    };
    let checked = run("abort");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.signal(), Some(SIGABRT), "{said}");
    assert!(
        said.contains("soft:console: the driver broke a rule of VIRTIO 1.4: INIT_NO_RESET (§3.1.1)"),
        "{said}"
    );
    let free = run("");
    assert!(free.status.success(), "{}", String::from_utf8_lossy(&free.stderr));
}
