//! The benchmark's Rust half: npcache, through its C ABI, beside bare system calls and beside LMDB, cacache and foyer.
//!
//! `npcache-bench disk|peers DIR ROUNDS [--smoke]` prints one line of JSON a row, with the nanoseconds of every round: a
//! round is a block of calls of ours and a block of the other's, in alternating order, so that what disturbs the machine
//! disturbs both. `fresh` measures one first hit in a process of its own, `grow` what a large directory costs,
//! `bounds` what keeping within `max_bytes` does, and `pauses` for how long that makes one insertion wait.
//! benches/run.py drives all of it.

mod floors;
mod ours;
mod peers;

use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;

use floors::Root;
use ours::{Buffer, COMPUTED, Cache, Compute, DISK, MEMORY};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Nanoseconds of the monotonic clock.
pub fn now() -> f64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as f64
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = now();
    work();
    now() - start
}

fn touch(bytes: &[u8]) {
    std::hint::black_box(bytes[0]);
}

/// 16 bytes of arguments.
fn args(i: usize) -> [u8; 16] {
    let mut args = [0x5a; 16];
    args[..8].copy_from_slice(&(i as u64).to_le_bytes());
    args
}

fn size_name(size: usize) -> String {
    match size {
        s if s >= MIB => format!("{} MiB", s / MIB),
        s if s >= KIB => format!("{} KiB", s / KIB),
        s => format!("{s} B"),
    }
}

struct Bench {
    directory: PathBuf,
    rounds: usize,
    /// The large size, and a divisor of how often things are done.
    large: usize,
    less: usize,
}

