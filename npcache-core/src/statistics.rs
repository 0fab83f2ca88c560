//! What is counted: how calls went, function by function, and what computing again would have taken.
//!
//! All processes count in the state page (see [`crate::state`]): a row for each function, found by a hash of its
//! directory's name, and one for those that find no row free. Who opens the cache to write adds pages of earlier boots up in
//! `.npcache/statistics` and removes them; until then, who asks for statistics looks at each.
//!
//! Only hits in memory are too fast for that. A line of memory that all processors count in costs more than such a
//! hit, and the page is a file's: who stores to it may wait for the disk. Each thread counts them in memory of its own,
//! and they are added to the page [`BATCH`] at a time, with the next miss, and at the process's exit. One that is killed,
//! or ends by `_exit`, loses those that were not.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use crate::cache::Cache;
use crate::digest::cores;
use crate::error::{Error, Result};
use crate::fork::epoch;
use crate::state::{Page, State, lock};
use crate::store::{MAX_DIRECTORY_NAME, STATISTICS_FILE, function_directory, function_name};

/// Rows of the page. The last is that of all functions that find no other.
pub(crate) const ROWS: usize = 128;
const OTHERS: usize = ROWS - 1;

/// Counters of a row: for those that [`NAMES`] has, and some more for later.
const COUNTS: usize = 21;

/// Hits in memory are added to the page after so many. That costs as much as ten of them, where many processes do it.
const BATCH: u64 = 4096;

/// Threads that have a number at most.
const MAX_THREADS: usize = 256;

/// How calls went: of one function, or of all.
///
/// Counted by all processes since the cache was made, by this one alone where [`Statistics::complete`] is false.
/// Clearing does not set it back.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Hits in a process's memory.
    pub memory: u64,
    /// Hits on disk.
    pub disk: u64,
    /// Calls that were given the result that another thread computed, or found, meanwhile.
    pub shared: u64,
    /// Hits in the cache below, of the option `lower`.
    pub lower: u64,
    /// Calls that found nothing and began to compute. One whose function failed is in none of the next three.
    pub misses: u64,
    /// Results that were computed and stored.
    pub stored: u64,
    /// Results that were computed and, by the option `min_compute_ms`, kept in memory only.
    pub cheap: u64,
    /// Results that were computed and not stored for any other reason: [`Unstored`](crate::Unstored).
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
    /// Hits that were computed again, by the option `audit`.
    pub audited: u64,
    /// Of these the ones whose stored result was another than was computed.
    pub differing: u64,
    /// Whether it is what all processes counted. Where no memory can be shared between them, as on network file
    /// systems or in a directory that cannot be written, a process knows its own calls alone.
    pub complete: bool,
}

impl Statistics {
    /// Calls that did not compute.
    pub fn hits(&self) -> u64 {
        self.memory + self.disk + self.shared + self.lower
    }

    fn of(counts: &Counts, complete: bool) -> Statistics {
        let count = |which: Count| counts[which as usize];
        let seconds = |which: Count| count(which) as f64 / 1e9;
        Statistics {
            memory: count(Count::Memory),
            disk: count(Count::Disk),
            shared: count(Count::Shared),
            lower: count(Count::Lower),
            misses: count(Count::Misses),
            stored: count(Count::Stored),
            cheap: count(Count::Cheap),
            unstored: count(Count::Unstored),
            evicted: count(Count::Evicted),
            corrupt: count(Count::Corrupt),
            audited: count(Count::Audited),
            differing: count(Count::Differing),
            waits: count(Count::Waits),
            seconds_waited: seconds(Count::WaitedNs),
            seconds_spent: seconds(Count::SpentNs),
            seconds_saved: seconds(Count::SavedNs),
            complete,
        }
    }
}

