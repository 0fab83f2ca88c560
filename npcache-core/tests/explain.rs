//! Why a call is a miss, in words.

use std::time::Duration;

use ndarray::{Array1, Array2};
use npcache_core::{Args, Cache, Canonical, Options};

fn args(build: impl FnOnce(&mut Args) -> npcache_core::Result<()>) -> Canonical {
    let mut args = Args::new();
    build(&mut args).unwrap();
    args.finish().unwrap()
}

/// A call with one of everything.
fn call(n: i64, nu: f64, mesh: &Array2<f64>) -> Canonical {
    args(|args| {
        args.add_int(n)?.add_array(mesh)?.begin_list()?.add_string("a")?.add_null()?.end()?;
        args.key("nu")?.add_float(nu)?;
        args.key("options")?.begin_map()?.key("tolerance")?.add_float(1e-6)?.end()?;
        Ok(())
    })
}

fn store(cache: &Cache, version: &str, args: &Canonical) {
    let mut function = cache.function("solve", version).unwrap();
    function.add_dependency("blas", "0.3").unwrap();
    function
        .call(args, |out| {
            out.note("threads", "8")?;
            out.write(&Array1::<f64>::zeros(3))
        })
        .unwrap();
}

fn explain(cache: &Cache, version: &str, args: &Canonical) -> String {
    let mut function = cache.function("solve", version).unwrap();
    function.add_dependency("blas", "0.3").unwrap();
    cache.explain(&function, args).unwrap()
}

#[test]
fn of_an_unknown_function_those_that_are_stored_are_named_the_likeliest_first() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    std::fs::create_dir(directory.path().join("not_a_function")).unwrap();
    let explain = || explain(&cache, "1", &args(|_| Ok(())));
    for (name, expected) in [
        ("__main__.solve", "is stored here, but of `__main__.solve`\n"),
        ("b", "is stored here, but of `__main__.solve`, `b`\n"),
        ("a", "is stored here, but of `__main__.solve`, `a`, `b`\n"),
        ("resolver", "is stored here, but of `__main__.solve`, `resolver`, `a` and 1 more\n"),
    ] {
        cache.call(name, "1", b"", |out| out.write(&Array1::<f64>::zeros(3))).unwrap();
        assert!(explain().ends_with(expected), "{}", explain());
    }
}

#[test]
fn what_is_stored_in_the_cache_below_is_said_to_be_and_compared_with() {
    let (site, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (args(|args| args.add_int(1).map(drop)), args(|args| args.add_int(2).map(drop)));
    store(&Cache::open(site.path()).unwrap(), "1", &one);
    let cache = Options::new().lower(site.path()).promote(true).open(own.path()).unwrap();
    let text = explain(&cache, "1", &one);
    let path = site.path().canonicalize().unwrap();
    let below = format!("solve(1) is stored in the cache below: {}/solve/", path.display());
    assert!(text.starts_with(&below) && text.contains("threads 8"), "{text}");
    let nearest =
        |text: &str| text.contains("nearest of 1 stored calls") && text.contains("stored 1, asked 2");
    let text = explain(&cache, "1", &two);
    assert!(nearest(&text) && text.contains("… in the cache below\n"), "{text}");

    store(&cache, "1", &one);
    let text = explain(&cache, "1", &one);
    assert!(text.starts_with("solve(1) is stored (key"), "{text}");
    let text = explain(&cache, "1", &two);
    assert!(nearest(&text) && !text.contains("below"), "a copy is the same call: {text}");
}

#[test]
fn the_exact_difference_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let mesh = Array2::<f64>::ones((20, 30));
    let stored = call(3, 0.5, &mesh);
    assert!(explain(&cache, "1", &stored).ends_with("no call of `solve` is stored here\n"));
    store(&cache, "1", &stored);

    let text = explain(&cache, "1", &stored);
    assert!(text.contains("is stored (key") && text.contains("threads 8"), "{text}");
    let mut other_mesh = mesh.clone();
    other_mesh[[5, 5]] = 2.0;
    let shorter = args(|args| args.add_int(3).map(drop));
    let integer = args(|args| {
        args.add_int(3)?.add_array(&mesh)?.begin_list()?.add_string("a")?.add_int(0)?.end()?;
        args.key("nu")?.add_int(0)?.key("options")?.begin_map()?.key("tol")?.add_float(1e-6)?.end()?;
        Ok(())
    });
    for (version, asked, expected) in [
        ("2", &stored, vec!["version: stored \"1\", asked \"2\""]),
        ("1", &call(4, 0.5, &mesh), vec!["argument 1: stored 3, asked 4"]),
        ("1", &call(3, 0.25, &mesh), vec!["argument `nu`: stored 0.5, asked 0.25"]),
        (
            "1",
            &call(3, 0.5, &other_mesh),
            vec!["argument 2: the contents of the array of shape [20, 30] differ"],
        ),
        (
            "1",
            &call(3, 0.5, &Array2::ones((30, 20))),
            vec!["argument 2: an array of shape [20, 30] is stored, asked [30, 20]"],
        ),
        (
            "1",
            &shorter,
            vec!["argument 2: stored float64[20, 30]", "argument `nu`: stored 0.5, asked without it"],
        ),
        (
            "1",
            &integer,
            vec![
                "argument 3[1]: stored none, asked 0",
                "argument `nu`: stored 0.5, asked 0",
                "argument `options`[\"tolerance\"]: stored 1e-6, asked without it",
                "argument `options`[\"tol\"]: stored without it, asked 1e-6",
            ],
        ),
    ] {
        let text = explain(&cache, version, asked);
        assert!(text.contains("is not stored") && text.contains("nearest of 1 stored calls"), "{text}");
        for line in &expected {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
        let differences =
            text.lines().filter(|line| line.starts_with("  ") && !line.contains("not part of the key"));
        assert!(expected.len() > 1 || differences.count() == 1, "{text}");
    }
}

#[test]
fn a_changed_dependency_an_added_one_and_a_layout_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let asked = call(3, 0.5, &Array2::ones((2, 2)));
    store(&cache, "1", &asked);
    let mut function = cache.function("solve", "1").unwrap();
    function.add_dependency("blas", "0.4").unwrap();
    function.add_dependency("gpu", "no").unwrap();
    function.set("layout", "strict").unwrap();
    let text = cache.explain(&function, &asked).unwrap();
    for line in [
        "dependency `blas`: stored \"0.3\", asked \"0.4\"",
        "dependency `gpu`: stored without it, asked \"no\"",
        "memory layout of the arrays: stored \"\", asked \"C\"",
    ] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
}

