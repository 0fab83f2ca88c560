#!/usr/bin/env bash
# The checks that take long, or need a nightly toolchain: `make check-deep`, or `tests/check_deep.sh PART…` for some.
# The fuzzers and the sanitizers need rustup's nightly toolchain. Other tools are Debian's, which it installs as root,
# components that rustup adds, or crates, which go into target/tools.
set -eu -o pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$root/target/deep
nightly=${NIGHTLY:-nightly}
host=$(rustc --print host-tuple)
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

need_component() { # COMPONENT TOOLCHAIN
    rustup component add --toolchain "$2" "$1" 2> /dev/null || { echo "rustup cannot add $1 to $2"; exit 1; }
}

c_program() { # PROGRAM, FOLDER OF THE LIBRARY, FLAGS OF THE COMPILER…
    local program=$2/$1 source=tests/c/$1.c library=$2
    shift 2
    ln -sf libnpcache.so "$library/libnpcache.so.1"
    cc -std=c99 -g -O1 -Iinclude "$source" -o "$program" "-L$library" "-Wl,-rpath,$library,--build-id" "$@" \
        -lnpcache -lpthread -lm
    rm -rf "$library/run"
    mkdir "$library/run"
    "$program" "$library/run"
}

# Licences, duplicates and sources of what is depended on: deny.toml.
deny() {
    need_crate cargo-deny
    cargo deny check licenses bans sources
}

# Every order in which threads of a flight take its mutexes and wake each other, up to three preemptions.
flights() {
    # Optimised, since what opens a cache needs more of a stack otherwise than loom's threads have.
    CARGO_PROFILE_DEV_OPT_LEVEL=1 LOOM_MAX_PREEMPTIONS=3 RUSTFLAGS="--cfg loom" \
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

# The C ABI beside that of the last release: what was there is there still, and as it was. Before the first, beside that of the
# commit that gave the ABI its version.
abi() {
    need abidiff abigail-tools
    local version since
    version=$(grep -o "npcache_abi_version() == [0-9]*" CHANGELOG.md | head -1)
    since=$(git describe --tags --abbrev=0 2> /dev/null ||
        git log --reverse --format=%H -S "$version" -- CHANGELOG.md | sed -n 1p)
    echo "the C ABI since $(git log -1 --format='%h, %s' "$since")"
    rm -rf "$target/released"
    git worktree prune
    git worktree add --quiet --detach "$target/released" "$since"
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

sanitized() { # SANITIZER, ARGUMENTS OF CARGO…
    local sanitizer=$1
    shift
    CARGO_PROFILE_DEV_OPT_LEVEL=1 RUSTFLAGS="-Zsanitizer=$sanitizer" \
        cargo "+$nightly" "$@" --quiet --target "$host" --target-dir "$target/$sanitizer"
}

# The tests of threads in one process, and the C programs, under the thread sanitizer. The standard library is instrumented as
# well: else what its locks, channels and OnceLock order is not seen, and what they protect is reported. So there is nothing to
# suppress. The C programs get the runtime that the library was made for, not their compiler's. That a race in the library is
# seen is tried as well.
thread() {
    local built=$target/thread/$host/debug runtime
    need_component rust-src "$nightly"
    sanitized thread test -Zbuild-std --package npcache-core --lib --test memory --test model --test statistics --test bounds
    sanitized thread build -Zbuild-std --package npcache-ffi
    runtime=$(rustc "+$nightly" --print sysroot)/lib/rustlib/$host/lib/librustc-nightly_rt.tsan.a
    for program in abi threads; do
        c_program "$program" "$built" -fsanitize=thread -nodefaultlibs -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive \
            -Wl,--export-dynamic -lc -lgcc_s
    done
    if "$built/threads" race 2> "$built/race" || ! grep -q "data race.*npcache_core" "$built/race"; then
        echo "a race in the library was not seen"
        return 1
    fi
}

# The core's tests and the C programs, both they and the library under the address sanitizer.
address() {
    # Processes of the tests exit with a cache open, which is no leak.
    ASAN_OPTIONS=detect_leaks=0 sanitized address test --package npcache-core --tests
    sanitized address build --package npcache-ffi
    for program in abi threads; do
        c_program "$program" "$target/address/$host/debug" -fsanitize=address -fno-omit-frame-pointer
    done
}

# The lines that the Rust tests, the C programs and those tests run that cross a process, per file and in total; every line with
# its count in lines.txt. What a process that is killed ran is not counted.
coverage() {
    local hosts=(tests/test_{audit,bounds,cli,filesystems,log,lower,processes,trust}.py tests/faults/test_{callers,failures}.py)
    need_component llvm-tools "$(rustup show active-toolchain | cut -d " " -f 1)"
    local built=$target/coverage tools objects
    tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
    rm -rf "$built/counts"
    (
        export RUSTFLAGS="-Cinstrument-coverage" CARGO_TARGET_DIR=$built LLVM_PROFILE_FILE=$built/counts/%p-%m.profraw
        cargo test --quiet --workspace
        cargo build --quiet --workspace
        c_program abi "$built/debug"
        c_program threads "$built/debug"
        TESTED_LIBRARY=$built/debug/libnpcache.so target/venv/bin/python -m pytest -q "${hosts[@]}"
        cargo test --workspace --no-run 2>&1 | sed -n "s/.*Executable.*(\(.*\))$/--object=\1/p" > "$built/objects"
    )
    "$tools/llvm-profdata" merge --sparse --failure-mode=all "$built"/counts/*.profraw --output "$built/counts/all"
    mapfile -t objects < "$built/objects"
    set -- "$built/debug/libnpcache.so" "--object=$built/debug/npcache" "${objects[@]}" \
        "--instr-profile=$built/counts/all" --ignore-filename-regex="/registry/|/rustc/|/tests/|^$built"
    "$tools/llvm-cov" show "$@" > "$built/lines.txt"
    "$tools/llvm-cov" report "$@" --show-functions=false --show-region-summary=false --show-branch-summary=false
}

[ $# -gt 0 ] || set -- deny flights abi memcheck thread address coverage fuzz
for part in "$@"; do
    start=$SECONDS
    "$part"
    echo "$part: passed in $((SECONDS - start)) s"
done
