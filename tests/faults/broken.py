"""Takes the library's protections out, one by one, and sees that the test which holds each fails: `make check-broken`.

A test that passes on a library without what it tests holds nothing. The workspace is copied to target/broken, so that
the tests there find that library; it is built with little optimisation. First every test is seen to pass on the copy as
it is. A change whose text is no longer in the source is an error: bring it up to date.

    python tests/faults/broken.py [NAME...]
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "target" / "broken"

CORE = "npcache-core/src/"

# What is taken out: its name; the source file, what stands there and what is put in its place; the test that fails.
PROTECTIONS = [
    (
        "checksum of the data",
        [("entry.rs", "        hash == self.data_hash\n", "        hash == self.data_hash || true\n")],
        "faults/test_corruption.py::test_every_byte_of_a_small_entry_is_missed_when_a_bit_of_it_flips",
    ),
    (
        "checksum of the headers",
        [("entry.rs", "chain(hash, footer_header) != expected", "(false && chain(hash, footer_header) != expected)")],
        "faults/test_corruption.py::test_every_byte_of_a_small_entry_is_missed_when_a_bit_of_it_flips",
    ),
    (
        "key in the entry",
        [("entry.rs", "if tail.get(48) != *key.as_bytes() {", "if false && tail.get(48) != *key.as_bytes() {")],
        "faults/test_corruption.py::test_another_keys_entry_is_missed",
    ),
    (
        "boot that an entry was written in",
        [("cache.rs", "parsed.origin == found &&", "entry::Origin { boot: found.boot, ..parsed.origin } == found &&")],
        "faults/test_reboots.py::test_data_that_a_reboot_left_zero_behind_a_whole_footer_is_found",
    ),
    (
        "inode that an entry was written to",
        [("cache.rs", "parsed.origin == found &&", "(parsed.origin == found || true) &&")],
        "faults/test_corruption.py::test_a_copied_entry_is_verified_and_served",
    ),
    (
        "flight",
        [("cache.rs", "let seat = if self.function.sharing == Sharing::Off {", "let seat = if true {")],
        "test_processes.py::test_sixteen_processes_compute_once",
    ),
    (
        "second look",
        [
            (
                "cache.rs",
                "if !alone || state.may_have_unlocked(word) {",
                "if !alone || (false && state.may_have_unlocked(word)) {",
            )
        ],
        "faults/test_callers.py::test_what_is_stored_between_a_callers_look_and_its_lock_is_not_computed_again",
    ),
    (
        "end of a wait at lock_timeout",
        [("cache.rs", "if rest.is_some_and(|rest| rest.is_zero()) {", "if false {")],
        "test_processes.py::test_after_lock_timeout_a_waiting_process_computes_too",
    ),
    (
        "directory made again after each sweep",
        [("store.rs", "const MAX_SWEPT: usize = 32;", "const MAX_SWEPT: usize = 2;")],
        "faults/test_callers.py::test_clears_without_a_pause_cost_no_result_but_those_they_were_called_during",
    ),
    (
        "name only for what is whole",
        [
            (
                "store.rs",
                "        write(&temporary.file, &origin)?;\n",
                "        if !replace {\n            let _ = temporary.link(&in_parent, leaf);\n        }\n"
                "        write(&temporary.file, &origin)?;\n",
            )
        ],
        "test_processes.py::test_two_hundred_kills_leave_only_whole_entries",
    ),
    (
        "notice of a fork",
        [("fork.rs", 'extern "C" fn in_the_child() {\n', 'extern "C" fn in_the_child() {\n    return;\n')],
        "test_processes.py::test_a_dead_process_holds_no_lock_through_its_children",
    ),
    (
        "epoch of a process",
        [("fork.rs", "    EPOCH.fetch_add(1, Ordering::Relaxed);\n", "")],
        "test_processes.py::test_an_output_that_a_child_inherits_is_not_stored_by_it",
    ),
    (
        "generation of a result",
        [("state.rs", "if self.full_generation(slot) == generation {", "if true {")],
        "test_processes.py::test_what_was_begun_before_a_clear_is_not_stored_after_it",
    ),
    (
        "generation of what is in memory",
        [("memory.rs", "self.generation.agrees(&now(self.slot))", "true || self.generation.agrees(&now(self.slot))")],
        "test_processes.py::test_no_result_outlives_a_clear_however_they_race",
    ),
    (
        "generation before entries are removed",
        [("cache.rs", "        if let Err(e) = raise() {\n", "        if let Err(e) = Ok::<(), Error>(()) {\n")],
        "faults/test_callers.py::test_what_was_begun_before_its_call_was_forgotten_is_not_found_after_it",
    ),
    (
        "permit held until the entry has its name",
        [("store.rs", "        let _permission = permit(", "        permit(")],
        "faults/test_callers.py::test_a_clear_waits_for_who_is_just_giving_an_entry_its_name",
    ),
    (
        "refusal to follow links in a look-up",
        [
            (
                "store.rs",
                "let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;",
                "let flags = flags | OFlags::CLOEXEC;",
            ),
            ("store.rs", "let resolve = ResolveFlags::NO_SYMLINKS;", "let resolve = ResolveFlags::empty();"),
        ],
        "faults/test_corruption.py::test_what_is_no_entry_is_missed_once_and_replaced",
    ),
    (
        "refusal to follow links in a clear",
        [
            (
                "store.rs",
                "let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;",
                "let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;",
            )
        ],
        "faults/test_failures.py::test_clear_follows_no_symlink",
    ),
    (
        "errors of a listing",
        [
            (
                "store.rs",
                "Dir::read_from(directory)?.map(|entry|",
                "Dir::read_from(directory)?.filter(|entry| entry.is_ok()).map(|entry|",
            )
        ],
        "faults/test_system_calls.py::test_each_system_call_may_fail_with_each_error",
    ),
    (
        "second try at letting go of a lock",
        [("state.rs", "const UNLOCKS: u32 = 10;", "const UNLOCKS: u32 = 1;")],
        "faults/test_system_calls.py::test_each_system_call_may_fail_with_each_error",
    ),
    (
        "encoding of function names",
        [
            (
                "store.rs",
                '            let _ = write!(out, "%{byte:02x}");\n        }\n    }\n    if',
                "            out.push(byte as char);\n        }\n    }\n    if",
            )
        ],
        "faults/test_failures.py::test_any_name_stays_inside_the_directory",
    ),
    (
        "blocks of the state page beforehand",
        [
            (
                "state.rs",
                "fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, PAGE_LEN as u64)",
                "rustix::fs::ftruncate(&file, PAGE_LEN as u64)",
            )
        ],
        "faults/test_failures.py::test_a_cache_on_a_full_disk_is_opened_read_and_cleared",
    ),
    (
        "reading of the state page beforehand",
        [("state.rs", "at as u64)).ok()? < piece.len()", "at as u64)).unwrap_or(0) < 0 * piece.len()")],
        "faults/test_failures.py::test_a_state_page_that_was_cut_off_is_not_mapped",
    ),
    (
        "file systems that are not local",
        [
            (
                "store.rs",
                "!SHARED.contains(&(found.f_type as u32))",
                "(true || !SHARED.contains(&(found.f_type as u32)))",
            )
        ],
        "faults/test_hosts.py::test_two_machines_share_a_directory_that_is_not_local",
    ),
    (
        "reading where another machine can take a map away",
        [("cache.rs", "if len < MAP_FROM || !directory.maps {", "if len < MAP_FROM {")],
        "test_filesystems.py::test_on_others_they_are_read",
    ),
    (
        "look at the end of what is read",
        [
            (
                "cache.rs",
                "                entry::check_tail(&tail, stat.stx_size, &self.key).map_err(Fault::Entry)?;\n",
                "",
            )
        ],
        "test_filesystems.py::test_of_a_large_file_that_is_no_entry_only_the_end_is_read",
    ),
    (
        "refusal to follow links to temporaries",
        [
            (
                "store.rs",
                "let (tmp, name) = (self.in_parent(TMP, |_| Ok(()))?.0, temporary_name());",
                "let tmp = openat(&self.root, TMP, OFlags::PATH, Mode::empty());\n"
                "            let made = || self.in_parent(TMP, |_| Ok(())).map(|(tmp, ())| tmp);\n"
                "            let (tmp, name) = (tmp.or_else(|_| made())?, temporary_name());",
            )
        ],
        "faults/test_failures.py::test_without_unnamed_files_named_ones_are_made_behind_no_link",
    ),
    (
        "unlocking of the bounds",
        [("bounds.rs", "        let _ = flock(&admin, FlockOperation::Unlock);\n", "")],
        "faults/test_callers.py::test_a_child_that_was_forked_while_a_bound_was_set_keeps_nobody_from_setting_one",
    ),
    (
        "distrust of entries",
        [("cache.rs", "if !directory.trusts_file(file)? {", "if false {")],
        "test_trust.py::test_a_wrong_array_that_was_forged_whole_is_not_returned",
    ),
    (
        "distrust of directories",
        [("store.rs", "            directory.check_owners()?;\n", "")],
        "test_trust.py::test_a_directory_that_others_could_have_made_is_an_error_when_it_is_opened",
    ),
    (
        "distrust of what a trusting cache remembers",
        [("state.rs", "&& state.directory.trusts_owner() == directory.trusts_owner()", "")],
        "test_trust.py::test_what_a_trusting_cache_of_the_process_has_in_memory_is_not_used",
    ),
    (
        "comparison of an audit",
        [("output.rs", "audit::difference(&stored, &computed, ulps)", "audit::difference(&stored, &stored, ulps)")],
        "test_audit.py::test_a_difference_is_said_once_and_the_stored_result_stays",
    ),
    (
        "name of who computes",
        [("holder.rs", "    slot.pid.store(me.pid, Ordering::Release);\n", "    let _ = me.pid;\n")],
        "test_log.py::test_a_wait_of_over_a_second_tells_whom_it_is_for",
    ),
    (
        "memory of what was said",
        [("log.rs", "if !lock(SAID.get(|_| true, Mutex::default)).insert(what) {", "if false && what.is_empty() {")],
        "test_log.py::test_each_damaged_entry_is_said_once_with_what_is_wrong",
    ),
    (
        "correction of a wrong count",
        [
            (
                "evict.rs",
                "        if self.whole || entries > 0 {\n            let certain",
                "        if false {\n            let certain",
            )
        ],
        "test_bounds.py::test_a_count_that_is_wrong_mends_itself",
    ),
    (
        "counting of what goes before a walk comes to it",
        [("evict.rs", "self.candidates.forget(|name| name.bucket() == bucket);", "")],
        "test_bounds.py::test_what_goes_while_others_are_looked_at_is_counted",
    ),
    (
        "counting of an entry before it is there",
        [
            ("evict.rs", "    tally.add(bucket, room(len));\n", ""),
            (
                "evict.rs",
                "        self.used = true;\n",
                "        self.used = true;\n        self.state.tally().add(self.key.as_bytes()[0], room(self.len));\n",
            ),
        ],
        "test_bounds.py::test_an_entry_is_counted_before_it_is_there",
    ),
    (
        "counting of what this process removed, alone",
        [
            (
                "store.rs",
                "            Err(Errno::NOENT) => Ok(None),\n            Err(e) => Err(e),\n        }\n    }\n\n    /// The names at",
                "            Err(_) => Ok(Some(stat.stx_size)),\n        }\n    }\n\n    /// The names at",
            )
        ],
        "test_bounds.py::test_what_another_process_removed_first_is_not_counted_twice",
    ),
    (
        "uncertainty of what is counted while others store and remove",
        [("evict.rs", "let uncertain = self.changes.0 +", "let uncertain = 0 * self.changes.0 + 0 *")],
        "test_bounds.py::test_what_another_process_has_under_way_is_not_counted_wrongly",
    ),
    (
        "another reading of bounds",
        [("bounds.rs", "return Err(e),\n            other => other.unwrap", "return Ok(bounds),\n            other => other.unwrap")],
        "faults/test_failures.py::test_a_bound_that_could_not_be_read_without_descriptors_holds_afterwards",
    ),
    (
        "room on the disk before a result is written",
        [("publish.rs", "        keep_free(state, self.bounds, encoded.len())?;\n", "")],
        "faults/test_failures.py::test_for_min_free_bytes_entries_go_before_a_result_is_written",
    ),
    (
        "counts beside what may not be read",
        [("evict.rs", "if self.whole || entries > 0 {", "if self.whole {")],
        "faults/test_failures.py::test_a_directory_that_only_others_may_read_lifts_no_bound_and_stops_no_clear",
    ),
    (
        "look before an entry goes",
        [
            (
                "evict.rs",
                "                seen.used <= known.used\n",
                "                true || seen.used <= known.used\n",
            )
        ],
        "test_bounds.py::test_under_lru_what_was_hit_stays_and_the_rest_goes",
    ),
    (
        "time for looking at entries",
        [("evict.rs", "        coarse_now() < self.until\n", "        true || coarse_now() < self.until\n")],
        "test_bounds.py::test_on_a_slow_disk_no_insertion_removes_or_looks_at_what_others_can",
    ),
    (
        "time for removing more than has to go",
        [("evict.rs", "now() < began + RESERVE_WITHIN", "began > 0")],
        "test_bounds.py::test_on_a_slow_disk_no_insertion_removes_or_looks_at_what_others_can",
    ),
    (
        "age at a look-up",
        [("cache.rs", "now.saturating_sub(loaded.created()) > bounds.max_age()", "false")],
        "test_bounds.py::test_what_is_over_age_is_computed_again",
    ),
    (
        "age of what is in memory",
        [("cache.rs", "if now.saturating_sub(buffer.created()) > max_age {", "if false {")],
        "test_bounds.py::test_what_is_over_age_is_computed_again",
    ),
    (
        "bounds that others set meanwhile, for what is in memory",
        [
            (
                "cache.rs",
                "let buffer = if state.bounds_hits() ||",
                "let buffer = if state.known_bounds() != (i64::MAX, false) ||",
            )
        ],
        "test_bounds.py::test_an_age_that_another_process_sets_holds_for_what_is_in_memory",
    ),
]


def copy():
    """The files of the workspace, changed ones only, so that cargo builds no more than it has to."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        source, to = ROOT / name, COPY / name
        if source.is_file() and not (to.exists() and to.read_bytes() == source.read_bytes()):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to)


