//! Which parts of a region are free: first fit, neighbours joined. Private memory only.

use alloc::collections::BTreeMap;

/// Unit of allocation in bytes: a cache line, so that no two chunks share one.
pub(super) const GRANULE: usize = 64;

/// The free parts of a region, by offset.
#[derive(Debug)]
pub(super) struct Spans {
    /// Offset to length, both multiples of [`GRANULE`]; never two that touch.
    free: BTreeMap<usize, usize>,
    /// Bytes from here on were never handed out.
    fresh: usize,
}

/// A part that was handed out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: usize,
    pub(super) len: usize,
    /// How many bytes at its beginning were handed out before, and may hold old data.
    pub(super) used_before: usize,
}

impl Spans {
    /// All of `len` bytes free.
    pub(super) fn new(len: usize) -> Self {
        let whole = len - len % GRANULE;
        let free = if whole == 0 { BTreeMap::new() } else { BTreeMap::from([(0, whole)]) };
        Self { free, fresh: 0 }
    }

    /// The first free part of `len` bytes (rounded up to granules) whose address, with the region at `base`,
    /// is a multiple of `align`.
    pub(super) fn take(&mut self, base: u64, len: usize, align: u64) -> Option<Span> {
        let len = len.checked_next_multiple_of(GRANULE)?;
        let align = align.max(GRANULE as u64);
        let fits = |(offset, size): (&usize, &usize)| {
            let addr = base.checked_add(u64::try_from(*offset).ok()?)?;
            let skip = usize::try_from(addr.checked_next_multiple_of(align)? - addr).ok()?;
            let rest = size.checked_sub(skip)?.checked_sub(len)?;
            Some((*offset, skip, rest))
        };
        let (hole, skip, rest) = self.free.iter().find_map(fits)?;
        self.free.remove(&hole);
        let offset = hole + skip;
        let end = offset + len;
        if skip > 0 {
            self.free.insert(hole, skip);
        }
        if rest > 0 {
            self.free.insert(end, rest);
        }
        let used_before = self.fresh.saturating_sub(offset).min(len);
        self.fresh = self.fresh.max(end);
        Some(Span { offset, len, used_before })
    }

    /// Takes a part back that [`Spans::take`] gave.
    pub(super) fn give(&mut self, mut offset: usize, mut len: usize) {
        if let Some(next) = self.free.remove(&(offset + len)) {
            len += next;
        }
        if let Some((&before, &size)) = self.free.range(..offset).next_back()
            && before + size == offset
        {
            offset = before;
            len += size;
        }
        self.free.insert(offset, len);
    }

    /// Whether all of the `len` bytes that the book began with are free.
    pub(super) fn is_whole(&self, len: usize) -> bool {
        self.free_bytes() == len - len % GRANULE
    }

    /// Free bytes.
    pub(super) fn free_bytes(&self) -> usize {
        self.free.values().sum()
    }

    /// The free parts, in order.
    #[cfg(test)]
    pub(super) fn free_parts(&self) -> alloc::vec::Vec<(usize, usize)> {
        self.free.iter().map(|(offset, len)| (*offset, *len)).collect()
    }
}