impl Cache {
    /// How the calls of all functions went. A cache without a directory counts nothing. Reads a page of memory and a small
    /// file, and what was counted in earlier boots where no process has opened the cache to write since, whatever the number of
    /// entries.
    ///
    /// # Errors
    ///
    /// Where the files with the counts of earlier boots cannot be read.
    ///
    /// ```
    /// # use npcache_core::Cache;
    /// # use ndarray::arr1;
    /// # let directory = tempfile::tempdir()?;
    /// let cache = Cache::open(directory.path())?;
    /// for _ in 0..3 {
    ///     cache.call("primes", "1", b"", |out| out.write(&arr1(&[2, 3, 5, 7])))?;
    /// }
    /// let statistics = cache.statistics()?;
    /// assert_eq!((statistics.misses, statistics.stored, statistics.hits()), (1, 1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statistics(&self) -> Result<Statistics> {
        let mut total = Counts::default();
        let complete = self.count_up(|_, counts| add(&mut total, counts))?;
        Ok(Statistics::of(&total, complete))
    }

    /// The same for the function called `name`, all its versions; nothing of what is counted under the name `…`, see
    /// [`Cache::statistics_by_function`].
    pub fn statistics_of(&self, name: &str) -> Result<Statistics> {
        let directory = function_directory(name);
        let mut total = Counts::default();
        let complete = self.count_up(|of, counts| {
            if of == directory {
                add(&mut total, counts);
            }
        })?;
        Ok(Statistics::of(&total, complete))
    }

    /// The same for each function that was called, by name. A name of more than some 160 bytes may be cut, and ends in `…`
    /// then. The name `…` alone stands for all functions after the 127th that were called first in a boot.
    pub fn statistics_by_function(&self) -> Result<Vec<(String, Statistics)>> {
        let mut functions = ByDirectory::new();
        let complete =
            self.count_up(|of, counts| add(functions.entry(of.to_owned()).or_default(), counts))?;
        let name = |of: &str| if of.is_empty() { "…".to_owned() } else { function_name(of.as_bytes()) };
        Ok(functions.iter().map(|(of, counts)| (name(of), Statistics::of(counts, complete))).collect())
    }

    /// Calls `visit` with what was counted of each function, by its directory's name, once or several times; whether that
    /// is what all processes counted.
    fn count_up(&self, mut visit: impl FnMut(&str, &Counts)) -> Result<bool> {
        let Some(state) = self.state() else { return Ok(true) };
        let failed = |what, e| Error::io(what, state.directory.path(), e);
        // Before the file: one that is added up and removed just now is named there.
        let pages = state.earlier_pages().map_err(|e| failed("read .npcache/state-* in", e))?;
        let file = state.directory.read_whole(STATISTICS_FILE);
        let (earlier, _) = fold(&file.map_err(|e| failed("read .npcache/statistics in", e))?, &pages);
        earlier.iter().for_each(|(of, counts)| visit(of, counts));
        state.add_all_memory_hits();
        let later = state.later_page();
        let shared = state.page_rows().or(later.as_ref().map(Page::rows));
        for rows in shared.into_iter().chain(state.counters.own.as_deref()) {
            rows.iter().filter_map(Row::read).for_each(|(of, counts)| visit(&of, &counts));
        }
        // Who only reads counts for itself; until it calls something, that is nothing.
        let own = state.counters.own.as_deref().into_iter().flatten().filter_map(Row::read).count();
        Ok((shared.is_some() || state.is_unused()) && own == 0)
    }
}

/// What is counted, by its place in a row.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Memory,
    Disk,
    Shared,
    Lower,
    Misses,
    Stored,
    Cheap,
    Unstored,
    Evicted,
    Corrupt,
    Waits,
    WaitedNs,
    SpentNs,
    SavedNs,
    Audited,
    Differing,
}

/// The same in `.npcache/statistics`.
const NAMES: [&str; 16] = [
    "memory",
    "disk",
    "shared",
    "lower",
    "misses",
    "stored",
    "cheap",
    "unstored",
    "evicted",
    "corrupt",
    "waits",
    "waited_ns",
    "spent_ns",
    "saved_ns",
    "audited",
    "differing",
];

type Counts = [u64; NAMES.len()];

type ByDirectory = BTreeMap<String, Counts>;

/// What is counted of one function: in the page, where others write too and any bytes may stand.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Row {
    /// Of the name; 0 while nobody has the row.
    hash: AtomicU64,
    /// Its length, set after the name.
    len: AtomicU64,
    name: [AtomicU64; MAX_DIRECTORY_NAME / 8],
    counts: [AtomicU64; COUNTS],
}

impl Row {
    /// The directory's name, empty for the row of all others, and the counts; `None` if nobody has it.
    fn read(&self) -> Option<(String, Counts)> {
        let counts: Counts = std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed));
        let len = self.len.load(Ordering::Acquire) as usize;
        if counts == Counts::default() || len > MAX_DIRECTORY_NAME {
            return None;
        }
        let name: Vec<u8> =
            self.name.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).take(len).collect();
        Some((String::from_utf8(name).ok()?, counts))
    }

    /// Every caller that names a row gives it the same name, so one that is killed in between leaves no harm.
    fn set_name(&self, directory: &str) {
        for (word, bytes) in self.name.iter().zip(directory.as_bytes().chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.len.store(directory.len() as u64, Ordering::Release);
    }

    fn add(&self, count: Count, n: u64) {
        self.counts[count as usize].fetch_add(n, Ordering::Relaxed);
    }
}

