//! Keeping within bounds: what is counted of the entries, and which of them go when they are too many.
//!
//! Entries are counted in 256 buckets, by the first byte of their key, in the state page: so all processes count in one
//! place. Who publishes adds to a bucket first and then, while the sum is over a bound, looks at the next [`WINDOW`] entries
//! of its own way through the directory and unlinks those least worth keeping. That is all: no thread, no list of
//! entries, no order that somebody would have to keep.
//!
//! A count can be wrong: processes are killed between counting and linking, entries are copied in or deleted by hand, and
//! a machine that has just started knows nothing. So whoever has walked through a bucket puts what it found in the
//! place of what was counted. Until all buckets were walked through once, each publication walks on a little, and later
//! every [`WALK_EVERY`]th, also where nothing is over a bound. Of a bucket that nobody knows yet, only what was added is
//! counted: too little rather than too much, so that nothing goes without need.
//!
//! Where no page can be mapped, on network file systems, each process counts for itself, and walks on with every
//! publication, to see what others did.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::bounds::Bounds;
use crate::error::Unstored;
use crate::key::Key;
use crate::policy::{ONE_IN, Policy, Seen, WINDOW, seconds_of};
use crate::state::{State, lock};
use crate::statistics::Count;
use crate::store::{Directory, Shard, entry_name, nanoseconds, now};

const BUCKETS: usize = 256;

/// Entries count as the blocks that most file systems give them, which is what `du` adds up.
const BLOCK: u64 = 4096;

/// No publication makes more entries go than this, and one for each of its own blocks: so there is room for it in the end,
/// and it takes about as long as writing it. What that leaves to be done, the next ones do.
const MAX_VICTIMS: u64 = 64;

/// Once something has to go, more of the same window goes, until this part of the bound is free: so that not every
/// publication has to look at a window.
const RESERVE: u64 = 64;

/// Over a bound by more than this part of it, a result is not stored unless more than it takes was removed for it.
const SLACK: u64 = 20;

/// Directories that are opened for one window at most. Small caches have most of theirs empty.
const MAX_SHARDS: usize = 1024;

/// After so many windows of which nothing could be removed, a publication gives up.
const MAX_FRUITLESS: u32 = 8;

/// Publications between two windows that are looked at only to count.
const WALK_EVERY: u32 = 16;

/// Space that is free on the file system is asked for again after this, or when this process has used up an eighth of
/// what there was to use.
const SPACE_KNOWN_FOR: Duration = Duration::from_secs(1);

/// The bytes that an entry of this length counts for.
pub(crate) fn room(len: u64) -> u64 {
    len.saturating_add(BLOCK - 1) & !(BLOCK - 1)
}

/// What is counted, in the state page. Any bytes are one.
#[repr(C)]
pub(crate) struct Tally {
    /// When each bucket was last walked through, in seconds since 1970; 0 for not in this boot.
    walked: [AtomicU32; BUCKETS],
    buckets: [Bucket; BUCKETS],
}

#[repr(C)]
struct Bucket {
    bytes: AtomicI64,
    entries: AtomicI32,
    /// Counts what was taken away: it tells who walks through the bucket that others removed something meanwhile.
    removals: AtomicU32,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let bucket =
            || Bucket { bytes: AtomicI64::new(0), entries: AtomicI32::new(0), removals: AtomicU32::new(0) };
        Tally {
            walked: std::array::from_fn(|_| AtomicU32::new(0)),
            buckets: std::array::from_fn(|_| bucket()),
        }
    }

    fn add(&self, bucket: u8, bytes: u64) {
        let bucket = &self.buckets[bucket as usize];
        bucket.bytes.fetch_add(bytes as i64, Ordering::Relaxed);
        bucket.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry of this length is gone.
    pub(crate) fn remove(&self, key_byte: u8, len: u64) {
        let bucket = &self.buckets[key_byte as usize];
        bucket.removals.fetch_add(1, Ordering::Relaxed);
        bucket.bytes.fetch_sub(room(len) as i64, Ordering::Relaxed);
        bucket.entries.fetch_sub(1, Ordering::Relaxed);
    }

    /// All entries are gone. What is published meanwhile is found by walking through the buckets again.
    pub(crate) fn reset(&self) {
        for (bucket, walked) in self.buckets.iter().zip(&self.walked) {
            walked.store(0, Ordering::Relaxed);
            bucket.removals.fetch_add(1, Ordering::Relaxed);
            bucket.bytes.store(0, Ordering::Relaxed);
            bucket.entries.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes and entries, as far as they are known.
    pub(crate) fn total(&self) -> (u64, u64) {
        let mut total = (0, 0);
        for bucket in &self.buckets {
            // Of a bucket that is not known, more may go than was counted.
            total.0 += bucket.bytes.load(Ordering::Relaxed).max(0) as u64;
            total.1 += bucket.entries.load(Ordering::Relaxed).max(0) as u64;
        }
        total
    }

    /// The first bucket from `next` on that was not walked through in this boot.
    fn unknown(&self, next: u8) -> Option<u8> {
        (0..BUCKETS).map(|i| next.wrapping_add(i as u8)).find(|b| self.is_unknown(*b))
    }

    fn is_unknown(&self, bucket: u8) -> bool {
        self.walked[bucket as usize].load(Ordering::Relaxed) == 0
    }

    fn is_known_empty(&self, bucket: u8) -> bool {
        self.buckets[bucket as usize].entries.load(Ordering::Relaxed) == 0 && !self.is_unknown(bucket)
    }
}

/// Room for an entry that is being published; given back when dropped, unless it was used.
pub(crate) struct Reserved<'s> {
    tally: &'s Tally,
    bucket: u8,
    len: u64,
    used: bool,
}

impl Reserved<'_> {
    /// The entry has its name now.
    pub(crate) fn keep(mut self) {
        self.used = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.tally.remove(self.bucket, self.len);
        }
    }
}

