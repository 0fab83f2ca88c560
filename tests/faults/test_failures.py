"""No fault of the cache costs the result: the array comes back, and `stored` says why it is not stored."""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import driver
import numpy as np
import pytest
from conftest import need_tool
from driver import (
    CLEARED,
    COMPUTED,
    DISK,
    DISK_FULL,
    IO,
    MEMORY,
    NO_DIRECTORY,
    NOT_WRITABLE,
    READ_ONLY_MODE,
    REMOVED,
    Cache,
    Error,
    Result,
)
from test_processes import (
    Forked,
    assert_nothing_unknown,
    finish,
    go,
    in_thread,
    key_bytes,
    numbers,
    run_python,
    worker_program,
    workers,
)

__all__ = ["worker_program", "workers"]  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NOBODY = 65534


def call(cache, key=0, name="numbers"):
    """Calls what computes `numbers`, and checks the result; (origin, stored)."""
    result = cache.call(name, "1", key_bytes(key), lambda: numbers(key))
    assert np.array_equal(result.array, numbers(key))
    assert (result.path is None) == (result.stored != 0)
    return result.origin, result.stored


def forked_as_nobody(action):
    """A child process, which file permissions hold for, that runs `action`."""

    def run():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return action()

    return Forked(run)


def as_nobody(action):
    """The answer of `action`, run in such a process."""
    return forked_as_nobody(action).answer()


def keep_from_nobody(path):
    """Makes a cache one that such a process cannot write to."""
    if os.geteuid() != 0:
        for directory in [path, *path.rglob("*/")]:
            directory.chmod(0o555)
        for file in path.glob(".npcache/*"):
            file.chmod(0o444)


def fill(path):
    """Takes all the space there is, as a file of the user's; its path."""
    with open(path, "wb", buffering=0) as file:
        for length in (64 << 10, 4096, 1):
            try:
                while True:
                    file.write(bytes(length))
            except OSError as e:
                assert e.errno == errno.ENOSPC
    return path


# What the function does wrong.


def test_a_function_that_fails_stores_nothing_and_the_waiting_compute_in_turn(cache_path):
    order, at_once, most_at_once = [], 0, 0
    lock = threading.Lock()

    def compute():
        nonlocal at_once, most_at_once
        with lock:
            at_once += 1
            most_at_once = max(at_once, most_at_once)
            order.append(len(order))
            mine = order[-1]
        time.sleep(0.1)
        with lock:
            at_once -= 1
        if mine < 3:
            raise ValueError(f"attempt {mine}")
        return np.arange(7)

    with Cache(cache_path) as cache:

        def attempt():
            try:
                return cache.call("fails", "1", b"", compute).array.sum()
            except ValueError as e:
                return str(e)

        answers = [thread() for thread in [in_thread(attempt) for _ in range(6)]]
    assert sorted(map(str, answers)) == ["21"] * 3 + ["attempt 0", "attempt 1", "attempt 2"]
    assert (len(order), most_at_once) == (4, 1)
    assert len(list(cache_path.glob("fails/*/*"))) == 1


def test_a_failure_lets_waiting_processes_compute(workers):
    with Cache(workers.path) as cache:
        output = cache.begin("numbers", "1", key_bytes(0))
        processes = [workers.start(milliseconds=100) for _ in range(4)]
        for process in processes:
            go(process)
        time.sleep(0.2)
        output.write(numbers(0))
        output.commit()
        output.abandon("after all")
        origins = [origin for process in processes for _, origin, _ in finish(process)]
    assert sorted(origins) == [COMPUTED] + 3 * [DISK]


