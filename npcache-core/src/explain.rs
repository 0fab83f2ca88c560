//! Why a call is not stored: which stored calls of its function come nearest, and what exactly differs.

use std::ffi::{CStr, CString, OsStr};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value as Json;

use crate::args::Canonical;
use crate::cache::{Cache, Function};
use crate::cbor::{Call, Value};
use crate::digest::from_hex;
use crate::entry;
use crate::error::{Error, Result};
use crate::holder::host_name;
use crate::key::{Identity, Key};
use crate::list::read_or_map;
use crate::options::Verify;
use crate::output::describe_arguments;
use crate::store::{Directory, entry_path, function_directory, function_name, now};

/// At most so many entries are looked at: reading the footers of these takes about a quarter of a second.
const MAX_ENTRIES: usize = 10_000;

/// How many of them, and of the functions there are, are shown.
const SHOWN: usize = 3;

impl Cache {
    /// Says in words whether this call is stored in the cache, or why what is stored is of no use to it: over age, damaged. If
    /// there is nothing, which stored calls of the function come nearest and what differs: an argument, the version, a
    /// dependency. What was recorded with them without being part of the key (host, notes) is shown too. Reads the call's own
    /// entry in whole, and looks through up to 10,000 of the function, here and in the cache below.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use npcache_core::{Args, Cache};
    /// let cache = Cache::open(directory.path())?;
    /// let solve = cache.function("solve", "1")?;
    /// let args = |nu: f64| {
    ///     let mut args = Args::new();
    ///     args.add_int(64)?.key("nu")?.add_float(nu)?;
    ///     args.finish()
    /// };
    /// solve.call(&args(0.1)?, |out| out.write(&ndarray::Array1::<f64>::zeros(64)))?;
    /// let text = cache.explain(&solve, &args(0.2)?)?;
    /// assert!(text.contains("argument `nu`: stored 0.1, asked 0.2"), "{text}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn explain(&self, function: &Function, args: &Canonical) -> Result<String> {
        let identity = function.identity();
        let asked = Asked::new(identity, args);
        let key = Key::new(identity, args);
        let Some(directory) = self.directory() else {
            return Ok(format!("{} is not stored: the cache has no directory\n", asked.text));
        };
        let name = function_directory(identity.name());
        let path = entry_path(&name, &key);
        match self.find(&key, &path) {
            Some(Ok((stored, metadata))) => {
                let mut text = format!("{} {stored}\n", asked.text);
                describe_run(&mut text, &metadata);
                return Ok(text);
            }
            Some(Err(why)) => return Ok(format!("{} {why}\n", asked.text)),
            None => {}
        }

