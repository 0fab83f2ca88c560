//! `npcache_function`: a function by its name and version, and the two halves of a call.

use std::ffi::{CString, c_char, c_void};
use std::time::Duration;

use npcache_core::{Begun, Cache, Error, Function, Result, Version, Wait};

use crate::args::{canonical, npcache_args};
use crate::buffer::{hand_over, npcache_buffer};
use crate::cache::npcache;
use crate::error::npcache_error;
use crate::output::npcache_output;
use crate::status::{NPCACHE_BUSY, NPCACHE_OK, npcache_status};
use crate::{answer, borrow, borrow_mut, free, guard, null, optional_text, required, text};

/// A function whose calls are cached: its name, its version, and what else its results depend on.
pub struct npcache_function(State);

enum State {
    /// Made without a version: the first object gives it.
    Unversioned(Cache, String),
    Ready(Function),
}

impl npcache_function {
    pub(crate) fn ready(&self) -> Result<&Function> {
        match &self.0 {
            State::Ready(function) => Ok(function),
            State::Unversioned(_, name) => Err(Error::BuildId(format!(
                "function `{name}` has no version yet: give one to npcache_function_new, or name the code that \
                 computes it by npcache_function_add_object"
            ))),
        }
    }

    fn ready_mut(&mut self) -> Result<&mut Function> {
        self.ready()?;
        match &mut self.0 {
            State::Ready(function) => Ok(function),
            State::Unversioned(..) => unreachable!("checked above"),
        }
    }
}

/// Describes a function whose calls are cached.
///
/// - `name`: 1 to 4,096 bytes.
/// - `version`: as for npcache_call. With NULL, the first npcache_function_add_object gives the version, the build ID
///   of the code at that address, and has to come before npcache_begin.
/// - `out`: the function; free it with npcache_function_free. It keeps the cache open.
///
/// # Safety
///
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_function_new(
    cache: *mut npcache,
    name: *const c_char,
    version: *const c_char,
    out: *mut *mut npcache_function,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let cache = &borrow(cache, "cache")?.0;
            let name = text(name, "name")?;
            let state = match optional_text(version, "version")? {
                Some(version) => State::Ready(cache.function(name, version)?),
                None => {
                    cache.function(name, "")?; // the name is checked now
                    State::Unversioned(cache.clone(), name.to_owned())
                }
            };
            out.write(Box::into_raw(Box::new(npcache_function(state))));
            Ok(NPCACHE_OK)
        })
    }
}

/// Declares that results depend on the code of the program or library that holds `address`: on its build ID. For a
/// function made without a version, the first such object gives the version.
///
/// NPCACHE_ERR_BUILD_ID: there is none. Not while another call uses the function.
///
/// # Safety
///
/// `function` is not freed; `err` is NULL or writable. `address` is not called or read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_function_add_object(
    function: *mut npcache_function,
    address: Option<unsafe extern "C" fn()>,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        answer(err, || {
            let function = borrow_mut(function, "function")?;
            let address =
                address.ok_or_else(|| Error::Argument("`address` is NULL".to_owned()))? as *const c_void;
            match &mut function.0 {
                State::Unversioned(cache, name) => {
                    function.0 = State::Ready(cache.function(name, Version::BuildOf(address))?);
                }
                State::Ready(function) => function.add_object(address)?,
            }
            Ok(NPCACHE_OK)
        })
    }
}

/// Declares that results depend on `value`, called `name`: the version of a library, an environment variable's content.
/// Another value is another call. The order of declarations does not matter. Not while another call uses the function.
///
/// # Safety
///
/// `function` is not freed; `name` and `value` are C strings; `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_function_add_dependency(
    function: *mut npcache_function,
    name: *const c_char,
    value: *const c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        answer(err, || {
            let function = borrow_mut(function, "function")?.ready_mut()?;
            function.add_dependency(text(name, "name")?, text(value, "value")?)?;
            Ok(NPCACHE_OK)
        })
    }
}

/// Sets an option of one function:
///
/// - `flight`: as for npcache_options_set;
/// - `layout`: `equal` (default: arrays of equal contents are equal arguments, however they lie in memory) or `strict`
///   (calls with arrays in C order, in Fortran order and with gaps are kept apart, for functions whose rounding
///   depends on it).
///
/// Not while another call uses the function.
///
/// # Safety
///
/// `function` is not freed; `name` and `value` are C strings; `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_function_set(
    function: *mut npcache_function,
    name: *const c_char,
    value: *const c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        answer(err, || {
            let function = borrow_mut(function, "function")?.ready_mut()?;
            function.set(text(name, "name")?, text(value, "value")?)?;
            Ok(NPCACHE_OK)
        })
    }
}

/// Frees a function. Outputs and buffers made with it stay valid. NULL is a no-op.
///
/// # Safety
///
/// `function` is NULL, or from npcache_function_new and not freed yet, and no call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_function_free(function: *mut npcache_function) {
    // SAFETY: the caller's promise.
    unsafe { free(function) };
}

