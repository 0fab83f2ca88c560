//! What all commands share: the directory that was asked for, standard output, and what went wrong on the way.

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anstream::{AutoStream, ColorChoice};
use npcache_core::{Cache, Entry, Mode, Options};
use serde_json::Value as Json;

use crate::terminal::{BAD, printable};

#[derive(clap::Args)]
pub struct Common {
    /// The cache's directory
    #[arg(
        short = 'C',
        long = "cache",
        value_name = "DIR",
        env = "NPCACHE_DIR",
        default_value = ".",
        global = true
    )]
    cache: PathBuf,
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    json: bool,
}

/// One run of the command.
pub struct Session {
    directory: PathBuf,
    pub json: bool,
    out: BufWriter<AutoStream<io::Stdout>>,
    colour: bool,
    troubled: bool,
}

impl Session {
    pub fn new(common: Common) -> Session {
        let stdout = io::stdout();
        let choice = AutoStream::choice(&stdout);
        let out = BufWriter::new(AutoStream::new(stdout, choice));
        let colour = choice != ColorChoice::Never;
        Session { directory: common.cache, json: common.json, out, colour, troubled: false }
    }

    /// The cache, to look at: nothing is created or changed.
    pub fn look(&self) -> Result<Cache, Box<dyn Error>> {
        self.open(Mode::ReadOnly)
    }

    /// The cache, to change it. A directory that is none is not made one.
    pub fn change(&self) -> Result<Cache, Box<dyn Error>> {
        self.open(Mode::ReadWrite)
    }

    fn open(&self, mode: Mode) -> Result<Cache, Box<dyn Error>> {
        let path = self.directory.display();
        // What programs are told by the environment (NPCACHE_MODE=off) is not meant for looking after a directory.
        let cache = Options::new().mode(Mode::ReadOnly).memory_bytes(0).open_as_set(&self.directory)?;
        if !self.directory.join(".npcache-format").exists() {
            return Err(format!(
                "{path} is no cache of npcache: it has no .npcache-format (name one by -C DIR or NPCACHE_DIR)"
            )
            .into());
        }
        if mode == Mode::ReadOnly {
            return Ok(cache);
        }
        let mut options = Options::new().mode(mode).memory_bytes(0);
        if let Ok(umask) = std::env::var("NPCACHE_UMASK") {
            options.set("umask", &umask)?;
        }
        Ok(options.open_as_set(&self.directory)?)
    }

    /// The entry whose key begins so.
    pub fn find(&mut self, cache: &Cache, key: &str) -> Result<Entry, Box<dyn Error>> {
        // Also as a path: `results/solve/3f/3f2a….npy`.
        let digits = key.rsplit('/').next().unwrap_or_default().trim_end_matches(".npy").to_ascii_lowercase();
        if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(
                format!("`{}` is no key: a key is up to 64 hexadecimal digits", printable(key)).into()
            );
        }
        let mut found = Vec::new();
        for entry in cache.entries(None, &digits) {
            match entry {
                Ok(entry) if found.len() < 5 => found.push(entry),
                Ok(_) => break,
                Err(e) => self.trouble(&e),
            }
        }
        match found.as_slice() {
            [entry] => Ok(entry.clone()),
            [] => {
                Err(format!("no entry of {} has a key that begins with {digits}", self.directory.display())
                    .into())
            }
            several => {
                let keys = several
                    .iter()
                    .map(|entry| format!("\n  {}  {}", entry.key(), printable(&entry.function())));
                Err(format!(
                    "several keys begin with {digits}; give more digits:{}",
                    keys.collect::<String>()
                )
                .into())
            }
        }
    }

    pub fn out(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Bytes as they are: what goes through `out` is text, of which escape sequences may be taken out.
    pub fn write_raw(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        self.out.flush()?;
        let mut stdout = io::stdout().lock();
        pieces.iter().try_for_each(|piece| stdout.write_all(piece))?;
        stdout.flush()
    }

    /// Whether escape sequences reach whoever looks.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    pub fn print_json(&mut self, value: &Json) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }

    pub fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Reports what is wrong, on standard error; the command goes on, and its exit status will say so.
    pub fn trouble(&mut self, e: &dyn std::fmt::Display) {
        self.troubled = true;
        self.complain(&e.to_string());
    }

    /// What was read; `None` where it could not be, which is said.
    pub fn read<T>(&mut self, found: npcache_core::Result<T>) -> Option<T> {
        found.inspect_err(|e| self.trouble(e)).ok()
    }

    pub fn troubled(&self) -> bool {
        self.troubled
    }

    pub fn complain(&mut self, text: &str) {
        // In order, where both go to one terminal.
        let _ = self.out.flush();
        let lines: Vec<_> = text.lines().map(printable).collect();
        let _ = writeln!(anstream::stderr(), "{BAD}npcache:{BAD:#} {}", lines.join("\n"));
    }
}
