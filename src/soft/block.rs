//! A block device (VIRTIO 1.4 §5.2) over memory or a file.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::model::{DeviceModel, Reply};
use super::request::Request;
use crate::features::Features;
use crate::spec::device::block::request::{
    Header, ID_SIZE, Lifetime, PreEolInfo, RequestType, SEGMENT_UNMAP, Segment, Status,
};
use crate::spec::device::block::{SECTOR_SIZE, config, feature};
use crate::spec::{ByteOrder, DeviceType};
use crate::{Error, Result};

/// Bytes that are moved between a file and the driver's memory at a time.
const CHUNK: usize = 128 << 10;
const SECTOR: u64 = SECTOR_SIZE as u64;

/// Where the sectors are.
#[derive(Debug)]
enum Store {
    Memory(Arc<Mutex<Vec<u8>>>),
    File(File),
}

impl Store {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        match self {
            Self::Memory(bytes) => {
                let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let start = at as usize;
                bytes
                    .get(start..start.saturating_add(to.len()))
                    .map(|from| to.copy_from_slice(from))
                    .is_some()
            }
            Self::File(file) => file.read_exact_at(to, at).is_ok(),
        }
    }

    fn write(&self, at: u64, from: &[u8]) -> bool {
        match self {
            Self::Memory(bytes) => {
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let start = at as usize;
                let place = bytes.get_mut(start..start.saturating_add(from.len()));
                place.map(|to| to.copy_from_slice(from)).is_some()
            }
            Self::File(file) => file.write_all_at(from, at).is_ok(),
        }
    }

    fn flush(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::File(file) => file.sync_data().is_ok(),
        }
    }
}

/// Limits that a block device announces, and holds its driver to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockLimits {
    /// Largest data segment in bytes; 0 announces none.
    pub size_max: u32,
    /// Most data segments of a request; 0 announces none.
    pub seg_max: u32,
    /// Block size in bytes.
    pub blk_size: u32,
    /// Most sectors of a segment of discard, write zeroes and secure erase.
    pub max_sectors: u32,
    /// Most segments of such a request.
    pub max_segments: u32,
    /// Alignment of discards and secure erases in sectors.
    pub alignment: u32,
}

impl Default for BlockLimits {
    fn default() -> Self {
        Self {
            size_max: 0,
            seg_max: 126,
            blk_size: 512,
            max_sectors: 1 << 16,
            max_segments: 16,
            alignment: 1,
        }
    }
}

/// Requests that fail on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFailure {
    /// Only requests of this type; `None` for any.
    pub request_type: Option<RequestType>,
    /// Only requests that touch one of these sectors; `None` for any.
    pub sectors: Option<Range<u64>>,
    /// The status that they end with.
    pub status: Status,
}

/// A block device. All request types but those of zoned devices; whichever features its driver negotiates.
#[derive(Debug)]
pub struct Block {
    store: Store,
    sectors: u64,
    read_only: bool,
    queues: u16,
    limits: BlockLimits,
    id: [u8; ID_SIZE],
    failures: Vec<BlockFailure>,
    status_written: bool,
    writeback: u8,
    buffer: Vec<u8>,
}

impl Block {
    fn new(store: Store, sectors: u64) -> Self {
        Self {
            store,
            sectors,
            read_only: false,
            queues: 1,
            limits: BlockLimits::default(),
            id: *b"virtio-soft\0\0\0\0\0\0\0\0\0",
            failures: Vec::new(),
            status_written: true,
            writeback: 1,
            buffer: Vec::new(),
        }
    }

    /// Over memory, which is shared with the caller; what is left of the last sector is not used.
    pub fn memory(bytes: Arc<Mutex<Vec<u8>>>) -> Self {
        let len = bytes.lock().unwrap_or_else(PoisonError::into_inner).len();
        Self::new(Store::Memory(bytes), len as u64 / SECTOR)
    }

    /// Over memory of its own: `sectors` sectors of zeroes.
    pub fn zeroes(sectors: u32) -> Self {
        let len = usize::try_from(u64::from(sectors).saturating_mul(SECTOR)).unwrap_or(usize::MAX);
        Self::memory(Arc::new(Mutex::new(vec![0; len])))
    }

