//! Audits, as Rust sees them; `tests/test_audit.py` has the rest.

use std::cell::Cell;

use ndarray::arr1;
use npcache_core::{Error, Options, Origin, Unstored};

#[test]
fn audits_are_counted_and_a_difference_returns_what_was_computed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Options::new().audit(1.0).open(directory.path()).unwrap();
    let value = Cell::new(1.0);
    let runs = Cell::new(0);
    let audits = || {
        let statistics = cache.statistics().unwrap();
        (statistics.audited, statistics.differing)
    };
    let call = || {
        cache
            .call("f", "1", b"x", |out| {
                runs.set(runs.get() + 1);
                out.write(&arr1(&[value.get()]))
            })
            .unwrap()
    };
    assert_eq!(call().origin(), Origin::Computed);
    assert_eq!((call().origin(), audits(), runs.get()), (Origin::Memory, (1, 0), 2));
    // The way of npcache_call to what is in memory goes past no audit.
    assert!(cache.recall(b"f", b"1", b"x").is_none());
    value.set(2.0);
    let result = call();
    assert_eq!((result.origin(), result.stored()), (Origin::Computed, Err(Unstored::Differs)));
    assert_eq!((result.view::<f64>(0).unwrap()[0], audits()), (2.0, (2, 1)));
    // It was not remembered either.
    let plain = Options::new().open(directory.path()).unwrap();
    let unexpected = |_: &mut npcache_core::Output| Err(Error::Argument("is stored".to_owned()));
    let stored = plain.call("f", "1", b"x", unexpected).unwrap();
    assert_eq!((stored.view::<f64>(0).unwrap()[0], audits()), (1.0, (2, 1)));
}
