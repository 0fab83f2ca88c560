//! `npcache_buffer`: a result, counted; and `npcache_view`, one of its arrays.

use std::ffi::{CStr, c_char, c_void};
use std::mem::{self, ManuallyDrop};
use std::ptr;

use npcache_core::{ArrayBytes, Buffer, Error, Origin, Result};

use crate::error::npcache_error;
use crate::output::{NPCACHE_ORDER_C, NPCACHE_ORDER_F};
use crate::status::{
    NPCACHE_ERR_ARGUMENT, NPCACHE_ERR_INTERNAL, NPCACHE_OK, npcache_status, status_of, status_of_unstored,
};
use crate::{answer, guard, null, required};

/// A result: one or several arrays, read-only, reference counted. It outlives the cache, a clear, and its file.
pub struct npcache_buffer {
    /// C's pointers are those of [`Buffer::into_raw`].
    _private: [u8; 0],
}

/// This call computed it.
pub const NPCACHE_ORIGIN_COMPUTED: i32 = 1;
/// It was in this process's memory.
pub const NPCACHE_ORIGIN_MEMORY: i32 = 2;
/// It was in the directory, or in that of the option lower: npcache_buffer_path tells.
pub const NPCACHE_ORIGIN_DISK: i32 = 3;
/// Another thread computed it while this call waited.
pub const NPCACHE_ORIGIN_SHARED: i32 = 4;

const _: () = {
    assert!(
        NPCACHE_ORIGIN_COMPUTED == Origin::Computed as i32 && NPCACHE_ORIGIN_MEMORY == Origin::Memory as i32
    );
    assert!(NPCACHE_ORIGIN_DISK == Origin::Disk as i32 && NPCACHE_ORIGIN_SHARED == Origin::Shared as i32);
};

/// In the flags of a view: its data may be written to. See npcache_buffer_writable.
pub const NPCACHE_WRITABLE: u32 = 2;

/// One array of a result. Its pointers are valid as long as the buffer.
#[repr(C)]
pub struct npcache_view {
    /// The elements, read-only, aligned to 64 bytes. Not NULL, also without elements.
    pub data: *const c_void,
    /// Bytes of all elements.
    pub nbytes: usize,
    /// `ndim` numbers.
    pub shape: *const i64,
    /// Bytes from an element to the next along each dimension; `ndim` numbers.
    pub strides: *const i64,
    /// numpy's name for the element type: "<f8".
    pub descr: *const c_char,
    /// The array's name, or NULL.
    pub name: *const c_char,
    /// NPCACHE_FLOAT64 and its like; 0 for a type that only `descr` tells.
    pub dtype: i32,
    /// 0 to 32.
    pub ndim: i32,
    /// Bytes of an element.
    pub itemsize: i64,
    /// NPCACHE_ORDER_C or NPCACHE_ORDER_F; with NPCACHE_WRITABLE where `data` may be written to.
    pub flags: u32,
}

/// A reference for C to `buffer`.
pub(crate) fn hand_over(buffer: Buffer) -> *mut npcache_buffer {
    buffer.into_raw().cast_mut().cast()
}

/// The buffer that C's reference stands for, which stays C's.
///
/// # Safety
///
/// `buffer` is NULL or not released.
unsafe fn peek(buffer: *const npcache_buffer) -> Option<ManuallyDrop<Buffer>> {
    // SAFETY: the caller's promise; not dropping it leaves the reference to C.
    (!buffer.is_null()).then(|| ManuallyDrop::new(unsafe { Buffer::from_raw(buffer.cast()) }))
}

/// The buffer and the number of its `i`th array.
///
/// # Safety
///
/// `buffer` is NULL or not released.
pub(crate) unsafe fn array(buffer: *const npcache_buffer, i: i32) -> Result<(ManuallyDrop<Buffer>, usize)> {
    // SAFETY: the caller's promise.
    let buffer = unsafe { peek(buffer) }.ok_or_else(|| null("buffer"))?;
    let count = buffer.arrays().len();
    match usize::try_from(i) {
        Ok(i) if i < count => Ok((buffer, i)),
        _ => Err(Error::Argument(format!("array {i} of a result that has {count}"))),
    }
}

/// How many arrays the result has. 0 for NULL.
///
/// # Safety
///
/// `buffer` is NULL or not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_count(buffer: *const npcache_buffer) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { peek(buffer) }.map_or(0, |buffer| buffer.arrays().len() as i32)
}