        let mut text = format!("{} is not stored (key {key})\n", asked.text);
        let mut stored = Vec::new();
        let mut complete = true;
        for (place, directory) in self.places() {
            complete &= directory
                .entries_of(&name, MAX_ENTRIES, |key, path| {
                    // One of another function was put here by hand: no call finds it.
                    if let Some(Ok((metadata, _))) = read(directory, &key, &path, Verify::Never)
                        && metadata["name"] == identity.name()
                    {
                        stored.push((asked.differences(&metadata), key, metadata, place));
                    }
                })
                .map_err(|e| Error::io("list the entries in", directory.path(), e))?;
        }
        if stored.is_empty() {
            let _ = write!(text, "no call of `{}` is stored here", identity.name());
            describe_others(&mut text, directory, identity.name());
            return Ok(text);
        }
        stored.sort_by_key(|(differences, key, metadata, _)| {
            (differences.len(), -created(metadata) as i64, *key.as_bytes())
        });
        // What was copied from below.
        stored.dedup_by_key(|(_, key, ..)| *key.as_bytes());
        let of = if complete { "" } else { "more than " };
        let _ = writeln!(text, "nearest of {of}{} stored calls of `{}`:", stored.len(), identity.name());
        for (differences, key, metadata, place) in stored.iter().take(SHOWN) {
            let _ = writeln!(text, "- {}…{place}", &key.to_string()[..12]);
            if differences.is_empty() {
                let _ = writeln!(
                    text,
                    "  differs in what its record does not keep: long arguments, or their layout"
                );
            }
            for difference in differences {
                let _ = writeln!(text, "  {difference}");
            }
            describe_run(&mut text, metadata);
        }
        Ok(text)
    }

    /// Whether a call would find its result on disk, as [`Cache::explain`] says it: here or in the cache below, whole and not
    /// over age. Unlike with [`Function::is_cached`], looking is no use of it, and all of it is read.
    pub fn is_stored(&self, function: &Function, args: &Canonical) -> bool {
        let (identity, key) = (function.identity(), Key::new(function.identity(), args));
        matches!(self.find(&key, &entry_path(function_directory(identity.name()), &key)), Some(Ok(_)))
    }

    /// Where a call looks for its result, as a sentence goes on.
    fn places(&self) -> impl Iterator<Item = (&'static str, &Directory)> {
        let places = [("", self.directory()), (" in the cache below", self.directory_below())];
        places.into_iter().filter_map(|(place, directory)| Some((place, directory?)))
    }

    /// The entry that a call finds: that it is stored and where, in words, and what is recorded with it. An error is why what
    /// stands there is of no use to the call; where nothing does, there is `None`.
    fn find(&self, key: &Key, path: &CStr) -> Option<Result<(String, Json), String>> {
        let max_age = self.bounds().max_age();
        let mut of_no_use = None;
        for (place, directory) in self.places() {
            let Some(found) = read(directory, key, path, Verify::Always) else { continue };
            let stored = match place {
                "" => format!("is stored (key {key})"),
                _ => {
                    let path = directory.path().join(OsStr::from_bytes(path.to_bytes()));
                    format!("is stored{place}: {}", path.display())
                }
            };
            let why = match found.map(|(metadata, computed)| (metadata, now().saturating_sub(computed))) {
                Ok((metadata, age)) if age <= max_age => return Some(Ok((stored, metadata))),
                Ok((_, age)) => {
                    let (age, max_age) = (duration(age as f64 / 1e9), duration(max_age as f64 / 1e9));
                    format!("{stored}, but over age: computed {age} ago, max_age is {max_age}")
                }
                Err(why) => format!("is not stored: in its place{place} stands a file, but {why}"),
            };
            of_no_use.get_or_insert(Err(why));
        }
        of_no_use
    }
}

/// A call as a person writes it: `solve(64, nu=0.2)`.
pub(crate) fn describe_call(identity: &Identity, args: &Canonical) -> String {
    let call = args.bytes().and_then(Call::parse).map(|call| call.to_string());
    let call = call.unwrap_or_else(|| format!("({} bytes)", args.content().length()));
    format!("{}{call}", identity.name())
}

/// Ends a sentence that nothing is stored of a function: which others are there, those first whose names have this one in
/// them, as where it was given without its module.
fn describe_others(text: &mut String, directory: &Directory, name: &str) {
    let is_function = |name: &CString| directory.shards(name).is_ok_and(|shards| !shards.is_empty());
    let directories = directory.functions().unwrap_or_default().into_iter().filter(is_function);
    let mut others: Vec<String> = directories.map(|directory| function_name(directory.to_bytes())).collect();
    others.retain(|other| other != name);
    others.sort_by_key(|other| !other.contains(name));
    for (i, other) in others.iter().take(SHOWN).enumerate() {
        let _ = write!(text, "{} `{other}`", if i == 0 { ", but of" } else { "," });
    }
    if others.len() > SHOWN {
        let _ = write!(text, " and {} more", others.len() - SHOWN);
    }
    text.push('\n');
}

/// The call that is asked for, as records describe calls.
struct Asked<'a> {
    identity: &'a Identity,
    layouts: &'a str,
    arguments: Json,
    text: String,
}

