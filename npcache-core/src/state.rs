//! What the processes and threads that share a directory tell each other: locks, generations, and a wake-up.
//!
//! Two files carry it. `.npcache/lock` is locked in single bytes: byte 0 by who clears (exclusive) and who
//! publishes (shared), and one byte above [`KEYS_FROM`] for each key that is being computed. These are locks of the
//! open file description, which the kernel drops when its last holder is gone, however it went. The file's content
//! is the generations: counters that a clear raises, by which a result is known to be older than the clear.
//! `.npcache/state-<boot id>-<root inode>` is mapped by every process and holds the same counters again, where
//! reading them costs a load, and a word to wait on. Its name makes sure that no copied directory brings one along
//! that is mapped elsewhere: copying over a mapped file kills who reads it. It can always be deleted. It is also where
//! calls are counted, see [`crate::statistics`].

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, fallocate, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

use crate::bounds::Bounds;
use crate::digest::hex;
use crate::error::Unstored;
use crate::evict::{Tally, Walker};
use crate::flight::Flights;
use crate::fork::{LockFile, PerProcess};
use crate::holder::{self, Holder, Myself, Slots};
use crate::key::Key;
use crate::log::{Level, say_once};
use crate::memory::Table;
use crate::statistics::{Counters, ROWS, Row};
use crate::store::{Directory, LOCK_FILE, STATE_PREFIX, STATISTICS_FILE, below_size_limit, now, retry};

/// Bytes below are administrative; the byte of a key is this plus a quarter of its first eight bytes, which keeps
/// it below the largest file offset.
const KEYS_FROM: u64 = 4096;

/// The byte that excludes clearing and publishing.
const CLEARING: u64 = 0;

/// The byte of who adds up the statistics of earlier boots.
const ADDING_UP: u64 = 1;

/// Counters of generations: the first for `clear`, one of the others for the `clear_function` of any function whose
/// name falls on it.
const GENERATIONS: usize = 256;

/// Their length in the lock file.
const GENERATIONS_LEN: u64 = 8 * GENERATIONS as u64;

/// Length of the state page.
const PAGE_LEN: usize = 64 << 10;

/// Where in it the slots of those who compute are.
const HOLDERS_AT: usize = 8192;
/// Where in it the statistics are.
const ROWS_AT: usize = 16 << 10;

/// The layout of [`Page`]; another's page is left alone.
const PAGE_LAYOUT: u32 = 1;

/// How long to wait for a lock before looking again, where nobody can wake us: short at first, for short
/// functions, then at most this.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Calls for a key that come back busy count as one wait, if no more than this lies between two of them.
const WAIT_PAUSE: Duration = Duration::from_secs(10);

/// How long a publisher waits for one who clears: a busy disk may take seconds for its eight bytes, and one who was
/// stopped in the middle keeps nobody for longer than this.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often letting go of a lock is tried: 1 ms after the first failure, then 2, up to a second in all.
const UNLOCKS: u32 = 10;

/// More than lies between two times that a file system tells apart, in nanoseconds.
const TICK: i64 = 2_000_000_000;

/// Where a State could not open its files for want of space or descriptors, this long passes before that is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the handles of this process on one directory share, as far as they trust the same and make files for the same.
pub(crate) struct State {
    pub(crate) directory: Arc<Directory>,
    identity: (u64, u64),
    /// Why not, where the directory cannot be written: nothing is shared between processes then.
    locks: Result<Locks, Unstored>,
    /// When `locks` failed last, for want of something that may be had later.
    failed: Option<Mutex<Instant>>,
    page: Option<Page>,
    /// This process, for those who wait for it.
    me: Myself,
    pub(crate) counters: Counters,
    pub(crate) flights: Flights,
    /// `None` where nothing is to be kept, or where no page tells of clears by other processes.
    pub(crate) memory: Option<Table>,
    /// Entries not known from this boot whose data was verified by this process: key, inode, mtime.
    pub(crate) verified: parking_lot::Mutex<std::collections::HashSet<(Key, u64, i64)>>,
    /// For each key that calls came back busy from: when the first of them began, and the last ended.
    waits: Mutex<HashMap<Key, (Instant, Instant)>>,
    /// Whether there are any: every hit on disk asks.
    has_waits: AtomicBool,
    /// The lock file is gone from the directory; new calls go to a new State.
    retired: AtomicBool,
    /// The directory's own bounds, as far as they were read.
    configured: Configured,
    /// What is counted of the entries, where there is no page to count in.
    own_tally: Option<Box<Tally>>,
    pub(crate) walker: Mutex<Walker>,
}

