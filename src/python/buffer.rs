//! Memory of a device as Python objects: the buffer protocol, and nothing else that needs care.
//!
//! What is exported is an address. This crate makes no reference to the bytes behind it; whoever reads or writes
//! them through a view does so as another process would.
#![expect(unsafe_code, reason = "the buffer protocol hands out addresses through a C structure")]

use alloc::string::String;
use alloc::sync::Arc;
use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::memory::{Flow, Memory};
use super::whole::{Whole, descriptor, whole};
use crate::Error;
use crate::mem::region::DmaRegion;

/// Fills a view of one dimension over `len` bytes at `at`.
///
/// # Safety
/// `view` leads to a structure that CPython wants filled. `at` leads to `len` bytes that stay mapped, and writable
/// unless `readonly`, as long as `owner` lives.
unsafe fn export(
    owner: &Bound<'_, PyAny>,
    view: *mut ffi::Py_buffer,
    (at, len): (*mut u8, usize),
    readonly: bool,
    flags: c_int,
) -> PyResult<()> {
    let len = ffi::Py_ssize_t::try_from(len).map_err(|_| PyBufferError::new_err("too long for a view"))?;
    // SAFETY: the caller vouches for `view` and the bytes; the view counts a reference to `owner`.
    let done = unsafe {
        ffi::PyBuffer_FillInfo(view, owner.as_ptr(), at.cast::<c_void>(), len, readonly.into(), flags)
    };
    if done == 0 { Ok(()) } else { Err(PyErr::fetch(owner.py())) }
}

/// One buffer that the device can reach. memoryview(), numpy, struct and readinto() see its bytes, without a copy.
///
/// While it is in flight, a new view of it is refused (BufferError) if the device may write it, and read-only if the
/// device reads it. Views taken before stay valid memory; what they hold then is up to the device.
#[pyclass(frozen, module = "virtio")]
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) memory: Arc<Memory>,
    pub(super) index: u32,
    /// Its number at the device.
    #[pyo3(get)]
    slot: u32,
}

impl Buffer {
    pub(super) fn new(memory: Arc<Memory>, index: u32, first: u32) -> Self {
        Self { memory, index, slot: first.wrapping_add(index) }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.memory.stride() as usize
    }

    /// Whether a queue has it.
    #[getter]
    fn in_flight(&self) -> bool {
        self.memory.in_flight(self.index).is_some()
    }

    fn __repr__(&self) -> String {
        let state = match self.memory.in_flight(self.index) {
            None => "idle",
            Some(Flow::Readable) => "in flight, device-readable",
            Some(Flow::Writable) => "in flight, device-writable",
        };
        alloc::format!("Buffer(slot {}, {} bytes, {state})", self.slot, self.memory.stride())
    }

    /// # Safety
    /// Called by CPython, with a structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let readonly = match this.memory.in_flight(this.index) {
            None => false,
            Some(Flow::Readable) => true,
            Some(Flow::Writable) => {
                return Err(PyBufferError::new_err(
                    "the buffer is in flight and the device may write it: wait for its request first",
                ));
            }
        };
        let bytes = (this.memory.address(this.index), this.memory.stride() as usize);
        // SAFETY: CPython's structure; the memory lives as long as the object, which the view keeps.
        unsafe { export(slf.as_any(), view, bytes, readonly, flags) }
    }

    /// # Safety
    /// Called by CPython with what `__getbuffer__` filled, which owns nothing.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// Equal buffers that the device can reach, in one piece of memory: `pool[i]` is one of them, and a view of the whole
/// has two dimensions, buffers and bytes. That view is always writable, whatever is in flight.
#[pyclass(frozen, module = "virtio", sequence)]
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) memory: Arc<Memory>,
    /// Number of the first buffer at the device: buffer i of the pool has the number first + i.
    #[pyo3(get)]
    pub(super) first: u32,
    /// Views of two dimensions lead here; as long-lived as the object.
    shape: [ffi::Py_ssize_t; 2],
    strides: [ffi::Py_ssize_t; 2],
}

