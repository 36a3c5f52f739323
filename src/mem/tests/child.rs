//! Running one test in a process of its own, where limits can be set without harm to the others.

use std::env;
use std::process::Command;
use std::string::String;

const MARK: &str = "VIRTIO_MEM_TEST_CHILD";

/// In the child: `true`. In the parent: runs the test of this full name in a child, and fails as it does.
pub(super) fn in_child(test: &str) -> bool {
    if env::var(MARK).is_ok_and(|marked| marked == test) {
        return true;
    }
    let this = env::current_exe().unwrap();
    let out = Command::new(this).args(["--exact", test, "--nocapture"]).env(MARK, test).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("1 passed"), "the child did not run {test}: {text}");
    false
}
