//! Device types (VIRTIO 1.4 §5) and the PCI ids under which they appear (VIRTIO 1.4 §4.1.2).

use core::fmt;
use core::str::FromStr;

/// PCI vendor id of every VirtIO device (VIRTIO 1.4 §4.1.2.1).
pub const PCI_VENDOR_ID: u16 = 0x1af4;

/// PCI device id from which the id of a device type is counted (VIRTIO 1.4 §4.1.2.1).
pub const PCI_DEVICE_ID_BASE: u16 = 0x1040;

/// Last PCI device id of the range that [`PCI_DEVICE_ID_BASE`] opens (VIRTIO 1.4 §4.1.2.1).
pub const PCI_DEVICE_ID_LAST: u16 = 0x107f;

/// First PCI device id of transitional devices; they go up to 0x103f (VIRTIO 1.4 §4.1.2.3).
pub const PCI_TRANSITIONAL_ID_FIRST: u16 = 0x1000;

/// A device type by its id. Unknown ids survive.
///
/// The text form is [`DeviceType::name`], or the decimal id where the specification has no name for it; it
/// parses back to the same type.
///
/// ```
/// use virtio::spec::DeviceType;
///
/// assert_eq!("block".parse(), Ok(DeviceType::BLOCK));
/// assert_eq!(DeviceType::BLOCK.to_string(), "block");
/// assert_eq!("4711".parse(), Ok(DeviceType(4711)));
/// assert_eq!(DeviceType(4711).name(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceType(pub u32);

