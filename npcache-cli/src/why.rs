//! `npcache why`: is a call stored, and if not, why not?

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::Write;
use std::time::SystemTime;

use npcache_core::{Cache, Function, Identity, Key};
use serde_json::json;

use crate::Outcome;
use crate::call::{CallArguments, HOW};
use crate::select::is_gone;
use crate::session::Session;
use crate::terminal::{Progress, count, printable};

/// So many entries of the function, the newest, are asked for the versions that there are.
const MAX_ENTRIES: usize = 10_000;

/// Explain a miss: say whether a call is stored, and what the nearest stored calls differ in
///
/// Without --of-version, the versions and dependencies of the newest 10,000 that are stored are tried, the newest first. Only
/// this directory is looked at: what programs find by the option `lower` is that directory's, to be named by -C.
///
/// Exit status 1 if the call is not stored, or what is stored is over age or damaged.
#[derive(clap::Args)]
#[command(after_help = format!("{HOW}\n\nExamples:\n  npcache why model.solve 64 0.2 method=rk4\n  npcache why spectrum npy:signal.npy 1024\n  npcache why zeta --hex 8096980000000000"))]
pub struct Why {
    #[command(flatten)]
    call: CallArguments,
}

impl Why {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let args = self.call.canonical()?;
        let name = &self.call.name;
        let (identities, all) = match &self.call.of_version {
            Some(version) => {
                // The layouts of arrays count only where the function says so; both are tried.
                let identity = |strict| Identity::new(name, version, self.call.dependency.clone(), strict);
                (vec![identity(false)?, identity(true)?], true)
            }
            None => known_identities(&cache, name, session),
        };
        // What is of no use to the call tells more than that there is nothing under another version.
        let stands = |identity: &&Identity| {
            let key = Key::new(identity, &args).to_string();
            cache.entries(Some(name), &key).next().is_some()
        };
        let is_stored = |identity: &&Identity| {
            function_of(&cache, identity).is_ok_and(|function| cache.is_stored(&function, &args))
        };
        let found = identities.iter().find(is_stored);
        let identity = found.or_else(|| identities.iter().find(stands)).or(identities.first());
        let function = match identity {
            Some(identity) => function_of(&cache, identity)?,
            None => cache.function(name, "")?,
        };
        let mut text = cache.explain(&function, &args)?;
        if found.is_none() && !all {
            let looked_at = count(MAX_ENTRIES as u64);
            text += &format!(
                "only the versions of the newest {looked_at} were tried; --of-version names another\n"
            );
        }
        if session.json {
            let key = Key::new(function.identity(), &args).to_string();
            let version = identity.map(|identity| identity.version());
            session.print_json(&json!({
                "stored": found.is_some(), "key": key, "function": name, "version": version, "explanation": text,
            }))?;
        } else {
            for line in text.lines() {
                writeln!(session.out(), "{}", printable(line))?;
            }
        }
        Ok(found.is_some())
    }
}

/// Versions and dependencies of the function's stored calls, those of the newest first; and whether these are all.
fn known_identities(cache: &Cache, name: &str, session: &mut Session) -> (Vec<Identity>, bool) {
    let progress = Progress::of_entries("listing");
    let mut entries = Vec::new();
    for entry in cache.entries(Some(name), "") {
        progress.advance(1);
        match entry {
            Ok(entry) => entries.push(entry),
            Err(e) => progress.pause(|| session.trouble(&e)),
        }
    }
    progress.end();
    let all = entries.len() <= MAX_ENTRIES;
    if !all {
        entries.select_nth_unstable_by_key(MAX_ENTRIES, |entry| Reverse(entry.created()));
        entries.truncate(MAX_ENTRIES);
    }
    let mut newest: HashMap<Identity, SystemTime> = HashMap::new();
    for entry in entries {
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(e) => {
                if !is_gone(&e) {
                    session.trouble(&e);
                }
                continue;
            }
        };
        // One of another function was put here by hand: no call finds it.
        if metadata.name == name
            && let Ok(identity) = metadata.identity()
        {
            let last = newest.entry(identity).or_insert(metadata.created);
            *last = metadata.created.max(*last);
        }
    }
    let mut identities: Vec<_> = newest.into_iter().collect();
    identities.sort_by_key(|(_, last)| Reverse(*last));
    (identities.into_iter().map(|(identity, _)| identity).collect(), all)
}

pub fn function_of(cache: &Cache, identity: &Identity) -> npcache_core::Result<Function> {
    let mut function = cache.function(identity.name(), identity.version())?;
    for (name, value) in identity.dependencies() {
        function.add_dependency(name, value)?;
    }
    if identity.has_strict_layout() {
        function.set("layout", "strict")?;
    }
    Ok(function)
}
