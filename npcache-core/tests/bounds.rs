//! A cache that is bounded: what it keeps, what goes, and what its counts do when they are wrong.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ndarray::Array1;
use npcache_core::{Buffer, Cache, Mode, Options, Origin, Policy, Sharing, Unstored};

/// Without memory, so that every call asks the directory.
fn options() -> Options {
    Options::new().memory_bytes(0)
}

/// The `n`th result of a function: `len` doubles.
fn call(cache: &Cache, name: &str, n: u64, len: usize) -> Buffer {
    let result =
        cache.call(name, "1", n.to_le_bytes(), |out| out.write(&Array1::from_elem(len, n as f64))).unwrap();
    assert_eq!(result.view::<f64>(0).unwrap()[[len - 1]], n as f64);
    result
}

/// The entries that are there.
fn entries(root: &Path) -> Vec<PathBuf> {
    let below = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).map_or(Vec::new(), |found| found.map(|entry| entry.unwrap().path()).collect())
    };
    let functions = below(root).into_iter().filter(|path| path.is_dir() && !path.ends_with(".npcache"));
    functions.flat_map(|function| below(&function)).flat_map(|shard| below(&shard)).collect()
}

/// Bytes in blocks of 4 KiB, as `du` counts them, and entries.
fn usage(root: &Path) -> (u64, usize) {
    let paths = entries(root);
    (paths.iter().map(|path| fs::metadata(path).unwrap().len().next_multiple_of(4096)).sum(), paths.len())
}

/// Makes an entry one that was used last so long ago.
fn use_long_ago(path: &Path, age: Duration) {
    let times = FileTimes::new().set_accessed(SystemTime::now() - age);
    File::open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn bytes_and_entries_stay_below_their_bounds_at_every_moment() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_bytes(1 << 20).open(directory.path()).unwrap();
    for n in 0..600 {
        // Of 4 to 44 KiB, over three functions.
        let result = call(&cache, ["f", "g", "h"][n as usize % 3], n, 100 + (n as usize * 7919) % 5000);
        assert_eq!(result.stored(), Ok(()));
        if n % 7 > 0 {
            continue;
        }
        let (bytes, _) = usage(directory.path());
        assert!(bytes <= 1 << 20, "{bytes} bytes after {n}");
        assert!(n < 200 || bytes > 900 << 10, "only {bytes} bytes after {n}");
    }
    // An entry that takes most of it drives out as many as it needs, and is there.
    let large = call(&cache, "large", 0, 100_000);
    assert_eq!(large.stored(), Ok(()));
    assert_eq!(call(&cache, "large", 0, 100_000).origin(), Origin::Disk);
    assert!(large.path().unwrap().exists() && usage(directory.path()).0 <= 1 << 20);

    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_entries(100).open(directory.path()).unwrap();
    for n in 0..400 {
        call(&cache, "f", n, 10 + n as usize);
        let (_, count) = usage(directory.path());
        assert!(count <= 100 && (n < 100 || count >= 95), "{count} entries after {n}");
    }
}

#[test]
fn what_can_never_fit_is_returned_unstored() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_bytes(64 << 10).open(directory.path()).unwrap();
    call(&cache, "f", 1, 10);
    for len in [8192, 100_000] {
        assert_eq!(call(&cache, "f", 2, len).stored(), Err(Unstored::TooLarge));
    }
    assert_eq!(call(&cache, "f", 1, 10).origin(), Origin::Disk);
}

