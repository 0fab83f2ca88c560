//! `npcache export`: a result as a plain file, with nothing of npcache in it.

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Seek, Write};
use std::path::{Path, PathBuf};

use npcache_core::Buffer;
use serde_json::json;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::Outcome;
use crate::session::Session;
use crate::terminal::{bytes, printable};

/// Write a result as a plain .npy file, or all of its arrays as .npz
///
/// An entry is an .npy file already, with a footer that numpy does not mind. Stricter readers do: this writes a file that
/// ends where its array does. The entry is verified before.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  npcache export 3f2a result.npy
  npcache export 3f2a all.npz                     several arrays
  npcache export 3f2a --array weights - | program")]
pub struct Export {
    /// The entry's key, or its first digits
    key: String,
    /// The file to write: .npz holds all arrays, anything else is .npy; - is standard output
    output: PathBuf,
    /// Which of several arrays: its name or number, from 0
    #[arg(short, long, value_name = "ARRAY")]
    array: Option<String>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Export {
    pub fn run(self, session: &mut Session) -> Outcome {
        let cache = session.look()?;
        let entry = session.find(&cache, &self.key)?;
        let Some(result) = session.read(entry.load()) else { return Ok(false) };
        let archive = self.output.extension().is_some_and(|extension| extension == "npz");
        let chosen = match &self.array {
            Some(array) => vec![choose(&result, array)?],
            None if archive || result.arrays().len() == 1 => (0..result.arrays().len()).collect(),
            None => {
                let count = result.arrays().len();
                return Err(format!(
                    "the result has {count} arrays: choose one by --array, or write an .npz"
                )
                .into());
            }
        };
        if self.output == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err("an array is no text for a terminal; redirect it".into());
            }
            session.write_raw(&[&result.arrays()[chosen[0]].npy_header(), result.bytes(chosen[0])])?;
            return Ok(true);
        }
        let failed = |e: io::Error| format!("cannot write {}: {e}", self.output.display());
        // Beside its place, so that a file that is there is replaced whole or not at all.
        let beside =
            self.output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(beside)
            .map_err(failed)?;
        {
            let mut out = BufWriter::new(file.as_file_mut());
            if archive {
                write_npz(&mut out, &result, &chosen)?;
            } else {
                write_npy(&mut out, &result, chosen[0]).map_err(failed)?;
            }
            out.flush().map_err(failed)?;
        }
        let written = file.as_file().metadata().map_err(failed)?.len();
        if self.force {
            file.persist(&self.output).map_err(|e| failed(e.error))?;
        } else {
            file.persist_noclobber(&self.output).map_err(|e| match e.error.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("{} exists; --force replaces it", self.output.display())
                }
                _ => failed(e.error),
            })?;
        }
        let path = self.output.to_string_lossy();
        if session.json {
            let key = entry.key().to_string();
            session
                .print_json(&json!({ "key": key, "path": path, "bytes": written, "arrays": chosen.len() }))?;
        } else {
            writeln!(session.out(), "{}  {}", printable(&path), bytes(written))?;
        }
        Ok(true)
    }
}

fn choose(result: &Buffer, wanted: &str) -> Result<usize, String> {
    let named = result.arrays().iter().position(|array| array.name() == Some(wanted));
    let count = result.arrays().len();
    named.or(wanted.parse().ok().filter(|i| *i < count)).ok_or_else(|| {
        let names: Vec<_> =
            result.arrays().iter().enumerate().map(|(i, array)| array_name(i, array.name())).collect();
        format!("no array is called `{}`; there are {}", printable(wanted), printable(&names.join(", ")))
    })
}

/// As numpy names what has no name.
fn array_name(i: usize, name: Option<&str>) -> String {
    name.map_or_else(|| format!("arr_{i}"), str::to_owned)
}

fn write_npy(out: &mut impl Write, result: &Buffer, i: usize) -> io::Result<()> {
    out.write_all(&result.arrays()[i].npy_header())?;
    out.write_all(result.bytes(i))
}

fn write_npz(out: &mut (impl Write + Seek), result: &Buffer, chosen: &[usize]) -> Result<(), Box<dyn Error>> {
    let mut archive = ZipWriter::new(out);
    for &i in chosen {
        // As numpy.savez: stored, and with the long form of sizes only where they need it.
        let large = result.bytes(i).len() as u64 >= u32::MAX.into();
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
        archive.start_file(array_name(i, result.arrays()[i].name()) + ".npy", options)?;
        write_npy(&mut archive, result, i)?;
    }
    archive.finish()?;
    Ok(())
}
