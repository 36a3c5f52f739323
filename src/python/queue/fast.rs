//! The way into a queue's quickest methods.
//!
//! PyO3 finds a keyword's parameter by its text, which for two of them takes as long as a request on the ring. Keywords
//! that are written at a call are interned by Python, so that here their addresses are compared. Whatever is not plain
//! goes to the method that PyO3 made: that one has the signature and the text, and refuses what is wrong.
#![expect(
    unsafe_code,
    reason = "methods with CPython's own calling convention, and looks at objects that it lends"
)]

use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use core::ffi::CStr;
use core::ptr::null_mut;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3::{Borrowed, IntoPyObjectExt, ffi};

use super::{Queue, take};
use crate::Result;
use crate::mem::pool::DmaBuf;
use crate::python::batch;
use crate::python::buffer::Buffer;
use crate::python::memory::Flow;

/// Most parameters of a method.
const MOST: usize = 3;

/// What was given for each parameter.
type Given<'a, 'py> = [Option<Borrowed<'a, 'py, PyAny>>; MOST];

/// A method, once it was installed.
struct Method {
    /// PyO3's.
    usual: Py<PyAny>,
    /// Where the interned names of the parameters are, which are kept for ever; 0 where there are no more.
    names: [usize; MOST],
}

/// A method of [`Queue`] that is called often.
trait Quick {
    const NAME: &'static CStr;
    const PARAMETERS: [Option<&'static str>; MOST];

    fn method() -> &'static PyOnceLock<Method>;

    fn call<'py>(queue: &Queue, py: Python<'py>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>>;
}

/// An argument, where it is one.
fn some<'a, 'py>(given: &'a Option<Borrowed<'_, 'py, PyAny>>) -> Option<&'a Bound<'py, PyAny>> {
    given.as_deref().filter(|value| !value.is_none())
}

/// A time limit.
#[inline]
fn limit(given: &Option<Borrowed<'_, '_, PyAny>>) -> PyResult<Option<f64>> {
    some(given).map(|value| value.extract()).transpose()
}

/// Makes a [`Quick`] of a method.
macro_rules! quick {
    ($type:ident $name:literal [$($parameter:expr),*] $call:expr) => {
        struct $type;

        impl Quick for $type {
            const NAME: &'static CStr = $name;
            const PARAMETERS: [Option<&'static str>; MOST] = [$($parameter),*];

            fn method() -> &'static PyOnceLock<Method> {
                static METHOD: PyOnceLock<Method> = PyOnceLock::new();
                &METHOD
            }

            #[inline]
            fn call<'py>(
                queue: &Queue,
                py: Python<'py>,
                given: Given<'_, 'py>,
            ) -> PyResult<Bound<'py, PyAny>> {
                let call: fn(&Queue, Python<'py>, Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> = $call;
                call(queue, py, given)
            }
        }
    };
}

quick!(Add c"add" [Some("readable"), Some("writable"), None] |queue, py, [readable, writable, _]| {
    queue.add(some(&readable), some(&writable))?.into_bound_py_any(py)
});
quick!(Get c"get" [Some("timeout"), None, None] |queue, py, [timeout, ..]| {
    queue.get_in(py, limit(&timeout)?)?.into_bound_py_any(py)
});
quick!(Transfer c"transfer" [Some("readable"), Some("writable"), Some("timeout")] |queue, py, given| {
    let [readable, writable, timeout] = given;
    queue.transfer_in(py, some(&readable), some(&writable), limit(&timeout)?)?.into_bound_py_any(py)
});

quick!(Notify c"notify" [None, None, None] |queue, py, _| {
    queue.notify()?;
    Ok(py.None().into_bound(py))
});
quick!(AddMany c"add_many" [Some("readable_slots"), Some("writable_slots"), Some("tokens")] |queue, py, given| {
    let [readable, writable, tokens] = given;
    batch::add_many(py, &queue.inner, some(&readable), some(&writable), some(&tokens))?.into_bound_py_any(py)
});
quick!(GetMany c"get_many" [Some("tokens"), Some("written"), Some("timeout")] |queue, py, given| {
    let [tokens, written, timeout] = given;
    let missing = || PyTypeError::new_err("Queue.get_many() missing 1 required positional argument: 'tokens'");
    let tokens = tokens.as_deref().ok_or_else(missing)?;
    batch::get_many(py, &queue.inner, tokens, some(&written), limit(&timeout)?)?.into_bound_py_any(py)
});