#[test]
fn cost_keeps_what_took_long_and_lru_does_not() {
    for (policy, kept) in [(Policy::Cost, 12..=16), (Policy::Lru, 0..=6)] {
        let directory = tempfile::tempdir().unwrap();
        let cache = options().max_entries(64).policy(policy).open(directory.path()).unwrap();
        for n in 0..16_u64 {
            let compute = |out: &mut npcache_core::Output| {
                std::thread::sleep(Duration::from_millis(60));
                out.write(&Array1::from_elem(10, n as f64))
            };
            cache.call("dear", "1", n.to_le_bytes(), compute).unwrap();
        }
        for path in entries(directory.path()) {
            use_long_ago(&path, Duration::from_secs(7200));
        }
        for n in 0..400 {
            call(&cache, "cheap", n, 10);
        }
        let dear =
            entries(directory.path()).iter().filter(|path| path.to_str().unwrap().contains("dear")).count();
        assert!(kept.contains(&dear), "{policy:?} kept {dear} of 16");
    }
}

#[test]
fn lru_drops_what_was_not_used_for_longest() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_entries(60).policy(Policy::Lru).open(directory.path()).unwrap();
    let paths: Vec<_> = (0..60).map(|n| call(&cache, "f", n, 10).path().unwrap().to_owned()).collect();
    for (n, path) in paths.iter().enumerate() {
        use_long_ago(path, Duration::from_secs(60 * 60 * (100 - n as u64)));
    }
    call(&cache, "f", 60, 10);
    // All of so few are looked at.
    assert!(!paths[0].exists() && paths[8..].iter().all(|path| path.exists()));
}

#[test]
fn with_policy_none_nothing_goes_and_what_is_too_much_is_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_entries(10).policy(Policy::None).open(directory.path()).unwrap();
    let stored: Vec<_> = (0..20).map(|n| call(&cache, "f", n, 10).stored()).collect();
    assert_eq!(stored[..10], [Ok(()); 10]);
    assert_eq!(stored[10..], [Err(Unstored::TooLarge); 10]);
    assert!((0..10).all(|n| call(&cache, "f", n, 10).origin() == Origin::Disk));
}

#[test]
fn what_is_over_age_is_not_found_on_disk_or_in_memory_and_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    for memory in [0, 1 << 20] {
        let cache = options()
            .max_age(Duration::from_millis(700))
            .memory_bytes(memory)
            .open(directory.path())
            .unwrap();
        let first = call(&cache, "f", memory, 10);
        assert_eq!(first.origin(), Origin::Computed);
        std::thread::sleep(Duration::from_millis(750));
        let again = call(&cache, "f", memory, 10);
        assert_eq!((again.origin(), again.stored()), (Origin::Computed, Ok(())));
        assert_eq!(entries(directory.path()).iter().filter(|path| *path == again.path().unwrap()).count(), 1);
        // Another handle, without the bound.
        let unbounded = options().open(directory.path()).unwrap();
        assert_eq!(unbounded.function("f", "1").unwrap().identity().name(), "f");
        std::thread::sleep(Duration::from_millis(750));
        assert_ne!(call(&unbounded, "f", memory, 10).origin(), Origin::Computed);
    }
    let cache = options().open(directory.path()).unwrap();
    assert_eq!(cache.statistics().unwrap().corrupt, 0, "an old entry is a good one");
}

#[test]
fn what_is_over_age_goes_while_others_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    for n in 0..50 {
        call(&cache, "old", n, 10);
    }
    std::thread::sleep(Duration::from_millis(1100));
    cache.configure("max_age", "1").unwrap();
    for n in 0..40 {
        call(&cache, "new", n, 10);
    }
    let old =
        entries(directory.path()).iter().filter(|path| path.to_str().unwrap().contains("/old/")).count();
    assert_eq!(old, 0);
}

