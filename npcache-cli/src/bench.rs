//! `npcache bench`: what this machine's file system can do at best, and what npcache makes of it.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use npcache_core::{Canonical, DType, Function, Mode, Options};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode as Permissions, OFlags, flock, linkat, openat};
use serde_json::json;

use crate::Outcome;
use crate::session::Session;
use crate::terminal::{DIM, HEAD, Progress, bytes, seconds};

/// A small result, and a large one: what a page of parameters and a picture of them come to.
const SMALL: usize = 1 << 10;
const LARGE: usize = 64 << 20;

/// Measure this file system's floors, and npcache's hits and misses beside them
///
/// In a new directory in DIR, which is removed afterwards; takes a few seconds and 400 MiB. What belongs together is
/// measured in turns, so a busy machine slows both. Times are medians. Nothing is synced to disk: neither does npcache.
#[derive(clap::Args)]
pub struct Bench {
    /// Where to measure
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// How often, for what takes microseconds
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..))]
    rounds: u32,
}

/// A floor and what stands on it, in seconds.
struct Line {
    what: String,
    floor: f64,
    npcache: Option<f64>,
}

impl Bench {
    pub fn run(self, session: &mut Session) -> Outcome {
        let place = tempfile::Builder::new().prefix("npcache-bench-").tempdir_in(&self.directory);
        let place = place.map_err(|e| format!("cannot measure in {}: {e}", self.directory.display()))?;
        let options = Options::new().mode(Mode::ReadWrite).memory_bytes(0);
        let function = options.open_as_set(place.path().join("cache"))?.function("bench", "")?;
        let remembering = Options::new().mode(Mode::ReadWrite).memory_bytes(1 << 30);
        let remembering = remembering.open_as_set(place.path().join("remembering"))?.function("bench", "")?;
        let files = place.path().join("files");
        std::fs::create_dir(&files)?;
        let few = self.rounds.min(9) as usize;
        let rounds = self.rounds as usize;
        let progress = Progress::of_rounds("measuring");
        let mut lines = Vec::new();

        let lock = File::create(files.join("lock"))?;
        let [locked] = medians(
            &progress,
            rounds,
            [&mut |_| {
                flock(&lock, FlockOperation::LockExclusive)?;
                Ok(flock(&lock, FlockOperation::Unlock)?)
            }],
        )?;
        lines.push(Line { what: "lock and unlock a file".into(), floor: locked, npcache: None });

        for (size, rounds) in [(SMALL, rounds), (LARGE, few)] {
            let data = vec![7u8; size];
            let text = bytes(size as u64);
            let [made, missed] = medians(
                &progress,
                rounds,
                [&mut |i| make(&files, &format!("{size}-{i}"), &data), &mut |i| call(&function, i, &data)],
            )?;
            lines.push(Line {
                what: format!("a miss: write {text}, give it a name"),
                floor: made,
                npcache: Some(missed),
            });
            let [read, hit] = medians(
                &progress,
                rounds,
                [&mut |i| read(&files.join(format!("{size}-{i}")), size), &mut |i| call(&function, i, &data)],
            )?;
            // What is large is mapped, not read.
            let what = if size == SMALL {
                "a hit: open, read, close"
            } else {
                "a hit: open, map, close, against read"
            };
            lines.push(Line { what: format!("{what} {text}"), floor: read, npcache: Some(hit) });
            for i in 0..rounds {
                std::fs::remove_file(files.join(format!("{size}-{i}")))?;
            }
        }
        let data = vec![7u8; SMALL];
        call(&remembering, 0, &data)?;
        // Many at a time: one is shorter than looking at the clock takes.
        const MANY: u32 = 1000;
        let [copied, remembered] = medians(
            &progress,
            rounds.min(100),
            [
                &mut |_| {
                    (0..MANY).for_each(|_| drop(black_box(black_box(&data).clone())));
                    Ok(())
                },
                &mut |_| (0..MANY).try_for_each(|_| call(&remembering, 0, &data)),
            ],
        )?;
        lines.push(Line {
            what: "a hit in memory: copy 1 KiB".into(),
            floor: copied / f64::from(MANY),
            npcache: Some(remembered / f64::from(MANY)),
        });

        progress.end();
        if session.json {
            let all = lines
                .iter()
                .map(|line| json!({ "what": line.what, "floor": line.floor, "npcache": line.npcache }));
            session.print_json(&all.collect())?;
            return Ok(true);
        }
        let out = session.out();
        writeln!(out, "{HEAD}{:<46}  {:>9}  {:>9}  RATIO{HEAD:#}", "", "FLOOR", "NPCACHE")?;
        for line in &lines {
            let npcache = line.npcache.map_or(String::new(), seconds);
            let ratio = line.npcache.map_or(String::new(), |npcache| format!("{:5.2}", npcache / line.floor));
            writeln!(
                out,
                "{:<46}  {:>9}  {npcache:>9}  {DIM}{ratio}{DIM:#}",
                line.what,
                seconds(line.floor)
            )?;
        }
        let rate = LARGE as f64 / lines[3].floor;
        writeln!(out, "writing {}/s, without syncing", bytes(rate as u64))?;
        Ok(true)
    }
}

type Step<'a> = &'a mut dyn FnMut(usize) -> Result<(), Box<dyn Error>>;

/// The median times of the steps, which take turns.
fn medians<const N: usize>(
    progress: &Progress,
    rounds: usize,
    mut steps: [Step<'_>; N],
) -> Result<[f64; N], Box<dyn Error>> {
    let mut times = [const { Vec::new() }; N];
    for i in 0..rounds {
        progress.advance(1);
        for (step, times) in steps.iter_mut().zip(&mut times) {
            let start = Instant::now();
            step(i)?;
            times.push(start.elapsed());
        }
    }
    Ok(times.map(|mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }))
}

/// A file that gets its name when it is whole, as an entry does.
fn make(directory: &std::path::Path, name: &str, data: &[u8]) -> Result<(), Box<dyn Error>> {
    let path = directory.join(name);
    match openat(CWD, directory, OFlags::TMPFILE | OFlags::RDWR, Permissions::from_raw_mode(0o444)) {
        Ok(file) => {
            let mut file = File::from(file);
            file.write_all(data)?;
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, from, CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
        }
        // A file system without unnamed files.
        Err(_) => {
            let temporary = directory.join("temporary");
            std::fs::write(&temporary, data)?;
            std::fs::rename(temporary, path)?;
        }
    }
    Ok(())
}

fn read(path: &std::path::Path, size: usize) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::with_capacity(size);
    File::open(path)?.read_to_end(&mut bytes)?;
    black_box(bytes);
    Ok(())
}

/// A call whose result is `data`, and costs nothing to compute but a copy.
fn call(function: &Function, i: usize, data: &[u8]) -> Result<(), Box<dyn Error>> {
    let args = [i, data.len()].map(usize::to_le_bytes);
    let result = function.call(&Canonical::from_bytes(args.as_flattened()), |out| {
        let place = out.alloc_bytes(None, DType::UInt8.into(), &[data.len() as i64], false)?;
        place.copy_from_slice(data);
        Ok::<(), npcache_core::Error>(())
    })?;
    black_box(result.bytes(0).first());
    Ok(result.stored().map_err(|why| format!("the result could not be stored: {why}"))?)
}
