//! `npcache_args`: the arguments of a call, built one by one, and digests of arrays.

use std::ffi::{OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use npcache_core::{Args, ArrayBytes, ArrayDigest, Canonical, DType, Descr, Error, Key, Result};

use crate::error::npcache_error;
use crate::function::npcache_function;
use crate::status::{NPCACHE_ERR_ARGUMENT, NPCACHE_ERR_INTERNAL, NPCACHE_OK, npcache_status, status_of};
use crate::{answer, borrow, borrow_mut, dimensions, free, guard, items, required, text};

/// The arguments of a call. What is added is read at once, and not kept.
pub struct npcache_args {
    arguments: Arguments,
    /// The first error of an addition: the arguments are not whole.
    error: Option<Error>,
}

enum Arguments {
    Built(Box<Args>),
    Ready(Canonical),
}

impl npcache_args {
    pub(crate) fn canonical(&self) -> Result<Canonical> {
        if let Some(e) = &self.error {
            return Err(e.duplicate());
        }
        match &self.arguments {
            Arguments::Built(args) => args.finish(),
            Arguments::Ready(canonical) => Ok(canonical.clone()),
        }
    }
}

/// The canonical arguments; those of a call without any for NULL.
///
/// # Safety
///
/// `args` is NULL, or not freed and changed by no other call.
pub(crate) unsafe fn canonical(args: *const npcache_args) -> Result<Canonical> {
    // SAFETY: the caller's promise.
    match unsafe { args.as_ref() } {
        Some(args) => args.canonical(),
        None => Args::new().finish(),
    }
}

/// An array that was read once, to be an argument of many calls.
pub struct npcache_digest(ArrayDigest);

/// New arguments, without any yet: the npcache_args_add_ functions add them by position, npcache_args_key names the next one. The same
/// arguments have the same key in every language; docs/keys.md has the bytes.
///
/// An addition that fails leaves the arguments unusable: npcache_begin returns the first error. So the status of each
/// need not be looked at.
///
/// Free it with npcache_args_free. NULL only for want of memory.
#[unsafe(no_mangle)]
pub extern "C" fn npcache_args_new() -> *mut npcache_args {
    guard(ptr::null_mut(), || new_args(Arguments::Built(Box::default())))
}

fn new_args(arguments: Arguments) -> *mut npcache_args {
    Box::into_raw(Box::new(npcache_args { arguments, error: None }))
}

/// Arguments as ready bytes: the same call as npcache_call with these bytes. Nothing can be added to them.
///
/// # Safety
///
/// `bytes` is NULL or readable for `len` bytes; `out` and `err` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_from_bytes(
    bytes: *const c_void,
    len: usize,
    out: *mut *mut npcache_args,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let bytes = items(bytes.cast::<u8>(), len, "bytes")?;
            out.write(new_args(Arguments::Ready(Canonical::from_bytes(bytes))));
            Ok(NPCACHE_OK)
        })
    }
}

/// Frees arguments. NULL is a no-op.
///
/// # Safety
///
/// `args` is NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_free(args: *mut npcache_args) {
    // SAFETY: the caller's promise.
    unsafe { free(args) };
}

/// Adds to arguments; an error is kept for npcache_begin.
///
/// # Safety
///
/// `args` is NULL, or not freed and used by no other call.
unsafe fn add(args: *mut npcache_args, body: impl FnOnce(&mut Args) -> Result<()>) -> npcache_status {
    guard(NPCACHE_ERR_INTERNAL, || {
        // SAFETY: the caller's promise.
        let Ok(args) = (unsafe { borrow_mut(args, "args") }) else { return NPCACHE_ERR_ARGUMENT };
        let added = match &mut args.arguments {
            Arguments::Built(args) => body(args),
            Arguments::Ready(_) => Err(Error::Argument("nothing can be added to ready bytes".to_owned())),
        };
        match added {
            Ok(()) => NPCACHE_OK,
            Err(e) => {
                let status = status_of(&e);
                args.error.get_or_insert(e);
                status
            }
        }
    })
}

