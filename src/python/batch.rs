//! Many requests a call: numbers in arrays, and no object for any request.

use alloc::vec::Vec;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::buffer::Numbers;
use super::memory::{Flow, PoolList, slot};
use super::queue::Inner;
use super::wait;
use crate::Result;
use crate::device::{self, Done};
use crate::mem::pool::DmaBuf;
use crate::queue::Token;

/// Buffers of one side of many chains: arrays side by side.
#[derive(Default)]
struct Slots<'py> {
    arrays: Vec<Numbers<'py>>,
    columns: usize,
}

impl<'py> Slots<'py> {
    /// An array, of one column or more, or several of them side by side.
    fn of(given: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        let mut slots = Self::default();
        let Some(given) = given else { return Ok(slots) };
        if given.is_instance_of::<PyTuple>() || given.is_instance_of::<PyList>() {
            for array in given.try_iter()? {
                slots.arrays.push(Numbers::of(&array?, false)?);
            }
        } else {
            slots.arrays.push(Numbers::of(given, false)?);
        }
        slots.columns = slots.arrays.iter().map(Numbers::columns).sum();
        Ok(slots)
    }

    fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.arrays.iter().map(Numbers::rows)
    }

    /// Takes the buffers of chain number `row` for their flight.
    #[inline]
    fn take<'a>(
        &'a self,
        row: usize,
        pools: &'a PoolList,
        flow: Flow,
    ) -> impl Iterator<Item = Result<DmaBuf>> + use<'a, 'py> {
        let numbers = self.arrays.iter().flat_map(move |array| {
            (0..array.columns()).map(move |column| array.get(row, column).unwrap_or(u64::MAX))
        });
        numbers.map(move |number| {
            let (memory, index) = slot(pools, number)?;
            memory.take(index, flow)
        })
    }

    /// The only buffer of chain number `row`.
    #[inline]
    fn take_one(&self, row: usize, pools: &PoolList, flow: Flow) -> Result<DmaBuf> {
        let number = self.arrays.first().and_then(|array| array.get(row, 0)).unwrap_or(u64::MAX);
        let (memory, index) = slot(pools, number)?;
        memory.take(index, flow)
    }
}

/// Adds chain number `row`.
#[inline]
fn add_row(
    queue: &mut device::Queue<DmaBuf>,
    (readable, writable): (&Slots<'_>, &Slots<'_>),
    row: usize,
    pools: &PoolList,
) -> Result<Token> {
    match (readable.columns, writable.columns) {
        (0, 1) => queue.add([], [writable.take_one(row, pools, Flow::Writable)?]),
        (1, 0) => queue.add([readable.take_one(row, pools, Flow::Readable)?], []),
        (1, 1) => {
            let from = readable.take_one(row, pools, Flow::Readable)?;
            queue.add([from], [writable.take_one(row, pools, Flow::Writable)?])
        }
        _ => {
            let from = readable.take(row, pools, Flow::Readable).collect::<Result<Vec<_>>>()?;
            let to = writable.take(row, pools, Flow::Writable).collect::<Result<Vec<_>>>()?;
            queue.add_chain(from, to)
        }
    }
}

/// See `Queue.add_many`.
pub(super) fn add_many(
    inner: &Inner,
    readable: Option<&Bound<'_, PyAny>>,
    writable: Option<&Bound<'_, PyAny>>,
    tokens: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let (readable, writable) = (Slots::of(readable)?, Slots::of(writable)?);
    let tokens = tokens.map(|array| tokens_array(array)).transpose()?;
    let count = readable.rows().chain(writable.rows()).min().unwrap_or(0);
    if readable.rows().chain(writable.rows()).any(|rows| rows != count) {
        return Err(PyValueError::new_err("the arrays of slots have one number for each chain, all of them"));
    }
    if tokens.as_ref().is_some_and(|array| array.rows() < count) {
        return Err(PyValueError::new_err("the array of tokens is shorter than those of slots"));
    }
    let parts = u16::try_from(readable.columns.saturating_add(writable.columns)).unwrap_or(u16::MAX);
    let pools = inner.pools.lock();
    let added = inner.check().and_then(|()| {
        inner.shared.with_open(|queue| {
            for row in 0..count {
                // Asked first, because buffers that are refused would have to be taken again.
                if row > 0 && !queue.has_room(parts) {
                    return Ok(row);
                }
                match add_row(queue, (&readable, &writable), row, &pools) {
                    Ok(token) => {
                        if let Some(tokens) = &tokens {
                            tokens.set(row, 0, token.into_raw());
                        }
                    }
                    Err(error) if row == 0 => return Err(error),
                    // The next call meets it again, with the chain that it concerns in front.
                    Err(_) => return Ok(row),
                }
            }
            Ok(count)
        })
    });
    drop(pools);
    inner.located(added)
}

fn tokens_array<'py>(array: &Bound<'py, PyAny>) -> PyResult<Numbers<'py>> {
    let numbers = Numbers::of(array, true)?;
    if !numbers.holds_tokens() || numbers.columns() != 1 {
        return Err(PyTypeError::new_err(
            "tokens need an array of one dimension and 8 bytes each, such as array('Q')",
        ));
    }
    Ok(numbers)
}

/// See `Queue.get_many`.
pub(super) fn get_many(
    py: Python<'_>,
    inner: &Inner,
    tokens: &Bound<'_, PyAny>,
    written: Option<&Bound<'_, PyAny>>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    let tokens = tokens_array(tokens)?;
    let written = written.map(|array| Numbers::of(array, true)).transpose()?;
    let most = written.as_ref().map_or(tokens.rows(), |array| array.rows().min(tokens.rows()));
    if most == 0 {
        return Err(PyValueError::new_err("there is no room for any result"));
    }
    let mut count = 0;
    let mut store = |done: Done| {
        tokens.set(count, 0, done.token.into_raw());
        if let Some(written) = &written {
            written.set(count, 0, done.written.into());
        }
        count = count.wrapping_add(1);
    };
    // Before anything is taken that an exception would lose (fault M7).
    py.check_signals()?;
    let found = inner.shared.pop_many(most, &mut store);
    if inner.located(found)? == 0 {
        let deadline = wait::deadline(timeout)?;
        let first = py.detach(|| inner.shared.get_with(deadline, wait::look_after_signals));
        store(inner.deliver(py, first.map(Done::from))?);
        // An error comes again with the next call.
        let _ = inner.shared.pop_many(most.saturating_sub(1), &mut store);
    }
    Ok(count)
}
