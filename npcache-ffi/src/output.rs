//! `npcache_output`: one result under construction.

use std::ffi::{c_char, c_void};
use std::ptr;

use npcache_core::{ArrayBytes, DType, Descr, Error, Output, Result};

use crate::buffer::{hand_over, npcache_buffer};
use crate::error::npcache_error;
use crate::status::{NPCACHE_ERR_ARGUMENT, NPCACHE_OK, npcache_status, status_of};
use crate::{answer, borrow_mut, dimensions, guard, optional_text, required, text};

/// One result under construction: belongs to the one caller that computes it.
pub struct npcache_output {
    output: Output,
    /// npcache_call made it for the time of its callback, and ends it itself.
    lent: bool,
}

impl npcache_output {
    pub(crate) fn lent(output: Output) -> npcache_output {
        npcache_output { output, lent: true }
    }

    pub(crate) fn owned(output: Output) -> npcache_output {
        npcache_output { output, lent: false }
    }

    pub(crate) fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }

    pub(crate) fn end(self) -> Result<npcache_core::Buffer> {
        self.output.end()
    }
}

/// Arrays in C (row-major) order: the last index varies fastest.
pub const NPCACHE_ORDER_C: u32 = 0;
/// Arrays in Fortran (column-major) order: the first index varies fastest.
pub const NPCACHE_ORDER_F: u32 = 1;

/// 1 byte, 0 or 1.
pub const NPCACHE_BOOL: i32 = 1;
/// int8_t.
pub const NPCACHE_INT8: i32 = 2;
/// int16_t.
pub const NPCACHE_INT16: i32 = 3;
/// int32_t.
pub const NPCACHE_INT32: i32 = 4;
/// int64_t.
pub const NPCACHE_INT64: i32 = 5;
/// uint8_t.
pub const NPCACHE_UINT8: i32 = 6;
/// uint16_t.
pub const NPCACHE_UINT16: i32 = 7;
/// uint32_t.
pub const NPCACHE_UINT32: i32 = 8;
/// uint64_t.
pub const NPCACHE_UINT64: i32 = 9;
/// IEEE 754 half precision.
pub const NPCACHE_FLOAT16: i32 = 10;
/// float.
pub const NPCACHE_FLOAT32: i32 = 11;
/// double.
pub const NPCACHE_FLOAT64: i32 = 12;
/// Two floats: real, imaginary.
pub const NPCACHE_COMPLEX64: i32 = 13;
/// Two doubles: real, imaginary.
pub const NPCACHE_COMPLEX128: i32 = 14;

// Literals, since cbindgen does not evaluate; these are the core's numbers.
const _: () = {
    assert!(NPCACHE_BOOL == DType::Bool as i32 && NPCACHE_INT64 == DType::Int64 as i32);
    assert!(NPCACHE_UINT8 == DType::UInt8 as i32 && NPCACHE_UINT64 == DType::UInt64 as i32);
    assert!(NPCACHE_FLOAT16 == DType::Float16 as i32 && NPCACHE_COMPLEX128 == DType::Complex128 as i32);
};

fn is_fortran_order(flags: u32) -> Result<bool> {
    match flags {
        NPCACHE_ORDER_C => Ok(false),
        NPCACHE_ORDER_F => Ok(true),
        _ => Err(Error::Argument(format!("`flags` is {flags}; it takes NPCACHE_ORDER_C or NPCACHE_ORDER_F"))),
    }
}

/// Adds an array to the result and returns its memory, for the function to fill in place.
///
/// - `array_name`: up to 1,024 bytes; NULL or "" for none. No two arrays of a result have the same.
/// - `dtype`: NPCACHE_FLOAT64 and its like.
/// - `ndim`, `shape`: 0 to 32 dimensions. NULL with 0 is one element.
/// - `flags`: NPCACHE_ORDER_C or NPCACHE_ORDER_F.
///
/// The memory is zeroed, aligned to 64 bytes, and valid until the output is ended. Not NULL for an array without
/// elements. NULL: an argument is wrong or there is no memory; npcache_output_commit then returns the error, and the
/// call reports it.
///
/// # Safety
///
/// `output` is not ended, and no other call uses it; `shape` has `ndim` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_output_alloc(
    output: *mut npcache_output,
    array_name: *const c_char,
    dtype: i32,
    ndim: i32,
    shape: *const i64,
    flags: u32,
) -> *mut c_void {
    // SAFETY: the caller's promises.
    unsafe { alloc(output, array_name, || Ok(DType::from_code(dtype)?.into()), ndim, shape, flags) }
}

/// npcache_output_alloc for any fixed-size element type, by numpy's name for it: `>f4`, `<U10`, `|S5`, `<M8[ns]`, or
/// for a structure `[('x', '<f8'), ('label', '|S4')]`. Object types are refused.
///
/// # Safety
///
/// As npcache_output_alloc; `descr` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_output_alloc_descr(
    output: *mut npcache_output,
    array_name: *const c_char,
    descr: *const c_char,
    ndim: i32,
    shape: *const i64,
    flags: u32,
) -> *mut c_void {
    // SAFETY: the caller's promises.
    unsafe { alloc(output, array_name, || text(descr, "descr")?.parse(), ndim, shape, flags) }
}

