//! `npcache report`: a page about the directory, in one file that needs nothing else.
//!
//! `report.html` is the page, with its charts drawn by its own script from the JSON that is put into it here. A page has to
//! be read by a person, so it has at most [`FUNCTIONS`] functions and [`SAMPLE`] entries, however many there are.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use npcache_core::{Cache, Entry};
use serde_json::{Value as Json, json};

use crate::Outcome;
use crate::config::is_bounded;
use crate::select::is_gone;
use crate::session::Session;
use crate::stats;
use crate::terminal::{Progress, bytes};

const PAGE: &str = include_str!("report.html");

/// Functions that have a row; the rest are one.
const FUNCTIONS: usize = 60;

/// Entries in the scatter plot: the largest, and a random sample of the rest.
const LARGEST: usize = 200;
const SAMPLE: usize = 1200;

/// Entries that are named as the first to go, and points of the curve of what dropping costs.
const FIRST: usize = 25;
const POINTS: usize = 120;

/// Write a report with charts: one HTML page, for a browser on a desk or a phone, without network
///
/// Bytes by function, seconds saved, hit rate, age against size, and what would be dropped next.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  npcache -C results report -o report.html && xdg-open report.html")]
pub struct Report {
    /// The file to write, replacing what is there
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// What is added up of a function.
#[derive(Default)]
struct Function {
    entries: u64,
    bytes: u64,
    compute_seconds: f64,
    /// As [`stats::describe`] does.
    calls: Option<Json>,
}

impl Report {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let page = PAGE.replace("/*DATA*/", &embed(&gather(&cache, session)?));
        let failed = |e| format!("cannot write {}: {e}", self.output.display());
        let mut file = BufWriter::new(File::create(&self.output).map_err(failed)?);
        file.write_all(page.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
        let (path, size) = (self.output.to_string_lossy(), page.len() as u64);
        if session.json {
            session.print_json(&json!({ "path": path, "bytes": size }))?;
        } else {
            writeln!(session.out(), "{path}  {}", bytes(size))?;
        }
        Ok(true)
    }
}

/// JSON in the text of a script element, which `</script>` would end.
fn embed(data: &Json) -> String {
    data.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// The entries that rank lowest in something.
struct Lowest {
    keep: usize,
    ranked: Vec<(f64, Entry, f64)>,
}

impl Lowest {
    fn new(keep: usize) -> Lowest {
        Lowest { keep, ranked: Vec::new() }
    }

    fn offer(&mut self, rank: f64, entry: &Entry, seconds: f64) {
        // Twice as many as wanted, so that sorting them is rare.
        let last = if self.ranked.len() < self.keep { f64::INFINITY } else { self.ranked[self.keep - 1].0 };
        if rank >= last {
            return;
        }
        self.ranked.push((rank, entry.clone(), seconds));
        if self.ranked.len() >= 2 * self.keep {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.ranked.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
        self.ranked.truncate(self.keep);
    }
}

fn gather(cache: &Cache, session: &mut Session) -> Result<Json, Box<dyn std::error::Error>> {
    let now = SystemTime::now();
    let progress = Progress::of_entries("reading");
    let mut functions: HashMap<String, Function> = HashMap::new();
    let (mut largest, mut random, mut first) =
        (Lowest::new(LARGEST), Lowest::new(SAMPLE), Lowest::new(FIRST));
    // Worth, bytes and seconds of every entry: 24 bytes each.
    let mut weighed: Vec<(f64, u64, f64)> = Vec::new();
    let (mut disk_bytes, mut unreadable) = (0, 0);
    for entry in cache.entries(None, "") {
        progress.advance(1);
        let (metadata, entry) = match entry.and_then(|entry| Ok((entry.metadata()?, entry))) {
            Ok(read) => read,
            Err(e) if is_gone(&e) => continue,
            Err(e) => {
                unreadable += 1;
                progress.pause(|| session.trouble(&e));
                continue;
            }
        };
        let seconds = metadata.compute_seconds;
        let function = functions.entry(entry.function()).or_default();
        function.entries += 1;
        function.bytes += entry.bytes();
        function.compute_seconds += seconds;
        disk_bytes += entry.disk_bytes();
        let worth = entry.worth().unwrap_or(f64::NEG_INFINITY);
        weighed.push((worth, entry.bytes(), seconds));
        first.offer(worth, &entry, seconds);
        largest.offer(-(entry.bytes() as f64), &entry, seconds);
        // Keys are hashes, so those that begin with the smallest numbers are a random sample.
        let number = u64::from_be_bytes(entry.key().as_bytes()[..8].try_into().expect("eight of 32"));
        random.offer(number as f64, &entry, seconds);
    }
    progress.end();
    for (name, calls) in cache.statistics_by_function()? {
        functions.entry(name).or_default().calls = Some(stats::describe(&calls));
    }

    let entries = weighed.len();
    let (all_bytes, all_seconds) =
        weighed.iter().fold((0, 0.0), |(bytes, seconds), entry| (bytes + entry.1, seconds + entry.2));
    let function_count = functions.len();
    let mut functions: Vec<(String, Function)> = functions.into_iter().collect();
    functions.sort_by(|(a, x), (b, y)| y.bytes.cmp(&x.bytes).then(a.cmp(b)));
    let number: HashMap<String, usize> =
        functions.iter().enumerate().map(|(i, (name, _))| (name.clone(), i.min(FUNCTIONS))).collect();
    if functions.len() > FUNCTIONS + 1 {
        let rest = functions.split_off(FUNCTIONS);
        let name = format!("{} others", rest.len());
        functions.push((name, Function::sum(rest.into_iter().map(|(_, function)| function))));
    }

    let mut shown: HashMap<String, Json> = HashMap::new();
    for lowest in [&mut largest, &mut random, &mut first] {
        lowest.settle();
        for (_, entry, seconds) in &lowest.ranked {
            let call = || {
                entry.metadata().map_or_else(|_| entry.function(), |m| format!("{}{}", m.name, m.arguments))
            };
            shown
                .entry(entry.key().to_string())
                .or_insert_with(|| point(entry, *seconds, now, &number, &call()));
        }
    }
    let of = |lowest: &Lowest| -> Vec<String> {
        lowest.ranked.iter().map(|(_, entry, _)| entry.key().to_string()).collect()
    };
    let mut sampled = [of(&largest), of(&random)].concat();
    sampled.sort();
    sampled.dedup();

    weighed.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    let bounds = cache.config();
    let bound = |name: &str| bounds.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    Ok(json!({
        "npcache": env!("CARGO_PKG_VERSION"),
        "directory": cache.path().map(Path::to_string_lossy),
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "generated": now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        "entries": entries,
        "bytes": all_bytes,
        "disk_bytes": disk_bytes,
        "max_bytes": bound("max_bytes").and_then(|value| value.parse::<u64>().ok()),
        "compute_seconds": all_seconds,
        "unreadable": unreadable,
        "function_count": function_count,
        "functions": functions.iter().map(|(name, function)| function.describe(name)).collect::<Vec<_>>(),
        "sample": sampled.iter().map(|key| shown[key].clone()).collect::<Vec<_>>(),
        "drop": {
            "policy": bound("policy"),
            "bounded": is_bounded(cache),
            "first": of(&first).iter().map(|key| shown[key].clone()).collect::<Vec<_>>(),
            "curve": curve(&weighed),
        },
    }))
}

/// An entry for a chart: the number of its function, bytes, age, seconds since its last use, seconds of computing, its call.
fn point(entry: &Entry, seconds: f64, now: SystemTime, number: &HashMap<String, usize>, call: &str) -> Json {
    let since = |time| now.duration_since(time).unwrap_or_default().as_secs_f64();
    let function = number.get(&entry.function()).copied().unwrap_or(FUNCTIONS);
    // A call may have a page of arguments.
    let call = crate::terminal::cut(call, 120);
    json!([function, entry.bytes(), since(entry.created()), since(entry.used()), seconds, call])
}

/// What dropping so much of what is least worth keeping costs: bytes and seconds, added up.
fn curve(weighed: &[(f64, u64, f64)]) -> Vec<(u64, f64)> {
    let step = weighed.len().div_ceil(POINTS).max(1);
    let mut sum = (0, 0.0);
    let mut points = vec![sum];
    for part in weighed.chunks(step) {
        sum = part.iter().fold(sum, |(bytes, seconds), entry| (bytes + entry.1, seconds + entry.2));
        points.push(sum);
    }
    points
}

impl Function {
    fn sum(functions: impl Iterator<Item = Function>) -> Function {
        functions.fold(Function::default(), |mut sum, function| {
            sum.entries += function.entries;
            sum.bytes += function.bytes;
            sum.compute_seconds += function.compute_seconds;
            sum.calls = match (sum.calls, function.calls) {
                (Some(sum), Some(more)) => Some(stats::add(&sum, &more)),
                (sum, more) => sum.or(more),
            };
            sum
        })
    }

    fn describe(&self, name: &str) -> Json {
        let mut json = self.calls.clone().unwrap_or_else(|| json!({}));
        json["name"] = json!(name);
        json["entries"] = json!(self.entries);
        json["bytes"] = json!(self.bytes);
        json["compute_seconds"] = json!(self.compute_seconds);
        json
    }
}
