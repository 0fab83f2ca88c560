"""What the cache says of itself: each degradation once, with the path and the cause, where NPCACHE_LOG says."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from driver import COMPUTED, DISK, DISK_FULL, NOT_WRITABLE, Cache, Error
from faults.conftest import mounted, mounts, public_path
from faults.test_failures import as_nobody, call, fill, keep_from_nobody, without_tmpfile
from test_processes import finish, go, in_thread, key_bytes, numbers, worker_program, workers

__all__ = ["mounted", "mounts", "public_path", "without_tmpfile", "worker_program", "workers"]  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def said(tmp_path):
    """Opens a cache with a log of its own; the lines in it, without the time."""
    log = tmp_path / "log"

    def read():
        lines = log.read_text().splitlines()
        times = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ npcache\[\d+\] (.*)", line) for line in lines]
        assert all(times), lines
        return [found[1] for found in times]

    read.path = log
    yield read
    # The log is the process's: the next test is not to write to this one.
    Cache(None, log="none").close()


def test_without_the_option_nothing_is_said(cache_path):
    code = """
import sys; sys.path.insert(0, "tests")
from driver import Cache
import numpy, pathlib
with Cache(sys.argv[1]) as cache:
    entry = cache.call("f", "1", b"", lambda: numpy.arange(3)).path
    entry.unlink()
    entry.write_bytes(b"damaged")
    assert cache.call("f", "1", b"", lambda: numpy.arange(3)).origin == 1
"""
    command = [sys.executable, "-c", code, cache_path]
    quiet = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    environment = os.environ | {"NPCACHE_LOG": "stderr"}
    loud = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (loud.returncode, loud.stdout) == (0, "")
    assert re.fullmatch(r"\S+ npcache\[\d+\] warning: .*/f/.*\.npy: it is too short; .*\n", loud.stderr), loud.stderr


def test_a_log_that_cannot_be_written_is_an_error_when_the_cache_is_opened(cache_path):
    with pytest.raises(Error, match="cannot open the log /proc/none"):
        Cache(cache_path, log="/proc/none")
    with pytest.raises(Error, match="stderr"):
        Cache(cache_path, log="")


def test_each_damaged_entry_is_said_once_with_what_is_wrong(cache_path, said):
    with Cache(cache_path, log=said.path) as cache:
        entries = [cache.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key)).path for key in range(2)]
        whole = entries[0].read_bytes()
        for damaged in (whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
            for entry in entries:
                entry.unlink()
                entry.write_bytes(damaged)
            for key in range(2):
                assert call(cache, key) == (COMPUTED, 0)
    # Another damage of the same file is no news.
    assert len(said()) == 2
    for line, entry in zip(said(), entries, strict=True):
        assert line == f"warning: {entry}: it does not end as an entry does; the call is computed again"


@pytest.mark.parametrize("options", [{"verify": "always"}, {"promote": "yes"}], ids=["used", "copied"])
def test_damage_in_the_cache_below_is_said_once(cache_path, tmp_path, said, options):
    with Cache(tmp_path / "site") as site:
        entries = [site.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key)).path for key in range(2)]
    for entry in entries:
        stat = entry.stat()
        entry.chmod(0o644)
        with open(entry, "r+b") as file:
            file.seek(200)
            byte = file.read(1)
            file.seek(200)
            file.write(bytes([byte[0] ^ 1]))
        # Of the long one, only reading all of it shows the damage then.
        os.utime(entry, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with Cache(cache_path, lower=tmp_path / "site", log=said.path, **options) as cache:
        for _ in range(2):
            assert [call(cache, key) for key in range(2)] == 2 * [(COMPUTED, 0)]
            cache.clear()
    assert said() == [f"warning: {entry}: it is damaged; the call is computed again" for entry in entries]


def test_what_cannot_be_read_in_the_cache_below_is_said_once(public_path):
    with Cache(public_path / "site") as site:
        entries = [site.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key)).path for key in range(2)]
    for entry in entries:
        entry.chmod(0)
    (public_path / "own").mkdir()
    (public_path / "own").chmod(0o777)

    def use():
        read, write = os.pipe()
        with Cache(public_path / "own", lower=public_path / "site", log=f"/proc/self/fd/{write}") as cache:
            assert [call(cache, key) for key in range(2)] == 2 * [(COMPUTED, 0)]
        os.close(write)
        return os.read(read, 65536).decode()

    [line] = as_nobody(use).splitlines()
    assert f"warning: {entries[0]}: cannot be read: Permission denied" in line


def test_a_full_disk_is_said_once(mounted, said):
    path = mounted(256)
    with Cache(path, log=said.path) as cache:
        fill(path / "mine")
        for key in range(1, 5):
            assert call(cache, key) == (COMPUTED, DISK_FULL)
    [line] = said()
    assert line.startswith(f"warning: {path}: ") and "No space left" in line


def test_a_disk_with_less_free_than_is_to_stay_free_is_not_said_to_be_full(cache_path, said):
    with Cache(cache_path, log=said.path, min_free_bytes=1 << 59) as cache:
        assert call(cache, 1) == (COMPUTED, DISK_FULL)
    [line] = said()
    assert line.startswith(f"warning: {cache_path}: ") and "less of it is free than min_free_bytes" in line


def test_a_directory_that_cannot_be_written_is_said_once_by_each_process(public_path):
    with Cache(public_path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
    keep_from_nobody(public_path)

    def use():
        read, write = os.pipe()
        # A file that this user may write to.
        with Cache(public_path, log=f"/proc/self/fd/{write}") as cache:
            assert [call(cache, 1), call(cache, 2), call(cache, 3)] == [(DISK, 0)] + 2 * [(COMPUTED, NOT_WRITABLE)]
        with Cache(public_path) as cache:
            assert call(cache, 2) == (COMPUTED, NOT_WRITABLE)
        os.close(write)
        return os.read(read, 65536).decode()

    for _ in range(2):
        [line] = as_nobody(use).splitlines()
        assert f"warning: {public_path}: the directory cannot be written" in line


def test_a_file_system_that_shares_no_pages_is_said_for_information(without_tmpfile, said):
    path = without_tmpfile / "cache"
    with Cache(path, log=said.path) as cache:
        assert [call(cache, 1), call(cache, 1)] == [(COMPUTED, 0), (DISK, 0)]
    with Cache(path, log=said.path, mode="readonly") as cache:
        assert call(cache, 1) == (DISK, 0)
    [line] = said()
    assert line.startswith(f"info: {path}: ")


def test_processes_share_a_log_file_line_by_line(cache_path, tmp_path):
    """Each has 50 damaged entries of its own to tell of."""
    code = """
