//! Interrupts that say too much, too little or nothing.

use virtio::Error;
use virtio::soft::DeviceLie;

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
