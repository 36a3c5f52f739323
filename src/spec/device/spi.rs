//! SPI controller device (VIRTIO 1.4 §5.21).

use crate::spec::DeviceType;
use crate::spec::layout::DeviceSpec;
use crate::spec::wire::config_space;

/// Feature bits and configuration space of the SPI controller device (VIRTIO 1.4 §5.21.3, §5.21.4).
pub const SPEC: DeviceSpec = DeviceSpec { device_type: DeviceType::SPI, features: &[], config: CONFIG };

config_space! { "5.21.4"
    /// Number of chip selects.
    CS_MAX_NUMBER "cs_max_number" @ 0: u8;
    /// Whether the chip select can toggle after each transfer of a message.
    CS_CHANGE_SUPPORTED "cs_change_supported" @ 1: u8;
    /// Widths of writes: bit 0 dual, 1 quad, 2 octal.
    TX_NBITS_SUPPORTED "tx_nbits_supported" @ 2: u8;
    /// Widths of reads, likewise.
    RX_NBITS_SUPPORTED "rx_nbits_supported" @ 3: u8;
    /// Bit n: words of n + 1 bits; 0: no limit.
    BITS_PER_WORD_MASK "bits_per_word_mask" @ 4: u32;
    /// Modes: bits 0 and 1 CPHA, 2 and 3 CPOL, 4 chip select active high, 5 LSB first, 6 loopback.
    MODE_FUNC_SUPPORTED "mode_func_supported" @ 8: u32;
    /// Highest clock in Hz; 0: no limit.
    MAX_FREQ_HZ "max_freq_hz" @ 12: u32;
    /// Longest delay between words in ns; 0: none.
    MAX_WORD_DELAY_NS "max_word_delay_ns" @ 16: u32;
    /// Longest delay after the chip select is asserted in ns; 0: none.
    MAX_CS_SETUP_NS "max_cs_setup_ns" @ 20: u32;
    /// Longest delay before the chip select is deasserted in ns; 0: none.
    MAX_CS_HOLD_NS "max_cs_hold_ns" @ 24: u32;
    /// Longest delay after the chip select is deasserted in ns; 0: none.
    MAX_CS_INACTIVE_NS "max_cs_inactive_ns" @ 28: u32;
}