/// What a hit of a remembered result counts as: the row of its function, and what computing it took.
#[derive(Clone, Copy)]
pub(crate) struct Worth {
    pub(crate) row: usize,
    pub(crate) ns: u64,
}

/// Where calls of one function are counted.
pub(crate) struct Tally {
    pub(crate) state: Arc<State>,
    pub(crate) row: usize,
}

/// What a process counts by itself.
pub(crate) struct Counters {
    /// The process that it belongs to: a child of `fork` must not add what its parent counted.
    epoch: u64,
    /// The rows, where there is no page that can be written.
    own: Option<Box<[Row]>>,
    /// Hits in memory: a stripe for each thread, by its number, and the first for those that have none; made when a thread
    /// has its first. A stripe is written by its thread alone, so that takes no locked instruction: 1 ns instead of 8 or more.
    stripes: Box<[OnceLock<Box<Stripe>>]>,
    /// Held by who adds them to the page, or to the rows.
    adding: Mutex<()>,
}

/// Hits in memory by their row, and what of them was added.
struct Stripe {
    hits: [Hits; ROWS],
    added: [Hits; ROWS],
}

impl Stripe {
    fn new() -> Box<Stripe> {
        let zeros = || std::array::from_fn(|_| Hits::default());
        Box::new(Stripe { hits: zeros(), added: zeros() })
    }
}

/// Hits in memory, and the nanoseconds that they saved.
#[derive(Default)]
struct Hits([AtomicU64; 2]);

impl Counters {
    pub(crate) fn new(has_page: bool) -> Counters {
        let stripes = (4 * cores() as usize).min(MAX_THREADS) + 1;
        Counters {
            epoch: epoch(),
            own: (!has_page).then(|| (0..ROWS).map(|_| Row::default()).collect()),
            stripes: (0..stripes).map(|_| OnceLock::new()).collect(),
            adding: Mutex::default(),
        }
    }
}

/// The number of a thread, from 1 on, that no other has while it runs; 0 for all that came when none was left.
struct ThreadNumber(usize);

/// Numbers that threads have, a bit each. In a child of `fork`, those that its parent's threads had stay taken.
static TAKEN: [AtomicU64; MAX_THREADS / 64] = [const { AtomicU64::new(0) }; MAX_THREADS / 64];

thread_local! {
    static THREAD: ThreadNumber = ThreadNumber::take();
}

impl ThreadNumber {
    fn take() -> ThreadNumber {
        for (i, taken) in TAKEN.iter().enumerate() {
            let free = |bits: u64| (bits != u64::MAX).then(|| bits | (bits + 1));
            // Acquires what the thread that had the number before has counted.
            if let Ok(bits) = taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free) {
                return ThreadNumber(64 * i + bits.trailing_ones() as usize + 1);
            }
        }
        ThreadNumber(0)
    }
}

impl Drop for ThreadNumber {
    fn drop(&mut self) {
        if let Some(i) = self.0.checked_sub(1) {
            TAKEN[i / 64].fetch_and(!(1 << (i % 64)), Ordering::Release);
        }
    }
}

impl State {
    fn rows(&self) -> &[Row] {
        match &self.counters.own {
            Some(rows) => rows,
            None => self.page_rows().expect("else there are rows of this process"),
        }
    }

    /// The row of a function, by its directory's name.
    pub(crate) fn row(&self, directory: &str) -> usize {
        let rows = self.rows();
        let hash = twox_hash::XxHash3_64::oneshot(directory.as_bytes()).max(1);
        let row = (0..OTHERS).map(|i| (hash as usize).wrapping_add(i) % OTHERS).find(|i| {
            let (place, relaxed) = (&rows[*i].hash, Ordering::Relaxed);
            let mut held = place.load(relaxed);
            if held == 0 {
                held = place.compare_exchange(0, hash, relaxed, relaxed).map_or_else(|held| held, |_| hash);
            }
            held == hash
        });
        let row = row.unwrap_or(OTHERS);
        if row < OTHERS && rows[row].len.load(Ordering::Relaxed) == 0 {
            rows[row].set_name(directory);
        }
        row
    }

    /// Adds to what is counted of a function, by its row.
    pub(crate) fn count(&self, row: usize, count: Count, n: u64) {
        self.rows()[row].add(count, n);
    }

    /// Counts a hit that was not found in memory, of a result that took so long to compute.
    pub(crate) fn count_hit(&self, row: usize, kind: Count, ns: u64) {
        self.count(row, kind, 1);
        self.count(row, Count::SavedNs, ns);
    }

