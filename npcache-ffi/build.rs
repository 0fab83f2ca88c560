//! The shared library's name for the loader, which changes with the ABI, and that it is never unloaded: a forked
//! child calls back into it, and results outlive the handle that made them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnpcache.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