/// Puts the quick ways in.
pub(in crate::python) fn install(py: Python<'_>) -> PyResult<()> {
    install_one::<Add>(py)?;
    install_one::<Get>(py)?;
    install_one::<Transfer>(py)?;
    install_one::<Notify>(py)?;
    install_one::<AddMany>(py)?;
    install_one::<GetMany>(py)
}

fn install_one<M: Quick>(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Queue>();
    let name = PyString::from_bytes(py, M::NAME.to_bytes())?;
    let usual = class.getattr(&name)?;
    let signature: String = usual.getattr("__text_signature__")?.extract()?;
    let text: String = usual.getattr("__doc__")?.extract()?;
    let text = CString::new(format!("{name}{signature}\n--\n\n{text}"))?;
    let interned = |name: &str| PyString::intern(py, name).into_ptr().addr();
    let names = M::PARAMETERS.map(|name| name.map_or(0, interned));
    if M::method().set(py, Method { usual: usual.unbind(), names }).is_err() {
        return Ok(());
    }
    // Both for the life of the process, as the class is.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: enter::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: CString::into_raw(text),
    }));
    // SAFETY: a class, and a definition whose function has the convention that its flags say; both live for ever.
    let made = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: a new reference, or null with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
    class.setattr(name, made)
}

/// Whether this is built for an interpreter with a global lock: in the others an object has more words than its count and
/// its class.
pub(in crate::python) const LOCKED: bool = size_of::<ffi::PyObject>() == size_of::<[usize; 2]>();

