//! The committed corpus, and for some seconds what becomes of it by chance: what `cargo fuzz` does, without the
//! instrumentation and the nightly toolchain that it needs. The same bytes in every run.

use std::path::Path;
use std::time::{Duration, Instant};

/// How long each target is given. A slow machine tries less.
const SECONDS: Duration = Duration::from_secs(7);

/// Of xorshift64*, by Vigna.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % n.max(1)
    }
}

/// Changes an input at a few places, mostly to bytes of others.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        match random.below(5) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            2 => drop(input.splice(at..end, [])),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(32)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    input
}

fn hold(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "a corpus of {} inputs", files.len());
    let corpus: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let (start, mut executions, mut random) = (Instant::now(), 0u64, Random(1));
    for (file, input) in files.iter().zip(&corpus) {
        executions += 1;
        let held = std::panic::catch_unwind(|| run(input));
        assert!(held.is_ok(), "{}", file.display());
    }
    while start.elapsed() < SECONDS {
        executions += 1;
        let input = mutate(&mut random, &corpus);
        let held = std::panic::catch_unwind(|| run(&input));
        assert!(held.is_ok(), "{target}: {}", input.escape_ascii());
    }
    println!("{target}: {executions} executions");
}

#[test]
fn every_file_is_a_right_entry_or_a_miss() {
    hold("entry", npcache_fuzz::entry::run);
}

#[test]
fn every_sequence_of_arguments_is_encoded_as_the_specification_says() {
    hold("args", npcache_fuzz::args::run);
}

#[test]
fn every_sequence_of_calls_of_the_c_abi_is_sound() {
    hold("abi", npcache_fuzz::abi::run);
}

#[test]
fn every_function_of_the_c_abi_is_called_by_an_operation() {
    let read = |path| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (header, source) = (read("../include/npcache.h"), read("src/abi.rs"));
    let code = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code));
    let code: String = code.collect();
    let before_parentheses = code.split('(').filter_map(|part| part.split([' ', '*', '\n']).next_back());
    // But for types, which stand in parentheses.
    let functions: Vec<_> =
        before_parentheses.filter(|name| name.starts_with("npcache_") && !name.ends_with(')')).collect();
    assert!(functions.len() > 60, "{functions:?}");
    let uncalled: Vec<_> = functions.iter().filter(|name| !source.contains(&format!("{name}("))).collect();
    assert!(uncalled.is_empty(), "{uncalled:?}");
}
