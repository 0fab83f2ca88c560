//! `npcache import`: entries from elsewhere, and files as the results of calls.

use std::error::Error;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use npcache_core::{Begun, Identity, Output};
use serde_json::json;

use crate::Outcome;
use crate::call::{canonical, pair, with_array_of};
use crate::session::Session;
use crate::terminal::{GOOD, printable};

/// Take in entries of another cache, or a plain file as the result of a call
///
/// Entry files, copied from another cache in whatever way, are verified and stored under their own keys. That is all that is
/// checked: whether the numbers are right is known to whoever computed them.
///
/// With --function, a plain .npy or .npz file is stored as the result of that call, to be found by programs that
/// call the function with this version and these arguments; in Python, of one that has a version of its own, by
/// `@cache.memoize(version="1")`. Nothing is ever replaced.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  npcache -C results import backup/solve/*/*.npy
  npcache import grid.npy --function model.solve --of-version 1 --took 2h 64 0.2 method=rk4

Arguments of the call are written as for `npcache why`.")]
pub struct Import {
    /// Entry files; with --function the one plain file, and then the call's arguments
    #[arg(required = true, value_name = "FILE", allow_negative_numbers = true)]
    files: Vec<OsString>,
    /// Store the file as a result of this function
    #[arg(short, long, value_name = "NAME", requires = "of_version")]
    function: Option<String>,
    /// The function's version
    #[arg(long, value_name = "TEXT", requires = "function")]
    of_version: Option<String>,
    /// What else its results depend on
    #[arg(long, value_name = "NAME=VALUE", requires = "function", value_parser = pair)]
    dependency: Vec<(String, String)>,
    /// All arguments as ready bytes, in hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "function")]
    hex: Option<String>,
    /// What computing it took, by which it is kept when room is short: 0s
    #[arg(long, value_name = "TIME", requires = "function", value_parser = humantime::parse_duration)]
    took: Option<Duration>,
}

impl Import {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.change()?;
        if let (Some(name), Some(version)) = (&self.function, &self.of_version) {
            let (file, texts) = self.files.split_first().expect("clap asks for one");
            let texts: Option<Vec<String>> =
                texts.iter().cloned().map(|text| text.into_string().ok()).collect();
            let args = canonical(&texts.ok_or("the call's arguments are not UTF-8")?, self.hex.as_deref())?;
            let (path, file) = (Path::new(file), file.to_string_lossy());
            let identity = Identity::new(name, version, self.dependency.clone(), false)?;
            let function = crate::why::function_of(&cache, &identity)?;
            let mut output = match function.begin_import(&args) {
                Begun::Todo(output) => output,
                Begun::Hit(_) => {
                    return Err("this call is stored already; `npcache prune` or `clear` drops it".into());
                }
                Begun::Busy => return Err("this call is being computed just now".into()),
            };
            read_into(&mut output, path)?;
            output.set_compute_time(self.took.unwrap_or_default());
            output.note("imported", &file)?;
            output.commit()?;
            let result = output.end()?;
            result.stored().map_err(|why| format!("it could not be stored: {why}"))?;
            let path = result.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
            report(session, &file, &path, true)?;
            return Ok(true);
        }
        let mut all = true;
        for path in &self.files {
            let file = path.to_string_lossy();
            let bytes = std::fs::read(path).map_err(|e| format!("cannot read {file}: {e}"))?;
            match cache.import(&bytes) {
                Ok((entry, new)) => report(session, &file, &entry.path().to_string_lossy(), new)?,
                Err(e) => {
                    session.trouble(&format!("{file}: {e}"));
                    all = false;
                }
            }
        }
        Ok(all)
    }
}

fn report(session: &mut Session, file: &str, path: &str, new: bool) -> std::io::Result<()> {
    if session.json {
        return session.print_json(&json!({ "file": file, "path": path, "stored": new }));
    }
    let how = if new { "stored" } else { "is here already" };
    writeln!(session.out(), "{}  {GOOD}{how}{GOOD:#}  {}", printable(file), printable(path))
}

/// Adds the arrays of an `.npy` or `.npz` file.
fn read_into(output: &mut Output, file: &Path) -> Result<(), Box<dyn Error>> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", file.display());
    if file.extension().is_none_or(|extension| extension != "npz") {
        let npy = std::fs::read(file).map_err(|e| failed(&e))?;
        return Ok(with_array_of(&npy, |array| output.write_bytes(None, array))?);
    }
    let opened = std::fs::File::open(file).map_err(|e| failed(&e))?;
    let mut archive = zip::ZipArchive::new(opened).map_err(|e| failed(&e))?;
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).map_err(|e| failed(&e))?;
        let name = member.name().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
        // numpy's name for what had none.
        let unnamed = name.strip_prefix("arr_").is_some_and(|number| number.parse::<u32>().is_ok());
        let name = Some(name.as_str()).filter(|_| !unnamed);
        with_array_of(&bytes, |array| output.write_bytes(name, array))?;
    }
    Ok(())
}