impl Bench {
    /// A fresh directory. None is removed, for what [`floors::empty`] says.
    fn fresh(&self, name: &str) -> PathBuf {
        let path =
            (0..).map(|i| self.directory.join(format!("{name}-{i}"))).find(|path| !path.exists()).unwrap();
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Measures `ours` and `other`, which do `n` things each and return their nanoseconds, in alternating order.
    fn row(
        &self,
        name: &str,
        rounds: usize,
        n: usize,
        mut ours: impl FnMut(usize) -> f64,
        mut other: impl FnMut(usize) -> f64,
    ) {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds + 1 {
            let both = if round % 2 == 0 {
                let first = ours(round);
                [first, other(round)]
            } else {
                let first = other(round);
                [ours(round), first]
            };
            // The first warms up.
            for (times, time) in times.iter_mut().zip(both).filter(|_| round > 0) {
                times.push(time / n as f64);
            }
        }
        report(name, n, &times);
    }
}

fn report(name: &str, n: usize, times: &[Vec<f64>; 2]) {
    println!("{}", line(name, "ns", n, times));
}

fn line(name: &str, unit: &str, n: usize, [ours, other]: &[Vec<f64>; 2]) -> String {
    let mut line = format!("{{\"name\": \"{name}\", \"unit\": \"{unit}\", \"calls\": {n}");
    for (side, times) in [("ours", ours), ("other", other)] {
        let times: Vec<String> = times.iter().map(|time| format!("{time:.4}")).collect();
        let _ = write!(line, ", \"{side}\": [{}]", times.join(", "));
    }
    line + "}"
}

fn main() {
    now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match words[..] {
        [part @ ("disk" | "peers"), directory, rounds, ref rest @ ..] => {
            let smoke = rest.contains(&"--smoke");
            let large = if smoke { 8 * MIB } else { 100 * MIB };
            let bench = Bench {
                directory: directory.into(),
                rounds: number(rounds),
                large,
                less: if smoke { 50 } else { 1 },
            };
            if part == "peers" {
                bench.peers();
            } else {
                bench.disk_hits();
                bench.misses();
                bench.long_arguments();
            }
        }
        ["prepare", system, directory, size] => first_call(system, Path::new(directory), number(size), true),
        ["fresh", system, directory, size] => first_call(system, Path::new(directory), number(size), false),
        ["fill", directory, from, to] => fill(Path::new(directory), number(from), number(to)),
        ["grow", directory, rounds, ref counts @ ..] => {
            grow(
                Path::new(directory),
                number(rounds),
                &counts.iter().map(|count| number(count)).collect::<Vec<_>>(),
            );
        }
        ["bounds", directory, count, rounds] => bounds(Path::new(directory), number(count), number(rounds)),
        ["pauses", directory, from, to] => pauses(Path::new(directory), number(from), number(to)),
        _ => panic!("npcache-bench disk|peers|prepare|fresh|fill|grow|bounds|pauses …: see benches/run.py"),
    }
}

/// A directory with `count` entries of `size` bytes, opened without memory, and the entries' names below it.
fn stored(path: &Path, count: usize, size: usize) -> (Cache, Vec<CString>) {
    let cache = Cache::without_memory(path);
    let names = (0..count).map(|i| {
        let buffer = cache.call(&args(i), &mut Compute::of(size));
        assert!(buffer.origin() == COMPUTED && buffer.is_stored());
        below(path, &buffer.path())
    });
    let names = names.collect();
    (cache, names)
}

fn below(root: &Path, path: &Path) -> CString {
    let root = std::fs::canonicalize(root).unwrap();
    floors::c_path(path.strip_prefix(root).expect("below the root"))
}

/// Runs `work(thread, i)` `n` times in each of `threads` threads; the nanoseconds from the first start to the last end.
fn threads(threads: usize, n: usize, work: impl Fn(usize, usize) + Sync) -> f64 {
    if threads == 1 {
        return timed(|| (0..n).for_each(|i| work(0, i)));
    }
    let barrier = Barrier::new(threads);
    let spans: Vec<(f64, f64)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    let start = now();
                    (0..n).for_each(|i| work(thread, i));
                    (start, now())
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = spans.iter().map(|span| span.0).fold(f64::INFINITY, f64::min);
    spans.iter().map(|span| span.1).fold(0.0, f64::max) - first
}

impl Bench {
    fn disk_hits(&self) {
        // Entries that are read, and one that is between.
        for size in [KIB, 64 * KIB, MIB] {
            let path = self.fresh("hits");
            let count = if size == KIB { 1000 } else { 50 };
            let (cache, names) = stored(&path, count, size);
            let root = Root::open(&path);
            let n = if size == KIB { 1000 } else { 100 } / self.less.min(10);
            for count in if size == KIB { &[1, 2, 8][..] } else { &[1] } {
                let suffix = if *count == 1 { String::new() } else { format!(", {count} threads") };
                let at = |thread: usize, i: usize| (i * 17 + thread * 131) % names.len();
                let ours = |_| {
                    threads(*count, n, |thread, i| {
                        touch(cache.expect(&args(at(thread, i)), size, DISK).bytes())
                    })
                };
                let bare = |_| {
                    threads(*count, n, |thread, i| {
                        let name = &names[at(thread, i)];
                        if size < 256 * KIB {
                            let mut place = vec![0u8; size + KIB];
                            assert!(root.read(name, &mut place) > size);
                            touch(&place);
                        } else {
                            root.map(name, |bytes| touch(&bytes[128..]));
                        }
                    })
                };
                let floor = if size < 256 * KIB { "open, read, close" } else { "open, fstat, mmap, close" };
                self.row(
                    &format!("disk hit, {}{suffix} ÷ {floor}", size_name(size)),
                    self.rounds,
                    n * count,
                    ours,
                    bare,
                );
            }
        }

        let (size, large) = (self.large, size_name(self.large));
        let path = self.fresh("hits");
        let (cache, names) = stored(&path, 1, size);
        let (root, name) = (Root::open(&path), &names[0]);
        let file = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let n = 50 / self.less.min(10);
        let ours = |_| timed(|| (0..n).for_each(|_| touch(cache.expect(&args(0), size, DISK).bytes())));
        let bare = |_| timed(|| (0..n).for_each(|_| root.map(name, |bytes| touch(&bytes[128..]))));
        self.row(
            &format!("disk hit, {large}, first byte ÷ open, fstat, mmap, close"),
            self.rounds,
            n,
            ours,
            bare,
        );

        let rounds = self.rounds.min(15);
        let sum = |bytes: &[u8]| {
            std::hint::black_box(floors::sum(bytes));
        };
        let ours = |_| timed(|| sum(cache.expect(&args(0), size, DISK).bytes()));
        let bare = |_| timed(|| root.map(name, |bytes| sum(&bytes[128..])));
        self.row(&format!("disk hit, {large}, summed ÷ mapped, summed"), rounds, 1, ours, bare);

        // Another time of modification makes it a file that is not known to be as it was written, as another boot does.
        let ours = |_| {
            floors::touch(&file);
            timed(|| touch(cache.expect(&args(0), size, DISK).bytes()))
        };
        let bare = |_| {
            timed(|| {
                root.map(name, |bytes| std::hint::black_box(XxHash3_64::oneshot(bytes)));
            })
        };
        self.row(&format!("disk hit, {large}, of another boot ÷ mapped, xxh3"), rounds, 1, ours, bare);
    }

