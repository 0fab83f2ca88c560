//! `npcache du`: what each function's entries take.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use crate::Outcome;
use crate::session::Session;
use crate::terminal::{HEAD, NAME, Progress, bytes, count, printable};

/// Show what each function's entries take on disk
///
/// Of all entries, in no time: none is opened. BYTES is what they hold, ON DISK what they take there.
#[derive(clap::Args)]
pub struct Du {}

#[derive(Default)]
struct Sum {
    entries: u64,
    bytes: u64,
    disk_bytes: u64,
}

impl Du {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let progress = Progress::of_entries("counting");
        let mut functions: BTreeMap<String, Sum> = BTreeMap::new();
        let mut total = Sum::default();
        for entry in cache.entries(None, "") {
            progress.advance(1);
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    progress.pause(|| session.trouble(&e));
                    continue;
                }
            };
            for sum in [functions.entry(entry.function()).or_default(), &mut total] {
                sum.entries += 1;
                sum.bytes += entry.bytes();
                sum.disk_bytes += entry.disk_bytes();
            }
        }
        progress.end();
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.disk_bytes));
        if session.json {
            let describe = |sum: &Sum| json!({ "entries": sum.entries, "bytes": sum.bytes, "disk_bytes": sum.disk_bytes });
            let mut json = describe(&total);
            json["functions"] = functions.iter().map(|(name, sum)| (name.clone(), describe(sum))).collect();
            session.print_json(&json)?;
            return Ok(true);
        }
        let out = session.out();
        writeln!(out, "{HEAD}{:>11}  {:>10}  {:>10}  FUNCTION{HEAD:#}", "ENTRIES", "BYTES", "ON DISK")?;
        let mut line = |sum: &Sum, name: &str| {
            let (held, taken) = (bytes(sum.bytes), bytes(sum.disk_bytes));
            writeln!(out, "{:>11}  {held:>10}  {taken:>10}  {name}", count(sum.entries))
        };
        for (name, sum) in &functions {
            line(sum, &format!("{NAME}{}{NAME:#}", printable(name)))?;
        }
        line(&total, "in all")?;
        Ok(true)
    }
}
