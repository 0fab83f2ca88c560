//! Results remembered in memory: found again, bounded, and never older than a clear.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ndarray::Array1;
use npcache_core::{Args, Buffer, Cache, Canonical, Error, Function, Options, Origin, Unstored};

/// A result of `len` doubles, all `n`.
fn numbers(cache: &Cache, args: &[u8], n: f64, len: usize) -> Buffer {
    cache.call("numbers", "1", args, |out| out.write(&Array1::from_elem(len, n))).unwrap()
}

fn first(buffer: &Buffer) -> f64 {
    buffer.view::<f64>(0).unwrap()[0]
}

#[test]
fn a_second_call_finds_the_result_in_memory_whatever_the_length_of_its_arguments() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    for len in [0, 1, 16, 1024, 1025, 100_000, 3 << 20] {
        let args = vec![7; len];
        let computed = numbers(&cache, &args, len as f64, 4);
        let again = numbers(&cache, &args, -1.0, 4);
        assert_eq!((computed.origin(), again.origin()), (Origin::Computed, Origin::Memory), "{len} bytes");
        assert_eq!(first(&again), len as f64);
        assert_eq!(again.path(), computed.path());
    }
}

#[test]
fn what_is_found_on_disk_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    numbers(&Cache::open(directory.path()).unwrap(), b"a", 1.0, 4);
    // The handles of a process on one directory share its memory until the last is gone.
    let cache = Cache::open(directory.path()).unwrap();
    let origins = [(); 2].map(|()| numbers(&cache, b"a", -1.0, 4).origin());
    assert_eq!(origins, [Origin::Disk, Origin::Memory]);
}

#[test]
fn calls_that_differ_in_anything_are_kept_apart() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let array = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0]]);
    let canonical = |transposed: bool| -> Canonical {
        let mut args = Args::new();
        // Equal contents, in C and in Fortran order.
        let fortran = array.t().as_standard_layout().into_owned();
        args.add_array(&if transposed { fortran.t().into_owned() } else { array.clone() }).unwrap();
        args.finish().unwrap()
    };
    let mut functions = Vec::new();
    for (name, version) in [("f", "1"), ("f", "2"), ("f", ""), ("f1", ""), ("g", "1")] {
        functions.push(cache.function(name, version).unwrap());
    }
    let mut dependent = cache.function("f", "1").unwrap();
    dependent.add_dependency("library", "1").unwrap();
    functions.push(dependent.clone());
    dependent.add_dependency("library", "2").unwrap();
    functions.push(dependent);
    let mut strict = cache.function("f", "1").unwrap();
    strict.set("layout", "strict").unwrap();
    functions.push(strict.clone());
    for round in 0..2 {
        for (i, function) in functions.iter().enumerate() {
            let result =
                function.call(&canonical(false), |out| out.write(&Array1::from_elem(1, i as f64))).unwrap();
            assert_eq!((first(&result), round == 0), (i as f64, result.origin() == Origin::Computed));
        }
    }
    let layouts = [false, true].map(|transposed| {
        let result =
            strict.call(&canonical(transposed), |out| out.write(&Array1::from_elem(1, -1.0))).unwrap();
        result.origin()
    });
    assert_eq!(layouts, [Origin::Memory, Origin::Computed], "strict layouts are kept apart in memory too");
}

/// Runs this test's program again as another process, which clears the cache.
#[test]
fn a_clear_of_any_process_is_seen_by_the_next_call() {
    if let Some(path) = std::env::var_os("NPCACHE_TEST_CLEAR") {
        let cache = Cache::open(path).unwrap();
        match std::env::var("NPCACHE_TEST_FUNCTION") {
            Ok(function) => cache.clear_function(&function).unwrap(),
            Err(_) => cache.clear().unwrap(),
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let clear_elsewhere = |function: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_clear_of_any_process_is_seen_by_the_next_call"]);
        command.env("NPCACHE_TEST_CLEAR", directory.path());
        if let Some(function) = function {
            command.env("NPCACHE_TEST_FUNCTION", function);
        }
        assert!(command.output().unwrap().status.success());
    };
    numbers(&cache, b"a", 1.0, 4);
    assert_eq!(numbers(&cache, b"a", -1.0, 4).origin(), Origin::Memory);
    clear_elsewhere(Some("another"));
    assert_eq!(
        numbers(&cache, b"a", -1.0, 4).origin(),
        Origin::Memory,
        "another function's clear is not this one's"
    );
    clear_elsewhere(Some("numbers"));
    assert_eq!(first(&numbers(&cache, b"a", 2.0, 4)), 2.0);
    clear_elsewhere(None);
    assert_eq!(first(&numbers(&cache, b"a", 3.0, 4)), 3.0);
    cache.clear().unwrap();
    assert_eq!(first(&numbers(&cache, b"a", 4.0, 4)), 4.0);
}

#[test]
fn memory_is_bounded_and_what_is_asked_for_again_survives_a_scan() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Options::new().memory_bytes(64 << 20).open(directory.path()).unwrap();
    const LEN: usize = 1 << 17; // 1 MiB of doubles
    let hot = b"hot";
    numbers(&cache, hot, 0.0, LEN);
    for _ in 0..3 {
        assert_eq!(numbers(&cache, hot, -1.0, LEN).origin(), Origin::Memory);
    }
    let args: Vec<[u8; 2]> = (0..300u16).map(u16::to_le_bytes).collect();
    for args in &args {
        numbers(&cache, args, 1.0, LEN);
    }
    assert_eq!(numbers(&cache, hot, -1.0, LEN).origin(), Origin::Memory, "once-only calls drive it out");
    let function = cache.function("numbers", "1").unwrap();
    let remembered = args.iter().filter(|args| cache.recall(b"numbers", b"1", &args[..]).is_some()).count();
    assert!(remembered < 64, "{remembered} MiB in a memory of 64");
    let all_stored = args.iter().all(|args| function.lookup(&Canonical::from_bytes(args)).is_some());
    assert!(all_stored, "the others are on disk");
}