/// # Safety
///
/// As npcache_output_alloc.
unsafe fn alloc(
    output: *mut npcache_output,
    array_name: *const c_char,
    descr: impl FnOnce() -> Result<Descr>,
    ndim: i32,
    shape: *const i64,
    flags: u32,
) -> *mut c_void {
    let memory = |output: &mut Output| -> Result<*mut c_void> {
        // SAFETY: the caller's promises.
        let (name, shape) = unsafe { (optional_text(array_name, "array_name")?, dimensions(ndim, shape)?) };
        Ok(output.alloc_bytes(name, descr()?, shape, is_fortran_order(flags)?)?.as_mut_ptr().cast())
    };
    guard(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let Ok(output) = (unsafe { borrow_mut(output, "output") }) else { return ptr::null_mut() };
        memory(&mut output.output).unwrap_or_else(|e| {
            output.output.keep_error(e);
            ptr::null_mut()
        })
    })
}

/// Runs `body` on an output; its error is kept for npcache_output_commit too.
///
/// # Safety
///
/// `output` is NULL, or not ended and used by no other call.
unsafe fn change(
    output: *mut npcache_output,
    body: impl FnOnce(&mut Output) -> Result<()>,
) -> npcache_status {
    guard(crate::status::NPCACHE_ERR_INTERNAL, || {
        // SAFETY: the caller's promise.
        let Ok(output) = (unsafe { borrow_mut(output, "output") }) else { return NPCACHE_ERR_ARGUMENT };
        match body(&mut output.output) {
            Ok(()) => NPCACHE_OK,
            Err(e) => {
                let status = status_of(&e);
                output.output.keep_error(e);
                status
            }
        }
    })
}

/// Adds a copy of an array to the result.
///
/// - `array_name`, `dtype`, `ndim`, `shape`: as for npcache_output_alloc.
/// - `strides`: bytes from an element to the next along each dimension, of any sign; NULL for C order. The copy keeps
///   Fortran order; any other is stored in C order.
/// - `data`: the element with all indices 0.
///
/// An error is returned again by npcache_output_commit.
///
/// # Safety
///
/// As npcache_output_alloc; `strides` is NULL or has `ndim` numbers, and every element that they reach can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_output_write(
    output: *mut npcache_output,
    array_name: *const c_char,
    dtype: i32,
    ndim: i32,
    shape: *const i64,
    strides: *const i64,
    data: *const c_void,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        change(output, |output| {
            let descr = Descr::from(DType::from_code(dtype)?);
            let name = optional_text(array_name, "array_name")?;
            let shape = crate::args::shape_of(ndim, shape)?;
            let strides = crate::args::strides_of(shape.len(), strides)?;
            let (before, after) = ArrayBytes::extent(&descr, &shape, strides.as_deref())?;
            let buffer = if before + after == 0 {
                &[][..]
            } else {
                let first =
                    ptr::NonNull::new(data.cast_mut().cast::<u8>()).ok_or_else(|| crate::null("data"))?;
                std::slice::from_raw_parts(first.as_ptr().sub(before), before + after)
            };
            output.write_bytes(name, &ArrayBytes::new(&descr, &shape, strides.as_deref(), buffer, before)?)
        })
    }
}

/// Records something about the run in the stored file, without it being part of the key: a library's version, the number
/// of threads. The last value of a name stays.
///
/// - `name`: up to 1,024 bytes. `value`: up to 4,096 bytes.
///
/// # Safety
///
/// `output` is not ended, and no other call uses it; `name` and `value` are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_output_note(
    output: *mut npcache_output,
    name: *const c_char,
    value: *const c_char,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe { change(output, |output| output.note(text(name, "name")?, text(value, "value")?)) }
}

/// Declares the result whole. Without it nothing is stored, whatever the function returns.
///
/// Any error: that of the first call on this output that failed; or NPCACHE_ERR_ARGUMENT, there is no array.
///
/// # Safety
///
/// `output` is not ended, and no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_output_commit(output: *mut npcache_output) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { change(output, Output::commit) }
}

/// Says why there will be no result: the message reaches the caller's error. Nothing is stored, even if it is committed.
///
/// # Safety
///
/// `output` is not ended, and no other call uses it; `message` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_output_fail(
    output: *mut npcache_output,
    message: *const c_char,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        change(output, |output| {
            output.fail(text(message, "message")?);
            Ok(())
        })
    }
}

/// The second half of a call: stores the result if it was committed, and hands it to those who wait for it; else the
/// next of them computes.
///
/// - `todo`: from npcache_begin; gone afterwards, whatever this returns. Not one that npcache_call gave a function.
///   NULL is an error.
/// - `out`: the result; release it with npcache_buffer_release. NULL: not wanted, it is stored only.
///
/// 0: the result is whole. NPCACHE_ERR_NOT_COMMITTED: it was not committed. NPCACHE_ERR_FUNCTION: npcache_output_fail was
/// called. Otherwise the first error of a call on this output. In any thread.
///
/// # Safety
///
/// `todo` is NULL or not ended; `out` and `err` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_end(
    todo: *mut npcache_output,
    out: *mut *mut npcache_buffer,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            let _ = required(out, "out");
            if borrow_mut(todo, "todo")?.lent {
                let message = "`todo` belongs to npcache_call, which ends it when the function returns";
                return Err(Error::Argument(message.to_owned()));
            }
            let buffer = Box::from_raw(todo).end()?;
            if !out.is_null() {
                out.write(hand_over(buffer));
            }
            Ok(NPCACHE_OK)
        })
    }
}
