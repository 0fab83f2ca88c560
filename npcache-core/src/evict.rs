//! Keeping within bounds: what is counted of the entries, and which of them go when they are too many.
//!
//! Entries are counted in 256 buckets, by the first byte of their key, in the state page: so all processes count in one
//! place. Who publishes adds to a bucket first and then, while the sum is over a bound, unlinks those least worth keeping
//! of the entries that its process knows of: of those that it made, and of those on its own way through the directory, of
//! which it looks at the next [`WINDOW`] now and then. It remembers a few hundred. That is all: no thread, no list of
//! all entries, no order that processes would have to agree on.
//!
//! A count can be wrong: processes are killed between counting and linking, entries are copied in or deleted by hand, and
//! a machine that has just started knows nothing. So whoever has walked through a bucket puts what it found in the
//! place of what was counted, as far as that is certain: each bucket tells what others are doing to it ([`Change`]), and by
//! so much the walk may be wrong. Until all buckets were walked through once, each publication walks on a little, and later
//! every [`WALK_EVERY`]th, also where nothing is over a bound. Of a bucket that nobody knows yet, only what was added is
//! counted: too little rather than too much, so that nothing goes without need.
//!
//! Where no page can be mapped, on network file systems, each process counts for itself, and walks on with every
//! publication, to see what others did.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use rustix::fs::Statx;
use rustix::io::Errno;

use crate::bounds::Bounds;
use crate::error::Unstored;
use crate::key::Key;
use crate::policy::{Candidates, Policy, Seen, WINDOW, last_used, seconds_of};
use crate::state::{State, lock};
use crate::statistics::Count;
use crate::store::{Directory, Shard, coarse_now, nanoseconds, now};

const BUCKETS: usize = 256;

/// Entries count as the blocks that most file systems give them, which is what `du` adds up.
const BLOCK: u64 = 4096;

/// No publication makes more entries go than this, and one for each of its own blocks: so there is room for it in the end,
/// and it takes about as long as writing it. What that leaves to be done, the next ones do.
const MAX_VICTIMS: u64 = 64;

/// Once something has to go, more goes, until this part of the bound is free or others are to be looked at: so that not
/// every publication has to make room.
const RESERVE: u64 = 64;

/// After this, in nanoseconds, a publication removes nothing more for that part, where removing takes the disk long: the
/// next one goes on.
const RESERVE_WITHIN: i64 = 1_000_000;

/// After this, in nanoseconds, it ends looking at entries, which is as slow as the disk where what the system knows of them
/// is not in memory: the next one goes on.
const LOOK_WITHIN: i64 = 25_000_000;

/// And so much later for each of its own blocks, which is as long as a slow disk takes to write one: for what is large, many
/// have to go.
const LOOK_WITHIN_A_BLOCK: i64 = 250_000;

/// Over a bound by more than this part of it, a result is not stored unless more than it takes was removed for it.
const SLACK: u64 = 20;

/// Directories that are opened for one window at most. Small caches have most of theirs empty.
const MAX_SHARDS: usize = 1024;

/// After so many windows of which nothing could be removed, a publication gives up.
const MAX_FRUITLESS: u32 = 8;

/// After so many publications without one, a window is looked at only to count: an entry for each. Where something has to
/// go, one is looked at sooner.
const WALK_EVERY: u32 = WINDOW as u32;

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
    /// Publications and removals that are under way, in the highest byte; below it, how many removals were begun. They tell
    /// who walks through the bucket by how much that may be wrong.
    changes: AtomicU32,
}

/// One change under way.
const UNDER_WAY: u32 = 1 << 24;

/// What tells of the removals that were begun.
const REMOVALS: u32 = UNDER_WAY - 1;

/// Changes that were under way all the time for so long, in nanoseconds, are those of processes that were killed.
const ABANDONED_AFTER: i64 = 10_000_000_000;

impl Tally {
    pub(crate) fn new() -> Tally {
        let bucket =
            || Bucket { bytes: AtomicI64::new(0), entries: AtomicI32::new(0), changes: AtomicU32::new(0) };
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

    /// An entry of this length is gone, or will be, by a change that is under way.
    pub(crate) fn remove(&self, key_byte: u8, len: u64) {
        let bucket = &self.buckets[key_byte as usize];
        bucket.bytes.fetch_sub(room(len) as i64, Ordering::Relaxed);
        bucket.entries.fetch_sub(1, Ordering::Relaxed);
    }

    /// An entry is about to be published, and `removing`: to be removed, or replaced.
    pub(crate) fn change(&self, key_byte: u8, removing: bool) -> Change<'_> {
        let changes = &self.buckets[key_byte as usize].changes;
        changes.fetch_add(UNDER_WAY | u32::from(removing), Ordering::AcqRel);
        Change(changes)
    }