impl<'a> Asked<'a> {
    fn new(identity: &'a Identity, args: &'a Canonical) -> Asked<'a> {
        let text = describe_call(identity, args);
        Asked { identity, layouts: args.layouts(), arguments: describe_arguments(args), text }
    }

    /// What of a stored call differs from this one, each in a line.
    fn differences(&self, stored: &Json) -> Vec<String> {
        let mut differences = Vec::new();
        let version = stored["version"].as_str().unwrap_or_default();
        if version != self.identity.version() {
            differences.push(format!("version: stored {version:?}, asked {:?}", self.identity.version()));
        }
        let none = Vec::new();
        let dependencies: Vec<(&str, &str)> = stored["dependencies"]
            .as_array()
            .unwrap_or(&none)
            .iter()
            .filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
            .collect();
        let asked: Vec<(&str, &str)> = self
            .identity
            .dependencies()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        for (name, value) in dependencies.iter().filter(|pair| !asked.contains(pair)) {
            differences.push(match asked.iter().find(|(other, _)| other == name) {
                Some((_, now)) => format!("dependency `{name}`: stored {value:?}, asked {now:?}"),
                None => format!("dependency `{name}`: stored {value:?}, asked without it"),
            });
        }
        for (name, value) in &asked {
            if !dependencies.iter().any(|(other, _)| other == name) {
                differences.push(format!("dependency `{name}`: stored without it, asked {value:?}"));
            }
        }
        let layouts = stored["layout"].as_str().unwrap_or_default();
        let wanted = if self.identity.has_strict_layout() { self.layouts } else { "" };
        if layouts != wanted {
            differences.push(format!("memory layout of the arrays: stored {layouts:?}, asked {wanted:?}"));
        }
        compare_arguments(&mut differences, &stored["arguments"], &self.arguments);
        differences
    }
}

fn compare_arguments(differences: &mut Vec<String>, stored: &Json, asked: &Json) {
    let bytes = |json: &Json, kind: &str| json[kind].as_str().and_then(from_hex);
    if let (Some(stored), Some(asked)) = (bytes(stored, "cbor"), bytes(asked, "cbor")) {
        if let (Some(stored), Some(asked)) =
            (Call::parse_description(&stored), Call::parse_description(&asked))
        {
            compare_calls(differences, &stored, &asked);
        }
        return;
    }
    if let (Some(stored), Some(asked)) = (bytes(stored, "bytes"), bytes(asked, "bytes")) {
        if stored.len() != asked.len() {
            differences.push(format!(
                "argument bytes: stored {} of them, asked {}",
                stored.len(),
                asked.len()
            ));
        } else if let Some(at) = (0..stored.len()).find(|i| stored[*i] != asked[*i]) {
            let count = (0..stored.len()).filter(|i| stored[*i] != asked[*i]).count();
            differences.push(format!(
                "argument bytes: {count} differ, the first at offset {at}: stored {:02x}, asked {:02x}",
                stored[at], asked[at]
            ));
        }
        return;
    }
    let kind = |json: &Json| {
        let length = json["length"].as_u64();
        match length {
            Some(length) => format!("{length} bytes, too long to be kept"),
            None if json["cbor"].is_string() => "a list of arguments".to_owned(),
            None => "ready bytes".to_owned(),
        }
    };
    if stored != asked {
        differences.push(format!("arguments: stored {}, asked {}", kind(stored), kind(asked)));
    }
}

fn compare_calls(differences: &mut Vec<String>, stored: &Call<'_>, asked: &Call<'_>) {
    compare_lists(differences, "", &stored.positional, &asked.positional);
    compare_maps(differences, &stored.keywords, &asked.keywords, |name| format!("`{name}`"));
}

/// Positional arguments, or with a `path` the items of a list in one.
fn compare_lists(differences: &mut Vec<String>, path: &str, stored: &[Value<'_>], asked: &[Value<'_>]) {
    let name = |i: usize| if path.is_empty() { (i + 1).to_string() } else { format!("{path}[{i}]") };
    for i in 0..stored.len().max(asked.len()) {
        compare_values(differences, &name(i), stored.get(i), asked.get(i));
    }
}

