//! One error type for the whole crate.
//!
//! Every failure is a variant of [`Error`] with an errno ([`Error::errno`]); what a device did against the
//! specification is an [`Error::Broken`] with a [`Violation`] that names the clause. Layers that know where
//! the device is add its address with [`Error::at`]. Messages say once what to do next.

use alloc::boxed::Box;
use alloc::string::String;

/// Result of this crate's calls.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

pub mod errno;

/// What a device did against the specification. Copyable, so that a broken ring can repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The used index moved by more than the device had been given, or moved backwards.
    #[error("the device advanced its used index by {span} with {outstanding} chains outstanding")]
    UsedIdxJump {
        /// How far the index moved, modulo 2^16.
        span: u16,
        /// Chains that the device held.
        outstanding: u16,
    },
    /// A used element names a descriptor outside the ring.
    #[error("the device returned descriptor id {id} from a ring of {size}")]
    UsedIdRange {
        /// The id as read, all 32 bits.
        id: u32,
        /// Queue size in descriptors.
        size: u32,
    },
    /// A used element names a descriptor that is not the head of a chain in flight.
    #[error("the device returned descriptor id {id}, which is not the head of a chain in flight")]
    UsedIdNotHead {
        /// The id as read.
        id: u32,
    },
    /// Completion out of order although IN_ORDER was negotiated.
    #[error("the device completed descriptor id {id} before {expected}, with IN_ORDER negotiated")]
    OrderViolation {
        /// The id as read.
        id: u32,
        /// The id that was due.
        expected: u32,
    },
    /// More bytes reported written than the chain had room for (only where the ring was made strict).
    #[error("the device reported {written} bytes written into a chain of {capacity} device-writable bytes")]
    UsedLenTooLarge {
        /// Bytes that the device claims.
        written: u32,
        /// Device-writable bytes of the chain.
        capacity: u32,
    },
}

impl Violation {
    /// The clause of VIRTIO 1.4 that the device broke.
    pub fn clause(&self) -> &'static str {
        match self {
            Self::UsedIdxJump { .. } => "VIRTIO 1.4 §2.7.8",
            Self::UsedIdRange { .. } | Self::UsedIdNotHead { .. } => "VIRTIO 1.4 §2.7.8",
            Self::OrderViolation { .. } => "VIRTIO 1.4 §2.7.9",
            Self::UsedLenTooLarge { .. } => "VIRTIO 1.4 §2.7.8.2",
        }
    }
}

/// Why a descriptor chain was not accepted. The ring is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// No buffer at all.
    #[error("a chain needs at least one buffer")]
    Empty,
    /// A buffer of length 0.
    #[error("a buffer of a chain must not be empty")]
    EmptyBuffer,
    /// A device-readable buffer after a device-writable one (§2.7.4.2).
    #[error("device-readable buffers go before device-writable ones (VIRTIO 1.4 §2.7.4.2)")]
    ReadableAfterWritable,
    /// More buffers than the queue size (§2.7.5.3.1).
    #[error("a chain may not have more buffers than the queue has descriptors")]
    TooManyBuffers,
    /// More than 2^32 − 1 bytes in one chain (§2.7.5.1).
    #[error("the buffers of a chain may not add up to 2^32 bytes or more (VIRTIO 1.4 §2.7.5)")]
    TooManyBytes,
}