/// What the directory says of its bounds, as of the `version`th time that it was changed in this boot.
struct Configured {
    version: AtomicU64,
    bounds: Mutex<Bounds>,
    /// Of these, what hits in memory have to know.
    max_age: AtomicI64,
    marks_use: AtomicBool,
}

/// The States of this process.
static REGISTRY: PerProcess<Mutex<Vec<Weak<State>>>> = PerProcess::new();

/// Runs when the process exits: many a program leaves its caches open.
extern "C" fn at_exit() {
    // Whoever holds it now may hold it for ever.
    let Ok(registry) = REGISTRY.get(|_| true, Mutex::default).try_lock() else { return };
    registry.iter().filter_map(Weak::upgrade).for_each(|state| state.add_all_memory_hits());
}

impl State {
    /// The State of this process for `directory`.
    pub(crate) fn of(directory: Arc<Directory>, writable: bool, memory: u64) -> Arc<State> {
        static REGISTERED: AtomicBool = AtomicBool::new(false);
        if !REGISTERED.swap(true, Ordering::Relaxed) {
            // SAFETY: a function of this library, which is never unloaded (`-z nodelete`). Where it cannot be had, hits in
            // memory are lost at the exit.
            unsafe { libc::atexit(at_exit) };
        }
        let mut registry = lock(REGISTRY.get(|_| true, Mutex::default));
        registry.retain(|state| state.strong_count() > 0);
        let identity = directory.identity();
        let known = registry.iter().filter_map(Weak::upgrade).find(|state| {
            // One opened to read does not have what a writer needs, one that trusts all has what others planted, and what
            // is made with one is for the group, or not, as its directory was opened. Several of a process exclude each
            // other, and see each other's clears, as those of several processes do.
            state.is_current()
                && state.identity == identity
                && (!writable
                    || state.locks.is_ok() && state.directory.is_for_group() == directory.is_for_group())
                && state.directory.trusts_owner() == directory.trusts_owner()
        });
        let state = known.unwrap_or_else(|| {
            let state = Arc::new(State::open(directory, writable, memory));
            registry.push(Arc::downgrade(&state));
            state
        });
        drop(registry);
        state.say_what_is_missing();
        state
    }

    /// Says what this directory does not allow, where it was to be written.
    fn say_what_is_missing(&self) {
        let path = self.directory.path();
        match (&self.locks, &self.page) {
            (Err(Unstored::ReadOnlyMode), _) => {}
            (Err(why), _) => say_once(Level::Warning, path, &why.to_string(), || {
                format!("{}: {why}: what is computed is returned, but not stored", path.display())
            }),
            (Ok(_), None) => say_once(Level::Info, path, "no page", || {
                let local = self.directory.is_local();
                let why = if local { "could not be made" } else { "is not had on this file system" };
                format!(
                    "{}: a page shared by processes {why}: nothing is kept in memory, and who waits for another looks \
                     every {} ms",
                    path.display(),
                    POLL.as_millis()
                )
            }),
            (Ok(_), Some(_)) => {}
        }
    }

    fn open(directory: Arc<Directory>, writable: bool, memory: u64) -> State {
        let locks = if writable {
            Locks::open(&directory).map_err(Unstored::from)
        } else {
            Err(Unstored::ReadOnlyMode)
        };
        let page = Page::open(&directory, locks.is_ok());
        if locks.is_ok() {
            directory.collect_temporaries(false);
            let _ = add_up_earlier_boots(&directory, page.as_ref());
        }
        let counts_for_all = page.as_ref().is_some_and(|page| page.writable);
        let counters = Counters::new(counts_for_all);
        let failed = is_passing(&locks).then(|| Mutex::new(Instant::now()));
        State {
            identity: directory.identity(),
            directory,
            locks,
            failed,
            flights: Flights::default(),
            memory: (memory > 0 && page.is_some()).then(|| Table::new(memory)),
            counters,
            verified: parking_lot::Mutex::default(),
            page,
            me: Myself::new(),
            waits: Mutex::default(),
            has_waits: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            configured: Configured {
                // Another than the page's, so that the first to ask reads them.
                version: AtomicU64::new(u64::MAX),
                bounds: Mutex::default(),
                max_age: AtomicI64::new(i64::MAX),
                marks_use: AtomicBool::new(false),
            },
            own_tally: (!counts_for_all).then(|| Box::new(Tally::new())),
            walker: Mutex::new(Walker::new()),
        }
    }

