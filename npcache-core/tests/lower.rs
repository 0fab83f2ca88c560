//! A cache below: asked for what this one does not have, and never written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ndarray::Array1;
use npcache_core::{Buffer, Cache, Mode, Options, Origin};
use tempfile::TempDir;

/// Over what is read instead of mapped.
const LARGE: usize = 100_000;

fn call(cache: &Cache, args: &[u8], len: usize) -> Buffer {
    cache.call("f", "1", args, |out| out.write(&Array1::from_elem(len, 1.0))).unwrap()
}

/// A site's cache with a small and a large result, and an empty directory for one's own.
fn site() -> (TempDir, TempDir) {
    let (site, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache = Cache::open(site.path()).unwrap();
    call(&cache, b"small", 4);
    call(&cache, b"large", LARGE);
    (site, own)
}

fn above(site: &TempDir, own: &TempDir) -> Options {
    assert!(own.path().exists());
    Options::new().lower(site.path())
}

/// Every file below `directory`, with what would change if it were written to.
fn files(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        let stat = entry.metadata().unwrap();
        found.push((entry.path(), stat.len(), stat.modified().unwrap()));
        if stat.is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}

/// Flips a bit of the data of an entry, and leaves its file looking as before.
fn damage(path: &Path) {
    use std::os::unix::fs::FileExt;
    let mut mode = fs::metadata(path).unwrap().permissions();
    let time = fs::metadata(path).unwrap().modified().unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
    fs::set_permissions(path, mode).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000.min(file.metadata().unwrap().len() / 2)).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1000.min(file.metadata().unwrap().len() / 2)).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn what_it_has_is_served_from_there_and_nothing_is_written_anywhere() {
    let (site, own) = site();
    let before = files(site.path());
    let cache = above(&site, &own).open(own.path()).unwrap();
    for (args, len) in [(&b"small"[..], 4), (b"large", LARGE)] {
        let found = call(&cache, args, len);
        assert_eq!((found.origin(), found.stored()), (Origin::Disk, Ok(())));
        assert!(found.path().unwrap().starts_with(site.path().canonicalize().unwrap()));
        assert_eq!(call(&cache, args, len).origin(), Origin::Memory);
    }
    assert!(!own.path().join("f").exists());
    assert_eq!(files(site.path()), before);
    let counted = cache.statistics().unwrap();
    assert_eq!((counted.lower, counted.memory, counted.misses), (2, 2, 0));
    assert!(counted.seconds_saved > 0.0);

    // What it does not have is computed, and stored here.
    let computed = call(&cache, b"new", 4);
    assert!(
        computed.origin() == Origin::Computed && computed.path().unwrap().starts_with(cache.path().unwrap())
    );
    assert_eq!(files(site.path()), before);

    drop(cache);
    let function = above(&site, &own).open(own.path()).unwrap().function("f", "1").unwrap();
    let found = function.lookup(&npcache_core::Canonical::from_bytes(b"small")).unwrap();
    assert!(found.path().unwrap().starts_with(site.path().canonicalize().unwrap()));
}

#[test]
fn what_is_promoted_stays_when_the_cache_below_goes() {
    let (site, own) = site();
    let before = files(site.path());
    let cache = above(&site, &own).promote(true).open(own.path()).unwrap();
    for (args, len) in [(&b"small"[..], 4), (b"large", LARGE)] {
        let found = call(&cache, args, len);
        assert_eq!(found.origin(), Origin::Disk);
        assert!(found.path().unwrap().starts_with(cache.path().unwrap()), "{:?}", found.path());
        assert_eq!(found.view::<f64>(0).unwrap().sum(), len as f64);
    }
    assert_eq!(files(site.path()), before);
    assert_eq!(cache.statistics().unwrap().lower, 2);
    drop((cache, site));
    let cache = Options::new().verify(npcache_core::Verify::Always).open(own.path()).unwrap();
    assert_eq!(call(&cache, b"large", LARGE).origin(), Origin::Disk);
    assert_eq!(call(&cache, b"small", 4).origin(), Origin::Disk);
}

#[test]
fn damage_below_is_neither_returned_nor_copied_nor_mended() {
    for promote in [false, true] {
        let (site, own) = site();
        for entry in files(&site.path().join("f")).iter().filter(|entry| entry.0.is_file()) {
            damage(&entry.0);
        }
        let before = files(site.path());
        let options = above(&site, &own).promote(promote);
        // The damage of a large one is one that only reading all of it shows.
        let options = if promote { options } else { options.verify(npcache_core::Verify::Always) };
        let cache = options.open(own.path()).unwrap();
        for (args, len) in [(&b"small"[..], 4), (b"large", LARGE)] {
            let computed = call(&cache, args, len);
            assert_eq!(
                (computed.origin(), computed.stored()),
                (Origin::Computed, Ok(())),
                "promote: {promote}"
            );
        }
        assert_eq!(files(site.path()), before);
        assert_eq!(cache.statistics().unwrap().corrupt, 2, "promote: {promote}");
    }
}

