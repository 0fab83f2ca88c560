//! The cache against a model of it, a plain map: whatever is called, forgotten, cleared, damaged and opened again in
//! whatever order, every result is the one that the map has, and what the map does not have is computed.

use std::collections::HashMap;
use std::path::Path;

use ndarray::Array1;
use npcache_core::{Begun, Buffer, Cache, Canonical, Function, Mode, Options, Unstored, Verify, Wait};
use proptest::prelude::*;

/// Few, so that steps meet: clearing by name takes all versions of one, and no other name.
const NAMES: [&str; 2] = ["f", "f/ü"];
const VERSIONS: [&str; 2] = ["1", ""];

/// Elements of a result, by its arguments: none, a few, more than one read takes, more than is read at all (mapped).
const LENGTHS: [usize; 4] = [0, 3, 3_000, 40_000];

type Call = (usize, usize, u8);

#[derive(Debug, Clone)]
enum Step {
    Call(Call),
    /// Of a handle with `mode=refresh`.
    Refresh(Call),
    /// Of a handle with `mode=readonly`.
    ReadOnly(Call),
    /// Of a function that fails.
    Fail(Call),
    /// Begun and given up.
    Abandon(Call),
    Lookup(Call),
    Forget(Call),
    ClearFunction(usize),
    Clear,
    Remove,
    /// Flips a bit of the entry's file.
    Flip(Call, prop::sample::Index),
    /// Puts the file of one entry in the place of another.
    Swap(Call, Call),
    Open {
        memory: bool,
        verify: Verify,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = || (0..NAMES.len(), 0..VERSIONS.len(), 0..LENGTHS.len() as u8);
    let open = (any::<bool>(), prop::sample::select(vec![Verify::Auto, Verify::Always]))
        .prop_map(|(memory, verify)| Step::Open { memory, verify });
    let step = prop_oneof![
        12 => call().prop_map(Step::Call),
        2 => call().prop_map(Step::Refresh),
        2 => call().prop_map(Step::ReadOnly),
        1 => call().prop_map(Step::Fail),
        1 => call().prop_map(Step::Abandon),
        3 => call().prop_map(Step::Lookup),
        2 => call().prop_map(Step::Forget),
        1 => (0..NAMES.len()).prop_map(Step::ClearFunction),
        1 => Just(Step::Clear),
        1 => Just(Step::Remove),
        3 => (call(), any::<prop::sample::Index>()).prop_map(|(call, byte)| Step::Flip(call, byte)),
        1 => (call(), call()).prop_map(|(from, to)| Step::Swap(from, to)),
        4 => open,
    ];
    prop::collection::vec(step, 1..80)
}

/// What the map has of a call.
#[derive(Clone, Copy)]
struct Stored {
    /// Which run computed it.
    run: u64,
    /// Its file was damaged since: it is found in memory, or not at all.
    damaged: bool,
}

struct Bench<'a> {
    path: &'a Path,
    cache: Cache,
    model: HashMap<Call, Stored>,
    /// The directory was removed under the open handle.
    removed: bool,
    runs: u64,
    /// All results ever returned, which must stay what they were.
    held: Vec<(Buffer, u64, Call)>,
}

/// The result of a run: no two runs have a number in common.
fn elements(run: u64, call: Call) -> Array1<u64> {
    Array1::from_iter((0..LENGTHS[call.2 as usize] as u64).map(|i| run << 32 | i))
}

fn args(call: Call) -> Canonical {
    Canonical::from_bytes(&[call.2; 20])
}

fn function(cache: &Cache, call: Call) -> Function {
    cache.function(NAMES[call.0], VERSIONS[call.1]).unwrap()
}

