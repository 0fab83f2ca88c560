"""Each system call fails in turn, with each error: the array is right, the call has a status, nothing wrong is stored.

`strace` makes them fail in tests/c/calls.c, which says in its trace where what begins. Up to a call that fails all runs
are the same, so a first one tells which calls there are, and the others have one each that fails.
"""

import os
import re
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import driver
import numpy as np
import pytest
from conftest import ROOT, compile_program, need_tool
from driver import Cache
from test_processes import PATIENCE, assert_nothing_unknown, key_bytes, numbers

from .conftest import SOAK_SECONDS

ERRORS = ["EIO", "ENOSPC", "EACCES", "EMFILE", "ENOMEM", "EINTR", "ESTALE"]
# The least that there is to fail; nothing calls ftruncate, write or rename by those names.
NEEDED = set(
    "openat openat2 read pread64 writev pwrite64 mmap linkat renameat fcntl fallocate fstat statx unlinkat getdents64"
    " mkdirat utimensat flock".split()
)
# The test's own, and what has no errors.
LEFT_OUT = {"access", "exit_group", "brk"}

STORED, DAMAGED, MISSING = (1, 12, 8), (2, 20, 16), (3, 28, 24)  # as in calls.c


@pytest.fixture(scope="module")
def program():
    return compile_program(ROOT / "tests" / "c" / "calls.c")


