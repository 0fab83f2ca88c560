//! The committed `include/npcache.h` is what cbindgen makes of this crate.

#[test]
fn the_committed_header_is_what_the_code_says() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let config = cbindgen::Config::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_crate(env!("CARGO_MANIFEST_DIR"))
        .with_config(config)
        .generate()
        .expect("cbindgen reads the crate");
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    // Rust's section of a caller's duties, as a C programmer reads it; and cbindgen leaves gaps.
    let mut generated = generated.replace(" * # Safety\n *\n * ", " * The caller sees to it that: ");
    while generated.contains("\n\n\n") {
        generated = generated.replace("\n\n\n", "\n\n");
    }
    let path = format!("{root}/include/npcache.h");
    // `make header` sets this.
    if std::env::var_os("NPCACHE_WRITE_HEADER").is_some() {
        std::fs::write(&path, generated).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let same = committed.lines().zip(generated.lines()).take_while(|(a, b)| a == b).count();
    assert_eq!(
        committed,
        generated,
        "include/npcache.h differs from line {} on: run `make header` and commit it",
        same + 1
    );
}
