//! `npcache`: an open cache, and the one call that does everything.

use std::ffi::{CStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use npcache_core::{Begun, Cache, Canonical, Error, Options, Result, Version, Wait};

use crate::buffer::{hand_over, npcache_buffer};
use crate::error::npcache_error;
use crate::options::npcache_options;
use crate::output::npcache_output;
use crate::status::{NPCACHE_OK, npcache_status};
use crate::{answer, borrow, free, give, guard, items, optional_text, report, required, text};

/// An open cache. It can be used from any thread, and after fork() in the child.
pub struct npcache(pub(crate) Cache);

/// npcache_clear: remove the directory as well.
pub const NPCACHE_CLEAR_REMOVE_DIR: u32 = 1;

/// A function whose results are cached.
///
/// `user_data` and `args` are the caller's own pointers. It makes its arrays with npcache_output_alloc or
/// npcache_output_write, calls npcache_output_commit(out) and returns 0; any other number is its own error code. It may
/// call the cache again, and it may throw a C++ exception or call pthread_exit: nothing is stored then, and the next
/// caller that waits computes. (A longjmp out of it leaves others waiting for lock_timeout.)
pub type npcache_fn = Option<
    unsafe extern "C-unwind" fn(
        user_data: *mut c_void,
        args: *const c_void,
        args_len: usize,
        out: *mut npcache_output,
    ) -> i32,
>;

/// Opens the cache in a directory.
///
/// - `path`: the directory; made with its parents if it is not there. NULL for a cache without one: every call
///   computes.
/// - `options`: NULL for the defaults.
/// - `out`: the cache; free it with npcache_free.
///
/// NPCACHE_ERR_DIRECTORY or NPCACHE_ERR_IO: the path is a file, cannot be made, is not a cache yet and cannot be
/// written, or was written by a newer format. A cache that cannot be written is no error: results in it are found,
/// others are computed.
///
/// Costs a few dozen system calls, independent of what is stored.
///
/// # Safety
///
/// `path` is NULL or a C string, `options` NULL or not freed, `out` and `err` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_new(
    path: *const c_char,
    options: *const npcache_options,
    out: *mut *mut npcache,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let options = options.as_ref().map_or_else(Options::new, |options| options.0.clone());
            let cache = if path.is_null() {
                options.compute_only()?
            } else {
                let path = CStr::from_ptr(path).to_bytes();
                if path.is_empty() {
                    return Err(Error::Argument(
                        "`path` is empty; NULL opens a cache without a directory".to_owned(),
                    ));
                }
                options.open(Path::new(std::ffi::OsStr::from_bytes(path)))?
            };
            out.write(Box::into_raw(Box::new(npcache(cache))));
            Ok(NPCACHE_OK)
        })
    }
}

/// Closes a cache. Results, functions and outputs made with it stay usable. NULL is a no-op.
///
/// # Safety
///
/// `cache` is NULL, or from npcache_new and not freed yet, and no call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_free(cache: *mut npcache) {
    // SAFETY: the caller's promise.
    unsafe { free(cache) };
}

/// The result of a call of `function`: found, or computed now, by one caller while all others that ask for the
/// same, in any process, wait.
///
/// - `name`: the function's name, 1 to 4,096 bytes.
/// - `version`: which code computes it. NULL for the build ID of the program or library that `function` is in: a rebuild
///   that changes it computes anew. Any other text is your promise that results stay the same as long as it does, and
///   shares them with other programs. "" promises it for ever.
/// - `args`, `args_len`: the argument bytes, which identify the call: equal bytes, equal call. NULL with 0 is
///   legal. They are read before `function` is called, so it may overwrite them.
/// - `user_data`: given to `function`; not part of the key.
/// - `out`: the result; release it with npcache_buffer_release.
///
/// 0 exactly when `*out` is set. That the result could not be stored is no error: npcache_buffer_stored tells.
/// NPCACHE_ERR_FUNCTION: `function` returned non-zero, and npcache_error_function_code gives it.
/// NPCACHE_ERR_NOT_COMMITTED: it returned 0 without a commit. NPCACHE_ERR_BUILD_ID: `version` is NULL and there is no
/// build ID (link with -Wl,--build-id; a callback of ctypes or Julia has none, give a version).
///
/// Blocks while `function` runs, or while another caller computes the same, for at most the option lock_timeout; then
/// it computes too. `function` must not wait for other callers of the same key (an MPI barrier, say): with the option
/// flight=off it may, but then it hangs where one caller finds the result and another does not: docs/mpi.md has what holds.
/// Its exceptions pass through this call.
///
/// # Safety
///
/// Pointers are NULL or valid, `args` for `args_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn npcache_call(
    cache: *mut npcache,
    name: *const c_char,
    version: *const c_char,
    args: *const c_void,
    args_len: usize,
    function: npcache_fn,
    user_data: *mut c_void,
    out: *mut *mut npcache_buffer,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // What is remembered is found without copying or checking more than that takes.
    let recall = || {
        if cache.is_null() || name.is_null() || version.is_null() || out.is_null() {
            return None;
        }
        // SAFETY: the caller's promises, for each pointer, none of which is NULL.
        unsafe {
            let bytes = items(args.cast::<u8>(), args_len, "args").ok()?;
            let (name, version) = (CStr::from_ptr(name), CStr::from_ptr(version));
            let buffer = (*cache).0.recall(name.to_bytes(), version.to_bytes(), bytes)?;
            out.write(hand_over(buffer));
            Some(())
        }
    };
    if function.is_some() && guard(None, recall).is_some() {
        // SAFETY: the caller's promise.
        unsafe { give(err, ptr::null_mut()) };
        return NPCACHE_OK;
    }
    // SAFETY: the caller's promises are this function's.
    unsafe { find_or_compute(cache, name, version, args, args_len, function, user_data, out, err) }
}

