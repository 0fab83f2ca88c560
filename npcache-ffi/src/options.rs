//! `npcache_options`: how to open a cache.

use std::ffi::c_char;
use std::ptr;

use npcache_core::Options;

use crate::error::npcache_error;
use crate::status::{NPCACHE_OK, npcache_status};
use crate::{answer, borrow_mut, free, guard, text};

/// How to open a cache.
pub struct npcache_options(pub(crate) Options);

/// New options, all at their defaults. Free them with npcache_options_free; npcache_new does not keep them.
///
/// NULL only for want of memory.
#[unsafe(no_mangle)]
pub extern "C" fn npcache_options_new() -> *mut npcache_options {
    guard(ptr::null_mut(), || Box::into_raw(Box::new(npcache_options(Options::new()))))
}

/// Sets the option `name` to `value`, a text:
///
/// - `mode`: `readwrite` (default), `readonly` (look up, store nothing), `refresh` (compute every call and replace what
///   is stored), `off` (compute every call);
/// - `lock_timeout`: seconds that a call waits for another one that computes the same, before it computes it too;
///   600 by default;
/// - `flight`: with whom a call shares the work, `process` (callers in all processes; default), `thread` (in this
///   process), or `off`: for functions that end in a barrier between their callers;
/// - `verify`: when the data of a stored result over 256 KiB is verified, `auto` (default: once in a process, and
///   not where the file is known to be as it was written during this boot of the machine), `always` or `never`.
///   Smaller ones always are;
/// - `memory_bytes`: how much of the results asked for in this process is kept in memory, `64M` or `1.5G`; an eighth of
///   the machine's by default, 0 for nothing. All handles on a directory with the same `trust` and `umask` share one
///   memory, that of the first;
/// - `min_compute_ms`: a result that took less than so many milliseconds is kept in memory only; 0 by default;
/// - `umask`: `process` (default), or `group`: the directory, where it is made, and what is made in it is for its whole
///   group, whatever the umask;
/// - `log`: where messages are written that npcache_set_log describes, `none` (default), `stderr` or the path of a file, to
///   whose end they are added. Of the whole process, from when the cache is opened;
/// - `audit`: which share of the hits is computed again and compared with what is stored, from 0 (default) to 1. A
///   difference is logged as an NPCACHE_LOG_ERROR; the call then returns what it computed, and npcache_buffer_stored is
///   NPCACHE_UNSTORED_DIFFERS. The stored result stays;
/// - `audit_ulps`: by how many units in the last place floating-point numbers may then differ; 0 by default, not by a bit;
/// - `trust`: `any` (default), or `owner`: a directory that another user but root owns or can write to is an error of
///   npcache_new, and an entry of one is computed again. umask=group excludes it;
/// - `map`: whether stored results over 256 KiB are mapped or read: `auto` (default: read on network file systems, where another
///   machine can take a mapped file away, which kills who touches it), `always` or `never`;
/// - `lower`: the directory of another cache, which is asked for what this one does not have and never written to: a site's,
///   or a colleague's. Where it cannot be opened, it has nothing. A clear of this cache leaves it as it is, so what it
///   has is found again;
/// - `promote`: `no` (default), or `yes`: what is found there is copied to this cache;
/// - `max_bytes`: at most this much is kept on disk, `50G`, counting each result in blocks of 4 KiB; what is least worth
///   keeping goes when something is stored;
/// - `max_entries`: at most so many results are kept;
/// - `max_age`: what was computed longer ago is computed again, in seconds or as `12h`, `30d`, `1y`;
/// - `min_free_bytes`: so much of the file system stays free; 0 by default;
/// - `policy`: what goes first: `cost` (default: what is quickest to compute again for the room that it takes, and was not
///   used for long), `lru` (what was not used for longest), or `none`: nothing, and what does not fit is not stored.
///
/// These last five hold for what this cache stores and finds. What is not set is as npcache_configure has set it for all
/// who use the directory, which is no bound at first. `none` is no bound, whatever the directory says.
///
/// In a run, the environment variable of that name in capitals after NPCACHE_ overrides it: NPCACHE_MODE=refresh.
///
/// NPCACHE_ERR_ARGUMENT: there is no such option, or it takes no such value.
///
/// # Safety
///
/// `options` is from npcache_options_new and not freed; `name` and `value` are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_options_set(
    options: *mut npcache_options,
    name: *const c_char,
    value: *const c_char,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            let options = borrow_mut(options, "options")?;
            options.0.set(text(name, "name")?, text(value, "value")?)?;
            Ok(NPCACHE_OK)
        })
    }
}

/// Frees options. NULL is a no-op.
///
/// # Safety
///
/// `options` is NULL, or from npcache_options_new and not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_options_free(options: *mut npcache_options) {
    // SAFETY: the caller's promise.
    unsafe { free(options) };
}
