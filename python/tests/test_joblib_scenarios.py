"""What joblib's test_memory.py asks of joblib, as far as it is about arrays, asked of npcache."""

import multiprocessing
import os
import pickle
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import computed

import npcache


def entries(cache):
    return sorted(Path(cache.path).rglob("*/*/*.npy"))


def test_a_second_call_is_a_hit(cache):
    f = cache.memoize(lambda x: x)
    for x in range(3):
        for _ in range(2):
            assert f(x) == x
    assert computed(f) == 3


def test_no_directory_computes(tmp_path):
    f = npcache.Cache(None, memory_bytes=0).memoize(lambda x: x)
    for _ in range(4):
        assert f(1) == 1
    assert computed(f) == 4


def test_keyword_and_positional_arguments_are_one(cache):
    f = cache.memoize(lambda a=0, b=1: 10 * a + b)
    assert f() == f(0) == f(b=1) == f(0, 1) == f(b=1, a=0) == 1
    assert f(1) == f(a=1) == 11
    assert computed(f) == 2


def test_keyword_only_arguments(cache):
    f = cache.memoize(lambda a, b, *, kw1="1", kw2=2: (a, b, kw1, kw2))
    assert f(1, 2, kw1=3) == f(1, b=2, kw1=3, kw2=2) == (1, 2, 3, 2)
    assert f(1, 2) == (1, 2, "1", 2)
    with pytest.raises(TypeError):
        f(1, 2, 3, kw2=4)
    assert computed(f) == 2


def test_functions_of_one_name_do_not_collide(cache):
    def make_first():
        def name_collision(x):
            return x

        return name_collision

    def make_second():
        def name_collision(x):
            return x * 10

        return name_collision

    f, g = cache.memoize(make_first(), name="f"), cache.memoize(make_second(), name="f")
    for _ in range(2):
        assert (f(1), g(1)) == (1, 10)
    assert f.stats().computed == 2


def test_lambdas_do_not_collide(cache):
    f = cache.memoize(lambda x: x)
    g = cache.memoize(lambda x: x + 1)
    for _ in range(2):
        assert (f(1), g(1)) == (1, 2)


def test_partial_decoration(cache):
    for options in ({}, {"ignore": ["y"]}, {"writable": True}, {"version": "1"}):

        @cache.memoize(**options)
        def f(x, y=1):
            return np.array([x])

        assert f(5).tolist() == f(5).tolist() == [5]


def test_exceptions_pass_and_are_not_stored(cache):
    class Problem(Exception):
        pass

    @cache.memoize(depends={"Problem": ""})
    def f(x):
        raise ValueError(f"no {x}")

    for _ in range(3):
        with pytest.raises(ValueError, match="no 1"):
            f(1)
    assert not f.is_cached(1)
    assert entries(cache) == []


def test_arrays_as_arguments_and_results(cache):
    f = cache.memoize(lambda a: a * 2)
    rng = np.random.default_rng(0)
    for _ in range(3):
        a = rng.random((10, 10))
        for _ in range(3):
            np.testing.assert_array_equal(f(a), a * 2)
            np.testing.assert_array_equal(f(a.copy()), a * 2)
    assert computed(f) == 3


def test_an_array_that_changes_is_another_argument(cache):
    f = cache.memoize(lambda a: a.sum())
    a = np.zeros(10)
    for n in range(5):
        a[n] = 1
        assert f(a) == n + 1


def test_large_results_are_memory_mapped(cache, reopened):
    f = cache.memoize(lambda: np.ones(1_000_000), name="f", version="")
    f()
    result = reopened().memoize(lambda: 0, name="f", version="")()
    address = result.__array_interface__["data"][0]
    maps = Path("/proc/self/maps").read_text().splitlines()
    (line,) = (m for m in maps if in_range(m, address))
    assert line.endswith(".npy")


def in_range(line, address):
    start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
    return start <= address < end


