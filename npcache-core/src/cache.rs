//! A call: look in memory, look on disk, else one caller computes and publishes.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::ffi::{CString, OsStr, c_void};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::args::Canonical;
use crate::audit;
use crate::bounds::Bounds;
use crate::buffer::{Buffer, Loaded, Origin};
use crate::build_id::object_of;
use crate::entry;
use crate::error::{Error, Result, Unstored};
use crate::evict::{Pruned, prune};
use crate::explain::describe_call;
use crate::flight::{Flights, Joined, Seat};
use crate::fork::{PerProcess, epoch};
use crate::import::Copied;
use crate::key::{Identity, Key};
use crate::log::{Level, say_once};
use crate::lower::Lower;
use crate::map::{Memory, statx_of};
use crate::memory::{Arguments, Asked, Below, MAX_ARGUMENTS};
use crate::options::{Mode, Options, Sharing, Verify, choose, sharing};
use crate::output::{Audited, Output, Place, Task};
use crate::state::{Generation, POLL, Slot, State, TryLock};
use crate::statistics::{Count, Tally, Worth};
use crate::store::{
    Directory, below_prefix, born, coarse_now, entry_path, function_directory, mark_used, nanoseconds,
    path_of, retry,
};

/// Entries up to this length are read, larger ones mapped. Measured for 1 KiB: 4 µs against 14 µs; the two meet
/// where copying costs what mapping and its page faults do.
pub(crate) const MAP_FROM: usize = 256 << 10;

/// The read of a function's first entry: most small results whole, in one call.
const FIRST_READ: usize = 8 << 10;

/// A wait that is longer is said, with whom it is for.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// A persistent memo table: open, in a directory or without one.
///
/// Cloning it is cheap. All methods can be called from any thread at any time, and all handles on one
/// directory, in this process and in others, share what is computed. After a `fork` the child can go on using it.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    root: Option<Root>,
    options: Options,
    /// The function that was asked for last: programs ask for the same again. Only ever tried, never waited for, so a
    /// child of `fork` that inherits it locked does without.
    last: parking_lot::Mutex<Option<Arc<Known>>>,
}

/// What is known of a function by its identity.
pub(crate) struct Known {
    pub(crate) identity: Arc<Identity>,
    pub(crate) directory: String,
    pub(crate) slot: Slot,
    /// Bytes to read the next entry into, by the last one's length: results of one function are often of one size. 0 where
    /// that was mapped.
    room: AtomicUsize,
}

impl Known {
    fn new(identity: Identity) -> Arc<Known> {
        let directory = function_directory(identity.name());
        let slot = Slot::of(&directory);
        Arc::new(Known { identity: Arc::new(identity), directory, slot, room: AtomicUsize::new(FIRST_READ) })
    }
}

struct Root {
    directory: Arc<Directory>,
    state: PerProcess<Arc<State>>,
    lower: Option<Lower>,
}

/// Which code a result came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version<'a> {
    /// A promise of the caller's: while this text stays the same, so do the results. Results are shared with all
    /// programs and languages that give the same. The empty text promises it for ever.
    Text(&'a str),
    /// The build ID of the program or library that holds this address: a rebuild that changes the code leaves the
    /// old results behind.
    BuildOf(*const c_void),
}

impl<'a> From<&'a str> for Version<'a> {
    fn from(text: &'a str) -> Version<'a> {
        Version::Text(text)
    }
}

impl<'a> Version<'a> {
    fn text(self) -> Result<Cow<'a, str>> {
        match self {
            Version::Text(text) => Ok(text.into()),
            Version::BuildOf(address) => Ok(object_of(address)?.version()?.into()),
        }
    }
}