def test_the_code_and_message_of_a_function_reach_the_caller(cache_path):
    def run(function, name=b"solve", version=b"1"):
        out = ctypes.c_void_p()
        callback = driver.Function(function)
        with Cache(cache_path) as cache:
            arguments = (cache._cache, name, version, b"args", 4, callback, None, ctypes.byref(out))
            try:
                driver.check(driver.library.npcache_call, *arguments)
            except Error as e:
                assert out.value is None
                return e
        return Result(out)

    def fails(code, message=None, commit=False):
        def function(user_data, args, length, output):
            assert ctypes.string_at(args, length) == b"args"
            driver.Output(output).write(np.arange(3))
            if message:
                driver.library.npcache_output_fail(output, message.encode())
            if commit:
                driver.library.npcache_output_commit(output)
            return code

        return function

    for code, message, commit in [(7, "no convergence", False), (-3, None, True), (7, "µ" * 1000, True)]:
        error = run(fails(code, message, commit))
        assert (error.status, error.function_code) == (driver.ERR_FUNCTION, code)
        assert "solve" in str(error) and (message or "") in str(error)
    assert run(fails(0, "said and committed", True)).status == driver.ERR_FUNCTION
    assert run(fails(0)).status == driver.ERR_NOT_COMMITTED
    # A callback of ctypes is in no object of the linker's.
    assert "version" in str(run(fails(0, None, True), version=None))
    assert not list(cache_path.glob("solve/*/*"))
    assert run(fails(0, None, True)).stored == 0


# The disk is full.


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_a_full_disk_costs_no_result_and_caching_resumes_with_space(mounted, count, file_system):
    path = mounted(512, file_system)
    with Cache(path) as cache:
        assert call(cache, 8) == (COMPUTED, 0)  # over 256 KiB
        assert call(cache, 16) == (COMPUTED, DISK_FULL)
        outcomes = {key: call(cache, key)[1] for key in range(1, 200) if key % 8}
        assert set(outcomes.values()) == {0, DISK_FULL}
        assert_nothing_unknown(path)
        for key, stored in outcomes.items():
            assert call(cache, key) == ((DISK, 0) if stored == 0 else (COMPUTED, DISK_FULL))
        [mapped] = [entry for entry in path.glob("numbers/*/*.npy") if entry.stat().st_size > 256 << 10]
        mapped.unlink()
        full = [key for key, stored in outcomes.items() if stored]
        assert all(call(cache, key) == (COMPUTED, 0) for key in full[:20])
        assert all(call(cache, key) == (DISK, 0) for key in full[:20])
    assert_nothing_unknown(path)
    count(results_on_a_full_disk=len(full))


