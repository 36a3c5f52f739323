//! A daemon that is stopped: no answer, and no end of the connection (fault V13).

use std::time::Duration;

use rustix::process::Signal;
use virtio::Error;
use virtio::drivers::{Block, BlockOptions};

use crate::daemon::{Daemon, Export, Place, image, over_file};
use crate::{SLACK, alone, holdings, timely};

#[test]
fn v13_stopped_100_times_every_call_keeps_its_deadline_and_the_device_goes_on() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let daemon = Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 1, writable: true });
    let mut options = BlockOptions::default();
    let limit = Duration::from_millis(30);
    (options.timeout, options.control_timeout) = (limit, limit);
    // The limit is for a daemon that is stopped: one that is only slow gets another chance.
    let chances = std::iter::repeat_with(|| Block::open(&daemon.address(), options.clone())).take(100);
    let disk = chances.flatten().next().expect("a daemon that runs is opened");
    let mut before = None;
    for round in 0..100u32 {
        daemon.signal(Signal::STOP);
        let late = timely(limit, || disk.write(0, &round.to_le_bytes().repeat(128))).unwrap_err();
        assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
        if round % 10 == 0 {
            // Control messages, too; the answer that comes late is not taken for the next one's.
            let late = timely(limit, || disk.device().config().read(0, 8)).unwrap_err();
            assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
        }
        daemon.signal(Signal::CONT);
        let mut back = [0; 512];
        let end = std::time::Instant::now() + Duration::from_secs(10);
        // What timed out is done all the same, if not before what came after it.
        while back[..4] != round.to_le_bytes() || round == 0 {
            assert!(std::time::Instant::now() < end, "it goes on");
            match disk.read(0, &mut back) {
                Err(error) => assert!(matches!(error.kind(), Error::Timeout { .. }), "{error}"),
                Ok(()) if round == 0 => break,
                Ok(()) => {}
            }
        }
        let now = holdings();
        assert_eq!(*before.get_or_insert(now), now, "round {round}");
    }
    assert_eq!(disk.device().config().read(0, 8).unwrap(), 2048);
    disk.close().unwrap();
}

#[test]
fn p10_a_stopped_daemon_does_not_hold_up_opening_or_closing() {
    let _alone = alone();
    let place = Place::new();
    let file = image(&place, 1 << 20);
    let daemon = Daemon::start(&place, &Export { blockdevs: &over_file(&file), queues: 1, writable: true });
    let mut options = BlockOptions::default();
    let limit = Duration::from_millis(300);
    options.control_timeout = limit;
    let disk = Block::open(&daemon.address(), options.clone()).unwrap();
    daemon.signal(Signal::STOP);
    let late = timely(limit, || disk.close()).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    drop(disk);
    // A connection is made by the kernel; nobody answers on it.
    let late = timely(limit, || Block::open(&daemon.address(), options)).unwrap_err();
    assert!(matches!(late.kind(), Error::Timeout { .. }), "{late}");
    daemon.signal(Signal::CONT);
    let kept = holdings().kept;
    assert!(kept > 0, "what the living daemon may still use is kept");
    let _ = SLACK;
}
