//! Calls that are made of several requests, or of a caller's buffers: erasing, scattered pieces, no copies.

use alloc::vec::Vec;

use super::api::Block;
use super::job::{Erase, Flow, Own, Scatter, Scattered};
use super::limits::EraseLimits;
use super::split::{Ranges, SECTOR, Transfers};
use crate::mem::pool::DmaBuf;
use crate::spec::device::block::request::{RequestType, Segment};
use crate::{Error, Result};

impl Block {
    /// Reads `to.len() / offsets.len()` bytes at each offset: the piece at `offsets[n]` becomes number n of `to`.
    /// Many are in flight at a time. Errors as [`Block::read`]; [`Error::Misuse`] where `to` is no such multiple.
    ///
    /// ```
    /// use virtio::drivers::{Block, BlockOptions};
    ///
    /// # #[cfg(feature = "soft")] {
    /// let disk = Block::open("soft:block?size=1M", BlockOptions::default())?;
    /// disk.write_many(&[8192, 512], &[[1; 512], [2; 512]].concat())?;
    /// let mut sectors = [0; 1024];
    /// disk.read_many(&[512, 8192], &mut sectors)?;
    /// assert_eq!(sectors, [[2; 512], [1; 512]].concat()[..]);
    /// # }
    /// # Ok::<(), virtio::Error>(())
    /// ```
    pub fn read_many(&self, offsets: &[u64], to: &mut [u8]) -> Result<()> {
        let each = each(to.len(), offsets.len());
        let result = each.and_then(|each| {
            self.begin_check(false)?;
            let sectors = offsets.iter().map(|&at| self.sector_of(at, each)).collect::<Result<Vec<_>>>()?;
            self.scatter(&sectors, each, Flow::FromDevice, Scattered::To(to))
        });
        self.located(result)
    }

    /// The opposite of [`Block::read_many`]; what overlaps is written in no particular order.
    pub fn write_many(&self, offsets: &[u64], from: &[u8]) -> Result<()> {
        let each = each(from.len(), offsets.len());
        let result = each.and_then(|each| {
            self.begin_check(true)?;
            let sectors = offsets.iter().map(|&at| self.sector_of(at, each)).collect::<Result<Vec<_>>>()?;
            self.scatter(&sectors, each, Flow::ToDevice, Scattered::From(from))
        });
        self.located(result)
    }

    /// Reads into buffers of the device's own memory, without a copy, `bufs[n]` from `offsets[n]` on. The buffers go
    /// back to their pools, which keep what was read. Errors as [`Block::read_into`].
    pub fn read_many_into(&self, offsets: &[u64], bufs: Vec<DmaBuf>) -> Result<()> {
        self.located(self.own_many(offsets, Flow::FromDevice, bufs))
    }

    /// Writes buffers of the device's own memory, without a copy, `bufs[n]` to `offsets[n]`. They go back to their
    /// pools. Errors as [`Block::write_from`].
    pub fn write_many_from(&self, offsets: &[u64], bufs: Vec<DmaBuf>) -> Result<()> {
        self.located(self.own_many(offsets, Flow::ToDevice, bufs))
    }

    fn own_many(&self, offsets: &[u64], flow: Flow, bufs: Vec<DmaBuf>) -> Result<()> {
        if bufs.len() != offsets.len() {
            return Err(Error::Misuse { what: "scattered requests take an offset for each buffer" });
        }
        self.begin_check(flow == Flow::ToDevice)?;
        // Not collected, which does not know how many there are, and grows.
        let mut sectors = Vec::with_capacity(offsets.len());
        for (&at, buf) in offsets.iter().zip(&bufs) {
            sectors.push(match buf.len() {
                len if len > self.size_max => return Err(TOO_LONG),
                0 => return Err(Error::Misuse { what: "a buffer for a block device is not empty" }),
                len => self.sector_of(at, len.into())?,
            });
        }
        let (shape, rest) = (self.shape, Transfers::new(0, self.shape));
        let data = Scattered::Own(bufs.into_iter());
        self.run_own(&mut Scatter { sectors: &sectors, each: 0, shape, flow, data, next: 0, rest })
    }

    fn scatter(&self, sectors: &[u64], each: u64, flow: Flow, data: Scattered<'_>) -> Result<()> {
        let (shape, rest) = (self.shape, Transfers::new(0, self.shape));
        self.run(&mut Scatter { sectors, each, shape, flow, data, next: 0, rest })
    }

    pub(super) fn own(&self, sector: u64, flow: Flow, buf: DmaBuf, repeats: bool) -> Result<DmaBuf> {
        if buf.len() > self.size_max {
            return Err(TOO_LONG);
        }
        if buf.is_empty() {
            return Ok(buf);
        }
        let mut job = Own { sector, flow, buf: Some(buf), asked: false, repeats };
        self.run_own(&mut job)?;
        job.buf.ok_or(Error::Closed { what: "block device" })
    }

    pub(super) fn erase(
        &self,
        request_type: RequestType,
        limits: Option<EraseLimits>,
        offset: u64,
        len: u64,
        unmap: bool,
    ) -> Result<()> {
        let job = self.erase_job(request_type, limits, offset, len, unmap);
        self.located(job.and_then(|mut job| self.run(&mut job)))
    }

    /// What [`Block::erase`] does.
    pub(super) fn erase_job(
        &self,
        request_type: RequestType,
        limits: Option<EraseLimits>,
        offset: u64,
        len: u64,
        unmap: bool,
    ) -> Result<Erase> {
        let sector = self.check_write(offset, len)?;
        let limits = limits.ok_or(Error::Unsupported { what: "the device does not take this request" })?;
        let ranges = Ranges::new(sector, len.checked_div(SECTOR).unwrap_or(0), &limits);
        // The segments of a request are one data buffer.
        let room = self.shape.segment.checked_div(Segment::SIZE as u32).unwrap_or(1);
        let most = limits.max_segments.min(room).max(1);
        let order = self.device().transport().byte_order();
        let loaded = ranges.clone();
        Ok(Erase { request_type, ranges, most, unmap, order, loaded })
    }
}

pub(super) const TOO_LONG: Error =
    Error::Misuse { what: "a buffer that a block device is given is no longer than its size_max" };

/// Bytes of each of `count` equal pieces of `len` bytes.
fn each(len: usize, count: usize) -> Result<u64> {
    match len.checked_div(count) {
        Some(each) if each.checked_mul(count) == Some(len) => Ok(each as u64),
        None if len == 0 => Ok(0),
        _ => Err(Error::Misuse { what: "scattered pieces are all of one length" }),
    }
}