    /// The directory's own bounds. Read again when a process of this machine has changed them; with every call, where no
    /// page tells.
    pub(crate) fn bounds(&self) -> Bounds {
        let version = self.bounds_version();
        let mut bounds = lock(&self.configured.bounds);
        // Where that is not possible just now, with the next call; what was known holds until then.
        if version != Some(self.configured.version.load(Ordering::Relaxed))
            && let Ok(read) = Bounds::read(&self.directory)
        {
            *bounds = read;
            self.configured.max_age.store(bounds.max_age(), Ordering::Relaxed);
            self.configured.marks_use.store(bounds.marks_use(), Ordering::Relaxed);
            self.configured.version.store(version.unwrap_or(u64::MAX), Ordering::Release);
        }
        *bounds
    }

    /// How often they were changed in this boot, where a page tells.
    fn bounds_version(&self) -> Option<u64> {
        self.page.as_ref().map(|page| page.shared().configured.0.load(Ordering::Acquire))
    }

    /// Whether the directory's own bounds, as they are now, concern hits. Takes no lock but where they were changed.
    pub(crate) fn bounds_hits(&self) -> bool {
        if self.bounds_version() != Some(self.configured.version.load(Ordering::Acquire)) {
            self.bounds();
        }
        self.known_bounds() != (i64::MAX, false)
    }

    /// Of the bounds that were last read, those that a hit in memory has to know: the age, and whether use is marked.
    pub(crate) fn known_bounds(&self) -> (i64, bool) {
        (self.configured.max_age.load(Ordering::Relaxed), self.configured.marks_use.load(Ordering::Relaxed))
    }

    /// The directory's bounds were changed.
    pub(crate) fn reconfigured(&self) {
        if let Some(page) = self.writable_page() {
            page.shared().configured.0.fetch_add(1, Ordering::AcqRel);
        }
        self.bounds();
    }

    /// The page, where this process may write to it.
    fn writable_page(&self) -> Option<&Page> {
        self.page.as_ref().filter(|page| page.writable)
    }

    /// What is counted of the entries.
    pub(crate) fn tally(&self) -> &Tally {
        match &self.own_tally {
            Some(own) => own,
            None => &self.writable_page().expect("else there is one of this process").shared().tally,
        }
    }

    /// Unlinks an entry, and counts that: whether there was any. What is no file was not counted.
    pub(crate) fn unlink_entry(&self, path: &CStr, key: &Key) -> rustix::io::Result<bool> {
        let key_byte = key.as_bytes()[0];
        let _change = self.tally().change(key_byte, true);
        let removed = self.directory.unlink(path)?;
        if let Some(len) = removed.filter(|len| *len > 0) {
            self.tally().remove(key_byte, len);
        }
        Ok(removed.is_some())
    }

    /// Whether all processes count there.
    pub(crate) fn counts_for_all(&self) -> bool {
        self.writable_page().is_some()
    }

    /// Whether new calls may use this State.
    pub(crate) fn is_current(&self) -> bool {
        !self.retired.load(Ordering::Relaxed)
            && self.failed.as_ref().is_none_or(|failed| self.fails_still(failed))
    }

    /// Whether what could not be opened cannot be opened now. Tried before the State is replaced, and not by doing so: one
    /// that was replaced is not freed before its handles are.
    #[cold]
    fn fails_still(&self, failed: &Mutex<Instant>) -> bool {
        let Ok(mut failed) = failed.try_lock() else { return true };
        if failed.elapsed() < RETRY_AFTER {
            return true;
        }
        *failed = Instant::now();
        let fails = is_passing(&Locks::open(&self.directory).map_err(Unstored::from));
        if !fails {
            self.retire();
        }
        fails
    }

    /// Whether the directory was gone already when this State was made.
    pub(crate) fn is_removed(&self) -> bool {
        matches!(self.locks, Err(Unstored::Removed))
    }

    /// The generation of a function's entries: changes with every clear that concerns it. No system call, where there is
    /// a page.
    pub(crate) fn generation(&self, slot: Slot) -> Generation {
        match &self.page {
            Some(page) => Generation { page: page.generation(slot), file: None },
            None => self.full_generation(slot),
        }
    }