/// Adds an integer. Integers of equal value are equal arguments, whatever their width.
///
/// # Safety
///
/// `args` is not freed, and no other call uses it. The same holds for all npcache_args_ functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_int(args: *mut npcache_args, value: i64) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.add_int(value).map(drop)) }
}

/// Adds an unsigned integer; equal to a signed one of equal value.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_uint(args: *mut npcache_args, value: u64) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.add_uint(value).map(drop)) }
}

/// Adds an integer of any width: `magnitude` is its absolute value, `len` bytes, most significant first; `negative` is 0
/// or its sign. Equal to the others of equal value.
///
/// # Safety
///
/// As npcache_args_add_int; `magnitude` is readable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_bigint(
    args: *mut npcache_args,
    negative: i32,
    magnitude: *const c_void,
    len: usize,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        add(args, |args| {
            args.add_bigint(negative != 0, items(magnitude.cast::<u8>(), len, "magnitude")?).map(drop)
        })
    }
}

/// Adds a double, bit for bit: 0.0 and -0.0 differ, and so do NaNs of different payload. A double, a float and an
/// integer of equal value are three arguments.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_float(args: *mut npcache_args, value: f64) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.add_float(value).map(drop)) }
}

/// Adds one value of type `dtype`: an integer type as npcache_args_add_int, NPCACHE_BOOL as npcache_args_add_bool, a
/// floating-point type of its own width bit for bit, a complex one as the array without dimensions.
///
/// # Safety
///
/// As npcache_args_add_int; `value` points to one such value, of any alignment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_scalar(
    args: *mut npcache_args,
    dtype: i32,
    value: *const c_void,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        add(args, |args| {
            let dtype = DType::from_code(dtype)?;
            let bytes = items(value.cast::<u8>(), dtype.itemsize(), "value")?;
            let mut wide = [0; 8];
            wide[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
            let unsigned = u64::from_le_bytes(wide);
            // Shifted up and down again, the sign fills the upper bytes.
            let shift = 64 - 8 * bytes.len().min(8) as u32;
            let signed = ((unsigned << shift) as i64) >> shift;
            match dtype {
                DType::Bool => args.add_bool(unsigned != 0),
                DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64 => args.add_int(signed),
                DType::UInt8 | DType::UInt16 | DType::UInt32 | DType::UInt64 => args.add_uint(unsigned),
                DType::Float16 => args.add_float16_bits(unsigned as u16),
                DType::Float32 => args.add_float32(f32::from_bits(unsigned as u32)),
                DType::Float64 => args.add_float(f64::from_bits(unsigned)),
                DType::Complex64 | DType::Complex128 => {
                    let descr = Descr::from(dtype);
                    args.add_array_bytes(&ArrayBytes::new(&descr, &[], None, bytes, 0)?)
                }
            }
            .map(drop)
        })
    }
}

/// Adds a truth value: false for 0, else true. Not equal to any integer.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_bool(args: *mut npcache_args, value: i32) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.add_bool(value != 0).map(drop)) }
}

/// Adds the value that stands for none: Python's None, Julia's nothing.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_null(args: *mut npcache_args) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.add_null().map(drop)) }
}

/// Adds a text of `len` bytes of UTF-8, which may contain NUL. Not equal to the same bytes as npcache_args_add_bytes.
///
/// # Safety
///
/// As npcache_args_add_int; `value` is readable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_string(
    args: *mut npcache_args,
    value: *const c_char,
    len: usize,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        add(args, |args| {
            let value = std::str::from_utf8(items(value.cast::<u8>(), len, "value")?);
            let value = value.map_err(|e| Error::Argument(format!("a text argument is not UTF-8: {e}")))?;
            args.add_string(value).map(drop)
        })
    }
}