    fn misses(&self) {
        for (size, n, count) in [
            (KIB, 200, 1),
            (KIB, 200, 2),
            (KIB, 200, 8),
            (MIB, 10, 1),
            (MIB, 10, 0),
            (self.large, 1, 1),
            (self.large, 1, 0),
        ] {
            let path = self.fresh("misses");
            let (given, count) = (count == 0, count.max(1));
            let n = (n / self.less.min(10)).max(1);
            let cache = Cache::without_memory(&path);
            // All directories are there; the entry's own bytes are what the floor writes.
            let first = cache.call(&args(usize::MAX), &mut Compute::of(size));
            let entry = std::fs::read(first.path()).unwrap();
            drop(first);
            for i in 0..256 {
                std::fs::create_dir_all(path.join(format!("kernel/{i:02x}"))).unwrap();
            }
            let root = Root::open(&path);
            let made = std::sync::Mutex::new(Vec::new());
            let next = std::sync::atomic::AtomicUsize::new(0);
            let fresh = || next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let content = vec![7u8; size];
            let empty = |made: &std::sync::Mutex<Vec<PathBuf>>| {
                std::mem::take(&mut *made.lock().unwrap()).iter().for_each(|path| floors::empty(path));
            };
            let ours = |_| {
                let inside = std::sync::Mutex::new(0.0);
                let total = threads(count, n, |_, _| {
                    let mut compute = Compute::of(size);
                    compute.given = given.then_some(&content);
                    let buffer = cache.call(&args(fresh()), &mut compute);
                    assert!(buffer.is_stored() && buffer.origin() == COMPUTED);
                    if count == 1 {
                        *inside.lock().unwrap() += compute.took;
                    }
                    made.lock().unwrap().push(buffer.path());
                });
                empty(&made);
                // The function's own time is not the cache's.
                total - *inside.lock().unwrap()
            };
            let bare = |_| {
                let total = threads(count, n, |_, _| {
                    let i = fresh();
                    let directory = CString::new(format!("kernel/{:02x}", i % 256)).unwrap();
                    let name = format!("kernel/{:02x}/{:064x}.npy", i % 256, i);
                    root.publish(&directory, &CString::new(name.clone()).unwrap(), &entry);
                    made.lock().unwrap().push(path.join(name));
                });
                empty(&made);
                total
            };
            let how = if given { ", given by pointer" } else { "" };
            let suffix = if count == 1 { String::new() } else { format!(", {count} threads") };
            let rounds = if size > MIB { self.rounds.min(15) } else { self.rounds };
            let name = format!("miss, {}{how}{suffix} ÷ temporary, write, publish", size_name(size));
            self.row(&name, rounds, n * count, ours, bare);
        }
    }

