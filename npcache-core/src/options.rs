//! How a cache behaves: set in code, or for one run by the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bounds::Bounds;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::policy::Policy;

/// What a cache does with its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Look up and store.
    #[default]
    ReadWrite,
    /// Look up; what is computed is not stored.
    ReadOnly,
    /// Compute every call anew and replace what is stored. Where the new result is not stored, as what is too large or, by
    /// the option `min_compute_ms`, too cheap, the old one is removed. Other processes that have that in memory keep it.
    Refresh,
    /// Neither look up nor store.
    Off,
}

/// With whom a caller that misses shares the work: who waits while one computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Callers in all processes.
    #[default]
    Process,
    /// Callers in this process.
    Thread,
    /// Nobody: every caller that misses computes. For functions that end in a barrier between their callers, which
    /// would never be reached if only one of them computed.
    Off,
}

/// When the data of an entry over 256 KiB is verified against its checksum. Everything else is verified at every open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Once in a process, and not where inode, length, modification time and the machine's boot are those of its
    /// writing.
    #[default]
    Auto,
    /// At every open.
    Always,
    /// Not at all.
    Never,
}

/// Whose directories and entries are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Whoever may write to the directory.
    #[default]
    Any,
    /// The user's own and root's that nobody else can write to: a directory that is not so is an error when it is opened,
    /// an entry is computed again and replaced.
    Owner,
}

/// Whether entries over 256 KiB are mapped, which costs no memory of one's own, or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Map {
    /// Mapped where the file system is this machine's alone. On another, a file that another machine removes or replaces can
    /// be gone under a map of it, and whoever touches that is killed.
    #[default]
    Auto,
    /// Mapped everywhere.
    Always,
    /// Read everywhere.
    Never,
}

/// How to open a [`Cache`]. Each option is overridden for a run by the environment variable of its name in capitals
/// after `NPCACHE_`.
///
/// ```
/// use npcache_core::{Mode, Options};
/// use std::time::Duration;
///
/// let directory = tempfile::tempdir()?;
/// let cache = Options::new().mode(Mode::Refresh).lock_timeout(Duration::from_secs(60)).open(directory.path())?;
/// // The same by name, as from C:
/// let mut options = Options::new();
/// options.set("mode", "refresh")?;
/// options.set("lock_timeout", "60")?;
/// # drop(cache);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) mode: Mode,
    pub(crate) lock_timeout: Duration,
    pub(crate) flight: Sharing,
    pub(crate) verify: Verify,
    pub(crate) memory: u64,
    pub(crate) min_compute: Duration,
    pub(crate) group: bool,
    /// `None`: as an earlier cache of the process has left it.
    pub(crate) log: Option<Log>,
    pub(crate) audit: f64,
    pub(crate) audit_ulps: u64,
    pub(crate) trust: Trust,
    pub(crate) lower: Option<PathBuf>,
    pub(crate) promote: bool,
    pub(crate) map: Map,
    /// What this handle says of them; what it leaves open is as the directory has it.
    pub(crate) bounds: Bounds,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::default(),
            lock_timeout: Duration::from_secs(600),
            flight: Sharing::default(),
            verify: Verify::default(),
            memory: installed_memory() / 8,
            min_compute: Duration::ZERO,
            group: false,
            log: None,
            audit: 0.0,
            audit_ulps: 0,
            trust: Trust::default(),
            lower: None,
            promote: false,
            map: Map::default(),
            bounds: Bounds::default(),
        }
    }
}

/// The options' names, for messages and for the environment.
const NAMES: [&str; 19] = [
    "mode",
    "lock_timeout",
    "flight",
    "verify",
    "memory_bytes",
    "min_compute_ms",
    "umask",
    "log",
    "audit",
    "audit_ulps",
    "trust",
    "lower",
    "promote",
    "map",
    "max_bytes",
    "max_entries",
    "max_age",
    "min_free_bytes",
    "policy",
];