    /// All entries are gone. What is published meanwhile is found by walking through the buckets again.
    pub(crate) fn reset(&self) {
        for (bucket, walked) in self.buckets.iter().zip(&self.walked) {
            walked.store(0, Ordering::Relaxed);
            bucket.changes.fetch_add(1, Ordering::AcqRel);
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

/// From before an entry is given its name, or loses it, until that is counted: in between, what is counted of the bucket is
/// not what is there.
pub(crate) struct Change<'t>(&'t AtomicU32);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Others may have taken it for abandoned.
        let end = |changes: u32| changes.checked_sub(UNDER_WAY);
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
    }
}

/// Room for an entry that is being published; given back when dropped, unless it was used.
pub(crate) struct Reserved<'s> {
    state: &'s State,
    bounds: &'s Bounds,
    key: Key,
    len: u64,
    /// The length of what it is to replace.
    replaces: Option<u64>,
    used: bool,
}

impl Reserved<'_> {
    /// The entry has its name now, and computing it took that long.
    pub(crate) fn keep(mut self, path: &CStr, took: Duration) {
        self.used = true;
        let (bounds, now) = (self.bounds, now());
        // Who is making room just now does without.
        if bounds.marks_use()
            && let Ok(mut walker) = self.state.walker.try_lock()
        {
            let function = path.to_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
            let name = Name { function: function.into(), key: self.key };
            let seen = Seen { size: size(self.len, bounds), seconds: took.as_secs_f64(), used: now };
            walker.candidates.add_made(name, seen, bounds.policy(), now);
        }
    }
}

/// What an entry of this length counts for where one is compared with others.
pub(crate) fn size(len: u64, bounds: &Bounds) -> u64 {
    if bounds.bounds_entries_alone() { 1 } else { room(len) }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.used {
            let (tally, key_byte) = (self.state.tally(), self.key.as_bytes()[0]);
            tally.remove(key_byte, self.len);
            if let Some(len) = self.replaces {
                tally.add(key_byte, room(len));
            }
        }
    }
}

/// Makes room for an entry of `len` bytes, whose file is there already, without its name. What it replaces does not count from
/// here on.
pub(crate) fn reserve<'s>(
    state: &'s State,
    bounds: &'s Bounds,
    key: &Key,
    len: u64,
    inode: u64,
    replaces: Option<u64>,
) -> Result<Reserved<'s>, Unstored> {
    if room(len) > bounds.max_bytes() {
        return Err(Unstored::TooLarge);
    }
    let (tally, bucket) = (state.tally(), key.as_bytes()[0]);
    tally.add(bucket, room(len));
    if let Some(len) = replaces {
        tally.remove(bucket, len);
    }
    let reserved = Reserved { state, bounds, key: *key, len, replaces, used: false };
    // Where another thread is making room, this one has to see to it only if there is too little.
    let is_short = || is_over(tally.total(), bounds, 0);
    if bounds.bound_anything()
        && let Some(mut walker) = try_lock(state).or_else(|| is_short().then(|| lock(&state.walker)))
    {
        walker.publications += 1;
        let pending = Pending { key: *key, bytes: room(len), inode, takes_place: replaces.is_some() };
        let (gone, (bytes, entries)) = make_room(&mut walker, state, bounds, Some(&pending), room(len), 0);
        let slack = if bounds.policy() == Policy::None { 0 } else { SLACK };
        let is_far_over =
            |all: u64, bound: u64| all > bound.saturating_add(bound.checked_div(slack).unwrap_or(0));
        if is_far_over(bytes, bounds.max_bytes()) && gone.bytes < room(len)
            || is_far_over(entries, bounds.max_entries()) && gone.entries == 0
        {
            return Err(Unstored::TooLarge);
        }
    }
    Ok(reserved)
}