    /// The same, with the lock file's opinion: what a publisher compares. One system call.
    pub(crate) fn full_generation(&self, slot: Slot) -> Generation {
        let page = self.page.as_ref().map_or(0, |page| page.generation(slot));
        Generation { page, file: self.locks.as_ref().ok().and_then(|locks| locks.generation(slot)) }
    }

    /// Tries to become the one process that computes `key`.
    pub(crate) fn try_lock(self: &Arc<Self>, key: &Key) -> TryLock {
        let Ok(locks) = &self.locks else { return TryLock::Unavailable };
        let offset = lock_of(key);
        match locks.try_lock(offset, libc::F_WRLCK) {
            Ok(true) => {
                let held = HeldLock { state: self.clone(), offset };
                if locks.is_unlinked() {
                    self.retired.store(true, Ordering::Relaxed);
                    return TryLock::Retired;
                }
                if let Some(page) = self.writable_page() {
                    holder::claim(&page.shared().holders, offset, &self.me);
                }
                TryLock::Held(held)
            }
            Ok(false) => TryLock::Busy,
            Err(e) => {
                let path = self.directory.path();
                say_once(Level::Warning, path, "no locks", || {
                    format!(
                        "{}: cannot be locked: {e}: processes that ask for one thing at once all compute it",
                        path.display()
                    )
                });
                TryLock::Unavailable
            }
        }
    }

    /// Who computes `key`, whose lock could not be had; `None` where that is not known.
    pub(crate) fn holder(&self, key: &Key) -> Option<Holder> {
        holder::find(&self.page.as_ref()?.shared().holders, lock_of(key))
    }

    /// The word to [`State::wait`] on; read before the lock is tried for the last time.
    pub(crate) fn wake_word(&self) -> u32 {
        self.page.as_ref().map_or(0, |page| page.wake_word().load(Ordering::Acquire))
    }

    /// Whether the lock of some key may have been released since `word` was read, before this process got the one that it
    /// has.
    pub(crate) fn may_have_unlocked(&self, word: u32) -> bool {
        !self.counts_for_all() || self.wake_word() != word
    }

    /// Waits until a lock was released since `word` was read, or for `at_most`.
    pub(crate) fn wait(&self, word: u32, at_most: Duration) {
        match self.writable_page() {
            Some(page) => {
                let timeout = futex::Timespec {
                    tv_sec: at_most.as_secs() as i64,
                    tv_nsec: i64::from(at_most.subsec_nanos()),
                };
                // Woken, changed, timed out or interrupted: the caller looks again in any case.
                let _ = futex::wait(page.wake_word(), futex::Flags::empty(), word, Some(&timeout));
            }
            None => std::thread::sleep(at_most),
        }
    }

    /// Keeps a clear from beginning, if none has since `generation`; for publishing. `None` where there are no locks
    /// to keep it with.
    pub(crate) fn permit(
        self: &Arc<Self>,
        slot: Slot,
        generation: Generation,
    ) -> Result<Option<HeldLock>, Unstored> {
        let locks = self.locks.as_ref().map_err(|why| *why)?;
        // Who clears holds the byte for microseconds, or for as long as the disk takes to accept eight bytes.
        let deadline = Instant::now() + PERMIT_TIMEOUT;
        let mut pause = Duration::from_micros(100);
        let permission = loop {
            match locks.try_lock(CLEARING, libc::F_RDLCK) {
                Ok(true) => break Some(HeldLock { state: self.clone(), offset: CLEARING }),
                Ok(false) if Instant::now() > deadline => return Err(Unstored::Cleared),
                Ok(false) if !self.generation(slot).agrees(&generation) => return Err(Unstored::Cleared),
                Ok(false) => {
                    std::thread::sleep(pause);
                    pause = (2 * pause).min(Duration::from_millis(10));
                }
                // No locks here. Of other errors a clear might be told less.
                Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => break None,
                Err(e) => return Err(e.into()),
            }
        };
        if self.full_generation(slot) == generation { Ok(permission) } else { Err(Unstored::Cleared) }
    }