impl Cache {
    /// Opens the cache in the directory `path`, with default [`Options`]; see [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Cache> {
        Options::new().open(path)
    }

    pub(crate) fn with_options(path: Option<&Path>, options: Options) -> Result<Cache> {
        if let Some(log) = &options.log {
            log.install()?;
        }
        let root = match path {
            Some(path) if options.mode != Mode::Off => {
                let directory = Arc::new(Directory::open(path, &options)?);
                let lower = Lower::open(&directory, &options);
                let root = Root { directory, state: PerProcess::new(), lower };
                root.state(&options);
                Some(root)
            }
            _ => None,
        };
        Ok(Cache { inner: Arc::new(Inner { root, options, last: Default::default() }) })
    }

    /// The directory, absolute; `None` for a cache without one.
    pub fn path(&self) -> Option<&Path> {
        self.directory().map(Directory::path)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.inner.root.as_ref().map(|root| &*root.directory)
    }

    /// The directory of the cache below.
    pub(crate) fn directory_below(&self) -> Option<&Directory> {
        self.inner.root.as_ref()?.lower.as_ref().map(Lower::directory)
    }

    /// What the handles of this process on the same directory share.
    pub(crate) fn state(&self) -> Option<&Arc<State>> {
        self.inner.root.as_ref().map(|root| root.state(&self.inner.options))
    }

    /// The bounds that hold for this handle: its own, and what these leave open as the directory has it.
    pub(crate) fn bounds(&self) -> Bounds {
        self.inner.options.bounds.or(self.state().map(|state| state.bounds()).unwrap_or_default())
    }

    /// A function whose calls are cached, by its name of 1 to 4,096 bytes without NUL.
    pub fn function<'a>(&self, name: &str, version: impl Into<Version<'a>>) -> Result<Function> {
        let version = version.into();
        let sharing = self.inner.options.flight;
        let last = self.inner.last.try_lock().and_then(|last| last.clone());
        let known = last.filter(|last| {
            last.identity.name() == name
                && matches!(version, Version::Text(text) if text == last.identity.version())
        });
        let known = match known {
            Some(known) => known,
            None => {
                let known = Known::new(Identity::new(name, &version.text()?, Vec::new(), false)?);
                if let Some(mut last) = self.inner.last.try_lock() {
                    *last = Some(known.clone());
                }
                known
            }
        };
        Ok(Function { cache: self.clone(), known, sharing })
    }

    /// The result of `compute`, the function called `name`, for these argument bytes: stored, or computed now, by one
    /// caller while all others that ask for the same wait. Blocks for as long as the function takes.
    ///
    /// # Errors
    ///
    /// Those of `compute`, as the source of [`Error::Function`]; nothing is stored then. No fault of the directory is
    /// an error: the result comes back all the same, and [`Buffer::stored`] tells.
    ///
    /// ```
    /// use ndarray::Array1;
    /// use npcache_core::{Cache, Origin};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let cache = Cache::open(directory.path())?;
    /// let squares = |n: u32| {
    ///     cache.call("squares", "1", n.to_le_bytes(), |out| {
    ///         out.write(&Array1::from_iter((0..n).map(|i| f64::from(i * i))))
    ///     })
    /// };
    /// assert_eq!(squares(4)?.view::<f64>(0)?.sum(), 14.0);
    /// assert_eq!(squares(4)?.origin(), Origin::Memory);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call<'a, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        name: &str,
        version: impl Into<Version<'a>>,
        args: impl AsRef<[u8]>,
        compute: impl FnOnce(&mut Output) -> Result<(), E>,
    ) -> Result<Buffer> {
        self.function(name, version)?.call(&Canonical::from_bytes(args.as_ref()), compute)
    }

    /// The result of a call of the function called `name` with a version text, if it is in this process's memory: what
    /// [`Cache::call`] would find first, at the price of a look-up in a hash map. Names that are no UTF-8 are those of no
    /// function.
    #[inline]
    pub fn recall(&self, name: &[u8], version: &[u8], args: &[u8]) -> Option<Buffer> {
        if args.len() > MAX_ARGUMENTS || self.inner.options.audit > 0.0 {
            return None;
        }
        let args = Arguments::Bytes(args);
        self.look_in_memory(&Asked { name, version, dependencies: &[], layouts: None, args }, true)
    }

    fn look_in_memory(&self, asked: &Asked<'_>, counts: bool) -> Option<Buffer> {
        if self.inner.options.mode == Mode::Refresh {
            return None;
        }
        let state = self.state()?;
        let (buffer, worth) = state.memory.as_ref()?.get(asked, |slot| state.generation(slot))?;
        let buffer = if state.bounds_hits() || self.inner.options.bounds.bound_anything() {
            self.in_time(state, buffer)?
        } else {
            buffer
        };
        if counts {
            state.count_memory_hit(worth);
        }
        Some(buffer)
    }

    /// A result in memory, if it is not over age; now and then, its entry is marked as used.
    #[inline(never)]
    fn in_time(&self, state: &State, buffer: Buffer) -> Option<Buffer> {
        let (bounds, now) = (&self.inner.options.bounds, coarse_now());
        let (max_age, marks_use) = state.known_bounds();
        let max_age = bounds.max_age.map_or(max_age, |_| bounds.max_age());
        if now.saturating_sub(buffer.created()) > max_age {
            return None;
        }
        if (marks_use || bounds.marks_use()) && buffer.is_to_be_marked(now) {
            // Another handle may have found it, by another path to the directory.
            let name = buffer.c_path().and_then(below_prefix);
            if let Some(file) = name.and_then(|name| state.directory.open_file(name, OFlags::RDONLY).ok()) {
                mark_used(&file, now);
            }
        }
        Some(buffer)
    }

    /// The bounds that the directory has, by their names, and their values: what [`Cache::configure`] takes. `none` is no
    /// bound. A cache without a directory has none at all.
    pub fn config(&self) -> Vec<(&'static str, String)> {
        let Some(root) = &self.inner.root else { return Vec::new() };
        Bounds::read(&root.directory).unwrap_or_default().values()
    }

    /// Sets a bound for all who use the directory, now and in future, and do not set it otherwise for themselves: the
    /// options `max_bytes`, `max_entries`, `max_age`, `min_free_bytes` and `policy`, with the values that these take. Where
    /// that makes entries too many, they go when others are stored, up to 64 each time, or at once by [`Cache::prune`].
    /// Other processes on this machine know of it from their next call.
    ///
    /// # Errors
    ///
    /// Where there is no such bound, or it takes no such value; where the directory cannot be written.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// let cache = npcache_core::Cache::open(directory.path())?;
    /// cache.configure("max_bytes", "50G")?;
    /// cache.configure("max_age", "30d")?;
    /// assert!(cache.config().contains(&("max_age", "2592000".to_owned())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn configure(&self, name: &str, value: &str) -> Result<()> {
        let Some(root) = &self.inner.root else {
            return Err(Error::Argument("a cache without a directory has no bounds to set".to_owned()));
        };
        if self.inner.options.mode == Mode::ReadOnly {
            return Err(Error::Argument("a cache opened with mode=readonly is not configured".to_owned()));
        }
        Bounds::write(&root.directory, name, value)?;
        root.state(&self.inner.options).reconfigured();
        Ok(())
    }

    /// Removes all entries that are over age and, as far as there are too many, those least worth keeping; looks at
    /// everything that is stored, which takes a second or two for each million entries where the system knows the files, and
    /// longer from a disk. Without this, the same is done little by little, as results are stored.
    pub fn prune(&self) -> Result<Pruned> {
        let Some(root) = &self.inner.root else { return Ok(Pruned::default()) };
        if self.inner.options.mode == Mode::ReadOnly {
            return Err(Error::Argument(
                "nothing is removed from a cache opened with mode=readonly".to_owned(),
            ));
        }
        let state = root.state(&self.inner.options);
        Ok(prune(state, &self.inner.options.bounds.or(state.bounds())))
    }

    /// Removes all entries. What was computed before this returns, or is being computed, here or in any other
    /// process, is not found afterwards. Only what npcache made is removed.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be written.
    pub fn clear(&self) -> Result<()> {
        self.clear_slot(None).map(drop)
    }

    /// [`Cache::clear`] for one function, with all its versions.
    pub fn clear_function(&self, name: &str) -> Result<()> {
        Identity::new(name, "", Vec::new(), false)?;
        self.clear_slot(Some(&function_directory(name))).map(drop)
    }

    /// [`Cache::clear`], and removes the directory. The cache can go on being used, and computes every call.
    ///
    /// # Errors
    ///
    /// [`Error::NotEmpty`] where the directory holds files that npcache did not make. It stays then, an empty cache.
    pub fn remove(&self) -> Result<()> {
        if let Some(state) = self.clear_slot(None)? {
            state.directory.remove()?;
            state.retire();
        }
        Ok(())
    }

    fn clear_slot(&self, function: Option<&str>) -> Result<Option<&Arc<State>>> {
        let Some(root) = &self.inner.root else { return Ok(None) };
        if self.inner.options.mode == Mode::ReadOnly {
            return Err(Error::Argument("a cache opened with mode=readonly is not cleared".to_owned()));
        }
        let state = root.state(&self.inner.options);
        if state.is_removed() {
            return Ok(None);
        }
        let slot = function.map_or(Slot::ALL, Slot::of);
        let function = function.map(|name| CString::new(name).expect("a directory's name"));
        root.remove_entries(state, &self.inner.options, slot, || match &function {
            None => {
                state.directory.sweep(None, None)?;
                state.tally().reset();
                Ok(())
            }
            Some(function) => {
                let mut gone = |key_byte, len| {
                    let _change = state.tally().change(key_byte, true);
                    state.tally().remove(key_byte, len);
                };
                state.directory.sweep(Some(function), Some(&mut gone))
            }
        })?;
        if let Some(memory) = &state.memory {
            memory.drop_all_old(|slot| state.generation(slot));
        }
        Ok(Some(state))
    }
}