/// A cache whose results are in memory only, so that many are made at once.
fn in_memory_only(directory: &std::path::Path, bytes: u64) -> Cache {
    Options::new().min_compute(Duration::from_secs(3600)).memory_bytes(bytes).open(directory).unwrap()
}

#[test]
fn what_is_asked_for_now_takes_the_place_of_what_was_asked_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let cache = in_memory_only(directory.path(), 16 << 20);
    const LEN: usize = 1 << 17; // 1 MiB of doubles
    let ask_for_ten = |kind: u8| {
        let origins = (0..10).map(|i| numbers(&cache, &[kind, i], 1.0, LEN).origin());
        origins.filter(|origin| *origin == Origin::Memory).count()
    };
    for kind in [0, 1] {
        for _ in 0..5 {
            ask_for_ten(kind);
        }
        assert_eq!(ask_for_ten(kind), 10, "ten of 1 MiB do not stay in a memory of 16, at kind {kind}");
    }
}

#[test]
fn calls_that_differ_in_layouts_or_dependencies_alone_crowd_each_other_out_and_cost_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let cache = in_memory_only(directory.path(), 1 << 20);
    let functions = ["1", "2"].map(|library| {
        let mut function = cache.function("f", "1").unwrap();
        function.add_dependency("library", library).unwrap();
        function.set("layout", "strict").unwrap();
        function
    });
    let mut random = 1_u64;
    let mut computed = 0;
    for _ in 0..4000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some are asked for often, and some results are larger than a tenth of the memory.
        let i = (random >> 40) as u8 & (random >> 48) as u8;
        let (function, transposed) = ((random >> 62 & 1) as usize, random >> 63 == 1);
        let contents = ndarray::arr2(&[[f64::from(i), 2.0], [3.0, 4.0]]);
        let mut args = Args::new();
        if transposed {
            args.add_array(&contents.t().as_standard_layout().into_owned().t()).unwrap();
        } else {
            args.add_array(&contents).unwrap();
        }
        let n = f64::from(i) * 4.0 + f64::from(transposed) * 2.0 + function as f64;
        let len = usize::from(i) % 7 * 2500 + 1;
        let result = functions[function].call(&args.finish().unwrap(), |out| {
            computed += 1;
            out.write(&Array1::from_elem(len, n))
        });
        let result = result.expect("a fault of the memory costs no result");
        assert_eq!((first(&result), result.view::<f64>(0).unwrap().len()), (n, len));
    }
    assert!((400..3600).contains(&computed), "{computed} of 4000 were not found");
}

#[test]
fn any_capacity_will_do() {
    for (bytes, origin) in [(1, Origin::Computed), (4096, Origin::Memory), (u64::MAX, Origin::Memory)] {
        let directory = tempfile::tempdir().unwrap();
        let cache = in_memory_only(directory.path(), bytes);
        let origins = [(); 2].map(|()| numbers(&cache, b"a", 1.0, 4).origin());
        assert_eq!(origins, [Origin::Computed, origin], "with {bytes} bytes");
    }
}

#[test]
fn every_result_is_found_while_others_are_added() {
    const COUNT: u32 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let cache = in_memory_only(directory.path(), 1 << 30);
    let added = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..COUNT {
                numbers(&cache, &i.to_le_bytes(), f64::from(i), 1);
                added.store(i + 1, Ordering::Release);
            }
        });
        let mut i = 0;
        while added.load(Ordering::Acquire) < COUNT {
            let count = added.load(Ordering::Acquire).max(1);
            i = (i + 7919) % count;
            if i < added.load(Ordering::Acquire) {
                let found = cache.recall(b"numbers", b"1", &i.to_le_bytes()).expect("lost");
                assert_eq!(first(&found), f64::from(i));
            }
        }
    });
    for i in 0..COUNT {
        assert_eq!(numbers(&cache, &i.to_le_bytes(), -1.0, 1).origin(), Origin::Memory, "{i}");
    }
}

