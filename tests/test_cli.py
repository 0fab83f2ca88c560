"""The npcache command, as a person and as a script uses it."""

import itertools
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import cbor2
import numpy as np
import pytest
from conftest import LIBRARY, ROOT
from driver import Cache
from faults.conftest import public_path
from faults.test_failures import as_nobody, keep_from_nobody

__all__ = ["public_path"]  # a fixture

NPCACHE = LIBRARY.parent / "npcache"
DAY = 86_400


def run(*arguments, status=0, text=True, program=NPCACHE, **settings):
    """The command's standard output; `status` is what it is to exit with, and what it says of errors is then returned."""
    environment = os.environ | settings.pop("env", {})
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=text, env=environment, timeout=60, **settings
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    if status == 0:
        assert not done.stderr, done.stderr
    return done.stdout if status == 0 else done


def lines(*arguments, **settings):
    """What it prints with --json."""
    return [json.loads(line) for line in run("--json", *arguments, **settings).splitlines()]


def call(*positional, **keywords):
    """Canonical argument bytes, as every host makes them."""
    return cbor2.dumps([list(positional), dict(sorted(keywords.items(), key=lambda item: (len(item[0]), item[0])))])


@pytest.fixture
def cache(tmp_path):
    """Three functions' results: 12 of `solve`, one of two named arrays, one with a name that is no file's."""
    path = tmp_path / "cache"
    with Cache(path) as cache:
        for n in range(12):
            cache.call("solve", "1", call(n, nu=0.5), lambda n=n: np.full((n + 1, 3), float(n)))
        cache.call("pair", "2", b"\x01\x02", lambda: {"grid": np.arange(6.0).reshape(2, 3), "flag": np.True_})
        cache.call("a/b \x1b[31m", "", call("x" * 100), lambda: np.array([1.5, np.nan, np.inf, -2.0]))
    return path


def keys(cache, *arguments):
    return [entry["key"] for entry in lines("-C", cache, "ls", *arguments)]


def entry_file(cache, key):
    (path,) = cache.glob(f"*/{key[:2]}/{key}.npy")
    return path


def replace(path, change):
    """Puts other bytes in the place of a file, as damage would."""
    data = bytearray(path.read_bytes())
    change(data)
    path.unlink()
    path.write_bytes(data)


def flip_data(data):
    data[130] ^= 1


# Listing


def test_ls_names_each_entry_with_its_call(cache):
    table = run("-C", cache, "ls")
    head, *rows = table.splitlines()
    assert head.split() == ["KEY", "SIZE", "AGE", "USED", "COST", "CALL"] and len(rows) == 14
    assert "solve(3, nu=0.5)  float64[4, 3]" in table
    assert "pair(2 bytes: 0102)  float64[2, 3], bool[]" in table
    assert "a/b \\u{1b}[31m(text[100 bytes] " in table and "\x1b" not in table
    assert run("ls", env={"NPCACHE_DIR": str(cache)}).count("\n") == 15
    assert run("ls", cwd=cache).count("\n") == 15


def test_ls_in_json_has_what_the_entries_say(cache):
    found = {entry["call"]: entry for entry in lines("-C", cache, "ls", "-f", "solve")}
    assert len(found) == 12
    entry = found["solve(3, nu=0.5)"]
    file = entry_file(cache, entry["key"])
    assert entry["path"] == str(file) and entry["bytes"] == file.stat().st_size
    assert abs(entry["created"] - file.stat().st_mtime) < 1e-3 and entry["disk_bytes"] == file.stat().st_blocks * 512
    assert entry["arrays"] == [{"name": None, "dtype": "<f8", "shape": [4, 3], "order": "C", "bytes": 96}]
    assert (entry["function"], entry["version"], entry["dependencies"], entry["notes"]) == ("solve", "1", [], {})
    quick = lines("-C", cache, "ls", "-f", "solve", "--quick")
    assert [entry["key"] for entry in quick] == sorted(entry["key"] for entry in found.values())
    assert "call" not in quick[0]


def test_ls_sorts_and_filters(cache):
    sizes = [entry["bytes"] for entry in lines("-C", cache, "ls", "--sort", "size")]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 4
    assert [entry["bytes"] for entry in lines("-C", cache, "ls", "-s", "size", "-r", "-n", 3)] == sizes[::-1][:3]
    middle = sorted(sizes)[7]
    assert len(keys(cache, "--larger-than", middle)) == sum(size > middle for size in sizes)
    assert len(keys(cache, "--smaller-than", middle)) == sum(size < middle for size in sizes)

    old, older = keys(cache, "-f", "solve")[:2]
    now = time.time()
    os.utime(entry_file(cache, old), (now - 3 * DAY, now - 5 * DAY))
    os.utime(entry_file(cache, older), (now - 9 * DAY, now - 10 * DAY))
    assert set(keys(cache, "--older-than", "4d")) == {old, older}
    assert set(keys(cache, "--unused-for", "4d")) == {older}
    assert len(keys(cache, "--newer-than", "1h")) == 12
    assert keys(cache, "--sort", "created")[-2:] == [old, older] == keys(cache, "--sort", "used")[-2:]
    assert keys(cache, "--sort", "created", "--reverse")[0] == older
    assert keys(cache, "--dearer-than", "1h") == [] and len(keys(cache, "--cheaper-than", "1h")) == 14
    for order in "cost", "value":
        ranked = lines("-C", cache, "ls", "--sort", order)
        ranks = [entry["compute_seconds"] / (1 if order == "cost" else entry["bytes"]) for entry in ranked]
        assert ranks == sorted(ranks, reverse=True)