impl Pool {
    pub(super) fn new(memory: Arc<Memory>, first: u32) -> PyResult<Self> {
        let size =
            |n: u32| ffi::Py_ssize_t::try_from(n).map_err(|_| PyValueError::new_err("too large for a view"));
        let (count, stride) = (size(memory.count())?, size(memory.stride())?);
        Ok(Self { memory, first, shape: [count, stride], strides: [stride, 1] })
    }
}

#[pymethods]
impl Pool {
    /// Number of buffers.
    #[getter]
    fn count(&self) -> u32 {
        self.memory.count()
    }

    /// Bytes of each buffer, and from one to the next.
    #[getter]
    fn stride(&self) -> u32 {
        self.memory.stride()
    }

    fn __len__(&self) -> usize {
        self.memory.count() as usize
    }

    fn __getitem__(&self, index: isize) -> PyResult<Buffer> {
        let from = if index < 0 { self.__len__() } else { 0 };
        let place = from.checked_add_signed(index).filter(|place| *place < self.__len__());
        let place = place.and_then(|place| u32::try_from(place).ok());
        let place = place.ok_or_else(|| PyIndexError::new_err("the pool has no buffer of this number"))?;
        Ok(Buffer::new(Arc::clone(&self.memory), place, self.first))
    }

    /// The buffers, in the order of their numbers.
    fn __iter__(&self) -> PoolIterator {
        PoolIterator { memory: Arc::clone(&self.memory), first: self.first, next: AtomicU32::new(0) }
    }

    /// Number of buffers that are in flight.
    #[getter]
    fn in_flight(&self) -> usize {
        (0..self.memory.count()).filter(|index| self.memory.in_flight(*index).is_some()).count()
    }

    /// Descriptor of the memory file behind the pool, for another process; the pool begins at fd_offset in it.
    fn fileno(&self) -> PyResult<RawFd> {
        fileno(self.memory.region())
    }

    /// Where the pool begins in the file that fileno() gives, in bytes.
    #[getter]
    fn fd_offset(&self) -> u64 {
        self.memory.region().fd_offset().saturating_add(self.memory.offset() as u64)
    }

    fn __repr__(&self) -> String {
        alloc::format!("Pool({} buffers of {} bytes)", self.memory.count(), self.memory.stride())
    }

    /// # Safety
    /// Called by CPython, with a structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let bytes = (this.memory.address(0), this.memory.len());
        // SAFETY: CPython's structure; the memory lives as long as the object, which the view keeps.
        unsafe { export(slf.as_any(), view, bytes, false, flags) }?;
        // SAFETY: CPython's structure, which nobody else has yet.
        let view = unsafe { &mut *view };
        if flags & ffi::PyBUF_ND == ffi::PyBUF_ND {
            view.ndim = 2;
            // Both are written by nobody, and live as long as the object.
            view.shape = this.shape.as_ptr().cast_mut();
            if flags & ffi::PyBUF_STRIDES == ffi::PyBUF_STRIDES {
                view.strides = this.strides.as_ptr().cast_mut();
            }
        }
        Ok(())
    }

    /// # Safety
    /// Called by CPython with what `__getbuffer__` filled, which owns nothing.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// What goes through a pool's buffers.
#[pyclass(frozen, module = "virtio", name = "_PoolIterator")]
#[derive(Debug)]
pub(super) struct PoolIterator {
    memory: Arc<Memory>,
    first: u32,
    next: AtomicU32,
}

#[pymethods]
impl PoolIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<Buffer> {
        let count = self.memory.count();
        let next = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            next.checked_add(1).filter(|_| next < count)
        });
        Some(Buffer::new(Arc::clone(&self.memory), next.ok()?, self.first))
    }
}

/// A place for the export of an array, which can neither move nor go as long as its numbers are at hand. The place does
/// not move meanwhile: what an exporter fills may lead into itself.
pub(super) struct Export<'py>(ffi::Py_buffer, PhantomData<Python<'py>>);

impl<'py> Export<'py> {
    /// For whoever is attached, and has it until it is not.
    pub(super) fn new(_py: Python<'py>) -> Self {
        Self(ffi::Py_buffer::new(), PhantomData)
    }