#[test]
fn the_directory_keeps_its_bounds_for_all_who_do_not_set_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let early = options().open(directory.path()).unwrap();
    call(&early, "f", 0, 10);
    let cache = options().open(directory.path()).unwrap();
    let unset = [
        ("max_bytes", "none"),
        ("max_entries", "none"),
        ("max_age", "none"),
        ("min_free_bytes", "0"),
        ("policy", "cost"),
    ];
    assert_eq!(cache.config(), unset.map(|(name, value)| (name, value.to_owned())));
    fs::write(directory.path().join(".npcache/config"), "of_a_later_version = 1\nmax_entries=7\n").unwrap();
    cache.configure("max_entries", "20").unwrap();
    cache.configure("policy", "lru").unwrap();
    let text = fs::read_to_string(directory.path().join(".npcache/config")).unwrap();
    assert_eq!(text, "of_a_later_version = 1\nmax_entries=20\npolicy=lru\n");
    assert_eq!(early.config()[1], ("max_entries", "20".to_owned()));
    for n in 0..100 {
        call(&early, "f", n, 10);
    }
    assert!((18..=20).contains(&usage(directory.path()).1));
    // Only for this handle.
    let unbounded = options().max_entries(None).open(directory.path()).unwrap();
    for n in 0..100 {
        call(&unbounded, "g", n, 10);
    }
    assert!(usage(directory.path()).1 >= 118);
    for (name, value) in [("max_entries", "0"), ("max_entries", "many"), ("mode", "readonly"), ("", "")] {
        assert!(cache.configure(name, value).is_err(), "{name}={value}");
    }
    assert!(
        options().mode(Mode::ReadOnly).open(directory.path()).unwrap().configure("policy", "cost").is_err()
    );
    // It is no foreign file, and survives a clear.
    cache.clear().unwrap();
    assert_eq!(cache.config()[4], ("policy", "lru".to_owned()));
    cache.remove().unwrap();
    assert!(!directory.path().exists());
    fs::create_dir(directory.path()).unwrap();
}

#[test]
fn a_bound_that_was_lowered_is_reached_by_and_by_or_by_prune_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    for n in 0..500 {
        call(&cache, "f", n, 10);
    }
    cache.configure("max_entries", "200").unwrap();
    call(&cache, "g", 0, 10);
    assert!((430..=440).contains(&usage(directory.path()).1), "64 for one");
    for n in 1..10 {
        assert_eq!(call(&cache, "g", n, 10).stored(), Ok(()));
    }
    assert!((196..=200).contains(&usage(directory.path()).1));
    cache.configure("max_entries", "50").unwrap();
    let pruned = cache.prune().unwrap();
    let (_, left) = usage(directory.path());
    assert_eq!(left, 50);
    assert!((146..=150).contains(&pruned.entries) && pruned.bytes == pruned.entries * 4096, "{pruned:?}");
    assert_eq!(cache.prune().unwrap().entries, 0);
}

#[test]
fn an_entry_that_is_replaced_or_was_stored_by_another_meanwhile_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_entries(20).open(directory.path()).unwrap();
    let is_kept = |from, to, replaced: &str| {
        for n in from..to {
            assert_eq!(call(&cache, "f", n, 10).stored(), Ok(()));
            let (_, count) = usage(directory.path());
            assert!((n < 20 || count >= 18) && count <= 20, "{count} entries after {n}; {replaced}");
        }
    };
    is_kept(0, 20, "nothing replaced");
    let refresh = options().max_entries(20).mode(Mode::Refresh).open(directory.path()).unwrap();
    for n in 0..200 {
        call(&refresh, "f", n / 10, 10);
        let (_, count) = usage(directory.path());
        assert_eq!(count, 20, "after {n}; refreshing");
    }
    is_kept(20, 40, "refreshed");

    let alone = options().max_entries(20).flight(Sharing::Off).open(directory.path()).unwrap();
    for n in 40..100 {
        let both = alone.call("f", "1", u64::to_le_bytes(n), |out| {
            call(&alone, "f", n, 10);
            out.write(&Array1::from_elem(10, n as f64))
        });
        assert_eq!(both.unwrap().stored(), Ok(()));
        let (_, count) = usage(directory.path());
        assert!((18..=20).contains(&count), "{count} entries after {n}; stored by another");
    }
    is_kept(100, 120, "stored by another");
}

