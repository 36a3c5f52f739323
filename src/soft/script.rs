//! The script of lies: what a software device does against the specification, one variant for each way.
//!
//! The names in parentheses are those of the fault model that the tests follow. Lies about the used ring are
//! [`Lie`]s, told through [`DeviceLie::Ring`].

use alloc::vec::Vec;

use super::lies::Lie;
use crate::features::Features;

/// Something that a device does against the specification, or that is rare enough to go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceLie {
    /// The status keeps its value after a reset (C1).
    StatusNeverResets,
    /// The status reads all ones (C2).
    StatusAllOnes,
    /// DEVICE_NEEDS_RESET is set after so many used chains, 0 for with DRIVER_OK (C3).
    NeedsReset {
        /// Number of chains.
        after: u64,
    },
    /// FEATURES_OK reads 0 after it was set (C4).
    FeaturesOkNotSticky,
    /// Exactly these features are offered, whatever the device can do (C5).
    Offers(Features),
    /// These features are offered at every other read only (C5).
    OffersFlicker(Features),
    /// VERSION_1 is not offered (C6).
    NoVersion1,
    /// The size of a queue (C7).
    QueueSize {
        /// The queue.
        queue: u16,
        /// What its size reads.
        size: u16,
    },
    /// The size of every queue reads twice what was written (C7).
    QueueSizeGrows,
    /// The number of queues (C8).
    NumQueues(u16),
    /// The register that enables a queue reads 0 after 1 was written (C9).
    QueueEnableReads0,
    /// It reads 1 before anything was written (C9).
    QueueEnableReads1,
    /// The notification offset of every queue (C10).
    NotifyOff(u16),
    /// The multiplier of the notification offsets (C10).
    NotifyMultiplier(u32),
    /// These bits of the ISR status are always set (C11).
    IsrBits(u8),
    /// The bit of a configuration change is missing in the ISR status (C11).
    IsrLosesConfig,
    /// Vectors from this one on read back NO_VECTOR (C12).
    VectorRefused {
        /// The first that is refused.
        from: u16,
    },
    /// The configuration generation is another one at each read (C13).
    GenerationChanges,
    /// Length of the configuration space (C14).
    ConfigLen(u16),
    /// What lies in the configuration space from `offset` on (C15).
    ConfigBytes {
        /// Offset in bytes.
        offset: u16,
        /// The bytes as they lie there.
        bytes: Vec<u8>,
    },
    /// As [`DeviceLie::ConfigBytes`], from the used chain of this number on, with a notification (C16).
    ConfigChanges {
        /// Number of chains.
        after: u64,
        /// Offset in bytes.
        offset: u16,
        /// The bytes as they lie there.
        bytes: Vec<u8>,
    },
    /// The last PCI capability leads to the first one again (C17).
    CapCycle,
    /// The first PCI capability lies in the header (C17).
    CapInHeader,
    /// The first PCI capability lies at an odd place (C17).
    CapMisaligned,
    /// The list starts with the last four bytes of the configuration space (C17).
    CapAtEnd,
    /// A field of virtio's first capability of a type holds this (C18).
    CapField {
        /// Type of its structure.
        cfg_type: u8,
        /// Offset of the field in the capability; see [`crate::spec::pci::cap`].
        field: u8,
        /// Its value; the width is the field's.
        value: u32,
    },
    /// The BAR of the modern interface is not there (C18).
    BarMissing,
    /// The common and the notification structure lie in the same place (C18).
    CapsOverlap,
    /// The ISR status lies in the MSI-X table (C18).
    CapInMsixTable,
    /// There is a second capability of this type, later in the list, that leads nowhere (C19).
    CapTwice(u8),
    /// There are two capabilities of this type, the first of which leads nowhere (C19).
    CapTwiceFirstBad(u8),
    /// MMIO: the magic value (C22).
    Magic(u32),
    /// MMIO: the version (C22).
    Version(u32),
    /// MMIO: the device id (C22).
    DeviceId(u32),
    /// MMIO: the vendor id, which may be any (C22).
    Vendor(u32),
    /// Legacy: the page number of every queue reads this once one was written (C23).
    PageNumberReads(u32),
    /// Where a shared memory region lies, whatever there is (C25).
    SharedMemory {
        /// Its id.
        id: u8,
        /// Offset in its BAR, or physical address.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The range of administration queues (C25).
    AdminQueues {
        /// Index of the first.
        index: u16,
        /// How many.
        count: u16,
    },
    /// No chain is ever used (C26).
    Stalls,
    /// A reset, or that of a queue, takes so many reads of its register (C26: no lie).
    SlowReset {
        /// Number of reads.
        reads: u32,
    },
    /// Feature words 2 and 3 read and write word 1 (C27).
    FeatureWordsEcho,
    /// A queue reset has no effect but reads as done (C28).
    QueueResetIgnored,
    /// The device is removed: configuration space and I/O space read all ones, memory space reads 0 (C30);
    /// an MMIO slot reads all ones.
    Removed,
    /// Used elements of all queues tell this length (D10).
    UsedLen(u32),
    /// The device is removed, everything reads all ones, memory of the rings included (D23).
    AllOnes,
    /// An interrupt comes when a queue is enabled, before DRIVER_OK (D24).
    EarlyInterrupt,
    /// A lie about one queue's ring, told with the used chain of this number.
    Ring {
        /// The queue.
        queue: u16,
        /// Number of the queue's used chain, from 0 on.
        chain: u64,
        /// The lie.
        lie: Lie,
    },
}

/// The lies that a device tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Script(Vec<DeviceLie>);

impl Script {
    pub(super) fn add(&mut self, lie: DeviceLie) {
        self.0.push(lie);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn tells(&self, lie: &DeviceLie) -> bool {
        self.0.contains(lie)
    }

    /// The first lie that `choose` knows what to make of.
    pub(super) fn find<T>(&self, choose: impl FnMut(&DeviceLie) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(choose)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DeviceLie> {
        self.0.iter()
    }

    /// Whether the device answers no access any more.
    pub(super) fn gone(&self) -> bool {
        self.find(|lie| matches!(lie, DeviceLie::Removed | DeviceLie::AllOnes).then_some(())).is_some()
    }
}
