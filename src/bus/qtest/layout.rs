//! Where the devices of a machine are: what firmware would know.

/// How the configuration space of PCI is reached: an address register, then a data register.
#[derive(Debug, Clone, Copy)]
pub(super) enum ConfigSpace {
    /// Ports 0xcf8 and 0xcfc.
    Ports,
    /// The same two registers in memory.
    Memory {
        /// The address register.
        address: u64,
        /// The data register; the byte offset in it is that in the configuration space.
        data: u64,
    },
    /// There is no PCI.
    None,
}

/// How I/O space of PCI is reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum IoSpace {
    /// By port commands.
    Ports,
    /// Port P is at this address + P.
    Memory(u64),
}

/// MMIO slots, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub(super) first: u64,
    pub(super) stride: u64,
    pub(super) count: u64,
}

/// A function whose configuration bytes say which input of the interrupt controller each line of PCI goes to.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) device: u8,
    /// Vendor id and device id, as one register of 32 bits.
    pub(super) id: u32,
    pub(super) registers: &'static [u64],
}

/// The input that all lines are routed to.
pub(super) const ROUTED_TO: u8 = 11;

/// One kind of machine.
#[derive(Debug)]
pub(super) struct Layout {
    /// Name in addresses.
    pub(super) name: &'static str,
    pub(super) config: ConfigSpace,
    pub(super) io: IoSpace,
    /// Where memory BARs are put: first and last byte.
    pub(super) memory_window: (u64, u64),
    /// Where I/O BARs are put.
    pub(super) io_window: (u64, u64),
    pub(super) slots: Slots,
    /// The interrupt controllers whose input lines tell of interrupts, as paths of objects: the first that there is.
    pub(super) controllers: &'static [&'static str],
    /// Routers of PCI's interrupt lines, which firmware sets up.
    pub(super) routers: &'static [Router],
}

/// Bytes of an MMIO slot, control registers and configuration.
pub(super) const SLOT_LEN: u64 = 512;

const NO_SLOTS: Slots = Slots { first: 0, stride: SLOT_LEN, count: 0 };
/// A window without a byte.
const NOTHING: (u64, u64) = (1, 0);

/// All kinds. Where none is named, a little-endian machine with a host bridge is the first, and another the second.
pub(super) const LAYOUTS: [Layout; 4] = [
    // i440FX and Q35.
    Layout {
        name: "pc",
        config: ConfigSpace::Ports,
        io: IoSpace::Ports,
        memory_window: (0xE000_0000, 0xFE9F_FFFF),
        io_window: (0xC000, 0xFEFF),
        slots: NO_SLOTS,
        controllers: &["ioapic"],
        routers: &[
            // PIIX3's and ICH9's ISA bridges.
            Router { device: 1, id: 0x7000_8086, registers: &[0x60, 0x61, 0x62, 0x63] },
            Router {
                device: 31,
                id: 0x2918_8086,
                registers: &[0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B],
            },
        ],
    },
    Layout {
        name: "microvm",
        config: ConfigSpace::None,
        io: IoSpace::Ports,
        memory_window: NOTHING,
        io_window: NOTHING,
        slots: Slots { first: 0xFEB0_0000, stride: SLOT_LEN, count: 24 },
        // Its second interrupt controller, which the slots go to unless it was switched off.
        controllers: &["/machine/unattached/device[3]", "ioapic"],
        routers: &[],
    },
    Layout {
        name: "g3beige",
        config: ConfigSpace::Memory { address: 0xFEC0_0000, data: 0xFEE0_0000 },
        io: IoSpace::Memory(0xFE00_0000),
        memory_window: (0x8000_0000, 0xBFFF_FFFF),
        io_window: (0x1000, 0xFEFF),
        slots: NO_SLOTS,
        controllers: &["/machine/unattached/device[3]/pic"],
        routers: &[],
    },
    Layout {
        name: "m68k-virt",
        config: ConfigSpace::None,
        io: IoSpace::Ports,
        memory_window: NOTHING,
        io_window: NOTHING,
        slots: Slots { first: 0xFF01_0000, stride: SLOT_LEN, count: 128 },
        controllers: &[],
        routers: &[],
    },
];

impl Layout {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        LAYOUTS.iter().find(|layout| layout.name == name)
    }
}