/// Makes room for an entry of `len` bytes.
pub(crate) fn reserve<'s>(
    state: &'s State,
    bounds: &Bounds,
    key: &Key,
    len: u64,
) -> Result<Reserved<'s>, Unstored> {
    if room(len) > bounds.max_bytes() {
        return Err(Unstored::TooLarge);
    }
    let (tally, bucket) = (state.tally(), key.as_bytes()[0]);
    tally.add(bucket, room(len));
    let reserved = Reserved { tally, bucket, len, used: false };
    if bounds.bound_anything() {
        let walker = match state.walker.try_lock() {
            Ok(walker) => Some(walker),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            // Another thread is making room; this one has to see to it only where there is too little.
            Err(TryLockError::WouldBlock) => is_over(tally, bounds, 0).then(|| lock(&state.walker)),
        };
        if let Some(walker) = walker {
            make_room(walker, state, bounds, (*key, room(len)))?;
        }
    }
    Ok(reserved)
}

/// Whether more is counted than the bounds less `1/reserve` of each allow; all of it for 0.
fn is_over(tally: &Tally, bounds: &Bounds, reserve: u64) -> bool {
    let below = |bound: u64| bound - bound.checked_div(reserve).unwrap_or(0);
    let (bytes, entries) = tally.total();
    bytes > below(bounds.max_bytes()) || entries > below(bounds.max_entries())
}

fn make_room(
    mut walker: MutexGuard<'_, Walker>,
    state: &State,
    bounds: &Bounds,
    pending: Pending,
) -> Result<(), Unstored> {
    let (tally, bytes) = (state.tally(), pending.1);
    let lacking = walker.lacking(&state.directory, bounds, bytes);
    let may_evict = bounds.policy() != Policy::None;
    walker.publications = walker.publications.wrapping_add(1);
    let mut walk_on = walker.publications.is_multiple_of(WALK_EVERY)
        || !state.counts_for_all()
        || tally.unknown(walker.next).is_some();
    let mut gone = Pruned::default();
    let mut fruitless = 0;
    while fruitless < MAX_FRUITLESS && gone.entries < MAX_VICTIMS + bytes / BLOCK {
        let is_short = may_evict && (is_over(tally, bounds, 0) || gone.bytes < lacking);
        if !(walk_on || is_short) {
            break;
        }
        let look = Look { state, bounds, now: now(), pending: Some(&pending), everywhere: walk_on };
        let more = walker.evict(&look, |more| {
            is_short && (is_over(tally, bounds, RESERVE) || gone.bytes + more.bytes < lacking)
        });
        walk_on = false;
        fruitless = if more.entries == 0 { fruitless + 1 } else { 0 };
        gone.add(more);
    }
    if gone.bytes < lacking {
        return Err(Unstored::DiskFull);
    }
    let (all_bytes, all_entries) = tally.total();
    let slack = |bound: u64| if may_evict { bound.saturating_add(bound / SLACK) } else { bound };
    let is_far_over = all_bytes > slack(bounds.max_bytes()) || all_entries > slack(bounds.max_entries());
    if is_far_over && gone.bytes < bytes { Err(Unstored::TooLarge) } else { Ok(()) }
}