    fn long_arguments(&self) {
        let path = self.fresh("arguments");
        let cache = Cache::new(&path, &[]);
        let long: Vec<u8> = (0..self.large).map(|i| (i * 7 % 251) as u8).collect();
        drop(cache.call(&long, &mut Compute::of(KIB)));
        let cores = std::thread::available_parallelism().unwrap().get();
        let ours = |_| timed(|| touch(cache.expect(&long, KIB, MEMORY).bytes()));
        let sha2 = |_| {
            timed(|| {
                std::hint::black_box(Sha256::digest(&long));
            }) / cores as f64
        };
        let name = format!("{} argument ÷ sha2 of it by {cores} cores", size_name(self.large));
        self.row(&name, self.rounds.min(15), 1, ours, sha2);
    }

    fn peers(&self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        for size in [KIB, MIB, self.large] {
            let name = size_name(size);
            let path = self.fresh("peers");
            let cache = Cache::new(&path.join("ours"), &[]);
            let lmdb = peers::Lmdb::open(&path.join("lmdb"));
            let cacache = path.join("cacache");
            let foyer = runtime.block_on(peers::foyer(&path.join("foyer"), size));
            let content = vec![7u8; size];
            let keys = if size > MIB { 2 } else { 100 };
            for i in 0..keys {
                drop(cache.call(&args(i), &mut Compute::of(size)));
                lmdb.put(&args(i), &content);
                cacache::write_sync(&cacache, hex(i), &content).unwrap();
                foyer.insert(args(i).to_vec(), content.clone());
            }
            runtime.block_on(foyer.storage().wait());

            // Ours from memory, as every hit but a process's first is; the first is measured in `first_call`.
            let n = 2000 / self.less;
            let ours = |n: usize| {
                timed(|| (0..n).for_each(|i| touch(cache.expect(&args(i % keys), size, MEMORY).bytes())))
            };
            let lmdb_get = |n: usize| timed(|| (0..n).for_each(|i| lmdb.get(&args(i % keys), touch)));
            self.row(
                &format!("hit in memory, {name} ÷ LMDB get"),
                self.rounds,
                n,
                |_| ours(n),
                |_| lmdb_get(n),
            );
            let foyer_get = |n: usize| {
                runtime.block_on(async {
                    let start = now();
                    for i in 0..n {
                        let found = foyer.get(&args(i % keys).to_vec()).await.unwrap().expect("stored");
                        touch(found.value());
                    }
                    now() - start
                })
            };
            self.row(
                &format!("hit in memory, {name} ÷ foyer"),
                self.rounds,
                n,
                |_| ours(n),
                |_| foyer_get(n),
            );
            let n = if size > MIB { 1 } else { 100 / self.less.min(20) };
            let read = |n: usize| {
                timed(|| (0..n).for_each(|i| touch(&cacache::read_sync(&cacache, hex(i % keys)).unwrap())))
            };
            self.row(
                &format!("hit in memory, {name} ÷ cacache"),
                self.rounds.min(15),
                n,
                |_| ours(n),
                |_| read(n),
            );
            if size == KIB {
                // Long enough for all threads to run at once.
                let n = 20_000 / self.less;
                for (count, own) in [(2, true), (8, true), (2, false), (8, false)] {
                    // Keys of its own for each thread, or the same for all.
                    let key = |t: usize, i: usize| {
                        let each = keys / count;
                        args(if own { t * each + i % each } else { (i + 37 * t) % keys })
                    };
                    let ours =
                        |_| threads(count, n, |t, i| touch(cache.expect(&key(t, i), size, MEMORY).bytes()));
                    let get = |_| threads(count, n, |t, i| lmdb.get(&key(t, i), touch));
                    let which = if own { "keys of their own" } else { "the same keys" };
                    self.row(
                        &format!("hit in memory, {name}, {count} threads, {which} ÷ LMDB get"),
                        self.rounds,
                        n * count,
                        ours,
                        get,
                    );
                }
            }

            // Misses: the function fills a result of its own, and it is stored.
            let n = if size > MIB { 1 } else { 50 / self.less.min(10) };
            let rounds = if size > MIB { 7.min(self.rounds) } else { self.rounds.min(15) };
            let next = std::cell::Cell::new(1000usize);
            let fresh = || next.replace(next.get() + 1);
            let miss = |_| {
                let mut paths = Vec::new();
                let time = timed(|| {
                    for _ in 0..n {
                        let buffer = cache.call(&args(fresh()), &mut Compute::of(size));
                        assert!(buffer.is_stored());
                        paths.push(buffer.path());
                    }
                });
                paths.iter().for_each(|path| floors::empty(path));
                time
            };
            let put = |_| {
                let from = next.get();
                let time = timed(|| {
                    for _ in 0..n {
                        let mut result = vec![0u8; size];
                        ours::fill(std::hint::black_box(&mut result));
                        lmdb.put(&args(fresh()), &result);
                    }
                });
                (from..next.get()).for_each(|i| lmdb.delete(&args(i)));
                time
            };
            self.row(&format!("miss, {name} ÷ LMDB put"), rounds, n, miss, put);
            let write = |_| {
                let from = next.get();
                let time = timed(|| {
                    for _ in 0..n {
                        let mut result = vec![0u8; size];
                        ours::fill(std::hint::black_box(&mut result));
                        // Content-addressed: equal contents are one file, so each is made different.
                        result[0..8].copy_from_slice(&next.get().to_le_bytes());
                        cacache::write_sync(&cacache, hex(fresh()), &result).unwrap();
                    }
                });
                // Few, or the disk would be full.
                for i in if size > MIB { from..next.get() } else { 0..0 } {
                    let entry = cacache::metadata_sync(&cacache, hex(i)).unwrap().unwrap();
                    cacache::remove_hash_sync(&cacache, &entry.integrity).unwrap();
                }
                time
            };
            self.row(&format!("miss, {name} ÷ cacache"), rounds, n, miss, write);
            let insert = |_| {
                runtime.block_on(async {
                    let start = now();
                    for _ in 0..n {
                        let mut result = vec![0u8; size];
                        ours::fill(std::hint::black_box(&mut result));
                        foyer.insert(args(fresh()).to_vec(), result);
                        foyer.storage().wait().await;
                    }
                    now() - start
                })
            };
            self.row(&format!("miss, {name} ÷ foyer, until it is written"), rounds, n, miss, insert);
            runtime.block_on(foyer.close()).unwrap();
        }
    }
}

fn hex(i: usize) -> String {
    args(i).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stores one result (`prepare`), or opens the store and gets it, and prints how long that took.
fn first_call(system: &str, path: &Path, size: usize, prepare: bool) {
    let key = args(0);
    let content = if prepare { vec![7u8; size] } else { Vec::new() };
    let start = now();
    match (system, prepare) {
        ("npcache", true) => assert!(Cache::new(path, &[]).call(&key, &mut Compute::of(size)).is_stored()),
        ("npcache", false) => touch(Cache::plain(&floors::c_path(path)).expect(&key, size, DISK).bytes()),
        ("lmdb", true) => peers::Lmdb::open(path).put(&key, &content),
        ("lmdb", false) => peers::Lmdb::open(path).get(&key, touch),
        ("cacache", true) => drop(cacache::write_sync(path, hex(0), &content).unwrap()),
        ("cacache", false) => touch(&cacache::read_sync(path, hex(0)).unwrap()),
        ("foyer", _) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let foyer = peers::foyer(path, size).await;
                if prepare {
                    foyer.insert(key.to_vec(), content);
                    foyer.close().await.unwrap();
                } else {
                    touch(foyer.get(&key.to_vec()).await.unwrap().expect("stored").value());
                    println!("{}", now() - start);
                    std::process::exit(0);
                }
            });
        }
        _ => panic!("no store is called {system}"),
    }
    println!("{}", now() - start);
}

