//! Interrupts that say too much, too little or nothing.

use virtio::Error;
use virtio::device::QueueConfig;
use virtio::event::{Deadline, wait_readable};
use virtio::features::Features;
use virtio::soft::{DeviceLie, Lie, Run};

use crate::rig::*;

each!(c11_undefined_bits_of_the_isr_status_are_masked(way) on all {
    let soft = build(way, console().vectors(0).lies([DeviceLie::IsrBits(0xfc)]));
    live(way, &soft).unwrap();
});

each!(c11_a_lost_bit_hides_neither_a_change_nor_a_wish_for_a_reset(way) on all {
    let mut busy = Busy::new(way, console().vectors(0).lies([DeviceLie::IsrLosesConfig]));
    busy.soft.change_config(0, &[132, 0]).unwrap();
    assert_eq!(busy.device.config().read(0, 2).unwrap(), 132);
    busy.soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
    let error = busy.queues[0].get(None).unwrap_err();
    assert_eq!(error.kind(), &Error::DeviceNeedsReset);
});

each!(c12_queues_whose_vectors_are_refused_are_polled(way) on pci {
    let mut busy = Busy::new(way, console().lies([DeviceLie::VectorRefused { from: 0 }]));
    send(&busy.device, &mut busy.queues[1]).unwrap();
    busy.queues[0].get(Some(SOON)).unwrap();
    busy.queues[0].add_chain([], [busy.device.alloc(1).unwrap()]).unwrap();
    busy.queues[0].notify().unwrap();
    // Nothing tells: it is found by looking.
    busy.soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
    let error = busy.queues[0].get(None).unwrap_err();
    assert_eq!(error.kind(), &Error::DeviceNeedsReset);
});

each!(c16_a_change_of_the_configuration_is_an_event(way) on all {
    let soft = build(way, console());
    let device = negotiated(way, &soft).unwrap();
    let mut queues = start(&device).unwrap();
    assert!(!device.events().unwrap().config_changed);
    assert_eq!(device.config().read(0, 2).unwrap(), 80);
    let watch = device.watch().unwrap();
    soft.change_config(0, &[132, 0]).unwrap();
    assert!(watch.wait(deadline()).unwrap().config_changed);
    assert_eq!(device.config().read(0, 2).unwrap(), 132);
    assert!(!device.events().unwrap().config_changed);
    send(&device, &mut queues[1]).unwrap();
    kept_the_rules(&soft);
});

each!(c16_a_change_that_the_device_makes_by_itself_is_an_event_by_vector_and_by_line(way) on all {
    for line in [false, true] {
        let lie = DeviceLie::ConfigChanges { after: 2, offset: 0, bytes: vec![132, 0] };
        let builder = console().lies([lie]);
        let soft = build(way, if line { builder.vectors(0) } else { builder });
        let device = negotiated(way, &soft).unwrap();
        let mut queues = start(&device).unwrap();
        let watch = device.watch().unwrap();
        send(&device, &mut queues[1]).unwrap();
        assert_eq!((device.events().unwrap().config_changed, device.config().read(0, 2).unwrap()), (false, 80));
        send(&device, &mut queues[1]).unwrap();
        assert!(watch.wait(deadline()).unwrap().config_changed, "line: {line}");
        assert_eq!(device.config().read(0, 2).unwrap(), 132);
        assert!(!device.events().unwrap().config_changed);
    }
});

/// A console with one interrupt line and nothing else, behind whichever interface.
fn lined(way: Way, lies: impl IntoIterator<Item = DeviceLie>) -> Busy {
    Busy::new(way, console().vectors(0).lies(lies))
}

/// Gives queue 0 a buffer to wait for.
fn receive(busy: &mut Busy) {
    busy.queues[0].add_chain([], [busy.device.alloc(1).unwrap()]).unwrap();
    busy.queues[0].notify().unwrap();
}

// §4.1.5.3, §4.1.4.5; §4.2.3.4.
each!(s4_1_5_3_the_line_wakes_whoever_waits_for_used_buffers_each_time(way) on all {
    let mut busy = lined(way, []);
    for round in 0..100 {
        assert!(!busy.queues[0].enable_interrupts().unwrap());
        assert!(!wait_readable(&busy.queues[0], Deadline::after(std::time::Duration::ZERO)).unwrap(), "{round}");
        send(&busy.device, &mut busy.queues[1]).unwrap();
        // The descriptor itself, with nobody who looks at the ring.
        assert!(wait_readable(&busy.queues[0], deadline()).unwrap(), "{round}");
        assert!(busy.queues[0].pop().unwrap().is_some());
        assert!(!busy.device.events().unwrap().any());
        receive(&mut busy);
    }
    kept_the_rules(&busy.soft);
});