def test_ls_goes_on_past_what_is_damaged_and_says_so(cache):
    first = keys(cache, "-f", "solve")[0]
    replace(entry_file(cache, first), lambda data: data.__setitem__(-1, data[-1] ^ 1))
    done = run("-C", cache, "ls", status=1)
    assert done.stdout.count("\n") == 14 and first in done.stderr and "damaged" in done.stderr


def test_du_adds_up(cache):
    (sums,) = lines("-C", cache, "du")
    entries = lines("-C", cache, "ls", "-q")
    assert sums["entries"] == 14 and sums["bytes"] == sum(entry["bytes"] for entry in entries)
    assert sums["functions"]["solve"]["entries"] == 12
    assert sums["disk_bytes"] == sum(part["disk_bytes"] for part in sums["functions"].values())
    table = run("-C", cache, "du").splitlines()
    assert table[-1].endswith("in all") and len(table) == 5 and table[1].endswith("solve")


def test_stats_count_the_calls_of_all_processes(cache, monkeypatch):
    (counts,) = lines("-C", cache, "stats")
    assert (counts["misses"], counts["stored"], counts["hits"], counts["complete"]) == (14, 14, 0, True)
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", "16M")
    with Cache(cache) as again:
        for _ in range(3):
            again.call("pair", "2", b"\x01\x02", lambda: 1 / 0)
    (counts,) = lines("-C", cache, "stats")
    pair = counts["functions"]["pair"]
    assert (counts["disk"], counts["memory"]) == (1, 2) == (pair["disk"], pair["memory"]) and pair["misses"] == 1
    text = run("-C", cache, "stats")
    assert "17.6 % of 17 calls" in text and "2 in memory, 1 on disk" in text and "audits    0 hits" in text
    assert re.search(r"^ +4 +75\.0 % .* pair$", text, re.MULTILINE)
    with Cache(cache, audit=1) as audited:
        audited.call("pair", "2", b"\x01\x02", lambda: np.zeros(1))
    (counts,) = lines("-C", cache, "stats")
    assert (counts["audited"], counts["differing"]) == (1, 1) and counts["functions"]["solve"]["audited"] == 0