/// Stores the results `from` to `to`, of 1 KiB.
fn fill(path: &Path, from: usize, to: usize) {
    let cache = Cache::without_memory(path);
    for i in from..to {
        assert!(cache.call(&args(i), &mut Compute::of(KIB)).is_stored());
    }
}

/// Directories DIR/<count>, of so many entries of 1 KiB: opening, hits and misses, ours and bare. The sizes take turns.
fn grow(base: &Path, rounds: usize, counts: &[usize]) {
    for count in counts {
        let path = base.join(count.to_string());
        let c_path = floors::c_path(&path);
        let mut times = [Vec::new(), Vec::new()];
        // Each is the process's only handle on the directory, so nothing of an earlier one is left.
        for _ in 0..rounds.max(5) {
            let mut cache = None;
            times[0].push(timed(|| cache = Some(Cache::plain(&c_path))));
            times[1].push(timed(|| drop(Root::open(&path))));
        }
        report(&format!("npcache_new on {count} entries ÷ open of the directory"), 1, &times);
    }
    struct Grown {
        count: usize,
        path: PathBuf,
        cache: Cache,
        root: Root,
        names: Vec<CString>,
        /// Of hits and misses: ours and bare.
        times: [[Vec<f64>; 2]; 2],
    }
    let mut all: Vec<Grown> = counts
        .iter()
        .map(|&count| {
            let path = base.join(count.to_string());
            // Of few entries, too.
            for shard in 0..256 {
                std::fs::create_dir_all(path.join(format!("kernel/{shard:02x}"))).unwrap();
            }
            // Listed, not looked at: that would leave only the floor's names warm.
            let shards = std::fs::read_dir(path.join("kernel")).unwrap().map(|shard| shard.unwrap().path());
            let names =
                shards.flat_map(|shard| std::fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()));
            let names: Vec<CString> =
                names.map(|name| floors::c_path(name.strip_prefix(&path).unwrap())).collect();
            assert_eq!(names.len(), count, "entries in {}", path.display());
            let (cache, root) = (Cache::without_memory(&path), Root::open(&path));
            Grown { count, path, cache, root, names, times: Default::default() }
        })
        .collect();
    let entry = {
        let first = all[0].cache.expect(&args(0), KIB, DISK);
        std::fs::read(first.path()).unwrap()
    };
    const N: usize = 200;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = move |count: usize| {
        // xorshift64*
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % count
    };
    let mut next = 1 << 40;
    for round in 0..rounds + 1 {
        for grown in &mut all {
            let Grown { count, path, cache, root, names, times } = grown;
            let mut measured = [[0.0; 2]; 2];
            let sample: Vec<usize> = (0..N).map(|_| below(*count)).collect();
            let mut hits = [0.0; 2];
            let mut misses = [0.0; 2];
            for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let mut made = Vec::new();
                if side == 0 {
                    hits[0] = timed(|| {
                        sample.iter().for_each(|i| touch(cache.expect(&args(*i), KIB, DISK).bytes()))
                    });
                    let mut computed = Vec::with_capacity(N);
                    misses[0] = timed(|| {
                        for i in next..next + N {
                            let buffer = cache.call(&args(i), &mut Compute::of(KIB));
                            assert!(buffer.is_stored());
                            computed.push(buffer);
                        }
                    });
                    made.extend(computed.iter().map(|buffer| self::below(path, &buffer.path())));
                } else {
                    let others: Vec<usize> = (0..N).map(|_| below(*count)).collect();
                    hits[1] = timed(|| {
                        for i in others {
                            let mut place = vec![0; 2 * KIB];
                            root.read(&names[i], &mut place);
                            touch(&place);
                        }
                    });
                    let names = (next..next + N).map(|_| {
                        let shard = below(256);
                        let stem = format!("{:032x}{:032x}", below(usize::MAX), below(usize::MAX));
                        let directory = CString::new(format!("kernel/{shard:02x}")).unwrap();
                        (directory, CString::new(format!("kernel/{shard:02x}/{stem}.npy")).unwrap())
                    });
                    let names: Vec<_> = names.collect();
                    misses[1] = timed(|| {
                        names.iter().for_each(|(directory, name)| root.publish(directory, name, &entry))
                    });
                    made.extend(names.into_iter().map(|(_, name)| name));
                }
                made.iter().for_each(|name| root.unlink(name));
                next += N;
            }
            measured[0] = hits.map(|time| time / N as f64);
            measured[1] = misses.map(|time| time / N as f64);
            if round > 0 {
                for (times, measured) in times.iter_mut().zip(measured) {
                    times[0].push(measured[0]);
                    times[1].push(measured[1]);
                }
            }
        }
    }
    for grown in &all {
        for (what, times) in ["hit", "miss"].iter().zip(&grown.times) {
            report(&format!("{what} at {} entries ÷ bare", grown.count), N, times);
        }
    }
}