/// Describes the `i`th array, in the order in which the function made them.
///
/// - `view`, `view_size`: where to, and its size, sizeof(npcache_view): a program compiled against an older header gets
///   the fields that it knows.
///
/// NPCACHE_ERR_ARGUMENT: there is no `i`th array, or a pointer is NULL; `view` is zeroed then.
///
/// # Safety
///
/// `buffer` is NULL or not released; `view` is NULL or writable for `view_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_view(
    buffer: *const npcache_buffer,
    i: i32,
    view: *mut npcache_view,
    view_size: usize,
) -> npcache_status {
    guard(NPCACHE_ERR_INTERNAL, || {
        if view.is_null() {
            return NPCACHE_ERR_ARGUMENT;
        }
        // SAFETY: the caller's promise.
        unsafe { view.cast::<u8>().write_bytes(0, view_size) };
        // SAFETY: the caller's promise.
        let Ok((buffer, i)) = (unsafe { array(buffer, i) }) else { return NPCACHE_ERR_ARGUMENT };
        let array = &buffer.arrays()[i];
        let filled = npcache_view {
            data: buffer.bytes(i).as_ptr().cast(),
            nbytes: array.nbytes(),
            shape: array.shape().as_ptr(),
            strides: array.strides().as_ptr(),
            descr: array.descr().as_c_str().as_ptr(),
            name: array.c_name().map_or(ptr::null(), |name| name.as_ptr()),
            dtype: array.dtype().map_or(0, |dtype| dtype as i32),
            ndim: array.shape().len() as i32,
            itemsize: array.descr().itemsize() as i64,
            flags: if array.is_fortran_order() { NPCACHE_ORDER_F } else { NPCACHE_ORDER_C }
                | if buffer.is_writable() { NPCACHE_WRITABLE } else { 0 },
        };
        let len = view_size.min(mem::size_of::<npcache_view>());
        // SAFETY: `view` is writable for `view_size` bytes by the caller's promise, and need not be aligned here.
        unsafe { ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), view.cast(), len) };
        NPCACHE_OK
    })
}

/// The elements of the `i`th array, in the order in which they lie in memory, if they are of type `dtype`.
///
/// - `count`: how many, if not NULL; 0 on failure.
///
/// NULL: there is no `i`th array, or its elements are of another type. A stored result is never converted.
///
/// # Safety
///
/// `buffer` is NULL or not released; `count` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_data(
    buffer: *const npcache_buffer,
    i: i32,
    dtype: i32,
    count: *mut usize,
) -> *const c_void {
    guard(ptr::null(), || {
        // SAFETY: the caller's promise.
        let found = unsafe { array(buffer, i) }.ok();
        let found =
            found.filter(|(buffer, i)| buffer.arrays()[*i].dtype().is_some_and(|own| own as i32 == dtype));
        let (data, len) = match found {
            Some((buffer, i)) => {
                let array = &buffer.arrays()[i];
                (buffer.bytes(i).as_ptr().cast(), array.nbytes() / array.descr().itemsize())
            }
            None => (ptr::null(), 0),
        };
        if !count.is_null() {
            // SAFETY: the caller's promise.
            unsafe { count.write(len) };
        }
        data
    })
}