import sys; sys.path.insert(0, "tests")
from driver import Cache
import numpy
with Cache(sys.argv[1]) as cache:
    for key in range(50):
        args = f"{sys.argv[2]} {key}".encode()
        entry = cache.call("f", "1", args, lambda: numpy.arange(3)).path
        entry.unlink()
        entry.write_bytes(b"damaged")
        cache.call("f", "1", args, lambda: numpy.arange(3))
"""
    log = tmp_path / "log"
    environment = os.environ | {"NPCACHE_LOG": str(log)}
    commands = [[sys.executable, "-c", code, cache_path, str(i)] for i in range(4)]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == 4 * [0]
    lines = log.read_text().splitlines()
    assert len(lines) == 200
    assert all(re.fullmatch(r"\S+Z npcache\[\d+\] warning: .*computed again", line) for line in lines)
    assert len({re.search(r"\[(\d+)\]", line)[1] for line in lines}) == 4


# Whom a call waits for.


def compute(workers, process):
    """Lets a process go, until it computes."""
    go(process)
    while (0, process.pid) not in workers.computed():
        time.sleep(0.01)


def waits(said):
    """The calls that were said to wait, as pairs of the call and the process number."""
    form = r"info: .*: (\S+\(.*\)) waits for process (\d+) on (.+), which began .* s ago"
    found = [re.fullmatch(form, line) for line in said()]
    assert all(found), said()
    assert {line[3] for line in found} <= {os.uname().nodename[:40]}
    return [(line[1], int(line[2])) for line in found]


def test_a_wait_of_over_a_second_tells_whom_it_is_for(workers, said):
    with Cache(workers.path, log=said.path) as cache:
        first, second = workers.start(milliseconds=2500), workers.start(milliseconds=2500)
        compute(workers, first)
        # A wait that is made of many short ones is one; and so is that of a thread.
        patient = in_thread(lambda: cache.begin("numbers", "1", key_bytes(0)))
        call(cache, 0)
        assert np.array_equal(patient().array, numbers(0))
        finish(first)
        assert waits(said) == [("numbers(8 bytes)", first.pid)]
        # Another is said anew.
        cache.clear()
        compute(workers, second)
        call(cache, 0)
        finish(second)
        assert [pid for _, pid in waits(said)] == [first.pid, second.pid]


def test_a_short_wait_is_not_worth_saying(workers, said):
    with Cache(workers.path, log=said.path) as cache:
        other = workers.start(milliseconds=100)
        go(other)
        call(cache, 0)
        finish(other)
    assert said() == []


def test_who_waits_for_a_thread_is_told_of_its_own_process(cache_path, said):
    with Cache(cache_path, log=said.path) as cache:
        output = cache.begin("numbers", "1", key_bytes(0))
        patient = in_thread(lambda: cache.begin("numbers", "1", key_bytes(0), wait_ms=1500))
        assert patient() is None
        assert waits(said) == [("numbers(8 bytes)", os.getpid())]
        output.abandon()


def test_the_process_that_took_over_from_a_killed_one_is_the_one_waited_for(workers, said):
    with Cache(workers.path, log=said.path) as cache:
        killed, heir = workers.start(milliseconds=60_000), workers.start(milliseconds=2500)
        compute(workers, killed)
        killed.kill()
        killed.wait()
        compute(workers, heir)
        call(cache, 0)
        finish(heir)
        assert [pid for _, pid in waits(said)] == [heir.pid]


def test_a_wait_that_lasts_for_lock_timeout_is_a_warning(workers, said):
    with Cache(workers.path, log=said.path, lock_timeout=0.2) as cache:
        other = workers.start(milliseconds=3000)
        compute(workers, other)
        assert call(cache, 0) == (COMPUTED, 0)
        [line] = said()
        finish(other)
    form = rf"warning: .*: numbers\(8 bytes\) has waited for process {other.pid} on .* and is computed here too"
    assert re.fullmatch(form, line)