/// The length of the `i`th of entries of mixed sizes: one of 16 is of up to 63 KiB, the others of 1 KiB.
fn mixed_len(i: usize) -> usize {
    if i % 16 > 0 { KIB } else { KIB + i.wrapping_mul(0x9e37_79b1) % (62 * KIB) }
}

/// Inserts it; what that took, without the function's own time, which is not the cache's.
fn insert_mixed(cache: &Cache, i: usize) -> (Buffer, f64) {
    let mut compute = Compute::of(mixed_len(i));
    let start = now();
    let buffer = cache.call(&args(i), &mut compute);
    let took = now() - start - compute.took;
    assert!(buffer.is_stored());
    (buffer, took)
}

/// A cache of at most so many bytes, without a table in memory.
fn bounded(path: &Path, policy: &CStr, max_bytes: u64) -> Cache {
    let value = CString::new(max_bytes.to_string()).unwrap();
    Cache::new(path, &[(c"memory_bytes", c"0"), (c"policy", policy), (c"max_bytes", &value)])
}

/// Inserts the entries from `from` to `to` where [`bounds`] was, by one policy after the other, and tells of those that took
/// more than a millisecond: when they began, and what they took. `run.py` has the unlinks of that time from `strace`.
fn pauses(base: &Path, from: usize, to: usize) {
    let max_bytes = std::fs::read_to_string(base.join("max_bytes")).unwrap().parse().unwrap();
    for (name, policy) in [("lru", c"lru"), ("cost", c"cost")] {
        let cache = bounded(&base.join(name), policy, max_bytes);
        for i in from..to {
            let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let (_, took) = insert_mixed(&cache, i);
            if took > 1e6 {
                println!("{name} {began:.6} {took}");
            }
        }
    }
}

