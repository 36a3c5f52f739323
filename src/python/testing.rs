//! Software devices for tests: what `virtio.testing` stands on.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::PoisonError;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::buffer::Region;
use super::features::{Features, set};
use crate::address::Address;
use crate::mem::dma::{DmaMapper, SoftDma};
use crate::queue::{Areas, RingConfig};
use crate::soft::{self, DeviceLie, DeviceRing, Lie, Published, Run};
use crate::spec::DeviceType;
use crate::sync::Mutex;

/// Fields of a lie, as keyword arguments.
struct Fields<'a, 'py> {
    lie: &'a str,
    given: &'a Bound<'py, PyDict>,
    taken: usize,
}

impl<'py> Fields<'_, 'py> {
    fn get<T: FromPyObjectOwned<'py>>(&mut self, name: &str) -> PyResult<T> {
        let lie = self.lie;
        let Some(value) = self.given.get_item(name)? else {
            return Err(PyTypeError::new_err(alloc::format!("the lie {lie} needs {name}=")));
        };
        self.taken = self.taken.wrapping_add(1);
        let wrong = |error: T::Error| {
            let error: PyErr = error.into();
            PyValueError::new_err(alloc::format!("the lie {lie} does not take this {name}=: {error}"))
        };
        value.extract::<T>().map_err(wrong)
    }

    fn features(&mut self) -> PyResult<crate::features::Features> {
        let features: Bound<'py, PyAny> = self.get("features")?;
        set(Some(&features))
    }

    fn get_or<T: FromPyObjectOwned<'py>>(&mut self, name: &str, usual: T) -> PyResult<T> {
        if self.given.contains(name)? { self.get(name) } else { Ok(usual) }
    }
}

/// Makes the table of lies: of a whole device, and of one ring.
macro_rules! lies {
    (
        device { $($name:ident $row:literal ($($field:ident),*) $make:expr;)* }
        ring { $($rname:ident $rrow:literal ($($rfield:ident),*) $rmake:expr;)* }
    ) => {
        /// Name, row of the fault model and fields of every lie.
        const LIES: &[(&str, &str, &[&str])] = &[
            $((stringify!($name), $row, &[$(stringify!($field)),*]),)*
            $((stringify!($rname), $rrow, &["queue", "chain", $(stringify!($rfield)),*]),)*
        ];

        fn device_lie(name: &str, fields: &mut Fields<'_, '_>) -> PyResult<Option<DeviceLie>> {
            Ok(Some(match name {
                $(stringify!($name) => ($make)(fields)?,)*
                _ => return Ok(None),
            }))
        }

        fn ring_lie(name: &str, fields: &mut Fields<'_, '_>) -> PyResult<Option<Lie>> {
            Ok(Some(match name {
                $(stringify!($rname) => ($rmake)(fields)?,)*
                _ => return Ok(None),
            }))
        }
    };
}

/// Ends the type inference of the table's closures.
fn of<T>(make: impl Fn(&mut Fields<'_, '_>) -> PyResult<T>) -> impl Fn(&mut Fields<'_, '_>) -> PyResult<T> {
    make
}