#[test]
fn the_nearest_call_comes_first_and_ready_bytes_are_compared_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let raw = |bytes: &[u8]| Canonical::from_bytes(bytes);
    for bytes in [&b"abcdefgh"[..], b"zzzzzzzzzz"] {
        store(&cache, "1", &raw(bytes));
    }
    let text = explain(&cache, "1", &raw(b"abcdefgX"));
    assert!(text.contains("argument bytes: 1 differ, the first at offset 7: stored 68, asked 58"), "{text}");
    assert!(text.contains("argument bytes: stored 10 of them, asked 8"), "{text}");
    store(&cache, "2", &raw(b"abcdefgX"));
    let text = explain(&cache, "3", &raw(b"abcdefgX"));
    let version = text.find("version: stored \"2\"").expect("the one that differs in the version alone");
    assert!(version < text.find("argument bytes").expect("the others after it"), "{text}");
}

#[test]
fn a_damaged_entry_is_called_so_be_it_only_its_data() {
    let (directory, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache = Options::new().memory_bytes(0).open(directory.path()).unwrap();
    let (solve, asked) = (cache.function("solve", "1").unwrap(), Canonical::from_bytes(b"a"));
    let result = solve.call(&asked, |out| out.write(&Array1::<f64>::zeros(3))).unwrap();
    assert!(cache.is_stored(&solve, &asked));
    let path = result.path().unwrap();
    let whole = std::fs::read(path).unwrap();
    let mut flipped = whole.clone();
    flipped[130] ^= 1;
    let upper = Options::new().lower(directory.path()).open(above.path()).unwrap();
    for (bytes, why) in
        [(&whole[..whole.len() - 1], "does not end as an entry does"), (&flipped, "is damaged")]
    {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        for (cache, place) in [(&cache, "in its place"), (&upper, "in its place in the cache below")] {
            let text = cache.explain(&solve, &asked).unwrap();
            let expected = format!(" is not stored: {place} stands a file, but it {why}\n");
            assert!(text.ends_with(&expected), "{text}");
            assert!(!cache.is_stored(&solve, &asked));
        }
        assert!(!solve.is_cached(&asked));
    }
}

#[test]
fn an_entry_over_age_is_called_so_by_the_bound_that_holds_for_the_handle() {
    let (directory, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache = Options::new().memory_bytes(0).open(directory.path()).unwrap();
    let asked = args(|args| args.add_int(1).map(drop));
    store(&cache, "1", &asked);
    std::thread::sleep(Duration::from_millis(2));
    cache.configure("max_age", "0.001").unwrap();
    let stored = "solve(1) is stored (key ";
    let text = explain(&cache, "1", &asked);
    assert!(text.starts_with(stored) && text.contains("), but over age: computed "), "{text}");
    assert!(text.ends_with(" ago, max_age is 1 ms\n"), "{text}");

    let patient = Options::new().max_age(None).open(directory.path()).unwrap();
    let text = explain(&patient, "1", &asked);
    assert!(text.starts_with(stored) && !text.contains("over age"), "{text}");

    // What is below is held to the bounds of who looks there, not to its directory's.
    let lower = |options: Options| options.lower(directory.path()).open(above.path()).unwrap();
    assert!(!explain(&lower(Options::new()), "1", &asked).contains("over age"));
    let text = explain(&lower(Options::new().max_age(Duration::from_millis(1))), "1", &asked);
    assert!(
        text.starts_with("solve(1) is stored in the cache below: ") && text.contains("over age"),
        "{text}"
    );
}
