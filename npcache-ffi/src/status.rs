//! The numbers that functions return. They are part of the ABI and are never changed.

use std::ffi::{CStr, c_char};

use npcache_core::{Error, Unstored};

/// What became of a call: 0 is success, a positive number an outcome that is no error, a negative one an error.
pub type npcache_status = i32;

/// Done.
pub const NPCACHE_OK: npcache_status = 0;
/// Another caller computes it and was not done within the time given to npcache_begin.
pub const NPCACHE_BUSY: npcache_status = 1;
/// Not stored: the cache has no directory (path NULL, or mode=off).
pub const NPCACHE_UNSTORED_NO_DIRECTORY: npcache_status = 2;
/// Not stored: the cache was opened with mode=readonly.
pub const NPCACHE_UNSTORED_READ_ONLY_MODE: npcache_status = 3;
/// Not stored: the directory or its file system cannot be written by this process.
pub const NPCACHE_UNSTORED_NOT_WRITABLE: npcache_status = 4;
/// Not stored: the disk, or a quota, is full, or less of it is free than min_free_bytes.
pub const NPCACHE_UNSTORED_DISK_FULL: npcache_status = 5;
/// Not stored: the directory was removed while it was open.
pub const NPCACHE_UNSTORED_REMOVED: npcache_status = 6;
/// Not stored: the cache was cleared after the call began.
pub const NPCACHE_UNSTORED_CLEARED: npcache_status = 7;
/// Not stored: the process forked after the call began, and this is the child.
pub const NPCACHE_UNSTORED_FORKED: npcache_status = 8;
/// Not stored: another fault of the file system.
pub const NPCACHE_UNSTORED_IO: npcache_status = 9;
/// Not stored, but kept in memory: computing it took less than the option min_compute_ms.
pub const NPCACHE_UNSTORED_CHEAP: npcache_status = 10;
/// Not stored: it does not fit within the cache's bounds. It is larger than max_bytes by itself, policy=none lets nothing go
/// for it, or too little could be removed in the time that there is for that.
pub const NPCACHE_UNSTORED_TOO_LARGE: npcache_status = 11;
/// Not stored: the call was a hit, and by the option audit computed again; the stored result is another.
pub const NPCACHE_UNSTORED_DIFFERS: npcache_status = 12;

/// An argument is NULL, out of range, not UTF-8, or unknown; the message says which.
pub const NPCACHE_ERR_ARGUMENT: npcache_status = -1;
/// The user's function returned non-zero: npcache_error_function_code tells what.
pub const NPCACHE_ERR_FUNCTION: npcache_status = -2;
/// The user's function returned 0, but did not call npcache_output_commit.
pub const NPCACHE_ERR_NOT_COMMITTED: npcache_status = -3;
/// The operating system refused; the message names the operation and the path.
pub const NPCACHE_ERR_IO: npcache_status = -4;
/// The directory cannot serve as a cache: it is a file, cannot be written, or has a newer format.
pub const NPCACHE_ERR_DIRECTORY: npcache_status = -5;
/// The directory was emptied but not removed: it holds files that npcache did not make, named in the message.
pub const NPCACHE_ERR_NOT_EMPTY: npcache_status = -6;
/// The version is NULL, but the function's code has no build ID.
pub const NPCACHE_ERR_BUILD_ID: npcache_status = -7;
/// A dtype or descr that is not supported, or another than the array has.
pub const NPCACHE_ERR_DTYPE: npcache_status = -8;
/// Out of memory.
pub const NPCACHE_ERR_MEMORY: npcache_status = -9;
/// A bug in npcache.
pub const NPCACHE_ERR_INTERNAL: npcache_status = -10;

