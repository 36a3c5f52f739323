//! Device addresses: one string opens anything. This module parses them, and nothing else.
//!
//! An address is `SCHEME:PLACE` or `SCHEME:PLACE?KEY=VALUE&KEY=VALUE…`. In the place, in keys and in values a `%`
//! with two hexadecimal digits stands for that byte; `?`, `&`, `=` and `%` themselves must be written so where
//! they would be misread.
//!
//! | address | device |
//! |---|---|
//! | `pci:0000:00:04.0` | a PCI function of this machine |
//! | `mmio:0xfeb02c00` | an MMIO slot of this machine |
//! | `uio:/dev/uio0` | a function that uio_pci_generic holds |
//! | `vhost-user:/run/x.sock?type=block` | the daemon behind a socket |
//! | `vdpa:/dev/vhost-vdpa-0` | a vDPA device |
//! | `qtest:/run/q.sock?ram=/dev/shm/ram&pci=04.0` | a device of a QEMU machine |
//! | `soft:block?path=disk.img&transport=pci-legacy` | a software device in this process |

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Display};
use core::ops::RangeInclusive;
use core::str::FromStr;

use crate::{Error, Result};

/// How a device is reached: the part of an address before the first colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `pci:`
    Pci,
    /// `mmio:`
    Mmio,
    /// `uio:`
    Uio,
    /// `vhost-user:`
    VhostUser,
    /// `vdpa:`
    Vdpa,
    /// `qtest:`
    Qtest,
    /// `soft:`
    Soft,
}

/// Every scheme with its name.
const SCHEMES: [(Scheme, &str); 7] = [
    (Scheme::Pci, "pci"),
    (Scheme::Mmio, "mmio"),
    (Scheme::Uio, "uio"),
    (Scheme::VhostUser, "vhost-user"),
    (Scheme::Vdpa, "vdpa"),
    (Scheme::Qtest, "qtest"),
    (Scheme::Soft, "soft"),
];

impl Scheme {
    /// Its name, as addresses begin with it.
    pub fn name(self) -> &'static str {
        SCHEMES.iter().find(|(scheme, _)| *scheme == self).map_or("", |(_, name)| name)
    }
}

/// A parsed address.
///
/// ```
/// use virtio::address::{Address, Scheme};
///
/// let address: Address = "soft:block?size=64M&path=a%26b.img".parse()?;
/// assert_eq!((address.scheme(), address.place()), (Scheme::Soft, "block"));
/// assert_eq!(address.get("path"), Some("a&b.img"));
/// assert_eq!(address.size("size")?, Some(64 << 20));
/// assert_eq!(address.to_string(), "soft:block?size=64M&path=a%26b.img");
/// assert!("/dev/vda".parse::<Address>().is_err());
/// # Ok::<(), virtio::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    scheme: Scheme,
    place: String,
    params: Vec<(String, String)>,
}

impl Address {
    /// An address without parameters.
    pub fn new(scheme: Scheme, place: impl Into<String>) -> Self {
        Self { scheme, place: place.into(), params: Vec::new() }
    }

    /// The same with one more parameter.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.params.push((key.to_owned(), value.to_string()));
        self
    }

    /// How the device is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What stands between the scheme and the parameters, decoded.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The parameters in their order, decoded.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// [`Error::BadAddress`] unless every parameter is one of `known`.
    pub fn check_keys(&self, known: &[&str]) -> Result<()> {
        match self.params().find(|(key, _)| !known.contains(key)) {
            Some((key, _)) => {
                Err(self.bad(format!("unknown parameter {key:?}; known are {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// A parameter that is a number of bytes, with `K`, `M`, `G` or `T` for powers of 1,024.
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let (digits, shift) = match text.find(|c: char| !c.is_ascii_digit()) {
            None => (text, 0),
            Some(end) => match text.split_at(end) {
                (digits, "K" | "k") => (digits, 10),
                (digits, "M" | "m") => (digits, 20),
                (digits, "G" | "g") => (digits, 30),
                (digits, "T" | "t") => (digits, 40),
                _ => return Err(self.bad(format!("{key}={text} is no size, such as 4096, 64M or 1G"))),
            },
        };
        let number: Option<u64> = digits.parse().ok();
        let size = number.and_then(|n| n.checked_mul(1 << shift));
        size.map(Some).ok_or_else(|| self.bad(format!("{key}={text} is no size, such as 4096, 64M or 1G")))
    }

    /// A parameter that is a number, decimal or with `0x`.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        number(text).map(Some).ok_or_else(|| self.bad(format!("{key}={text} is no number")))
    }

    /// A parameter that is `1`, `on`, `yes`, `true` or the opposite of one of them.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some("1" | "on" | "yes" | "true") => Ok(Some(true)),
            Some("0" | "off" | "no" | "false") => Ok(Some(false)),
            Some(text) => Err(self.bad(format!("{key}={text} is neither on nor off"))),
        }
    }

    /// Says what is wrong with the form of a place that is a number; paths and names are whatever they are.
    fn check_place(&self) -> core::result::Result<(), &'static str> {
        match self.scheme {
            Scheme::Pci if !is_function(&self.place) => Err(
                "a PCI function is DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal digits, such as 0000:00:04.0",
            ),
            Scheme::Mmio if number(&self.place).is_none() => {
                Err("an MMIO slot is the number where its registers begin, such as 0xfeb02c00")
            }
            _ => Ok(()),
        }
    }

    /// The error that says what is wrong with this address.
    pub fn bad(&self, why: impl Into<String>) -> Error {
        bad(&self.to_string(), why)
    }
}

