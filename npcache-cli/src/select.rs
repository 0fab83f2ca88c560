//! Which entries a command is about: the filters that `ls`, `verify` and `prune` share.

use std::time::{Duration, SystemTime};

use npcache_core::{Cache, Entry, Error, Result};

use crate::terminal::size;

/// Whether it is only that an entry is gone, dropped by somebody since it was listed: that is no trouble.
pub fn is_gone(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

#[derive(clap::Args, Default)]
#[command(next_help_heading = "Which entries")]
pub struct Selection {
    /// Of this function
    #[arg(short, long, value_name = "NAME")]
    pub function: Option<String>,
    /// Larger than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    larger_than: Option<u64>,
    /// Smaller than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    smaller_than: Option<u64>,
    /// Stored longer ago than this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Stored since
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
    /// Not used for so long (uses are recorded to the hour)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unused_for: Option<Duration>,
    /// Took less to compute than this (opens each entry)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    cheaper_than: Option<Duration>,
    /// Took more to compute than this (opens each entry)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    dearer_than: Option<Duration>,
}

impl Selection {
    /// Whether anything is asked of an entry.
    pub fn is_given(&self) -> bool {
        self.function.is_some()
            || self.larger_than.or(self.smaller_than).is_some()
            || self.older_than.or(self.newer_than).or(self.unused_for).is_some()
            || self.cheaper_than.or(self.dearer_than).is_some()
    }

    /// The entries, and what could not be read, as they are come upon.
    pub fn of<'a>(&'a self, cache: &Cache) -> impl Iterator<Item = Result<Entry>> + 'a {
        let now = SystemTime::now();
        let selected = move |entry: Entry| Ok(self.covers(&entry, now)?.then_some(entry));
        cache.entries(self.function.as_deref(), "").filter_map(move |entry| match entry.and_then(selected) {
            Err(e) if is_gone(&e) => None,
            selected => selected.transpose(),
        })
    }

    fn covers(&self, entry: &Entry, now: SystemTime) -> Result<bool> {
        let since = |time| now.duration_since(time).unwrap_or_default();
        let by_file = self.larger_than.is_none_or(|limit| entry.bytes() > limit)
            && self.smaller_than.is_none_or(|limit| entry.bytes() < limit)
            && self.older_than.is_none_or(|limit| since(entry.created()) > limit)
            && self.newer_than.is_none_or(|limit| since(entry.created()) < limit)
            && self.unused_for.is_none_or(|limit| since(entry.used()) > limit);
        if !by_file || self.cheaper_than.or(self.dearer_than).is_none() {
            return Ok(by_file);
        }
        let cost = entry.metadata()?.compute_seconds;
        Ok(self.cheaper_than.is_none_or(|limit| cost < limit.as_secs_f64())
            && self.dearer_than.is_none_or(|limit| cost > limit.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use npcache_core::DType;

    use super::*;

    #[test]
    fn an_entry_that_is_dropped_after_it_was_listed_is_no_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        // Several in each of the 256 shards, of which one is listed at a time.
        for i in 0..2000_u32 {
            let result = cache.call("f", "", i.to_le_bytes(), |out| {
                out.alloc_bytes(None, DType::UInt8.into(), &[1], false).map(drop)
            });
            result.unwrap();
        }
        let selection = Selection { cheaper_than: Some(Duration::MAX), ..Selection::default() };
        let mut selected = selection.of(&cache);
        assert!(selected.next().unwrap().is_ok());
        cache.clear().unwrap();
        assert_eq!(selected.filter_map(Result::err).count(), 0);
    }
}
