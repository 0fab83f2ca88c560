//! `npcache config`: the bounds that a directory keeps for all programs that use it.

use std::io::Write;

use npcache_core::Cache;
use serde_json::{Value as Json, json};

use crate::Outcome;
use crate::session::Session;
use crate::terminal::{NAME, printable};

/// Show or set what the directory keeps: how much, how many, how old, by which policy
///
/// Programs that use the directory, in any language, find what is set here, also those that run already. Without a name, all
/// is shown; without a value, one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  npcache config                          what is set
  npcache config max_bytes 50G            keep at most so much
  npcache config max_age 30d              drop what is older
  npcache config max_bytes none           no bound")]
pub struct Config {
    /// Which: max_bytes, max_entries, max_age, min_free_bytes, policy
    name: Option<String>,
    /// Its value from now on; `none` for no bound
    #[arg(requires = "name")]
    value: Option<String>,
}

impl Config {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = if let (Some(name), Some(value)) = (&self.name, &self.value) {
            let cache = session.change()?;
            cache.configure(name, value)?;
            cache
        } else {
            session.look()?
        };
        let all = cache.config();
        let known = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let shown: Vec<_> =
            all.iter().filter(|(name, _)| self.name.as_deref().is_none_or(|one| one == *name)).collect();
        if shown.is_empty() {
            let name = self.name.unwrap_or_default();
            let known = known();
            return Err(match name.split_once('=') {
                Some((name, value)) if all.iter().any(|(one, _)| *one == name) => {
                    format!("a name and its value are two words: npcache config {name} {}", printable(value))
                }
                _ => format!("a directory keeps no `{}`; it keeps {known}", printable(&name)),
            }
            .into());
        }
        if session.json {
            let values: Json = shown.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
            session.print_json(&values)?;
        } else {
            for (name, value) in shown {
                writeln!(session.out(), "{NAME}{name}{NAME:#} {value}")?;
            }
        }
        Ok(true)
    }
}

/// Whether the directory keeps any bound.
pub fn is_bounded(cache: &Cache) -> bool {
    cache.config().iter().any(|(name, value)| *name != "policy" && !matches!(value.as_str(), "none" | "0"))
}