/// Insertions under `max_bytes`, by either policy; beside bare insertions, and beside ours without a bound, each with as many
/// bare unlinks. In four directories that hold `count` entries of the same lengths: one of 16 is of up to 63 KiB, the others
/// of 1 KiB. What goes is anywhere among what is there, but for `cost`, by which the long ones go first.
fn bounds(base: &Path, count: usize, rounds: usize) {
    const N: usize = 250;
    let len = mixed_len;
    let [by_lru, bare, free, by_cost] = ["lru", "bare", "free", "cost"].map(|name| base.join(name));
    (0..256).for_each(|shard| std::fs::create_dir_all(bare.join(format!("{shard:02x}"))).unwrap());
    // SplitMix64's last steps: of a product alone, the lower bits would tell how old what goes is.
    let hash = |i: usize| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let name = |i: usize| CString::new(format!("{:02x}/{i:064x}.npy", hash(i) >> 56)).unwrap();
    let insert = |cache: &Cache, i: usize, took: &mut f64| {
        let (buffer, own) = insert_mixed(cache, i);
        *took = own;
        buffer.path()
    };
    let filled = [&by_lru, &by_cost].map(|path| Cache::without_memory(path));
    let unbounded = Cache::without_memory(&free);
    // What an entry has besides its data.
    let first = insert(&unbounded, 0, &mut 0.0);
    let more = std::fs::metadata(first).unwrap().len() as usize - len(0);
    let (root, content) = (Root::open(&bare), vec![7u8; 64 * KIB]);
    let publish = |i: usize, name: &CStr| {
        root.publish(
            &CString::new(format!("{:02x}", hash(i) >> 56)).unwrap(),
            name,
            &content[..len(i) + more],
        );
    };
    let mut there = [Vec::with_capacity(count + N), Vec::with_capacity(count + N)];
    for i in 0..count {
        filled.iter().for_each(|cache| drop(insert(cache, i, &mut 0.0)));
        publish(i, &name(i));
        there[0].push(name(i));
        there[1].push(below(&free, &insert(&unbounded, i, &mut 0.0)));
    }
    let bytes = |root: &Path| {
        let shards = std::fs::read_dir(root.join("kernel")).unwrap().map(|shard| shard.unwrap().path());
        let entries = shards.flat_map(|shard| std::fs::read_dir(shard).unwrap());
        entries.map(|entry| entry.unwrap().metadata().unwrap().len().next_multiple_of(4096)).sum::<u64>()
    };
    // As much as is there: from the first insertion on, something has to go.
    let max_bytes = bytes(&by_lru);
    let caches =
        [(&by_lru, c"lru"), (&by_cost, c"cost")].map(|(path, policy)| bounded(path, policy, max_bytes));
    std::fs::write(base.join("max_bytes"), max_bytes.to_string()).unwrap();
    let free_root = Root::open(&free);
    let (mut most, mut longest) = (0, [0.0f64; 3]);
    let mut times = [const { Vec::new() }; 4];
    for round in 0..rounds + 1 {
        for side in (0..4).map(|side| (side + round) % 4) {
            let mut sum = 0.0;
            for i in count + round * N..count + (round + 1) * N {
                let mut took = 0.0;
                match side {
                    0 => drop(insert(&caches[0], i, &mut took)),
                    3 => drop(insert(&caches[1], i, &mut took)),
                    1 => {
                        let new = name(i);
                        took = timed(|| publish(i, &new));
                        there[0].push(new);
                    }
                    _ => there[1].push(below(&free, &insert(&unbounded, i, &mut took))),
                }
                if side < 2 {
                    longest[side] = longest[side].max(took);
                }
                if side == 1 || side == 2 {
                    let old = there[side - 1].swap_remove(hash(i) % count);
                    let unlink = timed(|| if side == 1 { root.unlink(&old) } else { free_root.unlink(&old) });
                    longest[2] = longest[2].max(unlink);
                    took += unlink;
                }
                sum += took;
            }
            // The first warms up.
            if round > 0 {
                times[side].push(sum / N as f64);
            }
        }
        // Nobody inserts while this counts: what it finds was there at one moment.
        if (round + 1) % rounds.div_ceil(20) == 0 {
            most = most.max(bytes(&by_lru)).max(bytes(&by_cost));
        }
    }
    let mean = |times: &[f64]| vec![times.iter().sum::<f64>() / times.len() as f64];
    let under = format!("insertion under max_bytes at {count} entries");
    for (side, floor) in [(1, "bare insertion and unlink"), (2, "ours without a bound and bare unlink")] {
        let pair = [times[0].clone(), times[side].clone()];
        report(&format!("{under} ÷ {floor}"), N, &pair);
        report(&format!("{under}, mean of all ÷ {floor}"), N * rounds, &pair.map(|times| mean(&times)));
    }
    let pair = [&times[3], &times[1]].map(|times| mean(times));
    report(&format!("{under}, policy=cost, mean of all ÷ bare insertion and unlink"), N * rounds, &pair);
    for (i, what) in [(1, "insertion"), (2, "unlink")] {
        report(&format!("longest {under} ÷ longest bare {what}"), 1, &[vec![longest[0]], vec![longest[i]]]);
    }
    let share = [vec![most as f64 / max_bytes as f64], vec![1.0]];
    println!("{}", line(&format!("most bytes at {count} entries ÷ max_bytes"), "times", 1, &share));
}