impl Root {
    /// What the handles of this process share; made anew in a child of `fork`, and when the lock file is gone.
    fn state(&self, options: &Options) -> &Arc<State> {
        let make = || State::of(self.directory.clone(), options.mode != Mode::ReadOnly, options.memory);
        self.state.get(|state| state.is_current(), make)
    }

    /// Has `remove` take entries of `slot` away, so that nothing which was begun or read before is found afterwards.
    fn remove_entries(
        &self,
        state: &State,
        options: &Options,
        slot: Slot,
        remove: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let raise = || {
            state
                .raise_generation(slot, options.lock_timeout)
                .map_err(|e| Error::io("lock .npcache/lock to clear", self.directory.path(), e))
        };
        if let Err(e) = raise() {
            // A full disk has no room for the first generation; then room is made first.
            if !matches!(&e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull) {
                return Err(e);
            }
            remove()?;
            raise()?;
        }
        remove()?;
        // What was begun, or read, while they were removed is older than that too.
        raise()
    }
}

/// How long [`Function::begin`] waits for another caller that computes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Up to the option `lock_timeout`; then this caller computes too.
    Patiently,
    /// At most so long; then [`Begun::Busy`], until calls for the same have waited `lock_timeout` in all.
    AtMost(Duration),
}

/// What a call begins with.
// A hit is returned from a hot path, so it is not boxed.
#[allow(clippy::large_enum_variant)]
pub enum Begun {
    /// The result is there.
    Hit(Buffer),
    /// The caller computes it: it fills the output, commits it and ends it.
    Todo(Output),
    /// Another caller computes it, and did not finish in time.
    Busy,
}

/// A function whose calls are cached: its name, its version, and what else its results depend on.
///
/// Cloning it is cheap. Calls can be made from any thread.
#[derive(Clone)]
pub struct Function {
    cache: Cache,
    known: Arc<Known>,
    sharing: Sharing,
}

impl Function {
    /// Declares that results depend on the build of the program or library that holds `address`, too. One whose build
    /// is the version already adds nothing.
    pub fn add_object(&mut self, address: *const c_void) -> Result<()> {
        let object = object_of(address)?;
        if object.version()? == self.known.identity.version() {
            return Ok(());
        }
        self.add_dependency(&format!("object:{}", object.file_name()), &object.version()?)
    }

    /// Declares that results depend on `value`: a library's version, an environment variable.
    pub fn add_dependency(&mut self, name: &str, value: &str) -> Result<()> {
        let mut dependencies = self.known.identity.dependencies().to_vec();
        dependencies.push((name.to_owned(), value.to_owned()));
        self.renew(dependencies, self.known.identity.has_strict_layout())
    }