def build():
    quick = {"OPT_LEVEL": "1", "LTO": "off", "CODEGEN_UNITS": "16", "DEBUG": "0", "INCREMENTAL": "true"}
    environment = {**os.environ, **{f"CARGO_PROFILE_RELEASE_{name}": value for name, value in quick.items()}}
    environment |= {"CARGO_TARGET_DIR": str(COPY / "target"), "RUSTFLAGS": "-Awarnings"}
    command = [os.environ.get("CARGO", "cargo"), "build", "--quiet", "--release", "-p", "npcache-ffi"]
    subprocess.run(command, cwd=COPY, env=environment, check=True)
    soname = COPY / "target" / "release" / "libnpcache.so.1"
    if not soname.exists():
        soname.symlink_to("libnpcache.so")


def passes(test):
    """Whether it does, and its closing line."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{test}"]
    ran = subprocess.run(command, cwd=COPY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = ran.stdout.splitlines()
    if ran.returncode < 0:
        return False, f"it ended by {signal.Signals(-ran.returncode).name}"
    # 1: tests failed. Everything else says nothing about the library.
    if ran.returncode not in (0, 1) or "skipped" in lines[-1]:
        raise SystemExit(f"{test} was not run:\n{ran.stdout}")
    return ran.returncode == 0, next((line for line in lines if line.startswith("E  ")), lines[-1]).strip()


def changed(changes):
    """The sources with these changes, by path."""
    texts = {}
    for name, old, new in changes:
        path = COPY / CORE / name
        text = texts.get(path, path.read_text())
        if text.count(old) != 1:
            raise SystemExit(f"{text.count(old)} places in {CORE}{name} read\n{old}\nBring {__file__} up to date.")
        texts[path] = text.replace(old, new)
    return texts


def main(names):
    chosen = [protection for protection in PROTECTIONS if not names or protection[0] in names]
    copy()
    for _, changes, _ in chosen:
        changed(changes)
    build()
    for test in dict.fromkeys(test for _, _, test in chosen):
        good, line = passes(test)
        if not good:
            raise SystemExit(f"{test} fails on the library as it is: {line}")
    unnoticed = 0
    for name, changes, test in chosen:
        began = time.monotonic()
        try:
            for path, text in changed(changes).items():
                path.write_text(text)
            build()
            good, line = passes(test)
        finally:
            copy()
        unnoticed += good
        verdict = "UNNOTICED by" if good else "noticed by"
        print(f"without {name}: {verdict} {test} ({time.monotonic() - began:.0f} s)\n    {line}", flush=True)
    print(f"broken builds: {len(chosen) - unnoticed} of {len(chosen)} noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