/// Removes entries until the file system has as much free as is to stay free, and `len` bytes besides, which are about to be
/// written.
pub(crate) fn keep_free(state: &State, bounds: &Bounds, len: u64) -> Result<(), Unstored> {
    // Where another thread is making room, that is all there is to be had.
    if bounds.min_free_bytes() > 0
        && let Some(mut walker) = try_lock(state)
    {
        let lacking = walker.lacking(&state.directory, bounds, room(len));
        if lacking > 0 && make_room(&mut walker, state, bounds, None, room(len), lacking).0.bytes < lacking {
            return Err(Unstored::DiskFull);
        }
    }
    Ok(())
}

/// `None` where another thread has it.
fn try_lock(state: &State) -> Option<MutexGuard<'_, Walker>> {
    match state.walker.try_lock() {
        Ok(walker) => Some(walker),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Whether so many bytes and entries are more than the bounds less `1/reserve` of each allow; all of it for 0.
fn is_over((bytes, entries): (u64, u64), bounds: &Bounds, reserve: u64) -> bool {
    let below = |bound: u64| bound - bound.checked_div(reserve).unwrap_or(0);
    bytes > below(bounds.max_bytes()) || entries > below(bounds.max_entries())
}

/// Removes what is too much, and `lacking` bytes at least, as far as there is time for that beside writing `bytes`. What is
/// gone, and what is counted then.
fn make_room(
    walker: &mut Walker,
    state: &State,
    bounds: &Bounds,
    pending: Option<&Pending>,
    bytes: u64,
    lacking: u64,
) -> (Pruned, (u64, u64)) {
    let (tally, blocks) = (state.tally(), bytes / BLOCK);
    let mut all = tally.total();
    let may_evict = bounds.policy() != Policy::None;
    let walk_on = walker.publications >= WALK_EVERY || !state.counts_for_all() || !walker.knows_all;
    // What is over age goes under any policy.
    let everywhere = walk_on || !may_evict && bounds.max_age() != i64::MAX && is_over(all, bounds, 0);
    let began = now();
    let until = began.saturating_add(LOOK_WITHIN + blocks as i64 * LOOK_WITHIN_A_BLOCK);
    let mut look = Look { state, bounds, now: began, until, pending, everywhere };
    let mut gone = Pruned::default();
    let mut fruitless = 0;
    let at_most = MAX_VICTIMS + blocks;
    while fruitless < MAX_FRUITLESS && gone.entries < at_most {
        let is_short = may_evict && (is_over(all, bounds, 0) || gone.bytes < lacking);
        if !(look.everywhere || is_short) {
            break;
        }
        let more = walker.evict(&look, |more| {
            if !is_short || gone.entries + more.entries >= at_most {
                return false;
            }
            // Added up each time: others make room as well.
            let all = tally.total();
            is_over(all, bounds, 0)
                || gone.bytes + more.bytes < lacking
                || is_over(all, bounds, RESERVE) && now() < began + RESERVE_WITHIN
        });
        look.everywhere = false;
        fruitless = if more.entries == 0 { fruitless + 1 } else { 0 };
        gone.add(more);
        all = tally.total();
    }
    (gone, all)
}

/// Removes what is over age or over a bound, of the whole directory, however long that takes.
pub(crate) fn prune(state: &State, bounds: &Bounds) -> Pruned {
    let look = Look { state, bounds, now: now(), until: i64::MAX, pending: None, everywhere: true };
    let mut walker = lock(&state.walker);
    let mut gone = Pruned::default();
    // One round to count anew, so that nothing goes because of a count that was wrong.
    walker.walk = None;
    let round = walker.finished + BUCKETS as u64;
    while walker.finished < round {
        gone.add(walker.evict(&look, |_| false));
    }
    walker.space = None;
    let mut lacking = walker.lacking(&state.directory, bounds, 0);
    let is_over = || is_over(state.tally().total(), bounds, 0);
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
    /// Whether all buckets were walked through in this boot when it looked last.
    knows_all: bool,
    /// Since the last window that left no bucket out.
    publications: u32,
    /// Of buckets with changes under way: the fewest there were since, and since when.
    under_way: HashMap<u8, (u32, i64)>,
    candidates: Candidates<Name>,
    /// When the file system was asked for its free space, for which bound, and how much this process may use before it asks
    /// again.
    space: Option<(Instant, u64, u64)>,
}

/// What a look at some entries is for.
struct Look<'a> {
    state: &'a State,
    bounds: &'a Bounds,
    now: i64,
    /// When it ends, however little was seen, or removed of what is over age.
    until: i64,
    pending: Option<&'a Pending>,
    /// At a window in any case, also of buckets that are counted as empty.
    everywhere: bool,
}