/// Adds `len` bytes. More than 1 MiB are hashed, not copied.
///
/// # Safety
///
/// As npcache_args_add_int; `value` is readable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_bytes(
    args: *mut npcache_args,
    value: *const c_void,
    len: usize,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe { add(args, |args| args.add_bytes(items(value.cast::<u8>(), len, "value")?).map(drop)) }
}

/// Adds a file by its contents, which are read now. Its name does not count.
///
/// NPCACHE_ERR_IO: it cannot be read.
///
/// # Safety
///
/// As npcache_args_add_int; `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_file(
    args: *mut npcache_args,
    path: *const c_char,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        add(args, |args| {
            if path.is_null() {
                return Err(crate::null("path"));
            }
            let path = std::ffi::CStr::from_ptr(path).to_bytes();
            args.add_file(Path::new(OsStr::from_bytes(path))).map(drop)
        })
    }
}

/// Adds an array. Arrays of equal shape, dtype and elements are equal arguments, however they lie in memory.
///
/// - `dtype`: NPCACHE_FLOAT64 and its like.
/// - `ndim`, `shape`: 0 to 32 dimensions. NULL with 0 is one element.
/// - `strides`: bytes from an element to the next along each dimension, of any sign; NULL for C order without gaps.
/// - `buffer`, `buffer_len`: the memory that the array lies in, and its bytes. NULL with 0 for an array without elements.
/// - `offset`: where in it the element with all indices 0 begins; 0 unless a stride is negative.
///
/// NPCACHE_ERR_ARGUMENT: an element would lie outside the buffer; nothing is read then.
///
/// More than 1 MiB are hashed on all cores, with threads that are gone when this returns.
///
/// # Safety
///
/// As npcache_args_add_int; `buffer` is readable for `buffer_len` bytes and nobody changes it meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_array(
    args: *mut npcache_args,
    dtype: i32,
    ndim: i32,
    shape: *const i64,
    strides: *const i64,
    buffer: *const c_void,
    buffer_len: usize,
    offset: usize,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        let memory = Buffer { buffer, len: buffer_len, offset };
        add(args, |args| {
            with_array(DType::from_code(dtype)?.into(), ndim, shape, strides, memory, |array| {
                args.add_array_bytes(array).map(drop)
            })
        })
    }
}

/// npcache_args_add_array for any fixed-size element type, by numpy's name for it; see npcache_output_alloc_descr.
///
/// # Safety
///
/// As npcache_args_add_array; `descr` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_array_descr(
    args: *mut npcache_args,
    descr: *const c_char,
    ndim: i32,
    shape: *const i64,
    strides: *const i64,
    buffer: *const c_void,
    buffer_len: usize,
    offset: usize,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        let memory = Buffer { buffer, len: buffer_len, offset };
        add(args, |args| {
            with_array(text(descr, "descr")?.parse()?, ndim, shape, strides, memory, |array| {
                args.add_array_bytes(array).map(drop)
            })
        })
    }
}

/// Adds an array that was read before: the same argument as the array itself.
///
/// # Safety
///
/// As npcache_args_add_int; `digest` is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_add_digest(
    args: *mut npcache_args,
    digest: *const npcache_digest,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe { add(args, |args| args.add_digest(&borrow(digest, "digest")?.0).map(drop)) }
}

/// Begins a list: what is added up to npcache_args_end is in it. Lists and maps nest at most 64 levels deep.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_begin_list(args: *mut npcache_args) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.begin_list().map(drop)) }
}

/// Begins a map: npcache_args_key before each value, up to npcache_args_end. Its order does not count.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_begin_map(args: *mut npcache_args) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.begin_map().map(drop)) }
}

/// Ends the innermost list or map.
///
/// # Safety
///
/// As npcache_args_add_int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_end(args: *mut npcache_args) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { add(args, |args| args.end().map(drop)) }
}