/// Any failure of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room for the chain. Nothing was changed.
    #[error("queue {queue} is full ({need} descriptors needed, {free} free): take completions first")]
    QueueFull {
        /// Queue index.
        queue: u16,
        /// Descriptors that the chain needs.
        need: u32,
        /// Descriptors that are free.
        free: u32,
    },
    /// The chain breaks a rule for drivers. Nothing was changed.
    #[error("{0}")]
    BadChain(#[from] ChainFault),
    /// The device broke the specification; sticky until the device is reset.
    #[error("queue {queue} is broken: {violation} ({clause}); reset the device", clause = violation.clause())]
    Broken {
        /// Queue index.
        queue: u16,
        /// What the device did.
        violation: Violation,
    },
    /// A token of another queue, of an earlier life of the queue, or used up already.
    #[error("token {token:#x} is not in flight on queue {queue}: it was taken already or is another queue's")]
    StaleToken {
        /// The token as given.
        token: u64,
        /// Queue that was asked.
        queue: u16,
    },
    /// The handle was closed.
    #[error("the {what} is closed: open it again")]
    Closed {
        /// What was closed.
        what: &'static str,
    },
    /// The handle belongs to the parent process.
    #[error("the {what} belongs to the process that opened it, not to its fork: open it in the child")]
    ForkedProcess {
        /// What was used.
        what: &'static str,
    },
    /// A deadline passed. Nothing was freed: what was in flight still is.
    #[error(
        "timed out after {after_ms} ms waiting for {what}: what is in flight stays so; wait again or reset"
    )]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// Length of the wait in milliseconds.
        after_ms: u64,
    },
    /// The device does not read status 0 after a reset (§2.4); its memory is kept.
    #[error(
        "the device still reads status {status:#04x} {after_ms} ms after a reset: its memory is quarantined"
    )]
    ResetTimeout {
        /// Device status as last read.
        status: u8,
        /// Length of the wait in milliseconds.
        after_ms: u64,
    },
    /// The device does not answer any more (registers read all ones, or its vendor id is gone).
    #[error("the device is gone ({what}): close it")]
    DeviceGone {
        /// What showed it.
        what: &'static str,
    },
    /// The device set DEVICE_NEEDS_RESET (§2.1.1).
    #[error("the device asks for a reset (DEVICE_NEEDS_RESET): reset and set it up again")]
    DeviceNeedsReset,
    /// FEATURES_OK did not stick (§3.1.1 step 6).
    #[error("the device refused the features {accepted}: ask for fewer")]
    FeaturesRejected {
        /// The features that were written, by name.
        accepted: Box<str>,
    },
    /// Features that were required are not offered, or lack what they depend on.
    #[error("required features are not to be had: {missing} (offered: {offered})")]
    MissingFeatures {
        /// Names of what is missing, and why.
        missing: Box<str>,
        /// Names of all that was required.
        required: Box<str>,
        /// Names of what the device offers.
        offered: Box<str>,
    },
    /// The queue cannot be set up.
    #[error("queue {queue} cannot be set up: {why}")]
    QueueUnavailable {
        /// Queue index.
        queue: u16,
        /// What stands against it.
        why: &'static str,
    },
    /// The configuration generation kept changing (§2.5.1).
    #[error("the configuration changed during each of {tries} reads: try again later")]
    ConfigUnstable {
        /// Number of attempts.
        tries: u32,
    },
    /// A configuration access outside what the device has.
    #[error("configuration bytes {offset}..{offset}+{width} are outside the device's {len}")]
    ConfigOutOfRange {
        /// Offset of the access in bytes.
        offset: u64,
        /// Width of the access in bytes.
        width: u32,
        /// Bytes of configuration space that the device has.
        len: u64,
    },
    /// A configuration field holds a value that the specification does not allow.
    #[error("configuration field {field} holds {value:#x}, which {why}")]
    BadConfig {
        /// Name of the field.
        field: &'static str,
        /// The value that was read.
        value: u64,
        /// Why it cannot be used.
        why: &'static str,
    },
    /// A register access outside the register block.
    #[error("register bytes {offset:#x}..{offset:#x}+{width} are outside the block of {len:#x}")]
    RegisterOutOfRange {
        /// Offset of the access in bytes.
        offset: u64,
        /// Width of the access in bytes.
        width: u32,
        /// Length of the register block in bytes.
        len: u64,
    },
    /// A PCI capability that cannot be used (§4.1.4).
    #[error("PCI capability at {at:#04x} cannot be used: {why}")]
    BadCapability {
        /// Offset in configuration space.
        at: u16,
        /// What is wrong.
        why: &'static str,
    },
    /// MagicValue is not "virt" (§4.2.2).
    #[error("no virtio device: MagicValue reads {found:#x}, not 0x74726976")]
    BadMagic {
        /// The value that was read.
        found: u32,
    },
    /// An MMIO version other than 1 or 2 (§4.2.2).
    #[error("MMIO version {found} is not known (1 and 2 are)")]
    BadVersion {
        /// The value that was read.
        found: u32,
    },
    /// Device id 0: the slot is empty (§4.2.2).
    #[error("nothing in this slot (device id 0)")]
    NoDevice,
    /// Nothing at this address.
    #[error("there is no device at this address: {why}")]
    NotFound {
        /// What was looked for.
        why: Box<str>,
    },
    /// Somebody else holds the device.
    #[error("the device is in use by {holder}: release it there first")]
    DeviceBusy {
        /// Kernel driver or process.
        holder: Box<str>,
    },
    /// An address that cannot be parsed.
    #[error("bad address {address:?}: {why}")]
    BadAddress {
        /// The address as given.
        address: Box<str>,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// A call that does not fit the state or the rules.
    #[error("{what}")]
    Misuse {
        /// What was wrong, and what to do.
        what: &'static str,
    },
    /// The device or its back end does not do this.
    #[error("not supported here: {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The device answered a request with an error status.
    #[error("the device failed the request with status {status}")]
    Request {
        /// Status as the device type defines it.
        status: u32,
    },
    /// The device reported success with less than the reply's fixed part.
    #[error("the device's reply has {got} bytes, {need} are needed")]
    ShortReply {
        /// Bytes of the fixed part.
        need: u32,
        /// Bytes that were written.
        got: u32,
    },
    /// The device went away or was reset while it had the request.
    #[error(
        "the device was reset or lost with request {token:#x} in flight: it may or may not have been done"
    )]
    Indeterminate {
        /// The request's token, as a number.
        token: u64,
    },
    /// Memory that the device was not given.
    #[error("memory {addr:#x}+{len:#x} is not mapped for this device: take it from its pool")]
    NotMapped {
        /// Address as given.
        addr: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A limit on memory.
    #[error("{needed} bytes needed, {have} allowed by {limit}")]
    MemoryLimit {
        /// Bytes needed.
        needed: u64,
        /// Bytes that may be had.
        have: u64,
        /// What sets the limit, and how to raise it.
        limit: &'static str,
    },
    /// The other end closed the connection.
    #[error("the other end closed the connection with {partial} bytes of a message read")]
    Disconnected {
        /// Bytes of an unfinished message.
        partial: u32,
    },
    /// The other end of a socket broke its protocol.
    #[error("protocol error: {detail}")]
    Protocol {
        /// What was wrong.
        detail: Box<str>,
    },
    /// The device did not map an event to an interrupt vector (§4.1.5.1.2).
    #[error("the device refuses interrupt vector {vector}: share a vector, or poll")]
    VectorRefused {
        /// The vector that was asked for.
        vector: u16,
    },
    /// Bytes outside a piece of memory, or of a device.
    #[error("bytes {offset}..{offset}+{len} are outside the {size} that there are")]
    OutOfBounds {
        /// Offset of the access in bytes.
        offset: u64,
        /// Length of the access in bytes.
        len: u64,
        /// Bytes that there are.
        size: u64,
    },
    /// A write, or anything else that changes what is stored, to a device that takes none.
    #[error("the device is read-only")]
    ReadOnly,
    /// The other end of a socket did not take a message.
    #[error("the back-end refused {request} with {code:#x}")]
    BackendRefused {
        /// Name of the message.
        request: &'static str,
        /// What it answered.
        code: u64,
    },
    /// A device that came back is less than it was: what was built on it cannot go on.
    #[error("the device came back with {what} {now:#x}, it had {before:#x}: open it anew")]
    Incompatible {
        /// What became less.
        what: &'static str,
        /// What it was.
        before: u64,
        /// What it is now.
        now: u64,
    },
    /// Whoever waits wants no more: a signal's handler raised, or the like. Nothing was freed, as with a time-out.
    #[error("the wait was interrupted: what is in flight stays so; wait again or reset")]
    Interrupted,
    /// The operating system refused.
    #[error("{doing}: errno {errno}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// The errno of the system call.
        errno: i32,
    },
    /// Any of the above, at an address.
    #[error("{address}: {source}")]
    At {
        /// The device's address.
        address: Box<str>,
        /// What happened there.
        source: Box<Error>,
    },
}