lies! {
    device {
        status_never_resets "C1" () of(|_| Ok(DeviceLie::StatusNeverResets));
        status_all_ones "C2" () of(|_| Ok(DeviceLie::StatusAllOnes));
        needs_reset "C3" (after) of(|f| Ok(DeviceLie::NeedsReset { after: f.get("after")? }));
        features_ok_not_sticky "C4" () of(|_| Ok(DeviceLie::FeaturesOkNotSticky));
        offers "C5" (features) of(|f| Ok(DeviceLie::Offers(f.features()?)));
        offers_flicker "C5" (features) of(|f| Ok(DeviceLie::OffersFlicker(f.features()?)));
        no_version_1 "C6" () of(|_| Ok(DeviceLie::NoVersion1));
        queue_size "C7" (queue, size) of(|f| {
            Ok(DeviceLie::QueueSize { queue: f.get("queue")?, size: f.get("size")? })
        });
        queue_size_grows "C7" () of(|_| Ok(DeviceLie::QueueSizeGrows));
        num_queues "C8" (count) of(|f| Ok(DeviceLie::NumQueues(f.get("count")?)));
        queue_enable_reads_0 "C9" () of(|_| Ok(DeviceLie::QueueEnableReads0));
        queue_enable_reads_1 "C9" () of(|_| Ok(DeviceLie::QueueEnableReads1));
        notify_off "C10" (offset) of(|f| Ok(DeviceLie::NotifyOff(f.get("offset")?)));
        notify_multiplier "C10" (value) of(|f| Ok(DeviceLie::NotifyMultiplier(f.get("value")?)));
        isr_bits "C11" (bits) of(|f| Ok(DeviceLie::IsrBits(f.get("bits")?)));
        isr_loses_config "C11" () of(|_| Ok(DeviceLie::IsrLosesConfig));
        vector_refused "C12" (from) of(|f| Ok(DeviceLie::VectorRefused { from: f.get("from")? }));
        generation_changes "C13" () of(|_| Ok(DeviceLie::GenerationChanges));
        config_len "C14" (length) of(|f| Ok(DeviceLie::ConfigLen(f.get("length")?)));
        config_bytes "C15" (offset, bytes) of(|f| {
            Ok(DeviceLie::ConfigBytes { offset: f.get("offset")?, bytes: f.get("bytes")? })
        });
        config_changes "C16" (after, offset, bytes) of(|f| {
            let (after, offset) = (f.get("after")?, f.get("offset")?);
            Ok(DeviceLie::ConfigChanges { after, offset, bytes: f.get("bytes")? })
        });
        cap_cycle "C17" () of(|_| Ok(DeviceLie::CapCycle));
        cap_in_header "C17" () of(|_| Ok(DeviceLie::CapInHeader));
        cap_misaligned "C17" () of(|_| Ok(DeviceLie::CapMisaligned));
        cap_at_end "C17" () of(|_| Ok(DeviceLie::CapAtEnd));
        cap_field "C18" (cfg_type, field, value) of(|f| {
            let (cfg_type, field) = (f.get("cfg_type")?, f.get("field")?);
            Ok(DeviceLie::CapField { cfg_type, field, value: f.get("value")? })
        });
        bar_missing "C18" () of(|_| Ok(DeviceLie::BarMissing));
        caps_overlap "C18" () of(|_| Ok(DeviceLie::CapsOverlap));
        cap_in_msix_table "C18" () of(|_| Ok(DeviceLie::CapInMsixTable));
        cap_twice "C19" (cfg_type) of(|f| Ok(DeviceLie::CapTwice(f.get("cfg_type")?)));
        cap_twice_first_bad "C19" (cfg_type) of(|f| Ok(DeviceLie::CapTwiceFirstBad(f.get("cfg_type")?)));
        magic "C22" (value) of(|f| Ok(DeviceLie::Magic(f.get("value")?)));
        version "C22" (value) of(|f| Ok(DeviceLie::Version(f.get("value")?)));
        device_id "C22" (value) of(|f| Ok(DeviceLie::DeviceId(f.get("value")?)));
        vendor "C22" (value) of(|f| Ok(DeviceLie::Vendor(f.get("value")?)));
        page_number_reads "C23" (value) of(|f| Ok(DeviceLie::PageNumberReads(f.get("value")?)));
        shared_memory "C25" (id, offset, length) of(|f| {
            let (id, offset) = (f.get("id")?, f.get("offset")?);
            Ok(DeviceLie::SharedMemory { id, offset, len: f.get("length")? })
        });
        admin_queues "C25" (index, count) of(|f| {
            Ok(DeviceLie::AdminQueues { index: f.get("index")?, count: f.get("count")? })
        });
        stalls "C26" () of(|_| Ok(DeviceLie::Stalls));
        slow_reset "C26" (reads) of(|f| Ok(DeviceLie::SlowReset { reads: f.get("reads")? }));
        feature_words_echo "C27" () of(|_| Ok(DeviceLie::FeatureWordsEcho));
        queue_reset_ignored "C28" () of(|_| Ok(DeviceLie::QueueResetIgnored));
        removed "C30" () of(|_| Ok(DeviceLie::Removed));
        used_len "D10" (length) of(|f| Ok(DeviceLie::UsedLen(f.get("length")?)));
        all_ones "D23" () of(|_| Ok(DeviceLie::AllOnes));
        early_interrupt "D24" () of(|_| Ok(DeviceLie::EarlyInterrupt));
    }
    ring {
        used_idx_ahead "D1" (by) of(|f| Ok(Lie::UsedIdxAhead { by: f.get("by")? }));
        used_idx_back "D2" (by) of(|f| Ok(Lie::UsedIdxBack { by: f.get("by")? }));
        used_idx_flickers "D3" (by) of(|f| Ok(Lie::UsedIdxFlickers { by: f.get("by")? }));
        used_id_range "D4" (id) of(|f| Ok(Lie::UsedIdRange { id: f.get("id")? }));
        used_id_not_head "D5" (id) of(|f| Ok(Lie::UsedIdNotHead { id: f.get("id")? }));
        used_twice "D6" () of(|_| Ok(Lie::UsedTwice));
        used_len_too_large "D9" (length) of(|f| Ok(Lie::UsedLenTooLarge { len: f.get("length")? }));
        used_len_of_read_only "D11" (length) of(|f| Ok(Lie::UsedLenOfReadOnly { len: f.get("length")? }));
        scribble_ring "D12" (seed) of(|f| Ok(Lie::ScribbleRing { seed: f.get("seed")? }));
        scribble_tables "D13" (seed) of(|f| Ok(Lie::ScribbleTables { seed: f.get("seed")? }));
        avail_event_stuck "D14" (event) of(|f| Ok(Lie::AvailEventStuck { event: f.get("event")? }));
        avail_event_at_wrap "D15" () of(|_| Ok(Lie::AvailEventAtWrap));
        no_notify_stuck "D16" () of(|_| Ok(Lie::NoNotifyStuck));
        used_before_available "D24" (count) of(|f| Ok(Lie::UsedBeforeAvailable { count: f.get("count")? }));
        interrupt_storm "D25" (count) of(|f| Ok(Lie::InterruptStorm { count: f.get("count")? }));
        no_interrupts "D25" () of(|_| Ok(Lie::NoInterrupts));
    }
}

