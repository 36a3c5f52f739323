//! Many requests a call: numbers in arrays, and no object for any request.

use alloc::vec::Vec;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::buffer::{Export, Filler, Numbers, Reader};
use super::memory::{Finder, Flow, PoolList};
use super::queue::Inner;
use super::wait;
use crate::Result;
use crate::device::{self, Done};
use crate::mem::pool::DmaBuf;
use crate::queue::Token;

/// Places for the exports of arrays: one, which most sides of chains are, and others.
struct Places<'py> {
    one: Export<'py>,
    others: Vec<Export<'py>>,
}

impl<'py> Places<'py> {
    fn new(py: Python<'py>) -> Self {
        Self { one: Export::new(py), others: Vec::new() }
    }
}

/// Buffers of one side of many chains: arrays side by side.
#[derive(Default)]
struct Slots<'a> {
    one: Option<Numbers<'a>>,
    others: Vec<Numbers<'a>>,
}

impl<'a> Slots<'a> {
    /// An array, of one column or more, or several of them side by side.
    #[inline]
    fn of<'py>(places: &'a mut Places<'py>, given: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        match given {
            None => Ok(Self::default()),
            Some(given) if given.is_instance_of::<PyTuple>() || given.is_instance_of::<PyList>() => {
                Self::side_by_side(places, given)
            }
            Some(given) => Ok(Self { one: Some(places.one.numbers(given, false)?), others: Vec::new() }),
        }
    }

    #[cold]
    fn side_by_side<'py>(places: &'a mut Places<'py>, given: &Bound<'py, PyAny>) -> PyResult<Self> {
        let arrays = given.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        places.others = arrays.iter().map(|array| Export::new(array.py())).collect();
        let filled = places.others.iter_mut().zip(&arrays);
        let others = filled.map(|(place, array)| place.numbers(array, false)).collect::<PyResult<_>>()?;
        Ok(Self { one: None, others })
    }

    fn arrays(&self) -> impl Iterator<Item = &Numbers<'a>> {
        self.one.iter().chain(&self.others)
    }

    fn columns(&self) -> usize {
        self.arrays().map(Numbers::columns).sum()
    }

    /// The numbers of chain after chain, where each has one.
    fn column(&self) -> Option<Reader<'a>> {
        self.arrays().next().filter(|_| self.columns() == 1).map(Numbers::read)
    }

    /// Those of any number a chain.
    fn readers(&self) -> Vec<(usize, Reader<'a>)> {
        self.arrays().map(|array| (array.columns(), array.read())).collect()
    }
}

/// How many chains two sides are.
fn count_of(readable: &Slots<'_>, writable: &Slots<'_>) -> PyResult<usize> {
    let mut rows = readable.arrays().chain(writable.arrays()).map(Numbers::rows);
    let count = rows.next().unwrap_or(0);
    if rows.any(|rows| rows != count) {
        return Err(PyValueError::new_err("the arrays of slots have one number for each chain, all of them"));
    }
    Ok(count)
}

/// Takes the next buffer of a side for its flight.
#[inline(always)]
fn take(numbers: &mut Reader<'_>, finder: &mut Finder<'_>, flow: Flow) -> Result<DmaBuf> {
    finder.take(numbers.next().unwrap_or(u64::MAX), flow)
}

