//! Statistics: every way that a call can go is counted, by all processes, once.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use ndarray::Array1;
use npcache_core::{Buffer, Cache, Mode, Options, Statistics};

fn call(cache: &Cache, name: &str, args: &[u8]) -> Buffer {
    cache.call(name, "1", args, |out| out.write(&Array1::from_elem(4, 1.0))).unwrap()
}

/// Memory, disk, shared, misses, stored.
fn main_counts(of: &Statistics) -> [u64; 5] {
    [of.memory, of.disk, of.shared, of.misses, of.stored]
}

/// Runs the test called `name` of this file in a process of its own, which finds the directory in the environment.
fn in_another_process(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("NPCACHE_TEST_DIRECTORY", directory);
    command
}

fn directory_of_parent() -> Option<PathBuf> {
    std::env::var_os("NPCACHE_TEST_DIRECTORY").map(PathBuf::from)
}

#[test]
fn each_way_that_a_call_goes_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Cache::open(directory.path()).unwrap();
    let cache = open();
    assert_eq!(main_counts(&cache.statistics().unwrap()), [0; 5]);
    let stored = call(&cache, "f", b"a");
    (0..3).for_each(|_| drop(call(&cache, "f", b"a")));
    drop(cache);
    let cache = open();
    call(&cache, "f", b"a");
    assert_eq!(main_counts(&cache.statistics().unwrap()), [3, 1, 0, 1, 1]);

    // A look-up counts what it finds, and nothing where it finds nothing. Whether there is something counts as nothing, be it
    // in memory or on disk.
    let function = cache.function("f", "1").unwrap();
    let args = |bytes: &[u8]| npcache_core::Canonical::from_bytes(bytes);
    assert!(function.lookup(&args(b"a")).is_some() && function.lookup(&args(b"b")).is_none());
    assert!(function.is_cached(&args(b"a")) && !function.is_cached(&args(b"b")));
    assert_eq!(main_counts(&cache.statistics().unwrap()), [4, 1, 0, 1, 1]);
    drop((cache, function));
    let cache = open();
    assert!(cache.function("f", "1").unwrap().is_cached(&args(b"a")));
    assert_eq!(main_counts(&cache.statistics().unwrap()), [4, 1, 0, 1, 1]);
    drop(cache);

    let path = stored.path().unwrap().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    bytes[130] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let cache = open();
    call(&cache, "f", b"a");
    let found = cache.statistics().unwrap();
    assert_eq!((found.corrupt, found.misses, found.stored, found.unstored), (1, 2, 2, 0));
    assert!(cache.call("f", "1", b"fails", |_| Err("no")).is_err());
    let found = cache.statistics().unwrap();
    assert_eq!((found.misses, found.stored + found.unstored), (3, 2), "a function that fails has no result");

    let cheap = Options::new().min_compute(Duration::from_secs(1000)).open(directory.path()).unwrap();
    call(&cheap, "f", b"c");
    let refresh = Options::new().mode(Mode::Refresh).open(directory.path()).unwrap();
    call(&refresh, "f", b"a");
    let found = cache.statistics().unwrap();
    assert_eq!((found.cheap, found.unstored, found.misses, found.stored), (1, 0, 5, 3));
    assert!(found.complete);

    cache.clear().unwrap();
    assert_eq!(cache.statistics().unwrap(), found, "clearing does not set it back");
    assert_eq!(main_counts(&Options::new().compute_only().unwrap().statistics().unwrap()), [0; 5]);
    cache.remove().unwrap();
    assert!(!directory.path().exists());
}

#[test]
fn seconds_are_those_of_computing() {
    let directory = tempfile::tempdir().unwrap();
    let slow = |cache: &Cache| {
        let compute = |out: &mut npcache_core::Output| {
            std::thread::sleep(Duration::from_millis(30));
            out.write(&Array1::from_elem(4, 1.0))
        };
        cache.call("slow", "1", b"", compute).unwrap().compute_seconds()
    };
    let took = slow(&Cache::open(directory.path()).unwrap());
    let cache = Cache::open(directory.path()).unwrap();
    (0..10).for_each(|_| assert!(slow(&cache) > 0.0));
    let found = cache.statistics().unwrap();
    assert_eq!(main_counts(&found), [9, 1, 0, 1, 1]);
    assert!((found.seconds_spent - took).abs() < 1e-6 && took >= 0.03);
    assert!((found.seconds_saved - 10.0 * took).abs() < 1e-6);
    assert_eq!((found.waits, found.seconds_waited), (0, 0.0));
}