    /// The numbers in an array of Python's (`array.array`, numpy), one or two dimensions of 2, 4 or 8 bytes each; with
    /// `write` it must not be read-only.
    pub(super) fn numbers<'a>(&'a mut self, array: &Bound<'py, PyAny>, write: bool) -> PyResult<Numbers<'a>> {
        self.release();
        // SAFETY: an object, and a structure that holds nothing and is CPython's to fill.
        let done = unsafe { ffi::PyObject_GetBuffer(array.as_ptr(), &mut self.0, ffi::PyBUF_FULL_RO) };
        if done != 0 {
            return Err(PyErr::fetch(array.py()));
        }
        let width = usize::try_from(self.0.itemsize).unwrap_or(0);
        if !self.has_integers() || !matches!(width, 2 | 4 | 8) || !self.is_contiguous() {
            return Err(PyTypeError::new_err(
                "numbers are given in contiguous arrays of integers of 2, 4 or 8 bytes, such as array('Q')",
            ));
        }
        let writable = self.0.readonly == 0;
        if write && !writable {
            return Err(PyTypeError::new_err("an array that is filled must not be read-only"));
        }
        let (rows, columns) = match self.0.ndim {
            1 => (self.length(0), 1),
            2 => (self.length(0), self.length(1)),
            _ => return Err(PyTypeError::new_err("arrays of numbers have one or two dimensions")),
        };
        let start = self.0.buf.cast::<u8>();
        Ok(Numbers { start, rows, columns, width, writable, held: PhantomData })
    }

    /// Whether its items are integers in the machine's byte order.
    #[inline]
    fn has_integers(&self) -> bool {
        let format = self.0.format;
        if format.is_null() {
            return false;
        }
        // SAFETY: a string of C's, of which nothing behind its end is read.
        let byte = |at: usize| unsafe { format.wrapping_add(at).read() }.cast_unsigned();
        let at = usize::from(matches!(byte(0), b'@' | b'='));
        let integer = matches!(byte(at), b'h' | b'H' | b'i' | b'I' | b'l' | b'L' | b'q' | b'Q' | b'n' | b'N');
        integer && byte(at.wrapping_add(1)) == 0
    }

    #[inline]
    fn is_contiguous(&self) -> bool {
        let view = &self.0;
        if view.ndim == 1 && view.suboffsets.is_null() && !view.strides.is_null() {
            // SAFETY: one stride a dimension.
            let stride = unsafe { view.strides.read() };
            if stride == view.itemsize {
                return true;
            }
        }
        // SAFETY: what an exporter filled.
        unsafe { ffi::PyBuffer_IsContiguous(view, b'C'.cast_signed()) != 0 }
    }

    /// Length of a dimension, which there must be.
    #[inline]
    fn length(&self, dimension: usize) -> usize {
        // SAFETY: one length a dimension; exports that were asked for it have it.
        usize::try_from(unsafe { self.0.shape.wrapping_add(dimension).read() }).unwrap_or(0)
    }

    #[inline]
    fn release(&mut self) {
        if !self.0.obj.is_null() {
            // SAFETY: what an exporter filled, and was not released; the thread is attached.
            unsafe { ffi::PyBuffer_Release(&mut self.0) };
        }
    }
}

impl Drop for Export<'_> {
    #[inline]
    fn drop(&mut self) {
        self.release();
    }
}

/// Numbers in an array of Python's, read and written in place: no object is made of any. The array's memory is its own
/// business: every access is an unaligned one by value.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    start: *mut u8,
    rows: usize,
    columns: usize,
    width: usize,
    writable: bool,
    held: PhantomData<&'a u8>,
}

impl<'a> Numbers<'a> {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Whether whole tokens fit.
    pub(super) fn holds_tokens(&self) -> bool {
        self.width == 8
    }

    /// All of them, row by row.
    #[inline]
    pub(super) fn read(&self) -> Reader<'a> {
        // Cannot overflow: the array lies in memory.
        let left = self.rows.wrapping_mul(self.columns);
        Reader(Cursor { at: self.start, left, step: self.width, width: self.width, held: PhantomData })
    }

    /// The places of the first column, to be filled; none of an array that is read-only.
    #[inline]
    pub(super) fn fill(&self) -> Filler<'a> {
        let left = if self.writable && self.columns != 0 { self.rows } else { 0 };
        let step = self.columns.wrapping_mul(self.width);
        Filler(Cursor { at: self.start, left, step, width: self.width, held: PhantomData })
    }
}