/// Takes those of one chain.
fn take_row(side: &mut [(usize, Reader<'_>)], finder: &mut Finder<'_>, flow: Flow) -> Result<Vec<DmaBuf>> {
    let places = side.iter_mut().flat_map(|(columns, numbers)| numbers.take(*columns));
    places.map(|number| finder.take(number, flow)).collect()
}

/// Adds the chains of two sides, one after the other.
#[inline(always)]
fn add_each(
    queue: &mut device::Queue<DmaBuf>,
    (readable, writable): (&Slots<'_>, &Slots<'_>),
    count: usize,
    pools: &PoolList,
    added: impl FnMut(Token),
) -> Result<usize> {
    let nothing = |slots: &Slots<'_>| slots.columns() == 0;
    // One for each side, as they may be of different pools.
    let finder = || Finder::new(pools);
    match (readable.column(), writable.column()) {
        (None, Some(mut to)) if nothing(readable) => {
            let mut finder = finder();
            queue.add_each(count, || Ok(([], [take(&mut to, &mut finder, Flow::Writable)?])), added)
        }
        (Some(mut from), None) if nothing(writable) => {
            let mut finder = finder();
            queue.add_each(count, || Ok(([take(&mut from, &mut finder, Flow::Readable)?], [])), added)
        }
        (Some(mut from), Some(mut to)) => {
            let mut finders = (finder(), finder());
            let next = || {
                let from = take(&mut from, &mut finders.0, Flow::Readable)?;
                Ok(([from], [take(&mut to, &mut finders.1, Flow::Writable)?]))
            };
            queue.add_each(count, next, added)
        }
        _ => add_chains(queue, (readable, writable), count, pools, added),
    }
}

/// The same for chains of any number of buffers.
#[inline(never)]
fn add_chains(
    queue: &mut device::Queue<DmaBuf>,
    (readable, writable): (&Slots<'_>, &Slots<'_>),
    count: usize,
    pools: &PoolList,
    mut added: impl FnMut(Token),
) -> Result<usize> {
    let parts = readable.columns().saturating_add(writable.columns());
    let parts = u16::try_from(parts).unwrap_or(u16::MAX);
    let (mut readable, mut writable) = (readable.readers(), writable.readers());
    let finder = &mut Finder::new(pools);
    for done in 0..count {
        // Asked first, because buffers that are refused would have to be taken again.
        if done > 0 && !queue.has_room(parts) {
            return Ok(done);
        }
        let from = take_row(&mut readable, finder, Flow::Readable);
        let chain = from.and_then(|from| Ok((from, take_row(&mut writable, finder, Flow::Writable)?)));
        match chain.and_then(|(from, to)| queue.add_chain(from, to)) {
            Ok(token) => added(token),
            Err(error) if done == 0 => return Err(error),
            // The next call meets it again, with the chain that it concerns in front.
            Err(_) => return Ok(done),
        }
    }
    Ok(count)
}

/// See `Queue.add_many`.
#[inline]
pub(super) fn add_many<'py>(
    py: Python<'py>,
    inner: &Inner,
    readable: Option<&Bound<'py, PyAny>>,
    writable: Option<&Bound<'py, PyAny>>,
    tokens: Option<&Bound<'py, PyAny>>,
) -> PyResult<usize> {
    let (mut from, mut to, mut place) = (Places::new(py), Places::new(py), Export::new(py));
    let (readable, writable) = (Slots::of(&mut from, readable)?, Slots::of(&mut to, writable)?);
    let tokens = tokens.map(|array| tokens_array(&mut place, array)).transpose()?;
    let count = count_of(&readable, &writable)?;
    if tokens.as_ref().is_some_and(|array| array.rows() < count) {
        return Err(PyValueError::new_err("the array of tokens is shorter than those of slots"));
    }
    // Before the lock, which a fork's child may find taken for ever.
    inner.located(inner.check())?;
    if count == 0 {
        // As long as the queue is open.
        return inner.located(inner.shared.with_open(|_| Ok(0)));
    }
    let mut tokens = tokens.as_ref().map(Numbers::fill);
    let pools = inner.pools.lock();
    let added = inner.shared.with_open(|queue| {
        add_each(queue, (&readable, &writable), count, &pools, |token| {
            if let Some(tokens) = &mut tokens {
                tokens.put(token.into_raw());
            }
        })
    });
    drop(pools);
    inner.located(added)
}

fn tokens_array<'a, 'py>(place: &'a mut Export<'py>, array: &Bound<'py, PyAny>) -> PyResult<Numbers<'a>> {
    let numbers = place.numbers(array, true)?;
    if !numbers.holds_tokens() || numbers.columns() != 1 {
        return Err(PyTypeError::new_err(
            "tokens need an array of one dimension and 8 bytes each, such as array('Q')",
        ));
    }
    Ok(numbers)
}

/// See `Queue.get_many`.
#[inline]
pub(super) fn get_many<'py>(
    py: Python<'py>,
    inner: &Inner,
    tokens: &Bound<'py, PyAny>,
    written: Option<&Bound<'py, PyAny>>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    wait::check(timeout)?;
    let (mut place, mut other) = (Export::new(py), Export::new(py));
    let tokens = tokens_array(&mut place, tokens)?;
    let written = written.map(|array| other.numbers(array, true)).transpose()?;
    let most = written.as_ref().map_or(tokens.rows(), |array| array.rows().min(tokens.rows()));
    if most == 0 {
        return Err(PyValueError::new_err("there is no room for any result"));
    }
    let mut results = Results { tokens: tokens.fill(), written: written.as_ref().map(Numbers::fill) };
    // Before anything is taken that an exception would lose (fault M7).
    py.check_signals()?;
    let found = inner.shared.pop_at_hand(most, |done| results.store(done));
    match inner.located(found)? {
        0 => wait_for_many(py, inner, most, &mut results, timeout),
        count => Ok(count),
    }
}

/// Where results go.
struct Results<'a> {
    tokens: Filler<'a>,
    written: Option<Filler<'a>>,
}

impl Results<'_> {
    #[inline(always)]
    fn store(&mut self, done: Done) {
        self.tokens.put(done.token.into_raw());
        if let Some(written) = &mut self.written {
            written.put(done.written.into());
        }
    }
}

#[cold]
fn wait_for_many(
    py: Python<'_>,
    inner: &Inner,
    most: usize,
    results: &mut Results<'_>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    // What others reaped, or errors.
    let found = inner.shared.pop_many(most, |done| results.store(done));
    let found = inner.located(found)?;
    if found != 0 {
        return Ok(found);
    }
    let deadline = wait::deadline(timeout)?;
    let first = py.detach(|| inner.shared.get_with(deadline, wait::look_after_signals));
    results.store(inner.deliver(py, first.map(Done::from))?);
    // An error comes again with the next call.
    let more = inner.shared.pop_many(most.saturating_sub(1), |done| results.store(done));
    Ok(more.unwrap_or(0).saturating_add(1))
}
