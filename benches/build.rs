//! Links libnpcache.so as `make build` leaves it, so that every row measures the product.

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let library = std::env::var("NPCACHE_LIBRARY").unwrap_or(format!("{root}/../target/release"));
    println!("cargo:rerun-if-env-changed=NPCACHE_LIBRARY");
    println!("cargo:rustc-link-search=native={library}");
    println!("cargo:rustc-link-lib=dylib=npcache");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{library}");
}