    /// Raises the generation of `slot`, when every publisher of an older one is done.
    pub(crate) fn raise_generation(&self, slot: Slot, at_most: Duration) -> rustix::io::Result<()> {
        // A description of its own: locks of one description do not exclude each other.
        let file = LockFile::open(|| self.directory.open_file(LOCK_FILE, OFlags::RDWR))?;
        let start = Instant::now();
        while !set_lock(&file, libc::F_WRLCK, CLEARING)? {
            if start.elapsed() > at_most {
                return Err(Errno::TIMEDOUT);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        if let Some(page) = self.writable_page() {
            page.shared().generations[slot.0].fetch_add(1, Ordering::AcqRel);
        }
        let mut count = [0; 8];
        retry(|| rustix::io::pread(file.fd(), &mut count, slot.offset()))?;
        let next = u64::from_le_bytes(count).wrapping_add(1);
        below_size_limit(GENERATIONS_LEN)?;
        retry(|| rustix::io::pwrite(file.fd(), &next.to_le_bytes(), slot.offset()))?;
        // Closing would do, but for a child that a fork is just making and that has not closed its copy yet.
        let _ = set_lock(&file, libc::F_UNLCK, CLEARING);
        Ok(())
    }

    /// Notes that a call which began at `began` waited for `key` in vain, and tells for how long whoever computes it has
    /// kept this process waiting, as far as such calls followed each other.
    pub(crate) fn waited(&self, key: &Key, began: Instant) -> Duration {
        let now = Instant::now();
        let mut waits = lock(&self.waits);
        waits.retain(|_, (_, last)| now.duration_since(*last) < WAIT_PAUSE);
        let (first, last) = waits.entry(*key).or_insert((began, now));
        *last = now;
        self.has_waits.store(true, Ordering::Relaxed);
        now.duration_since(*first)
    }

    /// Whoever computed `key` does no more; whether a call came back busy from it.
    pub(crate) fn forget_wait(&self, key: &Key) -> bool {
        if !self.has_waits.load(Ordering::Relaxed) {
            return false;
        }
        let mut waits = lock(&self.waits);
        let had = waits.remove(key).is_some();
        self.has_waits.store(!waits.is_empty(), Ordering::Relaxed);
        had
    }

    /// Whether a clear by any process is seen by [`State::generation`].
    pub(crate) fn tells_of_clears(&self) -> bool {
        self.page.is_some()
    }

    /// What all processes count, where there is a page.
    pub(crate) fn page_rows(&self) -> Option<&[Row]> {
        self.page.as_ref().map(Page::rows)
    }

    /// The page that a process made since this State was opened to read, when there was none yet.
    pub(crate) fn later_page(&self) -> Option<Page> {
        if self.page.is_some() { None } else { Page::open(&self.directory, false) }
    }

    /// Whether there is no page though there could be: no process has used the directory in this boot, but to read.
    pub(crate) fn is_unused(&self) -> bool {
        may_have_page(&self.directory)
            && self.directory.open_file(&page_name(&self.directory), OFlags::RDONLY).err()
                == Some(Errno::NOENT)
    }

    /// What was counted before this boot, in pages that nobody who writes has added up yet; and in the directory that this one
    /// is a copy of. Their names, and their bytes from the first row on.
    pub(crate) fn earlier_pages(&self) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
        other_pages(&self.directory, i64::MAX)
    }

    /// No call may use this State any more: its directory is gone.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

/// Whether the lock file could not be opened for want of something that may be had later.
fn is_passing(locks: &Result<Locks, Unstored>) -> bool {
    matches!(locks, Err(Unstored::DiskFull | Unstored::Io))
}

/// The byte of the lock file that stands for a key.
fn lock_of(key: &Key) -> u64 {
    KEYS_FROM + (key.first_word() >> 2)
}

impl Drop for State {
    fn drop(&mut self) {
        self.add_all_memory_hits();
    }
}

/// What [`State::try_lock`] found.
pub(crate) enum TryLock {
    Held(HeldLock),
    Busy,
    /// The lock file was removed; the call is to begin again with a new State.
    Retired,
    /// This file system or this process has no locks.
    Unavailable,
}

/// A locked byte, unlocked when dropped.
pub(crate) struct HeldLock {
    state: Arc<State>,
    offset: u64,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let Ok(locks) = &self.state.locks else { return };
        let page = self.state.writable_page().filter(|_| self.offset >= KEYS_FROM);
        if let Some(page) = page {
            holder::release(&page.shared().holders, self.offset, &self.state.me);
            // Who has it next is to see that it was had.
            page.wake_word().fetch_add(1, Ordering::Release);
        }
        locks.unlock(self.offset);
        if let Some(page) = page {
            // And who could not have it, before it waits, that it can be had.
            page.wake_word().fetch_add(1, Ordering::Release);
            let _ = futex::wake(page.wake_word(), futex::Flags::empty(), i32::MAX as u32);
        }
    }
}

/// When a call began, as clears count time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    page: u64,
    file: Option<u64>,
}