/// Names the value that is added next: a key in a map, or outside of all lists and maps a keyword argument, whose place
/// among the others does not count. Each name once.
///
/// # Safety
///
/// As npcache_args_add_int; `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_args_key(args: *mut npcache_args, name: *const c_char) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe { add(args, |args| args.key(text(name, "name")?).map(drop)) }
}

/// Reads an array once, so that it can be an argument of many calls at no cost. It does not follow later changes of the
/// array. `descr` is numpy's name for the element type ("<f8" for a double); the others as for npcache_args_add_array.
///
/// - `out`: the digest; free it with npcache_digest_free.
///
/// # Safety
///
/// As npcache_args_add_array_descr; `out` and `err` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_digest_new(
    descr: *const c_char,
    ndim: i32,
    shape: *const i64,
    strides: *const i64,
    buffer: *const c_void,
    buffer_len: usize,
    offset: usize,
    out: *mut *mut npcache_digest,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let descr = text(descr, "descr")?.parse()?;
            let memory = Buffer { buffer, len: buffer_len, offset };
            let digest =
                with_array(descr, ndim, shape, strides, memory, |array| Ok(ArrayDigest::new(array)))?;
            out.write(Box::into_raw(Box::new(npcache_digest(digest))));
            Ok(NPCACHE_OK)
        })
    }
}

/// Frees a digest. NULL is a no-op.
///
/// # Safety
///
/// `digest` is NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_digest_free(digest: *mut npcache_digest) {
    // SAFETY: the caller's promise.
    unsafe { free(digest) };
}

/// Writes the key of a call as 64 hexadecimal digits and a NUL: the name of its file.
///
/// - `args`: NULL for none.
/// - `key`: room for 65 characters.
///
/// # Safety
///
/// `function` and `args` are not freed; `key` is NULL or writable for 65 bytes; `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_function_key(
    function: *const npcache_function,
    args: *const npcache_args,
    key: *mut c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            if key.is_null() {
                return Err(crate::null("key"));
            }
            key.write(0);
            let identity = borrow(function, "function")?.ready()?.identity();
            let text = Key::new(identity, &canonical(args)?).to_string();
            ptr::copy_nonoverlapping(text.as_ptr(), key.cast(), text.len());
            key.add(text.len()).write(0);
            Ok(NPCACHE_OK)
        })
    }
}

/// An array's memory as C gives it.
struct Buffer {
    buffer: *const c_void,
    len: usize,
    offset: usize,
}

/// Calls `body` with the array that lies in `memory`.
///
/// # Safety
///
/// `shape` and `strides` are NULL or have `ndim` numbers; `memory` is readable for its length.
unsafe fn with_array<T>(
    descr: Descr,
    ndim: i32,
    shape: *const i64,
    strides: *const i64,
    memory: Buffer,
    body: impl FnOnce(&ArrayBytes<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: the caller's promises.
    unsafe {
        let shape = shape_of(ndim, shape)?;
        let strides = strides_of(shape.len(), strides)?;
        let bytes = items(memory.buffer.cast::<u8>(), memory.len, "buffer")?;
        body(&ArrayBytes::new(&descr, &shape, strides.as_deref(), bytes, memory.offset)?)
    }
}

/// # Safety
///
/// `shape` is NULL or has `ndim` numbers.
pub(crate) unsafe fn shape_of(ndim: i32, shape: *const i64) -> Result<Vec<usize>> {
    // SAFETY: the caller's promise.
    let shape = unsafe { dimensions(ndim, shape) }?;
    let negative = || Error::Argument(format!("`shape` has a negative dimension: {shape:?}"));
    shape.iter().map(|n| usize::try_from(*n).map_err(|_| negative())).collect()
}

/// # Safety
///
/// `strides` is NULL or has `ndim` numbers.
pub(crate) unsafe fn strides_of(ndim: usize, strides: *const i64) -> Result<Option<Vec<isize>>> {
    if strides.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let strides = unsafe { items(strides, ndim, "strides") }?;
    Ok(Some(strides.iter().map(|step| *step as isize).collect()))
}
