//! Ids of used elements: D4, D5, D6.

use virtio::error::Violation;
use virtio::soft::Lie;

use crate::ring_common::{Case, Rig};

row!(d4_used_id_out_of_range_breaks_the_ring: out_of_range);
row!(d4_all_32_bits_of_a_used_id_count: all_bits);
row!(d5_used_id_of_a_free_descriptor_breaks_the_ring: free);
row!(d5_used_id_in_the_middle_of_a_chain_breaks_the_ring: direct middle);
row!(d5_used_id_of_a_chain_that_was_not_published_breaks_the_ring: unpublished);
row!(d6_a_chain_used_twice_breaks_the_ring_and_the_first_stands: twice_in_a_batch);
row!(d6_a_chain_used_again_later_breaks_the_ring: twice_later);

fn lie(case: Case, lie: Lie, violation: Violation) {
    let mut rig = Rig::new(case);
    let chains = rig.give(2);
    rig.device.plan(lie);
    rig.device.push_used(chains[0].head, 3);
    rig.device.publish_used();
    rig.expect_broken(violation);
    rig.reset();
}

fn out_of_range(case: Case) {
    for id in [8, 9, 255, 0x7FFF, 0x8000, 0xFFFF, u32::MAX] {
        lie(case, Lie::UsedIdRange { id }, Violation::UsedIdRange { id, size: 8 });
    }
}

/// The low 16 bits name a live head, the upper ones are not zero.
fn all_bits(case: Case) {
    for high in [1, 0x8000, 0xFFFF] {
        let mut rig = Rig::new(case);
        let chains = rig.give(2);
        let id = u32::from(chains[0].head) | high << 16;
        rig.device.plan(Lie::UsedIdRange { id });
        rig.device.push_used(chains[0].head, 3);
        rig.device.publish_used();
        rig.expect_broken(Violation::UsedIdRange { id, size: 8 });
        rig.reset();
    }
}

fn free(case: Case) {
    // Two chains of three take descriptors 0 to 5, or 0 and 1 that lead to tables.
    lie(case, Lie::UsedIdNotHead { id: 7 }, Violation::UsedIdNotHead { id: 7 });
}

fn middle(case: Case) {
    for id in [1, 2, 4, 5] {
        lie(case, Lie::UsedIdNotHead { id }, Violation::UsedIdNotHead { id });
    }
}

fn unpublished(case: Case) {
    let mut rig = Rig::new(case);
    let chains = rig.give(1);
    let hidden = rig.add(1, 1);
    let id = u32::from(hidden.token.slot());
    rig.device.plan(Lie::UsedIdNotHead { id });
    rig.device.push_used(chains[0].head, 0);
    rig.device.publish_used();
    rig.expect_broken(Violation::UsedIdNotHead { id });
    rig.reset();
}

fn twice_in_a_batch(case: Case) {
    let mut rig = Rig::new(case);
    let chains = rig.give(2);
    rig.device.plan(Lie::UsedTwice);
    rig.device.push_used(chains[1].head, 9);
    rig.device.publish_used();
    let (added, written) = rig.take().unwrap().expect("the first one stands");
    assert_eq!((added.token.slot(), written), (chains[1].head, 9));
    rig.expect_broken(Violation::UsedIdNotHead { id: chains[1].head.into() });
    rig.reset();
}

fn twice_later(case: Case) {
    let mut rig = Rig::new(case);
    let chains = rig.give(2);
    rig.device.push_used(chains[0].head, 9);
    rig.device.publish_used();
    assert!(rig.take().unwrap().is_some());
    rig.device.tell(Lie::UsedTwice);
    rig.expect_broken(Violation::UsedIdNotHead { id: chains[0].head.into() });
    rig.reset();
}