impl Generation {
    /// One clear later.
    #[cfg(test)]
    pub(crate) fn next(self) -> Generation {
        Generation { page: self.page + 1, ..self }
    }

    /// Whether no clear came between the two, as far as both know.
    pub(crate) fn agrees(&self, later: &Generation) -> bool {
        self.page == later.page && (self.file.is_none() || later.file.is_none() || self.file == later.file)
    }
}

/// Which counter a function's `clear_function` raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot(usize);

impl Slot {
    pub(crate) const ALL: Slot = Slot(0);

    pub(crate) fn of(function_directory: &str) -> Slot {
        let hash = twox_hash::XxHash3_64::oneshot(function_directory.as_bytes());
        Slot(1 + (hash % (GENERATIONS as u64 - 1)) as usize)
    }

    fn offset(self) -> u64 {
        8 * self.0 as u64
    }
}

/// The lock file. The kernel counts an open file description's locks once, however many threads hold them, so the
/// threads are counted here.
struct Locks {
    file: LockFile,
    held: Mutex<HashMap<u64, u32>>,
}

impl Locks {
    fn open(directory: &Directory) -> rustix::io::Result<Locks> {
        directory.make_admin()?;
        let file = LockFile::open(|| directory.open_admin_file(LOCK_FILE))?;
        if fstat(file.fd())?.st_size < GENERATIONS_LEN as i64 {
            // Room for the generations, so that a full disk can be cleared. Where there is none now, later perhaps.
            let allocate = || fallocate(file.fd(), rustix::fs::FallocateFlags::empty(), 0, GENERATIONS_LEN);
            let _ = below_size_limit(GENERATIONS_LEN).and_then(|()| retry(allocate));
        }
        Ok(Locks { file, held: Mutex::default() })
    }

    fn is_unlinked(&self) -> bool {
        fstat(self.file.fd()).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn generation(&self, slot: Slot) -> Option<u64> {
        // Both counters in one read, with what lies between them.
        let mut counts = [0; GENERATIONS_LEN as usize];
        let upto = slot.offset() as usize + 8;
        retry(|| rustix::io::pread(self.file.fd(), &mut counts[..upto], 0)).ok()?;
        let (counts, _) = counts.as_chunks();
        let count = |slot: Slot| u64::from_le_bytes(counts[slot.0]);
        Some(count(Slot::ALL).wrapping_add(count(slot)))
    }

    fn try_lock(&self, offset: u64, kind: i32) -> rustix::io::Result<bool> {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&offset) {
            *count += 1;
            return Ok(true);
        }
        let locked = set_lock(&self.file, kind, offset)?;
        if locked {
            held.insert(offset, 1);
        }
        Ok(locked)
    }

    fn unlock(&self, offset: u64) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&offset) {
            *count -= 1;
            if *count == 0 {
                held.remove(&offset);
                // It takes the kernel memory. A lock that stays keeps others waiting until this process ends.
                for pause in (0..UNLOCKS).map(|i| Duration::from_millis(1 << i)) {
                    if let Ok(true) = set_lock(&self.file, libc::F_UNLCK, offset) {
                        break;
                    }
                    std::thread::sleep(pause);
                }
            }
        }
    }
}

