"""A cache that is bounded, between processes that insert and are killed; and what a hit notes of its use."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import LIBRARY, ROOT, need_tool
from driver import COMPUTED, DISK, MEMORY, Cache
from keys_reference import key
from test_processes import assert_nothing_unknown, run_python

# Python 3.12 and later warn of what the first test is about.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NPCACHE = LIBRARY.parent / "npcache"
BLOCK = 4096
MAX_BYTES = 16 << 20
LARGEST = 64 << 10
UNSTORED_TOO_LARGE = 11
PATIENCE = 120

# The counts in the state page: npcache-core/src/evict.rs.
TALLY_AT, BUCKETS = 3072, 256


def entries(path):
    return list(path.glob("[!.]*/??/*.npy"))


def usage(path):
    """Bytes in blocks of 4 KiB, and entries."""
    rooms = [-(-entry.stat().st_size // BLOCK) * BLOCK for entry in entries(path)]
    return np.array([sum(rooms), len(rooms)])


def counted(path):
    """Bytes and entries as all processes count them together, and when the bucket was walked through that waits longest."""
    (page,) = path.glob(".npcache/state-*")
    with page.open("rb") as file:
        file.seek(TALLY_AT)
        walked = struct.unpack(f"={BUCKETS}I", file.read(4 * BUCKETS))
        buckets = np.array(list(struct.iter_unpack("=qiI", file.read(16 * BUCKETS))))
    return buckets[:, :2].sum(axis=0), min(walked)


def result(seed):
    """From 1 to 62 KiB, and its numbers tell which it is."""
    return np.full(random.Random(seed).randrange(128, 8000), seed)


def insert(path, first, counts, slot):
    """Inserts until it is killed. `counts`: what was stored and what was not, a pair for each who inserts at once."""
    with Cache(path, max_bytes=MAX_BYTES) as cache:
        for seed in range(first, first + 10**6):
            stored = cache.call(f"f{seed % 3}", "1", str(seed).encode(), lambda seed=seed: result(seed)).stored
            assert stored in (0, UNSTORED_TOO_LARGE), stored
            counts[2 * slot + (stored != 0)] += 1


def halt(processes):
    """Stops all, so that what is on disk is what was there at one moment."""
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    for process in processes:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "one ended by itself"


def test_eight_processes_that_are_killed_keep_the_bound_and_the_counts_mend(tmp_path, capsys):
    path, chance = tmp_path / "cache", random.Random(1)
    context = multiprocessing.get_context("fork")
    counts = context.RawArray("q", 16)
    started, kills, most = 0, 0, 0

    def start(slot):
        nonlocal started
        started += 1
        process = context.Process(target=insert, args=(path, started * 10**6, counts, slot), daemon=True)
        process.start()
        return process

    processes = [start(slot) for slot in range(8)]
    began = time.monotonic()
    while kills < 40 or sum(counts[::2]) < 4000:
        assert time.monotonic() < began + PATIENCE, f"{kills} kills, {list(counts)}"
        time.sleep(chance.uniform(0, 0.2))
        slot = chance.randrange(8)
        processes[slot].kill()
        processes[slot].join()
        kills += 1
        halt(processes[:slot] + processes[slot + 1 :])
        most = max(most, usage(path)[0])
        for process in processes[:slot] + processes[slot + 1 :]:
            os.kill(process.pid, signal.SIGCONT)
        processes[slot] = start(slot)
    for process in processes:
        process.kill()
        process.join()

    here = usage(path)
    assert max(most, here[0]) <= MAX_BYTES * 1.05 + LARGEST
    assert here[0] > MAX_BYTES / 2, "it is in use"
    assert_nothing_unknown(path)
    subprocess.run([NPCACHE, "verify", "-C", path], check=True, stdout=subprocess.DEVNULL)
    for entry in entries(path):
        array = np.load(entry)
        assert np.array_equal(array, result(int(array[0]))), entry

    # Who is killed leaves an entry or two counted wrongly, and walks mend that all the time.
    after_kills = counted(path)[0]
    assert abs(after_kills - here)[1] <= kills / 2, f"counted {after_kills}, there are {here}"
    # Now the counts are wrong for sure.
    for entry in entries(path)[::10]:
        entry.unlink()
    assert abs(counted(path)[0] / usage(path) - 1).min() > 0.05
    # A publication walks on now and then; with room for all, nothing else changes the counts.
    before, published = int(time.time()), 0
    with Cache(path, max_bytes="1G") as cache:
        while counted(path)[1] <= before:
            assert published < 20_000, "not all buckets were walked through"
            cache.call("g", "1", str(published).encode(), lambda: np.zeros(10))
            published += 1
        # But for an entry or two of a kill, until it is 10 s that nobody ended what it had under way.
        assert abs(counted(path)[0] - usage(path))[1] <= kills
        while abs(counted(path)[0] / usage(path) - 1).max() >= 0.01:
            assert time.monotonic() < began + 2 * PATIENCE, f"counted {counted(path)[0]}, there are {usage(path)}"
            for _ in range(200):
                cache.call("g", "1", str(published).encode(), lambda: np.zeros(10))
                published += 1

    stats = json.loads(subprocess.check_output([NPCACHE, "stats", "--json", "-C", path]))
    assert stats["evicted"] > 1000
    with capsys.disabled():
        print(
            f"\n{sum(counts[::2])} stored, {sum(counts[1::2])} not, {stats['evicted']} evicted, {kills} kills;"
            f" at most {most / MAX_BYTES - 1:+.2%} over the bound; counted - there after the kills:"
            f" {after_kills - here} (bytes, entries), after {published} publications: {counted(path)[0] - usage(path)}"
        )


def test_what_goes_while_others_are_looked_at_is_counted(tmp_path):
    # In two buckets, so that the way through one takes several looks.
    in_two = [seed for seed in range(160_000) if int(key("f", "1", [], b"%d" % seed)[:2], 16) < 2]
    wrong = []
    with Cache(tmp_path, max_entries=400) as cache:
        for i, seed in enumerate(in_two):
            cache.call("f", "1", b"%d" % seed, lambda: np.zeros(10))
            if i % 20 == 19:
                wrong.append(abs(counted(tmp_path)[0] - usage(tmp_path))[1])
    # The time that an entry was made at is known to 65 us, so one may be taken for older than a walk.
    assert len(in_two) > 1000
    assert max(wrong) <= 2, wrong


def test_a_count_that_is_wrong_mends_itself(tmp_path):
    with Cache(tmp_path, max_entries=10_000) as cache:
        for i in range(300):
            cache.call("f", "1", b"%d" % i, lambda: np.zeros(10))
        for entry in entries(tmp_path)[::2]:
            entry.unlink()
        assert counted(tmp_path)[0][1] == 300
        before = int(time.time())
        for i in range(20_000):
            cache.call("g", "1", b"%d" % i, lambda: np.zeros(10))
            if counted(tmp_path)[1] > before:
                break
        assert abs(counted(tmp_path)[0] / usage(tmp_path) - 1).max() < 0.01


INSERT = """
import sys
import numpy as np
from driver import Cache