/// Removes what is over age or over a bound, of the whole directory, however long that takes.
pub(crate) fn prune(state: &State, bounds: &Bounds) -> Pruned {
    let look = Look { state, bounds, now: now(), pending: None, everywhere: true };
    let mut walker = lock(&state.walker);
    let mut gone = Pruned::default();
    // One round to count anew, so that nothing goes because of a count that was wrong.
    walker.walk = None;
    let round = walker.finished + BUCKETS as u64;
    while walker.finished < round {
        gone.add(walker.evict(&look, |_| false));
    }
    let mut lacking = walker.lacking(&state.directory, bounds, u64::MAX);
    let is_over = || is_over(state.tally(), bounds, 0);
    let mut last = None;
    // And more for as long as they are good for something.
    while bounds.policy() != Policy::None && last != Some(gone) {
        last = Some(gone);
        let round = walker.finished + BUCKETS as u64;
        while walker.finished < round && (is_over() || lacking > 0) {
            let more = walker.evict(&look, |more| is_over() || more.bytes < lacking);
            lacking = lacking.saturating_sub(more.bytes);
            gone.add(more);
        }
    }
    gone
}

/// What was removed by [`Cache::prune`](crate::Cache::prune), or to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// How many results.
    pub entries: u64,
    /// The room that they took, in blocks of 4 KiB.
    pub bytes: u64,
}

impl Pruned {
    fn add(&mut self, more: Pruned) {
        self.entries += more.entries;
        self.bytes += more.bytes;
    }
}

/// This process's way through the directory, from one bucket to the next.
pub(crate) struct Walker {
    next: u8,
    walk: Option<Walk>,
    /// Buckets that were walked through.
    finished: u64,
    publications: u32,
    /// When the file system was asked for its free space, and how much this process may use before it asks again.
    space: Option<(Instant, u64)>,
}

/// What a look at some entries is for.
struct Look<'a> {
    state: &'a State,
    bounds: &'a Bounds,
    now: i64,
    pending: Option<&'a Pending>,
    /// Also into buckets that are counted as empty.
    everywhere: bool,
}

/// An entry that room is being made for, and the bytes that it counts for.
type Pending = (Key, u64);

/// Walking through one bucket.
struct Walk {
    bucket: u8,
    began: i64,
    /// What was counted then, but for `pending`: bytes, entries, removals.
    counted: (i64, i32, u32),
    /// The entry that was counted, but not there yet, when this process began.
    pending: Option<CString>,
    /// The functions whose shards are still to be read.
    functions: Vec<CString>,
    shard: Option<Arc<Shard>>,
    /// Where its function's statistics are.
    row: usize,
    found: (i64, i32),
    /// What this process removed of it meanwhile.
    removals: u32,
    /// Whether everything could be read.
    whole: bool,
}

/// An entry that was seen on the way.
struct Entry {
    shard: Arc<Shard>,
    row: usize,
    bucket: u8,
    name: CString,
    len: u64,
    created: i64,
    seen: Seen,
}

impl Walker {
    pub(crate) fn new() -> Walker {
        // Processes begin anywhere.
        let next = (now() as u64 ^ u64::from(std::process::id())).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        Walker { next: next as u8, walk: None, finished: 0, publications: 0, space: None }
    }

    /// Looks at the next entries and removes those over age and, for as long as `more` says so, those least worth keeping.
    fn evict(&mut self, look: &Look<'_>, more: impl Fn(Pruned) -> bool) -> Pruned {
        let Look { state, bounds, now, .. } = *look;
        let mut entries = self.look(look);
        let mut gone = Pruned::default();
        let mut remove = |entry: &Entry| {
            if entry.shard.unlink(&entry.name).is_ok() {
                state.tally().remove(entry.bucket, entry.len);
                if let Some(walk) = self.walk.as_mut().filter(|walk| walk.bucket == entry.bucket) {
                    walk.removals += 1;
                }
                state.count(entry.row, Count::Evicted, 1);
                gone.add(Pruned { entries: 1, bytes: room(entry.len) });
            }
            gone
        };
        let is_old = |entry: &mut Entry| now.saturating_sub(entry.created) > bounds.max_age();
        let mut so_far =
            entries.extract_if(.., is_old).map(|entry| remove(&entry)).last().unwrap_or_default();
        let worth = |entry: &Entry| bounds.policy().worth(&entry.seen, now);
        entries.sort_by(|a, b| worth(a).total_cmp(&worth(b)));
        for entry in &entries[..entries.len().div_ceil(ONE_IN)] {
            if !more(so_far) {
                break;
            }
            so_far = remove(entry);
        }
        so_far
    }