    /// Sets an option of this function: `flight=process|thread|off`, and `layout=equal|strict`. With strict layouts,
    /// calls whose arrays of equal contents lie differently in memory (C order, Fortran order, with gaps) are
    /// different calls, for functions whose rounding depends on it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "flight" => {
                self.sharing = sharing(name, value)?;
                Ok(())
            }
            "layout" => {
                let strict = choose(name, value, &[("equal", false), ("strict", true)])?;
                self.renew(self.known.identity.dependencies().to_vec(), strict)
            }
            _ => Err(Error::Argument(format!(
                "no option of a function is called `{}`; there are flight, layout",
                name.escape_debug()
            ))),
        }
    }

    fn renew(&mut self, dependencies: Vec<(String, String)>, strict: bool) -> Result<()> {
        let (name, version) = (self.known.identity.name(), self.known.identity.version());
        self.known = Known::new(Identity::new(name, version, dependencies, strict)?);
        Ok(())
    }

    /// The cache that it was made with.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Its identity.
    pub fn identity(&self) -> &Identity {
        &self.known.identity
    }

    /// [`Cache::call`] for this function.
    pub fn call<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        args: &Canonical,
        compute: impl FnOnce(&mut Output) -> Result<(), E>,
    ) -> Result<Buffer> {
        let mut output = match self.begin(args, Wait::Patiently)? {
            Begun::Hit(buffer) => return Ok(buffer),
            Begun::Todo(output) => output,
            Begun::Busy => unreachable!("a patient caller ends up computing"),
        };
        match compute(&mut output) {
            Ok(()) => {
                output.commit()?;
                output.end()
            }
            Err(e) => Err(match e.into().downcast::<Error>() {
                // The output's own: a shape too large, say.
                Ok(own) => *own,
                Err(source) => {
                    let name = self.known.identity.name().to_owned();
                    Error::Function { name, code: 1, message: source.to_string(), source: Some(source) }
                }
            }),
        }
    }

    /// The stored result of a call, if there is one. Never computes and never waits. In [`Cache::statistics`] it is a hit
    /// where there is one, and nothing where there is none.
    pub fn lookup(&self, args: &Canonical) -> Option<Buffer> {
        self.look(args, true)
    }

    /// Whether a call would be answered without computing: whether [`Function::lookup`] would find its result. Never
    /// computes, never waits, and is not counted.
    pub fn is_cached(&self, args: &Canonical) -> bool {
        self.look(args, false).is_some()
    }

    fn look(&self, args: &Canonical, counts: bool) -> Option<Buffer> {
        let root = self.cache.inner.root.as_ref()?;
        let key = match self.look_in_memory(args, counts) {
            Ok(buffer) => return Some(buffer),
            Err(key) => key,
        };
        let options = &self.cache.inner.options;
        let call = Call::new(self, root, args, key, options, Wait::AtMost(Duration::ZERO));
        let (state, path) = (root.state(options), call.path());
        let (buffer, kind) = match call.look_on_disk(state, &path) {
            Found::Hit(loaded) => (loaded.at(path), Count::Disk),
            Found::Nothing | Found::Old | Found::Bad | Found::Unreadable => {
                (call.look_below(state)?.0, Count::Lower)
            }
        };
        if counts {
            state.count_hit(state.row(&self.known.directory), kind, buffer.compute_ns());
        }
        Some(buffer)
    }

    /// Removes the stored result of one call, if there is one. Calls of the function that are being computed meanwhile
    /// return their results unstored.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be written.
    pub fn forget(&self, args: &Canonical) -> Result<()> {
        let Some(root) = &self.cache.inner.root else { return Ok(()) };
        if self.cache.inner.options.mode == Mode::ReadOnly {
            return Err(Error::Argument(
                "nothing is removed from a cache opened with mode=readonly".to_owned(),
            ));
        }
        let key = Key::new(&self.known.identity, args);
        let state = root.state(&self.cache.inner.options);
        // Other processes remember it as well, and are told only of clears.
        root.remove_entries(state, &self.cache.inner.options, self.known.slot, || {
            match state.unlink_entry(&entry_path(&self.known.directory, &key), &key) {
                // What a link leads to is none of this cache's.
                Ok(_) | Err(Errno::LOOP) => Ok(()),
                Err(e) => Err(Error::io("remove an entry from", root.directory.path(), e)),
            }
        })
    }

    /// The first half of a call: the result, or the task of computing it. This is what [`Function::call`] is made of,
    /// for callers that cannot hand over a closure.
    pub fn begin(&self, args: &Canonical, wait: Wait) -> Result<Begun> {
        let begun = match self.look_in_memory(args, true) {
            Ok(buffer) => Begun::Hit(buffer),
            Err(key) => self.find_or_begin(args, key, wait, true),
        };
        let options = &self.cache.inner.options;
        match (begun, &self.cache.inner.root) {
            (Begun::Hit(stored), Some(root)) if audit::is_due(options.audit) => {
                let state = root.state(options).clone();
                let row = state.row(&self.known.directory);
                let tally = Tally { state, row };
                let task = Task {
                    known: self.known.clone(),
                    key: Key::new(&self.known.identity, args),
                    args: args.clone(),
                    place: Err(Unstored::Differs),
                    seat: None,
                    tally: None,
                    audited: Some(Audited { stored, tally, ulps: options.audit_ulps }),
                };
                Ok(Begun::Todo(Output::new(task)))
            }
            (begun, _) => Ok(begun),
        }
    }

    /// [`Function::begin`] for a result that was computed elsewhere, without npcache: the task is filled with it, and told
    /// what it took by [`Output::set_compute_time`]. No program made this call, so that the statistics do not count it. Never
    /// waits.
    pub fn begin_import(&self, args: &Canonical) -> Begun {
        self.find_or_begin(args, Key::new(&self.known.identity, args), Wait::AtMost(Duration::ZERO), false)
    }

    /// What is not in memory, found on disk or begun.
    fn find_or_begin(&self, args: &Canonical, key: Key, wait: Wait, counts: bool) -> Begun {
        let todo = |place, seat, tally| {
            let (known, args) = (self.known.clone(), args.clone());
            Begun::Todo(Output::new(Task { known, key, args, place, seat, tally, audited: None }))
        };
        let Some(root) = &self.cache.inner.root else {
            return todo(Err(Unstored::NoDirectory), None, None);
        };
        let options = &self.cache.inner.options;
        let call = Call::new(self, root, args, key, options, wait);
        let step = call.begin();
        let tally = if counts { call.count(&step) } else { None };
        match step {
            Step::Hit(buffer) => Begun::Hit(buffer),
            Step::Busy => Begun::Busy,
            Step::Compute(place, seat) => {
                let place =
                    if options.mode == Mode::ReadOnly { Err(Unstored::ReadOnlyMode) } else { Ok(place) };
                todo(place, seat, tally)
            }
        }
    }

    /// The result, if it is in memory; else the call's key, which only long arguments need before that.
    fn look_in_memory(&self, args: &Canonical, counts: bool) -> Result<Buffer, Key> {
        let (cache, identity) = (&self.cache, &self.known.identity);
        if let Some(asked) = ask(identity, args) {
            return cache.look_in_memory(&asked, counts).ok_or_else(|| Key::new(identity, args));
        }
        let key = Key::new(identity, args);
        cache.look_in_memory(&ask_by_key(identity, args, &key), counts).ok_or(key)
    }
}