impl Options {
    /// The defaults: read and write, wait up to 600 s for another caller, in all processes, verify as needed, keep an
    /// eighth of the machine's memory of results.
    pub fn new() -> Options {
        Options::default()
    }

    /// `mode=readwrite|readonly|refresh|off`.
    pub fn mode(mut self, mode: Mode) -> Options {
        self.mode = mode;
        self
    }

    /// `lock_timeout=SECONDS`: how long a call waits for another that computes the same, before it computes too.
    pub fn lock_timeout(mut self, timeout: Duration) -> Options {
        self.lock_timeout = timeout;
        self
    }

    /// `flight=process|thread|off`.
    pub fn flight(mut self, flight: Sharing) -> Options {
        self.flight = flight;
        self
    }

    /// `verify=auto|always|never`.
    pub fn verify(mut self, verify: Verify) -> Options {
        self.verify = verify;
        self
    }

    /// `memory_bytes=BYTES`: how much of the results asked for in this process is kept in memory; 0 keeps none. All
    /// handles on a directory with the same `trust` and `umask` share one memory, that of the first.
    pub fn memory_bytes(mut self, bytes: u64) -> Options {
        self.memory = bytes;
        self
    }

    /// `min_compute_ms=MILLISECONDS`: a result that took less is kept in memory only, not stored. With a
    /// cache below, a refresh stores it all the same: what is below would be found in its place.
    pub fn min_compute(mut self, time: Duration) -> Options {
        self.min_compute = time;
        self
    }

    /// `umask=process|group`: with `group`, what is made in the directory, and the directory itself where it is made, is for its
    /// whole group, whatever the process's umask: for a directory that colleagues share.
    pub fn share_with_group(mut self, group: bool) -> Options {
        self.group = group;
        self
    }

    /// `log=none|stderr|PATH`: where the process writes what its caches have to say (see [`set_log`](crate::set_log)),
    /// from when this one is opened.
    pub fn log(mut self, log: Log) -> Options {
        self.log = Some(log);
        self
    }

    /// `audit=SHARE`: so many of the hits, from 0 for none to 1 for all, are computed again and compared with what is stored.
    /// A difference is said, as an error, by the log; the call then returns what it computed, with
    /// [`Unstored::Differs`](crate::Unstored::Differs). The stored result stays. While it is over 0, hits in memory cost
    /// what looking for them takes, and the audited ones what computing takes.
    ///
    /// # Panics
    ///
    /// Where `share` is not between 0 and 1.
    pub fn audit(mut self, share: f64) -> Options {
        assert!((0.0..=1.0).contains(&share), "a share is between 0 and 1, not {share}");
        self.audit = share;
        self
    }

    /// `audit_ulps=N`: by how many units in the last place floating-point numbers may differ before an audit says so; 0,
    /// the default, is not by a bit.
    pub fn audit_ulps(mut self, ulps: u64) -> Options {
        self.audit_ulps = ulps;
        self
    }

    /// `trust=any|owner`.
    pub fn trust(mut self, trust: Trust) -> Options {
        self.trust = trust;
        self
    }

    /// `map=auto|always|never`.
    pub fn map(mut self, map: Map) -> Options {
        self.map = map;
        self
    }

    /// `lower=PATH`: another cache, which is asked for what this one does not have, and never written to: a site's, or a
    /// colleague's. Where it cannot be opened, it has nothing.
    ///
    /// A clear of this cache leaves it as it is, so what it has is found again. Clears of it are seen by the next call, if it
    /// lies on this machine; elsewhere its results are looked for at every call.
    pub fn lower(mut self, path: impl AsRef<Path>) -> Options {
        self.lower = Some(path.as_ref().to_owned());
        self
    }

    /// `promote=no|yes`: whether what is found in the cache below is copied to this one, in place of what is damaged or over age
    /// here. Not what is larger than `max_bytes`.
    pub fn promote(mut self, promote: bool) -> Options {
        self.promote = promote;
        self
    }