/// Something that a software device does against the specification, or that is rare enough to go wrong. Which lies
/// there are, and what each takes: `virtio.testing.LIES`. A lie about a ring goes with used chain number `chain` of
/// `queue`, both 0 unless told.
#[pyclass(frozen, module = "virtio.testing", name = "Lie", eq)]
#[derive(Debug, Clone)]
pub(super) struct PyLie {
    pub(super) lie: DeviceLie,
    /// Its name.
    #[pyo3(get)]
    name: String,
    text: String,
}

impl PartialEq for PyLie {
    fn eq(&self, other: &Self) -> bool {
        self.lie == other.lie
    }
}

#[pymethods]
impl PyLie {
    #[new]
    #[pyo3(signature = (name, /, **fields))]
    fn new(py: Python<'_>, name: &str, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let none = PyDict::new(py);
        let given = fields.unwrap_or(&none);
        let mut fields = Fields { lie: name, given, taken: 0 };
        let lie = match device_lie(name, &mut fields)? {
            Some(lie) => lie,
            None => {
                let Some(lie) = ring_lie(name, &mut fields)? else {
                    let known: Vec<&str> = LIES.iter().map(|(name, _, _)| *name).collect();
                    let known = known.join(", ");
                    return Err(PyValueError::new_err(alloc::format!(
                        "no lie is '{name}'; known are {known}"
                    )));
                };
                DeviceLie::Ring { queue: fields.get_or("queue", 0)?, chain: fields.get_or("chain", 0)?, lie }
            }
        };
        if fields.taken != given.len() {
            let wanted = LIES.iter().find(|(known, _, _)| *known == name).map_or(&[][..], |(_, _, f)| f);
            let wanted = if wanted.is_empty() { String::from("no field") } else { wanted.join(", ") };
            return Err(PyTypeError::new_err(alloc::format!("the lie {name} takes {wanted}")));
        }
        let mut text = alloc::format!("Lie('{name}'");
        for (key, value) in given {
            // Writing to a string does not fail.
            let _ = write!(text, ", {key}={}", value.repr()?);
        }
        text.push(')');
        Ok(Self { lie, name: name.into(), text })
    }