/// [`npcache_call`], where nothing is remembered.
///
/// # Safety
///
/// As for that.
#[inline(never)]
#[allow(clippy::too_many_arguments)]
unsafe fn find_or_compute(
    cache: *mut npcache,
    name: *const c_char,
    version: *const c_char,
    args: *const c_void,
    args_len: usize,
    function: npcache_fn,
    user_data: *mut c_void,
    out: *mut *mut npcache_buffer,
    err: *mut *mut npcache_error,
) -> npcache_status {
    let begin = || -> Result<_> {
        // SAFETY: the caller's promises, for each pointer.
        unsafe {
            required(out, "out")?;
            let cache = borrow(cache, "cache")?;
            let name = text(name, "name")?;
            let function = function.ok_or_else(|| Error::Argument("`function` is NULL".to_owned()))?;
            let bytes = items(args.cast::<u8>(), args_len, "args")?;
            let version = match optional_text(version, "version")? {
                Some(version) => Version::from(version),
                None => Version::BuildOf(function as *const c_void),
            };
            let begun =
                cache.0.function(name, version)?.begin(&Canonical::from_bytes(bytes), Wait::Patiently)?;
            // A task is large; boxed here, it does not weigh on the hits that pass the same way.
            Ok(match begun {
                Begun::Hit(buffer) => Ok(buffer),
                Begun::Todo(output) => Err((Box::new(npcache_output::lent(output)), function)),
                Begun::Busy => unreachable!("a patient caller ends up computing"),
            })
        }
    };
    let output = match guard(Err(None), || begin().map_err(Some)) {
        Ok(Err((mut output, function))) => {
            // Bare: no guard of ours is on the stack, so an exception or a cancelled thread unwinds through this
            // frame, dropping the output on its way, which ends the flight.
            // SAFETY: the user's own function with the user's own pointers, and an output that lives until it returns.
            let code = unsafe { function(user_data, args, args_len, &raw mut *output) };
            Ok(Err((output, code)))
        }
        Ok(Ok(buffer)) => Ok(Ok(buffer)),
        Err(e) => Err(e),
    };
    let outcome = output.and_then(|found| {
        let finish = || {
            let buffer = match found {
                Ok(buffer) => buffer,
                Err((output, 0)) => output.end()?,
                Err((mut output, code)) => return Err(output.output_mut().function_error(code)),
            };
            // SAFETY: checked by `begin`, and writable by the caller's promise.
            unsafe { out.write(hand_over(buffer)) };
            Ok(NPCACHE_OK)
        };
        guard(Err(None), || finish().map_err(Some))
    });
    // SAFETY: the caller's promise.
    unsafe { report(err, outcome) }
}

/// Removes all stored results. What was computed before this returns, or is being computed, here or in any other process,
/// is not found afterwards. Only what npcache made is removed; buffers stay valid.
///
/// - `flags`: 0, or NPCACHE_CLEAR_REMOVE_DIR to remove the directory too. The cache then computes every call.
///
/// NPCACHE_ERR_NOT_EMPTY: the directory holds files that npcache did not make, some of which the message names. It
/// stays, an empty cache.
///
/// # Safety
///
/// `cache` is not freed; `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_clear(
    cache: *mut npcache,
    flags: u32,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        answer(err, || {
            let cache = borrow(cache, "cache")?;
            match flags {
                0 => cache.0.clear()?,
                NPCACHE_CLEAR_REMOVE_DIR => cache.0.remove()?,
                _ => {
                    let message = format!("`flags` is {flags}; it takes 0 or NPCACHE_CLEAR_REMOVE_DIR");
                    return Err(Error::Argument(message));
                }
            }
            Ok(NPCACHE_OK)
        })
    }
}

/// Sets a bound for all who use the directory, now and in future, and do not set it by an option of their own.
///
/// - `name`, `value`: max_bytes, max_entries, max_age, min_free_bytes or policy, as npcache_options_set takes them.
///
/// It is kept in the directory. Where it makes the stored results too many, they go while others are stored, up to 64
/// each time. Other processes of this machine know of it from their next call.
///
/// NPCACHE_ERR_ARGUMENT: there is no such bound, it takes no such value, or the cache has no directory or is open
/// read-only. NPCACHE_ERR_IO or NPCACHE_ERR_DIRECTORY: the directory cannot be written.
///
/// # Safety
///
/// `cache` is not freed; `name` and `value` are C strings; `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_configure(
    cache: *mut npcache,
    name: *const c_char,
    value: *const c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            borrow(cache, "cache")?.0.configure(text(name, "name")?, text(value, "value")?)?;
            Ok(NPCACHE_OK)
        })
    }
}

/// npcache_clear for one function, by its name, with all its versions.
///
/// # Safety
///
/// `cache` is not freed; `name` is a C string; `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_clear_function(
    cache: *mut npcache,
    name: *const c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        answer(err, || {
            borrow(cache, "cache")?.0.clear_function(text(name, "name")?)?;
            Ok(NPCACHE_OK)
        })
    }
}