pub(crate) fn status_of(e: &Error) -> npcache_status {
    match e {
        Error::Argument(_) => NPCACHE_ERR_ARGUMENT,
        Error::Function { .. } => NPCACHE_ERR_FUNCTION,
        Error::NotCommitted(_) => NPCACHE_ERR_NOT_COMMITTED,
        Error::Io { .. } => NPCACHE_ERR_IO,
        Error::Directory { .. } => NPCACHE_ERR_DIRECTORY,
        Error::NotEmpty { .. } => NPCACHE_ERR_NOT_EMPTY,
        Error::BuildId(_) => NPCACHE_ERR_BUILD_ID,
        Error::Dtype(_) => NPCACHE_ERR_DTYPE,
        Error::Memory(_) => NPCACHE_ERR_MEMORY,
        _ => NPCACHE_ERR_INTERNAL,
    }
}

pub(crate) fn status_of_unstored(why: Unstored) -> npcache_status {
    match why {
        Unstored::NoDirectory => NPCACHE_UNSTORED_NO_DIRECTORY,
        Unstored::ReadOnlyMode => NPCACHE_UNSTORED_READ_ONLY_MODE,
        Unstored::NotWritable => NPCACHE_UNSTORED_NOT_WRITABLE,
        Unstored::DiskFull => NPCACHE_UNSTORED_DISK_FULL,
        Unstored::Removed => NPCACHE_UNSTORED_REMOVED,
        Unstored::Cleared => NPCACHE_UNSTORED_CLEARED,
        Unstored::Forked => NPCACHE_UNSTORED_FORKED,
        Unstored::Cheap => NPCACHE_UNSTORED_CHEAP,
        Unstored::TooLarge => NPCACHE_UNSTORED_TOO_LARGE,
        Unstored::Differs => NPCACHE_UNSTORED_DIFFERS,
        _ => NPCACHE_UNSTORED_IO,
    }
}

/// What a status means, in a few words: a constant text, also for numbers that are no status.
#[unsafe(no_mangle)]
pub extern "C" fn npcache_status_string(status: npcache_status) -> *const c_char {
    let text: &'static CStr = match status {
        NPCACHE_OK => c"success",
        NPCACHE_BUSY => c"another caller is computing it",
        NPCACHE_UNSTORED_NO_DIRECTORY => c"not stored: the cache has no directory",
        NPCACHE_UNSTORED_READ_ONLY_MODE => c"not stored: the cache is open read-only",
        NPCACHE_UNSTORED_NOT_WRITABLE => c"not stored: the directory cannot be written",
        NPCACHE_UNSTORED_DISK_FULL => {
            c"not stored: the disk is full, or less of it is free than min_free_bytes"
        }
        NPCACHE_UNSTORED_REMOVED => c"not stored: the directory was removed",
        NPCACHE_UNSTORED_CLEARED => c"not stored: the cache was cleared meanwhile",
        NPCACHE_UNSTORED_FORKED => c"not stored: begun before a fork",
        NPCACHE_UNSTORED_IO => c"not stored: input/output error",
        NPCACHE_UNSTORED_CHEAP => c"not stored: too cheap to be worth it",
        NPCACHE_UNSTORED_TOO_LARGE => c"not stored: no room within the cache's bounds",
        NPCACHE_UNSTORED_DIFFERS => c"not stored: an audited hit, whose stored result is another",
        NPCACHE_ERR_ARGUMENT => c"invalid argument",
        NPCACHE_ERR_FUNCTION => c"the function failed",
        NPCACHE_ERR_NOT_COMMITTED => c"the function did not commit its result",
        NPCACHE_ERR_IO => c"input/output error",
        NPCACHE_ERR_DIRECTORY => c"the directory cannot be a cache",
        NPCACHE_ERR_NOT_EMPTY => c"the directory holds other files",
        NPCACHE_ERR_BUILD_ID => c"the function's code has no build ID",
        NPCACHE_ERR_DTYPE => c"unsupported or wrong dtype",
        NPCACHE_ERR_MEMORY => c"out of memory",
        NPCACHE_ERR_INTERNAL => c"internal error in npcache",
        _ => c"unknown status",
    };
    text.as_ptr()
}