    fn __repr__(&self) -> &str {
        &self.text
    }
}

/// Every lie: name, row of the fault model, names of its fields.
#[pyfunction]
pub(super) fn _lies() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    LIES.iter().map(|(name, row, fields)| (*name, *row, fields.to_vec())).collect()
}

/// Every rule that a checked device holds its driver to: name, clause, what a driver does that breaks it.
#[pyfunction]
pub(super) fn _rules() -> Vec<(&'static str, &'static str, &'static str)> {
    soft::RULES.iter().map(|rule| (rule.id, rule.clause, rule.what)).collect()
}

/// What a software device did and saw.
#[pyclass(frozen, module = "virtio.testing")]
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) report: soft::Report,
    pub(super) device_type: DeviceType,
}

#[pymethods]
impl Report {
    /// Name of the first rule that the driver broke, or None.
    #[getter]
    fn rule(&self) -> Option<&'static str> {
        self.report.broken.map(|broken| broken.id)
    }

    /// The clause of VIRTIO 1.4 where that rule stands, or "".
    #[getter]
    fn clause(&self) -> &'static str {
        self.report.broken.map_or("", |broken| broken.clause)
    }

    /// What the driver did to break it, or "".
    #[getter]
    fn what(&self) -> &'static str {
        self.report.broken.map_or("", |broken| broken.what)
    }

    /// Chains used since the device was made.
    #[getter]
    fn chains(&self) -> u64 {
        self.report.chains
    }

    /// Notifications received since then.
    #[getter]
    fn notifications(&self) -> u64 {
        self.report.notifications
    }

    /// Interrupts sent for used chains since then.
    #[getter]
    fn interrupts(&self) -> u64 {
        self.report.interrupts
    }

    /// The device status, a number.
    #[getter]
    fn status(&self) -> u8 {
        self.report.status
    }

    /// The features that the driver accepted.
    #[getter]
    fn accepted(&self) -> Features {
        Features::new(self.report.accepted, self.device_type)
    }

    fn __repr__(&self) -> String {
        let broken = match self.report.broken {
            None => String::from("no rule broken"),
            Some(broken) => alloc::format!("{} {}: {}", broken.clause, broken.id, broken.what),
        };
        let soft::Report { chains, notifications, interrupts, .. } = self.report;
        alloc::format!(
            "Report({broken}; {chains} chains, {notifications} notifications, {interrupts} interrupts)"
        )
    }
}

/// The device's end of a split ring that lies in a region, without registers: for rings of one's own, and for what
/// they are measured beside. The ring has `size` descriptors and begins where the region does, with its table; `areas`
/// says where its available ring and its used ring begin, `ring_bytes` how long it is.
#[pyclass(frozen, module = "virtio.testing")]
#[derive(Debug)]
pub(super) struct RingEnd {
    ring: Mutex<DeviceRing>,
    /// Length of the ring in bytes.
    #[pyo3(get)]
    ring_bytes: usize,
    /// Where the available ring and the used ring begin, in bytes from the region's start.
    #[pyo3(get)]
    areas: (usize, usize),
}

