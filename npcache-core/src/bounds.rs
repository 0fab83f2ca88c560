//! How much the cache may keep: bounds that the directory holds for all processes, or a handle for itself.
//!
//! The directory's are in `.npcache/config`, one `name=value` a line. Who changes it raises a counter in the state page, by
//! which other processes know that they have to read it again.

use std::ffi::CStr;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::options::{bytes, choose, seconds};
use crate::policy::Policy;
use crate::store::Directory;

/// The directory's own settings.
pub(crate) const CONFIG_FILE: &CStr = c".npcache/config";

/// A longer one is none of ours.
const MAX_CONFIG: usize = 16 << 10;

/// The names of what can be set, as options and in the directory.
pub(crate) const NAMES: [&str; 5] = ["max_bytes", "max_entries", "max_age", "min_free_bytes", "policy"];

/// What is set: in a directory, by a handle, or by both together. Without a bound a number is the largest there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bounds {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_entries: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) min_free_bytes: Option<u64>,
    pub(crate) policy: Option<Policy>,
}

impl Bounds {
    /// Sets what is called `name`; `false` where there is no such bound.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "max_bytes" => self.max_bytes = Some(limit(name, value, bytes)?),
            "max_entries" => self.max_entries = Some(limit(name, value, count)?),
            "max_age" => self.max_age = Some(age(name, value)?),
            // None at all has to stay free.
            "min_free_bytes" => {
                self.min_free_bytes = Some(if value == "none" { 0 } else { bytes(name, value)? });
            }
            "policy" => {
                let known = [("cost", Policy::Cost), ("lru", Policy::Lru), ("none", Policy::None)];
                self.policy = Some(choose(name, value, &known)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// These, and what they leave open as `below` has it.
    pub(crate) fn or(self, below: Bounds) -> Bounds {
        Bounds {
            max_bytes: self.max_bytes.or(below.max_bytes),
            max_entries: self.max_entries.or(below.max_entries),
            max_age: self.max_age.or(below.max_age),
            min_free_bytes: self.min_free_bytes.or(below.min_free_bytes),
            policy: self.policy.or(below.policy),
        }
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(u64::MAX)
    }

    pub(crate) fn max_entries(&self) -> u64 {
        self.max_entries.unwrap_or(u64::MAX)
    }

    /// In nanoseconds.
    pub(crate) fn max_age(&self) -> i64 {
        self.max_age.and_then(|age| i64::try_from(age.as_nanos()).ok()).unwrap_or(i64::MAX)
    }

    pub(crate) fn min_free_bytes(&self) -> u64 {
        self.min_free_bytes.unwrap_or(0)
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy.unwrap_or_default()
    }

    /// Whether the room that entries take is bounded, so that it matters which of them were used.
    pub(crate) fn bound_room(&self) -> bool {
        self.max_bytes() != u64::MAX || self.bounds_entries_alone() || self.min_free_bytes() > 0
    }

    /// Whether an entry's length does not count.
    pub(crate) fn bounds_entries_alone(&self) -> bool {
        self.max_bytes() == u64::MAX && self.min_free_bytes() == 0 && self.max_entries() != u64::MAX
    }

    /// Whether there is anything to keep.
    pub(crate) fn bound_anything(&self) -> bool {
        self.bound_room() || self.max_age() != i64::MAX
    }

    /// Whether it matters which entries were used.
    pub(crate) fn marks_use(&self) -> bool {
        self.bound_room() && self.policy() != Policy::None
    }

    /// Each by its name, with the value that holds.
    pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
        let number = |n: u64| if n == u64::MAX { "none".to_owned() } else { n.to_string() };
        let age = self.max_age.filter(|age| *age != Duration::MAX);
        let policy = match self.policy() {
            Policy::Cost => "cost",
            Policy::Lru => "lru",
            Policy::None => "none",
        };
        let values = [
            number(self.max_bytes()),
            number(self.max_entries()),
            age.map_or("none".to_owned(), |age| age.as_secs_f64().to_string()),
            number(self.min_free_bytes()),
            policy.to_owned(),
        ];
        NAMES.into_iter().zip(values).collect()
    }

    /// What the directory says. What this version does not know, or may not read, is left open; an error is one that passes.
    pub(crate) fn read(directory: &Directory) -> rustix::io::Result<Bounds> {
        let mut bounds = Bounds::default();
        let text = match directory.read_small(CONFIG_FILE, MAX_CONFIG) {
            Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(e),
            other => other.unwrap_or_default(),
        };
        for line in text.lines() {
            if let Some((name, value)) = line.split_once('=') {
                let _ = bounds.set(name.trim(), value.trim());
            }
        }
        Ok(bounds)
    }

    /// Has the directory say it from now on.
    pub(crate) fn write(directory: &Directory, name: &str, value: &str) -> Result<()> {
        let mut bounds = Bounds::default();
        if !bounds.set(name, value)? {
            let name = name.escape_debug();
            let known = NAMES.join(", ");
            return Err(Error::Argument(format!("a directory keeps no option `{name}`; it keeps {known}")));
        }
        let failed = |e: Errno| Error::io("write .npcache/config in", directory.path(), e);
        // One after the other, where the file system has locks, so that two who change different lines do.
        let admin = directory.open_admin().map_err(failed)?;
        let _ = flock(&admin, FlockOperation::LockExclusive);
        let old = match directory.read_small(CONFIG_FILE, MAX_CONFIG) {
            Err(Errno::NOENT) => String::new(),
            other => other.map_err(failed)?,
        };
        let others = old.lines().filter(|line| line.split('=').next().is_none_or(|n| n.trim() != name));
        let mut text: String = others.map(|line| format!("{line}\n")).collect();
        // As a number: what may stand for one in an option, `50 GiB`, is no promise of the format.
        let values = bounds.values();
        let (_, value) = values.iter().find(|(known, _)| *known == name).expect("it was set above");
        text.push_str(&format!("{name}={value}\n"));
        let replaced = directory.replace_small(CONFIG_FILE, &text);
        // Closing would do, but for a child of `fork` that has a copy.
        let _ = flock(&admin, FlockOperation::Unlock);
        replaced.map_err(|why| Error::Directory {
            path: directory.path().to_owned(),
            reason: format!("cannot keep the option {name}: {why}"),
        })
    }
}

/// A bound, or `none`. That nothing at all may be kept is asked for otherwise.
fn limit(name: &str, value: &str, parse: impl Fn(&str, &str) -> Result<u64>) -> Result<u64> {
    if value == "none" {
        return Ok(u64::MAX);
    }
    match parse(name, value)? {
        0 => Err(Error::Argument(format!(
            "{name}=0 would keep nothing; mode=readonly stores nothing, none is no bound"
        ))),
        bound => Ok(bound),
    }
}

fn count(name: &str, value: &str) -> Result<u64> {
    value.parse().map_err(|_| {
        Error::Argument(format!("{name}=`{}` is no number, such as 100000, nor none", value.escape_debug()))
    })
}

/// A time in seconds, or with a unit: `1y`, `2w`, `30d`, `12h`, `90m`. A year has 365.25 days, as for the command's other times.
fn age(name: &str, value: &str) -> Result<Duration> {
    if value == "none" {
        return Ok(Duration::MAX);
    }
    let units =
        [("y", 31_557_600.0), ("w", 604_800.0), ("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| value.strip_suffix(suffix).map(|number| (number, *unit)))
        .unwrap_or((value, 1.0));
    let age = seconds(name, number).ok().map(|age| age.as_secs_f64() * unit);
    age.and_then(|age| Duration::try_from_secs_f64(age).ok()).filter(|age| !age.is_zero()).ok_or_else(|| {
        Error::Argument(format!(
            "{name}=`{}` is no age, such as 86400, 12h, 30d, 1y or none",
            value.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_set_by_its_name_and_says_its_value_again() {
        let mut bounds = Bounds::default();
        assert!(!bounds.bound_anything());
        let defaults = bounds.values();
        for (name, value) in [
            ("max_bytes", "1.5K"),
            ("max_entries", "7"),
            ("max_age", "12h"),
            ("min_free_bytes", "1K"),
            ("policy", "lru"),
        ] {
            assert!(bounds.set(name, value).unwrap());
        }
        let values: Vec<String> = bounds.values().into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["1536", "7", "43200", "1024", "lru"]);
        for (name, value) in bounds.values() {
            let mut again = bounds;
            again.set(name, &value).unwrap();
            assert_eq!(again, bounds, "{name}={value}");
        }
        // What is set to `none` holds against a bound below.
        let mut none = Bounds::default();
        for (name, value) in &defaults {
            none.set(name, value).unwrap();
        }
        assert_eq!(none.or(bounds).values(), defaults);
        assert_eq!(Bounds::default().or(bounds), bounds);
        for name in NAMES {
            assert!(bounds.set(name, "none").unwrap());
        }
        assert!(!bounds.bound_anything() && bounds.policy() == Policy::None);
    }

    #[test]
    fn an_age_has_the_units_of_the_commands_times() {
        for (value, seconds) in [
            ("90s", 90.0),
            ("1.5m", 90.0),
            ("12h", 43_200.0),
            ("30d", 2_592_000.0),
            ("2w", 1_209_600.0),
            ("1y", 31_557_600.0),
            ("0.25", 0.25),
        ] {
            assert_eq!(age("max_age", value).unwrap().as_secs_f64(), seconds, "{value}");
        }
    }

    #[test]
    fn a_wrong_value_is_answered_with_right_ones() {
        let message = |name, value| Bounds::default().set(name, value).unwrap_err().to_string();
        assert!(message("max_bytes", "0").contains("readonly"));
        assert!(message("max_bytes", "lots").contains("64M"));
        assert!(message("max_entries", "1.5").contains("100000"));
        for value in ["", "0", "-1d", "12 h", "d", "1e300d", "1 y", "1x"] {
            assert!(message("max_age", value).contains("30d"), "{value}");
        }
        assert!(message("policy", "fifo").contains("cost, lru, none"));
    }
}