/// Sets or clears a lock on one byte, without waiting. `false`: somebody else holds it.
fn set_lock(file: &LockFile, kind: i32, offset: u64) -> rustix::io::Result<bool> {
    let request = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    use std::os::fd::AsRawFd;
    let done = retry(|| {
        // SAFETY: the descriptor is open, and the kernel only reads `request`.
        let status = unsafe { libc::fcntl(file.fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const request) };
        if status == 0 {
            return Ok(());
        }
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    });
    match done {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::AGAIN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The path of the state page of this boot.
fn page_name(directory: &Directory) -> CString {
    let name = format!(".npcache/{STATE_PREFIX}{}-{}", hex(&boot_id()), directory.identity().1);
    CString::new(name).expect("no NUL")
}

/// Whether all processes that use the directory can share a page.
fn may_have_page(directory: &Directory) -> bool {
    boot_id() != [0; 16] && directory.is_local()
}

/// Adds what is counted in the pages of earlier boots to the file of statistics, and removes them. That there are none
/// stands in this boot's page, so that only the first to open a cache, and who comes after a change, looks.
fn add_up_earlier_boots(directory: &Directory, page: Option<&Page>) -> Result<(), Unstored> {
    let (changed, unread) = (directory.admin_changed(), AtomicI64::new(0));
    let without_earlier =
        page.filter(|page| page.writable).map_or(&unread, |page| &page.shared().without_earlier);
    if changed != 0 && changed == without_earlier.load(Ordering::Relaxed) {
        return Ok(());
    }
    if names_of_other_pages(directory).next().is_none() {
        // A change in the same tick of the clock as the last would not be seen.
        if now().saturating_sub(changed) > TICK {
            without_earlier.store(changed, Ordering::Relaxed);
        }
        return Ok(());
    }
    // A description of its own, as in `raise_generation`.
    let lock = LockFile::open(|| directory.open_file(LOCK_FILE, OFlags::RDWR))?;
    if !set_lock(&lock, libc::F_WRLCK, ADDING_UP)? {
        return Ok(());
    }
    let up = Duration::from_secs(rustix::system::sysinfo().uptime as u64);
    let booted = (SystemTime::now() - up).duration_since(UNIX_EPOCH).unwrap_or_default();
    // One that was written to in this boot may still be: by another machine.
    let pages = other_pages(directory, booted.as_secs() as i64)?;
    if pages.is_empty() {
        return Ok(());
    }
    let text = crate::statistics::add_up(&directory.read_whole(STATISTICS_FILE)?, &pages);
    directory.replace_small(STATISTICS_FILE, &text).map_err(|refused| refused.why)?;
    for (name, _) in pages {
        directory.unlink(&name)?;
    }
    Ok(())
}

fn names_of_other_pages(directory: &Directory) -> impl Iterator<Item = CString> + use<> {
    let own = page_name(directory);
    directory.state_files().into_iter().filter(move |name| *name != own)
}

/// The pages that processes of this boot do not share here, last modified before this second: those of earlier boots, and of
/// a directory that this one is a copy of. Their names, and their bytes from the first row on.
fn other_pages(directory: &Directory, modified_before: i64) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let mut pages = Vec::new();
    for name in names_of_other_pages(directory) {
        let file = match directory.open_file(&name, OFlags::RDONLY) {
            // Somebody has just added it up.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let mut bytes = vec![0; PAGE_LEN];
        let n = retry(|| rustix::io::pread(&file, &mut bytes, 0))?;
        if n == PAGE_LEN
            && bytes[..4] == PAGE_LAYOUT.to_le_bytes()
            && fstat(&file)?.st_mtime < modified_before
        {
            pages.push((name, bytes.split_off(ROWS_AT)));
        }
    }
    Ok(pages)
}

/// The state page, mapped.
pub(crate) struct Page {
    start: std::ptr::NonNull<Shared>,
    writable: bool,
}

/// What lies in the page. Only atomics: every process that may write the directory may write here.
#[repr(C, align(64))]
struct Shared {
    layout: AtomicU32,
    _unused: u32,
    /// When the administrative directory had last changed, as [`Directory::admin_changed`], when no page of an earlier boot
    /// was in it.
    without_earlier: AtomicI64,
    _rest_of_line: [u64; 6],
    wake: Line<AtomicU32>,
    generations: [AtomicU64; GENERATIONS],
    /// Counts the changes of the directory's bounds.
    configured: Line<AtomicU64>,
    _to_tally: [u64; 104],
    tally: Tally,
    holders: Slots,
    rows: [Row; ROWS],
}

#[repr(C, align(64))]
struct Line<T>(T);

const _: () = {
    assert!(offset_of!(Shared, configured) == 2176);
    assert!(offset_of!(Shared, tally) == 3072);
    assert!(offset_of!(Shared, holders) == HOLDERS_AT);
    assert!(offset_of!(Shared, rows) == ROWS_AT && size_of::<Shared>() == PAGE_LEN);
};

impl Page {
    /// `None` where it cannot be had: then waiters poll and generations are read from the lock file.
    fn open(directory: &Directory, writable: bool) -> Option<Page> {
        if !may_have_page(directory) {
            return None;
        }
        let page = Page::map(directory, &page_name(directory), writable)?;
        let layout = &page.shared().layout;
        // Stored only once: a store to a page of a file may wait for the disk, also one that changes nothing.
        if writable && layout.load(Ordering::Acquire) == 0 {
            let _ = layout.compare_exchange(0, PAGE_LAYOUT, Ordering::AcqRel, Ordering::Acquire);
        }
        (layout.load(Ordering::Acquire) == PAGE_LAYOUT).then_some(page)
    }

    fn map(directory: &Directory, name: &CStr, writable: bool) -> Option<Page> {
        let file = if writable {
            directory.open_admin_file(name).ok()?
        } else {
            directory.open_file(name, OFlags::RDONLY).ok()?
        };
        let stat = fstat(&file).ok()?;
        if writable && (stat.st_size < PAGE_LEN as i64 || stat.st_blocks * 512 < PAGE_LEN as i64) {
            // Blocks first: storing to a mapped hole of a full disk is a SIGBUS.
            let allocate = || fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, PAGE_LEN as u64);
            below_size_limit(PAGE_LEN as u64).and_then(|()| retry(allocate)).ok()?;
        }
        // A file that is shorter, and blocks that the disk cannot give back, would be a SIGBUS too. By pieces that need no
        // new memory: that takes a quarter of the time.
        let mut piece = [0; 8 << 10];
        for at in (0..PAGE_LEN).step_by(piece.len()) {
            if retry(|| rustix::io::pread(&file, &mut piece, at as u64)).ok()? < piece.len() {
                return None;
            }
        }
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), PAGE_LEN, protection, MapFlags::SHARED, &file, 0) };
        Some(Page { start: std::ptr::NonNull::new(start.ok()?.cast())?, writable })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: mapped for as long as `self`, page-aligned, longer than a Shared, and any bytes are one.
        unsafe { self.start.as_ref() }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.shared().rows
    }

    fn wake_word(&self) -> &AtomicU32 {
        &self.shared().wake.0
    }

    fn generation(&self, slot: Slot) -> u64 {
        let count = |slot: Slot| self.shared().generations[slot.0].load(Ordering::Acquire);
        count(Slot::ALL).wrapping_add(count(slot))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by this value with this length; no borrow of it is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), PAGE_LEN) };
    }
}