#[test]
fn without_memory_every_hit_is_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Options::new().memory_bytes(0).open(directory.path()).unwrap();
    let origins = [(); 3].map(|()| numbers(&cache, b"a", 1.0, 4).origin());
    assert_eq!(origins, [Origin::Computed, Origin::Disk, Origin::Disk]);
}

/// The length of an entry decides how the function's next one is read, which may be longer, shorter, or just as long as
/// what is read of it.
#[test]
fn an_entry_is_found_whatever_the_length_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Options::new().memory_bytes(0).open(directory.path()).unwrap();
    let call = |function: &Function, len: usize, note: usize| {
        let args = Canonical::from_bytes(&[len, note].map(usize::to_le_bytes).concat());
        let result = function.call(&args, |out| {
            out.note("of some length", &"x".repeat(note))?;
            out.write(&Array1::from_elem(len, len as u64))
        });
        let result = result.unwrap();
        assert_eq!(result.view::<u64>(0).unwrap(), Array1::from_elem(len, len as u64).into_dyn());
        result.origin()
    };
    // A note makes an entry longer by the byte; the last two are read, and mapped.
    let results = || (0..400).map(|note| (16, note)).chain([(10_000, 0), (40_000, 0)]);
    for (len, note) in results() {
        assert_eq!(call(&cache.function("squares", "1").unwrap(), len, note), Origin::Computed);
    }
    for (len, note) in results() {
        // A function that was not asked for last has read nothing yet.
        cache.function("another", "1").unwrap();
        let function = cache.function("squares", "1").unwrap();
        let origins = [(16, 0), (len, note), (16, 0)].map(|(len, note)| call(&function, len, note));
        assert_eq!(origins, [Origin::Disk; 3], "{len} numbers and {note} bytes");
    }
}

#[test]
fn what_is_cheap_is_kept_in_memory_only() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Options::new().min_compute(Duration::from_millis(50)).open(directory.path()).unwrap();
    let cheap = numbers(&cache, b"cheap", 1.0, 4);
    assert_eq!((cheap.stored(), cheap.path()), (Err(Unstored::Cheap), None));
    assert_eq!(numbers(&cache, b"cheap", -1.0, 4).origin(), Origin::Memory);
    let dear = cache.call("dear", "1", b"", |out| {
        std::thread::sleep(Duration::from_millis(60));
        out.write(&Array1::<f64>::zeros(4))
    });
    assert_eq!(dear.unwrap().stored(), Ok(()));
}

#[test]
fn a_forgotten_call_is_computed_again_and_the_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    numbers(&cache, b"a", 1.0, 4);
    numbers(&cache, b"b", 1.0, 4);
    let function = cache.function("numbers", "1").unwrap();
    function.forget(&Canonical::from_bytes(b"a")).unwrap();
    assert!(function.lookup(&Canonical::from_bytes(b"a")).is_none());
    assert_eq!(first(&numbers(&cache, b"a", 2.0, 4)), 2.0);
    assert_eq!(first(&numbers(&cache, b"b", 2.0, 4)), 1.0);
}

#[test]
fn forgetting_a_call_removes_nothing_behind_a_link() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outside = numbers(&Cache::open(elsewhere.path()).unwrap(), b"a", 1.0, 4);
    let cache = Cache::open(directory.path()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("numbers"), directory.path().join("numbers")).unwrap();
    cache.function("numbers", "1").unwrap().forget(&Canonical::from_bytes(b"a")).unwrap();
    assert!(outside.path().unwrap().exists());
}

#[test]
fn a_writable_copy_reaches_nobody_else_small_or_mapped() {
    let directory = tempfile::tempdir().unwrap();
    for len in [4_usize, 1 << 17] {
        // Computed here, and loaded by a cache that did not compute it.
        let args = len.to_le_bytes();
        let computed = numbers(&Cache::open(directory.path()).unwrap(), &args, 1.0, len);
        let loaded = numbers(&Cache::open(directory.path()).unwrap(), &args, -1.0, len);
        for buffer in [computed, loaded] {
            let copy = buffer.to_writable().unwrap();
            assert!(copy.is_writable() && !buffer.is_writable());
            // SAFETY: the copy is this test's alone, and writable.
            unsafe { copy.bytes(0).as_ptr().cast_mut().write_bytes(0xff, 8) };
            assert!(first(&copy).is_nan());
            assert_eq!(first(&buffer), 1.0);
            assert_eq!(copy.bytes(0)[8..], buffer.bytes(0)[8..]);
        }
        let found =
            numbers(&Options::new().memory_bytes(0).open(directory.path()).unwrap(), &args, -1.0, len);
        assert_eq!(first(&found), 1.0);
    }
}

#[test]
fn a_failed_call_is_not_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let failed = cache.call("numbers", "1", b"a", |_| Err("no numbers today"));
    match failed {
        Err(Error::Function { message, source: Some(source), .. }) => {
            assert_eq!(
                (message.as_str(), source.to_string().as_str()),
                ("no numbers today", "no numbers today")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(numbers(&cache, b"a", 1.0, 4).origin(), Origin::Computed);
}