fn bad(address: &str, why: impl Into<String>) -> Error {
    Error::BadAddress { address: address.into(), why: why.into().into_boxed_str() }
}

/// A number, decimal or with `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => hex(digits, 1..=16),
        None => text.parse().ok(),
    }
}

/// Hexadecimal digits, so many of them.
fn hex(digits: &str, count: RangeInclusive<usize>) -> Option<u64> {
    let fits = count.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if fits { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// Whether it is a PCI function as Linux writes one.
fn is_function(place: &str) -> bool {
    let parts = || {
        let (domain, rest) = place.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        hex(domain, 4..=8)?;
        hex(bus, 2..=2)?;
        Some((hex(device, 2..=2)?, hex(function, 1..=1)?))
    };
    parts().is_some_and(|(device, function)| device < 32 && function < 8)
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| bad(text, why);
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(wrong("an address begins with its scheme, such as soft: or vhost-user:"));
        };
        let Some((scheme, _)) = SCHEMES.iter().find(|(_, name)| *name == scheme) else {
            let names = SCHEMES.map(|(_, name)| name).join(", ");
            return Err(wrong(&format!("unknown scheme; known are {names}")));
        };
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        if place.is_empty() {
            return Err(wrong("nothing follows the scheme"));
        }
        let mut address = Self::new(*scheme, decode(place).ok_or_else(|| wrong(BAD_ESCAPE))?);
        address.check_place().map_err(wrong)?;
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(wrong(&format!("the parameter {pair:?} has no value")));
            };
            let (key, value) = decode(key).zip(decode(value)).ok_or_else(|| wrong(BAD_ESCAPE))?;
            if key.is_empty() || address.get(&key).is_some() {
                return Err(wrong(&format!("the parameter {key:?} is empty or given twice")));
            }
            address.params.push((key, value));
        }
        Ok(address)
    }
}

const BAD_ESCAPE: &str = "after % come two hexadecimal digits, and the whole is UTF-8";

/// Takes the percent signs out; `None` where one is not followed by two digits, or the result is no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits =
            core::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Puts them in where they are needed.
fn encode(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '%' | '?' | '&' | '=' | ' ' => write!(f, "%{:02x}", u32::from(c))?,
            _ => write!(f, "{c}")?,
        }
    }
    Ok(())
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme.name())?;
        encode(f, &self.place)?;
        for (n, (key, value)) in self.params().enumerate() {
            f.write_str(if n == 0 { "?" } else { "&" })?;
            encode(f, key)?;
            f.write_str("=")?;
            encode(f, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_table_parse() {
        for text in [
            "pci:0000:00:04.0",
            "pci:10000:e1:1f.7",
            "mmio:0xfeb02c00",
            "uio:/dev/uio0",
            "vhost-user:/run/x.sock?type=block",
            "qtest:/run/q.sock?ram=/dev/shm/ram&pci=04.0",
            "soft:block?path=disk.img&transport=pci-legacy",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_itself_and_a_reason() {
        for text in [
            "",
            "soft",
            "soft:",
            "disk:0",
            ":x",
            "soft:block?",
            "soft:a?x",
            "soft:a?x=1&x=2",
            "soft:%4",
            "soft:%zz",
            "pci:",
            "pci:00:04.0",
            "pci:0000:00:04",
            "pci:0000:00:04.8",
            "pci:0000:00:20.0",
            "pci:0000:0:04.0",
            "pci:0000:00:+4.0",
            "mmio:here",
            "mmio:0x",
            "mmio:0x10000000000000000",
            "mmio:-1",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            let Error::BadAddress { address, why } = &error else { panic!("{error:?}") };
            assert_eq!(&**address, text);
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn sizes_numbers_and_flags() {
        let address: Address = "soft:block?a=1&b=2K&c=3x&d=0x10&e=on&f=99999999T".parse().unwrap();
        assert_eq!(address.size("a").unwrap(), Some(1));
        assert_eq!(address.size("b").unwrap(), Some(2048));
        assert_eq!(address.size("none").unwrap(), None);
        assert!(address.size("c").is_err() && address.size("f").is_err());
        assert_eq!(address.number("d").unwrap(), Some(16));
        assert_eq!(address.flag("e").unwrap(), Some(true));
        assert!(address.flag("b").is_err());
        assert!(address.check_keys(&["a", "b"]).is_err());
        assert!(address.check_keys(&["a", "b", "c", "d", "e", "f"]).is_ok());
    }

    proptest! {
        #[test]
        fn any_place_and_value_survives(place in "\\PC{1,20}", value in "\\PC{0,20}") {
            let address = Address::new(Scheme::Soft, place).with("key", value);
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Address>();
        }
    }
}
