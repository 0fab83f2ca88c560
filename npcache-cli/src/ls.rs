//! `npcache ls`: one line an entry.
//!
//! Unsorted, each line is printed as the directory is read, however many there are. Sorted, all entries are kept until the
//! last one is known, at some 110 bytes each, and opened a second time to be printed.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use npcache_core::{Array, Entry, Metadata};
use serde_json::{Value as Json, json};

use crate::Outcome;
use crate::select::{Selection, is_gone};
use crate::session::Session;
use crate::terminal::{self, DIM, HEAD, NAME, ago, cut, printable};

/// List entries: key, size, age, last use, what computing took, and which call it is
///
/// By function and key, unless --sort is given. Each entry is opened to read which call it is; --quick only reads
/// directories, and is several times faster.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  npcache ls -f solve                     one function's
  npcache ls --sort size -n 10            the ten largest
  npcache ls --sort value -r -n 10        what is least worth its space
  npcache ls --older-than 30d --json      for a script: one object a line")]
pub struct Ls {
    /// In this order; all entries are read before the first is printed
    #[arg(short, long, value_enum)]
    sort: Option<Order>,
    /// The other way round
    #[arg(short, long, requires = "sort")]
    reverse: bool,
    /// At most so many
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Do not open entries
    #[arg(short, long)]
    quick: bool,
    /// Whole keys and calls
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Order {
    /// Largest first
    Size,
    /// Stored last first
    #[value(alias = "age")]
    Created,
    /// Used last first
    Used,
    /// What took longest to compute first
    Cost,
    /// What took longest to compute for its size first
    Value,
}

impl Order {
    /// What comes first has the highest.
    fn rank(self, entry: &Entry) -> npcache_core::Result<f64> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(match self {
            Order::Size => entry.bytes() as f64,
            Order::Created => seconds(entry.created()),
            Order::Used => seconds(entry.used()),
            Order::Cost => entry.metadata()?.compute_seconds,
            Order::Value => entry.metadata()?.compute_seconds / entry.bytes() as f64,
        })
    }
}

impl Ls {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut lines = Lines { width: terminal::width(), long: self.long, quick: self.quick, any: false };
        let Some(order) = self.sort else {
            let mut printed = 0;
            for entry in self.selection.of(&cache) {
                if printed == limit {
                    break;
                }
                match entry {
                    Ok(entry) => printed += usize::from(lines.print(session, &entry)?),
                    Err(e) => session.trouble(&e),
                }
            }
            return Ok(true);
        };
        let progress = terminal::Progress::of_entries("reading");
        let mut ranked = Vec::new();
        for entry in self.selection.of(&cache) {
            progress.advance(1);
            match entry.and_then(|entry| Ok((order.rank(&entry)?, entry))) {
                Ok(ranked_entry) => ranked.push(ranked_entry),
                Err(e) if is_gone(&e) => {}
                Err(e) => progress.pause(|| session.trouble(&e)),
            }
        }
        progress.end();
        // In place, and of equal rank by key: a stable sort would take half as much memory again.
        ranked.sort_unstable_by(|(a, x), (b, y)| {
            let order = if self.reverse { a.total_cmp(b) } else { b.total_cmp(a) };
            order.then_with(|| x.key().as_bytes().cmp(y.key().as_bytes()))
        });
        let mut printed = 0;
        for (_, entry) in &ranked {
            if printed == limit {
                break;
            }
            printed += usize::from(lines.print(session, entry)?);
        }
        Ok(true)
    }
}

struct Lines {
    width: Option<usize>,
    long: bool,
    quick: bool,
    /// Whether the heading is printed.
    any: bool,
}

impl Lines {
    /// `false` where there was nothing to print any more.
    fn print(&mut self, session: &mut Session, entry: &Entry) -> io::Result<bool> {
        let metadata = match (!self.quick).then(|| entry.metadata()).transpose() {
            Ok(metadata) => metadata,
            Err(e) => {
                if !is_gone(&e) {
                    session.trouble(&e);
                }
                return Ok(false);
            }
        };
        if session.json {
            session.print_json(&describe(entry, metadata.as_ref()))?;
        } else {
            self.print_line(session.out(), entry, metadata.as_ref())?;
        }
        // A terminal sees the first line at once.
        if !self.any || self.width.is_some() {
            session.finish()?;
        }
        self.any = true;
        Ok(true)
    }