impl Error {
    /// Says where it happened. An address that is there already stays.
    #[must_use]
    pub fn at(self, address: &str) -> Self {
        match self {
            Self::At { .. } => self,
            other => Self::At { address: address.into(), source: Box::new(other) },
        }
    }

    /// The error without its address.
    pub fn kind(&self) -> &Error {
        match self {
            Self::At { source, .. } => source.kind(),
            other => other,
        }
    }

    /// The address, where one is known.
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::At { address, .. } => Some(address),
            _ => None,
        }
    }

    /// The errno that stands for this error in interfaces that know only numbers.
    pub fn errno(&self) -> i32 {
        use errno::*;
        match self {
            Self::QueueFull { .. } => EAGAIN,
            Self::BadChain(_) | Self::Misuse { .. } | Self::BadAddress { .. } | Self::OutOfBounds { .. } => {
                EINVAL
            }
            Self::Broken { .. }
            | Self::BadConfig { .. }
            | Self::BadCapability { .. }
            | Self::BadMagic { .. }
            | Self::BadVersion { .. }
            | Self::ShortReply { .. }
            | Self::ConfigUnstable { .. }
            | Self::Protocol { .. } => EPROTO,
            Self::StaleToken { .. } => ESTALE,
            Self::Closed { .. } | Self::ForkedProcess { .. } => EBADF,
            Self::Timeout { .. } | Self::ResetTimeout { .. } => ETIMEDOUT,
            Self::DeviceGone { .. } => ENODEV,
            Self::DeviceNeedsReset | Self::Request { .. } | Self::BackendRefused { .. } => EIO,
            Self::FeaturesRejected { .. }
            | Self::MissingFeatures { .. }
            | Self::Incompatible { .. }
            | Self::Unsupported { .. } => EOPNOTSUPP,
            Self::QueueUnavailable { .. } | Self::VectorRefused { .. } | Self::NoDevice => ENXIO,
            Self::ConfigOutOfRange { .. } | Self::RegisterOutOfRange { .. } => ERANGE,
            Self::NotFound { .. } => ENOENT,
            Self::DeviceBusy { .. } => EBUSY,
            Self::Indeterminate { .. } => EOWNERDEAD,
            Self::ReadOnly => EROFS,
            Self::NotMapped { .. } => EFAULT,
            Self::MemoryLimit { .. } => ENOMEM,
            Self::Disconnected { .. } => ECONNRESET,
            Self::Interrupted => EINTR,
            Self::Os { errno, .. } => *errno,
            Self::At { source, .. } => source.errno(),
        }
    }

    /// A [`Error::Protocol`] with this detail.
    pub fn protocol(detail: impl Into<String>) -> Self {
        Self::Protocol { detail: detail.into().into_boxed_str() }
    }
}

#[cfg(feature = "std")]
impl Error {
    /// What a system call answered, with what was being done.
    pub(crate) fn os(doing: &'static str, errno: rustix::io::Errno) -> Self {
        Self::Os { doing, errno: errno.raw_os_error() }
    }
}

#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = std::io::Error::from_raw_os_error(error.errno()).kind();
        Self::new(kind, error)
    }
}