with Cache(sys.argv[1]) as cache:
    cache.call("new", "1", b"", lambda: np.zeros(10))
"""


def injecting(call, what):
    """A process that inserts once, with what strace does to a system call of it."""
    strace = [need_tool("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:{what}", sys.executable, "-c", INSERT]
    return lambda path: subprocess.Popen([*strace, *inject, path], cwd=ROOT / "tests")


def test_an_entry_is_counted_before_it_is_there(cache_path):
    with Cache(cache_path, max_entries=100) as cache:
        cache.call("f", "1", b"", lambda: np.zeros(10))
    with injecting("linkat", "delay_enter=3000000")(cache_path) as inserting:
        deadline = time.monotonic() + PATIENCE
        while counted(cache_path)[0][1] < 2 and inserting.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert usage(cache_path)[1] == 1, "it has its name already"
    assert inserting.returncode == 0
    assert list(counted(cache_path)[0]) == list(usage(cache_path)) == [2 * BLOCK, 2]


@pytest.mark.parametrize(("call", "delay"), [("linkat", "delay_enter"), ("unlinkat", "delay_exit")])
def test_what_another_process_has_under_way_is_not_counted_wrongly(cache_path, call, delay):
    """Between counting an entry and its link, or its unlink and counting that, there is a moment, which strace makes a long
    one. Meanwhile all that is there is looked at, many times."""
    with Cache(cache_path) as cache:
        for i in range(50):
            cache.call("f", "1", b"%d" % i, lambda: np.zeros(10))
        cache.configure("max_entries", "50")
        deadline = time.monotonic() + PATIENCE
        with injecting(call, f"{delay}=5000000")(cache_path) as inserting:
            # It has removed what goes: before that, who stores something else may make the room that it needs.
            while len(entries(cache_path)) == 50:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for i in range(50, 200):
                cache.call("f", "1", b"%d" % i, lambda: np.zeros(10))
            assert inserting.poll() is None, "it took too long for this machine"
        assert inserting.returncode == 0
        assert list(counted(cache_path)[0]) == list(usage(cache_path))
        assert usage(cache_path)[1] <= 50


def test_what_another_process_removed_first_is_not_counted_twice(cache_path):
    with Cache(cache_path) as cache:
        for i in range(300):
            cache.call("f", "1", b"%d" % i, lambda: np.zeros(10))
        cache.configure("max_entries", "290")
        # It is chosen, and is gone when it is to go.
        with injecting("unlinkat", "error=ENOENT")(cache_path) as inserting:
            assert inserting.wait(PATIENCE) == 0
        assert list(counted(cache_path)[0]) == list(usage(cache_path))


HITS = """
import sys
from driver import DISK, Cache