/// The first half of a call: the result, or the task of computing it. For hosts with exceptions or a garbage collector,
/// which compute in their own language in between.
///
/// - `args`: the arguments; NULL for none, as empty ones from npcache_args_new (which are not the same as zero ready
///   bytes). They are not changed and can be used again.
/// - `wait_ms`: how long to wait while another caller computes the same: milliseconds, 0 not at all, -1 as long
///   as the option lock_timeout says. Calls that come back busy one after the other count as one wait: after
///   lock_timeout in all, this one computes too. So a loop of short waits can look for Ctrl-C in between.
/// - `hit`: the result, if there is one; release it with npcache_buffer_release.
/// - `todo`: else the task: make the arrays, npcache_output_commit, and in any case npcache_end.
///
/// 0: exactly one of `*hit` and `*todo` is set. NPCACHE_BUSY: neither, another caller computes it and the wait is
/// over. An error: neither.
///
/// # Safety
///
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_begin(
    function: *mut npcache_function,
    args: *const npcache_args,
    wait_ms: i64,
    hit: *mut *mut npcache_buffer,
    todo: *mut *mut npcache_output,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(hit, "hit").and(required(todo, "todo"))?;
            let function = borrow(function, "function")?.ready()?;
            let wait = match wait_ms {
                -1 => Wait::Patiently,
                0.. => Wait::AtMost(Duration::from_millis(wait_ms.unsigned_abs())),
                _ => return Err(Error::Argument(format!("`wait_ms` is {wait_ms}; it takes -1, 0 or more"))),
            };
            match function.begin(&canonical(args)?, wait)? {
                Begun::Hit(buffer) => hit.write(hand_over(buffer)),
                Begun::Todo(output) => todo.write(Box::into_raw(Box::new(npcache_output::owned(output)))),
                Begun::Busy => return Ok(NPCACHE_BUSY),
            }
            Ok(NPCACHE_OK)
        })
    }
}

/// The stored result of a call, if there is one: never computes, never waits. In npcache_stats it is a hit where there is
/// one, and nothing where there is none.
///
/// - `args`: NULL for none.
/// - `hit`: the result, to be released with npcache_buffer_release; NULL where it is not stored, which is no error.
///
/// # Safety
///
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_lookup(
    function: *mut npcache_function,
    args: *const npcache_args,
    hit: *mut *mut npcache_buffer,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(hit, "hit")?;
            if let Some(buffer) = borrow(function, "function")?.ready()?.lookup(&canonical(args)?) {
                hit.write(hand_over(buffer));
            }
            Ok(NPCACHE_OK)
        })
    }
}

/// Whether a call would be answered without computing: whether npcache_lookup would find its result. Never computes, never
/// waits, and is not counted in npcache_stats.
///
/// - `args`: NULL for none.
/// - `cached`: 1 or 0.
///
/// # Safety
///
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_is_cached(
    function: *mut npcache_function,
    args: *const npcache_args,
    cached: *mut i32,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            if cached.is_null() {
                return Err(null("cached"));
            }
            cached.write(0);
            cached.write(borrow(function, "function")?.ready()?.is_cached(&canonical(args)?).into());
            Ok(NPCACHE_OK)
        })
    }
}

/// Removes the stored result of one call, if there is one. Calls of the function that are being computed meanwhile return
/// their results unstored.
///
/// # Safety
///
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_forget(
    function: *mut npcache_function,
    args: *const npcache_args,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            borrow(function, "function")?.ready()?.forget(&canonical(args)?)?;
            Ok(NPCACHE_OK)
        })
    }
}

/// Says in words whether a call is stored, or why what is stored is of no use to it: over age, damaged. If there is nothing, which
/// stored calls of the function come nearest and what exactly differs: an argument, the version, a dependency. For a person; the
/// wording may change.
///
/// - `cache`: where to look; NULL for the function's own.
/// - `args`: NULL for none.
/// - `out`: the text; free it with npcache_text_free.
///
/// Reads what is stored of the call in whole, else the records of up to 10,000 stored calls, and of as many in the cache below,
/// of the option `lower`.
///
/// # Safety
///
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_explain(
    cache: *mut npcache,
    function: *const npcache_function,
    args: *const npcache_args,
    out: *mut *mut c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let function = borrow(function, "function")?.ready()?;
            let args = canonical(args)?;
            let cache = cache.as_ref().map_or(function.cache(), |cache| &cache.0);
            let text = cache.explain(function, &args)?.replace('\0', "\u{fffd}");
            out.write(CString::new(text).unwrap_or_default().into_raw());
            Ok(NPCACHE_OK)
        })
    }
}

/// Frees a text that this library returned for freeing. NULL is a no-op.
///
/// # Safety
///
/// `text` is NULL, or from npcache_explain and not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_text_free(text: *mut c_char) {
    guard((), || {
        if !text.is_null() {
            // SAFETY: the caller's promise: from `CString::into_raw`.
            drop(unsafe { CString::from_raw(text) });
        }
    });
}
