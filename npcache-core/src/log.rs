//! What the cache has to say: each degradation once, to whoever listens.
//!
//! No fault of the cache costs a result, so a read-only directory, a full disk or a damaged entry would pass unnoticed.
//! They are said to a listener of the program's, [`set_log`], and where the option `log` says so to standard error or to a
//! file; by default to nobody. Listener and destination are the process's, since its caches share what there is to say.
//! What comes again and again is said once in a process, for one directory and one cause.
//!
//! No lock of the cache is held while a listener runs, so it may use the cache.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::fork::PerProcess;
use crate::state::lock;
use crate::store::below_size_limit;

/// How much something that is said matters. The numbers are part of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
#[non_exhaustive]
pub enum Level {
    /// All is well, but something takes its time, or a directory allows less than another would.
    Info = 1,
    /// The cache does less than it was asked to: results are not stored, or computed more often than once.
    Warning = 2,
    /// A stored result is not what its function returns.
    Error = 3,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Where the option `log` has messages written, besides to the listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Log {
    /// Nowhere.
    #[default]
    None,
    /// To standard error.
    Stderr,
    /// To the end of a file, a line each, written in one piece: processes can share it.
    File(PathBuf),
}

/// What hears messages: given the level and a text without a line's end.
pub type Listener = Box<dyn Fn(Level, &str) + Send + Sync>;

static LISTENER: Latest<Option<Listener>> = Latest::new();
static DESTINATION: Latest<Log> = Latest::new();

/// A value of the process that is replaced now and then. Not behind a mutex, which a child of `fork` could inherit locked.
/// What was replaced is never freed, since another thread may be using it, only linked, for tools that look for lost
/// memory.
struct Latest<T>(AtomicPtr<Node<T>>);

struct Node<T> {
    value: T,
    earlier: AtomicPtr<Node<T>>,
}

impl<T> Latest<T> {
    const fn new() -> Latest<T> {
        Latest(AtomicPtr::new(std::ptr::null_mut()))
    }

    fn get(&self) -> Option<&'static T> {
        // SAFETY: NULL, or of a leaked box.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }.map(|node| &node.value)
    }

    fn set(&self, value: T) {
        let node: &Node<T> = Box::leak(Box::new(Node { value, earlier: AtomicPtr::default() }));
        let earlier = self.0.swap(std::ptr::from_ref(node).cast_mut(), Ordering::AcqRel);
        node.earlier.store(earlier, Ordering::Relaxed);
    }
}

/// Has all messages of this process given to `listener`, in place of an earlier one; `None` for nobody. It is called in
/// whichever thread has something to say, at times in several at once, and may use the cache. One that is replaced may
/// still be running, and is never dropped.
///
/// ```
/// use npcache_core::{Cache, set_log};
/// use std::sync::mpsc;
///
/// let directory = tempfile::tempdir()?;
/// let cache = Cache::open(directory.path())?;
/// let ones = |n| cache.call("ones", "1", [n], |out| out.write(&ndarray::Array1::<f64>::ones(usize::from(n))));
///
/// let (sender, said) = mpsc::channel();
/// set_log(Some(Box::new(move |level, text| drop(sender.send(format!("{level:?}: {text}"))))));
/// std::fs::remove_dir_all(directory.path())?;
/// assert_eq!(ones(2)?.view::<f64>(0)?.sum(), 2.0);
/// assert!(said.recv()?.starts_with("Warning: "), "that nothing is stored");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_log(listener: Option<Listener>) {
    LISTENER.set(listener);
}

impl Log {
    /// The value of the option.
    pub(crate) fn parse(value: &str) -> Log {
        match value {
            "none" => Log::None,
            "stderr" => Log::Stderr,
            path => Log::File(path.into()),
        }
    }

    /// Makes it the process's destination. A file that cannot be written is an error now, not a silence later.
    pub(crate) fn install(&self) -> Result<()> {
        let mut new = self.clone();
        if let Log::File(path) = &mut new {
            // The process may change its directory.
            *path = std::path::absolute(&*path).map_err(|e| Error::io("find the log", path, e))?;
            let opened = OpenOptions::new().append(true).create(true).open(&*path);
            opened.map_err(|e| Error::io("open the log", path, e))?;
        }
        if destination() != &new {
            DESTINATION.set(new);
        }
        Ok(())
    }

    fn write(&self, level: Level, text: &str) {
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = format!("{now} npcache[{}] {}: {text}\n", std::process::id(), level.name());
        match self {
            Log::None => {}
            // Not by `std::io::stderr`, whose lock a child of `fork` may inherit.
            Log::Stderr => drop(rustix::io::write(rustix::stdio::stderr(), line.as_bytes())),
            Log::File(path) => {
                let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) else { return };
                let len = file.metadata().map_or(0, |found| found.len()) + line.len() as u64;
                if below_size_limit(len).is_ok() {
                    let _ = file.write_all(line.as_bytes());
                }
            }
        }
    }
}

fn destination() -> &'static Log {
    DESTINATION.get().unwrap_or(&Log::None)
}

/// Says `text`, if anybody listens, and if it was not said yet in this process of this path and for this cause.
pub(crate) fn say_once(level: Level, path: &Path, cause: &str, text: impl FnOnce() -> String) {
    static SAID: PerProcess<Mutex<BTreeSet<Vec<u8>>>> = PerProcess::new();
    let (listener, destination) = (LISTENER.get().and_then(Option::as_ref), destination());
    if listener.is_none() && *destination == Log::None {
        return;
    }
    let what = [path.as_os_str().as_bytes(), cause.as_bytes()].join(&0);
    if !lock(SAID.get(|_| true, Mutex::default)).insert(what) {
        return;
    }
    let text = text();
    destination.write(level, &text);
    if let Some(listener) = listener {
        listener(level, &text);
    }
}
