//! Entropy behind every interface, run in every way.

use virtio::features::Features;
use virtio::soft::{Entropy, Run, SoftDevice};

use super::{Rig, ways};

#[test]
fn entropy_answers_behind_every_interface_in_every_way_to_run_it() {
    for way in ways() {
        for run in [Run::Stepped, Run::Inline, Run::Thread] {
            let mut rig = Rig::new(way, SoftDevice::builder(Entropy::new(7)), run, 1, Features::EMPTY);
            let (len, first) = rig.ask(0, &[], &[64]);
            assert_eq!((len, first.len()), (64, 64), "{way:?} {run:?}");
            let (len, second) = rig.ask(0, &[], &[3, 50]);
            assert_eq!(len, 53);
            assert_ne!(first[..16], second[..16]);
            assert!(first.iter().any(|byte| *byte != 0));
            rig.check();
            rig.device.close().unwrap();
        }
    }
}