// SAFETY: the page holds atomics only.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

/// Which boot of the machine this is; zeros where the system does not tell.
pub(crate) fn boot_id() -> [u8; 16] {
    // Not a OnceLock: a child of `fork` may inherit one that another thread is just filling.
    static BOOT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let known = BOOT.each_ref().map(|half| half.load(Ordering::Relaxed).to_ne_bytes());
    if known.iter().all(|half| *half != [0; 8]) {
        return known.concat().try_into().expect("16 bytes");
    }
    let mut text = [0; 64];
    let read = || {
        let file = rustix::fs::open(
            "/proc/sys/kernel/random/boot_id",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::io::read(file, &mut text[..])
    };
    let text = retry(read).ok().and_then(|n| std::str::from_utf8(&text[..n]).ok()).unwrap_or_default();
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0);
    let id = number.to_be_bytes();
    let (halves, _) = id.as_chunks::<8>();
    for (place, half) in BOOT.iter().zip(halves) {
        place.store(u64::from_ne_bytes(*half), Ordering::Relaxed);
    }
    id
}

/// Locks a mutex whose data stays right even if a thread panicked while it held it.
///
/// These are the standard library's and not `parking_lot`'s: those park in a table that all mutexes of a process
/// share, and that a child of `fork` may inherit locked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_state_that_could_not_open_its_files_is_replaced_when_they_can_be_opened_and_not_before() {
        let root = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(root.path(), &Options::new()).unwrap());
        // What cannot be opened to be written, for as long as it is there.
        let obstacle = root.path().join(".npcache/lock");
        std::fs::create_dir_all(&obstacle).unwrap();
        let of = || State::of(directory.clone(), true, 0);
        let state = of();
        let let_time_pass = || *lock(state.failed.as_ref().unwrap()) -= 2 * RETRY_AFTER;
        for _ in 0..3 {
            let_time_pass();
            assert!(state.is_current());
        }
        std::fs::remove_dir(obstacle).unwrap();
        assert!(state.is_current(), "it is not tried with each call");
        let_time_pass();
        assert!(!state.is_current());
        assert!(of().locks.is_ok());
    }
}