impl Bench<'_> {
    /// A call through `cache`, which must return what the map has. The run, if it was computed, and the result.
    fn call(&mut self, cache: &Cache, call: Call) -> (Option<u64>, Buffer) {
        self.runs += 1;
        let (run, mut computed) = (self.runs, None);
        let compute = |out: &mut npcache_core::Output| {
            computed = Some(run);
            out.write(&elements(run, call))
        };
        let result = function(cache, call).call(&args(call), compute).unwrap();
        (computed, result)
    }

    fn expect(&mut self, result: Buffer, run: u64, call: Call) {
        assert_eq!(result.view::<u64>(0).unwrap(), elements(run, call).into_dyn(), "{call:?}");
        self.held.push((result, run, call));
    }

    /// A hit where the map has the call, `None` where it has not.
    fn expect_hit(&mut self, hit: Option<Buffer>, call: Call) {
        match (hit, self.model.get(&call).copied()) {
            (Some(hit), Some(stored)) => self.expect(hit, stored.run, call),
            (None, stored) => assert!(stored.is_none_or(|stored| stored.damaged), "{call:?} is lost"),
            (Some(hit), None) => panic!("{call:?}, which is not stored, is found: {hit:?}"),
        }
    }

    fn step(&mut self, step: &Step) {
        let opened = self.cache.clone();
        match *step {
            Step::Call(call) => {
                let (computed, result) = self.call(&opened, call);
                match computed {
                    Some(run) => {
                        let stored = self.model.get(&call);
                        assert!(stored.is_none_or(|stored| stored.damaged), "{call:?} is computed again");
                        assert_eq!(
                            result.stored(),
                            if self.removed { Err(Unstored::Removed) } else { Ok(()) }
                        );
                        if !self.removed {
                            self.model.insert(call, Stored { run, damaged: false });
                        }
                        self.expect(result, run, call);
                    }
                    None => self.expect_hit(Some(result), call),
                }
            }
            Step::Refresh(call) if !self.removed => {
                let cache = Options::new().mode(Mode::Refresh).open(self.path).unwrap();
                let (computed, result) = self.call(&cache, call);
                let run = computed.expect("every call is computed");
                assert_eq!(result.stored(), Ok(()));
                self.model.insert(call, Stored { run, damaged: false });
                self.expect(result, run, call);
            }
            Step::ReadOnly(call) if !self.removed => {
                let cache = Options::new().mode(Mode::ReadOnly).open(self.path).unwrap();
                let (computed, result) = self.call(&cache, call);
                match computed {
                    Some(run) => {
                        assert_eq!(result.stored(), Err(Unstored::ReadOnlyMode));
                        self.expect_hit(None, call);
                        self.expect(result, run, call);
                    }
                    None => self.expect_hit(Some(result), call),
                }
            }
            Step::Refresh(_) | Step::ReadOnly(_) => {}
            Step::Fail(call) => {
                let result = function(&opened, call).call(&args(call), |_| Err("no result"));
                self.expect_hit(result.ok(), call);
            }
            Step::Abandon(call) => {
                let begun = function(&opened, call).begin(&args(call), Wait::Patiently).unwrap();
                match begun {
                    Begun::Hit(hit) => self.expect_hit(Some(hit), call),
                    Begun::Todo(todo) => {
                        drop(todo);
                        self.expect_hit(None, call);
                    }
                    Begun::Busy => panic!("nobody else computes"),
                }
            }
            Step::Lookup(call) => {
                let hit = function(&opened, call).lookup(&args(call));
                self.expect_hit(hit, call);
            }
            Step::Forget(call) => {
                // A directory that is gone cannot be written.
                assert_eq!(function(&opened, call).forget(&args(call)).is_ok(), !self.removed);
                self.model.remove(&call);
            }
            Step::ClearFunction(name) => {
                opened.clear_function(NAMES[name]).unwrap();
                self.model.retain(|call, _| call.0 != name);
            }
            Step::Clear => {
                opened.clear().unwrap();
                self.model.clear();
            }
            Step::Remove => {
                opened.remove().unwrap();
                assert!(!self.path.exists());
                self.model.clear();
                self.removed = true;
            }
            Step::Flip(call, byte) => {
                if let Some(path) = self.file(call) {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let byte = byte.index(8 * bytes.len());
                    bytes[byte / 8] ^= 1 << (byte % 8);
                    self.replace(call, &path, &bytes);
                }
            }
            Step::Swap(from, to) => {
                if let (Some(source), Some(path)) = (self.file(from), self.file(to))
                    && from != to
                {
                    self.replace(to, &path, &std::fs::read(source).unwrap());
                }
            }
            Step::Open { memory, verify } => self.open(memory, verify),
        }
    }

    /// The file of a stored call.
    fn file(&self, call: Call) -> Option<std::path::PathBuf> {
        self.model.contains_key(&call).then(|| {
            let held =
                self.held.iter().rev().find(|(buffer, _, held)| *held == call && buffer.path().is_some());
            held.expect("what is stored was returned").0.path().unwrap().to_owned()
        })
    }

    /// Puts other bytes in an entry's place. (Not into its file: results are mapped from that.)
    fn replace(&mut self, call: Call, path: &Path, bytes: &[u8]) {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        self.model.get_mut(&call).unwrap().damaged = true;
    }

    fn open(&mut self, memory: bool, verify: Verify) {
        // The handles of a process on one directory share its memory: the old one goes first.
        self.cache = Options::new().compute_only().unwrap();
        let options = Options::new().verify(verify).memory_bytes(if memory { 1 << 20 } else { 0 });
        self.cache = options.open(self.path).unwrap();
        self.removed = false;
    }

    /// What is on disk is what the map has, and nothing else.
    fn check_files(&self) {
        let mut files = Vec::new();
        let mut directories = vec![self.path.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => directories.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
        }
        let entries = files.iter().filter(|file| file.extension().is_some_and(|end| end == "npy")).count();
        assert_eq!(entries, self.model.len(), "{files:#?}");
        assert!(!files.iter().any(|file| file.starts_with(self.path.join(".npcache/tmp"))), "{files:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn every_result_is_the_one_that_a_plain_map_has(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let mut bench = Bench {
            cache: Options::new().compute_only().unwrap(),
            path: &path,
            model: HashMap::new(),
            removed: false,
            runs: 0,
            held: Vec::new(),
        };
        bench.open(false, Verify::Auto);
        for step in &steps {
            bench.step(step);
            bench.check_files();
        }
        for (buffer, run, call) in &bench.held {
            assert_eq!(buffer.view::<u64>(0).unwrap(), elements(*run, *call).into_dyn(), "{call:?} has changed");
        }
    }
}