    fn print_line(&self, out: &mut impl Write, entry: &Entry, metadata: Option<&Metadata>) -> io::Result<()> {
        let digits = if self.long { 64 } else { 12 };
        if !self.any {
            let cost = if self.quick { "" } else { "COST       " };
            let what = if self.quick { "FUNCTION" } else { "CALL" };
            writeln!(
                out,
                "{HEAD}{:digits$}  {:>8}  {:>8}  {:>8}  {cost}{what}{HEAD:#}",
                "KEY", "SIZE", "AGE", "USED"
            )?;
        }
        let key = entry.key().to_string();
        let (size, age, used) = (terminal::bytes(entry.bytes()), ago(entry.created()), ago(entry.used()));
        write!(out, "{}  {size:>8}  {DIM}{age:>8}  {used:>8}{DIM:#}  ", &key[..digits])?;
        let Some(metadata) = metadata else {
            let function = entry.function();
            return writeln!(out, "{NAME}{}{NAME:#}", printable(&function));
        };
        write!(out, "{:<9}  ", terminal::seconds(metadata.compute_seconds))?;
        let room = match self.width {
            Some(width) if !self.long => width.saturating_sub(digits + 43).max(20),
            _ => usize::MAX,
        };
        let name = printable(&metadata.name);
        let arrays = metadata.arrays.iter().map(shape).collect::<Vec<_>>().join(", ");
        let whole = format!("{name}{}  {arrays}", metadata.arguments);
        let shown = cut(&whole, room);
        let name_end = shown.char_indices().nth(name.chars().count()).map_or(shown.len(), |(at, _)| at);
        let (name, rest) = shown.split_at(name_end);
        writeln!(out, "{NAME}{name}{NAME:#}{rest}")
    }
}

/// `float64[3, 4]`
pub fn shape(array: &Array) -> String {
    let dtype = match array.dtype() {
        Some(dtype) => format!("{dtype:?}").to_ascii_lowercase(),
        None => array.descr().as_str().to_owned(),
    };
    format!("{}{:?}", printable(&dtype), array.shape())
}

/// An entry for a script.
pub fn describe(entry: &Entry, metadata: Option<&Metadata>) -> Json {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut json = json!({
        "key": entry.key().to_string(),
        "function": entry.function(),
        "path": entry.path().to_string_lossy(),
        "bytes": entry.bytes(),
        "disk_bytes": entry.disk_bytes(),
        "created": seconds(entry.created()),
        "used": seconds(entry.used()),
    });
    let Some(metadata) = metadata else { return json };
    let arrays = metadata.arrays.iter().map(|array| {
        json!({
            "name": array.name(),
            "dtype": array.descr().as_str(),
            "shape": array.shape(),
            "order": if array.is_fortran_order() { "F" } else { "C" },
            "bytes": array.nbytes(),
        })
    });
    let object = json.as_object_mut().expect("made above");
    // A long name is cut in the directory's.
    object.insert("function".into(), json!(metadata.name));
    object.insert("version".into(), json!(metadata.version));
    object.insert("dependencies".into(), json!(metadata.dependencies));
    object.insert("call".into(), json!(format!("{}{}", metadata.name, metadata.arguments)));
    object.insert("compute_seconds".into(), json!(metadata.compute_seconds));
    object.insert("host".into(), json!(metadata.host));
    object.insert("npcache".into(), json!(metadata.npcache));
    object.insert("notes".into(), metadata.notes.iter().cloned().collect());
    object.insert("arrays".into(), arrays.collect());
    json
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use npcache_core::{Cache, DType};

    use super::*;

    #[test]
    fn a_line_is_as_wide_as_the_terminal_at_most_however_long_a_name_is() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let lines = Lines { width: Some(100), long: false, quick: false, any: true };
        for length in (1..60).chain([300]) {
            let name = "é".repeat(length);
            let compute = |out: &mut npcache_core::Output| {
                out.alloc_bytes(None, DType::UInt8.into(), &[1], false).map(drop)
            };
            cache.call(&name, "", b"", compute).unwrap();
            let entry = cache.entries(Some(&name), "").next().unwrap().unwrap();
            let mut out = Vec::new();
            lines.print_line(&mut out, &entry, Some(&entry.metadata().unwrap())).unwrap();
            let line = strip_str(std::str::from_utf8(&out).unwrap()).to_string();
            let call = format!("{name}()  uint8[1]");
            match call.chars().count() {
                ..=45 => assert!(line.ends_with(&format!("  {call}\n")), "{line}"),
                _ => assert_eq!((line.chars().count(), line.ends_with("…\n")), (101, true), "{line}"),
            }
        }
    }
}