path, *options = sys.argv[1:]
with Cache(path, **dict(option.split("=") for option in options)) as cache:
    for _ in range(3):
        assert cache.call("f", "1", b"", lambda: sys.exit("computed")).origin == DISK
"""


def use_long_ago(entry):
    """Its last use was two hours ago, and it was made when it was."""
    then = time.time_ns() - 2 * 3600 * 10**9
    os.utime(entry, ns=(then, entry.stat().st_mtime_ns))
    return then


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (["max_bytes=1G"], True),
        (["max_entries=9", "policy=lru"], True),
        (["min_free_bytes=1"], True),
        (["max_bytes=1G", "policy=none"], False),
        (["max_age=30d"], False),
        ([], False),
    ],
)
def test_use_is_noted_once_an_hour_and_only_where_it_matters(cache_path, tmp_path, options, noted):
    strace, chattr, log = need_tool("strace", "strace"), need_tool("chattr", "e2fsprogs"), tmp_path / "trace"
    with Cache(cache_path) as cache:
        entry = cache.call("f", "1", b"", lambda: np.zeros(10)).path
    # Else the kernel notes the first read after a change of the times by itself.
    if subprocess.run([chattr, "+A", entry], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("the file system of the tests' directory has no attribute noatime")
    made, then = entry.stat().st_mtime_ns, use_long_ago(entry)
    # -y: with the path of each descriptor.
    program = [sys.executable, "-c", HITS, cache_path, *options]
    trace = "trace=utimensat,utime,utimes,futimesat"
    subprocess.run([strace, "-f", "-y", "-o", log, "-e", trace, *program], check=True, cwd=ROOT / "tests")
    calls = [line for line in log.read_text().splitlines() if entry.name in line]
    assert len(calls) == noted, calls
    assert all("UTIME_OMIT]" in call for call in calls), "the time of modification is not touched"
    assert entry.stat().st_mtime_ns == made
    assert (entry.stat().st_atime_ns > then + 3600 * 10**9) == noted


def test_under_lru_what_was_hit_stays_and_the_rest_goes(cache_path):
    call = {"compute": lambda: np.zeros(10)}
    # In one bucket: all are looked at in a moment, also where the disk is slow.
    together = (i for i in range(100_000) if key("f", "1", [], b"%d" % i).startswith("00"))
    calls = [b"%d" % i for i in itertools.islice(together, 40)]
    with Cache(cache_path, max_entries=40, policy="lru") as cache:
        for args in calls:
            use_long_ago(cache.call("f", "1", args, **call).path)
    # As another process does, which did not see them being made.
    with Cache(cache_path, max_entries=40, policy="lru") as cache:
        # Makes it look at all, and the first go.
        assert cache.call("new", "1", b"", **call).origin == COMPUTED
        # The clock by which the kernel notes a use ticks every few milliseconds; one tick after all were made.
        time.sleep(0.05)
        hit = calls[1::4]
        for args in hit:
            assert cache.call("f", "1", args, **call).origin == DISK
        for i in range(29):
            assert cache.call("new", "1", b"%d" % i, **call).origin == COMPUTED
        assert [cache.call("f", "1", args, **call).origin for args in hit] == [DISK] * 10


INSERTS = """
import sys
import numpy as np
from driver import Cache

with Cache(sys.argv[1]) as cache:
    for seed in range(20):
        assert cache.call("new", "1", b"%d" % seed, lambda: np.zeros(10)).stored == 0