/// Whether nobody but the one who asks has a reference to the object: until he gives one away or detaches. Never without a
/// global lock, where others may at any moment.
#[inline(always)]
pub(in crate::python) fn held_once<T>(_py: Python<'_>, object: &Py<T>) -> bool {
    // SAFETY: an object, alive by the caller's reference, on a thread that is attached.
    LOCKED && unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// Takes the buffer of a side that is one, or a list of one, for its flight; `None` where that is not it.
#[inline(always)]
pub(super) fn take_only(side: &Bound<'_, PyAny>, flow: Flow) -> Result<Option<DmaBuf>> {
    let Ok(list) = side.cast_exact::<PyList>() else {
        return side.cast_exact::<Buffer>().ok().map(|buffer| take(buffer.get(), flow)).transpose();
    };
    if list.len() != 1 {
        return Ok(None);
    }
    if !LOCKED {
        let one = list.get_item(0).ok();
        let buffer = one.as_ref().and_then(|one| one.cast_exact::<Buffer>().ok());
        return buffer.map(|buffer| take(buffer.get(), flow)).transpose();
    }
    // SAFETY: a list, with an item of this index, which it holds: no Python code runs before `one` is used for the last
    // time, and with a global lock no other thread does.
    let one = unsafe { ffi::PyList_GetItem(list.as_ptr(), 0) };
    // SAFETY: as above.
    let one = unsafe { Borrowed::from_ptr(side.py(), one) };
    one.cast_exact::<Buffer>().ok().map(|buffer| take(buffer.get(), flow)).transpose()
}

/// The arguments of a call, as CPython gives them.
#[derive(Clone, Copy)]
struct Arguments<'a, 'py> {
    of: Borrowed<'a, 'py, PyAny>,
    values: *const *mut ffi::PyObject,
    /// Those without a keyword, which come first.
    positional: usize,
    /// A tuple, or null.
    keywords: *mut ffi::PyObject,
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// # Safety
    /// `at` is below the number of arguments.
    #[inline]
    unsafe fn value(&self, at: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: there are more than `at` of them, by the caller's word.
        let value = unsafe { self.values.wrapping_add(at).read() };
        // SAFETY: an object that the caller of the method holds for the length of the call.
        unsafe { Borrowed::from_ptr(self.of.py(), value) }
    }

    #[inline]
    fn keywords(&self) -> usize {
        if self.keywords.is_null() {
            return 0;
        }
        // SAFETY: a tuple.
        usize::try_from(unsafe { ffi::PyTuple_Size(self.keywords) }).unwrap_or(0)
    }

    /// By parameter; `None` where it is not as simple as that.
    #[inline(always)]
    fn arrange(&self, method: &Method) -> Option<Given<'a, 'py>> {
        let mut given: Given<'a, 'py> = [None; MOST];
        if self.positional != 0 {
            self.arrange_positional(method, &mut given)?;
        }
        for at in 0..self.keywords() {
            // SAFETY: inside the tuple; its items are the caller's.
            let keyword = unsafe { ffi::PyTuple_GetItem(self.keywords, at as ffi::Py_ssize_t) }.addr();
            // SAFETY: each keyword has its value after the positional ones.
            let value = unsafe { self.value(self.positional.wrapping_add(at)) };
            let [first, second, third] = &mut given;
            let place = match method.names {
                [name, ..] if name == keyword => first,
                [_, name, _] if name == keyword => second,
                [_, _, name] if name == keyword => third,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(given)
    }

    #[inline(never)]
    fn arrange_positional(&self, method: &Method, given: &mut Given<'a, 'py>) -> Option<()> {
        for at in 0..self.positional {
            method.names.get(at).filter(|&&name| name != 0)?;
            // SAFETY: one of the positional ones.
            *given.get_mut(at)? = Some(unsafe { self.value(at) });
        }
        Some(())
    }

    /// Calls PyO3's method.
    #[cold]
    fn as_usual(&self, method: &Method) -> PyResult<Bound<'py, PyAny>> {
        let py = self.of.py();
        // SAFETY: the positional ones, and those with keywords behind them.
        let value = |at: usize| unsafe { self.value(at) };
        let all = core::iter::once(self.of).chain((0..self.positional).map(value));
        let positional = PyTuple::new(py, all.collect::<alloc::vec::Vec<_>>())?;
        let named = PyDict::new(py);
        for at in 0..self.keywords() {
            // SAFETY: inside the tuple; its items are the caller's.
            let keyword = unsafe { ffi::PyTuple_GetItem(self.keywords, at as ffi::Py_ssize_t) };
            // SAFETY: as above.
            let keyword = unsafe { Borrowed::from_ptr(py, keyword) };
            named.set_item(keyword, value(self.positional.wrapping_add(at)))?;
        }
        method.usual.bind(py).call(positional, Some(&named))
    }
}

#[inline]
fn call<'py, M: Quick>(arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.of.py();
    let nothing = || PyRuntimeError::new_err("the method was not installed");
    let method = M::method().get(py).ok_or_else(nothing)?;
    match arguments.arrange(method) {
        Some(given) => {
            // SAFETY: the method is one of this class, and CPython has looked whether the object is of it.
            let queue = unsafe { arguments.of.cast_unchecked::<Queue>() };
            M::call(queue.get(), py, given)
        }
        None => arguments.as_usual(method),
    }
}

/// # Safety
/// For CPython, which calls attached, with `count` values and one for each item of the tuple `keywords` behind them.
unsafe extern "C" fn enter<M: Quick>(
    of: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the thread is attached until this returns, or detaches and attaches meanwhile through this token.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the object whose method it is, which the caller holds.
    let of = unsafe { Borrowed::from_ptr(py, of) };
    let arguments = Arguments { of, values, positional: usize::try_from(count).unwrap_or(0), keywords };
    let raise = |error: PyErr| {
        error.restore(py);
        null_mut()
    };
    // A panic must not go on into C. One pointer comes out, in a register.
    let done = catch_unwind(AssertUnwindSafe(|| call::<M>(arguments).map_or_else(raise, Bound::into_ptr)));
    done.unwrap_or_else(|_| raise(PyRuntimeError::new_err("a fault of this library: it panicked")))
}