fn compare_maps(
    differences: &mut Vec<String>,
    stored: &[(&str, Value<'_>)],
    asked: &[(&str, Value<'_>)],
    path: impl Fn(&str) -> String,
) {
    let find = |map: &[(&str, Value<'_>)], name: &str| map.iter().position(|(other, _)| *other == name);
    for (name, value) in stored {
        compare_values(differences, &path(name), Some(value), find(asked, name).map(|i| &asked[i].1));
    }
    for (name, value) in asked.iter().filter(|(name, _)| find(stored, name).is_none()) {
        compare_values(differences, &path(name), None, Some(value));
    }
}

fn compare_values(
    differences: &mut Vec<String>,
    path: &str,
    stored: Option<&Value<'_>>,
    asked: Option<&Value<'_>>,
) {
    let say = |what: String| format!("argument {path}: {what}");
    match (stored, asked) {
        (Some(stored), Some(asked)) if stored.same(asked) => {}
        (Some(Value::List(stored)), Some(Value::List(asked))) => {
            compare_lists(differences, path, stored, asked)
        }
        (Some(Value::Map(stored)), Some(Value::Map(asked))) => {
            compare_maps(differences, stored, asked, |name| format!("{path}[{name:?}]"));
        }
        (
            Some(Value::Array { shape, descr, data }),
            Some(Value::Array { shape: asked_shape, descr: asked_descr, data: asked_data }),
        ) => {
            if descr != asked_descr {
                let (stored, asked) = (descr.as_str(), asked_descr.as_str());
                differences.push(say(format!("an array of dtype {stored} is stored, asked {asked}")));
            }
            if shape != asked_shape {
                differences
                    .push(say(format!("an array of shape {shape:?} is stored, asked {asked_shape:?}")));
            } else if descr == asked_descr && data != asked_data {
                differences.push(say(format!("the contents of the array of shape {shape:?} differ")));
            }
        }
        (Some(stored), Some(asked)) => differences.push(say(format!("stored {stored}, asked {asked}"))),
        (Some(stored), None) => differences.push(say(format!("stored {stored}, asked without it"))),
        (None, Some(asked)) => differences.push(say(format!("stored without it, asked {asked}"))),
        (None, None) => {}
    }
}

/// What is recorded of the run and is not part of the key.
fn describe_run(text: &mut String, stored: &Json) {
    let now = now() as f64 / 1e9;
    let _ = write!(text, "  not part of the key: stored {} ago", duration(now - created(stored)));
    let _ = write!(text, ", took {}", duration(stored["compute_seconds"].as_f64().unwrap_or(0.0)));
    let mut say = |name: &str, stored: Option<&str>, now: &str| {
        if let Some(stored) = stored {
            let drift = if stored == now { String::new() } else { format!(" (now {now})") };
            let _ = write!(text, ", {name} {stored}{drift}");
        }
    };
    say("host", stored["host"].as_str(), host_name());
    say("npcache", stored["npcache"].as_str(), env!("CARGO_PKG_VERSION"));
    for (name, value) in stored["notes"].as_object().into_iter().flatten() {
        let _ = write!(text, ", {name} {}", value.as_str().unwrap_or_default());
    }
    text.push('\n');
}

fn created(stored: &Json) -> f64 {
    stored["created"].as_f64().unwrap_or(0.0)
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s.max(0.0) * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// What an entry says of itself, and when it was computed, in nanoseconds since 1970; `None` where there is none, an error where
/// it is of no use. Of its data, only if they are to be verified.
fn read(
    directory: &Directory,
    key: &Key,
    path: &CStr,
    verify: Verify,
) -> Option<Result<(Json, i64), &'static str>> {
    let file = directory.open_unnoticed(path).ok()?;
    let read = || {
        let unreadable = |_| "it cannot be read";
        if !directory.trusts_file(&file).map_err(unreadable)? {
            return Err(entry::UNTRUSTED);
        }
        let memory = read_or_map(&file).map_err(unreadable)?;
        let parsed = entry::parse(memory.as_slice(), key)?;
        if verify == Verify::Always && !parsed.data_is_whole(memory.as_slice()) {
            return Err(entry::DAMAGED);
        }
        let metadata = serde_json::from_slice(entry::metadata(memory.as_slice())?);
        Ok((metadata.map_err(|_| "its metadata are no JSON")?, parsed.origin.mtime))
    };
    Some(read())
}
