//! Messages of the vhost-user protocol: numbers and layouts.
//!
//! The *front-end* is the driver's process, the *back-end* the one that has the device. Numbers in messages are in the
//! machine's own byte order ([`ORDER`]), whatever the order of the rings. A message is a [`Header`], and a payload of
//! the length that it tells.

use super::ByteOrder;
use super::wire::{Field, wire_code, wire_struct};

/// Byte order of all messages.
pub const ORDER: ByteOrder = ByteOrder::NATIVE;

/// The longest payload that a message of either side has here, in bytes.
pub const MAX_PAYLOAD: usize = 4096;
/// Bytes of configuration space that one message carries, at most.
pub const MAX_CONFIG: usize = 256;
/// Memory regions of a table that is told at once.
pub const MAX_TABLE_REGIONS: usize = 8;
/// Rings that messages about their events can name: the index has 8 bits there.
pub const MAX_EVENT_RINGS: u16 = 256;

/// Bits of [`Header::flags`].
pub mod flags {
    /// Bits of the protocol's version.
    pub const VERSION_MASK: u32 = 0x3;
    /// The only version.
    pub const VERSION: u32 = 1;
    /// The message is an answer.
    pub const REPLY: u32 = 1 << 2;
    /// An answer is wanted even where the message has none of its own (REPLY_ACK).
    pub const NEED_REPLY: u32 = 1 << 3;
}

/// In the payload of a message about an event of a ring: no descriptor comes with it.
pub const NO_FD: u64 = 1 << 8;

/// Feature bits that are not virtio's but the protocol's own.
pub mod feature {
    /// Dirty pages are logged (VHOST_F_LOG_ALL).
    pub const LOG_ALL: u8 = 26;
    /// There are protocol features (VHOST_USER_F_PROTOCOL_FEATURES).
    pub const PROTOCOL_FEATURES: u8 = 30;
}

/// Bits of the protocol features.
pub mod protocol {
    /// Several queues.
    pub const MQ: u64 = 1 << 0;
    /// Every message can be acknowledged.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// The back-end can send requests.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// Configuration space.
    pub const CONFIG: u64 = 1 << 9;
    /// Memory of requests in flight that outlives a back-end.
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// The device can be reset.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// Kicks and calls as messages.
    pub const INBAND_NOTIFICATIONS: u64 = 1 << 14;
    /// Memory regions come and go one by one.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// The device status register.
    pub const STATUS: u64 = 1 << 16;

    /// Those that this crate uses, at either end, where the other one offers them.
    pub const USED: u64 = MQ | REPLY_ACK | BACKEND_REQ | CONFIG | RESET_DEVICE | CONFIGURE_MEM_SLOTS | STATUS;
}

wire_code! {
    /// What the front-end asks.
    pub struct Request(u32) {
        /// Which features there are: a number comes back.
        GET_FEATURES = 1;
        /// Which are in use.
        SET_FEATURES = 2;
        /// The front-end takes the device.
        SET_OWNER = 3;
        /// The whole memory table.
        SET_MEM_TABLE = 5;
        /// Size of a ring.
        SET_VRING_NUM = 8;
        /// Addresses of a ring.
        SET_VRING_ADDR = 9;
        /// Where a ring starts.
        SET_VRING_BASE = 10;
        /// Stops a ring; where it stopped comes back.
        GET_VRING_BASE = 11;
        /// The event that a ring is notified by.
        SET_VRING_KICK = 12;
        /// The event that the driver is notified by.
        SET_VRING_CALL = 13;
        /// The event that tells of a ring's errors.
        SET_VRING_ERR = 14;
        /// Which protocol features there are: a number comes back.
        GET_PROTOCOL_FEATURES = 15;
        /// Which are in use.
        SET_PROTOCOL_FEATURES = 16;
        /// Number of queues: comes back.
        GET_QUEUE_NUM = 17;
        /// Switches a ring on or off.
        SET_VRING_ENABLE = 18;
        /// The socket for the back-end's requests.
        SET_BACKEND_REQ_FD = 21;
        /// Part of the configuration space: comes back.
        GET_CONFIG = 24;
        /// Writes to the configuration space.
        SET_CONFIG = 25;
        /// Resets the device.
        RESET_DEVICE = 34;
        /// Number of memory slots: comes back.
        GET_MAX_MEM_SLOTS = 36;
        /// One memory region more.
        ADD_MEM_REG = 37;
        /// One memory region less.
        REM_MEM_REG = 38;
        /// Writes the device status.
        SET_STATUS = 39;
        /// The device status: comes back.
        GET_STATUS = 40;
    }

    /// What the back-end asks.
    pub struct BackendRequest(u32) {
        /// The configuration changed.
        CONFIG_CHANGE = 2;
        /// A call without an event.
        VRING_CALL = 4;
        /// An error without an event.
        VRING_ERR = 5;
    }
}

wire_struct! {
    /// What every message begins with.
    pub struct Header {
        /// What is asked or answered: a [`Request`], or a [`BackendRequest`] on the back-end's socket.
        request: u32,
        /// [`flags`].
        flags: u32,
        /// Bytes of payload.
        size: u32,
    }

    /// Payload of messages that set or tell one number of a ring.
    pub struct VringState {
        /// Index of the ring.
        index: u32,
        /// The number.
        num: u32,
    }

    /// Payload of [`Request::SET_VRING_ADDR`]; addresses are the front-end's own.
    pub struct VringAddr {
        /// Index of the ring.
        index: u32,
        /// Bit 0: log used elements.
        flags: u32,
        /// Descriptor area.
        descriptor: u64,
        /// Device area.
        used: u64,
        /// Driver area.
        avail: u64,
        /// Where used elements are logged.
        log: u64,
    }

    /// Payload of [`Request::SET_MEM_TABLE`], before the regions.
    pub struct MemoryHeader {
        /// Number of regions.
        regions: u32,
        /// Nothing.
        padding: u32,
    }

    /// One memory region; its descriptor goes with the message.
    pub struct MemoryRegion {
        /// Address as it stands in descriptors.
        guest_addr: u64,
        /// Length in bytes.
        size: u64,
        /// Address as it stands in [`VringAddr`].
        user_addr: u64,
        /// Where the region begins in its file.
        mmap_offset: u64,
    }

    /// Payload of [`Request::GET_CONFIG`] and [`Request::SET_CONFIG`], before the bytes.
    pub struct ConfigHeader {
        /// First byte.
        offset: u32,
        /// Number of bytes.
        size: u32,
        /// Bit 0: may be written by the driver.
        flags: u32,
    }
}

impl MemoryRegion {
    /// Bytes of the padding before the region in [`Request::ADD_MEM_REG`] and [`Request::REM_MEM_REG`].
    pub const SINGLE_PADDING: usize = 8;
}

/// The one number that is the payload of many messages.
#[must_use]
pub fn encode_u64(value: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    let _ = value.store(ORDER, &mut bytes);
    bytes
}

/// The number in the payload of such a message.
#[must_use]
pub fn decode_u64(bytes: [u8; 8]) -> u64 {
    u64::load(ORDER, &bytes).0
}
