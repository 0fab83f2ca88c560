//! The C ABI of npcache: `libnpcache.so`, `libnpcache.a` and, generated from this crate, `include/npcache.h`.
//!
//! One file a C type, and in this one what they share. The conventions, for whoever adds a function:
//!
//! - An object is a pointer to a Rust value: a `Box` for what has one owner, an `Arc` for `npcache_buffer`, which is
//!   counted. C sees incomplete types.
//! - Every pointer may be NULL, and is turned into a reference by `borrow`, `borrow_mut` or `text`, which make that
//!   an error. No Rust reference appears in a signature.
//! - No panic crosses the boundary: the body of a function runs in `guard` or `answer`. The user's own function
//!   never does, so that its exceptions pass through; see `npcache_call`.
//! - Out-parameters are cleared first, by `required`, and written on success alone.

#![allow(non_camel_case_types)]

// In the order in which the header is read.
pub mod status;

pub mod error;

pub mod options;

pub mod cache;

pub mod statistics;

pub mod output;

pub mod buffer;

pub mod dlpack;

pub mod function;

pub mod args;

pub mod log;

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use npcache_core::{Error, Result};

use crate::error::npcache_error;
use crate::status::{NPCACHE_ERR_INTERNAL, npcache_status, status_of};

/// Runs `body`; a panic in it, which is a bug in npcache, becomes `otherwise`.
fn guard<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    // Nothing that a panic may leave half done is used afterwards but mutexes, and those are only ever held around
    // what cannot panic.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// Runs `body` and reports its error to `err`.
///
/// # Safety
///
/// `err` is NULL or writable.
unsafe fn answer(
    err: *mut *mut npcache_error,
    body: impl FnOnce() -> Result<npcache_status>,
) -> npcache_status {
    let outcome = guard(Err(None), || body().map_err(Some));
    // SAFETY: the caller's promise.
    unsafe { report(err, outcome) }
}

/// The status of `outcome`, whose error goes to `err`; `Err(None)` stands for a panic.
///
/// # Safety
///
/// `err` is NULL or writable.
unsafe fn report(
    err: *mut *mut npcache_error,
    outcome: Result<npcache_status, Option<Error>>,
) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { give(err, ptr::null_mut()) };
    let (status, error) = match outcome {
        Ok(status) => return status,
        Err(e) if err.is_null() => return e.map_or(NPCACHE_ERR_INTERNAL, |e| status_of(&e)),
        Err(Some(e)) => (status_of(&e), npcache_error::new(&e)),
        Err(None) => (NPCACHE_ERR_INTERNAL, npcache_error::internal()),
    };
    // SAFETY: as above, and not NULL.
    unsafe { give(err, Box::into_raw(Box::new(error))) };
    status
}

/// Writes an out-parameter, if there is one.
///
/// # Safety
///
/// `out` is NULL or writable.
unsafe fn give<T>(out: *mut *mut T, value: *mut T) {
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out.write(value) };
    }
}

/// Frees an object that has one owner.
///
/// # Safety
///
/// `object` is NULL, or from `Box::into_raw` and not freed yet, and no call uses it.
unsafe fn free<T>(object: *mut T) {
    guard((), || {
        if !object.is_null() {
            // SAFETY: the caller's promise.
            drop(unsafe { Box::from_raw(object) });
        }
    });
}

/// Clears an out-parameter that has to be there.
///
/// # Safety
///
/// `out` is NULL or writable.
unsafe fn required<T>(out: *mut *mut T, what: &str) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { give(out, ptr::null_mut()) };
    if out.is_null() { Err(null(what)) } else { Ok(()) }
}

fn null(what: &str) -> Error {
    Error::Argument(format!("`{what}` is NULL"))
}

/// # Safety
///
/// `pointer` is NULL or points to a T that nobody changes during `'a`.
unsafe fn borrow<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// # Safety
///
/// `pointer` is NULL or points to a T that nobody else uses during `'a`.
unsafe fn borrow_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
}

/// # Safety
///
/// `pointer` is NULL or a C string that nobody changes during `'a`.
unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| {
        Error::Argument(format!("`{what}` is not UTF-8: \"{}\"", text.to_bytes().escape_ascii()))
    })
}

/// # Safety
///
/// As [`text`].
unsafe fn optional_text<'a>(pointer: *const c_char, what: &str) -> Result<Option<&'a str>> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(None) } else { unsafe { text(pointer, what) }.map(Some) }
}

/// `len` items from `pointer` on, which may be NULL where there are none.
///
/// # Safety
///
/// `pointer` is NULL or points to `len` items that nobody changes during `'a`.
unsafe fn items<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Error::Argument(format!("`{what}` is NULL, with a length of {len}")));
    }
    if !pointer.is_aligned() {
        return Err(Error::Argument(format!("`{what}` is not aligned")));
    }
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Error::Argument(format!("`{what}` has a length of {len}, more than any memory")));
    }
    // SAFETY: the caller's promise; not NULL, aligned, and no longer than a slice can be.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// The dimensions of an array: `ndim` numbers.
///
/// # Safety
///
/// `shape` is NULL or points to `ndim` numbers that nobody changes during `'a`.
unsafe fn dimensions<'a>(ndim: i32, shape: *const i64) -> Result<&'a [i64]> {
    // Checked before a shape of that length is read.
    let ndim =
        usize::try_from(ndim).ok().filter(|ndim| *ndim <= npcache_core::MAX_NDIM).ok_or_else(|| {
            Error::Argument(format!("`ndim` is {ndim}; it takes 0 to {}", npcache_core::MAX_NDIM))
        })?;
    // SAFETY: the caller's promise.
    unsafe { items(shape, ndim, "shape") }
}

/// The version of this header and library's ABI: 1. It rises when something that a compiled program uses changes, and so
/// does the number in the library's file name, `libnpcache.so.1`.
#[unsafe(no_mangle)]
pub extern "C" fn npcache_abi_version() -> u32 {
    1
}