macro_rules! device_types {
    ($($id:literal $constant:ident $name:literal $doc:literal)*) => {
        impl DeviceType {
            $(#[doc = concat!($doc, ", id ", stringify!($id), ".")]
            pub const $constant: Self = Self($id);)*

            /// Every type that has a name in VIRTIO 1.4 §5, in order of id.
            pub const NAMED: &'static [Self] = &[$(Self($id)),*];

            /// Name in lower-case words, or `None` where the specification has none.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($id => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

device_types! {
    1 NET "net" "Network device"
    2 BLOCK "block" "Block device"
    3 CONSOLE "console" "Console"
    4 ENTROPY "entropy" "Entropy source"
    5 BALLOON "balloon" "Traditional memory balloon"
    6 IO_MEMORY "io-memory" "ioMemory"
    7 RPMSG "rpmsg" "Remote processor messages"
    8 SCSI "scsi" "SCSI host"
    9 NINE_P "9p" "9P transport"
    10 MAC80211_WLAN "mac80211-wlan" "mac80211 wireless LAN"
    11 RPROC_SERIAL "rproc-serial" "Remote processor serial link"
    12 CAIF "caif" "CAIF"
    13 MEMORY_BALLOON "memory-balloon" "Memory balloon that the specification names but does not define"
    16 GPU "gpu" "Graphics device"
    17 RTC "rtc" "Real time clock"
    18 INPUT "input" "Input device"
    19 SOCKET "socket" "Socket device"
    20 CRYPTO "crypto" "Crypto device"
    21 SIGNAL_DISTRIBUTION "signal-distribution" "Signal distribution module"
    22 PSTORE "pstore" "Persistent store"
    23 IOMMU "iommu" "IOMMU"
    24 MEMORY "memory" "Memory device"
    25 SOUND "sound" "Sound device"
    26 FILE_SYSTEM "file-system" "File system device"
    27 PMEM "pmem" "Persistent memory"
    28 RPMB "rpmb" "Replay protected memory block"
    29 MAC80211_HWSIM "mac80211-hwsim" "mac80211 wireless simulation"
    30 VIDEO_ENCODER "video-encoder" "Video encoder"
    31 VIDEO_DECODER "video-decoder" "Video decoder"
    32 SCMI "scmi" "SCMI device"
    33 NITRO_SECURE_MODULE "nitro-secure-module" "Nitro secure module"
    34 I2C "i2c" "I2C adapter"
    35 WATCHDOG "watchdog" "Watchdog"
    36 CAN "can" "CAN device"
    38 PARAMETER_SERVER "parameter-server" "Parameter server"
    39 AUDIO_POLICY "audio-policy" "Audio policy device"
    40 BLUETOOTH "bluetooth" "Bluetooth device"
    41 GPIO "gpio" "GPIO device"
    42 RDMA "rdma" "RDMA device"
    43 CAMERA "camera" "Camera device"
    44 ISM "ism" "ISM device"
    45 SPI "spi" "SPI controller"
    46 TEE "tee" "TEE device"
    47 CPU_BALLOON "cpu-balloon" "CPU balloon device"
    48 MEDIA "media" "Media device"
    49 USB "usb" "USB controller"
}

/// Shorter names in wide use; they parse, but are never printed.
const ALIASES: &[(&str, DeviceType)] = &[
    ("network", DeviceType::NET),
    ("blk", DeviceType::BLOCK),
    ("rng", DeviceType::ENTROPY),
    ("vsock", DeviceType::SOCKET),
    ("mem", DeviceType::MEMORY),
    ("fs", DeviceType::FILE_SYSTEM),
];

impl DeviceType {
    /// PCI device id of the type: 0x1040 plus its id (VIRTIO 1.4 §4.1.2.1). `None` for id 0, which is
    /// invalid, and for ids above 0x3f, for which the range ends.
    pub const fn pci_device_id(self) -> Option<u16> {
        const LAST: u32 = (PCI_DEVICE_ID_LAST - PCI_DEVICE_ID_BASE) as u32;
        match self.0 {
            1..=LAST => Some(PCI_DEVICE_ID_BASE + self.0 as u16),
            _ => None,
        }
    }

    /// PCI device id of the type as a transitional device, for the seven types that have one
    /// (VIRTIO 1.4 §4.1.2.1).
    pub const fn transitional_pci_device_id(self) -> Option<u16> {
        Some(match self {
            Self::NET => 0x1000,
            Self::BLOCK => 0x1001,
            Self::BALLOON => 0x1002,
            Self::CONSOLE => 0x1003,
            Self::SCSI => 0x1004,
            Self::ENTROPY => 0x1005,
            Self::NINE_P => 0x1009,
            _ => return None,
        })
    }

    /// The device type behind the ids in a PCI function's configuration space, or `None` where they are not
    /// those of a VirtIO device.
    ///
    /// A transitional device id that VIRTIO 1.4 §4.1.2.1 lists decides by itself; in the rest of that range
    /// the subsystem device id is the device type (VIRTIO 1.4 §4.1.2.3). Elsewhere the subsystem id says
    /// nothing. Unknown types survive.
    pub fn from_pci_ids(vendor: u16, device: u16, subsystem_device: u16) -> Option<Self> {
        if vendor != PCI_VENDOR_ID {
            return None;
        }
        let id = match device {
            PCI_DEVICE_ID_BASE..=PCI_DEVICE_ID_LAST => Self(u32::from(device - PCI_DEVICE_ID_BASE)),
            PCI_TRANSITIONAL_ID_FIRST..PCI_DEVICE_ID_BASE => Self::NAMED
                .iter()
                .copied()
                .find(|named| named.transitional_pci_device_id() == Some(device))
                .unwrap_or(Self(u32::from(subsystem_device))),
            _ => return None,
        };
        (id.0 != 0).then_some(id)
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

/// The text is neither the name of a device type nor a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no device type has this name: use a name like \"block\", or the number of the type")]
pub struct UnknownDeviceType;

impl FromStr for DeviceType {
    type Err = UnknownDeviceType;

    /// Parses a name, a decimal number, or a hexadecimal number after `0x`.
    fn from_str(text: &str) -> Result<Self, UnknownDeviceType> {
        let named = Self::NAMED.iter().copied().find(|named| named.name() == Some(text));
        let alias = || ALIASES.iter().find(|(alias, _)| *alias == text).map(|(_, of)| *of);
        let number = || {
            let (digits, radix) = match text.strip_prefix("0x") {
                Some(digits) => (digits, 16),
                None => (text, 10),
            };
            // The standard parser takes a sign, which no id has.
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            u32::from_str_radix(digits, radix).ok().map(Self)
        };
        named.or_else(alias).or_else(number).ok_or(UnknownDeviceType)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn all_46_named_types_are_there_in_order_and_once() {
        let ids: std::vec::Vec<u32> = DeviceType::NAMED.iter().map(|named| named.0).collect();
        let expected: std::vec::Vec<u32> = (1..=13).chain(16..=36).chain(38..=49).collect();
        assert_eq!(ids, expected);
        assert_eq!(ids.len(), 46);
    }

    #[test]
    fn names_are_distinct_lower_case_words_and_parse_back() {
        let mut seen = std::collections::BTreeSet::new();
        for named in DeviceType::NAMED {
            let name = named.name().expect("a named type has a name");
            assert!(seen.insert(name), "{name} twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
            assert_eq!(name.parse(), Ok(*named));
            assert_eq!(named.to_string(), name);
        }
    }

    #[test]
    fn aliases_parse_and_hide_no_name() {
        for (alias, of) in ALIASES {
            assert_eq!(alias.parse(), Ok(*of));
            assert!(DeviceType::NAMED.iter().all(|named| named.name() != Some(alias)));
        }
    }

    #[test]
    fn names_are_padded_like_any_text() {
        assert_eq!(std::format!("[{:<6}|{:>4}]", DeviceType::NET, DeviceType(99)), "[net   |  99]");
    }

    #[test]
    fn what_is_no_name_and_no_number_is_an_error() {
        for text in
            ["", "Block", "block ", "-1", "+2", "0x", "0x+2", "1f", "4294967296", "bit", "0x100000000"]
        {
            assert_eq!(text.parse::<DeviceType>(), Err(UnknownDeviceType), "{text:?}");
        }
        assert_eq!("0xFFFFFFFF".parse(), Ok(DeviceType(u32::MAX)));
        assert_eq!("2".parse(), Ok(DeviceType::BLOCK));
    }

    proptest! {
        #[test]
        fn every_id_survives_text(id: u32) {
            prop_assert_eq!(DeviceType(id).to_string().parse(), Ok(DeviceType(id)));
        }
    }

    #[test]
    fn pci_ids_round_trip_for_the_whole_range() {
        for id in 0..=0x200_u32 {
            let pci = DeviceType(id).pci_device_id();
            assert_eq!(pci.is_some(), (1..=0x3f).contains(&id), "{id}");
            if let Some(pci) = pci {
                assert_eq!(u32::from(pci), 0x1040 + id);
                assert_eq!(DeviceType::from_pci_ids(0x1af4, pci, 0x1100), Some(DeviceType(id)));
            }
        }
        assert_eq!(DeviceType(u32::MAX).pci_device_id(), None);
        assert_eq!(DeviceType(0x1_0001).pci_device_id(), None);
    }

    #[test]
    fn transitional_pci_ids_are_those_of_seven_types() {
        let with: std::vec::Vec<u32> =
            (0..=100_u32).filter(|id| DeviceType(*id).transitional_pci_device_id().is_some()).collect();
        assert_eq!(with, [1, 2, 3, 4, 5, 8, 9]);
        for id in with {
            let pci = DeviceType(id).transitional_pci_device_id().expect("just seen");
            for subsystem in [0, id as u16, 0x1100] {
                assert_eq!(DeviceType::from_pci_ids(0x1af4, pci, subsystem), Some(DeviceType(id)));
            }
        }
    }

    #[test]
    fn other_pci_ids_follow_the_subsystem_or_are_no_virtio() {
        assert_eq!(DeviceType::from_pci_ids(0x1af4, 0x1006, 16), Some(DeviceType::GPU));
        assert_eq!(DeviceType::from_pci_ids(0x1af4, 0x103f, 4711), Some(DeviceType(4711)));
        assert_eq!(DeviceType::from_pci_ids(0x1af4, 0x1006, 0), None);
        assert_eq!(DeviceType::from_pci_ids(0x1af4, 0x1040, 2), None);
        assert_eq!(DeviceType::from_pci_ids(0x1af4, 0x0fff, 2), None);
        assert_eq!(DeviceType::from_pci_ids(0x1af4, 0x1080, 2), None);
        assert_eq!(DeviceType::from_pci_ids(0x1af5, 0x1042, 2), None);
    }
}