/// A call as the memory table knows it, by its argument bytes; `None` where these are too long.
fn ask<'a>(identity: &'a Identity, args: &'a Canonical) -> Option<Asked<'a>> {
    let bytes = args.bytes().filter(|bytes| bytes.len() <= MAX_ARGUMENTS)?;
    Some(Asked { args: Arguments::Bytes(bytes), ..ask_without(identity, args) })
}

/// The same by its key, where the argument bytes are too long.
fn ask_by_key<'a>(identity: &'a Identity, args: &'a Canonical, key: &'a Key) -> Asked<'a> {
    Asked { args: Arguments::Key(key.as_bytes()), ..ask_without(identity, args) }
}

fn ask_without<'a>(identity: &'a Identity, args: &'a Canonical) -> Asked<'a> {
    Asked {
        name: identity.name().as_bytes(),
        version: identity.version().as_bytes(),
        dependencies: identity.dependencies(),
        layouts: identity.has_strict_layout().then(|| args.layouts()),
        args: Arguments::Bytes(&[]),
    }
}

/// Keeps a result in memory for calls that come again.
pub(crate) fn remember(
    state: &State,
    generation: Generation,
    known: &Known,
    args: &Canonical,
    key: &Key,
    buffer: &Buffer,
    below: Option<Below>,
) {
    if let Some(memory) = &state.memory {
        let identity = &known.identity;
        let asked = ask(identity, args).unwrap_or_else(|| ask_by_key(identity, args, key));
        let worth = Worth { row: state.row(&known.directory), ns: buffer.compute_ns() };
        memory.put(
            &asked,
            identity,
            buffer.with_origin(Origin::Memory),
            generation,
            known.slot,
            worth,
            below,
        );
    }
}

/// One call that begins.
struct Call<'a> {
    function: &'a Function,
    root: &'a Root,
    args: &'a Canonical,
    key: Key,
    options: &'a Options,
    wait: Wait,
    /// When it began to wait for somebody, or was about to: a hit does not need the time.
    began: OnceCell<Instant>,
    /// Whether another caller computed the same meanwhile.
    waited: Cell<bool>,
    /// Whether the cache below had it.
    is_below: Cell<bool>,
    /// Whether what it has of it is damaged.
    is_bad_below: Cell<bool>,
}

// Taken apart as soon as it is made.
#[allow(clippy::large_enum_variant)]
enum Step {
    Hit(Buffer),
    /// Boxed, as hits are moved at the same size.
    Compute(Box<Place>, Option<Seat>),
    Busy,
}

/// What stands where an entry is looked for.
enum Found {
    Hit(Loaded),
    Nothing,
    /// An entry over age, to be replaced.
    Old,
    /// Something that is no entry of this key, or not a whole one, and is to be replaced.
    Bad,
    /// Something that cannot be read just now.
    Unreadable,
}