def test_watch_tells_what_happens_between_two_looks(cache):
    watch = [NPCACHE, "-C", cache, "--json", "watch", "--interval", "200ms", "--count", "1000"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert json.loads(watching.stdout.readline())["hits"] == 0
        with Cache(cache) as again:
            for _ in range(5):
                again.call("pair", "2", b"\x01\x02", lambda: 1 / 0)
            again.call("pair", "2", b"\x03", lambda: np.zeros(1))
        hits = misses = 0
        while hits + misses < 6:
            line = json.loads(watching.stdout.readline())
            hits, misses = hits + line["hits"], misses + line["misses"]
        assert (hits, misses) == (5, 1)
        watching.terminate()
    head, line = run("-C", cache, "watch", "-i", "1ms", "-n", 1).splitlines()
    assert head.split()[:2] == ["HITS", "MISSES"] and line.split()[:3] == ["0", "0", "–"]


def boot(cache):
    """Makes the state page one of an earlier boot, as a restart of the machine does."""
    (page,) = (cache / ".npcache").glob("state-*")
    page = page.rename(page.with_name("state-" + 32 * "1" + page.name[38:]))
    os.utime(page, (1, 1))


def test_after_a_boot_what_was_counted_before_is_there_and_watch_tells_what_happens_from_then_on(cache):
    before = lines("-C", cache, "stats")
    boot(cache)
    assert lines("-C", cache, "stats") == before and "note" not in run("-C", cache, "stats")
    watch = [NPCACHE, "-C", cache, "--json", "watch", "--interval", "100ms", "--count", "1000"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert json.loads(watching.stdout.readline())["complete"] is True
        with Cache(cache) as again:
            again.call("pair", "2", b"\x01\x02", lambda: 1 / 0)
        hits = misses = 0
        while hits == 0:
            line = json.loads(watching.stdout.readline())
            hits, misses = hits + line["hits"], misses + line["misses"]
        assert (hits, misses) == (1, 0), "nothing from before the boot"
        watching.terminate()


# One entry


def test_show_tells_the_call_and_the_numbers(cache):
    (pair,) = keys(cache, "-f", "pair")
    text = run("-C", cache, "show", pair[:8])
    assert f"key        {pair}" in text and "array 0 `grid`  float64[2, 3], 48 B" in text
    assert "  0.0  1.0  2.0  3.0  4.0  5.0\n  min 0.0  max 5.0  mean 2.50000  std 1.70783  zeros 1  NaN 0  inf 0" in text
    (shown,) = lines("-C", cache, "show", pair)
    assert shown["arguments"] == {"hex": "0102"}
    expected = {"min": 0.0, "max": 5.0, "mean": 2.5, "std": np.arange(6.0).std(), "zeros": 1, "nan": 0, "inf": 0}
    assert shown["arrays"][0]["summary"] == pytest.approx(expected)

    (odd,) = keys(cache, "-f", "a/b \x1b[31m")
    (shown,) = lines("-C", cache, "show", odd)
    assert shown["arrays"][0]["summary"] == pytest.approx(
        {"min": -2.0, "max": 1.5, "mean": -0.25, "std": 1.75, "zeros": 0, "nan": 1, "inf": 1}
    )
    assert "\x1b" not in run("-C", cache, "show", odd)
    (solve,) = [entry for entry in lines("-C", cache, "ls") if entry["call"] == "solve(3, nu=0.5)"]
    (shown,) = lines("-C", cache, "show", solve["key"])
    assert shown["arguments"] == {"positional": ["3"], "keywords": {"nu": "0.5"}}
    # A path is as good as a key.
    assert lines("show", solve["path"], env={"NPCACHE_DIR": str(cache)}) == [shown]


NUMBERS = [
    np.array([0, 200], "u1"),
    np.array([-100, 100], "i1"),
    np.array([-(2**63), 2**63 - 1], "<i8"),
    np.array([1, 2**64 - 1], "<u8"),
    np.array([-1, 70000], ">i4"),
    np.array([0.1, 6e4], "<f2"),
    np.array([0.1, np.nan], "<f4"),
    np.array([-1.5, 1e300], ">f8"),
    np.array([-1e308, 1e308]),
    np.array([3 + 4j, 0], "<c16"),
    np.array([[True, False]]),
]


@pytest.mark.parametrize("array", NUMBERS, ids=lambda array: array.dtype.str)
def test_show_reads_numbers_of_every_type_as_numpy_does(tmp_path, array):
    with Cache(tmp_path / "cache") as cache:
        cache.call("f", "", b"", lambda: array)
    (key,) = keys(tmp_path / "cache")
    summary = lines("-C", tmp_path / "cache", "show", key)[0]["arrays"][0]["summary"]
    numbers = np.abs(array) if array.dtype.kind == "c" else array
    finite = numbers[np.isfinite(numbers)]
    assert array.dtype.kind not in "iu" or (summary["min"], summary["max"]) == (int(finite.min()), int(finite.max()))
    assert summary["min"] == pytest.approx(float(finite.min()), rel=1e-6)
    assert summary["max"] == pytest.approx(float(finite.max()), rel=1e-6)
    exact = finite.astype(float).astype(np.longdouble)  # whose squares do not overflow
    assert (summary["mean"], summary["std"]) == pytest.approx((float(exact.mean()), float(exact.std())))
    assert summary["nan"] == np.isnan(numbers).sum()


def test_show_draws_a_gradient_from_dark_to_bright(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        cache.call("map", "", b"", lambda: np.tile(np.arange(64.0), (32, 1)))
        cache.call("curve", "", b"", lambda: np.sin(np.linspace(0, 6.28, 1000)))
        cache.call("holes", "", b"", lambda: np.full((20, 20), np.nan))
        cache.call("text", "", b"", lambda: np.array(["a", "b"]))
        cache.call("none", "", b"", lambda: np.zeros((0, 5)))
    shown = {}
    for name in "map", "curve", "holes", "text", "none":
        (key,) = keys(tmp_path / "cache", "-f", name)
        shown[name] = run("-C", tmp_path / "cache", "show", key)
        assert run("-C", tmp_path / "cache", "show", key, "--no-picture") in shown[name]
    rows = [line[2:] for line in shown["map"].splitlines() if "█" in line]
    assert len(rows) == 16 and len(set(rows)) == 1 and re.fullmatch("·+░+▒+▓+█+", rows[0]) and len(rows[0]) == 64
    assert len(re.findall("[⠁-⣿]+", shown["curve"])) >= 8
    assert "nothing finite" in shown["holes"] and "NaN 400" in shown["holes"]
    assert "no numbers" in shown["text"] and "no elements" in shown["none"]


def test_a_key_that_is_none_or_several_is_an_error_that_helps(cache):
    assert "no entry" in run("-C", cache, "show", "f" * 64, status=2).stderr
    assert "no key" in run("-C", cache, "show", "solve", status=2).stderr
    several = [key for key in keys(cache)]
    digit = max("0123456789abcdef", key=lambda digit: sum(key.startswith(digit) for key in several))
    stderr = run("-C", cache, "show", digit, status=2).stderr
    assert "more digits" in stderr and next(key for key in several if key.startswith(digit)) in stderr


# Why


def test_why_says_what_the_nearest_stored_call_differs_in(cache):
    assert "solve(3, nu=0.5) is stored" in run("-C", cache, "why", "solve", "3", "nu=0.5")
    assert "pair(2 bytes) is stored" in run("-C", cache, "why", "pair", "--hex", "0102")
    done = run("-C", cache, "why", "solve", "3", "nu=0.25", status=1)
    assert "argument `nu`: stored 0.5, asked 0.25" in done.stdout
    done = run("-C", cache, "why", "solve", "--of-version", "2", "3", "nu=0.5", status=1)
    assert 'version: stored "1", asked "2"' in done.stdout
    done = run("-C", cache, "why", "solve", "3.0", "nu=0.5", status=1)
    assert re.search(r"argument 1: stored \d+, asked 3\.0", done.stdout)
    stdout = run("-C", cache, "why", "nothing", status=1).stdout
    assert "no call of `nothing` is stored here, but of `" in stdout and "`solve`" in stdout
    done = run("-C", cache, "--json", "why", "solve", "3", status=1)
    answer = json.loads(done.stdout)
    assert answer["stored"] is False and answer["version"] == "1" and "`nu`" in answer["explanation"]


def test_why_says_that_what_is_stored_is_of_no_use(cache):
    with Cache(cache) as newer:
        newer.call("solve", "2", call(99), lambda: np.zeros(1))
    (solve,) = [entry["key"] for entry in lines("-C", cache, "ls") if entry["call"] == "solve(3, nu=0.5)"]
    run("-C", cache, "config", "max_age", "0.001")
    stdout = run("-C", cache, "why", "solve", "3", "nu=0.5", status=1).stdout
    assert f"solve(3, nu=0.5) is stored (key {solve}), but over age: computed " in stdout
    answer = json.loads(run("-C", cache, "--json", "why", "solve", "3", "nu=0.5", status=1).stdout)
    assert answer["stored"] is False and answer["version"] == "1" and "max_age is 1 ms" in answer["explanation"]
    run("-C", cache, "config", "max_age", "1h")
    run("-C", cache, "why", "solve", "3", "nu=0.5")
    replace(entry_file(cache, solve), flip_data)
    stdout = run("-C", cache, "why", "solve", "3", "nu=0.5", status=1).stdout
    assert "in its place stands a file, but it is damaged" in stdout


def test_why_tries_the_versions_of_the_newest_of_very_many(cache):
    """By key, which is how they are listed, those of version 2 are the last."""
    with Cache(cache) as many:
        for n in range(11_000):
            many.call("f", "1", call(n), lambda: np.zeros(1))
        many.call("f", "2", call(220), lambda: np.zeros(1))
    assert lines("-C", cache, "ls", "-q", "-f", "f")[10_500]["key"] < lines("-C", cache, "why", "f", "220")[0]["key"]
    assert lines("-C", cache, "why", "f", "220")[0]["version"] == "2"
    text = run("-C", cache, "why", "f", "-1", status=1).stdout
    assert "asked -1" in text and text.endswith("only the versions of the newest 10,000 were tried; --of-version names another\n")
    assert "were tried" not in run("-C", cache, "why", "f", "--of-version", "1", "-1", status=1).stdout
    run("-C", cache, "prune", "-f", "f", "--keep", 10_000)
    assert "were tried" not in run("-C", cache, "why", "f", "-1", status=1).stdout


def test_why_tells_nothing_of_another_functions_entry(cache):
    """One that was copied into the directory of `pair` by hand."""
    (solve,) = [entry["key"] for entry in lines("-C", cache, "ls") if entry["call"] == "solve(3, nu=0.5)"]
    (pair,) = keys(cache, "-f", "pair")
    entry_file(cache, pair).unlink()
    misplaced = cache / "pair" / solve[:2] / f"{solve}.npy"
    misplaced.parent.mkdir(exist_ok=True)
    shutil.copyfile(entry_file(cache, solve), misplaced)
    stdout = run("-C", cache, "why", "pair", "3", "nu=0.5", status=1).stdout
    assert stdout.startswith("pair(3, nu=0.5) is not stored") and "no call of `pair` is stored here" in stdout


def test_why_takes_arrays_and_files(tmp_path):
    signal = np.linspace(0, 1, 7)
    np.save(tmp_path / "signal.npy", np.asfortranarray(signal))
    (tmp_path / "notes").write_bytes(b"text")
    typed = cbor2.CBORTag(40, [[7], cbor2.CBORTag(86, signal.tobytes())])
    with Cache(tmp_path / "cache") as cache:
        cache.call("f", "", cbor2.dumps([[typed], {}]), lambda: signal)
        file = cbor2.CBORTag(int.from_bytes(b"NPCF", "big"), b"text")
        cache.call("f", "", cbor2.dumps([[file, b"\x00\xff"], {}]), lambda: signal)
    run("-C", tmp_path / "cache", "why", "f", "npy:signal.npy", cwd=tmp_path)
    run("-C", tmp_path / "cache", "why", "f", "file:notes", "bytes:00ff", cwd=tmp_path)
    run("-C", tmp_path / "cache", "why", "f", "npy:notes", cwd=tmp_path, status=2)


def test_why_takes_a_tuple_of_pythons(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        cache.call("f", "", call({"items": [1, 2.5, "x"], "npcache:type": "tuple"}), lambda: np.zeros(1))
    run("-C", tmp_path / "cache", "why", "f", 'tuple:[1, 2.5, "x"]')
    run("-C", tmp_path / "cache", "why", "f", '[1, 2.5, "x"]', status=1)


def test_a_floating_point_number_is_read_as_python_writes_it(tmp_path):
    """To the last bit: a call with its neighbour is another call."""
    random = np.random.default_rng(1)
    every_exponent = random.integers(0, 2**64, 1000, np.uint64).view(np.float64)
    numbers = [*random.random(1000).tolist(), *every_exponent[np.isfinite(every_exponent)].tolist(), 5e-324, -0.0]
    with Cache(tmp_path / "cache") as cache:
        cache.call("f", "1", call(*numbers, numbers), lambda: np.zeros(1))
    run("-C", tmp_path / "cache", "why", "f", *map(repr, numbers), json.dumps(numbers))


# Verifying and dropping


def test_verify_finds_each_kind_of_damage_and_removes_it(cache):
    assert "14 entries" in run("-C", cache, "verify")
    assert lines("-C", cache, "verify")[-1]["bad"] == 0
    flipped, cut, empty, link = keys(cache, "-f", "solve")[:4]
    replace(entry_file(cache, flipped), flip_data)
    replace(entry_file(cache, cut), lambda data: data.__delitem__(slice(-1, None)))
    replace(entry_file(cache, empty), bytearray.clear)
    file = entry_file(cache, link)
    outside = cache.parent / "outside.npy"
    file.rename(outside)
    file.symlink_to(outside)
    done = run("-C", cache, "verify", status=1)
    for key in flipped, cut, empty, link:
        assert key in done.stdout
    assert "4 bad, 0 removed" in done.stdout
    reports = run("-C", cache, "--json", "verify", "--remove", status=1).stdout.splitlines()
    assert json.loads(reports[-1]) == {"entries": 13, "bytes": json.loads(reports[-1])["bytes"], "bad": 4, "removed": 3}
    # A link is none of npcache's files.
    assert file.is_symlink() and outside.exists()
    file.unlink()
    assert "10 entries" in run("-C", cache, "verify")


def test_prune_drops_what_fits_all_that_is_given(cache):
    before = set(keys(cache))
    assert "see `npcache prune --help`" in run("-C", cache, "prune", status=2).stderr
    assert "see `npcache prune --help`" in run("-C", cache, "prune", "--dry-run", status=2).stderr
    old = keys(cache, "-f", "solve")[:3]
    for key in old:
        os.utime(entry_file(cache, key), (time.time() - 100 * DAY,) * 2)
    assert "would drop 3 entries" in run("-C", cache, "prune", "--unused-for", "90d", "--dry-run")
    assert set(keys(cache)) == before
    assert "dropped 0 entries" in run("-C", cache, "prune", "--unused-for", "90d", "--function", "pair")
    assert lines("-C", cache, "prune", "--unused-for", "90d", "--larger-than", "1")[-1]["entries"] == 3
    assert set(keys(cache)) == before - set(old)


def test_prune_keeps_the_newest_and_stops_at_a_size(cache):
    solve = keys(cache, "-f", "solve")
    for age, key in enumerate(solve):
        os.utime(entry_file(cache, key), (time.time() - age * DAY,) * 2)
    run("-C", cache, "prune", "--function", "solve", "--keep", 5)
    assert keys(cache, "-f", "solve") == sorted(solve[:5]) and len(keys(cache)) == 7
    assert keys(cache, "-f", "solve", "--sort", "age") == solve[:5]
    run("-C", cache, "prune", "--to", "0")
    assert keys(cache) == []


def test_prune_to_a_size_drops_by_the_directorys_policy(tmp_path):
    """Three of one size: one that took long to compute, but was not used for days, and two that took no time."""
    cache = tmp_path / "cache"
    with Cache(cache) as filled:
        filled.call("slow", "", b"", lambda: time.sleep(0.3) or np.zeros(1))
        filled.call("quick", "", b"\x01", lambda: np.zeros(1))
        filled.call("quick", "", b"\x02", lambda: np.zeros(1))
    (slow,) = keys(cache, "-f", "slow")
    file = entry_file(cache, slow)
    os.utime(file, ns=(file.stat().st_atime_ns - 5 * DAY * 10**9, file.stat().st_mtime_ns))
    # Of three blocks of 4 KiB.
    assert lines("-C", cache, "prune", "--to", "8K")[-1]["entries"] == 1 and slow in keys(cache)
    run("-C", cache, "config", "policy", "lru")
    assert lines("-C", cache, "prune", "--to", "8191", "-n")[0]["key"] == slow
    run("-C", cache, "prune", "--to", "8191")
    assert slow not in keys(cache) and len(keys(cache)) == 1


def test_prune_by_itself_holds_the_directorys_bounds_at_once(cache):
    run("-C", cache, "config", "max_entries", "5")
    assert "prune --to SIZE --dry-run" in run("-C", cache, "prune", "--dry-run", status=2).stderr
    assert len(keys(cache)) == 14
    held = lines("-C", cache, "prune", "--to", "0", "--dry-run")[-1]
    assert held == {"entries": 14, "bytes": 14 * 4096, "dry_run": True}, "each fills a block"
    dropped = lines("-C", cache, "prune")[-1]
    assert dropped["bytes"] == 4096 * dropped["entries"]
    assert dropped["entries"] >= 9 and len(keys(cache)) == 14 - dropped["entries"]


def test_prune_keeps_so_many_of_functions_whose_long_names_begin_alike(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        for name in "x" * 300, "x" * 301:
            for n in range(3):
                cache.call(name, "", bytes([n]), lambda: np.zeros(1))
    assert lines("-C", tmp_path / "cache", "prune", "--keep", 2)[-1]["entries"] == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_may_not_be_removed_is_said_and_passed_over(public_path):
    """One of `others` that is damaged, and one of `open`, where everybody may remove it."""
    path, program = public_path / "cache", shutil.copy(NPCACHE, public_path)
    with Cache(path) as cache:
        for name, n in itertools.product(["open", "others"], range(5)):
            cache.call(name, "1", call(n), lambda: np.zeros(1))
    damaged = [keys(path, "-f", name)[0] for name in ("open", "others")]
    for key in damaged:
        replace(entry_file(path, key), flip_data)
    run("-C", path, "config", "max_entries", 3)
    run("-C", path, "config", "max_bytes", "8K")
    keep_from_nobody(path)
    for shard in path.glob("open/*"):
        shard.chmod(0o777)

    def refused(*arguments):
        return as_nobody(lambda: run("-C", path, *arguments, status=1, program=program))

    done = refused("verify", "--remove")
    assert f"{damaged[0]}.npy: its data are not what was written (removed)\n" in done.stdout
    assert f"{damaged[1]}.npy: its data are not what was written\n" in done.stdout
    assert done.stdout.endswith(": 2 bad, 1 removed\n") and damaged[1] in done.stderr
    done = refused("prune")
    assert len(keys(path, "-f", "others")) == 5 and keys(path, "-f", "open") == []
    assert f"{len(keys(path))} entries are left, over max_entries 3: " in done.stderr
    assert " KiB are left, over max_bytes 8192: " in done.stderr


def test_clear_drops_all_when_it_is_meant(cache):
    (cache / "mine").write_text("not npcache's")
    assert "--yes" in run("-C", cache, "clear", status=2, stdin=subprocess.DEVNULL).stderr
    run("-C", cache, "clear", "--yes", "--function", "solve")
    assert len(keys(cache)) == 2
    assert "mine" in run("-C", cache, "clear", "--yes", "--remove-directory", status=2).stderr
    assert keys(cache) == [] and (cache / "mine").exists()
    (cache / "mine").unlink()
    run("-C", cache, "clear", "--yes", "--remove-directory")
    assert not cache.exists()


# Copying out


def test_export_writes_what_numpy_itself_would(cache, tmp_path):
    (pair,) = keys(cache, "-f", "pair")
    solve = keys(cache, "-f", "solve")[0]
    run("-C", cache, "export", solve, tmp_path / "out.npy")
    np.save(tmp_path / "expected.npy", np.load(entry_file(cache, solve)))
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert (tmp_path / "out.npy").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert "exists" in run("-C", cache, "export", pair, "-a", "grid", tmp_path / "out.npy", status=2).stderr
    run("-C", cache, "export", pair, "--array", "grid", "--force", tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.arange(6.0).reshape(2, 3))
    assert "--array" in run("-C", cache, "export", pair, tmp_path / "x.npy", status=2).stderr
    assert "grid, flag" in run("-C", cache, "export", pair, "-a", "2", tmp_path / "x.npy", status=2).stderr
    piped = run("-C", cache, "export", pair, "-a", "1", "-", text=False)
    np.save(tmp_path / "expected.npy", np.True_)
    assert piped == (tmp_path / "expected.npy").read_bytes()
    run("-C", cache, "export", pair, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as archive:
        assert sorted(archive) == ["flag", "grid"] and archive["grid"][1, 2] == 5 and archive["flag"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.npz", "cache", "expected.npy", "out.npy"]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_damaged_entry_is_neither_shown_nor_exported(cache, tmp_path):
    key = keys(cache, "-f", "solve")[0]
    replace(entry_file(cache, key), flip_data)
    for command in ["show", key], ["export", key, tmp_path / "out.npy"]:
        done = run("-C", cache, *command, status=1)
        assert "not what was written" in done.stderr and not done.stdout
    assert not (tmp_path / "out.npy").exists()


# Taking in


def test_import_takes_entries_of_another_cache(cache, tmp_path):
    other = tmp_path / "other"
    Cache(other).close()
    files = sorted(cache.glob("*/*/*.npy"))
    copies = []
    for i, file in enumerate(files):  # a plain copy, under another name
        copies.append(shutil.copyfile(file, tmp_path / f"{i}.npy"))
    replace(copies[0], flip_data)
    np.save(copies[1], np.zeros(3))
    done = run("-C", other, "import", *copies, status=1)
    assert "0.npy: no whole entry" in done.stderr and "1.npy: no whole entry" in done.stderr
    assert done.stdout.count("stored") == 12 and len(keys(other)) == 12
    assert run("-C", other, "import", *copies[2:]).count("is here already") == 12
    assert "12 entries" in run("-C", other, "verify")
    odd = os.fsencode(tmp_path) + b"/caf\xe9.npy"
    shutil.copyfile(copies[2], odd)
    done = subprocess.run([NPCACHE, "-C", other, "import", odd], capture_output=True)
    assert done.returncode == 0 and b"is here already" in done.stdout
    with Cache(other) as found:
        hits = [found.begin("solve", "1", call(n, nu=0.5), 0) for n in range(12)]
    assert sum(hasattr(hit, "arrays") and hit.array.shape == (n + 1, 3) for n, hit in enumerate(hits)) >= 10


def test_import_makes_a_plain_file_the_result_of_a_call(cache, tmp_path):
    np.save(tmp_path / "grid.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    np.savez_compressed(tmp_path / "two.npz", np.arange(3), named=np.array("text"))
    store = ["-C", cache, "import", "--function", "grid", "--of-version", "7", "--took", "2h"]
    before = lines("-C", cache, "stats")
    run(*store, tmp_path / "grid.npy", "64", "nu=0.2")
    assert "stored already" in run(*store, tmp_path / "grid.npy", "64", "nu=0.2", status=2).stderr
    run(*store, tmp_path / "two.npz", "--hex", "00ff")
    assert lines("-C", cache, "stats") == before, "neither what was stored nor what was refused is a program's call"
    with Cache(cache) as found:
        assert np.array_equal(found.begin("grid", "7", call(64, nu=0.2)).array, np.arange(6.0).reshape(2, 3))
        two = found.begin("grid", "7", b"\x00\xff")
        assert two.names == ["named", None] and two.arrays[0] == "text" and two.arrays[1].tolist() == [0, 1, 2]
    sizes = np.array([(1, 2)], [("größe", "<f8"), ("b", "<i4")])  # whose header numpy writes in Latin-1
    np.save(tmp_path / "latin.npy", sizes)
    run(*store, tmp_path / "latin.npy", f"npy:{tmp_path / 'latin.npy'}")
    (latin,) = [entry for entry in lines("-C", cache, "ls", "-f", "grid") if "größe" in str(entry["arrays"])]
    run("-C", cache, "export", latin["key"], tmp_path / "latin-again.npy")
    assert np.array_equal(np.load(tmp_path / "latin-again.npy"), sizes)
    entry = next(entry for entry in lines("-C", cache, "ls", "-f", "grid") if "nu" in entry["call"])
    assert entry["compute_seconds"] == 7200 and entry["notes"] == {"imported": str(tmp_path / "grid.npy")}
    assert "--of-version" in run("-C", cache, "import", "-f", "grid", tmp_path / "grid.npy", status=2).stderr
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    assert "no .npy file" in run(*store, tmp_path / "bad.npy", "65", status=2).stderr
    assert "cannot read" in run(*store, tmp_path / "none.npy", "65", status=2).stderr
    assert "all arguments" in run(*store, tmp_path / "grid.npy", "--hex", "01", "65", status=2).stderr


def test_the_import_that_the_page_shows_is_found_by_its_function_in_python(tmp_path):
    page = (ROOT / "docs" / "cli.md").read_text()
    (command,) = re.findall(r"```sh\nnpcache (.*)\n```", page)
    (module,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (asked,) = re.findall("is found by `(.*?)`", page)
    (tmp_path / "model.py").write_text(module)
    grid = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "grid.npy", grid)
    Cache(tmp_path / "results").close()
    run(*command.split(), cwd=tmp_path)
    paths = {"PYTHONPATH": str(ROOT / "python" / "src"), "NPCACHE_LIBRARY": str(LIBRARY)}
    program = [sys.executable, "-c", f"import model; print(model.{asked}.tolist())"]
    done = subprocess.run(program, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{grid.tolist()}\n", done.stderr
    (entry,) = lines("-C", tmp_path / "results", "ls")
    assert entry["call"] == 'model.solve(64, 0.2, method="rk4")'


def test_every_command_prints_json_for_a_script(cache, tmp_path):
    pair, solve = keys(cache, "-f", "pair")[0], keys(cache, "-f", "solve")[0]
    commands = [
        ["stats"], ["ls"], ["show", pair], ["why", "solve", "3", "nu=0.5"], ["du"], ["verify"], ["prune", "-f", "none"],
        ["config"], ["export", solve, tmp_path / "out.npy"], ["import", entry_file(cache, solve)],
        ["report", "-o", tmp_path / "out.html"], ["watch", "-n", 1, "-i", "1ms"], ["clear", "--yes"],
    ]  # fmt: skip
    for command in commands:
        printed = lines("-C", cache, *command)
        assert printed and all(isinstance(line, dict) for line in printed), command
    for command in commands[:1] + [["ls"], ["du"], ["verify"], ["report", "-o", tmp_path / "empty.html"]]:
        assert len(lines("-C", cache, *command)) == (command != ["ls"]), "of an empty cache"


# The rest


def test_config_shows_and_sets_what_the_directory_keeps(cache):
    (values,) = lines("-C", cache, "config")
    assert values["max_bytes"] == "none" and values["policy"] == "cost"
    assert run("-C", cache, "config", "max_bytes", "1M") == "max_bytes 1048576\n"
    assert run("-C", cache, "config", "max_bytes") == "max_bytes 1048576\n"
    run("-C", cache, "config", "max_bytes", "1.5 GiB")
    run("-C", cache, "config", "max_age", "12h")
    assert (cache / ".npcache" / "config").read_text() == "max_bytes=1610612736\nmax_age=43200\n"
    assert run("-C", cache, "config", "max_age", "1y") == "max_age 31557600\n"
    run("-C", cache, "config", "max_age", "none")
    assert "it keeps max_bytes" in run("-C", cache, "config", "max_bites", status=2).stderr
    assert "npcache config max_bytes 1M" in run("-C", cache, "config", "max_bytes=1M", status=2).stderr
    assert "max_bytes" in run("-C", cache, "config", "max_bytes", "lots", status=2).stderr
    run("-C", cache, "config", "max_bytes", "none")
    assert lines("-C", cache, "config") == [values]


def test_bench_measures_and_leaves_nothing(tmp_path):
    measured = lines("bench", tmp_path, "--rounds", 10)
    assert len(measured[0]) == 6 and all(line["floor"] > 0 for line in measured[0])
    assert sum(line["npcache"] is not None for line in measured[0]) == 5
    assert list(tmp_path.iterdir()) == []


def test_errors_say_what_to_do_and_exit_with_2(tmp_path):
    assert "-C DIR" in run("-C", tmp_path, "ls", status=2).stderr
    assert list(tmp_path.iterdir()) == []
    assert "no/such" in run("-C", tmp_path / "no" / "such", "ls", status=2).stderr
    (tmp_path / ".npcache-format").write_text("npcache 99\n")
    assert "newer npcache" in run("-C", tmp_path, "ls", status=2).stderr
    assert "Usage" in run("frobnicate", status=2).stderr
    assert "no size" in run("-C", tmp_path, "ls", "--larger-than", "big", status=2).stderr


def test_looking_changes_nothing_whatever_the_environment_says(cache, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy, symlinks=True)
    shutil.rmtree(copy / ".npcache")
    before = sorted(path.relative_to(copy) for path in copy.rglob("*"))
    for command in ["ls"], ["du"], ["verify"], ["why", "solve"], ["prune", "--to", "0", "-n"], ["show", keys(copy)[0]]:
        run("-C", copy, *command, env={"NPCACHE_MODE": "off"}, status=1 if command[0] == "why" else 0)
    assert sorted(path.relative_to(copy) for path in copy.rglob("*")) == before


def test_a_reader_that_has_seen_enough_is_no_error(cache):
    with Cache(cache) as more:
        for n in range(1500):
            more.call("many", "1", call(n), lambda: np.zeros(1))
    command = f"{NPCACHE} -C {cache} ls --long 2>&1 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[1:] == ["0"] and done.stdout.startswith("KEY")


def on_terminal(*arguments, answer=b"", **environment):
    """What a terminal of 100 columns gets to see."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("NO_COLOR", None)
        os.environ.update({"TERM": "xterm-256color", "COLORTERM": ""} | environment)
        os.execv(NPCACHE, ["npcache", *map(str, arguments)])
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    if answer:
        os.write(terminal, answer)
    seen = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    _, status = os.waitpid(pid, 0)
    return seen.decode(), os.waitstatus_to_exitcode(status)


def test_colour_is_for_terminals_that_want_it(cache):
    (key,) = keys(cache, "-f", "pair")
    big = lines("-C", cache, "ls", "--sort", "size", "-n", 1)[0]["key"]
    seen, status = on_terminal("-C", cache, "ls")
    assert status == 0 and "\x1b[36mpair\x1b[0m" in seen
    assert "\x1b[38;5;" in on_terminal("-C", cache, "show", big)[0]
    assert "\x1b[38;2;" in on_terminal("-C", cache, "show", big, COLORTERM="truecolor")[0]
    for command in ["ls"], ["du"], ["show", big], ["show", key], ["verify"]:
        assert "\x1b[" not in on_terminal("-C", cache, *command, NO_COLOR="1")[0]
        assert "\x1b" not in run("-C", cache, *command)


def test_a_terminal_is_asked_before_all_is_dropped(cache):
    seen, status = on_terminal("-C", cache, "clear", answer=b"n\n")
    assert "Drop all entries in" in seen and status == 1 and len(keys(cache)) == 14
    seen, status = on_terminal("-C", cache, "clear", answer=b"y\n")
    assert status == 0 and keys(cache) == []


def test_help_has_examples_and_completions_and_pages_every_command(tmp_path):
    text = run("--help")
    commands = re.findall(r"^  ([a-z]+) ", text.partition("Commands:")[2].partition("Options:")[0], re.MULTILINE)
    assert {"ls", "show", "why", "verify", "prune", "clear", "export", "import", "du", "bench", "stats", "report", "config"} <= set(commands)
    assert "Exit status" in text and "npcache -C results ls" in text
    run("man", "--directory", tmp_path)
    for command in set(commands) - {"help"}:
        assert run(command, "--help")
        assert (tmp_path / f"npcache-{command}.1").read_text().startswith(".ie")
        for shell in "bash", "zsh", "fish":
            assert re.search(rf"\b{command}\b", run("completions", shell))
    assert run("man") == (tmp_path / "npcache.1").read_text()
    assert f"cannot write into {tmp_path}/none" in run("man", "--directory", tmp_path / "none", status=2).stderr
    script = tmp_path / "npcache.bash"
    script.write_text(run("completions", "bash"))
    check = f"source {script}; COMP_WORDS=(npcache ver); COMP_CWORD=1; _npcache npcache ver npcache; echo ${{COMPREPLY[*]}}"
    done = subprocess.run(["bash", "-c", check], capture_output=True, text=True)
    assert done.stdout == "verify\n", done
