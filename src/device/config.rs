//! Device configuration space (VIRTIO 1.4 §2.5): reads that are consistent, by number and by name.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::access::Access;
use crate::features::Features;
use crate::spec::device;
use crate::spec::layout::ConfigField;
use crate::transport::Transport;
use crate::{Error, Result};

/// The configuration space of one device. Any thread may use it; reads need no lock of ours, because the
/// generation tells whether they were torn.
#[derive(Debug, Clone)]
pub struct Config {
    transport: Arc<dyn Transport>,
    tries: u32,
    access: Access,
}

/// A field and what it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue {
    /// The field, as the specification describes it.
    pub field: &'static ConfigField,
    /// Its elements, one but for arrays; numbers whatever the byte order of the device.
    pub values: Vec<u64>,
}

impl Config {
    pub(super) fn new(transport: Arc<dyn Transport>, tries: u32, access: Access) -> Self {
        Self { transport, tries, access }
    }

    /// The registers, for the process whose device it is, until it is closed.
    fn registers(&self) -> Result<&Arc<dyn Transport>> {
        self.access.check().map(|()| &self.transport)
    }

    /// Length in bytes, 0 where the device has none.
    pub fn len(&self) -> u64 {
        self.transport.config_len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `read`, which may read many fields, until the configuration did not change meanwhile (§2.5.1,
    /// §2.5.4): the generation is the same before and after it, or, on a legacy interface, two runs agree.
    ///
    /// [`Error::ConfigUnstable`] after as many tries as the device was opened with (fault C13).
    pub fn consistent<T: PartialEq>(&self, read: impl Fn(&Self) -> Result<T>) -> Result<T> {
        for _ in 0..self.tries {
            let before = self.registers()?.config_generation()?;
            let value = read(self)?;
            let same = match before {
                Some(_) => self.registers()?.config_generation()? == before,
                None => read(self)? == value,
            };
            if same {
                return Ok(value);
            }
        }
        Err(Error::ConfigUnstable { tries: self.tries })
    }

    /// The number in the `width` bytes (1, 2, 4 or 8) at `offset`: one access, or two under the generation for
    /// 8 bytes.
    ///
    /// [`Error::ConfigOutOfRange`] (fault C14), [`Error::Misuse`] for another width or alignment,
    /// [`Error::ConfigUnstable`], [`Error::Closed`].
    pub fn read(&self, offset: u64, width: u8) -> Result<u64> {
        if width == 8 {
            return self.consistent(|config| config.registers()?.read_config(offset, width));
        }
        self.registers()?.read_config(offset, width)
    }

    /// Writes `width` bytes (1, 2, 4 or 8) at `offset`; errors as [`Config::read`].
    pub fn write(&self, offset: u64, width: u8, value: u64) -> Result<()> {
        self.registers()?.write_config(offset, width, value)
    }

    /// The elements of a field. Several accesses are not framed here: see [`Config::consistent`].
    pub fn read_field(&self, field: &ConfigField) -> Result<Vec<u64>> {
        let element = |n: u16| {
            let offset = u64::from(n).saturating_mul(field.width.into()).saturating_add(field.offset.into());
            self.registers()?.read_config(offset, field.width)
        };
        (0..field.count).map(element).collect()
    }

    /// The first element of a field, if the device has it under these features and in its length of
    /// configuration space.
    pub fn valid_field(&self, field: &ConfigField, accepted: Features) -> Result<Option<u64>> {
        if !is_valid(field, accepted) || u64::from(field.end()) > self.len() {
            return Ok(None);
        }
        let read = |config: &Self| config.registers()?.read_config(field.offset.into(), field.width);
        self.consistent(read).map(Some)
    }

    /// The field of this name of the device's type; [`Error::NotFound`] where the type has none.
    pub fn field(&self, name: &str) -> Result<&'static ConfigField> {
        let spec = device::spec(self.transport.device_type());
        let found = spec.and_then(|spec| spec.config.iter().find(|field| field.name == name));
        found.ok_or_else(|| Error::NotFound { why: String::from("no such configuration field").into() })
    }

    /// All fields that are valid under the accepted features and that the device's length of configuration
    /// space holds, read at once. Empty for a type without a chapter.
    pub fn snapshot(&self, accepted: Features) -> Result<Vec<FieldValue>> {
        let len = self.len();
        let fields = device::spec(self.transport.device_type()).map_or(&[][..], |spec| spec.config);
        self.consistent(|config| {
            fields
                .iter()
                .filter(|field| is_valid(field, accepted) && u64::from(field.end()) <= len)
                .map(|field| Ok(FieldValue { field, values: config.read_field(field)? }))
                .collect()
        })
    }
}

/// Whether one of the bits that make the field valid was accepted.
fn is_valid(field: &ConfigField, accepted: Features) -> bool {
    field.valid_if.is_empty() || field.valid_if.iter().any(|&bit| accepted.has(bit))
}