impl<'a> Call<'a> {
    fn new(
        function: &'a Function,
        root: &'a Root,
        args: &'a Canonical,
        key: Key,
        options: &'a Options,
        wait: Wait,
    ) -> Call<'a> {
        let (began, waited) = (OnceCell::new(), Cell::new(false));
        let (is_below, is_bad_below) = (Cell::new(false), Cell::new(false));
        Call { function, root, args, key, options, wait, began, waited, is_below, is_bad_below }
    }

    /// Counts how it began, and says where to count how computing it ends.
    fn count(&self, step: &Step) -> Option<Tally> {
        let state = self.root.state(self.options);
        let row = state.row(&self.function.known.directory);
        if self.waited.get() {
            let waited = self.began.get().map_or(Duration::ZERO, Instant::elapsed);
            state.count(row, Count::WaitedNs, waited.as_nanos() as u64);
            if !matches!(step, Step::Busy) {
                state.count(row, Count::Waits, 1);
            }
        }
        match step {
            Step::Hit(buffer) => {
                let kind = match buffer.origin() {
                    _ if self.is_below.get() => Count::Lower,
                    Origin::Shared => Count::Shared,
                    _ => Count::Disk,
                };
                state.count_hit(row, kind, buffer.compute_ns());
                None
            }
            Step::Compute(..) => {
                state.count(row, Count::Misses, 1);
                if self.is_bad_below.get() {
                    state.count(row, Count::Corrupt, 1);
                }
                state.add_memory_hits(row);
                Some(Tally { state: state.clone(), row })
            }
            Step::Busy => None,
        }
    }

    /// Whoever computed it does no more.
    fn forget_wait(&self, state: &State) {
        if state.forget_wait(&self.key) {
            self.waited.set(true);
        }
    }

    fn begin(&self) -> Step {
        loop {
            let state = self.root.state(self.options);
            let generation = state.generation(self.function.known.slot);
            let (path, word) = (self.path(), state.wake_word());
            let mut found = self.look_on_disk(state, &path);
            if let Found::Hit(loaded) = found {
                let buffer = loaded.at(path);
                self.forget_wait(state);
                remember(state, generation, &self.function.known, self.args, &self.key, &buffer, None);
                return Step::Hit(buffer);
            }
            if let Some(buffer) = self.find_below(state, generation, &path, &found) {
                self.forget_wait(state);
                return Step::Hit(buffer);
            }
            let seat = if self.function.sharing == Sharing::Off {
                None
            } else {
                let long = self.began().checked_add(LONG_WAIT);
                let say = || self.say_wait(state, false);
                let joined = Flights::join(state, &self.key, generation, self.deadline(), long, say);
                if matches!(joined, Joined::Landed(_) | Joined::Ended | Joined::TimedOut) {
                    self.waited.set(true);
                }
                match joined {
                    Joined::Landed(buffer) => return Step::Hit(buffer),
                    Joined::Ended => continue,
                    Joined::Own => None,
                    Joined::TimedOut if self.has_waited_enough(state) => None,
                    Joined::TimedOut => return Step::Busy,
                    Joined::Leader(mut seat) => match self.lead(state, &mut seat, &path) {
                        Lead::Compute => {
                            self.forget_wait(state);
                            Some(seat)
                        }
                        Lead::Overdue => Some(seat),
                        Lead::Hit(buffer) => {
                            seat.land(buffer.with_origin(Origin::Shared));
                            return Step::Hit(buffer);
                        }
                        Lead::Busy => return Step::Busy,
                        Lead::Retired => continue,
                    },
                }
            };
            let full = state.full_generation(self.function.known.slot);
            if !generation.agrees(&full) {
                continue;
            }
            // Whoever published since the first look is found now: with the key's lock nobody else can. Mostly it is seen
            // that nobody has.
            let alone = !self.waited.get() && seat.as_ref().is_some_and(Seat::has_lock);
            if !alone || state.may_have_unlocked(word) {
                found = self.look_on_disk(state, &path);
            }
            let unreadable = matches!(found, Found::Unreadable);
            let replace = match found {
                Found::Hit(loaded) => {
                    let buffer = loaded.at(path);
                    if let Some(seat) = seat {
                        seat.land(buffer.with_origin(Origin::Shared));
                    }
                    return Step::Hit(buffer);
                }
                Found::Nothing | Found::Unreadable => self.options.mode == Mode::Refresh,
                Found::Old => true,
                Found::Bad => {
                    state.count(state.row(&self.function.known.directory), Count::Corrupt, 1);
                    true
                }
            };
            // Else what the cache below has would be found after a refresh.
            let hides_below = self.options.mode == Mode::Refresh && self.root.lower.is_some();
            let min_compute = if hides_below { Duration::ZERO } else { self.options.min_compute };
            let place = Place {
                state: state.clone(),
                generation: full,
                path,
                below_root: self.below_root(),
                replace,
                unreadable,
                min_compute,
                bounds: self.options.bounds,
                epoch: epoch(),
            };
            return Step::Compute(Box::new(place), seat);
        }
    }

    /// Takes the key's lock among processes, or waits for who has it.
    fn lead(&self, state: &Arc<State>, seat: &mut Seat, path: &CString) -> Lead {
        if self.function.sharing != Sharing::Process {
            return Lead::Compute;
        }
        let mut pause = Duration::from_millis(1);
        loop {
            let word = state.wake_word();
            match state.try_lock(&self.key) {
                TryLock::Held(lock) => {
                    seat.hold(lock);
                    return Lead::Compute;
                }
                TryLock::Unavailable => return Lead::Compute,
                TryLock::Retired => return Lead::Retired,
                TryLock::Busy => {}
            }
            self.waited.set(true);
            if let Found::Hit(loaded) = self.look_on_disk(state, path) {
                self.forget_wait(state);
                return Lead::Hit(loaded.at(path.clone()));
            }
            let rest = self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                return if self.has_waited_enough(state) { Lead::Overdue } else { Lead::Busy };
            }
            if self.began().elapsed() >= LONG_WAIT {
                self.say_wait(state, false);
            }
            state.wait(word, pause.min(rest.unwrap_or(POLL)));
            pause = (2 * pause).min(POLL);
        }
    }

    fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    /// When to stop waiting; `None` for never, which is what a time beyond the clock's comes to.
    fn deadline(&self) -> Option<Instant> {
        let wait = match self.wait {
            Wait::Patiently => self.options.lock_timeout,
            Wait::AtMost(wait) => wait.min(self.options.lock_timeout),
        };
        self.began().checked_add(wait)
    }

    /// Past the deadline: whether whoever computes has kept others waiting for `lock_timeout`, counting the calls that came
    /// back busy, so that the caller now computes as well.
    fn has_waited_enough(&self, state: &State) -> bool {
        let waited = match self.wait {
            Wait::Patiently => self.options.lock_timeout,
            Wait::AtMost(_) => state.waited(&self.key, self.began()),
        };
        let enough = waited >= self.options.lock_timeout;
        if enough || waited >= LONG_WAIT {
            self.say_wait(state, enough);
        }
        enough
    }

    /// Says whom this call waits for, once for each such; or that it has done so for too long.
    fn say_wait(&self, state: &State, too_long: bool) {
        let holder = state.holder(&self.key);
        let cause = format!("{} {holder:?} {too_long}", self.key);
        let level = if too_long { Level::Warning } else { Level::Info };
        let directory = self.root.directory.path();
        say_once(level, directory, &cause, || {
            let whom = holder.map_or("another caller".to_owned(), |holder| holder.to_string());
            let call = describe_call(&self.function.known.identity, self.args);
            let directory = directory.display();
            match too_long {
                false => format!("{directory}: {call} waits for {whom}"),
                true => format!(
                    "{directory}: {call} has waited for {whom}, as long as lock_timeout allows, and is computed here too"
                ),
            }
        });
    }

    /// The entry's absolute path.
    fn path(&self) -> CString {
        path_of(self.root.directory.prefix(), &self.function.known.directory, &self.key)
    }

    /// Where in it the part below the root begins.
    fn below_root(&self) -> usize {
        self.root.directory.prefix().len()
    }

    fn look_on_disk(&self, state: &State, path: &CString) -> Found {
        if self.options.mode == Mode::Refresh {
            return Found::Nothing;
        }
        let (file, loaded) = match self.open(&self.root.directory, state, path, true) {
            Ok(opened) => opened,
            Err(found) => return found,
        };
        if self.options.bounds != Bounds::default() || state.bounds_hits() {
            let (bounds, now) = (self.options.bounds.or(state.bounds()), coarse_now());
            if now.saturating_sub(loaded.created()) > bounds.max_age() {
                return Found::Old;
            }
            if bounds.marks_use() {
                mark_used(&file, now);
            }
        }
        Found::Hit(loaded)
    }

    /// The result as the cache below has it, and that cache's generation before it was looked for there.
    fn look_below(&self, above: &State) -> Option<(Buffer, Below)> {
        let lower = self.root.lower.as_ref()?;
        if self.options.mode == Mode::Refresh {
            return None;
        }
        let (state, directory) = (lower.state(), lower.directory());
        let before = state.generation(self.function.known.slot);
        let path = path_of(directory.prefix(), &self.function.known.directory, &self.key);
        let loaded = match self.open(directory, state, &path, false) {
            Ok((_, loaded)) => loaded,
            Err(found) => {
                self.is_bad_below.set(matches!(found, Found::Bad));
                return None;
            }
        };
        let max_age = self.options.bounds.or(above.bounds()).max_age();
        let is_old = coarse_now().saturating_sub(loaded.created()) > max_age;
        (!is_old).then(|| (loaded.at(path), (state.clone(), before)))
    }

    /// The same; remembered, or copied to this cache, if it is to be, in place of what was found here.
    fn find_below(
        &self,
        state: &Arc<State>,
        generation: Generation,
        path: &CString,
        found: &Found,
    ) -> Option<Buffer> {
        let (buffer, below) = self.look_below(state)?;
        let known = &self.function.known;
        let promotes = self.options.promote && self.options.mode == Mode::ReadWrite;
        // What is too large is not even read, with every hit.
        let fits =
            |bounds: &Bounds| buffer.file().is_some_and(|file| file.len() as u64 <= bounds.max_bytes());
        if let Some(bounds) = promotes.then(|| self.options.bounds.or(state.bounds())).filter(fits) {
            let Some(copy) = Copied::of(&buffer, &self.key) else {
                let path = buffer.path().unwrap_or(below.0.directory.path());
                say_bad(path, entry::DAMAGED, "computed again");
                self.is_bad_below.set(true);
                return None;
            };
            self.is_below.set(true);
            let full = state.full_generation(known.slot);
            let name = &path.as_c_str()[self.below_root()..];
            let replace = matches!(found, Found::Old | Found::Bad);
            if generation.agrees(&full)
                && copy.publish(state, name, replace, known.slot, full, &bounds).is_ok()
                && let Found::Hit(own) = self.look_on_disk(state, path)
            {
                if matches!(found, Found::Bad) {
                    state.count(state.row(&known.directory), Count::Corrupt, 1);
                }
                let own = own.at(path.clone());
                remember(state, generation, known, self.args, &self.key, &own, None);
                return Some(own);
            }
        }
        self.is_below.set(true);
        // Where its clears are not told of, it is looked for each time.
        if below.0.tells_of_clears() {
            remember(state, generation, known, self.args, &self.key, &buffer, Some(below));
        }
        Some(buffer)
    }

    /// An entry's file, open, and what it holds; `own` is whether it is this cache's, not the one's below. Says what is wrong
    /// with it, and what becomes of the call.
    fn open(
        &self,
        directory: &Directory,
        state: &State,
        path: &CString,
        own: bool,
    ) -> Result<(OwnedFd, Loaded), Found> {
        let then = match own && self.root.lower.is_some() {
            true => "looked for in the cache below or computed again",
            false => "computed again",
        };
        let bad = |why: &str| {
            say_bad(Path::new(OsStr::from_bytes(path.as_bytes())), why, then);
            Err(Found::Bad)
        };
        let unreadable = |e: Errno| {
            say_once(Level::Warning, directory.path(), "unreadable", || {
                format!("{}: cannot be read: {e}; the call is {then}", path.to_string_lossy())
            });
            Err(Found::Unreadable)
        };
        let file =
            match state.directory.open_file(&path.as_c_str()[directory.prefix().len()..], OFlags::RDONLY) {
                Ok(file) => file,
                // Removed, by this host or, with a handle gone stale, by another.
                Err(Errno::NOENT | Errno::STALE) => return Err(Found::Nothing),
                Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                    return bad("it is a link, a socket or a device");
                }
                // One's own is replaced.
                Err(e @ (Errno::ACCESS | Errno::PERM)) if own => return bad(&e.to_string()),
                Err(e) => return unreadable(e),
            };
        match self.load(directory, state, &file) {
            Ok(loaded) => Ok((file, loaded)),
            // A pipe with a writer has nothing to read; a directory is none to read.
            Err(Fault::System(Errno::AGAIN | Errno::ISDIR | Errno::INVAL)) => bad("it is no file"),
            Err(Fault::Entry(why)) => bad(why),
            Err(Fault::System(Errno::STALE)) => Err(Found::Nothing),
            Err(Fault::System(e)) => unreadable(e),
        }
    }

    /// What an open entry holds.
    fn load(&self, directory: &Directory, state: &State, file: &OwnedFd) -> Result<Loaded, Fault> {
        if !directory.trusts_file(file)? {
            return Err(Fault::Entry(entry::UNTRUSTED));
        }
        let out_of_memory = |_| Errno::NOMEM;
        let mut why = "it is no file, or was cut off while it was read";
        let (mut read, room) = (0, self.function.known.room.load(Ordering::Relaxed));
        if room > 0 {
            let mut memory = Memory::read(file.as_fd(), room)?;
            read = memory.as_slice().len();
            if read < room {
                // A short read is the end of a file, but for some file systems and an interruption.
                if room - read > read / 4 {
                    memory = Memory::copy_of(memory.as_slice()).map_err(out_of_memory)?;
                    self.expect(read);
                }
                match self.check(memory) {
                    Err(Fault::Entry(damage)) => why = damage,
                    found => return found,
                }
            }
        }
        let stat = statx_of(file.as_fd())?;
        let len = usize::try_from(stat.stx_size).unwrap_or(0);
        let was_whole = read < room && len <= read;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile || was_whole {
            return Err(Fault::Entry(why));
        }
        self.expect(len);
        if len < MAP_FROM || !directory.maps {
            if len >= MAP_FROM {
                // Of a large file that is no entry, no more is read than its end.
                let mut tail = [0; entry::TAIL];
                let at = stat.stx_size - entry::TAIL as u64;
                retry(|| rustix::io::pread(file, &mut tail, at))?;
                entry::check_tail(&tail, stat.stx_size, &self.key).map_err(Fault::Entry)?;
            }
            let mut memory = Memory::zeroed(len).map_err(out_of_memory)?;
            let (place, mut filled) = (memory.as_mut_slice(), 0);
            while filled < len {
                match retry(|| rustix::io::pread(file, &mut place[filled..], filled as u64))? {
                    0 => return Err(Fault::Entry(why)),
                    n => filled += n,
                }
            }
            return self.check(memory);
        }

        let memory = Memory::map(file.as_fd(), &stat)?;
        let parsed = entry::parse(memory.as_slice(), &self.key).map_err(Fault::Entry)?;
        let found = entry::Origin {
            inode: stat.stx_ino,
            mtime: nanoseconds(stat.stx_mtime),
            born: born(&stat),
            boot: crate::state::boot_id(),
        };
        let once = (self.key, found.inode, found.mtime);
        let verify = match self.options.verify {
            Verify::Never => false,
            Verify::Always => true,
            Verify::Auto => {
                let as_written = parsed.origin == found && found.boot != [0; 16] && found.born != 0;
                !as_written && !state.verified.lock().contains(&once)
            }
        };
        if verify {
            if !parsed.data_is_whole(memory.as_slice()) {
                return Err(Fault::Entry(entry::DAMAGED));
            }
            state.verified.lock().insert(once);
        }
        Ok(Loaded::new(parsed, memory))
    }

    /// Has the function's next entry read at once, if it is not much longer than this one, or mapped without having been read.
    fn expect(&self, len: usize) {
        let room = if len < MAP_FROM { len + len / 8 } else { 0 };
        self.function.known.room.store(room, Ordering::Relaxed);
    }

    /// Checks an entry that was read, data and all.
    fn check(&self, memory: Memory) -> Result<Loaded, Fault> {
        let parsed = entry::parse(memory.as_slice(), &self.key).map_err(Fault::Entry)?;
        let whole = parsed.data_is_whole(memory.as_slice());
        if whole { Ok(Loaded::new(parsed, memory)) } else { Err(Fault::Entry(entry::DAMAGED)) }
    }
}

/// Says what is wrong with an entry, and what becomes of the call.
fn say_bad(entry: &Path, why: &str, then: &str) {
    say_once(Level::Warning, entry, "bad", || format!("{}: {why}; the call is {then}", entry.display()));
}

/// Why a file was not loaded as an entry.
enum Fault {
    /// What is wrong with it.
    Entry(&'static str),
    System(Errno),
}

impl From<Errno> for Fault {
    fn from(e: Errno) -> Fault {
        Fault::System(e)
    }
}

enum Lead {
    Compute,
    /// Compute, though another process does and has been for too long.
    Overdue,
    Hit(Buffer),
    Busy,
    Retired,
}