each!(c11_both_causes_of_one_interrupt_are_handled(way) on all {
    let mut busy = lined(way, []);
    for round in 0..100u8 {
        assert!(!busy.queues[0].enable_interrupts().unwrap());
        busy.queues[1].add_chain([busy.device.alloc(1).unwrap()], []).unwrap();
        // Used buffers on both queues and a changed configuration, before anybody reads the ISR status once.
        busy.soft.change_config(0, &[round, 1]).unwrap();
        busy.queues[1].notify().unwrap();
        assert!(busy.device.events().unwrap().config_changed, "{round}");
        assert_eq!(busy.device.config().read(0, 2).unwrap(), u64::from(round) | 256);
        assert!(wait_readable(&busy.queues[0], deadline()).unwrap(), "{round}");
        assert!(busy.queues[0].pop().unwrap().is_some() && busy.queues[1].pop().unwrap().is_some());
        receive(&mut busy);
    }
    kept_the_rules(&busy.soft);
});

each!(c11_undefined_bits_neither_hide_nor_make_a_cause(way) on all {
    let mut busy = lined(way, [DeviceLie::IsrBits(0xfc)]);
    for _ in 0..3 {
        assert!(!busy.queues[0].enable_interrupts().unwrap());
        send(&busy.device, &mut busy.queues[1]).unwrap();
        assert!(wait_readable(&busy.queues[0], deadline()).unwrap());
        assert!(busy.queues[0].pop().unwrap().is_some());
        assert!(!busy.device.events().unwrap().any());
        receive(&mut busy);
    }
    busy.soft.change_config(0, &[132, 0]).unwrap();
    assert!(busy.device.events().unwrap().config_changed);
    kept_the_rules(&busy.soft);
});

each!(c11_a_lost_bit_of_the_configuration_hides_no_used_buffer(way) on all {
    let mut busy = lined(way, [DeviceLie::IsrLosesConfig]);
    for value in [132, 133] {
        assert!(!busy.queues[0].enable_interrupts().unwrap());
        busy.soft.change_config(0, &[value, 0]).unwrap();
        send(&busy.device, &mut busy.queues[1]).unwrap();
        assert!(wait_readable(&busy.queues[0], deadline()).unwrap());
        assert!(busy.queues[0].pop().unwrap().is_some());
        assert_eq!(busy.device.config().read(0, 2).unwrap(), u64::from(value));
        receive(&mut busy);
    }
    busy.soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
    let watch = busy.device.watch().unwrap();
    assert!(watch.wait(deadline()).unwrap().needs_reset);
});

each!(c3_a_wish_for_a_reset_comes_by_the_line(way) on all {
    let busy = lined(way, []);
    let watch = busy.device.watch().unwrap();
    busy.soft.tell(DeviceLie::NeedsReset { after: 0 }).unwrap();
    assert!(wait_readable(&watch, deadline()).unwrap());
    assert!(busy.device.events().unwrap().needs_reset);
});

each!(d24_a_line_that_is_up_before_driver_ok_is_nothing_to_take_and_loses_nothing(way) on all {
    let soft = build(way, console().vectors(0).lies([DeviceLie::EarlyInterrupt]));
    let device = negotiated(way, &soft).unwrap();
    let mut queues: Vec<_> =
        (0..2).map(|index| device.take_queue(index, QueueConfig::default()).unwrap()).collect();
    assert!(queues[0].pop().unwrap().is_none() && !device.events().unwrap().any());
    device.start().unwrap();
    queues[0].add_chain([], [device.alloc(1).unwrap()]).unwrap();
    queues[0].notify().unwrap();
    assert!(!queues[0].enable_interrupts().unwrap());
    send(&device, &mut queues[1]).unwrap();
    assert!(wait_readable(&queues[0], deadline()).unwrap());
    assert!(queues[0].pop().unwrap().is_some());
    kept_the_rules(&soft);
});

each!(d25_a_storm_on_the_line_is_one_interrupt(way) on all {
    let mut busy = lined(way, []);
    busy.soft.tell(DeviceLie::Ring { queue: 0, chain: 0, lie: Lie::InterruptStorm { count: 1000 } }).unwrap();
    for _ in 0..3 {
        send(&busy.device, &mut busy.queues[1]).unwrap();
        busy.queues[0].get(Some(SOON)).unwrap();
        assert!(busy.queues[0].pop().unwrap().is_none());
        receive(&mut busy);
    }
});

// A thread serves, so that the driver sleeps until the line wakes it.
each!(s4_1_5_3_no_wake_up_by_the_line_is_lost_between_threads(way) on all {
    for withheld in [Features::EMPTY, Features::EVENT_IDX] {
        let builder = console().vectors(0).withhold(withheld);
        let soft = checked(builder.interface(way.interface).byte_order(way.order).run(Run::Thread));
        let device = negotiated(way, &soft).unwrap();
        let mut queues = start(&device).unwrap();
        queues.iter_mut().for_each(|queue| queue.set_spin(std::time::Duration::ZERO));
        for _ in 0..300 {
            let token = queues[0].add_chain([], [device.alloc(1).unwrap()]).unwrap();
            queues[0].notify().unwrap();
            send(&device, &mut queues[1]).unwrap();
            assert_eq!(queues[0].get(Some(SOON)).unwrap().token, token);
        }
        drop(queues);
        device.close().unwrap();
    }
});
