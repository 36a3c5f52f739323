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
    /// Where what is behind the bridges of bus 0 is put; without it bridges are left alone.
    pub(super) bridges: Option<Bridges>,
}

/// Windows of the buses behind bridges: equal ones, one after the other, bus 1 first.
#[derive(Debug)]
pub(super) struct Bridges {
    /// How many there are at most.
    pub(super) count: u8,
    /// The first byte of memory, and how many each bus has: a multiple of 1 MiB.
    pub(super) memory: (u64, u64),
    /// The same of I/O space: a multiple of 4 KiB.
    pub(super) io: (u64, u64),
}

impl Bridges {
    fn window((first, len): (u64, u64), bus: u8) -> (u64, u64) {
        let start = first.saturating_add(len.saturating_mul(u64::from(bus.saturating_sub(1))));
        (start, start.saturating_add(len).saturating_sub(1))
    }

    /// First and last byte of memory for a bus.
    pub(super) fn memory(&self, bus: u8) -> (u64, u64) {
        Self::window(self.memory, bus)
    }

    /// First and last byte of I/O space for a bus.
    pub(super) fn io(&self, bus: u8) -> (u64, u64) {
        Self::window(self.io, bus)
    }
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
        // Below bus 0's, which stays free for PCI as long as the RAM is small.
        bridges: Some(Bridges { count: 9, memory: (0xC000_0000, 0x0200_0000), io: (0x1000, 0x1000) }),
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
        bridges: None,
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
        bridges: None,
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
        bridges: None,
    },
];

impl Layout {
    /// Where memory BARs of a bus are put, or I/O BARs.
    pub(super) fn window(&self, bus: u8, io: bool) -> (u64, u64) {
        match (&self.bridges, bus, io) {
            (_, 0, false) => self.memory_window,
            (_, 0, true) => self.io_window,
            (Some(bridges), _, false) => bridges.memory(bus),
            (Some(bridges), _, true) => bridges.io(bus),
            (None, ..) => NOTHING,
        }
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        LAYOUTS.iter().find(|layout| layout.name == name)
    }
}
