//! `npcache stats` and `npcache watch`: how calls go, and what the cache saves.

use std::io::Write;
use std::time::Duration;

use npcache_core::Statistics;
use serde_json::{Value as Json, json};

use crate::Outcome;
use crate::session::Session;
use crate::terminal::{DIM, GOOD, HEAD, NAME, count, printable, seconds, width};

/// Show how calls went, function by function, and the time that hits saved
///
/// Counted are the calls of all processes since the directory was made, in every language. SAVED is what computing the hits
/// would have taken, SPENT what computing the misses took.
#[derive(clap::Args)]
pub struct Stats {}

impl Stats {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let all = cache.statistics()?;
        let mut functions = cache.statistics_by_function()?;
        if session.json {
            let mut json = describe(&all);
            json["functions"] = functions.iter().map(|(name, of)| (name.clone(), describe(of))).collect();
            session.print_json(&json)?;
            return Ok(true);
        }
        let out = session.out();
        let hits = all.hits();
        writeln!(out, "{HEAD}{}{HEAD:#} saved by {} hits", seconds(all.seconds_saved), count(hits))?;
        let mut line = |what: &str, text: String| writeln!(out, "  {DIM}{what:<10}{DIM:#}{text}");
        line(
            "hit rate",
            format!("{} of {} calls", share(hits, hits + all.misses), count(hits + all.misses)),
        )?;
        let (memory, disk) = (count(all.memory), count(all.disk));
        let (shared, lower) = (count(all.shared), count(all.lower));
        line(
            "hits",
            format!(
                "{memory} in memory, {disk} on disk, {shared} from another caller, {lower} in the cache below"
            ),
        )?;
        let (stored, spent) = (count(all.stored), seconds(all.seconds_spent));
        line(
            "misses",
            format!("{}, of which {stored} were stored; {spent} spent computing", count(all.misses)),
        )?;
        line(
            "unstored",
            format!("{} that were too cheap, {} for other reasons", count(all.cheap), count(all.unstored)),
        )?;
        line(
            "waits",
            format!("{} for other callers, {} in all", count(all.waits), seconds(all.seconds_waited)),
        )?;
        line("dropped", format!("{} to make room, {} damaged", count(all.evicted), count(all.corrupt)))?;
        line(
            "audits",
            format!("{} hits, {} found another result", count(all.audited), count(all.differing)),
        )?;
        if !all.complete {
            line("note", INCOMPLETE.to_owned())?;
        }
        if functions.is_empty() {
            return Ok(true);
        }
        writeln!(
            out,
            "\n{HEAD}{:>10}  {:>8}  {:>9}  {:>9}  FUNCTION{HEAD:#}",
            "CALLS", "HIT RATE", "SAVED", "SPENT"
        )?;
        functions.sort_by(|(_, a), (_, b)| b.seconds_saved.total_cmp(&a.seconds_saved));
        for (name, of) in &functions {
            let (calls, saved) = (count(of.hits() + of.misses), seconds(of.seconds_saved));
            let (rate, spent, name) =
                (share(of.hits(), of.hits() + of.misses), seconds(of.seconds_spent), printable(name));
            writeln!(
                out,
                "{calls:>10}  {rate:>8}  {GOOD}{saved:>9}{GOOD:#}  {spent:>9}  {NAME}{name}{NAME:#}"
            )?;
        }
        Ok(true)
    }
}

/// What those are told whose directory has no counts of all processes.
const INCOMPLETE: &str = "not all calls: where processes cannot share memory, each counts its own for itself";

fn share(hits: u64, calls: u64) -> String {
    if calls == 0 { "–".to_owned() } else { format!("{:.1} %", 100.0 * hits as f64 / calls as f64) }
}

/// Counts for a script, and for the report.
pub fn describe(of: &Statistics) -> Json {
    json!({
        "hits": of.hits(),
        "memory": of.memory,
        "disk": of.disk,
        "shared": of.shared,
        "lower": of.lower,
        "misses": of.misses,
        "stored": of.stored,
        "cheap": of.cheap,
        "unstored": of.unstored,
        "evicted": of.evicted,
        "corrupt": of.corrupt,
        "waits": of.waits,
        "seconds_waited": of.seconds_waited,
        "seconds_spent": of.seconds_spent,
        "seconds_saved": of.seconds_saved,
        "audited": of.audited,
        "differing": of.differing,
        "complete": of.complete,
    })
}

/// The sum of two that [`describe`] made.
pub fn add(a: &Json, b: &Json) -> Json {
    let sum = |(name, a): (&String, &Json)| {
        let sum = match (a.as_u64(), b[name].as_u64(), a.as_f64(), b[name].as_f64()) {
            (Some(a), Some(b), ..) => json!(a + b),
            (.., Some(a), Some(b)) => json!(a + b),
            _ => a.clone(),
        };
        (name.clone(), sum)
    };
    a.as_object().into_iter().flatten().map(sum).collect()
}

/// Show hits and misses as they happen, in all processes that use the directory
///
/// One line an interval, until interrupted.
#[derive(clap::Args)]
pub struct Watch {
    /// How often
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Stop after so many lines
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
}

/// Lines after which the heading is repeated on a terminal.
const PAGE: u64 = 20;

impl Watch {
    pub fn run(self, session: &mut Session) -> Outcome {
        let mut before = session.look()?.statistics()?;
        for line in 0..self.count.unwrap_or(u64::MAX) {
            std::thread::sleep(self.interval);
            // Opened anew: where the directory was removed and made again, that is another, whose counts begin anew.
            let now = session.look()?.statistics()?;
            let more = |of: fn(&Statistics) -> u64| of(&now).saturating_sub(of(&before));
            let longer = |of: fn(&Statistics) -> f64| (of(&now) - of(&before)).max(0.0);
            let (hits, misses) = (more(Statistics::hits), more(|of| of.misses));
            let (stored, evicted) = (more(|of| of.stored), more(|of| of.evicted));
            let (saved, spent) = (longer(|of| of.seconds_saved), longer(|of| of.seconds_spent));
            let complete = now.complete;
            before = now;
            if session.json {
                session.print_json(&json!({
                    "hits": hits, "misses": misses, "stored": stored, "evicted": evicted,
                    "seconds_saved": saved, "seconds_spent": spent, "complete": complete,
                }))?;
            } else {
                let out = session.out();
                if line == 0 || line % PAGE == 0 && width().is_some() {
                    if !complete {
                        writeln!(out, "{DIM}note{DIM:#} {INCOMPLETE}")?;
                    }
                    let heads = ["HITS", "MISSES", "HIT RATE", "SAVED", "SPENT", "STORED", "EVICTED"];
                    let heads: String = heads.iter().map(|head| format!("{head:>11}")).collect();
                    writeln!(out, "{HEAD}{heads}{HEAD:#}")?;
                }
                let rate = share(hits, hits + misses);
                write!(out, "{:>11}{:>11}{rate:>11}", count(hits), count(misses))?;
                write!(out, "{GOOD}{:>11}{GOOD:#}{:>11}", seconds(saved), seconds(spent))?;
                writeln!(out, "{:>11}{:>11}", count(stored), count(evicted))?;
            }
            session.finish()?;
        }
        Ok(true)
    }
}