#[test]
fn functions_are_counted_apart_and_those_without_room_together() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let long = "long ".repeat(100);
    let names = ["plain", "CACHEDIR.TAG", ".hidden", "größer/kleiner", "with space", &long];
    for (i, name) in names.iter().enumerate() {
        (0..=i).for_each(|_| drop(call(&cache, name, b"")));
    }
    for (i, name) in names.iter().enumerate() {
        let found = cache.statistics_of(name).unwrap();
        assert_eq!(main_counts(&found), [i as u64, 0, 0, 1, 1], "{name}");
    }
    assert_eq!(main_counts(&cache.statistics_of("unknown").unwrap()), [0; 5]);
    let by_function = cache.statistics_by_function().unwrap();
    for (i, name) in names[..5].iter().enumerate() {
        assert!(by_function.iter().any(|(of, found)| of == name && found.memory == i as u64), "{name}");
    }
    assert!(by_function.iter().any(|(of, _)| of.starts_with("long long") && of.ends_with('…')));

    for i in 0..200 {
        call(&cache, &format!("f{i}"), b"");
    }
    let by_function = cache.statistics_by_function().unwrap();
    let rest = by_function.iter().find(|(name, _)| name == "…").unwrap();
    assert_eq!((by_function.len(), rest.1.misses), (128, 206 - 127));
    assert_eq!(cache.statistics().unwrap().misses, 206);
}

#[test]
fn no_hit_of_any_thread_is_lost_or_counted_twice() {
    const THREADS: usize = 8;
    const HITS: usize = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    call(&cache, "f", b"");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..HITS).for_each(|_| drop(cache.recall(b"f", b"1", b"").unwrap())));
        }
        // Who reads meanwhile takes nothing away.
        (0..100).for_each(|_| assert!(cache.statistics().is_ok()));
    });
    assert_eq!(cache.statistics().unwrap().memory, (THREADS * HITS) as u64);
}

#[test]
fn threads_that_wait_for_one_result_are_counted() {
    const THREADS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let compute = |out: &mut npcache_core::Output| {
                    std::thread::sleep(Duration::from_millis(300));
                    out.write(&Array1::from_elem(4, 1.0))
                };
                cache.call("f", "1", b"", compute).unwrap();
            });
        }
    });
    let found = cache.statistics().unwrap();
    assert_eq!((found.misses, found.hits()), (1, THREADS as u64 - 1));
    // A thread that was held up came when the result was there.
    assert!(found.shared >= 1 && found.waits >= found.shared && found.seconds_waited > 0.0);
}

#[test]
fn processes_count_together_and_what_one_found_in_memory_is_there_when_it_exits() {
    if let Some(directory) = directory_of_parent() {
        let cache = Cache::open(directory).unwrap();
        (0..5).for_each(|_| drop(call(&cache, "f", b"")));
        // As a program that ends without a thought for its caches.
        std::mem::forget(cache);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let this = "processes_count_together_and_what_one_found_in_memory_is_there_when_it_exits";
    for _ in 0..2 {
        assert!(in_another_process(this, directory.path()).output().unwrap().status.success());
    }
    assert_eq!(main_counts(&cache.statistics().unwrap()), [8, 1, 0, 1, 1]);
}

#[test]
fn a_killed_process_loses_less_than_a_batch() {
    const HITS: u64 = 100_000;
    if let Some(directory) = directory_of_parent() {
        let cache = Cache::open(directory).unwrap();
        (0..=HITS).for_each(|_| drop(call(&cache, "f", b"")));
        println!("done");
        std::io::stdout().flush().unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = in_another_process("a_killed_process_loses_less_than_a_batch", directory.path());
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    assert!(std::io::BufRead::lines(output).any(|line| line.unwrap().ends_with("done")));
    child.kill().unwrap();
    child.wait().unwrap();
    let found = Cache::open(directory.path()).unwrap().statistics().unwrap();
    assert_eq!((found.misses, found.stored), (1, 1));
    assert!(found.memory <= HITS && found.memory > HITS - 4096, "{} of {HITS}", found.memory);
}

/// The state page in a cache, and that of an earlier boot that it is made into.
fn make_page_of_earlier_boot(directory: &Path, boot: char) -> PathBuf {
    let admin = directory.join(".npcache");
    let names = fs::read_dir(&admin).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let page = names.into_iter().find(|name| name.starts_with("state-")).unwrap();
    let earlier = admin.join(format!("state-{}{}", boot.to_string().repeat(32), &page[38..]));
    fs::rename(admin.join(page), &earlier).unwrap();
    let file = File::options().write(true).open(&earlier).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    earlier
}

#[test]
fn earlier_boots_are_added_up_once_and_their_pages_removed() {
    let directory = tempfile::tempdir().unwrap();
    let statistics = || Cache::open(directory.path()).unwrap().statistics().unwrap();
    let mut expected = [0; 5];
    for boot in ['1', '2'] {
        let cache = Cache::open(directory.path()).unwrap();
        (0..3).for_each(|_| drop(call(&cache, "größer", boot.to_string().as_bytes())));
        drop(cache);
        let page = make_page_of_earlier_boot(directory.path(), boot);
        let bytes = fs::read(&page).unwrap();
        expected = [expected[0] + 2, 0, 0, expected[3] + 1, expected[4] + 1];
        assert_eq!(main_counts(&statistics()), expected);
        assert!(!page.exists());
        // Killed between adding it and removing it:
        fs::write(&page, bytes).unwrap();
        let file = File::options().write(true).open(&page).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        assert_eq!(main_counts(&statistics()), expected);
        assert!(!page.exists());
    }
    let cache = Cache::open(directory.path()).unwrap();
    assert_eq!(main_counts(&cache.statistics_of("größer").unwrap()), expected);

    // One that was written to in this boot may be somebody's; a file that is no page is none of ours.
    let page = directory.path().join(".npcache/state-of-another");
    fs::write(&page, vec![0xff; 65_536]).unwrap();
    assert_eq!(main_counts(&statistics()), expected);
    assert!(page.exists());
    // What a crash of the machine left is no error.
    let file = directory.path().join(".npcache/statistics");
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"{\"functions\": {\"f\": 3, \"g\": {\"disk\": -1}}, \"pages\": 7").unwrap();
    assert_eq!(main_counts(&statistics()), [0; 5]);
    cache.remove().unwrap();
    assert!(!directory.path().exists());
}

/// Who opens a cache does not look for pages of earlier boots again, once none were found, until something changes there.
#[test]
fn a_page_of_an_earlier_boot_is_seen_though_there_was_none_before() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Cache::open(directory.path()).unwrap();
    call(&open(), "f", b"");
    let earlier = make_page_of_earlier_boot(directory.path(), '1');
    let bytes = fs::read(&earlier).unwrap();
    fs::remove_file(&earlier).unwrap();
    drop(open());
    let state = fs::read_dir(directory.path().join(".npcache")).unwrap().map(|entry| entry.unwrap().path());
    let state = state.into_iter().find(|path| path.to_string_lossy().contains("state-")).unwrap();
    let known_since = || i64::from_le_bytes(fs::read(&state).unwrap()[8..16].try_into().unwrap());
    assert_eq!(known_since(), 0, "what changed just now may change again in the same tick of the clock");
    std::thread::sleep(Duration::from_millis(2100));
    drop(open());
    assert_ne!(known_since(), 0);
    fs::write(&earlier, bytes).unwrap();
    let file = File::options().write(true).open(&earlier).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    assert_eq!(main_counts(&open().statistics().unwrap()), [0, 0, 0, 1, 1]);
    assert!(!earlier.exists());
}

