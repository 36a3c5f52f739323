//! Several threads and queues.

use std::sync::Arc;
use std::thread;

use virtio::Error;
use virtio::drivers::Between;
use virtio::soft::{self, Run, SoftDevice};

use super::driver_common::{Gate, MODERN, SOON, kept_the_rules, ways};
use super::{image, open, options, pattern, small};

#[test]
fn threads_on_several_queues_do_not_mix_their_data() {
    for way in ways() {
        for queues in [1, 2, 4] {
            let image = image(4096);
            let model = soft::Block::memory(Arc::clone(&image)).with_queues(4);
            let mut wish = small();
            wish.queues = queues;
            let (soft, block) = open(way, SoftDevice::builder(model), Run::Thread, wish);
            assert_eq!(block.queues(), usize::from(queues));
            thread::scope(|scope| {
                let writers = (0..4u8).map(|number| {
                    let block = &block;
                    scope.spawn(move || {
                        let offset = u64::from(number) << 19;
                        for round in 0..4 {
                            let data = pattern(200 << 10, number * 16 + round);
                            block.write(offset + 512 * u64::from(round), &data).unwrap();
                            let mut read = vec![0; data.len()];
                            block.read(offset + 512 * u64::from(round), &mut read).unwrap();
                            assert!(read == data, "thread {number}, round {round}");
                        }
                    })
                });
                // The thread sanitizer sees a join, but not the end of a scope.
                let writers: Vec<_> = writers.collect();
                writers.into_iter().for_each(|writer| writer.join().unwrap());
            });
            kept_the_rules(&soft);
        }
    }
}

/// Neither call is answered, so that the device sees the second one only if they do not wait for each other.
#[test]
fn s5_2_2_calls_on_different_queues_run_at_the_same_time() {
    let (gate, seen) = Gate::new(2);
    let mut wish = options();
    wish.queues = 2;
    let (_soft, block) = open(MODERN, SoftDevice::builder(gate), Run::Thread, wish);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| block.read(0, &mut [0; 512]))).collect();
        let mut queues = std::collections::BTreeSet::new();
        while queues.len() < 2 {
            queues.insert(seen.recv_timeout(SOON).unwrap());
        }
        block.device().reset().unwrap();
        for call in calls {
            let error = call.join().unwrap().unwrap_err();
            assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{error}");
        }
    });
}

#[test]
fn a_reset_ends_a_call_once_as_indeterminate() {
    for way in ways() {
        let (gate, seen) = Gate::new(1);
        let (_soft, block) = open(way, SoftDevice::builder(gate), Run::Thread, small());
        thread::scope(|scope| {
            let call = scope.spawn(|| block.read(0, &mut vec![0; 1 << 20]));
            seen.recv_timeout(SOON).unwrap();
            block.device().reset().unwrap();
            let error = call.join().unwrap().unwrap_err();
            assert!(matches!(error.kind(), Error::Indeterminate { .. }), "{way:?}: {error}");
        });
        let error = block.read(0, &mut [0; 512]).unwrap_err();
        assert!(matches!(error.kind(), Error::Closed { .. }), "{way:?}: {error}");
    }
}

/// Fault M7, M4: the second call waits for the first one's queue, and its thread is asked meanwhile; a close ends the first.
#[test]
fn who_waits_for_a_queue_looks_after_its_signals() {
    let (gate, seen) = Gate::new(1);
    let mut wish = options();
    wish.between = Between::new(|| match thread::current().name() {
        Some("second") => Err(Error::Interrupted),
        _ => Ok(()),
    });
    let (_soft, block) = open(MODERN, SoftDevice::builder(gate), Run::Thread, wish);
    thread::scope(|scope| {
        let first = scope.spawn(|| block.read(0, &mut [0; 512]));
        seen.recv_timeout(SOON).unwrap();
        let second = thread::Builder::new().name("second".into());
        let second = second.spawn_scoped(scope, || block.read(0, &mut [0; 512])).unwrap();
        let error = second.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), Error::Interrupted), "{error}");
        assert!(!first.is_finished());
        block.close().unwrap();
        assert!(first.join().unwrap().is_err());
    });
}