    /// Walks on until there is a window of entries, or until everything was seen.
    fn look(&mut self, look: &Look<'_>) -> Vec<Entry> {
        let tally = look.state.tally();
        let mut functions = None;
        let mut entries = Vec::with_capacity(2 * WINDOW);
        let (mut opened, until) = (0, self.finished + BUCKETS as u64);
        while entries.len() < WINDOW && opened < MAX_SHARDS && self.finished < until {
            if let Some(walk) = &mut self.walk {
                if let Some(shard) = walk.shard.clone() {
                    walk.read(&shard, look.bounds, &mut entries);
                    continue;
                }
                if let Some(function) = walk.functions.pop() {
                    opened += 1;
                    walk.open(look.state, &function);
                    continue;
                }
                walk.end(tally);
                self.walk = None;
            } else if look.everywhere || !tally.is_known_empty(self.next) {
                let functions = functions.get_or_insert_with(|| look.state.directory.functions());
                self.walk = Some(Walk::begin(look, self.next, functions.as_deref()));
                continue;
            }
            self.finished += 1;
            let after = self.next.wrapping_add(1);
            self.next = tally.unknown(after).unwrap_or(after);
        }
        entries
    }

    /// By how much the file system has less free than is to stay free; `bytes` are about to be used.
    fn lacking(&mut self, directory: &Directory, bounds: &Bounds, bytes: u64) -> u64 {
        if bounds.min_free_bytes() == 0 {
            return 0;
        }
        if let Some((asked, left)) = &mut self.space
            && asked.elapsed() < SPACE_KNOWN_FOR
            && *left > bytes
        {
            *left -= bytes;
            return 0;
        }
        let Some(free) = directory.free_space() else { return 0 };
        self.space = Some((Instant::now(), free.saturating_sub(bounds.min_free_bytes()) / 8));
        bounds.min_free_bytes().saturating_sub(free)
    }
}

impl Walk {
    fn begin(look: &Look<'_>, bucket: u8, functions: Result<&[CString], &Errno>) -> Walk {
        let counted = &look.state.tally().buckets[bucket as usize];
        // Before anything is read: what is added from here on is counted, and not found.
        let mut counted = (
            counted.bytes.load(Ordering::Relaxed),
            counted.entries.load(Ordering::Relaxed),
            counted.removals.load(Ordering::Relaxed),
        );
        let pending = look.pending.filter(|(key, _)| key.as_bytes()[0] == bucket);
        if let Some((_, bytes)) = pending {
            counted.0 -= *bytes as i64;
            counted.1 -= 1;
        }
        let pending = pending.map(|(key, _)| entry_name(key));
        let (whole, functions) = (functions.is_ok(), functions.unwrap_or_default().to_vec());
        let began = now();
        Walk {
            bucket,
            began,
            counted,
            pending,
            functions,
            shard: None,
            row: 0,
            found: (0, 0),
            removals: 0,
            whole,
        }
    }

    fn open(&mut self, state: &State, function: &CStr) {
        match state.directory.shard(function, self.bucket) {
            Ok(shard) => {
                self.shard = Some(Arc::new(shard));
                self.row = state.row(&function.to_string_lossy());
            }
            // Not there, or a file of the user's, or a link.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(_) => self.whole = false,
        }
    }

    /// Adds the shard's next names to `entries`.
    fn read(&mut self, shard: &Arc<Shard>, bounds: &Bounds, entries: &mut Vec<Entry>) {
        let names = shard.next_names().unwrap_or_else(|_| {
            self.whole = false;
            Vec::new()
        });
        if names.is_empty() {
            self.shard = None;
        }
        for name in names {
            // Removed meanwhile, or no file.
            let Some(stat) = shard.stat(&name) else { continue };
            let (len, created) = (stat.stx_size, nanoseconds(stat.stx_mtime));
            if created < self.began && self.pending.as_ref() != Some(&name) {
                self.found.0 += room(len) as i64;
                self.found.1 += 1;
            }
            // A time that is no stamp was set by whoever copied the file.
            let seconds = seconds_of(created).or_else(|| shard.seconds(&name, len)).unwrap_or(0.0);
            let size = if bounds.bounds_entries_alone() { 1 } else { room(len) };
            let used = nanoseconds(stat.stx_atime).max(created);
            let seen = Seen { size, seconds, used };
            entries.push(Entry {
                shard: shard.clone(),
                row: self.row,
                bucket: self.bucket,
                name,
                len,
                created,
                seen,
            });
        }
    }

    /// Puts what was found in the place of what was counted when it began, unless others removed something meanwhile: it is
    /// not known whether that was found.
    fn end(&self, tally: &Tally) {
        let bucket = &tally.buckets[self.bucket as usize];
        let removals = bucket.removals.load(Ordering::Relaxed);
        if self.whole && removals.wrapping_sub(self.counted.2) != self.removals {
            return;
        }
        if self.whole {
            bucket.bytes.fetch_add(self.found.0 - self.counted.0, Ordering::Relaxed);
            bucket.entries.fetch_add(self.found.1 - self.counted.1, Ordering::Relaxed);
        }
        let seconds = (self.began / 1_000_000_000).clamp(1, u32::MAX.into());
        tally.walked[self.bucket as usize].store(seconds as u32, Ordering::Relaxed);
    }
}