def test_writing_to_a_memory_mapped_result_raises(cache):
    f = cache.memoize(lambda: np.ones(1_000_000))
    f()
    with pytest.raises(ValueError, match="read-only"):
        f()[0] = 2


def test_a_corrupted_entry_is_computed_again_without_a_word(cache, reopened):
    for data in (b"", b"garbage", None):
        f = cache.memoize(lambda: np.arange(1000), name="f", version="")
        f()
        (entry,) = entries(cache)
        contents = bytearray(entry.read_bytes()) if data is None else data
        if data is None:
            contents[500] ^= 1
        entry.chmod(0o644)
        entry.unlink()
        entry.write_bytes(contents)
        other = reopened()
        g = other.memoize(lambda: np.arange(1000), name="f", version="")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert g()[500] == g()[500] == 500
        assert (g.stats().computed, g.stats().memory) == (1, 1)
        assert np.load(entries(other)[0])[500] == 500
        assert len(entries(other)) == 1
        cache.clear()


def slow_to_pickle(x):
    time.sleep(0.1)
    return np.full(200_000, x)


def call_slow(path, n):
    f = npcache.Cache(path).memoize(slow_to_pickle)
    return float(f(1)[-1])


def test_processes_that_persist_one_result_at_once_get_it(cache):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.starmap(call_slow, [(cache.path, n) for n in range(8)]) == [1.0] * 8
    assert len(entries(cache)) == 1
    assert not [p for p in Path(cache.path).rglob("*") if "tmp" in p.parent.name and p.is_file()]


def test_a_cleared_function_is_computed_again(cache):
    f = cache.memoize(lambda x: x)
    f(1)
    f.clear()
    f(1)
    cache.clear()
    f(1)
    assert computed(f) == 3
    assert len(entries(cache)) == 1


def module_function(x, y=0):
    return np.arange(x) + y


def test_a_cached_function_survives_pickling(cache):
    f = cache.memoize(module_function)
    f(3)
    g = pickle.loads(pickle.dumps(f))
    assert g(3).tolist() == [0, 1, 2]
    assert g.stats().computed == 0
    assert g.key(3) == f.key(3)


def test_the_cache_directory_says_that_it_is_one(cache):
    assert Path(cache.path, "CACHEDIR.TAG").is_file()


def test_deleting_entries_by_hand_is_a_miss(cache):
    f = npcache.Cache(cache.path, memory_bytes=0).memoize(lambda: np.arange(3), version="")
    f()
    for entry in entries(cache):
        os.remove(entry)
    f()
    assert f.stats().calls == 2
    assert len(entries(cache)) <= 1


def test_default_arguments_that_are_arrays(cache):
    f = cache.memoize(lambda x, a=np.arange(3): x + a)  # noqa: B008
    assert f(1).tolist() == f(1, np.arange(3)).tolist() == [1, 2, 3]
    assert computed(f) == 1


def test_signature_is_kept(cache):
    import inspect

    f = cache.memoize(module_function)
    assert str(inspect.signature(f)) == "(x, y=0)"
    assert f.__name__ == "module_function"


def test_many_threads_on_one_memory(cache):
    f = cache.memoize(module_function)
    results = []
    threads = [threading.Thread(target=lambda: results.append(f(5).sum())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [10] * 10
    assert computed(f) == 1


def test_the_main_modules_functions_are_found_by_another_run(tmp_path):
    import subprocess

    program = tmp_path / "run.py"
    program.write_text(
        f"import npcache\ncache = npcache.Cache({str(tmp_path / 'cache')!r})\n"
        "@cache.memoize\ndef f(x):\n    return x + 1\nprint(f(1), cache.stats().computed)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(npcache.__file__).parents[1])}
    runs = [subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True)]
    program.write_text("# edited\n\n" + program.read_text())
    runs.append(
        subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True)
    )
    assert [run.stdout for run in runs] == ["2 1\n", "2 0\n"]