    /// Counts a hit in memory.
    #[inline]
    pub(crate) fn count_memory_hit(&self, worth: Worth) {
        let stripes = &self.counters.stripes;
        // None for a thread that is just ending.
        let number = THREAD.try_with(|thread| thread.0).unwrap_or(0);
        let own = if number < stripes.len() { number } else { 0 };
        let Hits([count, ns]) = &stripes[own].get_or_init(Stripe::new).hits[worth.row];
        let before = if own == 0 {
            ns.fetch_add(worth.ns, Ordering::Relaxed);
            count.fetch_add(1, Ordering::Relaxed)
        } else {
            let before = count.load(Ordering::Relaxed);
            ns.store(ns.load(Ordering::Relaxed) + worth.ns, Ordering::Relaxed);
            count.store(before + 1, Ordering::Relaxed);
            before
        };
        if before % BATCH == BATCH - 1 {
            self.add_memory_hits(worth.row);
        }
    }

    /// Adds the hits in memory of one function to what all processes count; at some later time, if another thread does
    /// so now.
    #[cold]
    pub(crate) fn add_memory_hits(&self, row: usize) {
        if let Ok(_adding) = self.counters.adding.try_lock() {
            self.add_hits(row);
        }
    }

    /// The same for all functions.
    pub(crate) fn add_all_memory_hits(&self) {
        let _adding = lock(&self.counters.adding);
        (0..ROWS).for_each(|row| self.add_hits(row));
    }

    /// What is to be added of one row; the caller has locked `adding`.
    fn add_hits(&self, row: usize) {
        if self.counters.epoch != epoch() {
            return;
        }
        for stripe in self.counters.stripes.iter().filter_map(OnceLock::get) {
            for (i, kind) in [Count::Memory, Count::SavedNs].into_iter().enumerate() {
                let (hits, added) = (&stripe.hits[row].0[i], &stripe.added[row].0[i]);
                let (hits, before) = (hits.load(Ordering::Relaxed), added.load(Ordering::Relaxed));
                if hits != before {
                    self.count(row, kind, hits.wrapping_sub(before));
                    added.store(hits, Ordering::Relaxed);
                }
            }
        }
    }
}

fn add(total: &mut Counts, counts: &Counts) {
    for (sum, n) in total.iter_mut().zip(counts) {
        *sum = sum.wrapping_add(*n);
    }
}

/// What a file with the counts of earlier boots says, and the names of the pages that are counted in it. What cannot be
/// read as one says nothing.
fn parse(text: &[u8]) -> (ByDirectory, Vec<String>) {
    let file: Value = serde_json::from_slice(text).unwrap_or_default();
    let counts = |row: &Value| NAMES.map(|name| row[name].as_u64().unwrap_or(0));
    let functions = file["functions"].as_object().into_iter().flatten();
    let pages = file["pages"].as_array().into_iter().flatten();
    (
        functions.map(|(of, row)| (of.clone(), counts(row))).collect(),
        pages.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
    )
}

/// The text of such a file, from that of the last one and the pages that are added to it, as [`fold`] takes them.
pub(crate) fn add_up(text: &[u8], pages: &[(CString, Vec<u8>)]) -> String {
    let (functions, pages) = fold(text, pages);
    let row = |counts: &Counts| Value::from_iter(NAMES.into_iter().zip(counts.iter().copied()));
    let functions = Value::from_iter(functions.iter().map(|(of, counts)| (of.clone(), row(counts))));
    json!({ "functions": functions, "pages": pages }).to_string()
}

/// Adds to what such a file says what is counted in `pages`, by their names: what their bytes from the first row on are; and
/// the names of these. A page that is counted in it already, since who added it was killed before it was removed, is not added
/// again.
fn fold(text: &[u8], pages: &[(CString, Vec<u8>)]) -> (ByDirectory, Vec<String>) {
    let (mut functions, counted) = parse(text);
    let names: Vec<_> = pages.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    for (_, (_, bytes)) in names.iter().zip(pages).filter(|(name, _)| !counted.contains(name)) {
        for row in bytes.chunks_exact(size_of::<Row>()) {
            let (words, _) = row.as_chunks::<8>();
            let word = |i: usize| AtomicU64::new(u64::from_le_bytes(words[i]));
            let row = Row {
                hash: word(0),
                len: word(1),
                name: std::array::from_fn(|i| word(2 + i)),
                counts: std::array::from_fn(|i| word(2 + MAX_DIRECTORY_NAME / 8 + i)),
            };
            if let Some((of, counts)) = row.read() {
                add(functions.entry(of).or_default(), &counts);
            }
        }
    }
    (functions, names)
}