"""


@pytest.mark.parametrize(
    ("slow", "most", "bound", "left"),
    [
        ("unlinkat", 4, "max_entries=2000", 2005),
        ("statx", 12, "max_entries=2000", 2005),
        ("unlinkat", 4, "max_age=1", 2010),
    ],
)
def test_on_a_slow_disk_no_insertion_removes_or_looks_at_what_others_can(cache_path, tmp_path, slow, most, bound, left):
    strace, log = need_tool("strace", "strace"), tmp_path / "trace"
    with Cache(cache_path) as cache:
        for i in range(2000):
            cache.call("old", "1", b"%d" % i, lambda: np.zeros(10))
    (cache_path / ".npcache" / "config").write_text(f"{bound}\n")
    time.sleep(1.1)
    delay = ["-e", f"trace=linkat,{slow}", "-e", f"inject={slow}:delay_enter=10000"]
    program = [sys.executable, "-c", INSERTS, cache_path]
    subprocess.run([strace, "-f", "-o", log, *delay, *program], check=True, cwd=ROOT / "tests")
    # Before each entry got its name.
    calls = [before.count(f" {slow}(") for before in log.read_text().split(" linkat(")[:-1]]
    assert len(calls) == 20
    assert max(calls) <= most, calls
    assert usage(cache_path)[1] <= left


def test_a_hit_is_a_use_of_its_entry_also_in_memory(cache_path, monkeypatch):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", "1M")
    code = "with Cache(sys.argv[1]) as cache: print(cache.call('old', '1', b'', lambda: np.arange(3)).path)"
    hours_ago = [need_tool("faketime", "faketime"), "-f", "-3h"]
    entry = Path(run_python(code, cache_path, before=hours_ago).strip())
    made = entry.stat().st_mtime_ns
    with Cache(cache_path, max_entries=9) as cache:
        for origin in (DISK, MEMORY):
            os.utime(entry, ns=(made, made))
            assert cache.call("old", "1", b"", lambda: 1 / 0).origin == origin
            assert entry.stat().st_atime_ns - made > 2 * 3600 * 10**9


def test_a_hit_in_memory_is_a_use_of_its_entry_whatever_path_led_to_it(cache_path, monkeypatch):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", "1M")
    code = "with Cache(sys.argv[1]) as cache: print(cache.call('old', '1', b'', lambda: np.arange(3)).path)"
    hours_ago = [need_tool("faketime", "faketime"), "-f", "-3h"]
    made = Path(run_python(code, cache_path, before=hours_ago).strip())
    with Cache(cache_path, max_entries=9) as early:
        moved = cache_path.rename(cache_path.with_name("another, longer name"))
        entry = moved / made.relative_to(cache_path)
        age = entry.stat().st_mtime_ns
        with Cache(moved, max_entries=9) as late:
            assert late.call("old", "1", b"", lambda: 1 / 0).origin == DISK
            os.utime(entry, ns=(age, age))
            assert early.call("old", "1", b"", lambda: 1 / 0).origin == MEMORY
            assert entry.stat().st_atime_ns > age


def test_what_was_made_before_a_clock_was_set_back_is_counted(cache_path):
    code = """
with Cache(sys.argv[1]) as cache:
    for seed in range(200):
        cache.call("earlier", "1", str(seed).encode(), lambda: np.arange(3))
"""
    run_python(code, cache_path, before=[need_tool("faketime", "faketime"), "-f", "+3h"])
    with Cache(cache_path, max_entries=100) as cache:
        for seed in range(200):
            assert cache.call("later", "1", str(seed).encode(), lambda: np.arange(3)).origin == COMPUTED
    assert usage(cache_path)[1] <= 105
    assert list(counted(cache_path)[0]) == list(usage(cache_path))


@pytest.mark.parametrize("memory", ["0", "1M"])
def test_what_is_over_age_is_computed_again(cache_path, memory, monkeypatch):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", memory)
    with Cache(cache_path, max_age="0.2") as cache:
        assert cache.call("f", "1", b"", lambda: np.zeros(10)).origin == COMPUTED
        assert_it_is_computed_again(cache)


@pytest.mark.parametrize("min_compute_ms", ["0", "1e6"])
@pytest.mark.parametrize("is_set", ["before", "meanwhile"])
def test_an_age_that_another_process_sets_holds_for_what_is_in_memory(cache_path, is_set, min_compute_ms, monkeypatch):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", "1M")
    code = "with Cache(sys.argv[1]) as cache: cache.configure('max_age', '0.2')"
    if is_set == "before":
        run_python(code, cache_path)
    with Cache(cache_path, min_compute_ms=min_compute_ms) as cache:
        origins = [cache.call("f", "1", b"", lambda: np.zeros(10)).origin for _ in range(2)]
        if is_set == "meanwhile":
            assert origins == [COMPUTED, MEMORY]
            run_python(code, cache_path)
        assert_it_is_computed_again(cache)


def assert_it_is_computed_again(cache):
    until = time.monotonic() + PATIENCE / 6
    while cache.call("f", "1", b"", lambda: np.zeros(10)).origin != COMPUTED:
        assert time.monotonic() < until, "it is found for ever"
