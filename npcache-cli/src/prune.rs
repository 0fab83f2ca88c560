//! `npcache prune` and `npcache clear`: dropping some entries, and all.

use std::collections::HashMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use npcache_core::{Cache, Entry};
use serde_json::json;

use crate::Outcome;
use crate::config::is_bounded;
use crate::ls::describe;
use crate::select::Selection;
use crate::session::Session;
use crate::terminal::{NAME, Progress, ago, bytes, count, printable, size};

/// Drop the entries that fit all of what is given; or what the directory's bounds do not allow
///
/// What is dropped is computed again when it is asked for. Programs that have it in memory go on using it. With nothing
/// given, what is over the bounds that `npcache config` shows goes at once, instead of as other results are stored.
/// How much was dropped is told in blocks of 4 KiB, as max_bytes counts it.
///
/// Exit status 1 if something cannot be removed, as what others stored in a directory of theirs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  npcache prune --unused-for 90d                 not asked for in a quarter
  npcache prune -f solve --keep 100              all but the newest hundred of a function
  npcache prune --cheaper-than 10ms --larger-than 1M
  npcache prune --to 50G --dry-run               what is least worth keeping, until 50 GiB are left
  npcache prune                                  what max_bytes and its like do not allow")]
pub struct Prune {
    /// Of each function, keep the newest so many of those
    #[arg(long, value_name = "COUNT")]
    keep: Option<usize>,
    /// Of those, drop only until all that is left in the directory takes this much, as max_bytes counts it: what is least
    /// worth keeping first, by the directory's policy
    #[arg(long, value_name = "SIZE", value_parser = size)]
    to: Option<u64>,
    /// Only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    selection: Selection,
}

impl Prune {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = if self.dry_run { session.look()? } else { session.change()? };
        if !self.selection.is_given() && self.keep.is_none() && self.to.is_none() {
            if !is_bounded(&cache) {
                let how =
                    "say what is to go, or use `npcache clear` for all of it; see `npcache prune --help`";
                return Err(how.into());
            }
            if self.dry_run {
                let how = "what the bounds do not allow is chosen as it goes; `npcache prune --to SIZE --dry-run` lists what \
                           is least worth keeping";
                return Err(how.into());
            }
            let gone = cache.prune()?;
            say_what_stays(&cache, session);
            return self.report(session, gone.entries, gone.bytes);
        }
        let progress = Progress::of_entries("looking");
        let mut going: Vec<Entry> = Vec::new();
        for entry in self.selection.of(&cache) {
            progress.advance(1);
            match entry {
                Ok(entry) => going.push(entry),
                Err(e) => progress.pause(|| session.trouble(&e)),
            }
        }
        if let Some(keep) = self.keep {
            going.sort_by_key(|entry| std::cmp::Reverse(entry.created()));
            // By directory: long names are cut in what `function` tells.
            let mut kept: HashMap<Option<PathBuf>, usize> = HashMap::new();
            going.retain(|entry| {
                let kept = kept.entry(entry.path().ancestors().nth(2).map(Path::to_owned)).or_default();
                *kept += 1;
                *kept > keep
            });
        }
        if let Some(limit) = self.to {
            let mut held: u64 = cache.entries(None, "").flatten().map(|entry| entry.room()).sum();
            // What is damaged is worth nothing.
            let worth = |entry: &Entry| entry.worth().unwrap_or(f64::NEG_INFINITY);
            let mut ranked: Vec<_> = going.into_iter().map(|entry| (worth(&entry), entry)).collect();
            ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let goes = |entry: &Entry| {
                let is_over = held > limit;
                // Others drop entries meanwhile, and what they dropped may not have been added up.
                held = if is_over { held.saturating_sub(entry.room()) } else { held };
                is_over
            };
            going = ranked.into_iter().map(|(_, entry)| entry).filter(goes).collect();
        }
        let (mut entries, mut freed) = (0, 0);
        for entry in &going {
            if self.dry_run {
                if session.json {
                    session.print_json(&describe(entry, None))?;
                } else {
                    let (key, size, used) =
                        (entry.key().to_string(), bytes(entry.bytes()), ago(entry.used()));
                    let function = entry.function();
                    let name = printable(&function);
                    writeln!(
                        session.out(),
                        "{}  {size:>8}  used {used:>6} ago  {NAME}{name}{NAME:#}",
                        &key[..12]
                    )?;
                }
            } else {
                match entry.remove() {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(e) => {
                        progress.pause(|| session.trouble(&e));
                        continue;
                    }
                }
            }
            (entries, freed) = (entries + 1, freed + entry.room());
        }
        progress.end();
        self.report(session, entries, freed)
    }

    fn report(&self, session: &mut Session, entries: u64, freed: u64) -> Outcome {
        if session.json {
            session.print_json(&json!({ "entries": entries, "bytes": freed, "dry_run": self.dry_run }))?;
        } else {
            let did = if self.dry_run { "would drop" } else { "dropped" };
            writeln!(session.out(), "{did} {} entries, {}", count(entries), bytes(freed))?;
        }
        Ok(true)
    }
}

/// Says where more is left than the directory's bounds allow: of what cannot be removed, [`Cache::prune`] tells nothing.
fn say_what_stays(cache: &Cache, session: &mut Session) {
    let bounds: HashMap<_, _> = cache.config().into_iter().collect();
    if bounds["policy"] == "none" {
        return;
    }
    let (mut entries, mut room) = (0, 0);
    for entry in cache.entries(None, "").flatten() {
        (entries, room) = (entries + 1, room + entry.room());
    }
    for (name, held, shown) in
        [("max_entries", entries, format!("{} entries", count(entries))), ("max_bytes", room, bytes(room))]
    {
        let bound = &bounds[name];
        if bound.parse().is_ok_and(|bound: u64| held > bound) {
            session.trouble(&format!(
                "{shown} are left, over {name} {bound}: some cannot be removed, as what others stored"
            ));
        }
    }
}

/// Drop all entries, or one function's
///
/// Unlike `prune`, it holds for what is being computed now, too: in any process, what was begun before is not stored
/// after it, and what programs have in memory is forgotten. So it is what to do when results turned out to be wrong. Files that
/// npcache did not make are left alone.
#[derive(clap::Args)]
pub struct Clear {
    /// Of this function, with all its versions
    #[arg(short, long, value_name = "NAME")]
    function: Option<String>,
    /// The directory too
    #[arg(long, conflicts_with = "function")]
    remove_directory: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Clear {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.change()?;
        let path = cache.path().map(|path| path.display().to_string()).unwrap_or_default();
        let what = match &self.function {
            Some(name) => format!("all entries of `{}` in {path}", printable(name)),
            None => format!("all entries in {path}"),
        };
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                return Err(format!("this drops {what}; say so by --yes").into());
            }
            eprint!("Drop {what}? [y/N] ");
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer)?;
            if !answer.trim().eq_ignore_ascii_case("y") {
                return Ok(false);
            }
        }
        match &self.function {
            Some(name) => cache.clear_function(name)?,
            None if self.remove_directory => cache.remove()?,
            None => cache.clear()?,
        }
        if session.json {
            session.print_json(&json!({ "cleared": path, "function": self.function }))?;
        } else {
            writeln!(session.out(), "dropped {what}")?;
        }
        Ok(true)
    }
}