#[test]
fn a_look_at_a_copied_entry_is_no_use_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_entries(60).policy(Policy::Lru).open(directory.path()).unwrap();
    for n in 0..60 {
        let path = call(&cache, "f", n, 10).path().unwrap().to_owned();
        // As a copy has it: no time of ours, so that what computing took is read from the file.
        let then = SystemTime::now() - Duration::from_secs(86400 * (7 + n));
        File::open(path).unwrap().set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    }
    call(&cache, "new", 0, 10);
    let used = entries(directory.path()).into_iter().filter(|path| path.to_str().unwrap().contains("/f/"));
    let used: Vec<_> = used.map(|path| fs::metadata(path).unwrap().accessed().unwrap()).collect();
    assert!(!used.is_empty() && used.iter().all(|used| used.elapsed().unwrap() > Duration::from_secs(86400)));
}

#[test]
fn what_is_replaced_needs_no_more_room_than_it_has() {
    for policy in [Policy::None, Policy::Cost] {
        let directory = tempfile::tempdir().unwrap();
        let options = || options().max_entries(3).policy(policy);
        let cache = options().open(directory.path()).unwrap();
        let paths: Vec<_> = (0..3).map(|n| call(&cache, "f", n, 10).path().unwrap().to_owned()).collect();
        let refresh = options().mode(Mode::Refresh).open(directory.path()).unwrap();
        for n in 0..3 {
            assert_eq!(call(&refresh, "f", n, 10).stored(), Ok(()));
        }
        for path in &paths {
            fs::remove_file(path).unwrap();
            fs::write(path, "damaged").unwrap();
        }
        for n in 0..3 {
            assert_eq!(call(&cache, "f", n, 10).stored(), Ok(()));
        }
        std::thread::sleep(Duration::from_millis(1100));
        let young = options().max_age(Duration::from_secs(1)).open(directory.path()).unwrap();
        for n in 0..3 {
            assert_eq!((call(&young, "f", n, 10).origin(), usage(directory.path()).1), (Origin::Computed, 3));
            assert_eq!(call(&young, "f", n, 10).origin(), Origin::Disk);
        }
        // One that grows needs more.
        let larger = options().max_bytes(3 << 12).mode(Mode::Refresh).open(directory.path()).unwrap();
        let grown = call(&larger, "f", 0, 1000).stored();
        assert_eq!(grown, if policy == Policy::None { Err(Unstored::TooLarge) } else { Ok(()) });
        assert!(usage(directory.path()).0 <= 3 << 12);
    }
}