/// Copies the elements of the `i`th array to memory of the caller's.
///
/// - `dst`, `nbytes`: where to; `nbytes` is exactly that of the array.
/// - `order`: NPCACHE_ORDER_C or NPCACHE_ORDER_F, the order in which they are wanted.
///
/// NPCACHE_ERR_ARGUMENT: there is no `i`th array, `dst` is NULL, or its size is another; nothing is written then.
///
/// # Safety
///
/// `buffer` is NULL or not released; `dst` is NULL or writable for `nbytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_read(
    buffer: *const npcache_buffer,
    i: i32,
    dst: *mut c_void,
    nbytes: usize,
    order: u32,
) -> npcache_status {
    let read = || -> Result<()> {
        // SAFETY: the caller's promise.
        let (buffer, i) = unsafe { array(buffer, i) }?;
        let array = &buffer.arrays()[i];
        if nbytes != array.nbytes() {
            return Err(Error::Argument(format!("`nbytes` is {nbytes}, the array's {}", array.nbytes())));
        }
        if !matches!(order, NPCACHE_ORDER_C | NPCACHE_ORDER_F) {
            return Err(Error::Argument(format!("`order` is {order}")));
        }
        if nbytes == 0 {
            return Ok(());
        }
        if dst.is_null() {
            return Err(null("dst"));
        }
        // SAFETY: the caller's promise: writable, not NULL, and as long as the array.
        let dst = unsafe { std::slice::from_raw_parts_mut(dst.cast::<u8>(), nbytes) };
        let (mut shape, mut strides): (Vec<usize>, Vec<isize>) =
            array.shape().iter().zip(array.strides()).map(|(n, step)| (*n as usize, *step as isize)).unzip();
        if order == NPCACHE_ORDER_F {
            // Fortran order is the C order of the transpose.
            shape.reverse();
            strides.reverse();
        }
        ArrayBytes::new(array.descr(), &shape, Some(&strides), buffer.bytes(i), 0)?.copy_in_c_order(dst);
        Ok(())
    };
    guard(NPCACHE_ERR_INTERNAL, || read().map_or_else(|e| status_of(&e), |()| NPCACHE_OK))
}

/// Where the result came from: NPCACHE_ORIGIN_COMPUTED, _MEMORY, _DISK or _SHARED. 0 for NULL.
///
/// # Safety
///
/// `buffer` is NULL or not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_origin(buffer: *const npcache_buffer) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { peek(buffer) }.map_or(0, |buffer| buffer.origin() as i32)
}

/// Whether the cache has the result: 0, or why not, an NPCACHE_UNSTORED status.
///
/// # Safety
///
/// `buffer` is NULL or not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_stored(buffer: *const npcache_buffer) -> npcache_status {
    // SAFETY: the caller's promise.
    match unsafe { peek(buffer) } {
        Some(buffer) => buffer.stored().map_or_else(status_of_unstored, |()| NPCACHE_OK),
        None => NPCACHE_ERR_ARGUMENT,
    }
}

/// The absolute path of the result's file, which numpy.load reads; NULL where it is not stored. It may be removed at any
/// time. Valid as long as the buffer.
///
/// # Safety
///
/// `buffer` is NULL or not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_path(buffer: *const npcache_buffer) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { peek(buffer) }.and_then(|buffer| buffer.c_path().map(CStr::as_ptr)).unwrap_or(ptr::null())
}

/// One more reference to the result, to be released for itself. Returns `buffer`. Any thread, no lock.
///
/// # Safety
///
/// `buffer` is NULL or not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_retain(buffer: *const npcache_buffer) -> *mut npcache_buffer {
    // SAFETY: the caller's promise.
    if let Some(buffer) = unsafe { peek(buffer) } {
        return hand_over(Buffer::clone(&buffer));
    }
    buffer.cast_mut()
}

/// Gives a reference back; the last one frees the result. NULL is a no-op. Any thread, no lock.
///
/// # Safety
///
/// `buffer` is NULL, or a reference that was not released yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_release(buffer: *mut npcache_buffer) {
    // SAFETY: the caller's promise: this reference is its to give.
    guard((), || drop(unsafe { peek(buffer) }.map(ManuallyDrop::into_inner)));
}

/// A result of which only the caller has the memory, to write to: changes reach neither the cache nor anybody else. A
/// large stored result is mapped once more, and only the pages that are written to are copied. The flags of its views
/// have NPCACHE_WRITABLE, which says that `data` may be cast to a pointer to non-const.
///
/// - `out`: the new result; release it with npcache_buffer_release. `buffer` stays as it is.
///
/// # Safety
///
/// `buffer` is NULL or not released; `out` and `err` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_writable(
    buffer: *const npcache_buffer,
    out: *mut *mut npcache_buffer,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let buffer = peek(buffer).ok_or_else(|| null("buffer"))?;
            out.write(hand_over(buffer.to_writable()?));
            Ok(NPCACHE_OK)
        })
    }
}

/// How long computing the result took, in seconds: what a hit saved. 0 for NULL.
///
/// # Safety
///
/// `buffer` is NULL or not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_seconds(buffer: *const npcache_buffer) -> f64 {
    // SAFETY: the caller's promise.
    guard(0.0, || unsafe { peek(buffer) }.map_or(0.0, |buffer| buffer.compute_seconds()))
}