#[pymethods]
impl RingEnd {
    #[new]
    fn new(region: &Bound<'_, Region>, size: u16) -> PyResult<Self> {
        let config = RingConfig::new(0, size);
        let (bytes, areas) = (config.ring_bytes()?, Areas::new(config.layout, size)?);
        let dma = Arc::new(SoftDma::new());
        let at = dma.map(&region.get().region)?;
        let memory = dma.view().ring_memory(at.0, bytes)?;
        let ring = Mutex::new(DeviceRing::beside(&memory, &config)?);
        Ok(Self { ring, ring_bytes: bytes, areas: (areas.driver, areas.device) })
    }

    /// Uses every chain that waits, as if all its device-writable bytes had been written: what a device does when it
    /// is notified. Answers how many chains they were; ProtocolError where one breaks a rule.
    fn run(&self) -> PyResult<u32> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = ring.use_all();
        ring.publish_used();
        Ok(taken.map_err(|fault| crate::Error::protocol(alloc::format!("{fault}")))?)
    }
}

/// A software device that an address of this process leads to.
#[pyclass(frozen, module = "virtio.testing", name = "_SoftDevice")]
pub(super) struct SoftDevice {
    device: soft::SoftDevice,
    device_type: DeviceType,
    address: String,
    published: Mutex<Option<Published>>,
}

/// The type that the place of a software device's address names.
pub(super) fn device_type(kind: &str) -> DeviceType {
    match kind {
        "block" => DeviceType::BLOCK,
        "entropy" => DeviceType::ENTROPY,
        "console" => DeviceType::CONSOLE,
        "net" => DeviceType::NET,
        _ => soft::Blank::TYPE,
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

#[pymethods]
impl SoftDevice {
    #[new]
    #[pyo3(signature = (address, *, checked=true, stepped=false, lies=Vec::new()))]
    fn new(address: &str, checked: bool, stepped: bool, lies: Vec<PyRef<'_, PyLie>>) -> PyResult<Self> {
        let described: Address = address.parse()?;
        let kind = described.place().to_string();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = alloc::format!("{kind}@{number}");
        let address = alloc::format!("soft:{place}");
        let mut builder = crate::open::builder(&described)?.checked(checked).address(address.clone());
        if stepped {
            builder = builder.run(Run::Stepped);
        }
        let device = builder.lies(lies.iter().map(|lie| lie.lie.clone())).build()?;
        let device_type = device_type(&kind);
        let published = Mutex::new(Some(device.publish(&place)?));
        Ok(Self { device, device_type, address, published })
    }

    /// The address that opens it.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Name of its registers' interface.
    #[getter]
    fn transport(&self) -> &'static str {
        self.device.interface().name()
    }

    /// What it did and saw.
    fn report(&self, py: Python<'_>) -> Report {
        let report = py.detach(|| self.device.report());
        Report { report, device_type: self.device_type }
    }

    /// Tells a lie from now on.
    fn tell(&self, py: Python<'_>, lie: &PyLie) -> PyResult<()> {
        Ok(py.detach(|| self.device.tell(lie.lie.clone()))?)
    }

    /// Tells no lie any more. What was written to memory stays.
    fn be_honest(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.device.be_honest())?)
    }

    /// Changes the configuration space from `offset` on, with a notification.
    fn change_config(&self, py: Python<'_>, offset: u16, bytes: &[u8]) -> PyResult<()> {
        Ok(py.detach(|| self.device.change_config(offset, bytes))?)
    }

    /// Serves one chain of a stepped device; answers whether there was one.
    fn step(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(py.detach(|| self.device.step())?)
    }

    /// Steps until nothing is left to do; answers how many chains were used.
    fn settle(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.device.settle())?)
    }

    /// The address leads nowhere from now on. Drivers that have the device keep it.
    fn unpublish(&self, py: Python<'_>) {
        py.detach(|| drop(self.published.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }

    fn __repr__(&self) -> String {
        alloc::format!("_SoftDevice({}, {})", self.address, self.transport())
    }
}