/// Deletes the page that the counts are in, as a boot does.
fn boot(root: &Path) {
    for entry in fs::read_dir(root.join(".npcache")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("state-") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn counts_are_learned_after_a_boot_and_by_copies_and_deletions_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let fill = |from, to| {
        let cache = options().open(directory.path()).unwrap();
        (from..to).for_each(|n| assert_eq!(call(&cache, "f", n, 10).stored(), Ok(())));
    };
    fill(0, 1000);
    boot(directory.path());
    fs::write(directory.path().join(".npcache/config"), "max_entries=600\n").unwrap();
    fill(1000, 1040);
    let (_, count) = usage(directory.path());
    assert!((590..=600).contains(&count), "{count} after a boot");
    // Half deleted by hand: room for as many again, most of which is used.
    for path in entries(directory.path()).iter().step_by(2) {
        fs::remove_file(path).unwrap();
    }
    fill(2000, 2300);
    let (_, count) = usage(directory.path());
    assert!((520..=600).contains(&count), "{count} after deletions");
    // As many again copied in, under other names.
    for path in entries(directory.path()) {
        let to = path.to_str().unwrap().replace("/f/", "/copies/");
        fs::create_dir_all(Path::new(&to).parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    fill(3000, 3600);
    let (_, count) = usage(directory.path());
    assert!((585..=600).contains(&count), "{count} after copies");
}

#[test]
fn what_lies_where_no_call_looks_for_it_is_not_counted_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    for n in 0..20 {
        call(&cache, "f", n, 10);
    }
    let entry = entries(directory.path()).swap_remove(0);
    let other = if entry.parent().unwrap().ends_with("00") { "01" } else { "00" };
    let misplaced = directory.path().join("f").join(other).join(entry.file_name().unwrap());
    fs::create_dir_all(misplaced.parent().unwrap()).unwrap();
    fs::copy(&entry, &misplaced).unwrap();
    cache.configure("max_entries", "1").unwrap();
    assert_eq!(cache.prune().unwrap().entries, 19);
    assert!(misplaced.exists());
}

#[test]
fn so_much_of_the_disk_stays_free_or_nothing_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    for n in 0..100 {
        call(&cache, "f", n, 10);
    }
    let all = options().min_free_bytes(1 << 59).open(directory.path()).unwrap();
    // Mostly the first, but each looks at entries for 25 ms at most.
    let room_is_made = (0..100).any(|n| {
        assert_eq!(call(&all, "g", n, 10).stored(), Err(Unstored::DiskFull));
        usage(directory.path()).1 <= 40
    });
    assert!(room_is_made);
    let some = options().min_free_bytes(4096).open(directory.path()).unwrap();
    assert_eq!(call(&some, "g", 0, 10).stored(), Ok(()));
}

#[test]
fn a_handle_that_wants_more_free_is_not_answered_with_what_another_found() {
    let directory = tempfile::tempdir().unwrap();
    let lax = options().min_free_bytes(1).open(directory.path()).unwrap();
    let strict = options().min_free_bytes(1 << 59).open(directory.path()).unwrap();
    for n in 0..20 {
        assert_eq!(call(&lax, "lax", n, 10).stored(), Ok(()));
        assert_eq!(call(&strict, "strict", n, 10).stored(), Err(Unstored::DiskFull));
    }
}

#[test]
fn what_is_large_takes_the_place_of_all_the_small_ones_that_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().max_bytes(32 << 20).open(directory.path()).unwrap();
    for n in 0..7800 {
        call(&cache, "small", n, 10);
    }
    assert_eq!(call(&cache, "large", 0, 2 << 20).stored(), Ok(()));
    assert!(usage(directory.path()).0 <= 32 << 20);
}

#[test]
fn what_was_used_while_the_clock_was_ahead_goes_first() {
    for policy in [Policy::Cost, Policy::Lru] {
        let directory = tempfile::tempdir().unwrap();
        let cache = options().max_entries(50).policy(policy).open(directory.path()).unwrap();
        let ahead = SystemTime::now() + Duration::from_secs(3 * 3600);
        for n in 0..50 {
            let path = call(&cache, "ahead", n, 10).path().unwrap().to_owned();
            let times = FileTimes::new().set_accessed(ahead).set_modified(ahead);
            File::open(path).unwrap().set_times(times).unwrap();
        }
        // A process that has not seen them being made.
        drop(cache);
        let cache = options().max_entries(50).policy(policy).open(directory.path()).unwrap();
        // One is used now, and counts from then.
        assert_eq!(call(&cache, "ahead", 0, 10).origin(), Origin::Disk);
        for n in 0..300 {
            call(&cache, "now", n, 10);
        }
        let paths = entries(directory.path());
        let left = paths.iter().filter(|path| path.to_str().unwrap().contains("/ahead/")).count();
        assert!(left <= 5, "{policy:?}: {left} of 50 are left");
    }
}

#[test]
fn with_policy_none_what_is_over_age_makes_room_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let bounded = || options().max_entries(500).policy(Policy::None).max_age(Duration::from_secs(3600));
    let cache = bounded().open(directory.path()).unwrap();
    for n in 0..500 {
        let path = call(&cache, "old", n, 10).path().unwrap().to_owned();
        let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(7200));
        File::open(path).unwrap().set_times(times).unwrap();
    }
    for n in 0..400 {
        assert_eq!(call(&cache, "new", n, 10).stored(), Ok(()), "{n}");
    }
}