#[test]
fn who_may_not_write_counts_for_himself() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    call(&cache, "f", b"a");
    call(&cache, "f", b"a");
    drop(cache);
    let reader = Options::new().mode(Mode::ReadOnly).open(directory.path()).unwrap();
    call(&reader, "f", b"a");
    call(&reader, "f", b"b");
    let found = reader.statistics().unwrap();
    assert_eq!((found.hits(), found.misses, found.unstored, found.complete), (2, 2, 1, false));
    drop(reader);
    let found = Cache::open(directory.path()).unwrap().statistics().unwrap();
    assert_eq!((found.memory, found.misses, found.unstored, found.complete), (1, 1, 0, true));
}

#[test]
fn who_only_reads_counts_earlier_boots_too_and_sees_who_counts_after_it_was_opened() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    (0..3).for_each(|_| drop(call(&cache, "f", b"")));
    drop(cache);
    make_page_of_earlier_boot(directory.path(), '1');
    let reader = Options::new().mode(Mode::ReadOnly).open(directory.path()).unwrap();
    let counted = || {
        let found = reader.statistics().unwrap();
        (main_counts(&found), found.complete)
    };
    assert_eq!(counted(), ([2, 0, 0, 1, 1], true));
    assert_eq!(main_counts(&reader.statistics_of("f").unwrap()), [2, 0, 0, 1, 1]);
    let writer = Cache::open(directory.path()).unwrap();
    assert_eq!(counted(), ([2, 0, 0, 1, 1], true), "nothing is counted twice, or lost, when it is added up");
    call(&writer, "f", b"");
    assert_eq!(counted(), ([2, 1, 0, 1, 1], true));
}

#[test]
fn a_copy_of_a_directory_has_its_counts() {
    let root = tempfile::tempdir().unwrap();
    let (original, copy) = (root.path().join("original"), root.path().join("copy"));
    let cache = Cache::open(&original).unwrap();
    (0..3).for_each(|_| drop(call(&cache, "f", b"")));
    drop(cache);
    assert!(Command::new("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    let reader = Options::new().mode(Mode::ReadOnly).open(&copy).unwrap();
    assert_eq!(main_counts(&reader.statistics().unwrap()), [2, 0, 0, 1, 1]);
    let cache = Cache::open(&copy).unwrap();
    call(&cache, "f", b"");
    assert_eq!(main_counts(&cache.statistics().unwrap()), [2, 1, 0, 1, 1]);
}