@pytest.fixture
def template(tmp_path):
    """A cache with entries, of which some are damaged."""
    path = tmp_path / "template"
    with Cache(path) as cache:
        for key in STORED + DAMAGED:
            entry = cache.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key)).path
            if key in DAMAGED:
                content = bytearray(entry.read_bytes())
                content[len(content) // 2] ^= 1
                entry.unlink()
                entry.write_bytes(content)
    return path


def run(program, path, *before):
    """What the program said, line by line."""
    command = [*map(str, before), program, path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, f"{' '.join(map(str, command))} ended with {ran.returncode}: {ran.stderr}"
    return [line.split() for line in ran.stdout.splitlines()]


def trace(program, path, log):
    """For each system call: how often it was called before the cache was opened, by then, and by the end."""
    run(program, path, need_tool("strace", "strace"), "-o", log)
    counts, marks = Counter(), []
    for line in log.read_text().splitlines():
        name = line.partition("(")[0]
        if re.fullmatch(r"\w+", name):
            counts[name] += 1
        if "/npcache-mark-" in line:
            marks.append(counts.copy())
    before, opened, end = marks
    called = [name for name in end if end[name] > before[name] and name not in LEFT_OUT]
    return {name: (before[name], opened[name], end[name]) for name in called}


def places(counts, chance):
    """Which calls are to fail: in a soak each, else the first of each part and another; and all from the first on."""
    for name, (before, opened, end) in counts.items():
        for first, last in (before, opened), (opened, end):
            which = range(first + 1, last + 1)
            if len(which) > 2 and not SOAK_SECONDS:
                which = [which[0], chance.choice(which[1:])]
            for n in which:
                yield name, n, False, first == opened
            if last > first:
                yield name, first + 1, True, first == opened


def fail(program, template, path, place, error):
    """Runs the program with that call failing, then without; what is wrong, or None."""
    name, n, onwards, opened = place
    shutil.copytree(template, path)
    # Nothing is interrupted for ever, and a lock that is refused for ever is one that somebody has.
    passing = error == "EINTR" or (name, error) == ("fcntl", "EACCES")
    when = str(n) if not onwards else f"{n}..{n + 3}" if passing else f"{n}+"
    inject = ["-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={when}"]
    said = run(program, path, "strace", "-qq", "-o", "/dev/null", *inject)
    (_, status), *calls = said
    # An error of npcache_new is one of its statuses, but for what a signal may do at any time.
    assert status == "0" or not (opened or (error == "EINTR" and name in ("open", "openat", "openat2", "read"))), said
    allowed = {"0"}
    if name == "mmap":  # then there is no memory for the result either
        allowed |= {str(driver.ERR_FUNCTION), "-9"}
    for call in calls:
        assert call[0] == "clear" or call[1] in allowed, f"{place} {error}: {call}"
    if name == "fcntl" and onwards and opened and not passing:
        # Without a lock to keep a clear from beginning, nothing may be published: it could be older than that clear.
        assert all(call[3] != "0" for call in calls if call[2:3] == [str(driver.COMPUTED)]), calls
    again = run(program, path)
    assert all(call[1] == "0" and (len(call) < 3 or call[3] == "0") for call in again), f"{place} {error}: then {again}"
    with Cache(path) as cache:
        for key in STORED + DAMAGED + MISSING:
            found = cache.call("numbers", "1", key_bytes(key), lambda: 1 / 0)
            assert np.array_equal(found.array, numbers(key))
            assert np.array_equal(np.load(found.path), numbers(key))
            del found
    assert_nothing_unknown(path)
    shutil.rmtree(path)


def test_each_system_call_may_fail_with_each_error(program, template, tmp_path, chance, count):
    shutil.copytree(template, tmp_path / "traced")
    counts = trace(program, tmp_path / "traced", tmp_path / "log")
    assert set(counts) >= NEEDED, f"not called: {NEEDED - set(counts)}"
    faults = [(place, error) for place in places(counts, chance) for error in ERRORS]
    # What a lock is let go of by may fail as well, for want of memory.
    _, opened, end = counts["fcntl"]
    faults += [(("fcntl", n, False, True), "ENOLCK") for n in range(opened + 1, end + 1)]
    chance.shuffle(faults)
    with ThreadPoolExecutor(2 * os.cpu_count()) as pool:
        results = [pool.submit(fail, program, template, tmp_path / str(i), *fault) for i, fault in enumerate(faults)]
        wrong = [str(result.exception()) for result in results if result.exception()]
    count(failed_system_calls=len(faults))
    print(len(counts), "kinds of system calls:", ", ".join(sorted(counts)))
    assert not wrong, f"{len(wrong)} of {len(faults)}:\n" + "\n".join(wrong[:40])


def test_a_kernel_without_openat2_has_names_looked_up_step_by_step_and_no_link_followed(program, template, tmp_path):
    without = [need_tool("strace", "strace"), "-f", "-o", tmp_path / "log", "-e", "inject=openat2:error=ENOSYS"]

    def twice(prepare):
        for copy in tmp_path / "with", tmp_path / "without":
            shutil.copytree(template, copy)
            prepare(copy)
        said = [run(program, tmp_path / "with"), run(program, tmp_path / "without", *without)]
        assert "ENOSYS" in (tmp_path / "log").read_text()
        for copy in tmp_path / "with", tmp_path / "without":
            shutil.rmtree(copy)
        assert said[0] == said[1]
        return said[0]

    def link(copy):
        (copy / "numbers").rename(copy.with_name(copy.name + "-elsewhere"))
        (copy / "numbers").symlink_to(copy.with_name(copy.name + "-elsewhere"))

    origins = [Counter(call[2] for call in twice(prepare) if call[0].isdigit()) for prepare in (lambda _: None, link)]
    found, behind_a_link = (count[str(driver.DISK)] for count in origins)
    assert found >= 2 * len(STORED) and behind_a_link == 0


def test_a_kernel_that_links_by_name_alone_has_entries_stored_all_the_same(program, template, tmp_path):
    by_name = [need_tool("strace", "strace"), "-f", "-qq", "-o", tmp_path / "log", "-e", "trace=linkat"]
    by_name += ["-e", "inject=linkat:error=ENOENT:when=1"]
    calls = run(program, template, *by_name)
    first, *others = (tmp_path / "log").read_text().splitlines()
    assert "AT_EMPTY_PATH" in first and "INJECTED" in first
    assert others and all("/proc/self/fd/" in line for line in others)
    stored = [call for call in calls if call[2:3] == [str(driver.COMPUTED)]]
    assert len(stored) > len(MISSING) and all(call[3] == "0" for call in stored)
