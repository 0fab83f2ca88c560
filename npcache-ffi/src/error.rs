//! `npcache_error`: what went wrong, as an object of its own.

use std::ffi::{CString, c_char};

use npcache_core::Error;

use crate::free;
use crate::status::{NPCACHE_ERR_INTERNAL, NPCACHE_OK, npcache_status, status_of};

/// What went wrong: a status and a message. Belongs to who asked for it by a non-NULL `err`.
pub struct npcache_error {
    status: npcache_status,
    function_code: i32,
    message: CString,
}

impl npcache_error {
    pub(crate) fn new(e: &Error) -> npcache_error {
        let function_code = if let Error::Function { code, .. } = e { *code } else { 0 };
        let message = CString::new(e.to_string().replace('\0', "\u{fffd}")).unwrap_or_default();
        npcache_error { status: status_of(e), function_code, message }
    }

    pub(crate) fn internal() -> npcache_error {
        let message =
            c"internal error in npcache; what it was is on the standard error output, please report it"
                .into();
        npcache_error { status: NPCACHE_ERR_INTERNAL, function_code: 0, message }
    }
}

/// The status of an error, negative. 0 for NULL.
///
/// # Safety
///
/// `error` is NULL or an error not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_error_code(error: *const npcache_error) -> npcache_status {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(NPCACHE_OK, |error| error.status)
}

/// What the user's function returned, for NPCACHE_ERR_FUNCTION; 0 for other errors and for NULL.
///
/// # Safety
///
/// `error` is NULL or an error not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_error_function_code(error: *const npcache_error) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(0, |error| error.function_code)
}

/// What went wrong and what to do about it, for a person. Lives until npcache_error_free. "" for NULL.
///
/// # Safety
///
/// `error` is NULL or an error not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_error_message(error: *const npcache_error) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Frees an error. NULL is a no-op.
///
/// # Safety
///
/// `error` is NULL or an error not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_error_free(error: *mut npcache_error) {
    // SAFETY: the caller's promise.
    unsafe { free(error) };
}
