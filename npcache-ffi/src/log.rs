//! `npcache_set_log`: what the cache has to say.

use std::ffi::{CString, c_char, c_void};

use npcache_core::{Level, set_log};

use crate::guard;

/// All is well, but something takes its time, or a directory allows less than another would.
pub const NPCACHE_LOG_INFO: i32 = 1;
/// The cache does less than it was asked to: results are not stored, or computed more often than once.
pub const NPCACHE_LOG_WARNING: i32 = 2;
/// A stored result is not what its function returns.
pub const NPCACHE_LOG_ERROR: i32 = 3;

const _: () = {
    assert!(NPCACHE_LOG_INFO == Level::Info as i32 && NPCACHE_LOG_WARNING == Level::Warning as i32);
    assert!(NPCACHE_LOG_ERROR == Level::Error as i32);
};

/// A function that hears what the cache has to say.
///
/// `level` is NPCACHE_LOG_INFO or above; `message` is a line of UTF-8 without its end, for a person, and valid during the
/// call. It is called in whichever thread has something to say, at times in several at once. No lock is held: it may use
/// the cache. It must not throw an exception, and neither longjmp nor end its thread.
pub type npcache_log_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, message: *const c_char)>;

/// Has a function of the program's hear what npcache has to say in this process: that results are not stored, and why; that
/// a file was damaged; whom a call has been waiting for for over a second. No such fault is an error of a call, so nobody
/// would notice otherwise. Each is said once for a directory and a cause, or a file.
///
/// - `listener`: takes the place of an earlier one; NULL for none, as at the beginning.
/// - `user_data`: given to `listener`.
///
/// The option log, NPCACHE_LOG=stderr or NPCACHE_LOG=file, writes the same without a program's doing.
///
/// An earlier listener may still be running in another thread when this returns, so what one uses is best kept for the
/// life of the process. A child of fork() keeps the listener.
///
/// # Safety
///
/// `listener` is NULL or a function that can be called with `user_data` from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_set_log(listener: npcache_log_fn, user_data: *mut c_void) {
    guard((), || {
        let Some(listener) = listener else { return set_log(None) };
        // A pointer of the caller's, which may be used from any thread by its promise, as a number that may too.
        let user_data = user_data as usize;
        set_log(Some(Box::new(move |level, message| {
            let message = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
            // SAFETY: the caller's promise.
            unsafe { listener(user_data as *mut c_void, level as i32, message.as_ptr()) }
        })));
    });
}