def test_a_cache_on_a_full_disk_is_opened_read_and_cleared(mounted):
    path = mounted(512)
    with Cache(path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
    # As after a restart of the machine: the state page is not there, and has no room.
    for page in path.glob(".npcache/state-*"):
        page.unlink()
    filler = fill(path / "mine")
    with Cache(path) as cache:
        assert call(cache, 1) == (DISK, 0)
        assert call(cache, 2) == (COMPUTED, DISK_FULL)
        cache.clear()
        filler.unlink()
        assert call(cache, 1) == (COMPUTED, 0)
        assert call(cache, 2) == (COMPUTED, 0)
        assert call(cache, 2) == (DISK, 0)
    assert not list(path.glob(".npcache/tmp/*"))


def test_for_min_free_bytes_entries_go_before_a_result_is_written(mounted):
    path = mounted(16 << 10)
    with Cache(path, min_free_bytes="1M") as cache:
        for key in range(200):
            assert cache.call("small", "1", key_bytes(key), lambda: np.zeros(16 << 10)).stored == 0
        # More than there is.
        assert cache.call("large", "1", b"", lambda: np.zeros(1 << 19)).stored == 0
        # What others write takes the place of what is here, as well.
        others = path / "mine"
        others.write_bytes(bytes(free_space(path)))
        assert any(cache.call("more", "1", key_bytes(key), lambda: np.zeros(100)).stored == 0 for key in range(100))
        assert free_space(path) >= 1 << 20


def free_space(path):
    found = os.statvfs(path)
    return found.f_bavail * found.f_bsize


def test_without_a_state_page_callers_still_share_and_clears_still_count(mounted):
    path = mounted(512)
    Cache(path).close()
    for page in path.glob(".npcache/state-*"):
        page.unlink()
    filler = fill(path / "mine")
    with Cache(path) as cache:
        filler.unlink()
        output = cache.begin("joined", "1")
        assert in_thread(lambda: cache.begin("joined", "1", wait_ms=50) is None)()
        assert run_python("print(Cache(sys.argv[1]).begin('joined', '1', wait_ms=50))", path) == "None\n"
        cache.clear()
        began = in_thread(lambda: cache.begin("joined", "1", wait_ms=500))()
        output.write(np.arange(3))
        output.commit()
        assert output.end().stored == CLEARED
        # Not the result from before the clear, which it would be given if it had joined that flight.
        assert began is not None, "a call that began after a clear waits for a computation from before it"
        began.abandon()


# The directory cannot be written, or made, or is gone.


def test_a_directory_that_cannot_be_written_is_read(public_path):
    with Cache(public_path) as cache:
        assert call(cache, 1) == call(cache, 8) == (COMPUTED, 0)
    before = sorted(public_path.rglob("*"))
    keep_from_nobody(public_path)

    def use():
        with Cache(public_path) as cache:
            calls = [call(cache, 1), call(cache, 8), call(cache, 2), call(cache, 2)]
            try:
                cache.clear()
            except Error as e:
                return calls, e.status, str(e)

    calls, status, message = as_nobody(use)
    assert calls == [(DISK, 0), (DISK, 0), (COMPUTED, NOT_WRITABLE), (COMPUTED, NOT_WRITABLE)]
    assert status == driver.ERR_IO and str(public_path) in message
    assert sorted(public_path.rglob("*")) == before


def test_a_read_only_file_system_is_read(mounted):
    path = mounted(1024)
    with Cache(path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    with Cache(path) as cache:
        assert call(cache, 1) == (DISK, 0)
        assert call(cache, 2) == (COMPUTED, NOT_WRITABLE)
        outputs = [cache.begin("several", "1", key_bytes(i)) for i in range(3)]
        # Threads still share.
        assert in_thread(lambda: cache.begin("several", "1", key_bytes(0), wait_ms=50) is None)()
        for output in outputs:
            output.abandon()


def test_a_process_that_changed_its_user_stores(public_path):
    if os.geteuid() != 0:
        pytest.skip("only root can change its user")
    path = public_path / "cache"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)

    def use():
        with Cache(path) as cache:
            return call(cache, 1), call(cache, 8), call(cache, 1)

    assert as_nobody(use) == ((COMPUTED, 0), (COMPUTED, 0), (DISK, 0))


def test_an_entry_that_may_not_be_read_is_not_said_to_be_stored(public_path):
    path = public_path / "cache"
    path.mkdir()
    with Cache(path) as cache:
        entry = cache.call("numbers", "1", key_bytes(1), lambda: numbers(1)).path
    entry.chmod(0)
    if os.geteuid() == 0:
        for made in [path, *path.rglob("*")]:
            os.chown(made, NOBODY, NOBODY)
        os.chown(entry, 0, 0)

    def use():
        with Cache(path) as cache:
            return [call(cache, 1) for _ in range(3)]

    calls = as_nobody(use)
    # Either it is replaced, and found from then on, or it is not, and said to be unstored.
    assert calls in ([(COMPUTED, 0), (DISK, 0), (DISK, 0)], [(COMPUTED, NOT_WRITABLE)] * 3, [(COMPUTED, IO)] * 3)


def test_a_directory_that_cannot_be_had_is_named(public_path, tmp_path):
    file = tmp_path / "a file"
    file.write_text("mine")
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / ".npcache-format").write_text("npcache 999\n")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / ".npcache-format").write_text("something else")
    for path, status, words in [
        (file, driver.ERR_DIRECTORY, "is a file"),
        (file / "below", None, ""),
        (file / "far" / "below", None, ""),
        (newer, driver.ERR_DIRECTORY, "newer"),
        (foreign, driver.ERR_DIRECTORY, "no npcache wrote"),
        ("", None, ""),
        ("/proc/npcache", None, ""),
    ]:
        with pytest.raises(Error) as raised:
            Cache(path)
        assert raised.value.status == (status or raised.value.status) < 0
        assert str(path) in str(raised.value) and words in str(raised.value)
    with pytest.raises(Error) as raised:
        Cache(tmp_path / "not there", mode="readonly")
    assert str(tmp_path / "not there") in str(raised.value)

    def refused():
        try:
            Cache(public_path / "new")
        except Error as e:
            return str(e)

    if os.geteuid() != 0:
        public_path.chmod(0o555)
    assert str(public_path / "new") in as_nobody(refused)
    (public_path / "new").mkdir(mode=0o755) if os.geteuid() == 0 else None
    if os.geteuid() == 0:
        message = as_nobody(refused)
        assert str(public_path / "new") in message and "cannot be written" in message


