//! `npcache verify`: every checksum.

use std::io::Write;
use std::sync::Mutex;
use std::thread::available_parallelism;

use npcache_core::{Entry, Error};
use serde_json::json;

use crate::Outcome;
use crate::select::{Selection, is_gone};
use crate::session::Session;
use crate::terminal::{BAD, GOOD, Progress, bytes, count, printable};

/// More would not read faster from any one disk.
const MAX_THREADS: usize = 8;

/// Verify every byte of every entry against its checksums
///
/// Lists what is damaged. No call ever gets a damaged entry: it is computed again and replaced. So there is nothing to
/// repair, and --remove only makes room.
///
/// Exit status 1 if something is damaged or cannot be read, and was not removed.
#[derive(clap::Args)]
pub struct Verify {
    /// Remove the entries that are damaged
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    selection: Selection,
}

impl Verify {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = if self.remove { session.change()? } else { session.look()? };
        let mut entries = Vec::new();
        let mut bad = Vec::new();
        let progress = Progress::of_entries("listing");
        for entry in self.selection.of(&cache) {
            progress.advance(1);
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => bad.push((None, e)),
            }
        }
        progress.end();
        let (total, total_bytes) = (entries.len(), entries.iter().map(Entry::bytes).sum());
        let progress = Progress::of_bytes("verifying", total_bytes);
        let threads = available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS);
        let (todo, found) = (Mutex::new(entries.into_iter()), Mutex::new(bad));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        // The lock is not held while an entry is verified.
                        let Some(entry) = todo.lock().expect("nobody panics with it").next() else { break };
                        match entry.verify() {
                            Err(e) if !is_gone(&e) => {
                                found.lock().expect("nobody panics with it").push((Some(entry.clone()), e))
                            }
                            _ => {}
                        }
                        progress.advance(entry.bytes());
                    }
                });
            }
        });
        progress.end();
        let mut bad = found.into_inner().expect("nobody panics with it");
        bad.sort_by_key(|(_, e)| e.to_string());

        let mut removed = 0;
        for (entry, e) in &bad {
            let damaged = matches!(e, Error::Damaged { .. });
            let mut gone = false;
            if let (true, true, Some(entry)) = (self.remove, damaged, entry) {
                gone = session.read(entry.remove()).unwrap_or(false);
                removed += usize::from(gone);
            }
            let path = match e {
                Error::Damaged { path, .. } | Error::Io { path, .. } => path.to_string_lossy().into_owned(),
                _ => String::new(),
            };
            if session.json {
                let json =
                    json!({ "path": path, "damaged": damaged, "removed": gone, "message": e.to_string() });
                session.print_json(&json)?;
            } else {
                let (text, so) = (e.to_string(), if gone { " (removed)" } else { "" });
                writeln!(session.out(), "{BAD}{}{BAD:#}{so}", printable(&text))?;
            }
        }
        if session.json {
            let json =
                json!({ "entries": total, "bytes": total_bytes, "bad": bad.len(), "removed": removed });
            session.print_json(&json)?;
        } else if bad.is_empty() {
            let (entries, size) = (count(total as u64), bytes(total_bytes));
            writeln!(session.out(), "{GOOD}{entries} entries, {size}: all whole{GOOD:#}")?;
        } else {
            let entries = count(total as u64);
            writeln!(
                session.out(),
                "{entries} entries, {}: {} bad, {removed} removed",
                bytes(total_bytes),
                bad.len()
            )?;
        }
        Ok(bad.len() == removed)
    }
}
