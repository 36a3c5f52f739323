//! Console device (VIRTIO 1.4 §5.3).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::{config_space, feature_bits};

pub mod control;

/// Feature bits and configuration space of the console device (VIRTIO 1.4 §5.3.3, §5.3.4).
pub const SPEC: DeviceSpec =
    DeviceSpec { device_type: DeviceType::CONSOLE, features: FEATURES, config: CONFIG };

feature_bits! { "5.3.3"
    /// `cols` and `rows` are valid.
    SIZE = 0;
    /// Several ports and the control queues; `max_nr_ports` is valid.
    MULTIPORT = 1;
    /// `emerg_wr` is valid, before and without acceptance of the bit too (VIRTIO 1.4 §5.3.4).
    EMERG_WRITE = 2;
}

config_space! { "5.3.4"
    /// Width of port 0 in characters.
    COLS "cols" @ 0: u16 when [SIZE];
    /// Height of port 0 in characters.
    ROWS "rows" @ 2: u16 when [SIZE];
    /// Largest number of ports.
    MAX_NR_PORTS "max_nr_ports" @ 4: u32 when [MULTIPORT];
    /// A character written here is put out without any queue.
    EMERG_WR "emerg_wr" @ 8: u32 when [EMERG_WRITE] => writable;
}

/// Queues of the console (VIRTIO 1.4 §5.3.2).
pub mod queue {
    /// Receive queue of port 0.
    pub const RECEIVE_PORT0: u16 = 0;
    /// Transmit queue of port 0.
    pub const TRANSMIT_PORT0: u16 = 1;
    /// Control receive queue; only with MULTIPORT.
    pub const CONTROL_RECEIVE: u16 = 2;
    /// Control transmit queue; only with MULTIPORT.
    pub const CONTROL_TRANSMIT: u16 = 3;

    /// Receive queue of a port; `None` if no queue index is large enough. Its transmit queue is the next one.
    #[must_use]
    pub const fn receive(port: u32) -> Option<u16> {
        if port == 0 {
            return Some(RECEIVE_PORT0);
        }
        // Ports from 1 on follow the two control queues.
        match port.checked_add(1) {
            Some(pair) if pair <= (u16::MAX / 2) as u32 => Some((pair as u16).wrapping_mul(2)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::queue;

    #[test]
    fn s5_3_2_ports_from_one_on_follow_the_control_queues() {
        assert_eq!(queue::receive(0), Some(0));
        assert_eq!(queue::receive(1), Some(4));
        assert_eq!(queue::receive(2), Some(6));
        assert_eq!(queue::receive(0x7ffe), Some(0xfffe));
        assert_eq!(queue::receive(0x7fff), None);
        assert_eq!(queue::receive(u32::MAX), None);
    }
}