impl Look<'_> {
    fn goes_on(&self) -> bool {
        coarse_now() < self.until
    }

    /// Whether this is what is about to be replaced. It does not count any more.
    fn replaces(&self, key: &Key) -> bool {
        self.pending.is_some_and(|pending| pending.replaces(key))
    }

    /// What it is for, if that belongs to the bucket.
    fn pending_in(&self, bucket: u8) -> Option<&Pending> {
        self.pending.filter(|pending| pending.key.as_bytes()[0] == bucket)
    }

    /// How many changes others have under way in the bucket, by what it tells of changes.
    fn under_way(&self, bucket: u8, changes: u32) -> u32 {
        (changes / UNDER_WAY).saturating_sub(self.pending_in(bucket).is_some().into())
    }
}

/// An entry that room is being made for.
#[derive(Clone, Copy)]
struct Pending {
    key: Key,
    /// What it counts for.
    bytes: u64,
    inode: u64,
    takes_place: bool,
}

impl Pending {
    /// Whether it takes the place of the entry of this key.
    fn replaces(&self, key: &Key) -> bool {
        self.takes_place && self.key == *key
    }

    /// Whether a file is this entry, or what it replaces.
    fn is(&self, key: &Key, inode: u64) -> bool {
        self.inode == inode || self.replaces(key)
    }
}

/// Walking through one bucket.
struct Walk {
    bucket: u8,
    began: i64,
    /// What was counted then, but for `pending`: bytes, entries.
    counted: (i64, i32),
    /// The changes that others had under way then, and the removals that had been begun.
    changes: (u32, u32),
    /// The entry that this process was making room for then.
    pending: Option<Pending>,
    /// The functions whose shards are still to be read.
    functions: Vec<CString>,
    shard: Option<Listing>,
    found: (i64, i32),
    /// Removals that this walker began in it meanwhile.
    removals: u32,
    /// Whether everything could be read.
    whole: bool,
}

/// A function's entries in that bucket.
struct Listing {
    function: Arc<[u8]>,
    shard: Shard,
    /// Listed, and still to be looked at.
    keys: Vec<Key>,
}

/// An entry that may go.
struct Name {
    /// Its directory's.
    function: Arc<[u8]>,
    key: Key,
}

impl Name {
    fn bucket(&self) -> u8 {
        self.key.as_bytes()[0]
    }
}

/// An entry that was found on the way.
struct Found {
    name: Name,
    created: i64,
    seen: Seen,
}

impl Walker {
    pub(crate) fn new() -> Walker {
        // Processes begin anywhere.
        let next = (now() as u64 ^ u64::from(std::process::id())).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        Walker {
            next: next as u8,
            walk: None,
            finished: 0,
            knows_all: false,
            publications: 0,
            under_way: HashMap::new(),
            candidates: Candidates::new(),
            space: None,
        }
    }

    /// Removes what is least worth keeping for as long as `more` says so, and until others are to be looked at. If they are
    /// already, it looks at the next entries first, and removes those over age.
    fn evict(&mut self, look: &Look<'_>, more: impl Fn(Pruned) -> bool) -> Pruned {
        let bounds = look.bounds;
        let mut gone = Pruned::default();
        if look.everywhere || self.candidates.are_used_up() {
            let mut window = self.look(look);
            let is_old = |created: i64| look.now.saturating_sub(created) > bounds.max_age();
            window.retain(|entry| {
                // One in any case, where the disk is so slow that looking took all the time there is.
                if !is_old(entry.created) || gone.entries > 0 && !look.goes_on() {
                    return true;
                }
                // Unless it was replaced since.
                gone.add(self.remove(look.state, &entry.name, |stat| is_old(nanoseconds(stat.stx_mtime))));
                false
            });
            let window = window.into_iter().map(|entry| (entry.name, entry.seen));
            self.candidates.add_window(window, bounds.policy(), look.now);
        }
        while more(gone)
            && let Some((name, known)) = self.candidates.next_to_go(bounds.policy(), look.now)
        {
            if look.replaces(&name.key) {
                continue;
            }
            let mut seen = known;
            gone.add(self.remove(look.state, &name, |stat| {
                seen.used = used(stat, look.now);
                seen.used <= known.used
            }));
            if seen.used > known.used {
                self.candidates.add(name, seen, bounds.policy(), look.now);
            }
        }
        gone
    }

