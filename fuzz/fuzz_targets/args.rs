#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| npcache_fuzz::args::run(data));

#[cfg(not(fuzzing))]
fn main() {
    panic!("run it by `cargo fuzz run args`");
}