/// What is to come of an array.
struct Cursor<'a> {
    at: *mut u8,
    /// Numbers.
    left: usize,
    /// Bytes from one to the next.
    step: usize,
    width: usize,
    held: PhantomData<&'a u8>,
}

impl Cursor<'_> {
    /// Where the next number lies: inside the array, whose items have this width, and which the export keeps there.
    #[inline(always)]
    fn next(&mut self) -> Option<*mut u8> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = at.wrapping_add(self.step);
        Some(at)
    }
}

/// Reads an array, number by number.
pub(super) struct Reader<'a>(Cursor<'a>);

impl Iterator for Reader<'_> {
    type Item = u64;

    /// As unsigned: a negative one is a large one, which names nothing.
    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        let at = self.0.next()?;
        Some(match self.0.width {
            // SAFETY: as `Cursor::next` says.
            8 => unsafe { at.cast::<u64>().read_unaligned() },
            // SAFETY: as above.
            4 => u64::from(unsafe { at.cast::<u32>().read_unaligned() }),
            // SAFETY: as above.
            _ => u64::from(unsafe { at.cast::<u16>().read_unaligned() }),
        })
    }
}

/// Fills an array, number by number.
pub(super) struct Filler<'a>(Cursor<'a>);

impl Filler<'_> {
    /// Writes a number's low bits to the next place, if there is one.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u64) {
        let Some(at) = self.0.next() else { return };
        match self.0.width {
            // SAFETY: as `Cursor::next` says; the array may be written.
            8 => unsafe { at.cast::<u64>().write_unaligned(value) },
            // SAFETY: as above.
            4 => unsafe { at.cast::<u32>().write_unaligned(value as u32) },
            // SAFETY: as above.
            _ => unsafe { at.cast::<u16>().write_unaligned(value as u16) },
        }
    }
}

fn fileno(region: &DmaRegion) -> PyResult<RawFd> {
    let fd = region.fd().ok_or(Error::Closed { what: "region's descriptor" })?;
    Ok(fd.as_raw_fd())
}

/// Memory for devices over a memory file of the caller's (os.memfd_create with MFD_ALLOW_SEALING): it is sealed
/// against shrinking, its content stays, and whoever has the descriptor shares it. Without a length it is the whole
/// file. `Region.create(length)` makes a file of its own.
#[pyclass(frozen, module = "virtio")]
#[derive(Debug)]
pub(super) struct Region {
    pub(super) region: Arc<DmaRegion>,
}

#[pymethods]
impl Region {
    #[new]
    #[pyo3(signature = (fd, *, offset=0, length=None))]
    fn new(
        fd: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = whole)] offset: u64,
        length: Option<Whole<usize>>,
    ) -> PyResult<Self> {
        let raw = descriptor(fd)?;
        // SAFETY: not -1, and used for the length of this call, during which the interpreter is held.
        let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
        let refused = |errno| Error::os("take a descriptor", errno);
        let own = rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(refused)?;
        let length = match length {
            Some(Whole(length)) => length,
            None => {
                let size = u64::try_from(rustix::fs::fstat(&own).map_err(refused)?.st_size).unwrap_or(0);
                usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX)
            }
        };
        Ok(Self { region: DmaRegion::from_fd(own, offset, length)? })
    }

    /// A region over a new memory file, all zero, of that many bytes or the rest of a page more.
    #[staticmethod]
    fn create(length: Whole<usize>) -> PyResult<Self> {
        Ok(Self { region: DmaRegion::new(length.0)? })
    }

    fn __len__(&self) -> usize {
        self.region.len()
    }

    /// Descriptor of the memory file.
    fn fileno(&self) -> PyResult<RawFd> {
        fileno(&self.region)
    }

    fn __repr__(&self) -> String {
        alloc::format!("Region({} bytes)", self.region.len())
    }

    /// # Safety
    /// Called by CPython, with a structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let region = &slf.get().region;
        let bytes = (region.as_ptr(), region.len());
        // SAFETY: CPython's structure; the region lives as long as the object, which the view keeps.
        unsafe { export(slf.as_any(), view, bytes, false, flags) }
    }

    /// # Safety
    /// Called by CPython with what `__getbuffer__` filled, which owns nothing.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}