    /// Over a file, whose length gives the capacity. Opened for reading only where the device is to be
    /// read-only. Fails with what the operating system gives.
    pub fn file(path: impl AsRef<Path>, read_only: bool) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Os {
            doing: "open the image of a software block device",
            errno: error.raw_os_error().unwrap_or(crate::error::errno::EIO),
        };
        let file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut block = Self::new(Store::File(file), len / SECTOR);
        block.read_only = read_only;
        Ok(block)
    }

    /// Takes no writes (RO).
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Number of queues, at least 1 (MQ where there are more).
    #[must_use]
    pub fn with_queues(mut self, queues: u16) -> Self {
        self.queues = queues.max(1);
        self
    }

    /// Its limits.
    #[must_use]
    pub fn limits(mut self, limits: BlockLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Its id string: at most 20 bytes.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = [0; ID_SIZE];
        for (to, from) in self.id.iter_mut().zip(id.into().bytes()) {
            *to = from;
        }
        self
    }

    /// Requests that fail; the first that fits a request counts.
    #[must_use]
    pub fn fails(mut self, failure: BlockFailure) -> Self {
        self.failures.push(failure);
        self
    }

    /// Leaves the status byte of every request as the driver made it (D10).
    #[must_use]
    pub fn without_status(mut self) -> Self {
        self.status_written = false;
        self
    }

    fn injected(&self, request_type: RequestType, sectors: &Range<u64>) -> Option<Status> {
        let fits = |failure: &&BlockFailure| {
            failure.request_type.is_none_or(|only| only == request_type)
                && failure
                    .sectors
                    .as_ref()
                    .is_none_or(|bad| bad.start < sectors.end && sectors.start < bad.end)
        };
        self.failures.iter().find(fits).map(|failure| failure.status)
    }

    /// Whether these sectors are there.
    fn inside(&self, sector: u64, count: u64) -> bool {
        sector.checked_add(count).is_some_and(|end| end <= self.sectors)
    }

    /// Whether the data segments keep to the limits that were announced.
    fn within_limits(&self, request: &Request<'_>, writable: bool, data: u64) -> bool {
        let extra = if writable { 1 } else { size_of_header() };
        let features = request.features();
        let size_max = features.has(feature::SIZE_MAX).then_some(u64::from(self.limits.size_max));
        let seg_max = features.has(feature::SEG_MAX).then_some(u64::from(self.limits.seg_max));
        // A segment may hold the header or the status too, where the framing is free.
        let too_long = |len: u32| size_max.is_some_and(|max| u64::from(len) > max.saturating_add(extra));
        let segments = request.buffers(writable).count() as u64;
        !(request.buffers(writable).any(too_long)
            || seg_max.is_some_and(|max| data > 0 && segments > max.saturating_add(1)))
    }

    fn transfer(&mut self, request: &mut Request<'_>, header: &Header, write: bool) -> Result<(Status, u64)> {
        let data = if write {
            request.readable_len().saturating_sub(size_of_header())
        } else {
            request.writable_len().saturating_sub(1)
        };
        let count = data / SECTOR;
        let allowed = data > 0
            && data.is_multiple_of(SECTOR)
            && self.inside(header.sector, count)
            && self.within_limits(request, !write, data)
            && !(write && self.read_only);
        if !allowed {
            return Ok((Status::IOERR, 0));
        }
        let range = header.sector..header.sector.saturating_add(count);
        if let Some(status) = self.injected(header.request_type, &range) {
            return Ok((status, 0));
        }
        let start = header.sector.saturating_mul(SECTOR);
        let mut buffer = core::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let mut at = 0;
        let mut good = true;
        while good && at < data {
            let len = (data.saturating_sub(at)).min(CHUNK as u64) as usize;
            let part = buffer.get_mut(..len).unwrap_or_default();
            let place = start.saturating_add(at);
            if write {
                request.read(size_of_header().saturating_add(at), part)?;
                good = self.store.write(place, part);
            } else {
                good = self.store.read(place, part);
                request.write(at, part)?;
            }
            at = at.saturating_add(len as u64);
        }
        self.buffer = buffer;
        let status = if good { Status::OK } else { Status::IOERR };
        Ok((status, if write || !good { 0 } else { data }))
    }

    /// Discard, write zeroes, secure erase: all of them leave zeroes here.
    fn erase(&mut self, request: &mut Request<'_>, header: &Header) -> Result<Status> {
        let data = request.readable_len().saturating_sub(size_of_header());
        let size = Segment::SIZE as u64;
        let count = data.checked_div(size).unwrap_or(0);
        if self.read_only || !data.is_multiple_of(size) || count == 0 {
            return Ok(Status::IOERR);
        }
        if count > self.limits.max_segments.into() {
            return Ok(Status::IOERR);
        }
        let mut ranges = Vec::new();
        for index in 0..count {
            let mut bytes = [0; Segment::SIZE];
            request.read(size_of_header().saturating_add(index.saturating_mul(size)), &mut bytes)?;
            let segment = Segment::decode(&bytes, request.order());
            let known = if header.request_type == RequestType::WRITE_ZEROES { SEGMENT_UNMAP } else { 0 };
            if segment.flags & !known != 0 {
                return Ok(Status::UNSUPP);
            }
            let inside = self.inside(segment.sector, segment.num_sectors.into());
            if !inside || segment.num_sectors > self.limits.max_sectors {
                return Ok(Status::IOERR);
            }
            ranges.push(segment.sector..segment.sector.saturating_add(segment.num_sectors.into()));
        }
        for range in ranges {
            if let Some(status) = self.injected(header.request_type, &range) {
                return Ok(status);
            }
            if !self.zero(&range) {
                return Ok(Status::IOERR);
            }
        }
        Ok(Status::OK)
    }

    fn zero(&self, range: &Range<u64>) -> bool {
        let (mut at, end) = (range.start.saturating_mul(SECTOR), range.end.saturating_mul(SECTOR));
        let zeroes = vec![0; CHUNK.min(end.saturating_sub(at) as usize)];
        while at < end {
            let len = zeroes.len().min(end.saturating_sub(at) as usize);
            if !self.store.write(at, zeroes.get(..len).unwrap_or_default()) {
                return false;
            }
            at = at.saturating_add(len as u64);
        }
        true
    }

    /// Answers with bytes of a fixed length; a shorter buffer is an error.
    fn answer(request: &mut Request<'_>, bytes: &[u8]) -> Result<(Status, u64)> {
        let room = request.writable_len().saturating_sub(1);
        if room < bytes.len() as u64 {
            return Ok((Status::IOERR, 0));
        }
        request.write(0, bytes)?;
        Ok((Status::OK, room.min(bytes.len() as u64)))
    }

    fn perform(&mut self, request: &mut Request<'_>, header: &Header) -> Result<(Status, u64)> {
        let features = request.features();
        let none = |status| Ok((status, 0));
        let request_type = header.request_type;
        match request_type {
            RequestType::IN => return self.transfer(request, header, false),
            RequestType::OUT => return self.transfer(request, header, true),
            _ => {}
        }
        let everywhere = 0..u64::MAX;
        let segments = matches!(
            request_type,
            RequestType::DISCARD | RequestType::WRITE_ZEROES | RequestType::SECURE_ERASE
        );
        if let Some(status) = self.injected(request_type, &everywhere).filter(|_| !segments) {
            return none(status);
        }
        match request_type {
            RequestType::FLUSH | RequestType::FLUSH_OUT => {
                none(if self.store.flush() { Status::OK } else { Status::IOERR })
            }
            RequestType::GET_ID => Self::answer(request, &self.id),
            RequestType::GET_LIFETIME if features.has(feature::LIFETIME) => {
                let lifetime = Lifetime {
                    pre_eol_info: PreEolInfo::NORMAL,
                    device_lifetime_est_typ_a: 1,
                    device_lifetime_est_typ_b: 2,
                };
                Self::answer(request, &lifetime.encode(request.order()))
            }
            RequestType::DISCARD if features.has(feature::DISCARD) => Ok((self.erase(request, header)?, 0)),
            RequestType::WRITE_ZEROES if features.has(feature::WRITE_ZEROES) => {
                Ok((self.erase(request, header)?, 0))
            }
            RequestType::SECURE_ERASE if features.has(feature::SECURE_ERASE) => {
                Ok((self.erase(request, header)?, 0))
            }
            _ => none(Status::UNSUPP),
        }
    }
}