    /// Removes an entry, if `goes` says so of what is there.
    fn remove(&mut self, state: &State, name: &Name, goes: impl FnOnce(&Statx) -> bool) -> Pruned {
        let _change = state.tally().change(name.bucket(), true);
        if let Some(walk) = self.walk.as_mut().filter(|walk| walk.bucket == name.bucket()) {
            walk.removals += 1;
        }
        let len = match state.directory.evict(&name.function, &name.key, goes) {
            Ok(Some(len)) => len,
            Ok(None) => return Pruned::default(),
            Err(_) => {
                self.candidates.pass_over();
                return Pruned::default();
            }
        };
        state.tally().remove(name.bucket(), len);
        state.count(state.row(&String::from_utf8_lossy(&name.function)), Count::Evicted, 1);
        Pruned { entries: 1, bytes: room(len) }
    }

    /// Walks on until there is a window of entries, or until everything was seen.
    fn look(&mut self, look: &Look<'_>) -> Vec<Found> {
        let tally = look.state.tally();
        let mut functions = None;
        let mut entries = Vec::with_capacity(WINDOW);
        let (mut opened, round) = (0, self.finished + BUCKETS as u64);
        let mut left_out = false;
        while entries.len() < WINDOW && opened < MAX_SHARDS && self.finished < round && look.goes_on() {
            if let Some(walk) = &mut self.walk {
                if walk.shard.is_some() {
                    walk.read(look, &mut entries);
                    continue;
                }
                if let Some(function) = walk.functions.pop() {
                    opened += 1;
                    walk.open(&look.state.directory, function);
                    continue;
                }
                walk.end(tally);
                self.walk = None;
            } else if look.everywhere || !tally.is_known_empty(self.next) {
                let functions = functions.get_or_insert_with(|| look.state.directory.functions());
                let bucket = self.next;
                self.forget_abandoned(look, bucket);
                self.walk = Some(Walk::begin(look, bucket, functions.as_deref()));
                // It is looked at again. So what goes of it from here on was found by this walk, or made since.
                self.candidates.forget(|name| name.bucket() == bucket);
                continue;
            } else {
                left_out = true;
            }
            self.finished += 1;
            let after = self.next.wrapping_add(1);
            let unknown = tally.unknown(after);
            self.knows_all = unknown.is_none();
            self.next = unknown.unwrap_or(after);
        }
        if !left_out {
            self.publications = 0;
        }
        entries
    }

    /// Takes changes for ended that are seen to be under way each time for long: who was killed does not end them.
    fn forget_abandoned(&mut self, look: &Look<'_>, bucket: u8) {
        let changes = &look.state.tally().buckets[bucket as usize].changes;
        let under_way = look.under_way(bucket, changes.load(Ordering::Relaxed));
        if under_way == 0 {
            self.under_way.remove(&bucket);
            return;
        }
        let (fewest, since) = self.under_way.entry(bucket).or_insert((under_way, look.now));
        *fewest = under_way.min(*fewest);
        if look.now.saturating_sub(*since) > ABANDONED_AFTER {
            let end = |changes: u32| changes.checked_sub(*fewest * UNDER_WAY);
            let _ = changes.fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
            self.under_way.remove(&bucket);
        }
    }

    /// By how much the file system has less free than is to stay free, once `bytes` are used besides.
    fn lacking(&mut self, directory: &Directory, bounds: &Bounds, bytes: u64) -> u64 {
        let min_free = bounds.min_free_bytes();
        if min_free == 0 {
            return 0;
        }
        if let Some((asked, bound, left)) = &mut self.space
            && asked.elapsed() < SPACE_KNOWN_FOR
            && *bound == min_free
            && *left > bytes
        {
            *left -= bytes;
            return 0;
        }
        let Some(free) = directory.free_space() else { return 0 };
        self.space = Some((Instant::now(), min_free, free.saturating_sub(min_free) / 8));
        min_free.saturating_add(bytes).saturating_sub(free)
    }
}

/// When an entry was used last, by what the system says of its file.
fn used(stat: &Statx, now: i64) -> i64 {
    last_used(nanoseconds(stat.stx_atime), nanoseconds(stat.stx_mtime), now)
}