#[test]
fn clears_of_either_are_seen_by_the_next_call() {
    let (site, own) = site();
    let cache = above(&site, &own).open(own.path()).unwrap();
    call(&cache, b"small", 4);
    cache.clear().unwrap();
    assert_eq!(call(&cache, b"small", 4).origin(), Origin::Disk, "it is still there below");
    assert_eq!(call(&cache, b"small", 4).origin(), Origin::Memory);
    Cache::open(site.path()).unwrap().clear().unwrap();
    assert_eq!(call(&cache, b"small", 4).origin(), Origin::Computed);
    assert_eq!(call(&cache, b"small", 4).origin(), Origin::Memory);
}

#[test]
fn modes_hold_for_both_and_one_that_is_not_there_has_nothing() {
    let (site, own) = site();
    let origin = |mode: Mode| {
        let cache = above(&site, &own).promote(true).mode(mode).memory_bytes(0).open(own.path()).unwrap();
        call(&cache, b"small", 4).origin()
    };
    drop(Cache::open(own.path()).unwrap());
    assert_eq!(origin(Mode::Off), Origin::Computed);
    assert_eq!(origin(Mode::ReadOnly), Origin::Disk);
    assert!(!own.path().join("f").exists(), "a cache opened to read takes no copy");
    assert_eq!(origin(Mode::Refresh), Origin::Computed);

    for lower in ["/nowhere/at/all", "/dev/null", ""] {
        let own = tempfile::tempdir().unwrap();
        let cache = Options::new().lower(lower).open(own.path()).unwrap();
        assert_eq!(call(&cache, b"small", 4).origin(), Origin::Computed, "{lower}");
    }
    let cache = Options::new().lower(own.path()).open(own.path()).unwrap();
    assert_eq!(call(&cache, b"another", 4).origin(), Origin::Computed, "itself");
}

#[test]
fn what_is_over_age_there_is_not_served_and_a_copy_is_as_old_as_what_was_copied() {
    let (site, own) = site();
    let copying = above(&site, &own).promote(true).memory_bytes(0);
    assert_eq!(call(&copying.open(own.path()).unwrap(), b"large", LARGE).origin(), Origin::Disk);
    let copy = call(&Cache::open(own.path()).unwrap(), b"large", LARGE);
    assert!(copy.path().unwrap().starts_with(own.path()));

    let lifetime = Duration::from_millis(500);
    std::thread::sleep(lifetime);
    let bounded = copying.max_age(lifetime).open(own.path()).unwrap();
    for args in [&b"small"[..], b"large"] {
        assert_eq!(call(&bounded, args, 4).origin(), Origin::Computed);
    }
}

#[test]
fn a_damaged_entry_of_ones_own_is_replaced_by_the_copy_and_counted_once() {
    let (site, own) = site();
    let promoting = above(&site, &own).promote(true).memory_bytes(0).verify(npcache_core::Verify::Always);
    let cache = promoting.open(own.path()).unwrap();
    for (damaged, (args, len)) in [(&b"small"[..], 4), (b"large", LARGE)].into_iter().enumerate() {
        damage(call(&cache, args, len).path().unwrap());
        for _ in 0..2 {
            let found = call(&cache, args, len);
            assert!(found.path().unwrap().starts_with(own.path().canonicalize().unwrap()), "{found:?}");
            assert_eq!(found.view::<f64>(0).unwrap().sum(), len as f64);
        }
        let counted = cache.statistics().unwrap();
        let promoted = 2 * (damaged as u64 + 1);
        assert_eq!((counted.corrupt, counted.lower, counted.disk), (promoted / 2, promoted, promoted / 2));
        assert_eq!((counted.misses, counted.stored), (0, 0));
    }
}

#[test]
fn an_entry_of_ones_own_that_is_over_age_is_replaced_by_a_younger_copy() {
    let (site, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lifetime = Duration::from_secs(1);
    call(&Cache::open(own.path()).unwrap(), b"", 4);
    // And some ticks of the clock.
    std::thread::sleep(lifetime + Duration::from_millis(50));
    call(&Cache::open(site.path()).unwrap(), b"", 5);
    let bounded = above(&site, &own).promote(true).memory_bytes(0).max_age(lifetime);
    let found = call(&bounded.open(own.path()).unwrap(), b"", 6);
    assert!(found.path().unwrap().starts_with(own.path().canonicalize().unwrap()), "{found:?}");
    // Whoever asks the own cache alone has it now.
    let cache = Cache::open(own.path()).unwrap();
    assert_eq!(call(&cache, b"", 6).view::<f64>(0).unwrap().sum(), 5.0);
    assert_eq!(cache.statistics().unwrap().corrupt, 0);
}

/// Bytes that this thread has written so far.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[test]
fn what_has_no_room_is_served_from_below_and_not_written_with_every_hit() {
    let (site, own) = site();
    let options = above(&site, &own).promote(true).memory_bytes(0);
    let cache = options.max_bytes(LARGE as u64).open(own.path()).unwrap();
    for (args, len, promoted) in [(&b"large"[..], LARGE, false), (b"small", 4, true)] {
        let before = written();
        let found = call(&cache, args, len);
        assert_eq!((found.origin(), found.view::<f64>(0).unwrap().len()), (Origin::Disk, len));
        assert_eq!(found.path().unwrap().starts_with(cache.path().unwrap()), promoted);
        assert_eq!(written() > before, promoted, "{} bytes", written() - before);
    }
}
