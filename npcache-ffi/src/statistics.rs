//! `npcache_statistics`: how calls went.

use std::ffi::c_char;
use std::{mem, ptr};

use crate::cache::npcache;
use crate::error::npcache_error;
use crate::status::{NPCACHE_OK, npcache_status};
use crate::{answer, borrow, null, optional_text};

/// How the calls of a function went, or of all: counted by all processes since the cache was made. Clearing does not set it
/// back.
#[repr(C)]
pub struct npcache_statistics {
    /// Hits in a process's memory.
    pub memory: u64,
    /// Hits on disk.
    pub disk: u64,
    /// Calls that were given the result that another thread computed, or found, meanwhile.
    pub shared: u64,
    /// Hits in the cache below, of the option lower.
    pub lower: u64,
    /// Calls that found nothing and began to compute. One whose function failed, or returned what its language cannot store
    /// as arrays, is in none of the next three.
    pub misses: u64,
    /// Results that were computed and stored.
    pub stored: u64,
    /// Results that were computed and, by the option min_compute_ms, kept in memory only.
    pub cheap: u64,
    /// Results that were computed and not stored for any other reason.
    pub unstored: u64,
    /// Entries that were removed to keep within bounds.
    pub evicted: u64,
    /// Entries that were found damaged, and were computed again or, by the option `promote`, replaced.
    pub corrupt: u64,
    /// Calls that waited for another caller which computed the same.
    pub waits: u64,
    /// Seconds that calls waited for other callers.
    pub seconds_waited: f64,
    /// Seconds that computing took, of all results.
    pub seconds_spent: f64,
    /// Seconds that computing what was found would have taken.
    pub seconds_saved: f64,
    /// 1; or 0 where only this process's calls are counted: on network file systems, and in a directory that it cannot
    /// write.
    pub complete: u64,
    /// Hits that were computed again, by the option audit.
    pub audited: u64,
    /// Of these the ones whose stored result was another than was computed.
    pub differing: u64,
}

/// How the calls of a function went, or of all functions.
///
/// - `function`: its name, for all its versions; NULL for all functions. From one start of the machine to the next, the first
///   127 functions of a directory are counted by name, and the others together: NULL has them, their names have zeros.
/// - `statistics`, `statistics_size`: where to, and its size, sizeof(npcache_statistics): a program compiled against an
///   older header gets the fields that it knows. All zeros on failure, and for a cache without a directory but for
///   `complete`.
///
/// A hit in memory is counted at once, but seen by other processes only after some thousand of a thread, with the next
/// call of the function that computes, or when the process exits; one that is killed, or ends by `_exit`, loses what was not
/// seen, unless it calls this before. Does not depend on how many entries there are.
///
/// NPCACHE_ERR_IO: the files with the counts of earlier boots cannot be read.
///
/// # Safety
///
/// `cache` is not freed; `function` is NULL or a C string; `statistics` is NULL or writable for `statistics_size` bytes;
/// `err` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_stats(
    cache: *mut npcache,
    function: *const c_char,
    statistics: *mut npcache_statistics,
    statistics_size: usize,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises.
    unsafe {
        answer(err, || {
            if statistics.is_null() {
                return Err(null("statistics"));
            }
            statistics.cast::<u8>().write_bytes(0, statistics_size);
            let cache = &borrow(cache, "cache")?.0;
            let found = match optional_text(function, "function")? {
                Some(name) => cache.statistics_of(name)?,
                None => cache.statistics()?,
            };
            let filled = npcache_statistics {
                memory: found.memory,
                disk: found.disk,
                shared: found.shared,
                lower: found.lower,
                misses: found.misses,
                stored: found.stored,
                cheap: found.cheap,
                unstored: found.unstored,
                evicted: found.evicted,
                corrupt: found.corrupt,
                waits: found.waits,
                seconds_waited: found.seconds_waited,
                seconds_spent: found.seconds_spent,
                seconds_saved: found.seconds_saved,
                complete: found.complete.into(),
                audited: found.audited,
                differing: found.differing,
            };
            let len = statistics_size.min(mem::size_of::<npcache_statistics>());
            ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), statistics.cast(), len);
            Ok(NPCACHE_OK)
        })
    }
}
