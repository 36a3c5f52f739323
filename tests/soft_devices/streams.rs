//! Console and net: devices whose answers wait for something else.

use virtio::features::Features;
use virtio::soft::{Console, Net, Run, SoftDevice};
use virtio::spec::device::net::header;

use super::{Rig, SOON, ways};

#[test]
fn what_a_console_is_sent_comes_back_even_to_buffers_that_waited() {
    for way in ways() {
        for run in [Run::Stepped, Run::Inline, Run::Thread] {
            let builder = SoftDevice::builder(Console::new(80, 25));
            let mut rig = Rig::new(way, builder, run, 2, Features::EMPTY);
            let room = rig.device.alloc(16).unwrap();
            rig.queues[0].add_chain([], [room]).unwrap();
            rig.queues[0].notify().unwrap();
            assert_eq!(rig.ask(1, &[b"echo"], &[]).0, 0);
            let used = rig.queues[0].get(Some(SOON)).unwrap();
            let mut bytes = [0; 4];
            assert_eq!(used.written, 4, "{way:?} {run:?}");
            used.buffers().next().unwrap().read(0, &mut bytes).unwrap();
            assert_eq!(&bytes, b"echo");
            rig.check();
        }
    }
}

#[test]
fn s5_1_9_a_frame_comes_back_behind_a_header_of_the_right_length() {
    for way in ways() {
        let builder = SoftDevice::builder(Net::new([2, 0, 0, 0, 0, 1]));
        let mut rig = Rig::new(way, builder, Run::Inline, 2, Features::EMPTY);
        let legacy = rig.device.transport().legacy();
        let start = header::size(rig.device.features().0, legacy);
        let mut frame = vec![0; start];
        frame.extend(b"to whom it may concern");
        assert_eq!(rig.ask(1, &[&frame], &[]).0, 0);
        let (len, bytes) = rig.ask(0, &[], &[1600]);
        assert_eq!(len as usize, frame.len(), "{way:?}");
        assert_eq!(bytes[start..frame.len()], frame[start..]);
        if !legacy {
            assert_eq!(bytes[10..12], [1, 0]);
        }
        rig.check();
    }
}