impl Walk {
    fn begin(look: &Look<'_>, bucket: u8, functions: Result<&[CString], &Errno>) -> Walk {
        let of_bucket = &look.state.tally().buckets[bucket as usize];
        // First: what ended before this was counted, and what did not is known to be uncertain.
        let changes = of_bucket.changes.load(Ordering::Acquire);
        let changes = (look.under_way(bucket, changes), changes & REMOVALS);
        // Before anything is read: what is added from here on is counted, and not found.
        let mut counted =
            (of_bucket.bytes.load(Ordering::Relaxed), of_bucket.entries.load(Ordering::Relaxed));
        let pending = look.pending_in(bucket);
        if let Some(pending) = pending {
            counted.0 -= pending.bytes as i64;
            counted.1 -= 1;
        }
        let (whole, functions) = (functions.is_ok(), functions.unwrap_or_default().to_vec());
        let began = now();
        Walk {
            bucket,
            began,
            counted,
            changes,
            pending: pending.copied(),
            functions,
            shard: None,
            found: (0, 0),
            removals: 0,
            whole,
        }
    }

    /// Whether an entry was made since this began, so that it was not counted then. Of a time that is yet to come, by more
    /// than its last 16 bits, is what was made before a clock was set back.
    fn is_newer(&self, created: i64) -> bool {
        (self.began..=now().saturating_add(1 << 16)).contains(&created)
    }

    fn open(&mut self, directory: &Directory, function: CString) {
        match directory.shard(function.to_bytes(), self.bucket) {
            Ok(shard) => {
                let function = function.to_bytes().into();
                self.shard = Some(Listing { function, shard, keys: Vec::with_capacity(WINDOW) });
            }
            // Not there, or a file of the user's, or a link.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(_) => self.whole = false,
        }
    }

    /// Adds the shard's next entries.
    fn read(&mut self, look: &Look<'_>, entries: &mut Vec<Found>) {
        let Some(mut listing) = self.shard.take() else { return };
        if listing.keys.is_empty() {
            self.whole &= listing.shard.next_keys(&mut listing.keys).is_ok();
            if listing.keys.is_empty() {
                return;
            }
        }
        while entries.len() < WINDOW
            && look.goes_on()
            && let Some(key) = listing.keys.pop()
        {
            // No call looks for it here; or it is about to be replaced.
            if key.as_bytes()[0] != self.bucket || look.replaces(&key) {
                continue;
            }
            // Removed meanwhile, or no file.
            let Some(stat) = listing.shard.stat(&key) else { continue };
            let (len, created) = (stat.stx_size, nanoseconds(stat.stx_mtime));
            if !self.is_newer(created) && !self.pending.is_some_and(|own| own.is(&key, stat.stx_ino)) {
                self.found.0 += room(len) as i64;
                self.found.1 += 1;
            }
            // A time that is no stamp was set by whoever copied the file.
            let seconds = seconds_of(created).or_else(|| listing.shard.seconds(&key, len)).unwrap_or(0.0);
            let seen = Seen { size: size(len, look.bounds), seconds, used: used(&stat, look.now) };
            let name = Name { function: listing.function.clone(), key };
            entries.push(Found { name, created, seen });
        }
        self.shard = Some(listing);
    }

    /// Puts what was found in the place of what was counted when it began, as far as that is certain. Of each entry that
    /// others were publishing then, or began to remove since, it is not known whether it was found, or counted. So the
    /// difference may be wrong by as many, and no more of it is believed than is left without them.
    fn end(&self, tally: &Tally) {
        let bucket = &tally.buckets[self.bucket as usize];
        let removals = bucket.changes.load(Ordering::Acquire).wrapping_sub(self.changes.1) & REMOVALS;
        let uncertain = self.changes.0 + (removals.wrapping_sub(self.removals) & REMOVALS);
        let (bytes, entries) = (self.found.0 - self.counted.0, self.found.1 - self.counted.1);
        // Where something could not be read, what was found is there all the same.
        if self.whole || entries > 0 {
            let certain = entries.signum() * entries.unsigned_abs().saturating_sub(uncertain) as i32;
            // And the same part of the bytes.
            let bytes = match uncertain {
                0 => bytes,
                _ => (bytes as f64 * f64::from(certain.abs()) / f64::from(entries.abs().max(1))) as i64,
            };
            bucket.bytes.fetch_add(bytes, Ordering::Relaxed);
            bucket.entries.fetch_add(certain, Ordering::Relaxed);
        }
        let seconds = (self.began / 1_000_000_000).clamp(1, u32::MAX.into());
        tally.walked[self.bucket as usize].store(seconds as u32, Ordering::Relaxed);
    }
}
