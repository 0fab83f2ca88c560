#!/usr/bin/env bash
# The checks that take long, or need a nightly toolchain: `make check-deep`, or `tests/check_deep.sh PART…` for some.
# The fuzzers need rustup's nightly toolchain. Other tools are Debian's, which it installs as root, or crates, which go into
# target/tools.
set -eu -o pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$root/target/deep
nightly=${NIGHTLY:-nightly}
seconds=${SECONDS_EACH:-60}
export PATH=$root/target/tools/bin:$PATH

need() { # PROGRAM PACKAGE
    command -v "$1" > /dev/null && return
    [ "$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq --yes --no-install-recommends "$2" > /dev/null
    command -v "$1" > /dev/null || { echo "$1 is missing: install the package $2"; exit 1; }
}

need_crate() { # PROGRAM
    command -v "$1" > /dev/null || cargo install --quiet --locked --root target/tools "$1"
}

# Licences, duplicates and sources of what is depended on: deny.toml.
deny() {
    need_crate cargo-deny
    cargo deny check licenses bans sources
}

# Every order in which threads of a flight take its mutexes and wake each other, up to three preemptions.
flights() {
    LOOM_MAX_PREEMPTIONS=3 RUSTFLAGS="--cfg loom" \
        cargo test --quiet --package npcache-core --lib --target-dir "$target/loom" flight
}

# The fuzzers, each for a while, under the address sanitizer. What they find is left in fuzz/artifacts.
fuzz() {
    need_crate cargo-fuzz
    for name in entry args abi; do
        mkdir -p "$target/corpus/$name"
        cargo "+$nightly" fuzz run "$name" "$target/corpus/$name" "fuzz/corpus/$name" --target-dir "$target/fuzz" -- \
            -max_total_time="$seconds" -timeout=60 -max_len=1400 -print_final_stats=1 2>&1 |
            tee "$target/$name.log" | grep -E "^Done|panicked|ERROR|stat::number_of_executed"
    done
}

# The C ABI beside that of the last release: what was there is there still, and as it was.
abi() {
    need abidiff abigail-tools
    local tag
    tag=$(git describe --tags --abbrev=0 2> /dev/null) || { echo "nothing to compare with: there is no tag yet"; return; }
    rm -rf "$target/released"
    git worktree prune
    git worktree add --quiet --detach "$target/released" "$tag"
    for source in "$target/released" "$root"; do
        (cd "$source" && cargo build --quiet --package npcache-ffi --target-dir "$target/abi")
        cp "$target/abi/debug/libnpcache.so" "$target/$(basename "$source").so"
    done
    abidiff --no-added-syms --suppressions tests/c/abi.supp "$target/released.so" "$target/$(basename "$root").so"
}

# The C and C++ programs under valgrind.
memcheck() {
    need valgrind valgrind
    target/venv/bin/python -m pytest tests -k valgrind
}

[ $# -gt 0 ] || set -- deny flights abi memcheck fuzz
for part in "$@"; do
    start=$SECONDS
    "$part"
    echo "$part: passed in $((SECONDS - start)) s"
done