    /// `max_bytes=BYTES`: at most this much is kept, counting each entry in blocks of 4 KiB; what is least worth keeping
    /// goes when something is stored. `None` for no bound.
    ///
    /// This bound and the next four hold for what this handle stores and finds. What a handle does not set is as the
    /// directory has it, for all processes: see [`Cache::configure`].
    pub fn max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Options {
        self.bounds.max_bytes = Some(bytes.into().unwrap_or(u64::MAX));
        self
    }

    /// `max_entries=NUMBER`: at most so many results are kept. `None` for no bound.
    pub fn max_entries(mut self, entries: impl Into<Option<u64>>) -> Options {
        self.bounds.max_entries = Some(entries.into().unwrap_or(u64::MAX));
        self
    }

    /// `max_age=SECONDS`: what was computed longer ago is not found, and goes by and by. `None` for no bound.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Options {
        self.bounds.max_age = Some(age.into().unwrap_or(Duration::MAX));
        self
    }

    /// `min_free_bytes=BYTES`: so much of the file system stays free: entries go, and where that does not help, nothing is
    /// stored.
    pub fn min_free_bytes(mut self, bytes: u64) -> Options {
        self.bounds.min_free_bytes = Some(bytes);
        self
    }

    /// `policy=cost|lru|none`: what goes first.
    pub fn policy(mut self, policy: Policy) -> Options {
        self.bounds.policy = Some(policy);
        self
    }

    /// Sets the option called `name` from text.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "mode" => {
                self.mode = choose(
                    name,
                    value,
                    &[
                        ("readwrite", Mode::ReadWrite),
                        ("readonly", Mode::ReadOnly),
                        ("refresh", Mode::Refresh),
                        ("off", Mode::Off),
                    ],
                )?;
            }
            "lock_timeout" => self.lock_timeout = seconds(name, value)?,
            "flight" => self.flight = sharing(name, value)?,
            "verify" => {
                self.verify = choose(
                    name,
                    value,
                    &[("auto", Verify::Auto), ("always", Verify::Always), ("never", Verify::Never)],
                )?;
            }
            "memory_bytes" => self.memory = bytes(name, value)?,
            "umask" => self.group = choose(name, value, &[("process", false), ("group", true)])?,
            "log" if value.is_empty() => {
                return Err(Error::Argument(
                    "log is empty; it takes none, stderr or the path of a file".to_owned(),
                ));
            }
            "log" => self.log = Some(Log::parse(value)),
            "audit" => {
                let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                self.audit = share.ok_or_else(|| {
                    let value = value.escape_debug();
                    Error::Argument(format!("audit=`{value}` is no share of the hits, such as 0, 0.01 or 1"))
                })?;
            }
            "audit_ulps" => {
                self.audit_ulps = value.parse().map_err(|_| {
                    let value = value.escape_debug();
                    Error::Argument(format!("audit_ulps=`{value}` is no number of units, such as 0 or 4"))
                })?;
            }
            "lower" => self.lower = Some(value.into()),
            "promote" => self.promote = choose(name, value, &[("no", false), ("yes", true)])?,
            "trust" => {
                self.trust = choose(name, value, &[("any", Trust::Any), ("owner", Trust::Owner)])?;
            }
            "map" => {
                let known = [("auto", Map::Auto), ("always", Map::Always), ("never", Map::Never)];
                self.map = choose(name, value, &known)?;
            }
            "min_compute_ms" => self.min_compute = seconds(name, value)? / 1000,
            _ if self.bounds.set(name, value)? => {}
            _ => {
                return Err(Error::Argument(format!(
                    "no option is called `{}`; there are {}",
                    name.escape_debug(),
                    NAMES.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Opens the cache in the directory `path`, which is made with its parents if it is not there.
    ///
    /// # Errors
    ///
    /// Where `path` is a file, cannot be made, read or (unless it is a cache already) written, or was written by a
    /// newer format; where an `NPCACHE_` variable has a value that its option does not take.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Cache> {
        Cache::with_options(Some(path.as_ref()), self.overridden()?)
    }

    /// The same, whatever the environment says: for tools that look after a directory instead of computing.
    pub fn open_as_set(&self, path: impl AsRef<Path>) -> Result<Cache> {
        Cache::with_options(Some(path.as_ref()), self.clone())
    }

    /// A cache without a directory: every call computes.
    pub fn compute_only(&self) -> Result<Cache> {
        Cache::with_options(None, self.overridden()?)
    }

    /// With what the environment says.
    fn overridden(&self) -> Result<Options> {
        let mut options = self.clone();
        let mut variable = String::with_capacity(64);
        for name in NAMES {
            variable.clear();
            variable.push_str("NPCACHE_");
            variable.push_str(name);
            variable.make_ascii_uppercase();
            let Some(value) = std::env::var_os(&variable).filter(|value| !value.is_empty()) else { continue };
            let set = options.set(name, &value.to_string_lossy());
            set.map_err(|e| Error::Argument(format!("in the environment variable {variable}: {e}")))?;
        }
        Ok(options)
    }
}

/// The value of `flight`, which is an option of a function too.
pub(crate) fn sharing(name: &str, value: &str) -> Result<Sharing> {
    choose(name, value, &[("process", Sharing::Process), ("thread", Sharing::Thread), ("off", Sharing::Off)])
}

pub(crate) fn choose<T: Copy>(name: &str, value: &str, known: &[(&str, T)]) -> Result<T> {
    known.iter().find(|(text, _)| *text == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let texts: Vec<_> = known.iter().map(|(text, _)| *text).collect();
        Error::Argument(format!("{name}=`{}` is none of {}", value.escape_debug(), texts.join(", ")))
    })
}

/// A number of bytes as options have it: `1048576`, `64M`, `1.5G`; also as it is shown to people, `1.5 GiB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let bare = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text).trim_end();
    let unit = bare.chars().last().and_then(|unit| "KMGT".find(unit.to_ascii_uppercase()));
    let (number, factor) = match unit {
        Some(unit) => (bare[..bare.len() - 1].trim_end(), 1024_f64.powi(unit as i32 + 1)),
        None => (bare, 1.0),
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (0.0..1e18).contains(&bytes).then_some(bytes as u64)
}

pub(crate) fn bytes(name: &str, value: &str) -> Result<u64> {
    parse_bytes(value).ok_or_else(|| {
        Error::Argument(format!(
            "{name}=`{}` is no number of bytes, such as 0, 4096, 64M or 1.5G",
            value.escape_debug()
        ))
    })
}

fn installed_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

pub(crate) fn seconds(name: &str, value: &str) -> Result<Duration> {
    let seconds = value.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| {
        Error::Argument(format!("{name}=`{}` is no time, such as 600 or 0.5", value.escape_debug()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_or_value_is_answered_with_the_right_ones() {
        let mut options = Options::new();
        let message = |name, value| Options::new().set(name, value).unwrap_err().to_string();
        assert!(message("max_bites", "1").contains("lock_timeout"));
        assert!(message("mode", "fast").contains("readwrite, readonly, refresh, off"));
        for value in ["", "-1", "NaN", "inf", "1e300", "ten"] {
            assert!(message("lock_timeout", value).contains("no time"), "{value}");
        }
        for value in ["", "-0.1", "1.1", "NaN", "half"] {
            assert!(message("audit", value).contains("0.01"), "{value}");
        }
        assert!(message("audit_ulps", "-1").contains("such as 0 or 4"));
        assert!(message("trust", "me").contains("any, owner"));
        assert!(message("map", "").contains("auto, always, never"));
        for value in ["", "-1", "G", "1 X", "1e30"] {
            assert!(message("memory_bytes", value).contains("64M"), "{value}");
        }
        for value in ["1.5G", "1.5 GiB", "1.5GB"] {
            options.set("memory_bytes", value).unwrap();
            assert_eq!(options.memory, 3 << 29);
        }
        options.set("lock_timeout", "0.5").unwrap();
        options.set("verify", "always").unwrap();
        assert_eq!((options.lock_timeout, options.verify), (Duration::from_millis(500), Verify::Always));
    }
}
