//! `npcache show`: one entry.

use std::io::{self, Write};

use npcache_core::{Array, Buffer, Call, Entry, Metadata, Recorded, hex};
use serde_json::{Value as Json, json};

use crate::Outcome;
use crate::ls::{describe, shape};
use crate::numbers::{Numbers, Summary};
use crate::picture::{Colours, draw};
use crate::session::Session;
use crate::terminal::{DIM, HEAD, NAME, ago, bytes, printable, seconds, width};

/// Show one entry: which call it is, how it was computed, its numbers, and a picture of them
///
/// The entry is verified. Of an array of more than two dimensions the picture shows the last two, at the first index of the
/// others; of complex numbers, magnitudes.
#[derive(clap::Args)]
pub struct Show {
    /// The entry's key, or its first digits, or its file
    key: String,
    /// No pictures
    #[arg(long)]
    no_picture: bool,
}

/// Arrays of up to this many elements are shown by their elements.
const FEW: usize = 8;

impl Show {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let entry = session.find(&cache, &self.key)?;
        let read = entry.metadata().and_then(|metadata| Ok((metadata, entry.load()?)));
        let Some((metadata, result)) = session.read(read) else { return Ok(false) };
        let numbers = |i: usize| Numbers::new(&result.arrays()[i], result.bytes(i));
        if session.json {
            let mut json = describe(&entry, Some(&metadata));
            json["arguments"] = match &metadata.arguments {
                Recorded::Call(described) => Call::parse_description(described).map_or(json!(null), |call| {
                    let positional: Vec<_> = call.positional.iter().map(|value| value.to_string()).collect();
                    let keywords: Json =
                        call.keywords.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                    json!({ "positional": positional, "keywords": keywords })
                }),
                Recorded::Bytes(bytes) => json!({ "hex": hex(bytes) }),
                Recorded::Length(length) => json!({ "length": length }),
            };
            for i in 0..result.arrays().len() {
                json["arrays"][i]["summary"] =
                    numbers(i).map_or(json!(null), |numbers| Summary::of(&numbers).json());
            }
            session.print_json(&json)?;
            return Ok(true);
        }
        let colours = Colours::of_terminal(session.has_colour());
        let out = session.out();
        print_call(out, &entry, &metadata)?;
        for i in 0..result.arrays().len() {
            print_array(out, &result, i, numbers(i), (!self.no_picture).then_some(colours))?;
        }
        Ok(true)
    }
}

fn print_call(out: &mut impl Write, entry: &Entry, metadata: &Metadata) -> io::Result<()> {
    let arguments = metadata.arguments.to_string();
    writeln!(out, "{HEAD}{NAME}{}{NAME:#}{HEAD:#}{}", printable(&metadata.name), printable(&arguments))?;
    let mut line = |name: &str, value: &str| writeln!(out, "  {DIM}{name:<11}{DIM:#}{}", printable(value));
    line("key", &entry.key().to_string())?;
    line("file", &entry.path().display().to_string())?;
    line("size", &format!("{}, {} on disk", bytes(entry.bytes()), bytes(entry.disk_bytes())))?;
    line("version", if metadata.version.is_empty() { "none" } else { &metadata.version })?;
    for (name, value) in &metadata.dependencies {
        line("depends on", &format!("{name} {value}"))?;
    }
    if !metadata.layout.is_empty() {
        line("layouts", &metadata.layout)?;
    }
    let created = humantime::format_rfc3339_seconds(metadata.created);
    let by = format!(
        "{created}, {} ago, on {} by npcache {}",
        ago(metadata.created),
        metadata.host,
        metadata.npcache
    );
    line("computed", &format!("in {}", seconds(metadata.compute_seconds)))?;
    line("stored", &by)?;
    line("used", &format!("{} ago", ago(entry.used())))?;
    for (name, value) in &metadata.notes {
        line("note", &format!("{name} {value}"))?;
    }
    if let Recorded::Call(described) = &metadata.arguments
        && let Some(call) = Call::parse_description(described)
    {
        for (i, value) in call.positional.iter().enumerate() {
            line(if i == 0 { "arguments" } else { "" }, &value.to_string())?;
        }
        for (i, (name, value)) in call.keywords.iter().enumerate() {
            let first = i == 0 && call.positional.is_empty();
            line(if first { "arguments" } else { "" }, &format!("{name}={value}"))?;
        }
    }
    Ok(())
}

fn print_array(
    out: &mut impl Write,
    result: &Buffer,
    i: usize,
    numbers: Option<Numbers<'_>>,
    picture: Option<Colours>,
) -> io::Result<()> {
    let array: &Array = &result.arrays()[i];
    let name =
        array.name().map_or_else(|| format!("array {i}"), |name| format!("array {i} `{}`", printable(name)));
    let order = if array.is_fortran_order() { ", Fortran order" } else { "" };
    let size = bytes(array.nbytes() as u64);
    writeln!(out, "\n{HEAD}{name}{HEAD:#}  {}{order}, {size}", shape(array))?;
    let Some(numbers) = numbers else { return writeln!(out, "  elements that are no numbers") };
    if numbers.len() == 0 {
        return writeln!(out, "  no elements");
    }
    let summary = Summary::of(&numbers);
    let of = if numbers.complex { " of the magnitudes" } else { "" };
    if numbers.len() <= FEW {
        let elements: Vec<_> = numbers.iter().map(|number| number.to_string()).collect();
        writeln!(out, "  {}{of}", elements.join("  "))?;
    }
    if let Some((low, high)) = summary.range {
        write!(out, "  {DIM}min{DIM:#} {low}  {DIM}max{DIM:#} {high}  ")?;
        write!(
            out,
            "{DIM}mean{DIM:#} {}  {DIM}std{DIM:#} {}",
            Short(summary.mean),
            Short(summary.deviation)
        )?;
        write!(out, "  {DIM}zeros{DIM:#} {}", summary.zeros)?;
    } else {
        write!(out, "  {DIM}nothing finite{DIM:#}")?;
    }
    writeln!(out, "  {DIM}NaN{DIM:#} {}  {DIM}inf{DIM:#} {}{of}", summary.nan, summary.infinite)?;
    if let Some(colours) = picture.filter(|_| numbers.len() > FEW) {
        let columns = width().unwrap_or(80).saturating_sub(2);
        for line in draw(&numbers, columns, colours).lines() {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

/// A number to six digits.
struct Short(f64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = self.0 == 0.0 || (1e-3..1e7).contains(&self.0.abs());
        if plain { write!(f, "{:.5}", self.0) } else { write!(f, "{:.5e}", self.0) }
    }
}