def test_missing_parents_are_made(tmp_path):
    with Cache(tmp_path / "a" / "b" / "c") as cache:
        assert call(cache) == (COMPUTED, 0)


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Cache("relative") as cache:
        monkeypatch.chdir("/")
        assert call(cache) == (COMPUTED, 0)
        path = cache.call("numbers", "1", key_bytes(0), lambda: 1 / 0).path
        assert path.is_relative_to(tmp_path / "relative") and np.array_equal(np.load(path), numbers(0))


def test_a_cache_removed_while_open_computes(cache_path):
    with Cache(cache_path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
        output = cache.begin("numbers", "1", key_bytes(2))
        mapped = cache.call("numbers", "1", key_bytes(8), lambda: numbers(8))
        mapped = cache.call("numbers", "1", key_bytes(8), lambda: 1 / 0)
        subprocess.run(["rm", "-rf", cache_path], check=True)
        output.write(numbers(2))
        output.commit()
        assert output.end().stored == REMOVED
        assert [call(cache, key) for key in (1, 2, 8)] == [(COMPUTED, REMOVED)] * 3
        assert np.array_equal(mapped.array, numbers(8))
        # One who opens it now makes it anew; the old one is not mixed up with it.
        with Cache(cache_path) as new:
            assert call(new, 1) == (COMPUTED, 0)
            assert call(cache, 1) == (COMPUTED, REMOVED)
            assert call(new, 1) == (DISK, 0)
    assert_nothing_unknown(cache_path)


@pytest.mark.parametrize("what", [".npcache", ".npcache/lock", "numbers", "CACHEDIR.TAG"])
def test_a_part_removed_while_open_is_made_again(cache_path, what):
    with Cache(cache_path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
        output = cache.begin("numbers", "1", key_bytes(2))
        subprocess.run(["rm", "-rf", cache_path / what], check=True)
        output.write(numbers(2))
        output.commit()
        assert output.end().array.size
        call(cache, 3)
        for key in (1, 2, 3):
            call(cache, key)
            assert call(cache, key) == (DISK, 0)
        # And processes find each other again.
        output = cache.begin("numbers", "1", key_bytes(4))
        code = "print(Cache(sys.argv[1]).begin('numbers', '1', (4).to_bytes(8, 'little'), 50))"
        assert run_python(code, cache_path) == "None\n"
        output.abandon()


def test_a_state_page_that_was_cut_off_is_not_mapped(cache_path):
    with Cache(cache_path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
    (page,) = cache_path.glob(".npcache/state-*")
    os.truncate(page, 0)

    def read():
        with Cache(cache_path, mode="readonly") as cache:
            return call(cache, 1)

    assert Forked(read).answer() == (DISK, 0)
    with Cache(cache_path) as cache:
        assert call(cache, 1) == (DISK, 0)
    assert page.stat().st_size > 0


def test_a_directory_that_only_others_may_read_lifts_no_bound_and_stops_no_clear(public_path):
    """As `lost+found` is one, where a file system's root holds the cache."""

    def use():
        entries = lambda: len(list(cache_path.glob("f*/*/*.npy")))
        for boot in range(3):
            with Cache(cache_path, max_entries=100) as cache:
                for key in range(300):
                    cache.call(f"f{boot}", "1", key_bytes(key), lambda: np.zeros(10))
            assert entries() <= 105, boot
            # What a restart of the machine does.
            for page in cache_path.glob(".npcache/state-*"):
                page.unlink()
        with Cache(cache_path) as cache:
            if private.name != "lost+found":
                with pytest.raises(Error, match="Permission denied"):
                    cache.clear()
            else:
                cache.clear()
        return entries()

    for name in "lost+found", "e":
        cache_path = public_path / f"with {name}"
        cache_path.mkdir()
        cache_path.chmod(0o777)
        private = cache_path / name
        private.mkdir(0o700)
        if os.geteuid() != 0:
            private.chmod(0)
        assert as_nobody(use) == 0


@contextlib.contextmanager
def without_descriptors():
    """This process has all the descriptors that it may have."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError as e:
        assert e.errno == errno.EMFILE
    yield
    for fd in taken:
        os.close(fd)


def test_without_descriptors_results_come_back(cache_path):
    def use():
        with Cache(cache_path) as cache:
            call(cache, 1)
            with without_descriptors():
                calls = [call(cache, key) for key in (1, 2)]
            return calls + [call(cache, key) for key in (1, 2, 2)]

    assert Forked(use).answer() == [(COMPUTED, IO)] * 2 + [(DISK, 0), (COMPUTED, 0), (DISK, 0)]


def test_a_bound_that_could_not_be_read_without_descriptors_holds_afterwards(cache_path):
    def use():
        with Cache(cache_path) as cache:
            call(cache, 0)

            def bound():
                with Cache(cache_path) as other:
                    other.configure("max_entries", "5")

            Forked(bound).answer()
            with without_descriptors():
                call(cache, 0)
            for key in range(20):
                call(cache, key)
        return len(list(cache_path.glob("numbers/*/*.npy")))

    assert Forked(use).answer() == 5


def test_no_descriptor_is_left_open(cache_path):
    def use():
        for _ in range(10):
            with Cache(cache_path) as cache:
                for key in (1, 4, 8):
                    call(cache, key)
                    path = cache.call("numbers", "1", key_bytes(key), lambda: 1 / 0).path
                    path.unlink()
                    path.write_bytes(b"damaged" * 50_000)
                    call(cache, key)
                cache.begin("numbers", "1", key_bytes(2)).abandon()
                cache.clear()
                with pytest.raises(Error):
                    Cache(cache_path / "CACHEDIR.TAG")

    use()
    before = os.listdir("/proc/self/fd")
    use()
    assert os.listdir("/proc/self/fd") == before


# File systems without unnamed files.


@pytest.fixture
def without_tmpfile(tmp_path):
    """A directory on a file system without O_TMPFILE."""
    bindfs = need_tool("bindfs", "bindfs")
    below, path = tmp_path / "below", tmp_path / "fuse"
    below.mkdir()
    path.mkdir()
    done = subprocess.run([bindfs, "--no-allow-other", below, path], capture_output=True)
    if done.returncode:
        pytest.skip(f"bindfs cannot mount here: {done.stderr.decode()}")
    try:
        with pytest.raises(OSError):
            os.open(path, os.O_TMPFILE | os.O_RDWR)
        yield path
    finally:
        unmount = ["umount", "--lazy", path] if os.geteuid() == 0 else ["fusermount", "-u", "-z", path]
        subprocess.run(unmount, check=True)


def test_without_unnamed_files_named_ones_are_used_and_none_is_left(without_tmpfile):
    path = without_tmpfile / "cache"
    with Cache(path) as cache:
        for key in range(20):
            assert call(cache, key) == (COMPUTED, 0)
        for key in range(20):
            assert call(cache, key) == (DISK, 0)
        # A damaged one is replaced.
        entry = cache.call("numbers", "1", key_bytes(1), lambda: 1 / 0).path
        entry.unlink()
        entry.write_bytes(b"damaged")
        assert call(cache, 1) == (COMPUTED, 0)
        output = cache.begin("numbers", "1", key_bytes(99))
        cache.clear()
        output.write(numbers(99))
        output.commit()
        assert output.end().stored == CLEARED
    assert_nothing_unknown(path)
    assert not list(path.glob("numbers/??/*"))


@pytest.mark.parametrize("linked", [".npcache", ".npcache/tmp"])
def test_without_unnamed_files_named_ones_are_made_behind_no_link(without_tmpfile, tmp_path, linked):
    path, outside = without_tmpfile / "cache", tmp_path / "outside"
    outside.mkdir()
    with Cache(path) as cache:
        assert call(cache, 1) == (COMPUTED, 0)
    shutil.rmtree(path / linked)
    (path / linked).symlink_to(outside)
    untouched = outside.stat().st_mtime_ns
    with Cache(path) as cache:
        assert [call(cache, key) for key in (2, 3)] == [(COMPUTED, IO)] * 2
    assert outside.stat().st_mtime_ns == untouched


def test_without_unnamed_files_what_a_kill_leaves_is_collected(without_tmpfile, worker_program):
    from test_processes import Workers

    workers = Workers(worker_program, without_tmpfile / "cache")
    left = 0
    for run in range(40):
        process = workers.start(keys=(1000 * run, 1000 * run + 1000))
        go(process)
        time.sleep(0.005 + 0.001 * run)
        process.kill()
        process.communicate()
        left += len(list(workers.path.glob(".npcache/tmp/*")))
    with Cache(workers.path) as cache:
        assert not list(workers.path.glob(".npcache/tmp/*"))
        for key, _ in workers.computed():
            begun = cache.begin("numbers", "1", key_bytes(key))
            if isinstance(begun, Result):
                assert np.array_equal(begun.array, numbers(key))
            else:
                begun.abandon()
    assert_nothing_unknown(workers.path)
    assert left > 0, "no kill left a temporary: this test tests nothing"


def test_temporaries_of_dead_processes_are_collected_at_the_next_opening(cache_path):
    with Cache(cache_path) as cache:
        call(cache)
    tmp = cache_path / ".npcache" / "tmp"
    tmp.mkdir(exist_ok=True)
    (tmp / "12345-1700000000-0").write_bytes(b"half an entry")
    alive = tmp / "12345-1700000000-1"
    with open(alive, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Cache(cache_path):
            assert list(tmp.iterdir()) == [alive]
    with Cache(cache_path):
        assert list(tmp.iterdir()) == []


# Modes of a run.


def test_mode_readonly_finds_and_does_not_store(cache_path, monkeypatch):
    with Cache(cache_path) as cache:
        call(cache, 1)
    before = sorted(cache_path.rglob("*"))
    monkeypatch.setenv("NPCACHE_MODE", "readonly")
    with Cache(cache_path) as cache:
        assert call(cache, 1) == (DISK, 0)
        assert call(cache, 2) == call(cache, 2) == (COMPUTED, READ_ONLY_MODE)
        with pytest.raises(Error, match="readonly"):
            cache.clear()
    assert sorted(cache_path.rglob("*")) == before


def test_mode_refresh_computes_and_replaces(cache_path, monkeypatch):
    with Cache(cache_path) as cache:
        cache.call("f", "1", b"", lambda: np.arange(3))
    monkeypatch.setenv("NPCACHE_MODE", "refresh")
    with Cache(cache_path) as cache:
        for n in (4, 5):
            result = cache.call("f", "1", b"", lambda n=n: np.arange(n))
            assert (result.array.size, result.origin, result.stored) == (n, COMPUTED, 0)
    monkeypatch.delenv("NPCACHE_MODE")
    with Cache(cache_path) as cache:
        assert cache.call("f", "1", b"", lambda: 1 / 0).array.size == 5
    assert_nothing_unknown(cache_path)


def test_mode_off_and_no_directory_compute(cache_path, monkeypatch):
    with Cache(None) as cache:
        assert call(cache, 1) == call(cache, 1) == (COMPUTED, NO_DIRECTORY)
    monkeypatch.setenv("NPCACHE_MODE", "off")
    with Cache(cache_path) as cache:
        assert call(cache, 1) == call(cache, 1) == (COMPUTED, NO_DIRECTORY)
        cache.clear(1)
    assert not cache_path.exists()
    monkeypatch.setenv("NPCACHE_MODE", "fast")
    with pytest.raises(Error, match="NPCACHE_MODE.*readonly"):
        Cache(cache_path)


# What is the user's.


def test_clear_leaves_the_users_files_and_removing_names_them(cache_path):
    with Cache(cache_path) as cache:
        entry = cache.call("numbers", "1", key_bytes(1), lambda: numbers(1)).path
        call(cache, 2, "others")
        mine = {
            cache_path / "notes.txt",
            cache_path / "mine" / "data.npy",
            cache_path / "ab" / ("0" * 64 + ".npy"),
            entry.parent.parent / "README",
            entry.parent / "copy.npy",
            entry.with_name("A" * 64 + ".npy"),
            entry.with_name(entry.name + ".bak"),
            cache_path / "empty" / ".keep",
        }
        for path in mine:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"mine")
        (cache_path / "empty too").mkdir()
        cache.clear()
        assert {path for path in mine if path.read_bytes() == b"mine"} == mine
        assert (cache_path / "empty too").is_dir()
        assert not entry.exists() and not (cache_path / "others").exists()
        with pytest.raises(Error) as raised:
            cache.clear(1)
        assert raised.value.status == driver.ERR_NOT_EMPTY
        assert "notes.txt" in str(raised.value) and str(cache_path) in str(raised.value)
        assert {path for path in mine if path.exists()} == mine
        # It stays a cache.
        assert call(cache, 1) == (COMPUTED, 0) and call(cache, 1) == (DISK, 0)
        for path in [*cache_path.glob("*")]:
            if path.name not in ("CACHEDIR.TAG", ".npcache", ".npcache-format"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        cache.clear(1)
        assert not cache_path.exists()
        assert call(cache, 1) == (COMPUTED, REMOVED)


def test_clear_follows_no_symlink(tmp_path, cache_path):
    outside = tmp_path / "outside"
    with Cache(outside) as cache:
        for key in (1, 2, 8):
            call(cache, key)
    entries = sorted(outside.glob("numbers/*/*.npy"))
    contents = [entry.read_bytes() for entry in entries]
    with Cache(cache_path) as cache:
        call(cache, 3, "local")
        [shard] = cache_path.glob("local/*")
        (cache_path / "linked").symlink_to(outside / "numbers")
        (shard.parent / "00").symlink_to(entries[0].parent)
        (shard.parent / "zz").symlink_to(outside)
        (shard / entries[0].name).symlink_to(entries[0])
        cache.clear()
        cache.clear_function("linked")
        cache.clear_function("local")
        with pytest.raises(Error):
            cache.clear(1)
    assert [entry.read_bytes() for entry in entries] == contents
    assert (cache_path / "linked").is_symlink()


def test_a_linked_function_directory_does_not_bring_back_what_was_cleared(tmp_path, cache_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Cache(cache_path) as cache:
        (cache_path / "numbers").symlink_to(elsewhere)
        stored = call(cache, 1)[1]
        cache.clear()
        assert call(cache, 1)[0] == COMPUTED, f"found after a clear (stored was {stored})"


NAMES = [
    *("a/b", "a", "a%2fb", "../escape", "../../escape", "..", ".", "/absolute", "a/../../b", ".npcache"),
    *(".npcache-format", "CACHEDIR.TAG", ".npcache/lock", ".npcache/tmp", "a\nb", " ", "größe µ", "-rf", "*", "~"),
    *("C:\\x", "x" * 255, "x" * 256, "x" * 4096, "y/" * 2048, "00", "con.", "a.", "%", "%2e"),
]


def test_any_name_stays_inside_the_directory(tmp_path):
    path = tmp_path / "around" / "cache"
    with Cache(path) as cache:
        directories = set()
        for i, name in enumerate(NAMES):
            assert call(cache, 1, name) == (COMPUTED, 0), name
            result = cache.call(name, "1", key_bytes(1), lambda: 1 / 0)
            assert result.path.parent.parent.parent == path, name
            assert len(directories := directories | {result.path.parent.parent}) == i + 1, name
        assert_nothing_unknown(path)
        assert os.listdir(tmp_path) == ["around"] and os.listdir(tmp_path / "around") == ["cache"]
        cache.clear_function("a/b")
        assert call(cache, 1, "a") == (DISK, 0) and call(cache, 1, "a/b") == (COMPUTED, 0)
        for name in ("", "x" * 4097):
            with pytest.raises(Error, match="1 to 4096 bytes"):
                call(cache, 1, name)
        cache.clear(1)
    assert os.listdir(tmp_path / "around") == []


def test_entries_have_the_permissions_that_the_umask_leaves(tmp_path):
    for umask in (0o022, 0o077, 0o000):
        old = os.umask(umask)
        try:
            with Cache(tmp_path / f"{umask:o}") as cache:
                path = cache.call("f", "1", b"", lambda: np.arange(3)).path
            assert stat.S_IMODE(path.stat().st_mode) == 0o444 & ~umask
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o777 & ~umask
        finally:
            os.umask(old)


def test_a_directory_that_is_made_is_for_the_group_and_one_that_was_there_stays_as_it_is(tmp_path):
    made, there = tmp_path / "parent" / "made", tmp_path / "there"
    old = os.umask(0o022)
    try:
        there.mkdir()
        for path in (made, there):
            Cache(path, umask="group").close()
    finally:
        os.umask(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (made, made.parent, there)] == [0o2775, 0o755, 0o755]


@pytest.mark.parametrize("group_first", [True, False])
def test_what_a_handle_makes_is_for_the_group_only_if_it_was_opened_so(cache_path, group_first):
    old = os.umask(0o077)
    try:
        with Cache(cache_path, umask="group" if group_first else "process") as first:
            with Cache(cache_path, umask="process" if group_first else "group") as second:
                ours, own = (first, second) if group_first else (second, first)
                paths = [ours.call("ours", "1", b"", lambda: np.arange(3)).path]
                paths += [own.call("own", "1", b"", lambda: np.arange(3)).path]
    finally:
        os.umask(old)
    modes = [[stat.S_IMODE(part.stat().st_mode) for part in (path, path.parent)] for path in paths]
    # What is made below a directory that is for the group has the bit that gives new files its group.
    assert modes == [[0o444, 0o2775], [0o400, 0o2700 if group_first else 0o700]]


def test_handles_for_the_group_and_for_oneself_share_results_locks_and_clears(cache_path, monkeypatch):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", "1M")
    with Cache(cache_path) as own, Cache(cache_path, umask="group") as ours:
        for one, other in [(own, ours), (ours, own)]:
            output = one.begin("numbers", "1", key_bytes(1))
            assert other.begin("numbers", "1", key_bytes(1), wait_ms=0) is None
            waiting = in_thread(lambda other=other: call(other, 1))
            output.write(numbers(1))
            output.commit()
            assert output.end().stored == 0
            assert waiting() == (DISK, 0)
            call(other, 1)
            assert [call(cache, 1)[0] for cache in (one, other)] == [MEMORY, MEMORY]
            begun_before = one.begin("numbers", "1", key_bytes(2))
            other.clear()
            begun_before.write(numbers(2))
            begun_before.commit()
            assert begun_before.end().stored == CLEARED
            assert [call(cache, 1)[0] for cache in (one, other)] == [COMPUTED, DISK]
            one.clear()


def test_a_limit_on_the_size_of_files_costs_the_storing_and_not_the_process(cache_path):
    """Past the limit a write is a signal that kills: it is not tried."""
    script = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, other programs do not
sys.path.insert(0, {str(Path(driver.__file__).parent)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
import numpy as np
from driver import Cache
with Cache({str(cache_path)!r}) as cache:
    for length in (10, 300_000, 10):
        result = cache.call("numbers", "1", bytes([length % 256]), lambda: np.arange(length))
        print(result.stored, int(result.arrays[0].sum()))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr}"
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["0", "5", "0"], ran.stdout