const fn size_of_header() -> u64 {
    Header::SIZE as u64
}

impl DeviceModel for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLOCK
    }

    fn features(&self) -> Features {
        let bits = [
            (feature::SIZE_MAX, self.limits.size_max != 0),
            (feature::SEG_MAX, self.limits.seg_max != 0),
            (feature::RO, self.read_only),
            (feature::BLK_SIZE, true),
            (feature::FLUSH, true),
            (feature::CONFIG_WCE, true),
            (feature::MQ, self.queues > 1),
            (feature::DISCARD, !self.read_only),
            (feature::WRITE_ZEROES, !self.read_only),
            (feature::LIFETIME, true),
            (feature::SECURE_ERASE, !self.read_only),
        ];
        let offered = bits.into_iter().filter(|(_, offered)| *offered);
        offered.fold(Features::EMPTY, |all, (bit, _)| all | Features::from_bit(bit))
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn config(&self, order: ByteOrder) -> Vec<u8> {
        let mut bytes = vec![0; 96];
        let mut put = |offset: u16, value: &[u8]| {
            let start = usize::from(offset);
            if let Some(place) = bytes.get_mut(start..start.saturating_add(value.len())) {
                place.copy_from_slice(value);
            }
        };
        let limits = &self.limits;
        put(config::CAPACITY, &order.u64_to_bytes(self.sectors));
        for (offset, value) in [
            (config::SIZE_MAX, limits.size_max),
            (config::SEG_MAX, limits.seg_max),
            (config::BLK_SIZE, limits.blk_size),
            (config::MAX_DISCARD_SECTORS, limits.max_sectors),
            (config::MAX_DISCARD_SEG, limits.max_segments),
            (config::DISCARD_SECTOR_ALIGNMENT, limits.alignment),
            (config::MAX_WRITE_ZEROES_SECTORS, limits.max_sectors),
            (config::MAX_WRITE_ZEROES_SEG, limits.max_segments),
            (config::MAX_SECURE_ERASE_SECTORS, limits.max_sectors),
            (config::MAX_SECURE_ERASE_SEG, limits.max_segments),
            (config::SECURE_ERASE_SECTOR_ALIGNMENT, limits.alignment),
        ] {
            put(offset, &order.u32_to_bytes(value));
        }
        put(config::WRITEBACK, &[self.writeback]);
        put(config::NUM_QUEUES, &order.u16_to_bytes(self.queues));
        put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        bytes
    }

    fn write_config(&mut self, offset: u64, bytes: &[u8], _order: ByteOrder) {
        if let ([mode @ (0 | 1)], true) = (bytes, offset == u64::from(config::WRITEBACK)) {
            self.writeback = *mode;
        }
    }

    fn reset(&mut self) {
        self.writeback = 1;
    }

    fn handle(&mut self, request: &mut Request<'_>) -> Result<Reply> {
        let mut bytes = [0; Header::SIZE];
        request.read(0, &mut bytes)?;
        let mut header = Header::decode(&bytes, request.order());
        header.request_type.0 &= !crate::spec::device::block::request::LEGACY_BARRIER;
        let room = request.writable_len();
        let last = room.checked_sub(1).ok_or(Error::Misuse { what: "a block request without a status" })?;
        let (status, written) = self.perform(request, &header)?;
        if self.status_written {
            request.write(last, &[status.0])?;
        }
        // The status is the last byte: it counts where everything before it was written too.
        Ok(Reply::Used(if written == last { room as u32 } else { written as u32 }))
    }
}
