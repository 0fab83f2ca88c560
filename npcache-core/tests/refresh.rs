//! What a new result was to replace is not found again, be the new one stored or not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ndarray::Array1;
use npcache_core::{Buffer, Cache, Canonical, Mode, Options, Origin, Policy, Unstored};

const LONG: Duration = Duration::from_secs(3600);

/// Without memory, so that every call asks the directory.
fn options() -> Options {
    Options::new().memory_bytes(0)
}

fn refreshing() -> Options {
    options().mode(Mode::Refresh)
}

/// The result of the one call: `len` doubles, all `n`, where it is computed.
fn call(cache: &Cache, n: f64, len: usize) -> Buffer {
    cache.call("f", "1", b"", |out| out.write(&Array1::from_elem(len, n))).unwrap()
}

fn first(buffer: &Buffer) -> f64 {
    buffer.view::<f64>(0).unwrap()[0]
}

/// Stores 1, has `refresh` compute 2, and tells why that is not stored.
fn refreshed(directory: &Path, refresh: Options) -> Result<(), Unstored> {
    call(&options().open(directory).unwrap(), 1.0, 10);
    let new = call(&refresh.open(directory).unwrap(), 2.0, 1000);
    assert_eq!((new.origin(), first(&new)), (Origin::Computed, 2.0));
    new.stored()
}

#[test]
fn old_numbers_are_not_found_after_a_refresh_whose_result_is_not_stored() {
    for (refresh, why) in [
        (refreshing().min_compute(LONG), Unstored::Cheap),
        (refreshing().max_bytes(4096), Unstored::TooLarge),
        (refreshing().min_free_bytes(u64::MAX >> 1).policy(Policy::None), Unstored::DiskFull),
    ] {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(refreshed(directory.path(), refresh), Err(why));
        let next = call(&options().open(directory.path()).unwrap(), 3.0, 10);
        assert_eq!((next.origin(), first(&next)), (Origin::Computed, 3.0), "{why}");
    }
}

#[test]
fn nor_after_one_during_which_another_call_of_the_function_was_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    call(&cache, 1.0, 10);
    let refresh = refreshing().open(directory.path()).unwrap();
    let new = refresh.call("f", "1", b"", |out| {
        cache.function("f", "1")?.forget(&Canonical::from_bytes(b"another"))?;
        out.write(&Array1::from_elem(10, 2.0))
    });
    assert_eq!(new.unwrap().stored(), Err(Unstored::Cleared));
    assert_eq!(first(&call(&cache, 3.0, 10)), 3.0);
}

#[test]
fn a_refresh_whose_function_fails_leaves_what_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    call(&cache, 1.0, 10);
    let refresh = refreshing().min_compute(LONG).open(directory.path()).unwrap();
    assert!(refresh.call("f", "1", b"", |_| Err("no result")).is_err());
    assert_eq!(call(&cache, 2.0, 10).origin(), Origin::Disk);
}

#[test]
fn a_refreshed_result_is_the_one_in_memory_also_where_it_has_no_room_there() {
    for (len, origin) in [(100, Origin::Memory), (100_000, Origin::Disk)] {
        let directory = tempfile::tempdir().unwrap();
        let options = || Options::new().memory_bytes(100 << 10);
        let cache = options().open(directory.path()).unwrap();
        call(&cache, 1.0, 10);
        assert_eq!(call(&cache, 2.0, 10).origin(), Origin::Memory);
        call(&options().mode(Mode::Refresh).open(directory.path()).unwrap(), 2.0, len);
        let found = call(&cache, 3.0, 10);
        assert_eq!((found.origin(), first(&found)), (origin, 2.0));
    }
}

#[test]
fn what_the_cache_below_has_is_not_found_after_a_refresh() {
    let (site, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    call(&options().open(site.path()).unwrap(), 1.0, 10);
    let refresh = refreshing().lower(site.path()).min_compute(LONG).open(own.path()).unwrap();
    assert_eq!(call(&refresh, 2.0, 10).stored(), Ok(()));
    let above = options().lower(site.path()).open(own.path()).unwrap();
    assert_eq!(first(&call(&above, 3.0, 10)), 2.0);
}

#[test]
fn what_is_damaged_or_over_age_goes_also_where_what_is_computed_is_too_cheap() {
    let directory = tempfile::tempdir().unwrap();
    let cache = options().open(directory.path()).unwrap();
    let path = call(&cache, 1.0, 10).path().unwrap().to_owned();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "damaged").unwrap();
    let cheap = options().min_compute(LONG);
    for n in [2.0, 3.0] {
        let new = call(&cheap.clone().open(directory.path()).unwrap(), n, 10);
        assert_eq!((first(&new), new.stored()), (n, Err(Unstored::Cheap)));
    }
    assert_eq!((cache.statistics().unwrap().corrupt, path.exists()), (1, false));

    call(&cache, 1.0, 10);
    // Longer than two ticks of the clock that ages are told by.
    std::thread::sleep(Duration::from_millis(50));
    let young = cheap.max_age(Duration::ZERO).open(directory.path()).unwrap();
    assert_eq!((call(&young, 2.0, 10).stored(), path.exists()), (Err(Unstored::Cheap), false));
}
